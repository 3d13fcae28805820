"""Daemons: started in the background, found again by their process files, ended.

Standard library only: this runs before anything is installed.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from machine import ServicesError, as_root, run

START_LIMIT = 60.0

# What this process started, by process id.
_children: dict[int, subprocess.Popen[bytes]] = {}


def alive_pid(pid: int) -> bool:
    """Whether a process with this id runs."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def alive(pid_file: Path) -> int | None:
    """The process id in ``pid_file`` if what was started from that folder still runs.

    After a restart of the machine the number may be anybody's; the daemons that are
    started here name the folder in their arguments.
    """
    try:
        pid = int(pid_file.read_text())
        arguments = Path(f"/proc/{pid}/cmdline").read_bytes()
    except (OSError, ValueError):
        return None
    return pid if os.fsencode(pid_file.parent) in arguments else None


def spawn(command: Sequence[str], name: str, state: Path) -> int:
    """Start a daemon in a session of its own, its output in ``<name>.log``."""
    with (state / f"{name}.log").open("ab") as log:
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    (state / f"{name}.pid").write_text(str(child.pid))
    _children[child.pid] = child
    return child.pid


def has_ended(pid: int) -> bool:
    """Whether a process is gone; one of our own children is reaped by asking."""
    child = _children.get(pid)
    return child.poll() is not None if child else not alive_pid(pid)


def wait_for(what: str, ready: Callable[[], bool], pid: int, log: Path) -> None:
    """Poll ``ready()`` until it is true, or say why it never will be."""
    limit = time.monotonic() + START_LIMIT
    while time.monotonic() < limit:
        if ready():
            return
        if has_ended(pid):
            break
        time.sleep(0.1)
    tail = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
    raise ServicesError(f"{what} did not start; the end of {log}:\n{tail}")


def signal_process(pid: int, number: int) -> None:
    """Send a signal, as root to what was started as root."""
    try:
        os.kill(pid, number)
    except PermissionError:
        run(*(as_root() or []), "kill", f"-{int(number)}", str(pid))


def end(pid_file: Path, limit: float = 30.0) -> None:
    """End the process of ``pid_file``: politely, then not."""
    pid = alive(pid_file)
    if pid is not None:
        signal_process(pid, signal.SIGTERM)
        until = time.monotonic() + limit
        while not has_ended(pid) and time.monotonic() < until:
            time.sleep(0.1)
        if not has_ended(pid):
            signal_process(pid, signal.SIGKILL)
    pid_file.unlink(missing_ok=True)
