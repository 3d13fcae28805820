"""tools.wheels.build: the environment of a build, and what its failures mean."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from tools.core.errors import PipelineError
from tools.core.secrets import MASK, redact
from tools.wheels import build
from tools.wheels.source import Project

PROJECT = Project("mlc_llm", environment={"SETUPTOOLS_SCM_PRETEND_VERSION_FOR_MLC_LLM": "1.0"})


def environment(env: dict[str, str], **changes: object) -> dict[str, str]:
    """The build environment with usual values."""
    usual: dict[str, object] = {
        "folder": Path("/w/source"), "project": PROJECT, "created": 5, "jobs": 3,
        "launcher": "", "windows": False,
    }  # fmt: skip
    return build.build_environment(env, **{**usual, **changes})


def test_environment() -> None:
    """Time, version, parallelism, generator and paths are set."""
    made = environment({"PATH": "/bin", "CXXFLAGS": "-O1"})
    assert made["SOURCE_DATE_EPOCH"] == "5"
    assert made["SETUPTOOLS_SCM_PRETEND_VERSION_FOR_MLC_LLM"] == "1.0"
    assert made["CMAKE_BUILD_PARALLEL_LEVEL"] == made["CARGO_BUILD_JOBS"] == "3"
    assert made["CMAKE_GENERATOR"] == "Ninja"
    assert made["CXXFLAGS"] == "-O1 -ffile-prefix-map=/w/source=."
    assert "--remap-path-prefix=/w/source=." in made["CARGO_BUILD_RUSTFLAGS"].split()
    assert made["SKBUILD_BUILD_DIR"] == "build"
    assert str(Path(sys.executable).parent) in made["PATH"]
    assert not [name for name in made if "LAUNCHER" in name]


def test_user_has_the_last_word() -> None:
    """What the user set in the environment is kept, and so is the project's build folder."""
    given = {
        "CMAKE_BUILD_PARALLEL_LEVEL": "9", "CMAKE_GENERATOR": "Unix Makefiles",
        "CMAKE_CXX_COMPILER_LAUNCHER": "distcc", "CMAKE_ARGS": "-DUSE_CUDA=ON",
    }  # fmt: skip
    project = Project("mlc_llm", build_dir=True)
    made = environment(given, launcher="sccache", project=project)
    assert {name: made[name] for name in list(given)[:3]} == dict(list(given.items())[:3])
    assert made["CMAKE_ARGS"].startswith("-DUSE_CUDA=ON ")
    assert made["CMAKE_C_COMPILER_LAUNCHER"] == made["RUSTC_WRAPPER"] == "sccache"
    assert "SKBUILD_BUILD_DIR" not in made


def test_blanks_in_the_path() -> None:
    """A path with a blank stays one argument, or is left out where it cannot be quoted."""
    made = environment({}, folder=Path("/my work/source"))
    assert made["CXXFLAGS"] == "'-ffile-prefix-map=/my work/source=.'"
    assert "my" not in made["CARGO_BUILD_RUSTFLAGS"]


def test_windows_gets_no_flags_of_gcc() -> None:
    """MSVC does not know them; Ninja is asked for only where its compiler is set up."""
    made = environment({}, windows=True)
    assert not {"CXXFLAGS", "CFLAGS", "CMAKE_GENERATOR"} & set(made)
    assert environment({"VSCMD_VER": "17"}, windows=True)["CMAKE_GENERATOR"] == "Ninja"


def test_builds_get_no_token() -> None:
    """A source's scripts see no secret; sccache alone keeps the Actions cache's."""
    secrets = ["GH_TOKEN", "GITHUB_TOKEN", "CODECOV_TOKEN", "SLACK_WEBHOOK_URL",
               "DOCKER_HUB_USERNAME", "DOCKER_HUB_TOKEN", "ACTIONS_RUNTIME_TOKEN",
               "ACTIONS_ID_TOKEN_REQUEST_TOKEN"]  # fmt: skip
    env = dict.fromkeys(secrets, "hush") | {"HOME": "/h"}
    for launcher in ("", "ccache"):
        assert "hush" not in environment(env, launcher=launcher).values()
    kept = environment(env, launcher="sccache")
    assert [name for name, value in kept.items() if value == "hush"] == [
        "ACTIONS_RUNTIME_TOKEN"
    ]
    assert build.without_secrets(env) == {"HOME": "/h"}


