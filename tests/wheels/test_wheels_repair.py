"""tools.wheels.repair: each platform's program, and the glibc that a wheel may ask for."""

import os
from pathlib import Path

import pytest

from tests.wheels.test_wheels_archive import make_wheel
from tools.core.errors import PipelineError
from tools.wheels.archive import read_wheel
from tools.wheels.repair import check_promise, glibc, repair

# In place of a program of another platform: says how it was called, and does as it does.
STUB = """import os, pathlib, shutil, sys
print(*sys.argv[1:], sep="\\n", file=open(os.environ["CALLED"], "w"))
if failure := os.environ.get("FAILURE"):
    sys.exit(f"Traceback:\\n{failure}")
[out] = [one.partition("=")[2] for one in sys.argv if one.startswith("--wheel-dir=")]
shutil.copy(sys.argv[-1], out)
"""


@pytest.fixture(name="env")
def stubs(tmp_path: Path) -> dict[str, str]:
    """An environment whose Python has delocate and delvewheel."""
    for name in ("delvewheel/__main__.py", "delocate/cmd/delocate_wheel.py"):
        path = tmp_path / "stubs" / name
        path.parent.mkdir(parents=True)
        path.write_text(STUB)
    called = {"PYTHONPATH": str(tmp_path / "stubs"), "CALLED": str(tmp_path / "called")}
    return {**os.environ, **called}


def test_other_platforms(tmp_path: Path, env: dict[str, str]) -> None:
    """delvewheel and delocate get the wheel, a folder of ours and what is left out, in their
    own way: delocate takes a part of a name. A pure wheel goes to none of them.
    """
    exclude = ["tvm_ffi.dll", "vulkan-1*"]
    out = f"--wheel-dir={tmp_path}/{{}}/repaired"
    for platform, tag, args in (
        ("win32", "win_amd64", ["repair", out, "--exclude=tvm_ffi.dll", "--exclude=vulkan-1*"]),
        ("darwin", "macosx_11_0_arm64", [out, "--exclude=tvm_ffi.dll", "--exclude=vulkan-1",
                                         "--ignore-missing-dependencies"]),
    ):  # fmt: skip
        wheel, work = (
            read_wheel(make_wheel(tmp_path, tag=f"py3-none-{tag}")),
            tmp_path / platform,
        )
        repaired = repair(wheel, work, env, exclude, platform=platform)
        assert read_wheel(repaired).sha256 == wheel.sha256 and repaired != wheel.path
        called = (tmp_path / "called").read_text().splitlines()
        assert called == [*(one.format(platform) for one in args), str(wheel.path)]
        (tmp_path / "called").unlink()
    pure = read_wheel(make_wheel(tmp_path))
    assert repair(pure, tmp_path, env, [], platform="win32") == pure.path
    assert not (tmp_path / "called").exists()


def test_what_is_missing_is_named(tmp_path: Path, env: dict[str, str]) -> None:
    """The library that each program does not find, in its own words; not its traceback."""
    for number, (platform, failure, message) in enumerate(
        (
            ("win32", "FileNotFoundError: Unable to find library: tvm.dll", "tvm.dll"),
            (
                "darwin",
                "@rpath/libtvm.dylib not found:\n  Needed by: /x",
                "@rpath/libtvm.dylib",
            ),
            ("darwin", "struct.error: unpack requires", "delocate cannot repair mlc_llm-1.2.3"),
        )
    ):
        wheel, work = read_wheel(make_wheel(tmp_path, tag="py3-none-x")), tmp_path / str(number)
        with pytest.raises(PipelineError) as caught:
            repair(wheel, work, env | {"FAILURE": failure}, [], platform=platform)
        assert message in caught.value.message and caught.value.remedy
        assert "Traceback" not in caught.value.detail


def test_promise(tmp_path: Path) -> None:
    """A wheel's glibc is the oldest of its tags, under old names and new. Newer than promised,
    or than production's, is an error with both numbers; 2.9 is older than 2.28.
    """
    for tag, needs, promise, production, message in (
        ("manylinux_2_17_x86_64.manylinux2014_x86_64", "2.17", "manylinux2014", "2.36", ""),
        ("manylinux_2_9_x86_64", "2.9", "manylinux_2_28", "2.28", ""),
        ("manylinux_2_28_aarch64", "2.28", "manylinux_2_28", "2.28", ""),
        ("manylinux2014_x86_64", "2.17", "manylinux2010", "2.36", "2.17, newer than the 2.12"),
        (
            "manylinux_2_35_x86_64",
            "2.35",
            "manylinux_2_28",
            "2.36",
            "2.35, newer than the 2.28",
        ),
        (
            "manylinux_2_39_x86_64",
            "2.39",
            "",
            "2.36",
            "2.39, but the production image has 2.36",
        ),
        ("win_amd64", "", "manylinux_2_28", "2.36", ""),
        ("any", "", "manylinux_2_28", "2.36", ""),
    ):
        wheel = read_wheel(make_wheel(tmp_path, tag=f"py3-none-{tag}"))
        assert glibc(wheel) == needs
        if not message:
            check_promise(wheel, promise, production)
            continue
        with pytest.raises(PipelineError, match=message) as caught:
            check_promise(wheel, promise, production)
        assert "WHEEL_" in caught.value.remedy
