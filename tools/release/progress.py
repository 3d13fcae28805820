"""Progress of uploads: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from tools.core.console import human_size, is_terminal, say
from tools.core.errors import PipelineError

LINE_EVERY = 10.0  # seconds between plain lines


class Meter:
    """Bytes sent so far, of all files together; safe between threads.

    Args:
        total: Bytes to send.
        show: Called with the change in bytes; None to print plain lines.
        monotonic: The clock.
    """

    def __init__(
        self,
        total: int,
        show: Callable[[int], None] | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.total = total
        self.done = 0
        self._show = show
        self._monotonic = monotonic
        self._started = self._said = monotonic()
        self._lock = threading.Lock()

    def advance(self, count: int) -> None:
        """Count bytes; negative ones take back what has to be sent again."""
        with self._lock:
            self.done += count
            now = self._monotonic()
            due = self._show is None and now - self._said >= LINE_EVERY
            if due:
                self._said = now
        if self._show is not None:
            self._show(count)
        elif due:
            say(self.line(now))

    def line(self, now: float) -> str:
        """Bytes, rate and time left, in words."""
        rate = self.done / max(now - self._started, 1e-9)
        left = (self.total - self.done) / rate if rate > 0 else 0.0
        return (
            f"uploaded {human_size(self.done)} of {human_size(self.total)}"
            f" ({100 * self.done / max(self.total, 1):.0f} %),"
            f" {human_size(rate)}/s, {left:.0f} s left"
        )


@contextlib.contextmanager
def progress(total: int, title: str) -> Iterator[Meter]:
    """Show the progress of an upload while it runs.

    Args:
        total: Bytes to send.
        title: What is sent.
    """
    if not is_terminal():
        yield Meter(total)
        return
    from rich.console import Console  # takes long to load, and is needed here alone
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(title, total=total)
        yield Meter(total, lambda count: bar.advance(task, count))


class Body:
    """A file that is read as it is sent, and counted.

    Args:
        path: The file.
        size: Its bytes, which it must still have.
        meter: Counts.
        stop: Set to break off.
    """

    def __init__(self, path: Path, size: int, meter: Meter, stop: threading.Event) -> None:
        self.sent = 0
        self._size = size
        self._meter = meter
        self._path = path
        self._stop = stop
        self._file: BinaryIO = path.open("rb")

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[bytes]:
        while piece := self.read(1 << 16):
            yield piece

    def read(self, count: int = -1) -> bytes:
        """The next bytes.

        Raises:
            PipelineError: The file has become shorter, or the work was given up.
        """
        if self._stop.is_set():
            raise PipelineError("The upload was given up.")
        left = self._size - self.sent
        piece = self._file.read(left if count < 0 else min(count, left))
        if not piece and left:
            raise PipelineError(f"{self._path.name} changed while it was uploaded.")
        self.sent += len(piece)
        self._meter.advance(len(piece))
        return piece

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def take_back(self) -> None:
        """Uncount what was sent: it has to be sent again."""
        self._meter.advance(-self.sent)
