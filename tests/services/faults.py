"""Faults for the simulated services: what goes wrong with which request."""

import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
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
    """One thing that goes wrong."""

    action: str  # one of ACTIONS
    kind: str = "*"  # operation that it befalls, such as repos/create-release; * for any
    nth: int = 1  # which of the requests of that kind; 0 for every one
    status: int = 500  # for status, with its body and further headers:
    data: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    seconds: float = 0.0  # for delay
    hook: Callable[[], None] | None = None  # for call-before and call-after

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
            found = [f for f in self.script if f.kind in {kind, "*"}]
            found = [f for f in found if f.nth in {0, self._seen[f.kind]}]
            self.fired += found
            return found


def limited(in_seconds: int) -> Fault:
    """A used-up primary rate limit that resets in so many seconds."""
    headers = {
        "x-ratelimit-limit": "5000",
        "x-ratelimit-remaining": "0",
        "x-ratelimit-reset": str(int(time.time()) + in_seconds),
    }
    data = {"message": "API rate limit exceeded for user ID 1.", "status": "403"}
    return Fault("status", status=403, data=data, headers=headers)


def already_exists(resource: str, name: str) -> Fault:
    """A validation error that says that something of that name is there."""
    error = {"resource": resource, "code": "already_exists", "field": name}
    data = {"message": "Validation Failed", "errors": [error], "status": "422"}
    return Fault("status", status=422, data=data)


def reset(handler: BaseHTTPRequestHandler) -> None:
    """End a connection with a TCP reset, as a crashed peer or a firewall does."""
    linger = struct.pack("ii", 1, 0)
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    handler.close_connection = True
    socket.socket(fileno=handler.connection.detach()).close()
