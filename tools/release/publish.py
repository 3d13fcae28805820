"""Draft, upload, verify, publish: a release is complete and verified, or not visible.

What makes it safe to kill, to repeat and to race:

- A run changes drafts that bear its own mark alone. Runs that share a mark never run at the
  same time, so nobody takes an asset away from a draft that is about to be visible.
- A draft becomes visible only after a fresh listing has shown every asset uploaded, with
  the right size and digest.
- GitHub refuses a second published release of a tag; who comes second compares.
- Every attempt begins with what GitHub has, so a failure is answered by another attempt.
"""

from __future__ import annotations

import hashlib
import platform
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from github.GitRelease import GitRelease
from github.GitReleaseAsset import GitReleaseAsset
from github.Repository import Repository

from tools.core import console
from tools.core.errors import PipelineError
from tools.github.errors import GitHubError, refusals
from tools.release.contents import Asset, ReleasePlan, is_latest
from tools.release.transfer import Transfer
from tools.repo.versions import parse_tag

FILLS = 3
PAUSES = (1.0, 4.0, 15.0, 60.0)  # seconds between attempts

T = TypeVar("T")


@dataclass(frozen=True)
class PublishResult:
    """How it ended: ``published`` or ``nothing to do``; where the release is; its number."""

    what: str
    url: str
    id: int


def draft_mark(root: Path, env: Mapping[str, str]) -> str:
    """Whose a draft is, as a comment that Markdown does not show.

    The attempts of a run on Actions have one mark; GitHub never runs two of them at once.
    So have all runs in one checkout, which a lock keeps apart.
    """
    checkout = f"{platform.node()}:{uuid.getnode()}:{root.resolve()}"
    owner = f"checkout {hashlib.sha256(checkout.encode()).hexdigest()[:16]}"
    if env.get("GITHUB_RUN_ID"):
        owner = f"run {env['GITHUB_RUN_ID']} of {env.get('GITHUB_JOB', '')}"
    return f"<!-- mlc-llm-pipeline: {owner} -->"


def persist(what: str, attempt: Callable[[], T]) -> T:
    """Attempt something that begins with what GitHub has, again where a failure may pass.

    Args:
        what: What is attempted, as an error's sentence names it.
        attempt: It.

    Raises:
        GitHubError: It was refused, or the last attempt failed.
    """
    pauses = iter(PAUSES)
    while True:
        try:
            with refusals(what):
                return attempt()
        except GitHubError as error:
            # What exists already: an upload whose response was lost, or the release of a
            # run that was faster.
            may_pass = error.acted or "already_exists" in error.codes
            pause = next(pauses, None)
            if error.limited or not may_pass or pause is None:
                raise
            console.say(f"{error.message} Looking again in {pause:.0f} s.")
            time.sleep(pause)


def unless_missing(request: Callable[[], T]) -> T | None:
    """What a request gives; None if what it is about does not exist."""
    try:
        with refusals():
            return request()
    except GitHubError as error:
        if error.status != 404:
            raise
        return None


