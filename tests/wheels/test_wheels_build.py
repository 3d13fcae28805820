"""tools.wheels.build: the environment of a build, and what its failures mean."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from tools.core.errors import PipelineError
from tools.core.failures import explain
from tools.core.secrets import MASK, redact
from tools.wheels import build
from tools.wheels.source import SourceProject

PROJECT = SourceProject(
    "mlc_llm", environment={"SETUPTOOLS_SCM_PRETEND_VERSION_FOR_MLC_LLM": "1.0"}
)


def environment(env: dict[str, str], **changes: object) -> dict[str, str]:
    """The build environment with usual values."""
    usual: dict[str, object] = {
        "folder": Path("/w/source"), "project": PROJECT, "created": 5, "jobs": 3,
        "compiler_cache": "", "windows": False,
    }  # fmt: skip
    return build.build_environment(env, **{**usual, **changes})


def test_environment() -> None:
    """Time, version, parallelism, generator and paths are set."""
    result = environment({"PATH": "/bin", "CXXFLAGS": "-O1"})
    assert result["SOURCE_DATE_EPOCH"] == "5"
    assert result["SETUPTOOLS_SCM_PRETEND_VERSION_FOR_MLC_LLM"] == "1.0"
    assert result["CMAKE_BUILD_PARALLEL_LEVEL"] == result["CARGO_BUILD_JOBS"] == "3"
    assert result["CMAKE_GENERATOR"] == "Ninja"
    assert result["CXXFLAGS"] == "-O1 -ffile-prefix-map=/w/source=."
    assert "--remap-path-prefix=/w/source=." in result["CARGO_BUILD_RUSTFLAGS"].split()
    assert result["SKBUILD_BUILD_DIR"] == "build"
    assert str(Path(sys.executable).parent) in result["PATH"]
    assert not [name for name in result if "LAUNCHER" in name]


def test_user_has_the_last_word() -> None:
    """What the user set in the environment is kept, and so is the project's build folder."""
    chosen = {
        "CMAKE_BUILD_PARALLEL_LEVEL": "9", "CMAKE_GENERATOR": "Unix Makefiles",
        "CMAKE_CXX_COMPILER_LAUNCHER": "distcc", "CMAKE_ARGS": "-DUSE_CUDA=ON",
    }  # fmt: skip
    project = SourceProject("mlc_llm", build_dir=True)
    result = environment(chosen, compiler_cache="sccache", project=project)
    assert {name: result[name] for name in list(chosen)[:3]} == dict(list(chosen.items())[:3])
    assert result["CMAKE_ARGS"].startswith("-DUSE_CUDA=ON ")
    assert result["CMAKE_C_COMPILER_LAUNCHER"] == result["RUSTC_WRAPPER"] == "sccache"
    assert "SKBUILD_BUILD_DIR" not in result


def test_blanks_in_the_path() -> None:
    """A path with a blank stays one argument, or is left out where it cannot be quoted."""
    result = environment({}, folder=Path("/my work/source"))
    assert result["CXXFLAGS"] == "'-ffile-prefix-map=/my work/source=.'"
    assert "my" not in result["CARGO_BUILD_RUSTFLAGS"]


def test_windows_gets_no_flags_of_gcc() -> None:
    """MSVC does not know them; Ninja is asked for only where its compiler is set up."""
    result = environment({}, windows=True)
    assert not {"CXXFLAGS", "CFLAGS", "CMAKE_GENERATOR"} & set(result)
    assert environment({"VSCMD_VER": "17"}, windows=True)["CMAKE_GENERATOR"] == "Ninja"


