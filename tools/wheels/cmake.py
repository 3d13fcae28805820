"""Which CMake a source needs: what its files ask for, and what is on the PATH."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from packaging.version import Version

from tools.core import process
from tools.core.errors import PipelineError

# The call stands anywhere in a line, but not in a comment; of a range (3.19...3.30) the
# first number is required.
_CALL = re.compile(
    r"^[^#\n]*?\bcmake_minimum_required\s*\(\s*VERSION\s+\"?(\d+(?:\.\d+)+)",
    re.IGNORECASE | re.MULTILINE,
)
# A file of the copy that CMake reads first (CMAKE_PROJECT_TOP_LEVEL_INCLUDES, of 3.24).
FIRST = ".pipeline.cmake"
_FIRST = """\
# scikit-build-core's prefix has a random name, which code that asks for its place would hold.
# Where files are installed is said again by cmake --install --prefix. The first line gives the
# cached one a type: else CMake would, and thereby (CMP0126) forget the second.
set(CMAKE_INSTALL_PREFIX "$CACHE{CMAKE_INSTALL_PREFIX}" CACHE PATH "" FORCE)
set(CMAKE_INSTALL_PREFIX "/usr/local")
"""
# What a package's build does not enter.
_ASIDE = re.compile(r"(examples?|samples?|tests?|docs?|benchmarks?)([-_].*)?")


@dataclass(frozen=True)
class Minimum:
    """The CMake that a build needs."""

    version: str
    origin: str  # who asks for it: a file of the source, or the setting
    specifier: str  # as installers take it

    @property
    def variables(self) -> dict[str, str]:
        """For the build: scikit-build-core takes a CMake that does not fit, and one that is
        not there, from the package index. Source: its "Configuration", cmake.version.
        """
        return {"SKBUILD_CMAKE_VERSION": self.specifier}


def _calls(folder: Path) -> Iterator[tuple[str, str]]:
    """Each version that a file below ``folder`` asks for, and that file's name."""
    for path in sorted([*folder.rglob("CMakeLists.txt"), *folder.rglob("*.cmake")]):
        name = path.relative_to(folder)
        if path.is_file() and not any(map(_ASIDE.fullmatch, name.parts[:-1])):
            for version in _CALL.findall(path.read_text(encoding="utf-8", errors="replace")):
                yield version, name.as_posix()


def minimum(folder: Path, least: str, env: Mapping[str, str]) -> Minimum | None:
    """The highest of the versions that the source in ``folder`` asks for and of ``least``;
    None where there is no CMakeLists.txt. It is below 4, which refuses files for CMake < 3.5,
    unless one asks for more or ``env`` has CMAKE_POLICY_VERSION_MINIMUM.
    """
    if not (folder / "CMakeLists.txt").is_file():
        return None
    asked = [(least, "CMAKE_VERSION"), *_calls(folder)]
    version, origin = max(asked, key=lambda one: Version(one[0]))
    free = Version(version) >= Version("4") or env.get("CMAKE_POLICY_VERSION_MINIMUM")
    return Minimum(version, origin, f">={version}" + ("" if free else ",<4"))


def put_first(folder: Path) -> None:
    """Put into the copy in ``folder`` what CMake must read first."""
    (folder / FIRST).write_text(_FIRST, encoding="utf-8")


def present(env: Mapping[str, str]) -> str:
    """The version of the CMake on the PATH of ``env``; empty if there is none that runs."""
    try:
        done = process.run(["cmake", "--version"], env=env, check=False)
    except (PipelineError, OSError):
        return ""
    match = re.search(r"\d+(?:\.\d+)+", done.stdout)
    return match[0] if match else ""
