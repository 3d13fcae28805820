"""tools.wheels.dist: one build at a time, and what is in dist/ when one is cut off."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from tests.wheels.test_wheels_archive import make_wheel
from tools.core import files
from tools.wheels import dist
from tools.wheels.archive import RecordedSource, RecordedWheel, Wheel, WheelsRecord, read_wheel


def test_one_build_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second build in one checkout waits, and meanwhile does not touch the first one's
    files; then it starts from nothing.
    """
    built = tmp_path / "dist" / dist.WORK / "built"
    built.mkdir(parents=True)
    (tmp_path / ".nox").mkdir()
    first = FileLock(tmp_path / ".nox" / "wheels.lock", thread_local=False)
    first.acquire()
    waited = []

    def waiting(text: str) -> None:
        waited.append(("waiting for it" in text, built.is_dir()))
        first.release()

    monkeypatch.setattr(dist.console, "say", waiting)
    with dist.exclusive(tmp_path) as work:
        assert list(work.iterdir()) == []
    assert waited == [(True, True)] and not work.exists()


def record_of(wheel: Wheel) -> WheelsRecord:
    """A record of one wheel."""
    recorded = RecordedWheel(wheel.name, wheel.size, wheel.sha256, wheel.tags)
    source = RecordedSource("folder", None, False)
    return WheelsRecord(wheel.version, "c" * 40, source, (recorded,))


def publishable(tmp_path: Path) -> tuple[Path, WheelsRecord, list[Wheel]]:
    """A dist folder with older wheels; the record and the finished wheel of a new build."""
    folder, work = tmp_path / "dist", tmp_path / "dist" / dist.WORK
    if not work.exists():
        work.mkdir(parents=True)
        renamed = read_wheel(make_wheel(folder, "5", name="renamed"))
        files.write_json(folder / "wheels.json", record_of(renamed))
        make_wheel(folder, "1.2.2")
        make_wheel(folder, "1.0", name="stranger")
    finished = read_wheel(make_wheel(work))
    return folder, record_of(finished), [finished]


@pytest.mark.parametrize("step", range(7))
def test_publishing_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """Cut off before any of its steps (the last one is none), every file is whole and the
    record names what is there. Doing it again completes it: dist/ holds one version of the
    package, and what others put there.
    """
    folder, record, finished = publishable(tmp_path)
    left = step

    def counted(real: Any) -> Any:
        def act(*arguments: Any, **options: Any) -> Any:
            nonlocal left
            left -= 1
            if left < 0:
                raise KeyboardInterrupt
            return real(*arguments, **options)

        return act

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", counted(os.replace))
        patch.setattr(Path, "unlink", counted(Path.unlink))
        with pytest.raises(KeyboardInterrupt) if step < 6 else contextlib.nullcontext():
            dist.publish(folder, record, finished)
    for path in folder.glob("*.whl"):
        read_wheel(path)
    if (folder / "wheels.json").exists():
        listed = files.read_json(folder / "wheels.json", WheelsRecord).wheels
        assert all((folder / wheel.name).exists() for wheel in listed)
    dist.publish(*publishable(tmp_path))
    assert files.read_json(folder / "wheels.json", WheelsRecord) == record
    names = {path.name for path in folder.glob("*.whl")}
    expected = {"mlc_llm-1.2.3-py3-none-any.whl", "stranger-1.0-py3-none-any.whl"}
    # Listed in the old record alone, which may have gone before.
    assert names - {"renamed-5-py3-none-any.whl"} == expected
    assert step < 6 or names == expected