def test_builds_get_no_token() -> None:
    """A source's scripts see no secret; sccache alone keeps the Actions cache's."""
    secrets = ["GH_TOKEN", "GITHUB_TOKEN", "CODECOV_TOKEN", "SLACK_WEBHOOK_URL",
               "DOCKER_HUB_USERNAME", "DOCKER_HUB_TOKEN", "ACTIONS_RUNTIME_TOKEN",
               "ACTIONS_ID_TOKEN_REQUEST_TOKEN"]  # fmt: skip
    env = dict.fromkeys(secrets, "hush") | {"HOME": "/h"}
    for cache in ("", "ccache"):
        assert "hush" not in environment(env, compiler_cache=cache).values()
    kept = environment(env, compiler_cache="sccache")
    assert [n for n, value in kept.items() if value == "hush"] == ["ACTIONS_RUNTIME_TOKEN"]
    assert build.clean(env | {"PYTHONPATH": "/p"}) == {"HOME": "/h"}


def test_passwords_of_indexes_are_masked() -> None:
    """Build tools print addresses; the passwords in them are masked, encoded or not."""
    index = "https://me:p%40ssw0rd@index.test/simple"
    build.hide_passwords({"PIP_INDEX_URL": index, "ACTIONS_RUNTIME_TOKEN": "rt-99"})
    assert redact("p%40ssw0rd p@ssw0rd rt-99") == f"{MASK} {MASK} {MASK}"


HATCHLING, NINJA = "hatchling==1.33.0", "ninja==1.13.2 ; sys_platform == 'linux'"


@pytest.mark.parametrize(
    ("requires", "kept"),
    [
        (["hatchling"], [HATCHLING, NINJA]),
        (["hatchling>=1.27,<2"], [HATCHLING, NINJA]),
        (["hatchling<1.30", "Ninja"], [NINJA]),
        (["ninja==1.11", "hatchling", "not a requirement!"], [HATCHLING]),
    ],
)
def test_constraints(requires: list[str], kept: list[str]) -> None:
    """The lock holds the backends' versions, but never against the source's own wish."""
    assert build.build_constraints([HATCHLING, NINJA, ""], requires) == kept


@pytest.mark.parametrize(
    ("output", "cause"),
    [
        ("CMake Error: No CMAKE_CXX_COMPILER could be found.", "compiler was found"),
        ("Cargo is not found! Please install cargo.", "cargo"),
        ("c++: fatal error: Killed signal terminated program cc1plus", "memory"),
        ("ERROR: No matching distribution found for scikit-build-core>=99", "requirement"),
        ("Compatibility with CMake < 3.5 has been removed from CMake.", "too old"),
        ('required library "liba.so.1" could not be located', "liba.so.1"),
        ("a.cc:3:1: error: expected ';'", "unknown"),
    ],
)
def test_explained_failures(output: str, cause: str) -> None:
    """The usual failures are named, each with what to do."""
    reason = explain(output, build.FAILURES, PipelineError("unknown", "See above."))
    assert cause in reason.message and reason.remedy


def test_compiler_cache(tmp_path: Path) -> None:
    """sccache is preferred, ccache taken, and none is not an error."""
    assert build.choose_compiler_cache({"PATH": str(tmp_path)}) == ""
    for name in ("ccache", "sccache"):
        program = tmp_path / (f"{name}.exe" if sys.platform == "win32" else name)
        program.touch(mode=0o755)
        assert build.choose_compiler_cache({"PATH": str(tmp_path)}) == name


def test_failed_build_is_a_sentence(tmp_path: Path) -> None:
    """A requirement that does not exist ends as one sentence with a remedy."""
    folder = tmp_path / "s"
    folder.mkdir()
    (folder / "pyproject.toml").write_text(
        '[build-system]\nrequires = ["hatchling>=9999"]\nbuild-backend = "hatchling.build"\n'
        '[project]\nname = "mlc_llm"\nversion = "1"\n'
    )
    env = environment({"PATH": os.environ["PATH"]}, folder=folder)
    installer = build.choose_installer(env)
    with pytest.raises(PipelineError, match="requirement could not be installed") as caught:
        build.run_build(folder, tmp_path, env, installer, [])
    assert "index" in caught.value.remedy
