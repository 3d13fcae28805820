"""The session ``cleanup``: old, untagged versions of the container package go.

See docs/cleanup.md for what is kept and why.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

from github import Github

from tools.cleanup import memory
from tools.cleanup.package import Package, short
from tools.cleanup.plan import DAY, Policy, make_plan
from tools.cleanup.read import Reader
from tools.cleanup.report import CleanupResult, report, show_plan
from tools.cleanup.run import carry_out, restore, walk_tags
from tools.core import cli, console
from tools.core.errors import PipelineError, UsageError
from tools.core.progress import human_time, progress
from tools.core.settings import Settings, load, parse_duration
from tools.github.client import connect as connect_github
from tools.github.errors import GitHubError
from tools.github.packages import Packages, PackageVersion
from tools.registry.client import NotFound, Registry, connect
from tools.registry.manifest import is_loopback

DELETE_POINTS = 5  # of GitHub's points a minute ("Calculating points")
ROUNDS = 3  # how often what is broken afterwards is restored and looked at again


def whole(text: str) -> int:
    """A whole number from 0 on; ValueError otherwise."""
    if not text.isdecimal():
        raise ValueError("a whole number from 0 on")
    return int(text)


@dataclass(frozen=True)
class Options:
    """What the command line asks for."""

    keep: int = cli.option(
        10,
        "keep the newest N images without a tag, with all their parts",
        type=whole,
        metavar="N",
    )
    grace: float = cli.option(
        DAY,
        "keep what was changed within: a push (1d)",
        type=parse_duration,
        metavar="DURATION",
    )
    older_than: float = cli.option(
        0.0, "delete only what was not changed for", type=parse_duration, metavar="DURATION"
    )
    tags_matching: tuple[str, ...] = cli.option(
        (),
        "delete tagged images too, if all their tags match (pr-*); repeatable",
        metavar="PATTERN",
    )
    keep_tags: tuple[str, ...] = cli.option(
        (), "never delete what has such a tag; repeatable", metavar="PATTERN"
    )
    dry_run: bool = cli.option(False, "show the plan, delete nothing")
    json: bool = cli.option(False, "print the report as JSON on stdout")


def work(options: Options) -> None:
    """Read, decide, delete, verify, report."""
    settings = load()
    check_settings(settings)
    policy = Policy(
        keep=options.keep,
        grace=options.grace,
        older_than=options.older_than,
        tags_matching=options.tags_matching,
        keep_tags=options.keep_tags,
        now=time.time(),
    )
    github = connect_github(settings, seconds_between_deletes(settings))
    registry = connect(settings, os.environ.get("GITHUB_ACTOR", ""))
    result = Cleanup(settings, policy, github, registry).run(options.dry_run)
    if result is None:
        console.say(f"{settings.image}: there is no such package yet, nothing to do")
    else:
        report(result)
    if options.json:
        none = {"image": settings.image, "versions": 0, "delete": []}
        console.emit_json(result.to_json() if result else none)
    if result and result.problems:
        raise PipelineError(result.problems[0], "", "\n".join(result.problems[1:]))


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


def seconds_between_deletes(settings: Settings) -> float:
    """The pace that keeps within GitHub's points a minute."""
    points = settings.github_points_per_minute
    return 60 * DELETE_POINTS / points if points else 0.0


def memory_path(settings: Settings) -> Path | None:
    """Where a run remembers the settings' image."""
    if settings.manifest_cache == "none":
        return None
    base = os.environ.get("XDG_CACHE_HOME") or os.environ.get("LOCALAPPDATA")
    folder = (Path(base) if base else Path.home() / ".cache") / "mlc-pipeline" / "manifests"
    if settings.manifest_cache:
        folder = Path(settings.manifest_cache)
    return folder / (settings.image.replace("/", "_").replace(":", "_") + ".json.gz")


