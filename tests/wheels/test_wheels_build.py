"""tools.wheels.build: the environment of a build, and what its failures mean."""

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from tools.core.errors import PipelineError
from tools.core.failures import explain
from tools.core.secrets import MASK, redact
from tools.core.settings import ROOT
from tools.wheels import build
from tools.wheels.flavours import PLAIN
from tools.wheels.source import Source

PLAN = build.WheelPlan(
    version="1.2.3", commit="c" * 40, source_date_epoch=5, cmake="3.24", jobs=3, compiler_cache="",
    source=Source("stand-in", str(ROOT / "package")), installer="pip", exclude=(),
    test_requires=(), root="/w", flavours=(PLAIN,), naming="name", requires=(), manylinux="",
    production_glibc="2.36", container=False, image="", certificates="", smoke_timeout=0.0,
)  # fmt: skip
FOLDER = Path("/my work/source")


def environment(
    env: Mapping[str, str], compiler_cache: str = "", windows: bool = False
) -> dict[str, str]:
    """The environment of a build of ``FOLDER``."""
    plan = replace(PLAN, compiler_cache=compiler_cache)
    return build.build_environment(plan, FOLDER, {"GIVEN": "1.0"}, env, windows)


def test_environment() -> None:
    """Time, what is given, parallelism, generator and paths are set; a path with a blank
    stays one argument. MSVC gets no flags of GCC, and Ninja only where it is set up. What
    the user has set is kept.
    """
    result = environment({"PATH": "/bin", "CXXFLAGS": "-O1", "RUSTFLAGS": "-g"})
    assert (result["SOURCE_DATE_EPOCH"], result["GIVEN"]) == ("5", "1.0")
    assert result["CMAKE_BUILD_PARALLEL_LEVEL"] == result["CARGO_BUILD_JOBS"] == "3"
    assert result["CMAKE_GENERATOR"] == "Ninja"
    assert result["CXXFLAGS"].startswith("'-ffile-prefix-map=/my work/source=.' ")
    assert result["CXXFLAGS"].endswith("=/cargo -O1")
    assert result["GIT_CEILING_DIRECTORIES"] == "/my work"
    assert result["CARGO_ENCODED_RUSTFLAGS"].startswith("-g\x1f--remap-path-prefix=/my work")
    assert result["PATH"] == f"{Path(sys.executable).parent}{os.pathsep}/bin"
    assert "LAUNCHER" not in str(result) and "DATE__" not in str(result)
    unset = {"CXXFLAGS", "CFLAGS", "CMAKE_GENERATOR"}
    assert not unset & set(environment({}, windows=True))
    assert environment({"VSCMD_VER": "17"}, windows=True)["CMAKE_GENERATOR"] == "Ninja"
    chosen = {"CMAKE_GENERATOR": "Unix Makefiles", "CMAKE_CXX_COMPILER_LAUNCHER": "distcc"}
    result = environment(chosen | {"CMAKE_ARGS": "-DUSE_CUDA=ON"}, "sccache")
    assert {name: result[name] for name in chosen} == chosen
    assert result["CMAKE_ARGS"].endswith(" -DUSE_CUDA=ON")
    assert "'-DCMAKE_PROJECT_TOP_LEVEL_INCLUDES=/my work/source/" in result["CMAKE_ARGS"]
    assert "-DCMAKE_C_COMPILER_LAUNCHER=sccache" in result["CMAKE_ARGS"]
    assert "CXX_COMPILER_LAUNCHER" not in result["CMAKE_ARGS"]
    assert result["RUSTC_WRAPPER"] == "sccache"


@pytest.mark.skipif(not shutil.which("gcc"), reason="compiles C")
def test_dates_with_sccache(tmp_path: Path) -> None:
    """The flags that stand in for SOURCE_DATE_EPOCH give what it gives, also for one digit."""
    (tmp_path / "a.c").write_text("__DATE__ __TIME__")
    for epoch in (1_700_000_000, 1_701_500_000, 0):
        plan = replace(PLAN, compiler_cache="sccache", source_date_epoch=epoch)
        env = build.build_environment(plan, FOLDER, {}, {"PATH": os.environ["PATH"]}, False)
        hidden = {name: value for name, value in env.items() if name != "SOURCE_DATE_EPOCH"}
        seen = [
            subprocess.check_output(["gcc", "-E", "-P", *flags, "a.c"], env=one, cwd=tmp_path)
            for flags, one in ((shlex.split(env["CFLAGS"]), hidden), ([], env))
        ]
        assert seen[0] == seen[1] and seen[0].strip()


