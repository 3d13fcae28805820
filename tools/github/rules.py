"""When to try GitHub again, and where the token may go (pure, but for the clock).

Sources: GitHub REST API documentation, "Best practices for using the REST API", "Rate
limits for the REST API", "Using pagination in the REST API"; backoff with full jitter:
AWS Architecture Blog, "Exponential Backoff And Jitter".
"""

from __future__ import annotations

import contextlib
import email.utils
import json
import random
import re
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from tools.github.errors import is_limit

FIRST_BACKOFF = 1.0
LONGEST_BACKOFF = 60.0
# What GitHub asks to wait at least after a secondary limit that names no time.
SECONDARY_WAIT = 60.0


@dataclass(frozen=True)
class Clock:
    """Time and chance, so that tests need neither wait nor be lucky."""

    monotonic: Callable[[], float] = time.monotonic
    now: Callable[[], float] = time.time
    wait: Callable[[threading.Event, float], Any] = threading.Event.wait
    uniform: Callable[[float, float], float] = random.uniform


@dataclass(frozen=True)
class Response:
    """An answer: HTTP status, headers (names in small letters), parsed JSON or None."""

    status: int
    headers: Mapping[str, str]
    data: Any = None


@dataclass
class Patience:
    """How long the whole client has been in trouble, bounded by a limit in seconds.

    Only the time in which some request is being retried counts, and once however many
    threads are retrying: a long upload that goes well uses none of it up.
    """

    limit: float
    clock: Clock
    lock: threading.Lock = field(default_factory=threading.Lock)
    troubled: int = 0
    since: float = 0.0
    spent: float = 0.0

    def start(self) -> None:
        """A request has failed for the first time."""
        with self.lock:
            if self.troubled == 0:
                self.since = self.clock.monotonic()
            self.troubled += 1

    def end(self) -> None:
        """That request is through, one way or the other."""
        with self.lock:
            self.troubled -= 1
            if self.troubled == 0:
                self.spent += self.clock.monotonic() - self.since

    def left(self) -> float:
        """Seconds that may still be spent."""
        with self.lock:
            running = self.clock.monotonic() - self.since if self.troubled else 0.0
            return self.limit - self.spent - running


def backoff(attempt: int, uniform: Callable[[float, float], float]) -> float:
    """Seconds before another try: anything up to 1, 2, 4 ... 60 (full jitter)."""
    return uniform(0.0, min(LONGEST_BACKOFF, FIRST_BACKOFF * 2.0 ** min(attempt, 30)))


def _seconds(value: str, now: float) -> float | None:
    """Seconds that a ``Retry-After`` header asks for: a number or a date (RFC 9110)."""
    if value.strip().isdecimal():
        return float(value)
    with contextlib.suppress(ValueError, TypeError):
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - now)
    return None


def server_time(headers: Mapping[str, str], otherwise: float) -> float:
    """Seconds since the epoch by GitHub's clock (``Date``); ours may be wrong."""
    with contextlib.suppress(ValueError, TypeError):
        return email.utils.parsedate_to_datetime(headers.get("date", "")).timestamp()
    return otherwise


def wait_of(answer: Response, attempt: int, clock: Clock) -> float | None:
    """Seconds to wait before a refused request is sent again; None if it is hopeless.

    Args:
        answer: The refusal.
        attempt: How many tries have failed before this one.
        clock: Time and chance.
    """
    headers = answer.headers
    now = server_time(headers, clock.now())
    limited = is_limit(answer.status, headers, answer.data)
    if not limited and answer.status < 500 and answer.status != 408:
        return None
    jitter = backoff(attempt, clock.uniform)
    asked = _seconds(headers["retry-after"], now) if "retry-after" in headers else None
    if asked is not None:
        return asked + jitter
    if not limited:
        return jitter
    reset = headers.get("x-ratelimit-reset", "")
    if headers.get("x-ratelimit-remaining") == "0" and reset.isdecimal():
        # One second more: the reset falls somewhere within the second that it names.
        return max(0.0, float(reset) - now) + 1.0 + jitter
    return SECONDARY_WAIT * 2.0 ** min(attempt, 10) + jitter


def pages_by_number(
    first: Response, size: int, read: Callable[[int], Response]
) -> Iterator[Response]:
    """The pages after one that has no ``Link`` header: none, unless it is full.

    There is no header where all fits on one page, or where a proxy has taken it away: a
    full page is followed until one is not.

    Args:
        first: The first page.
        size: Items of a full page.
        read: Asks for a page by its number, from 1.
    """
    page, number = first, 1
    while isinstance(page.data, list) and len(page.data) == size:
        number += 1
        before, page = page.data, read(number)
        if page.data == before:
            return  # a server that has no pages
        yield page


def next_page(link: str) -> str | None:
    """The address of the next page in a ``Link`` header (RFC 8288), if there is one."""
    for part in link.split(","):
        match = re.match(r'\s*<([^>]*)>\s*;.*\brel="?next"?', part)
        if match:
            return match.group(1)
    return None


def upload_host_allowed(api: str, upload: str) -> bool:
    """Whether the token may go to an upload address that the API named.

    Allowed are the API's own host (GitHub Enterprise Server) and its sibling
    ``uploads.`` of ``api.`` (github.com, ghe.com), never by a weaker scheme.
    """
    ours, theirs = urllib.parse.urlparse(api), urllib.parse.urlparse(upload)
    if theirs.scheme != ours.scheme:
        return False
    host = ours.hostname or ""
    sibling = f"uploads.{host.removeprefix('api.')}" if host.startswith("api.") else host
    same_port = theirs.port == ours.port
    return (theirs.hostname == host and same_port) or (
        theirs.hostname == sibling != host and same_port
    )


def parse_body(text: str) -> Any:
    """Parsed JSON; None for an empty body; the text for what is no JSON."""
    if not text:
        return None
    try:
        return json.loads(text)
    except ValueError:
        return text
