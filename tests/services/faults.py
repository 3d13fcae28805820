"""Faults for the simulated services: what goes wrong with which request."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

ACTIONS = {
    "status",  # answer with a status, not acting
    "reset-before",  # reset the connection, not acting
    "reset-after",  # act, then reset the connection instead of answering
    "stall-before",  # never answer, not acting
    "stall-after",  # act, then never answer
    "delay",  # act ``seconds`` late
    "half-read",  # read half of the body, then reset
    "half-answer",  # act, then answer half of the body and close
    "call-before",  # call ``hook``, then act
    "call-after",  # act, call ``hook``, then answer
}


@dataclass
class Fault:
    """One thing that goes wrong.

    Attributes:
        action: One of :data:`ACTIONS`.
        kind: Operation that it befalls, such as ``repos/create-release``; ``*`` for any.
        nth: Which of the requests of that kind, from 1; 0 for every one.
        status: For ``status``.
        data: Body of a ``status`` answer.
        headers: Further headers of a ``status`` answer.
        seconds: For ``delay``.
        hook: For ``call-before`` and ``call-after``.
    """

    action: str
    kind: str = "*"
    nth: int = 1
    status: int = 500
    data: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    hook: Callable[[], None] | None = None

    def __post_init__(self) -> None:
        if self.action not in ACTIONS:
            raise ValueError(f"no such fault: {self.action}")


class Faults:
    """The script: which requests came so far, and what befalls the next one."""

    def __init__(self, script: list[Fault] | None = None) -> None:
        self.script = list(script or [])
        self.fired: list[Fault] = []
        self._seen: Counter[str] = Counter()
        self._lock = threading.Lock()

    def next(self, kind: str) -> list[Fault]:
        """Count a request of this kind; the faults that befall it."""
        with self._lock:
            self._seen[kind] += 1
            self._seen["*"] += 1
            found = [
                fault
                for fault in self.script
                if fault.kind in {kind, "*"} and fault.nth in {0, self._seen[fault.kind]}
            ]
            self.fired += found
            return found


# Answers of the usual kinds.


def limited(in_seconds: int) -> Fault:
    """A used-up primary rate limit that resets in so many seconds."""
    return Fault(
        "status",
        status=403,
        data={"message": "API rate limit exceeded for user ID 1.", "status": "403"},
        headers={
            "x-ratelimit-limit": "5000",
            "x-ratelimit-remaining": "0",
            "x-ratelimit-reset": str(int(time.time()) + in_seconds),
        },
    )


def already_exists(resource: str, name: str) -> Fault:
    """A validation error that says that something of that name is there."""
    return Fault(
        "status",
        status=422,
        data={
            "message": "Validation Failed",
            "errors": [{"resource": resource, "code": "already_exists", "field": name}],
            "documentation_url": "https://docs.github.com/rest",
            "status": "422",
        },
    )
