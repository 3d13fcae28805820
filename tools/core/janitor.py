"""What must be undone is undone, also when we are killed.

A small process of its own waits at the end of a pipe. It is told what is owed (a folder,
a container, a group of processes), and what is paid when it is gone again; when the pipe
closes, because we ended in whatever way, it removes what is still owed.

Standard library only: it runs isolated (``python -I``), as a file.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import IO

GROUP_LIMIT = 10.0  # seconds until the processes of a killed group are given up


def _group_lives(leader: int) -> bool:
    """Whether a process of the group runs; zombies, which wait for their parent, don't.

    Source: proc_pid_stat(5), fields 3 (state) and 5 (pgrp).
    """
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = path.read_text(errors="replace").rpartition(")")[2].split()
            if fields[2] == str(leader) and fields[0] not in "ZX":
                return True
    return not Path("/proc/self/stat").exists()  # no such files here: not known


def end_group(leader: int) -> None:
    """Kill a group of processes (Windows: a process and what it started), and see it end."""
    if sys.platform == "win32":
        command = ["taskkill", "/F", "/T", "/PID", str(leader)]
        subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)
        return
    until = time.monotonic() + GROUP_LIMIT
    # PermissionError: macOS says so of a group of which only zombies are left.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, signal.SIGKILL)
        while _group_lives(leader) and time.monotonic() < until:
            time.sleep(0.01)
            os.killpg(leader, signal.SIGKILL)


def remove(kind: str, value: str) -> None:
    """Remove one thing: ``folder``, ``container`` or ``group``; its absence is no error."""
    if kind == "group":
        end_group(int(value))
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
    for kind, value in sorted(owed, key=lambda one: one[0] != "group"):
        remove(kind, value)


class Janitor:
    """Context manager: what was owed inside is removed at its end, however that comes.

    Args:
        keep_open: Descriptors of ours that it holds until it is done, such as that of a
            lock, which therefore lasts until nothing is left that it protects. Not on
            Windows, where none is inherited.
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

    def _tell(self, verb: str, kind: str, value: str) -> None:
        if self._process is None or self._process.stdin is None:
            raise RuntimeError("the janitor is used outside its with statement")
        # Somebody may have ended it: the work goes on without.
        with self._telling, contextlib.suppress(OSError):
            self._process.stdin.write(json.dumps([verb, kind, value]) + "\n")
            self._process.stdin.flush()

    def owe(self, kind: str, value: str) -> None:
        """Say what is about to come into being: ``folder`` PATH, ``container`` NAME; or
        what has just been started: ``group`` ID.
        """
        self._tell("owe", kind, value)

    def forget(self, kind: str, value: str) -> None:
        """Say that it is gone by itself."""
        self._tell("paid", kind, value)

    def pay(self, kind: str, value: str) -> None:
        """Remove it now."""
        remove(kind, value)
        self._tell("paid", kind, value)


if __name__ == "__main__":
    wait_and_remove(sys.stdin)
