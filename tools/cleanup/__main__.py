"""The session ``cleanup``: old, untagged versions of the container package go.

``nox -s cleanup -- [--keep N] [--grace DURATION] [--older-than DURATION]
[--tags-matching PATTERN] [--keep-tags PATTERN] [--dry-run] [--json]``; see
docs/cleanup.md for what is kept and why.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

from tools.cleanup.cache import Cache, load
from tools.cleanup.package import Reader
from tools.cleanup.plan import (
    DAY,
    Package,
    Policy,
    make_plan,
    short,
    still_doomed,
)
from tools.cleanup.report import Report, show_plan, tell
from tools.cleanup.run import Carrier, Check, restore, walk_tags
from tools.core import console
from tools.core.cli import main as run_main
from tools.core.cli import parser
from tools.core.errors import PipelineError, UsageError
from tools.core.progress import human_time, progress
from tools.core.settings import Settings
from tools.core.settings import load as load_settings
from tools.core.settings import parse_duration
from tools.github.errors import GitHubError
from tools.github.old import GitHub
from tools.github.pacing import CHANGE_POINTS, Pacer
from tools.github.packages import Packages
from tools.registry.client import NotFound, Registry, connect
from tools.registry.manifest import is_loopback

READERS = 32
DELETERS = 16
# How often what is broken afterwards is brought back and looked at again.
HEALINGS = 3


# --- arguments ---------------------------------------------------------------


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 0 on")
    return int(text)


def _duration(text: str) -> float:
    try:
        return parse_duration(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not {error}") from error


def _arguments() -> argparse.ArgumentParser:
    made = parser("cleanup", "Delete old, untagged versions of the container package.")
    made.add_argument(
        "--keep", type=_count, default=10, metavar="N",
        help="keep the newest N images without a tag, with all their parts (10)",
    )  # fmt: skip
    made.add_argument(
        "--grace", type=_duration, default=DAY, metavar="DURATION",
        help="keep what was changed within this time: a push in progress (1d)",
    )  # fmt: skip
    made.add_argument(
        "--older-than", type=_duration, default=0.0, metavar="DURATION",
        help="delete only what was not changed for this long, such as 30d",
    )  # fmt: skip
    made.add_argument(
        "--tags-matching", action="append", default=[], metavar="PATTERN",
        help="delete tagged images too, if all their tags match (pr-*); may be repeated",
    )  # fmt: skip
    made.add_argument(
        "--keep-tags", action="append", default=[], metavar="PATTERN",
        help="never delete what has such a tag; may be repeated",
    )  # fmt: skip
    made.add_argument("--dry-run", action="store_true", help="show the plan, delete nothing")
    made.add_argument("--json", action="store_true", help="print the report as JSON on stdout")
    return made


def _policy(given: argparse.Namespace) -> Policy:
    return Policy(
        keep=given.keep,
        grace=given.grace,
        older_than=given.older_than,
        tags_matching=tuple(given.tags_matching),
        keep_tags=tuple(given.keep_tags),
        now=time.time(),
    )


def check_settings(settings: Settings) -> None:
    """Refuse settings with which GitHub and the registry would not be about one package.

    Raises:
        UsageError: The token is missing, the image has no owner, or the registry is not
            the one of this GitHub.
    """
    if not settings.gh_token:
        raise UsageError(
            "No token is set, and GitHub lists a package's versions to nobody without one.",
            "Set GH_TOKEN to a token with read:packages and delete:packages; on Actions"
            " give the job packages: write and pass secrets.GITHUB_TOKEN.",
        )
    if "/" not in settings.image_name:
        raise UsageError(
            f"The image name {settings.image_name} has no owner.",
            "Set IMAGE_NAME to owner/name.",
        )
    is_public = urlsplit(settings.github_api_url).hostname == "api.github.com"
    if is_public and settings.registry != "ghcr.io" and not is_loopback(settings.registry):
        raise UsageError(
            f"{settings.registry} is not GitHub's registry: its images are no GitHub packages.",
            "Set REGISTRY to ghcr.io, or use that registry's own retention rules.",
        )


def cache_path(settings: Settings) -> Path | None:
    """Where the manifests of the settings' image are kept."""
    if settings.manifest_cache == "none":
        return None
    folder = Path(settings.manifest_cache) if settings.manifest_cache else _cache_folder()
    return folder / (settings.image.replace("/", "_").replace(":", "_") + ".json.gz")


