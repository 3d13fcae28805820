"""Progress of long work: a bar on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Protocol

from tools.core import console

EVERY = 10.0  # seconds between two plain lines


class Report(Protocol):
    """Takes how much is done, and of how much."""

    def __call__(self, done: int, total: int) -> None: ...


def human_time(seconds: float) -> str:
    """A duration as a person reads it: ``45 s``, ``12 min``, ``1 h 05 min``."""
    whole = int(seconds + 0.5)
    if whole < 90:
        return f"{whole} s"
    minutes = (whole + 30) // 60
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def time_left(done: int, total: int, elapsed: float, least: float = 0.0) -> float:
    """Seconds that the rest will take: at the speed so far, and no less than ``least``."""
    speed = elapsed / done * (total - done) if done else 0.0
    return max(speed, least)


@contextlib.contextmanager
def progress(
    what: str,
    least: Callable[[int], float] = lambda _rest: 0.0,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[Report]:
    """Show how far work is; call the result with (done, total).

    Args:
        what: What is being done: ``deleted``.
        least: The shortest time in seconds that so many further items can take.
        clock: Seconds, monotonic.
    """
    if console.is_terminal():
        with _bar(what) as report:
            yield report
        return
    began = last = clock()

    def line(done: int, total: int) -> None:
        nonlocal last
        if clock() - last < EVERY:
            return
        last = clock()
        left = human_time(time_left(done, total, last - began, least(total - done)))
        console.say(f"{what} {done} of {total}, about {left} left")

    yield line


@contextlib.contextmanager
def _bar(what: str) -> Iterator[Report]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    columns = ("{task.description}", BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as drawn:
        task = drawn.add_task(what, total=None)

        def report(done: int, total: int) -> None:
            drawn.update(task, completed=done, total=total)

        yield report
