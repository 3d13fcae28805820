"""tools.wheels.cmake: what a source asks for, and a CMake that fits from the package index."""

import os
import sys
from pathlib import Path

import pytest

from tests.wheels.test_wheels_build import PLAN
from tools.core.errors import PipelineError
from tools.wheels import build, cmake

TREE = {
    "CMakeLists.txt": "cmake_minimum_required(VERSION 3.18)\nadd_subdirectory(3rdparty/tvm)\n",
    "3rdparty/tvm/ffi/CMakeLists.txt": "# x\ncmake_minimum_required( VERSION 3.26.1 FATAL_ERROR)\n",
    "3rdparty/tok/CMakeLists.txt": "cmake_minimum_required(VERSION 3.19...3.30)",
    "3rdparty/msgpack/CMakeLists.txt": "CMAKE_MINIMUM_REQUIRED (VERSION 3.1)",
    "3rdparty/odd/CMakeLists.txt": "# cmake_minimum_required(VERSION 3.99)\ncmake_minimum_required(VERSION ${X})\n",
    "3rdparty/tvm/examples/cubin/CMakeLists.txt": "cmake_minimum_required(VERSION 4.3)",
    "3rdparty/tok/test-install/CMakeLists.txt": "cmake_minimum_required(VERSION 3.28)",
    "docs/a/b.cmake": "cmake_minimum_required(VERSION 3.29)",
}


def write(folder: Path, files: dict[str, str]) -> Path:
    """A folder with these files."""
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def test_minimum(tmp_path: Path) -> None:
    """The highest of what the source's files and the user ask for, whoever it is; not what a
    comment, an example or a test does. Below 4, unless more is asked for or it is allowed.
    """
    tree = write(tmp_path / "tree", TREE)
    found = cmake.minimum(tree, "3.24", {})
    assert found == cmake.Minimum("3.26.1", "3rdparty/tvm/ffi/CMakeLists.txt", ">=3.26.1,<4")
    assert found.variables == {"SKBUILD_CMAKE_VERSION": ">=3.26.1,<4"}
    found = cmake.minimum(tree, "3.27", {"CMAKE_POLICY_VERSION_MINIMUM": "3.5"})
    assert found == cmake.Minimum("3.27", "CMAKE_VERSION", ">=3.27")
    write(
        tree, {"cmake/new.cmake": 'if(X)\n  cmake_minimum_required(VERSION "4.1")\nendif()\n'}
    )
    assert cmake.minimum(tree, "3.27", {}) == cmake.Minimum("4.1", "cmake/new.cmake", ">=4.1")
    assert cmake.minimum(write(tmp_path / "pure", {"a/CMakeLists.txt": ""}), "3.24", {}) is None


PROJECT = """
[build-system]
requires = ["scikit-build-core>=0.10"]
build-backend = "scikit_build_core.build"
[project]
name = "mlc_llm"
version = "1.0"
"""


@pytest.mark.skipif(sys.platform == "win32", reason="the CMake of the PATH is a shell script")
def test_too_old_on_the_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A source asks for a newer CMake than the PATH has: one from the package index builds it;
    where none that fits can be installed, both versions are said.
    """
    old = write(tmp_path / "bin", {
        "cmake": '#!/bin/sh\n[ "$1" = -E ] && echo \'{"version": {"string": "3.20.5"}}\''
        ' || echo "cmake version 3.20.5"\n'
    }) / "cmake"  # fmt: skip
    old.chmod(0o755)
    monkeypatch.setenv("PATH", f"{old.parent}{os.pathsep}{os.environ['PATH']}")
    script = "cmake_minimum_required(VERSION 3.26)\nproject(x LANGUAGES NONE)\n"
    source = write(tmp_path / "s", {"pyproject.toml": PROJECT, "CMakeLists.txt": script})
    found = cmake.minimum(source, "3.24", {})
    assert found is not None
    cmake.put_first(source)
    env = build.build_environment(PLAN, source, found.variables, os.environ)
    (tmp_path / "one").mkdir()
    build.run_build(source, tmp_path / "one", env, "pip", [])
    assert "using CMake 3." in capsys.readouterr().err
    (tmp_path / "two").mkdir()
    sentence = "requires CMake >=3.26,<4; here is 3.20.5, and none"
    with pytest.raises(PipelineError, match=sentence) as caught:
        build.run_build(source, tmp_path / "two", env, "pip", ["cmake<3.25"])
    assert "index" in caught.value.remedy
