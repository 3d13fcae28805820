"""Draft, upload, verify, publish: a release is complete and verified, or not visible.

What makes it safe to kill, to repeat and to race:

- A run changes drafts that bear its own mark alone. Runs that share a mark never run at the
  same time, so nobody takes an asset away from a draft that is about to be visible.
- A draft becomes visible only after a fresh listing has shown every asset uploaded, with
  the right size and digest.
- GitHub refuses a second published release of a tag; who comes second compares.
- Every attempt begins with what GitHub has, so a failure is answered by another attempt.
"""

import contextlib
import hashlib
import platform
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from github import UnknownObjectException
from github.GitRelease import GitRelease
from github.GitReleaseAsset import GitReleaseAsset
from github.Repository import Repository

from tools.core import console
from tools.core.errors import PipelineError
from tools.github.errors import GitHubError, refusals
from tools.release.contents import Asset, ReleasePlan
from tools.release.transfer import Transfer
from tools.repo.versions import TagVersion, known_versions, parse_tag

FILLS = 3
PAUSES = (1.0, 4.0, 15.0, 60.0)  # seconds between attempts

T = TypeVar("T")


@dataclass(frozen=True)
class PublishResult:
    """How it ended."""

    what: str  # published, or nothing to do
    url: str  # the release's page


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


def is_latest(version: TagVersion, published: Iterable[str]) -> bool:
    """Whether a release gets the mark of the latest: the highest stable version has it.

    ``published`` are the tags of all published releases, versions or not.
    """
    stable = [other for other in known_versions(published) if not other.is_prerelease]
    return not version.is_prerelease and all(o.version <= version.version for o in stable)


def persist(what: str, attempt: Callable[[], T]) -> T:
    """Attempt something (``what``, in an error's sentence) that begins with what GitHub has,
    again where a failure may pass (GitHubError if it was refused, or the last one failed).
    """
    for pause in PAUSES:
        try:
            with refusals(what):
                return attempt()
        except GitHubError as error:
            # What exists already: an upload whose response was lost, or the release of a
            # run that was faster.
            may_pass = error.acted or "already_exists" in error.codes
            if error.limited or not may_pass:
                raise
            console.say(f"{error.message} Looking again in {pause:.0f} s.")
            time.sleep(pause)
    with refusals(what):
        return attempt()


@dataclass
class Publisher:
    """Publishes one plan."""

    repository: Repository  # on GitHub
    transfer: Transfer
    plan: ReleasePlan
    mark: str  # what our drafts bear
    published: int = 0  # number of the draft that was made visible
    # Assets that count as deleted: GitHub may carry the request out late.
    deleted: set[int] = field(default_factory=set)

    def attempt(self) -> PublishResult:
        """From what GitHub has to a visible release with the planned assets (PipelineError if
        it has others, or cannot be completed).
        """
        release = None
        with contextlib.suppress(UnknownObjectException):
            release = self.repository.get_release(self.plan.tag)
        if release is None:
            draft = self.continue_or_create()
            self.fill(draft)
            self.published = draft.id
            release = self.make_visible(draft)
        self.check_published(release)
        for draft in self.own_drafts():  # of a lost race, or of a lost response
            with contextlib.suppress(UnknownObjectException):
                draft.delete_release()
        what = "published" if release.id == self.published else "nothing to do"
        return PublishResult(what, release.html_url)

    def own_drafts(self) -> list[GitRelease]:
        """Drafts of the tag that bear our mark; lists alone show drafts."""
        releases = self.repository.get_releases()
        drafts = [r for r in releases if r.draft and r.tag_name == self.plan.tag]
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

    def fill(self, draft: GitRelease) -> None:
        """Make the draft's assets those of the plan; ends with a listing that shows it, or
        PipelineError where one is wrong time and again.
        """
        for _ in range(FILLS):
            wrong, missing = self.compare(draft)
            if not wrong and not missing:
                console.say(f"verified: {len(self.plan.assets)} assets, by size and digest")
                return
            for asset in wrong:
                console.say(f"deleting {asset.name} ({asset.state}, {asset.size} bytes)")
                self.deleted.add(asset.id)
                with contextlib.suppress(UnknownObjectException):
                    asset.delete_asset()
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
            here = expected.get(there.name)
            whole = here and there.state == "uploaded" and there.id not in self.deleted
            digest = whole and (there.digest or self.transfer.digest(there.url))
            if here and (there.size, digest) == (here.size, f"sha256:{here.sha256}"):
                del expected[there.name]
            else:
                wrong.append(there)
        return wrong, list(expected.values())

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
        """Refuse a published release with other assets (PipelineError): users may have them
        already.
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
