"""``dist/``: one build at a time, its work folder, and the finished wheels put in place."""

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from filelock import FileLock, Timeout

from tools.core import console, files, process
from tools.wheels.archive import RECORD, Wheel, WheelsRecord


@contextlib.contextmanager
def exclusive(root: Path) -> Iterator[Path]:
    """Hold the one build of wheels of the checkout ``root``; yields its empty work folder.

    The folder has the same path in every build, for the compiler caches' sake. If we are
    killed, the janitor ends what we started and removes the folder, and holds the lock
    until then: a build front end that lived on would write into the next build's.
    """
    locks, work = root / ".nox", root / "dist" / ".wheels"
    locks.mkdir(exist_ok=True)
    held: list[int] = []
    lock = FileLock(locks / "wheels.lock", on_acquired=held.append)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        console.say("another build of wheels is running in this checkout: waiting for it")
        lock.acquire()
    try:
        with process.watched(held) as janitor:
            files.remove_tree(work)  # of a build whose janitor was killed, too
            janitor.owe("folder", str(work))
            work.mkdir(parents=True)
            yield work
    finally:
        lock.release()


def publish(
    dist: Path, record: WheelsRecord, wheels: Sequence[Wheel], beside: Sequence[Path] = ()
) -> None:
    """Put finished wheels, what lies ``beside`` them, and their record into ``dist``, each in
    one step.

    Earlier wheels of the project go: dist/ holds one version of it, so that nothing picks up
    an old one. The record is taken away first and put back last: wherever this is cut off,
    no file is half written and no record names a wheel that is not there.
    """
    (dist / RECORD).unlink(missing_ok=True)
    for path in (*beside, *(wheel.path for wheel in wheels)):
        os.replace(path, dist / path.name)
    new = {wheel.name for wheel in wheels}
    starts = tuple(wheel.name.split("-")[0] + "-" for wheel in wheels)
    for path in sorted(dist.glob("*.whl")):
        if path.name.startswith(starts) and path.name not in new:
            console.say(f"removing {path.name}: replaced by this build")
            path.unlink()
    files.write_json(dist / RECORD, record)
