"""tools.wheels.kept: what a built wheel depends on, and that it is kept whole or not at all."""

import os
import shutil
from pathlib import Path

import pytest

from tests.wheels.test_wheels_archive import make_wheel
from tools.wheels import kept


def test_key(tmp_path: Path) -> None:
    """Any byte, name, mode or link of the copy, any variable that can reach a wheel, and
    what else it is given make another key; when and with how much it is built does not.
    """
    (tmp_path / "a" / "src").mkdir(parents=True)
    (tmp_path / "a" / "src" / "x.cc").write_text("1")
    (tmp_path / "a" / "link").symlink_to("src/x.cc")
    env = {"CXXFLAGS": "-O2", "VULKAN_SDK": "/v", "PATH": "/bin"}
    first = kept.key(tmp_path / "a", env, "here")
    shutil.copytree(tmp_path / "a", tmp_path / "b", symlinks=True)
    (tmp_path / "b" / "empty").mkdir()
    volatile = {"PWD": "/p", "SSH_TTY": "/t", "CMAKE_BUILD_PARALLEL_LEVEL": "7", "_": "x",
                "WHEEL_EXCLUDE": "liba.so", "MLC_MANYLINUX": "x", "UV_FIND_LINKS": "/w"}  # fmt: skip
    assert kept.key(tmp_path / "b", env | volatile, "here") == first
    for name, value in {"CXXFLAGS": "-O1", "VULKAN_SDK": "/w", "PATH": "/x", "NEW": ""}.items():
        assert kept.key(tmp_path / "a", env | {name: value}, "here") != first
    assert kept.key(tmp_path / "a", env, "there") != first
    source = tmp_path / "b" / "src" / "x.cc"
    for change in (
        lambda: source.write_text("2"),
        lambda: source.chmod(0o755),
        lambda: source.rename(source.with_suffix(".c")),
        lambda: (tmp_path / "b" / "link").unlink(),
    ):
        before = kept.key(tmp_path / "b", env, "here")
        change()
        assert kept.key(tmp_path / "b", env, "here") != before


def test_kept_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut off while it is copied, nothing is there to be taken; a few last ones are kept."""
    wheel, store = make_wheel(tmp_path), tmp_path / "built"

    def cut(source: Path, target: Path) -> None:
        (target / source.name).write_bytes(source.read_bytes()[:40])
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(kept.shutil, "copy2", cut)
        with pytest.raises(KeyboardInterrupt):
            kept.keep(wheel, store / "k0")
    assert kept.take(store / "k0", tmp_path / "out") is None
    for number in range(5):
        kept.keep(wheel, store / f"k{number}")
        os.utime(store / f"k{number}", (number, number))
    assert {one.name for one in store.iterdir()} == {"k2", "k3", "k4"}
    taken = kept.take(store / "k3", tmp_path / "out")
    assert taken is not None and taken.parent == tmp_path / "out"
    assert taken.read_bytes() == wheel.read_bytes()