def test_passwords_of_indexes_are_masked() -> None:
    """Build tools print addresses; the passwords in them are masked, encoded or not."""
    build.hide_passwords(
        {
            "PIP_INDEX_URL": "https://me:p%40ssw0rd@index.test/simple",
            "ACTIONS_RUNTIME_TOKEN": "rt-99",
        }
    )
    assert redact("p%40ssw0rd p@ssw0rd rt-99") == f"{MASK} {MASK} {MASK}"


@pytest.mark.parametrize(
    ("requires", "kept"),
    [
        (["hatchling"], ["hatchling==1.33.0", "ninja==1.13.2 ; sys_platform == 'linux'"]),
        (
            ["hatchling>=1.27,<2"],
            ["hatchling==1.33.0", "ninja==1.13.2 ; sys_platform == 'linux'"],
        ),
        (["hatchling<1.30", "Ninja"], ["ninja==1.13.2 ; sys_platform == 'linux'"]),
        (["ninja==1.11", "hatchling", "not a requirement!"], ["hatchling==1.33.0"]),
    ],
)
def test_constraints(requires: list[str], kept: list[str]) -> None:
    """The lock holds the backends' versions, but never against the source's own wish."""
    lines = ["hatchling==1.33.0", "ninja==1.13.2 ; sys_platform == 'linux'", ""]
    assert build.build_constraints(lines, requires) == kept


@pytest.mark.parametrize(
    ("output", "cause"),
    [
        ("CMake Error: CMake was unable to find a build program corresponding to \"Ninja\".\n"
         "CMake Error: CMAKE_CXX_COMPILER not set, after EnableLanguage", "ninja"),
        ("CMake Error: No CMAKE_CXX_COMPILER could be found.", "compiler was found"),
        ("c++: fatal error: Killed signal terminated program cc1plus", "memory"),
        ("error: No space left on device", "disk"),
        ("Cargo is not found! Please install cargo.", "cargo"),
        ("ERROR: No matching distribution found for scikit-build-core>=99", "requirement"),
        ("CMake Error: Could NOT find Vulkan (missing: Vulkan_LIBRARY)", "library"),
        ("Compatibility with CMake < 3.5 has been removed from CMake.", "too old"),
        ("a.cc:3:1: error: expected ';'", "does not compile"),
        ("Traceback", "backend failed"),
    ],
)  # fmt: skip
def test_explained_failures(output: str, cause: str) -> None:
    """The usual failures are named, each with what to do."""
    found, remedy = build.explain(output)
    assert cause in found and remedy


def test_launcher(tmp_path: Path) -> None:
    """sccache is preferred, ccache taken, and none is no error."""
    assert build.choose_launcher({"PATH": str(tmp_path)}) == ""
    for name in ("ccache", "sccache"):
        program = tmp_path / (f"{name}.exe" if sys.platform == "win32" else name)
        program.touch(mode=0o755)
        assert build.choose_launcher({"PATH": str(tmp_path)}) == name


def test_failed_build_is_a_sentence(tmp_path: Path) -> None:
    """A requirement that does not exist ends as one sentence with a remedy."""
    folder = tmp_path / "s"
    folder.mkdir()
    (folder / "pyproject.toml").write_text(
        '[build-system]\nrequires = ["hatchling>=9999"]\nbuild-backend = "hatchling.build"\n'
        '[project]\nname = "mlc_llm"\nversion = "1"\n'
    )
    (tmp_path / "c.txt").touch()
    env = environment({"PATH": os.environ["PATH"]}, folder=folder)
    installer = build.choose_installer(env)
    with pytest.raises(PipelineError, match="requirement could not be installed") as caught:
        build.run_build(folder, tmp_path, env, installer, tmp_path / "c.txt")
    assert "index" in caught.value.remedy