class Cleanup:
    """One run.

    Args:
        settings: Image, registry, token.
        policy: What is kept.
        github: Client of the API.
        registry: Client of the registry.
    """

    def __init__(
        self, settings: Settings, policy: Policy, github: Github, registry: Registry
    ) -> None:
        self.settings = settings
        self.policy = policy
        self.registry = registry
        self.packages = Packages(github, settings.image_name)
        self.memory = memory.load(memory_path(settings), settings.image)
        self.reader = Reader(self.packages, registry, self.memory)
        self.unrestored: dict[str, str] = {}  # digest to what GitHub said at the last try

    def run(self, dry_run: bool) -> CleanupResult | None:
        """Read, decide, and unless ``dry_run`` delete and verify.

        Returns:
            The result; None if there is no such package.

        Raises:
            PipelineError: GitHub or the registry cannot be read.
        """
        with console.step("read the package"):
            package = self._read_first()
        if package is None:
            return None
        plan = make_plan(package, self.policy)
        result = CleanupResult(self.settings.image, package, plan, dry_run)
        show_plan(result)
        self._note_undecided(result)
        try:
            if not dry_run:
                self._restore(result, plan.broken)
            if not dry_run and plan.to_delete:
                with console.step(f"delete {len(plan.to_delete)} versions"):
                    self._delete(result)
                with console.step("verify the tags"):
                    self._verify(result)
        finally:
            self._remember(result)
        for digest, reason in self.unrestored.items():
            result.problems.append(f"{short(digest)} could not be brought back: {reason}")
        result.requests = {
            "pages": self.packages.listed_pages,
            "manifests": self.reader.manifests_read,
            "deletes": len(result.outcome.deleted) + len(result.outcome.skipped),
            "verified": result.check.requests if result.check else 0,
        }
        return result

    def _read_first(self) -> Package | None:
        try:
            with progress("manifests read:") as self.reader.report:
                return self.reader.read(self.policy)
        except GitHubError as error:
            if error.status != 404:
                raise
            try:
                self.registry.tags(self.packages.image)
            except NotFound:
                return None  # neither has it: a 404 of GitHub alone can mean no rights
            raise

    def _note_undecided(self, result: CleanupResult) -> None:
        if undecided := result.plan.undecided:
            digest, reason = next(iter(undecided.items()))
            result.problems.append(
                f"{len(undecided)} manifests could not be read, {short(digest)} for one:"
                f" {reason} Nothing they could reach is deleted; run it again."
            )

    def _delete(self, result: CleanupResult) -> None:
        outcome, total = result.outcome, len(result.plan.to_delete)
        pace = seconds_between_deletes(self.settings)
        console.say(f"GitHub's limits ask for at least {human_time(total * pace)}")
        planned = {one.digest for one in result.plan.to_delete}

        def look_again() -> set[str]:
            # Written again and again: a run that is killed must leave what it deleted.
            self._remember(result)
            plan = make_plan(self.reader.read(self.policy), self.policy, within=planned)
            return {one.digest for one in plan.to_delete}

        with progress("deleted", lambda rest: rest * pace) as shown:

            def delete(version: PackageVersion) -> None:
                shown(outcome.settled, total)
                self.packages.delete(version)

            carry_out(result.plan, outcome, delete, look_again)
        if outcome.stopped:
            result.problems.append(f"The work ended early: {outcome.stopped}")
        elif outcome.failed:
            first = next(iter(outcome.failed.values()))
            result.problems.append(f"{len(outcome.failed)} deletions failed: {first}")

    def _verify(self, result: CleanupResult) -> None:
        """Walk every tag; bring back what a push needs that came while we deleted."""
        for _ in range(ROUNDS):
            after = self._read_after(result)
            check = walk_tags(self.registry, self.packages.image, after)
            check = replace(check, unknown={**after.unreadable, **check.unknown})
            result.check = check
            new = {t: p for t, p in check.broken.items() if t not in result.plan.broken}
            if not new or result.outcome.stopped or not self._restore(result, new):
                break
        # A restoration without a response may have worked: what is there is not a problem.
        lacking = {digest for parts in check.broken.values() for digest in parts}
        self.unrestored = {d: why for d, why in self.unrestored.items() if d in lacking}
        if new:
            tags = ", ".join(list(new)[:5])
            result.problems.append(f"Tags that were whole, or are new, now lack parts: {tags}.")
        if check.unknown:
            first = next(iter(check.unknown.values()))
            result.problems.append(f"Not all tags could be verified: {first}")

    def _read_after(self, result: CleanupResult) -> Package:
        """The package as it is now; if GitHub does not tell, what must be left of it."""
        if not result.outcome.stopped:
            try:
                return self.reader.read(replace(self.policy, now=time.time()))
            except GitHubError as error:
                result.problems.append(f"New tags could not be verified: {error.message}")
        before, gone = result.package, result.outcome.deleted
        versions = {d: v for d, v in before.versions.items() if d not in gone}
        return Package(versions, before.links, before.unreadable, before.gone)

    def _restore(self, result: CleanupResult, broken: Mapping[str, tuple[str, ...]]) -> bool:
        """Restore what broken tags lack and we, now or in an earlier run, deleted.

        Returns:
            Whether there was such a thing: then the tags are to be looked at again.
        """
        ours = {digest: number for digest, (number, _) in self.memory.deleted.items()}
        lacking = [digest for parts in broken.values() for digest in parts]
        back, failed = restore(self.packages, lacking, ours | result.outcome.deleted)
        result.restored += back
        for digest in back:
            self.unrestored.pop(digest, None)
        self.unrestored |= failed
        if back:
            console.warn(f"Brought back {len(back)} versions that a new tag needs.")
        return bool(back or failed)

    def _remember(self, result: CleanupResult) -> None:
        now = time.time()
        deleted = self.memory.deleted
        deleted |= {digest: (number, now) for digest, number in result.outcome.deleted.items()}
        for digest in result.restored:
            deleted.pop(digest, None)
        there = result.package.versions.keys() - deleted.keys()
        memory.save(memory_path(self.settings), self.memory, there, now)


main = cli.command(
    "cleanup", "Delete old, untagged versions of the container package.", Options, work
)


if __name__ == "__main__":
    sys.exit(main())
