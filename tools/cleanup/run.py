"""Carrying a plan out: delete in order, look again, and heal what a push needed after all.

A version is deleted only after its parents (and subjects) are gone: whenever the work
ends, no tag has lost a part. What GitHub refuses to delete keeps all that it needs.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field

from tools.cleanup.package import side_by_side
from tools.cleanup.plan import Deletion, Graph, Package, Plan, Version
from tools.core.errors import PipelineError
from tools.github.errors import GitHubError
from tools.github.packages import LastVersion, Packages, TooManyDownloads
from tools.registry.client import NotFound, Registry, RegistryError

# The plan is looked at again after so many seconds, or after this many times what a look
# takes, whichever is more: of a large package the listing itself uses up limits.
LOOK_AGAIN = 60.0
LOOK_SHARE = 10.0


@dataclass
class Outcome:
    """What became of a plan.

    Attributes:
        deleted: What is gone.
        skipped: Digest to GitHub's reason for keeping it.
        failed: Digest to what went wrong.
        saved: Digest to why it stays: something needs it now, or what needs it stays.
        stopped: Why the work ended early; empty if it did not.
    """

    deleted: dict[str, Version] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    saved: dict[str, str] = field(default_factory=dict)
    stopped: str = ""

    @property
    def settled(self) -> int:
        """How many versions need no more work."""
        return len(self.deleted) + len(self.skipped) + len(self.failed) + len(self.saved)


class Carrier:
    """Carries a plan out.

    Args:
        plan: The plan.
        delete: Deletes a version; see :meth:`Packages.delete` for what it raises.
        look_again: Digests that may still go, decided anew.
        give_up: Called when the work ends early: requests that wait must not be sent.
        workers: Deletions at a time; the pacer bounds them further.
        told: Called with the outcome so far, after each step.
        clock: Seconds, monotonic.
    """

    def __init__(
        self,
        plan: Plan,
        delete: Callable[[Version], None],
        look_again: Callable[[], Collection[str]],
        *,
        give_up: Callable[[], None] = lambda: None,
        workers: int = 16,
        told: Callable[[Outcome], None] = lambda _outcome: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.outcome = Outcome()
        self._delete = delete
        self._look_again = look_again
        self._give_up = give_up
        self._workers = workers
        self._told = told
        self._clock = clock
        self._todo: dict[str, Deletion] = {d.version.digest: d for d in plan.deletions}
        self._missing = {d: len(one.after) for d, one in self._todo.items() if one.after}
        self._waiters: dict[str, list[str]] = {}
        for digest, one in self._todo.items():
            for other in one.after:
                self._waiters.setdefault(other, []).append(digest)
        self._ready = deque(d for d in self._todo if d not in self._missing)
        self._running: dict[Future[None], str] = {}
        self._look_at = 0.0

    def run(self) -> Outcome:
        """Delete all that can be deleted.

        Raises:
            PipelineError: The package could not be looked at again; nothing more is
                deleted then.
            KeyboardInterrupt: After the requests that were under way.
        """
        try:
            with ThreadPoolExecutor(self._workers) as pool:
                try:
                    while self._ready or self._running:
                        self._look()
                        self._start(pool)
                        self._gather()
                except BaseException:
                    pool.shutdown(wait=False, cancel_futures=True)
                    self._give_up()
                    raise
        finally:
            # What was under way may have been carried out.
            for future, digest in self._running.items():
                if not future.cancelled() and future.exception() is None:
                    self.outcome.deleted[digest] = self._todo[digest].version
        return self.outcome

    def _look(self) -> None:
        """Decide anew when it is time; no deletion is under way meanwhile."""
        if self._clock() < self._look_at or not self._ready:
            return
        while self._running:
            self._gather()
        began = self._clock()
        still = self._look_again()
        took = self._clock() - began
        self._look_at = self._clock() + max(LOOK_AGAIN, LOOK_SHARE * took)
        for digest in list(self._todo):
            if digest not in still:
                self._spare(digest, "something needs it now")

    def _start(self, pool: ThreadPoolExecutor) -> None:
        while self._ready and len(self._running) < self._workers:
            if self.outcome.stopped:
                self._ready.clear()
                return
            digest = self._ready.popleft()
            one = self._todo.get(digest)
            if one is not None:
                self._running[pool.submit(self._delete, one.version)] = digest

    def _gather(self) -> None:
        """Wait for some deletion to end, and draw its consequences."""
        if not self._running:
            return
        done, _ = wait(self._running, return_when=FIRST_COMPLETED)
        for future in done:
            digest = self._running.pop(future)
            self._settle(digest, future)
        self._told(self.outcome)

    def _settle(self, digest: str, future: Future[None]) -> None:
        outcome = self.outcome
        error = future.exception()
        if error is None:
            outcome.deleted[digest] = self._todo.pop(digest).version
            for other in self._waiters.get(digest, ()):
                if other in self._todo:
                    self._missing[other] -= 1
                    if not self._missing[other]:
                        self._ready.append(other)
            return
        if isinstance(error, TooManyDownloads | LastVersion):
            outcome.skipped[digest] = str(error)
        elif isinstance(error, GitHubError):
            outcome.failed[digest] = error.message
            # A wrong token, or a limit that outlasts our patience: no use to go on.
            if error.limited or error.status in (401, 403):
                outcome.stopped = outcome.stopped or error.message
                self._give_up()
        elif isinstance(error, PipelineError) and outcome.stopped:
            # It waited for its turn and was not sent: the next run does it.
            pass
        else:
            raise error
        self._todo.pop(digest)
        self._spare_waiters(digest)

    def _spare(self, digest: str, reason: str) -> None:
        if self._todo.pop(digest, None) is not None:
            self.outcome.saved[digest] = reason
            self._spare_waiters(digest)

    def _spare_waiters(self, digest: str) -> None:
        """What waits for a version that stays, stays as well, and what waits for that."""
        queue = deque(self._waiters.get(digest, ()))
        while queue:
            other = queue.popleft()
            if self._todo.pop(other, None) is not None:
                self.outcome.saved[other] = "what needs it stays"
                queue.extend(self._waiters.get(other, ()))


# --- afterwards --------------------------------------------------------------


@dataclass(frozen=True)
class Check:
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


def walk_tags(registry: Registry, name: str, package: Package, workers: int = 32) -> Check:
    """Ask the registry for every part of every tag, each manifest once.

    Raises:
        RegistryError: The login is not accepted any more.
    """
    graph = Graph(package)
    needs = {
        tag: tuple(graph.reach(version.digest))
        for version in package.versions.values()
        for tag in version.tags
    }
    wanted = dict.fromkeys(digest for parts in needs.values() for digest in parts)
    missing: set[str] = set()
    unknown: dict[str, str] = {}

    def ask(digest: str) -> RegistryError | None:
        try:
            registry.head(name, digest)
        except RegistryError as error:
            return error
        return None

    for digest, error in side_by_side(ask, wanted, workers):
        if isinstance(error, NotFound):
            missing.add(digest)
        elif error is not None:
            unknown[digest] = error.message
    broken = {
        tag: lacking
        for tag, parts in needs.items()
        if (lacking := tuple(digest for digest in parts if digest in missing))
    }
    return Check(len(needs), broken, unknown, len(wanted))


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
            packages.restore(Version(deleted[digest], digest))
        except GitHubError as error:
            failed[digest] = error.message
        else:
            back.append(digest)
    return back, failed
