"""What must be undone is undone, also when we are killed.

A small process of its own waits at the end of a pipe. It is told what is owed (a folder,
a container, a tree of processes), and what is paid when it is gone again; when the pipe
closes, because we ended in whatever way, it removes what is still owed.

It runs isolated (``python -I``), as a file: nothing of ours is imported here.
"""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    import psutil


def tree(pid: int) -> list["psutil.Process"]:
    """A process, what it started, and on POSIX whatever else lives in its session: also
    those whose parent has ended. Zombies, which only wait for theirs, are left out.
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
    """End a tree; kill what is left after ``grace`` seconds; wait ``limit`` seconds more."""
    import psutil

    began = time.monotonic()
    asked: set[psutil.Process] = set()
    while (lived := time.monotonic() - began) < grace + limit and (found := tree(pid)):
        for process in found:
            # AccessDenied: macOS says so of a process that is ending.
            with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                if lived >= grace:
                    process.kill()
                elif process not in asked:
                    process.terminate()
        asked.update(found)
        time.sleep(0.02)


def remove(kind: str, value: str) -> None:
    """Remove a ``tree`` PID, ``folder`` PATH, ``container`` NAME or all ``containers`` with a
    LABEL, if they are there.
    """
    if kind == "tree":
        end_tree(int(value), grace=0)
    elif kind == "folder":
        shutil.rmtree(value, ignore_errors=True)
    elif kind == "containers":
        for name in _docker("ps", "--all", "--quiet", f"--filter=label={value}"):
            remove("container", name)
    else:  # a busy engine may fail to end its processes in time, and find them dead again
        any(_docker("rm", "--force", "--volumes", value) for _ in range(3))


def _docker(*args: str) -> list[str]:
    """The words that a docker command prints; none if it fails."""
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        command = ["docker", *args]
        null = subprocess.DEVNULL
        done = subprocess.run(command, stdin=null, capture_output=True, text=True, timeout=60)
        return done.stdout.split()
    return []


def wait_and_remove(orders: IO[str]) -> None:
    """Read orders until the pipe closes, then remove what is still owed."""
    owed: dict[tuple[str, str], None] = {}
    for line in orders:
        with contextlib.suppress(ValueError):  # of one who was killed in the middle of it
            verb, kind, value = json.loads(line)
            owed[kind, value] = None
            if verb == "paid":
                del owed[kind, value]
    # Processes first: they would write into the folders that are removed.
    for kind, value in sorted(owed, key=lambda one: one[0] != "tree"):
        remove(kind, value)


class Janitor:
    """Removes what is owed when we end; keeps descriptors open until it is done."""

    def __init__(self, keep_open: Iterable[int] = ()) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-I", __file__],
            bufsize=0,  # an order is one write: threads do not mix theirs
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            # A Ctrl-C in our terminal is not meant for it.
            start_new_session=sys.platform != "win32",
            pass_fds=tuple(keep_open),
        )

    def close(self) -> None:
        """Have what is still owed removed; returns when it is."""
        self._process.communicate()

    def _order(self, verb: str, kind: str, value: str) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):  # somebody ended it: the work goes on without
            self._process.stdin.write(json.dumps([verb, kind, value]).encode() + b"\n")

    def owe(self, kind: str, value: str) -> None:
        """Say what is about to come into being, or has just been started (a tree)."""
        self._order("owe", kind, value)

    def forget(self, kind: str, value: str) -> None:
        """Say that it is gone by itself."""
        self._order("paid", kind, value)

    def pay(self, kind: str, value: str) -> None:
        """Remove it now."""
        remove(kind, value)
        self.forget(kind, value)


if __name__ == "__main__":
    wait_and_remove(sys.stdin)