def test_builds_get_no_token() -> None:
    """A source's scripts see no secret; sccache alone keeps the Actions cache's."""
    secrets = ["GH_TOKEN", "GITHUB_TOKEN", "CODECOV_TOKEN", "SLACK_WEBHOOK_URL", "MLC_GH_TOKEN",
               "DOCKER_HUB_USERNAME", "DOCKER_HUB_TOKEN", "ACTIONS_RUNTIME_TOKEN",
               "ACTIONS_ID_TOKEN_REQUEST_TOKEN"]  # fmt: skip
    env = dict.fromkeys(secrets, "hush") | {"HOME": "/h"}
    for cache in ("", "ccache"):
        assert "hush" not in environment(env, cache).values()
    kept = environment(env, "sccache")
    assert [n for n, value in kept.items() if value == "hush"] == ["ACTIONS_RUNTIME_TOKEN"]
    assert build.clean(env | {"PYTHONPATH": "/p"}) == {"HOME": "/h"}


def test_compiler_cache(tmp_path: Path) -> None:
    """ccache, which gives the same bytes with SOURCE_DATE_EPOCH; sccache where it is alone, or
    where a store of its own is set up.
    """
    env = {"PATH": str(tmp_path), "SCCACHE_DIR": "/s"}
    assert build.compiler_cache(env) == ""
    for name, chosen in (("sccache", "sccache"), ("ccache", "ccache")):
        (tmp_path / name).touch(0o755)
        assert build.compiler_cache(env) == chosen
    assert build.compiler_cache(env | {"SCCACHE_REDIS_ENDPOINT": "r"}) == "sccache"


def test_passwords_of_indexes_are_masked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Build tools print addresses; the passwords in them are masked, encoded or not."""
    monkeypatch.setenv("PIP_INDEX_URL", "https://me:p%40ssw0rd@index.test/simple")
    monkeypatch.setenv("ACTIONS_RUNTIME_TOKEN", "rt-99")
    build.prepare("")
    assert redact("p%40ssw0rd p@ssw0rd rt-99 me") == f"{MASK} {MASK} {MASK} me"


def test_constraints() -> None:
    """The lock holds the backends' versions, but never against the source's own wish."""
    hatchling, ninja = "hatchling==1.33.0", "ninja==1.13.2 ; sys_platform == 'linux'"
    for requires, kept in (
        (["hatchling"], [hatchling, ninja]),
        (["hatchling>=1.27,<2"], [hatchling, ninja]),
        (["hatchling<1.30", "Ninja"], [ninja]),
        (["ninja==1.11", "hatchling", "not a requirement!"], [hatchling]),
    ):
        assert build.build_constraints([hatchling, ninja, ""], requires) == kept


def test_explained_failures() -> None:
    """The usual failures are named, each with what to do."""
    for output, cause in (
        ("CMake Error: No CMAKE_CXX_COMPILER could be found.", "compiler was found"),
        ("Cargo is not found! Please install cargo.", "cargo was not found"),
        ("/bin/sh: 1: cargo: not found", "cargo was not found"),
        ("bash: line 1: cargo: command not found", "cargo was not found"),
        ("error: rustc 1.63.0 is not supported by the following package:\n"
         "  clap@4.5.0 requires rustc 1.74", "needs rustc 1.74 or newer"),
        ("c++: fatal error: Killed signal terminated program cc1plus", "memory"),
        ("  process didn't exit successfully: `rustc --crate-name x` (signal: 9, SIGKILL: kill)", "memory"),
        ("error: failed to get `onig` as a dependency of package `tokenizers`\n  Caused by: "
         "[6] Could not resolve hostname (Could not resolve host: index.crates.io)", "fetch a crate"),
        ("warning: spurious network error (3 tries remaining): [28] Timeout", "fetch a crate"),
        ("CMake Error at 3rdparty/tvm/CMakeLists.txt:18 (cmake_minimum_required):\n  CMake 3.26 "
         "or higher is required.  You are running version 3.25.1", "CMake 3.26, and 3.25.1 is used"),
        ("ERROR: No matching distribution found for cmake<4,>=3.26", "CMake >=3.26; here is 3.20"),
        ("  × No solution found when resolving dependencies:\n  ╰─▶ Because cmake was not found in "
         "the package registry", "CMake >=3.26; here is 3.20"),
        ("error: Failed to fetch: `https://index.invalid/simple/cmake/`", "CMake >=3.26; here"),
        ("ERROR: No matching distribution found for scikit-build-core>=99", "requirement"),
        ("error: Failed to fetch: `https://index.invalid/simple/hatchling/`", "requirement"),
        ("Compatibility with CMake < 3.5 has been removed from CMake.", "too old"),
        ("a.cc:3:1: error: expected ';'", "unknown"),
    ):  # fmt: skip
        unknown = PipelineError("unknown", "See above.")
        reason = explain(output, build.FAILURES, unknown, required=">=3.26", present="3.20")
        assert cause in reason.message and reason.remedy


def test_failed_build_is_a_sentence(tmp_path: Path) -> None:
    """A requirement that does not exist ends as one sentence with a remedy."""
    (tmp_path / "pyproject.toml").write_text('[build-system]\nrequires = ["hatchling>=9999"]\n')
    env = environment({"PATH": os.environ["PATH"], "PIP_NO_INDEX": "1"})
    with pytest.raises(PipelineError, match="requirement could not be installed") as caught:
        build.run_build(tmp_path, tmp_path, env, "pip", [])
    assert "index" in caught.value.remedy
