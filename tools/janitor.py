"""What must be undone is undone, also when we are killed.

A small process of its own waits at the end of a pipe. It is told what is owed (a folder,
a container) before it comes into being, and what is paid when it is gone again; when the
pipe closes, because we ended in whatever way, it removes what is still owed.

Standard library only: it runs isolated (``python -I``), as a file.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import IO


def remove(kind: str, value: str) -> None:
    """Remove one thing: a ``folder`` or a ``container``; its absence is no error."""
    if kind == "folder":
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
    for kind, value in owed:
        remove(kind, value)


class Janitor:
    """Context manager: what was owed inside is removed at its end, however that comes."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Janitor:
        self._process = subprocess.Popen(
            [sys.executable, "-I", str(Path(__file__).resolve())],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            text=True,
            # A Ctrl-C in our terminal is not meant for it.
            start_new_session=sys.platform != "win32",
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
        self._process.stdin.write(json.dumps([verb, kind, value]) + "\n")
        self._process.stdin.flush()

    def owe(self, kind: str, value: str) -> None:
        """Say what is about to come into being: ``folder`` PATH, ``container`` NAME."""
        self._tell("owe", kind, value)

    def pay(self, kind: str, value: str) -> None:
        """Remove it now."""
        remove(kind, value)
        self._tell("paid", kind, value)


if __name__ == "__main__":
    wait_and_remove(sys.stdin)
