"""Carrying a plan out: delete in order, look again, verify, and restore what a push needed.

A version is deleted only after its parents (and subjects) are gone: whenever the work
ends, no tag has lost a part. What GitHub refuses to delete keeps all that it needs. One at a
time is as fast as GitHub's limit allows (180 deletes a minute).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field

from tools.cleanup.package import Package
from tools.cleanup.plan import CleanupPlan
from tools.cleanup.read import side_by_side
from tools.github.errors import GitHubError
from tools.github.packages import KeptByGitHub, Packages, PackageVersion
from tools.registry.client import NotFound, Registry, RegistryError

# The plan is looked at again after so many seconds, or after this many times what a look
# takes, whichever is more: of a large package the listing itself uses up limits.
LOOK_AGAIN = 60.0
LOOK_SHARE = 10.0


@dataclass
class Outcome:
    """What became of a plan.

    Attributes:
        deleted: Digest to GitHub's number of what is gone.
        skipped: Digest to GitHub's reason for keeping it.
        failed: Digest to what went wrong.
        saved: Digest to why it stays: something needs it now, or what needs it stays.
        stopped: Why the work ended early; empty if it did not.
    """

    deleted: dict[str, int] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    saved: dict[str, str] = field(default_factory=dict)
    stopped: str = ""

    @property
    def settled(self) -> int:
        """How many versions need no more work."""
        return len(self.deleted) + len(self.skipped) + len(self.failed) + len(self.saved)

    def stays(self, digest: str) -> bool:
        """Whether it was decided that a version stays."""
        return digest in self.skipped or digest in self.failed or digest in self.saved


def carry_out(
    plan: CleanupPlan,
    outcome: Outcome,
    delete: Callable[[PackageVersion], None],
    look_again: Callable[[], Collection[str]],
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Delete all that can be deleted.

    Args:
        plan: The plan.
        outcome: Filled in as it goes on: what was deleted is known however this ends.
        delete: Deletes a version; see :meth:`Packages.delete`.
        look_again: Digests that may still go, decided anew.
        clock: Seconds, monotonic.

    Raises:
        PipelineError: The package could not be looked at again; nothing more is deleted.
    """
    allowed: Collection[str] = ()
    look_at = clock()
    for deletion in plan.to_delete:
        digest = deletion.digest
        if clock() >= look_at:
            began = clock()
            allowed = look_again()
            look_at = clock() + max(LOOK_AGAIN, LOOK_SHARE * (clock() - began))
        if digest not in allowed:
            outcome.saved[digest] = "something needs it now"
        elif any(outcome.stays(other) for other in deletion.after):
            outcome.saved[digest] = "what needs it stays"
        else:
            _delete(PackageVersion(deletion.id, digest), outcome, delete)
        if outcome.stopped:
            return


def _delete(
    version: PackageVersion, outcome: Outcome, delete: Callable[[PackageVersion], None]
) -> None:
    digest = version.digest
    outcome.deleted[digest] = version.id  # also where we are interrupted: it may be gone
    try:
        delete(version)
    except KeptByGitHub as error:
        del outcome.deleted[digest]
        outcome.skipped[digest] = str(error)
    except GitHubError as error:
        del outcome.deleted[digest]
        outcome.failed[digest] = error.message
        # A wrong token, or a limit that outlasts the deadline: no use to go on.
        if error.limited or error.status in (401, 403):
            outcome.stopped = str(error)


# --- afterwards --------------------------------------------------------------


@dataclass(frozen=True)
class TagCheck:
    """What the registry has of the tags, after the work.

    Attributes:
        tags: How many tags were walked.
        broken: Tag to the digests that it lacks.
        unknown: Digest to why the registry did not tell.
        requests: How many requests that took.
    """

    tags: int
    broken: Mapping[str, tuple[str, ...]]
    unknown: Mapping[str, str]
    requests: int


def walk_tags(registry: Registry, name: str, package: Package) -> TagCheck:
    """Ask the registry for every part of every tag, each manifest once.

    Raises:
        Unauthorised: The login is not accepted any more.
    """
    needs = package.needs()
    digests = list(dict.fromkeys(digest for parts in needs.values() for digest in parts))
    missing: set[str] = set()
    unknown: dict[str, str] = {}

    def ask(digest: str) -> RegistryError | None:
        try:
            registry.head(name, digest)
        except RegistryError as error:
            return error
        return None

    for digest, error in side_by_side(ask, digests):
        if isinstance(error, NotFound):
            missing.add(digest)
        elif error is not None:
            unknown[digest] = error.message
    lacking = {tag: tuple(d for d in parts if d in missing) for tag, parts in needs.items()}
    broken = {tag: parts for tag, parts in lacking.items() if parts}
    return TagCheck(len(needs), broken, unknown, len(digests))


def restore(
    packages: Packages, lacking: Iterable[str], deleted: Mapping[str, int]
) -> tuple[list[str], dict[str, str]]:
    """Bring back what tags lack and a run has deleted.

    Args:
        packages: The package.
        lacking: Digests that tags lack.
        deleted: Digest to GitHub's number of what was deleted.

    Returns:
        Digests that are back, and digest to error of those that are not.
    """
    back: list[str] = []
    failed: dict[str, str] = {}
    # Parts come after what lists them: a registry may want them to be there first.
    for digest in reversed(list(dict.fromkeys(lacking))):
        if digest not in deleted:
            continue
        try:
            packages.restore(PackageVersion(deleted[digest], digest))
            back.append(digest)
        except GitHubError as error:
            failed[digest] = error.message
    return back, failed
