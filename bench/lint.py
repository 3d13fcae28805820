"""``nox -s lint`` against black, flake8, isort and mypy by hand, one after another.

Both warm, on this checkout: the same files, the same programs, caches filled. Run it in
the environment of the session ``lint`` (``nox -s bench -- lint``).
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial

from bench.compare import compare, show
from tools.core.settings import ROOT, load

PROMISE = 0.8


def by_hand(paths: list[str]) -> None:
    """The four tools as one types them, one after another."""
    python = sys.executable
    for command in (
        [python, "-m", "black", "--check", "--quiet", *paths],
        [python, "-m", "flake8", *paths],
        [python, "-m", "isort", "--check", "--quiet", *paths],
        [python, "-m", "mypy"],
    ):
        subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)


def session() -> None:
    """The session, nox's own start included."""
    command = [sys.executable, "-m", "nox", "--session", "lint"]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)


@contextlib.contextmanager
def one_file_changed() -> Iterator[None]:
    """One file has a line more, another each time, and is then as it was."""
    file = ROOT / "tools/lint.py"
    before = file.read_bytes()
    file.write_bytes(before + f"\n# changed at {time.time_ns()}\n".encode())
    try:
        yield
    finally:
        file.write_bytes(before)


def main() -> None:
    """Print the tables."""
    paths = [path for path in load(root=ROOT).lint_paths if (ROOT / path).exists()]

    def changed(way: Callable[[], None]) -> Callable[[], None]:
        def run() -> None:
            with one_file_changed():
                way()

        return run

    hand = partial(by_hand, paths)
    show(compare({"four tools by hand": hand, "nox -s lint": session}), PROMISE)
    print("after a change of one file:")
    show(compare({"four tools by hand": changed(hand), "nox -s lint": changed(session)}))


if __name__ == "__main__":
    main()
