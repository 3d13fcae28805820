"""What the doctor's checks share: their outcomes, facts found out once, and their run."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import NamedTuple, TypeVar, cast

from tools.core import process
from tools.core.errors import PipelineError
from tools.core.secrets import redact
from tools.core.settings import Settings, load

THREADS = 64  # more than there are checks and facts: none waits for a thread
OK, WARNING, PROBLEM, SKIPPED = "ok", "warning", "problem", "skipped"
T = TypeVar("T")


class Caution(PipelineError):
    """Something will be missing or slow, but the work can be done: a warning."""


class Skipped(PipelineError):
    """There is nothing to check, or it cannot be checked."""


@dataclass(frozen=True)
class DoctorCheck:
    """What became of a check: its status, a sentence, what to do, lines that help further."""

    name: str
    status: str
    sentence: str
    remedy: str = ""
    detail: str = ""


class Subject:
    """What is examined: a checkout, an environment, the sessions asked about (none: all).

    All checks together may take ``seconds``.
    """

    def __init__(
        self,
        root: Path,
        env: Mapping[str, str],
        sessions: Sequence[str] = (),
        seconds: float = 15,
    ) -> None:
        self.root, self.env, self.sessions = root, dict(env), frozenset(sessions)
        self.seconds, self._ends = seconds, time.monotonic() + seconds
        self.pool = ThreadPoolExecutor(THREADS)
        self._lock = Lock()
        self._facts: dict[object, Future[object]] = {}
        self._late: dict[object, PipelineError] = {}

    def left(self) -> float:
        """Seconds until the deadline."""
        return max(0.0, self._ends - time.monotonic())

    def late(self) -> PipelineError:
        """The error of what has not ended by then."""
        remedy = "See whether the network, a proxy or the engine keeps it waiting."
        return PipelineError(f"No answer within {self.seconds:.0f} s.", remedy)

    def get(self, fact: Callable[[Subject], T]) -> T:
        """What ``fact`` finds out, once however many checks ask; its error is one, too."""
        with self._lock:
            if fact not in self._facts:
                self._facts[fact] = self.pool.submit(fact, self)
            future = self._facts[fact]
        if not wait([future], self.left()).done:
            raise self._late.setdefault(fact, self.late())
        return cast(T, future.result())

    @property
    def settings(self) -> Settings:
        """All settings (UsageError if one is wrong)."""
        return self.get(_settings)


def _settings(subject: Subject) -> Settings:
    return load(subject.env, subject.root)


class Check(NamedTuple):
    """A check, and the sessions that need it (none: all). It returns a sentence if all is
    well, else it raises what a session would raise: in the same words.
    """

    name: str
    run: Callable[[Subject], str]
    sessions: frozenset[str] = frozenset()


def examine(checks: Sequence[Check], subject: Subject) -> list[DoctorCheck]:
    """Run all checks at the same time, no longer than the subject's deadline.

    If several end with the same error, that of a fact that they share, it is the problem
    of the first; the others are skipped.
    """
    running = {check.name: subject.pool.submit(check.run, subject) for check in checks}
    # Those that wait for a fact that is late end right after the deadline.
    if wait(running.values(), subject.left() + 1).not_done:
        process.end_all(grace=0)
    subject.pool.shutdown(wait=False)
    owners: dict[BaseException, str] = {}
    results = []
    for name, future in running.items():
        error = future.exception() if future.done() else subject.late()
        if error is None:
            results.append(DoctorCheck(name, OK, future.result()))
        elif (owner := owners.setdefault(error, name)) != name:
            sentence = f"Not checked, because of the problem with {owner}."
            results.append(DoctorCheck(name, SKIPPED, sentence))
        else:
            results.append(_of_error(name, error))
    return results


def _of_error(name: str, error: BaseException) -> DoctorCheck:
    if not isinstance(error, PipelineError):  # must not hide what the others find
        sentence = f"The check itself broke: {type(error).__name__}: {redact(str(error))}."
        remedy = "Report it with the output of --debug; the other checks are not affected."
        return DoctorCheck(name, PROBLEM, sentence, remedy)
    kinds = {Caution: WARNING, Skipped: SKIPPED}
    status = kinds.get(type(error), PROBLEM)
    return DoctorCheck(name, status, error.message, error.remedy, error.detail)