def _cache_folder() -> Path:
    given = os.environ.get("XDG_CACHE_HOME") or os.environ.get("LOCALAPPDATA")
    base = Path(given) if given else Path.home() / ".cache"
    return base / "mlc-pipeline" / "manifests"


# --- the work ----------------------------------------------------------------


class Cleanup:
    """One run.

    Args:
        settings: Image, registry, token.
        policy: What is kept.
        github: Client of the API.
        registry: Client of the registry.
    """

    def __init__(
        self, settings: Settings, policy: Policy, github: GitHub, registry: Registry
    ) -> None:
        self.settings = settings
        self.policy = policy
        self.registry = registry
        self.name = settings.image_name
        self.pacer = Pacer(settings.github_points_per_minute, DELETERS)
        self.packages = Packages(github, settings.image_name, self.pacer)
        self.cache: Cache = load(cache_path(settings), settings.image)
        self.reader = Reader(self.packages, registry, self.name, self.cache, READERS)

    def run(self, dry_run: bool) -> Report | None:
        """Read, decide, and unless ``dry_run`` delete and verify.

        Returns:
            The report; None if there is no such package.

        Raises:
            PipelineError: GitHub or the registry cannot be read.
        """
        package = self._read_first()
        if package is None:
            return None
        report = Report(self.settings.image, package, make_plan(package, self.policy), dry_run)
        show_plan(report)
        self._note_problems(report)
        if not dry_run:
            try:
                self._heal(report, report.plan.broken)
                if report.plan.deletions:
                    self._carry_out(report)
                    self._verify(report)
            finally:
                self._save(report)
        else:
            self._save(report)
        report.requests = {
            "pages": self.packages.listed_pages,
            "manifests": self.reader.manifests_read,
            "deletes": len(report.outcome.deleted) + len(report.outcome.skipped),
            "verified": report.check.requests if report.check else 0,
        }
        return report

    def _read_first(self) -> Package | None:
        try:
            with progress("manifests read:") as told:
                self.reader.told = told
                return self.reader.read(self.policy)
        except GitHubError as error:
            if error.status != 404 or not self._is_absent():
                raise
            return None

    def _is_absent(self) -> bool:
        """Whether the registry has no such repository either (a 404 can mean no rights)."""
        try:
            self.registry.tags(self.name)
        except NotFound:
            return True
        return False

    def _note_problems(self, report: Report) -> None:
        undecided = report.plan.undecided
        if undecided:
            digest, reason = next(iter(undecided.items()))
            what = "Nothing they could reach is deleted"
            report.problems.append(
                f"{len(undecided)} manifests could not be read, {short(digest)} for one:"
                f" {reason} {what}; run it again."
            )

    def _carry_out(self, report: Report) -> None:
        total = len(report.plan.deletions)
        least = human_time(self.pacer.seconds_for(total, CHANGE_POINTS))
        console.say(f"deleting {total} versions; GitHub's limits ask for at least {least}")

        def rest(count: int) -> float:
            return self.pacer.seconds_for(count, CHANGE_POINTS)

        with progress("deleted", rest) as told:
            carrier = Carrier(
                report.plan,
                self.packages.delete,
                lambda: self._still_doomed(report),
                give_up=self._give_up,
                workers=DELETERS,
                told=lambda outcome: told(outcome.settled, total),
            )
            # Kept even if the work breaks off: what was deleted must be known.
            report.outcome = carrier.outcome
            carrier.run()
        outcome = report.outcome
        if outcome.stopped:
            report.problems.append(f"The work ended early: {outcome.stopped}")
        elif outcome.failed:
            first = next(iter(outcome.failed.values()))
            report.problems.append(f"{len(outcome.failed)} deletions failed: {first}")

    def _give_up(self) -> None:
        self.pacer.stop.set()
        self.packages.github.stop.set()

    def _still_doomed(self, report: Report) -> set[str]:
        """What of the plan a new look at the package would delete as well."""
        # Written again and again: a run that is killed must leave what it deleted.
        self._save(report)
        planned = {one.version.digest for one in report.plan.deletions}
        return still_doomed(self.reader.read(self.policy), self.policy, planned)

    def _verify(self, report: Report) -> None:
        """Walk every tag; bring back what a push needs that came while we deleted."""
        for _ in range(HEALINGS):
            after = self._read_after(report)
            check = walk_tags(self.registry, self.name, after, READERS)
            report.check = replace(check, unknown={**after.unreadable, **check.unknown})
            new = {t: p for t, p in check.broken.items() if t not in report.plan.broken}
            if not new or report.outcome.stopped or not self._heal(report, new):
                break
        if report.check is not None:
            self._judge(report, report.check)

    def _read_after(self, report: Report) -> Package:
        """The package as it is now; if GitHub does not tell, what must be left of it."""
        if not report.outcome.stopped:
            try:
                return self.reader.read(replace(self.policy, now=time.time()))
            except GitHubError as error:
                report.problems.append(f"New tags could not be verified: {error.message}")
        gone = report.outcome.deleted
        versions = {d: v for d, v in report.package.versions.items() if d not in gone}
        return replace(report.package, versions=versions)

    def _judge(self, report: Report, check: Check) -> None:
        """Note what the registry lacks, and had or should have."""
        broken = {t: p for t, p in check.broken.items() if t not in report.plan.broken}
        if broken:
            tags = ", ".join(list(broken)[:5])
            report.problems.append(f"Tags that were whole, or are new, now lack parts: {tags}.")
        if check.unknown:
            first = next(iter(check.unknown.values()))
            report.problems.append(f"Not all tags could be verified: {first}")

    def _heal(self, report: Report, broken: Mapping[str, tuple[str, ...]]) -> bool:
        """Restore what broken tags lack and we, now or in an earlier run, deleted."""
        ours = {d: number for d, (number, _) in self.cache.deleted.items()}
        ours |= {d: version.id for d, version in report.outcome.deleted.items()}
        lacking = [digest for parts in broken.values() for digest in parts]
        back, failed = restore(self.packages, lacking, ours)
        report.restored += back
        for digest, reason in failed.items():
            report.problems.append(f"{short(digest)} could not be brought back: {reason}")
        if back:
            console.warn(f"Brought back {len(back)} versions that a new tag needs.")
        return bool(back)

    def _save(self, report: Report) -> None:
        now = time.time()
        deleted = {d: (v.id, now) for d, v in report.outcome.deleted.items()}
        self.cache.deleted |= deleted
        for digest in report.restored:
            self.cache.deleted.pop(digest, None)
        there = set(report.package.versions) - set(self.cache.deleted)
        self.cache.save(there, now)


# --- the command line ---------------------------------------------------------


def _work(given: argparse.Namespace) -> int:
    policy = _policy(given)
    settings = load_settings()
    check_settings(settings)
    with GitHub.from_settings(settings) as github:
        registry = connect(settings, os.environ.get("GITHUB_ACTOR", ""), READERS)
        report = Cleanup(settings, policy, github, registry).run(given.dry_run)
    if report is None:
        console.say(f"{settings.image}: there is no such package yet, nothing to do")
        if given.json:
            console.emit_json({"image": settings.image, "versions": 0, "delete": []})
        return 0
    tell(report)
    if given.json:
        console.emit_json(report.to_json())
    if report.problems:
        raise PipelineError(report.problems[0], "", "\n".join(report.problems[1:]))
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; see the module's text."""
    return run_main(_arguments(), argparse.Namespace, _work, arguments)


if __name__ == "__main__":
    sys.exit(main())
