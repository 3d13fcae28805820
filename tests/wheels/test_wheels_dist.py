"""tools.wheels.dist: one build at a time, and what is in dist/ when one is cut off."""

import contextlib
import itertools
import os
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from tests.wheels.test_wheels_archive import make_wheel
from tools.core import files
from tools.wheels import dist
from tools.wheels.archive import RecordedSource, RecordedWheel, WheelsRecord, read_wheel


def test_one_build_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second build in one checkout waits, and meanwhile does not touch the first one's
    files; then it starts from nothing.
    """
    built = tmp_path / "dist" / ".wheels" / "built"
    built.mkdir(parents=True)
    (tmp_path / ".nox").mkdir()
    first = FileLock(tmp_path / ".nox" / "wheels.lock", thread_local=False)
    first.acquire()

    def waiting(text: str) -> None:
        assert "waiting for it" in text and built.is_dir()
        first.release()  # nobody else does

    monkeypatch.setattr(dist.console, "say", waiting)
    with dist.exclusive(tmp_path) as work:
        assert list(work.iterdir()) == []
    assert not work.exists()


@pytest.mark.parametrize("step", range(6))
def test_publishing_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """Cut off before any of its steps (the last one is none), every file is whole and the
    record names what is there. Doing it again completes it: dist/ holds one version of the
    package, and what others put there.
    """
    folder, work = tmp_path / "dist", tmp_path / "dist" / ".wheels"
    work.mkdir(parents=True)

    def publish(version: str) -> WheelsRecord:
        wheel = read_wheel(make_wheel(work, version))
        recorded = RecordedWheel(wheel.name, wheel.size, wheel.sha256, wheel.tags)
        record = WheelsRecord("1", "c", RecordedSource("folder", None, False), (recorded,))
        dist.publish(folder, record, [wheel])
        return record

    publish("1.2.2")
    make_wheel(folder, "1.0", name="stranger")
    calls = itertools.count()

    def counted(real: Any) -> Any:
        def act(*args: Any, **options: Any) -> Any:
            if next(calls) == step:
                raise KeyboardInterrupt
            return real(*args, **options)

        return act

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", counted(os.replace))
        patch.setattr(Path, "unlink", counted(Path.unlink))
        with pytest.raises(KeyboardInterrupt) if step < 5 else contextlib.nullcontext():
            publish("1.2.3")
    for path in folder.glob("*.whl"):
        read_wheel(path)
    if (folder / "wheels.json").exists():
        listed = files.read_json(folder / "wheels.json", WheelsRecord).wheels
        assert all((folder / wheel.name).exists() for wheel in listed)
    record = publish("1.2.3")
    assert files.read_json(folder / "wheels.json", WheelsRecord) == record
    names = {path.name for path in folder.glob("*.whl")}
    assert names == {"mlc_llm-1.2.3-py3-none-any.whl", "stranger-1.0-py3-none-any.whl"}
