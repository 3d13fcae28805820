"""What a check of the doctor is: its result, its time limit, and what checks share."""

from __future__ import annotations

import enum
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from tools.core.errors import PipelineError
from tools.core.secrets import redact
from tools.core.settings import Settings, load
from tools.repo import context
from tools.repo.event import Event


class Status(enum.StrEnum):
    """How a check ended."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"
    NOT_APPLICABLE = "not applicable"


@dataclass(frozen=True)
class Result:
    """What a check found.

    Attributes:
        status: How it ended.
        sentence: What was found, one sentence.
        remedy: What to do, one sentence; empty where there is nothing to do.
        looked_at: What it looked at: a path, an address, a variable.
        detail: Lines that help further.
        seconds: How long it took.
        name: The check's name.
    """

    status: Status
    sentence: str
    remedy: str = ""
    looked_at: str = ""
    detail: str = ""
    seconds: float = 0.0
    name: str = ""

    def to_json(self) -> dict[str, Any]:
        """The result as plain data."""
        return {**asdict(self), "status": str(self.status)}


def ok(sentence: str, looked_at: str = "") -> Result:
    """All is well."""
    return Result(Status.OK, sentence, "", looked_at)


def warning(sentence: str, remedy: str = "", looked_at: str = "") -> Result:
    """Something will be missing or slow, but the work can be done."""
    return Result(Status.WARNING, sentence, remedy, looked_at)


def problem(sentence: str, remedy: str, looked_at: str = "", detail: str = "") -> Result:
    """The work would fail."""
    return Result(Status.PROBLEM, sentence, remedy, looked_at, detail)


def not_applicable(sentence: str, looked_at: str = "") -> Result:
    """There is nothing to check."""
    return Result(Status.NOT_APPLICABLE, sentence, "", looked_at)


def from_error(error: PipelineError, looked_at: str = "") -> Result:
    """The problem that a session would end with: the very same sentence and remedy."""
    return problem(error.message, error.remedy, looked_at, error.detail)


class Subject:
    """What is examined: one checkout in one environment. Shared by all checks.

    Args:
        root: The checkout.
        env: The environment.
        sessions: The sessions that are asked about; empty for all.
    """

    def __init__(
        self, root: Path, env: Mapping[str, str], sessions: Sequence[str] = ()
    ) -> None:
        self.root = root
        self.env = dict(env)
        self.sessions = tuple(sessions)
        self._lock = threading.Lock()
        self._made: dict[str, Future[Any]] = {}

    def once(self, name: str, make: Callable[[], Any]) -> Any:
        """The value of ``make``, called once however many threads ask; its error, too."""
        with self._lock:
            known = name in self._made
            future = self._made.setdefault(name, Future())
        if not known:
            try:
                future.set_result(make())
            except BaseException as error:
                future.set_exception(error)
        return future.result()

    @property
    def settings(self) -> Settings:
        """All settings (UsageError if one is wrong)."""
        found: Settings = self.once("settings", lambda: load(self.env, self.root))
        return found

    @property
    def event(self) -> Event:
        """The current event (UsageError if it cannot be read)."""
        found: Event = self.once("event", lambda: context.current_event(self.env, self.root))
        return found

    @property
    def repository(self) -> str:
        """``owner/name`` on GitHub; empty if nothing tells."""
        return self.env.get("GITHUB_REPOSITORY", "") or self.event.repository

    def wants(self, *sessions: str) -> bool:
        """Whether one of these sessions was asked about by name."""
        return bool(set(sessions) & set(self.sessions))


@dataclass(frozen=True)
class Check:
    """One small check.

    Attributes:
        name: What it is called.
        about: What it makes sure of, half a sentence.
        run: Finds out. A PipelineError that it raises becomes its problem.
        sessions: Sessions that need it; empty for all of them.
        needs: Checks that must not have ended with a problem before.
        limit: Seconds that it may take.
    """

    name: str
    about: str
    run: Callable[[Subject], Result]
    sessions: frozenset[str] = frozenset()
    needs: tuple[str, ...] = ()
    limit: float = 10.0


def select(checks: Sequence[Check], sessions: Sequence[str]) -> list[Check]:
    """The checks that these sessions need, and those that these need; all if none is given."""
    if not sessions:
        return list(checks)
    by_name = {check.name: check for check in checks}
    wanted = [c for c in checks if not c.sessions or c.sessions & set(sessions)]
    names = {check.name for check in wanted}
    while more := {need for name in names for need in by_name[name].needs} - names:
        names |= more
    return [check for check in checks if check.name in names]


def _examine(check: Check, subject: Subject) -> Result:
    """One check, whatever happens in it."""
    try:
        return check.run(subject)
    except PipelineError as error:
        return from_error(error)
    except Exception as error:
        # A fault of the check must not hide what the others find.
        return problem(
            f"The check itself broke: {type(error).__name__}: {redact(str(error))}.",
            "Report it with the output of --debug; the other checks are not affected.",
        )


@dataclass
class _Running:
    """A check under way: it began at ``started``; ``blocked_by`` keeps it from beginning."""

    check: Check
    started: float = 0.0
    ended: threading.Event = field(default_factory=threading.Event)
    result: Result | None = None
    blocked_by: str = ""


def examine(checks: Sequence[Check], subject: Subject) -> list[Result]:
    """Run all checks at the same time, each as soon as those that it needs have ended.

    A check that takes longer than its limit is a problem, and is waited for no longer;
    one whose needs have a problem is not applicable.

    Args:
        checks: In an order in which those needed come first.
        subject: What is examined.
    """
    by_name: dict[str, _Running] = {}

    def follow(running: _Running, needs: list[_Running]) -> None:
        for needed in needs:
            _await(needed)
            running.blocked_by = needed.blocked_by
            if needed.result is None or needed.result.status is Status.PROBLEM:
                running.blocked_by = needed.check.name
            if running.blocked_by:
                sentence = f"Not checked, because of the problem with {running.blocked_by}."
                running.result = not_applicable(sentence)
                running.ended.set()
                return
        running.started = time.monotonic()
        found = _examine(running.check, subject)
        # Too late: this check has been given up.
        if running.result is None:
            running.result = replace(found, seconds=time.monotonic() - running.started)
        running.ended.set()

    for check in checks:
        running = by_name[check.name] = _Running(check)
        needs = [by_name[name] for name in check.needs if name in by_name]
        threading.Thread(target=follow, args=(running, needs), daemon=True).start()
    for running in by_name.values():
        _await(running)
    return [replace(r.result, name=n) for n, r in by_name.items() if r.result is not None]


def _await(running: _Running) -> None:
    """Wait for a check to end, no longer than its limit from when it began."""
    while not running.ended.wait(0.02 if not running.started else _left(running)):
        if running.started and _left(running) <= 0:
            limit = running.check.limit
            running.result = running.result or replace(
                problem(
                    f"No answer within {limit:.0f} s.",
                    "See whether the network, a proxy or the engine keeps it waiting.",
                ),
                seconds=limit,
            )
            running.ended.set()


def _left(running: _Running) -> float:
    return max(0.0, running.started + running.check.limit - time.monotonic())
