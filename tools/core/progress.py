"""Progress of long work: a bar on a terminal, a plain line now and then elsewhere."""

import contextlib
import time
from collections.abc import Callable, Iterator

from tools.core import console

EVERY = 10.0  # seconds between two plain lines
Report = Callable[[int, int], None]  # takes how much is done, and of how much


def human_time(seconds: float) -> str:
    """A duration as a person reads it: ``45 s``, ``12 min``, ``1 h 05 min``."""
    whole = int(seconds + 0.5)
    if whole < 90:
        return f"{whole} s"
    minutes = (whole + 30) // 60
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


@contextlib.contextmanager
def progress(what: str, clock: Callable[[], float] = time.monotonic) -> Iterator[Report]:
    """Show how far work is; call the result with (done, total). ``what`` is being done."""
    if console.is_terminal():
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

        columns = ("{task.description}", BarColumn(), MofNCompleteColumn())
        output = Console(stderr=True)
        with Progress(*columns, TimeRemainingColumn(), console=output, transient=True) as bar:
            task = bar.add_task(what, total=None)
            yield lambda done, total: bar.update(task, completed=done, total=total)
        return
    began = last = clock()

    def line(done: int, total: int) -> None:
        nonlocal last
        if clock() - last >= EVERY:
            last = clock()
            left = (last - began) / done * (total - done) if done else 0.0
            console.say(f"{what} {done} of {total}, about {human_time(left)} left")

    yield line