@dataclass
class Publisher:
    """Publishes one plan.

    Attributes:
        repository: The repository on GitHub.
        transfer: Sends and reads files.
        plan: What to publish.
        mark: What our drafts bear.
        published: Number of the draft that was made visible.
        deleted: Assets that count as deleted: the request may be carried out late.
    """

    repository: Repository
    transfer: Transfer
    plan: ReleasePlan
    mark: str
    published: int = 0
    deleted: set[int] = field(default_factory=set)

    def attempt(self) -> PublishResult:
        """From what GitHub has to a visible release with the planned assets.

        Raises:
            PipelineError: It is published with other content, or cannot be completed.
        """
        release = unless_missing(lambda: self.repository.get_release(self.plan.tag))
        if release is None:
            draft = self.continue_or_create()
            self.fill(draft)
            self.published = draft.id
            release = self.make_visible(draft)
        self.check_published(release)
        for draft in self.own_drafts():  # of a lost race, or of a lost response
            unless_missing(draft.delete_release)
        what = "published" if release.id == self.published else "nothing to do"
        return PublishResult(what, release.html_url, release.id)

    def own_drafts(self) -> list[GitRelease]:
        """Drafts of the tag that bear our mark; lists alone show drafts."""
        drafts = [release for release in self.repository.get_releases() if release.draft]
        drafts = [draft for draft in drafts if draft.tag_name == self.plan.tag]
        return [draft for draft in drafts if self.mark in (draft.body or "")]

    def continue_or_create(self) -> GitRelease:
        """The draft that an earlier attempt left, else a new one."""
        if drafts := self.own_drafts():
            console.say(f"continuing the draft {drafts[0].id} of an earlier attempt")
            return drafts[0]
        return self.repository.create_git_release(
            self.plan.tag,
            self.plan.tag,
            f"{self.plan.notes}\n{self.mark}",
            draft=True,
            prerelease=self.plan.prerelease,
            target_commitish=self.plan.commit,
        )

    def make_visible(self, draft: GitRelease) -> GitRelease:
        """Publish a verified draft; GitHub refuses if the tag was published meanwhile."""
        published = [r.tag_name for r in self.repository.get_releases() if not r.draft]
        latest = is_latest(parse_tag(self.plan.tag), published)
        return draft.update_release(
            self.plan.tag,
            self.plan.notes,
            draft=False,
            prerelease=self.plan.prerelease,
            tag_name=self.plan.tag,
            target_commitish=self.plan.commit,
            make_latest="true" if latest else "false",
        )

    def check_published(self, release: GitRelease) -> None:
        """Refuse a published release with other assets: users may have them already.

        Raises:
            PipelineError: The assets differ.
        """
        wrong, missing = self.compare(release)
        lines = [f"- there: {a.name}, {a.size} bytes, {a.digest or a.state}" for a in wrong]
        lines += [f"- here: {a.name}, {a.size} bytes, sha256:{a.sha256}" for a in missing]
        if lines:
            raise PipelineError(
                f"{self.plan.tag} is published with other content: {release.html_url}.",
                "Publish a new version.",
                "\n".join(lines),
            )

    def fill(self, draft: GitRelease) -> None:
        """Make the draft's assets those of the plan; ends with a listing that shows it.

        Raises:
            PipelineError: An asset is wrong time and again.
        """
        for _ in range(FILLS):
            wrong, missing = self.compare(draft)
            if not wrong and not missing:
                console.say(f"verified: {len(self.plan.assets)} assets, by size and digest")
                return
            for asset in wrong:
                console.say(f"deleting {asset.name} ({asset.state}, {asset.size} bytes)")
                self.deleted.add(asset.id)
                unless_missing(asset.delete_asset)
            self.transfer.upload(draft.upload_url, missing)
        raise PipelineError(
            f"The assets of {self.plan.tag} are wrong after {FILLS} tries.",
            "Check that dist/release/ does not change meanwhile, and GitHub's status.",
        )

    def compare(self, release: GitRelease) -> tuple[list[GitReleaseAsset], list[Asset]]:
        """What a release has that is wrong, and what it lacks, by a fresh listing."""
        expected = {asset.name: asset for asset in self.plan.assets}
        wrong = []
        for there in release.get_assets():
            if self.is_right(there, expected.get(there.name)):
                del expected[there.name]
            else:
                wrong.append(there)
        return wrong, list(expected.values())

    def is_right(self, there: GitReleaseAsset, here: Asset | None) -> bool:
        """Whether an asset is complete and has the planned bytes."""
        if here is None or there.state != "uploaded" or there.id in self.deleted:
            return False
        digest = there.digest or self.transfer.digest(there.url)
        return (there.size, digest) == (here.size, f"sha256:{here.sha256}")
