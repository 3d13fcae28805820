"""Keeping within GitHub's secondary limits by ourselves, instead of running into them.

Source: GitHub REST API documentation, "Rate limits for the REST API", "About secondary
rate limits" and "Calculating points": no more than 900 points a minute (a GET is 1, a
change 5), no more than 100 requests at once, no more than 90 seconds of processor time in
60 seconds, which the response times estimate.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator

from tools.core.errors import PipelineError

WINDOW = 60.0  # seconds that the limits count over
POINTS = 900
READ_POINTS = 1
CHANGE_POINTS = 5
BUSY_SECONDS = 90.0
# One answer never counts more than this: GitHub ends a request after ten seconds, and
# what lasts longer was a wait of our own.
LONGEST_ANSWER = 10.0


class Pacer:
    """Lets requests through as fast as the limits allow.

    Args:
        points: Points a minute; 0 for a server without limits (GitHub Enterprise).
        at_once: Most requests at the same time.
        clock: Seconds, monotonic.
        wait: Waits for the event, or so many seconds.

    Attributes:
        stop: When set, nobody gets a turn any more.
    """

    def __init__(
        self,
        points: int = POINTS,
        at_once: int = 16,
        clock: Callable[[], float] = time.monotonic,
        wait: Callable[[threading.Event, float], object] = threading.Event.wait,
    ) -> None:
        self.points = points
        self._clock = clock
        self._wait = wait
        self.stop = threading.Event()
        self._lock = threading.Lock()
        self._slots = threading.BoundedSemaphore(at_once)
        self._spent: deque[tuple[float, float]] = deque()
        self._busy: deque[tuple[float, float]] = deque()
        self._under_way = 0

    @contextlib.contextmanager
    def turn(self, points: int) -> Iterator[None]:
        """Wait for the turn of a request that costs ``points``; send it inside.

        Raises:
            PipelineError: The work was given up.
        """
        with self._slots:
            while not self.stop.is_set() and (wait := self._take(points)) > 0:
                self._wait(self.stop, wait)
            if self.stop.is_set():
                raise PipelineError("The work was given up.")
            started = self._clock()
            try:
                yield
            finally:
                self._end(points, started)

    def _take(self, points: int) -> float:
        """Take the points and return 0, or return how long to wait."""
        if not self.points:
            return 0.0
        with self._lock:
            now = self._clock()
            wait = max(
                self._until(self._spent, now, self.points - points - self._under_way),
                self._until(self._busy, now, BUSY_SECONDS),
            )
            if wait <= 0:
                self._under_way += points
            return wait

    def _end(self, points: int, started: float) -> None:
        """Count a request that was answered.

        Its minute begins with the answer: GitHub counts it when it comes, which is some
        time after we sent it.
        """
        if not self.points:
            return
        with self._lock:
            ended = self._clock()
            self._under_way -= points
            self._spent.append((ended, points))
            self._busy.append((ended, min(ended - started, LONGEST_ANSWER)))

    def _until(self, kept: deque[tuple[float, float]], now: float, limit: float) -> float:
        """Seconds until what counts within the window is no more than ``limit``."""
        while kept and kept[0][0] <= now - WINDOW:
            kept.popleft()
        over = sum(amount for _, amount in kept) - limit
        for when, amount in kept:
            if over <= 0:
                break
            over -= amount
            if over <= 0:
                return when + WINDOW - now + 0.001
        # What is under way alone is too much: look again soon.
        return 0.05 if over > 0 else 0.0

    def seconds_for(self, count: int, points: int) -> float:
        """How long ``count`` such requests must take at least, from a fresh start."""
        if not self.points:
            return 0.0
        return max(0.0, (count * points - self.points) / self.points * WINDOW)
