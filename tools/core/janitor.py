"""What must be undone is undone, also when we are killed.

A small process of its own waits at the end of a pipe. It is told what is owed (a folder,
a container, a tree of processes), and what is paid when it is gone again; when the pipe
closes, because we ended in whatever way, it removes what is still owed.

It runs isolated (``python -I``), as a file: nothing of ours is imported here.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    import psutil


def tree(pid: int) -> list[psutil.Process]:
    """A process, what it started, and on POSIX whatever else lives in its session.

    The session holds those whose parent has ended; zombies, which only wait for theirs,
    are left out.
    """
    import psutil  # not before a process is ended: start-up counts

    found: set[psutil.Process] = set()
    with contextlib.suppress(psutil.NoSuchProcess):
        head = psutil.Process(pid)
        found = {head, *head.children(recursive=True)}
    if sys.platform != "win32":
        for process in psutil.process_iter():
            with contextlib.suppress(OSError):
                if os.getsid(process.pid) == pid:
                    found.add(process)
    living = []
    for process in found:
        with contextlib.suppress(psutil.NoSuchProcess):
            if process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                living.append(process)
    return living


def end_tree(pid: int, grace: float = 10.0, limit: float = 10.0) -> None:
    """End a process (on POSIX a session's leader) and what it started; returns when all are
    gone, or ``limit`` seconds after they were killed, which is after ``grace`` seconds.
    """
    import psutil

    for polite, seconds in ((True, grace), (False, limit)):
        until = time.monotonic() + seconds
        asked: set[psutil.Process] = set()
        while seconds and (found := tree(pid)) and time.monotonic() < until:
            for process in found:
                # AccessDenied: macOS says so of a process that is ending.
                with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                    if not polite:
                        process.kill()
                    elif process not in asked:
                        process.terminate()
            asked.update(found)
            time.sleep(0.02)


def remove(kind: str, value: str) -> None:
    """Remove one thing: ``folder``, ``container`` or ``tree``; its absence is no error."""
    if kind == "tree":
        end_tree(int(value), grace=0)
    elif kind == "folder":
        shutil.rmtree(value, ignore_errors=True)
    elif kind == "container":
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            subprocess.run(
                ["docker", "rm", "--force", "--volumes", value],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=60,
                check=False,
            )


def wait_and_remove(orders: IO[str]) -> None:
    """Read orders until the pipe closes, then remove what is still owed."""
    owed: dict[tuple[str, str], None] = {}
    for line in orders:
        with contextlib.suppress(ValueError):
            verb, kind, value = json.loads(line)
            if verb == "owe":
                owed[(kind, value)] = None
            else:
                owed.pop((kind, value), None)
    # Processes first: they would write into the folders that are removed.
    for kind, value in sorted(owed, key=lambda one: one[0] != "tree"):
        remove(kind, value)


class Janitor:
    """Context manager: what was owed inside is removed at its end, however that comes.

    It holds the descriptors ``keep_open`` until it is done (not on Windows): a lock lasts
    until nothing is left that it protects.
    """

    def __init__(self, keep_open: Sequence[int] = ()) -> None:
        self._keep_open = tuple(keep_open)
        self._process: subprocess.Popen[str] | None = None
        self._telling = threading.Lock()

    def __enter__(self) -> Janitor:
        self._process = subprocess.Popen(
            [sys.executable, "-I", str(Path(__file__).resolve())],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            text=True,
            # A Ctrl-C in our terminal is not meant for it.
            start_new_session=sys.platform != "win32",
            pass_fds=() if sys.platform == "win32" else self._keep_open,
        )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        process, self._process = self._process, None
        if process is not None and process.stdin is not None:
            with contextlib.suppress(OSError):
                process.stdin.close()
            process.wait()

    def _order(self, verb: str, kind: str, value: str) -> None:
        if self._process is None or self._process.stdin is None:
            raise RuntimeError("the janitor is used outside its with statement")
        # Somebody may have ended it: the work goes on without.
        with self._telling, contextlib.suppress(OSError):
            self._process.stdin.write(json.dumps([verb, kind, value]) + "\n")
            self._process.stdin.flush()

    def owe(self, kind: str, value: str) -> None:
        """Say what is about to come into being: ``folder`` PATH, ``container`` NAME; or
        what has just been started: ``tree`` PID.
        """
        self._order("owe", kind, value)

    def forget(self, kind: str, value: str) -> None:
        """Say that it is gone by itself."""
        self._order("paid", kind, value)

    def pay(self, kind: str, value: str) -> None:
        """Remove it now."""
        remove(kind, value)
        self._order("paid", kind, value)


if __name__ == "__main__":
    wait_and_remove(sys.stdin)
