"""The ABI gate: what a Linux wheel's libraries import must exist where it is installed.

The loader looks for a library by its name alone, and only a call or an import tells that the
one it found lacks a symbol: a wheel and a TVM that are out of step install without complaint.
"""

import ctypes
import functools
import io
import re
import struct
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatch
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

from elftools.elf.elffile import ELFFile
from packaging.utils import canonicalize_name

from tools.core.errors import PipelineError
from tools.wheels.archive import Wheel

OWN = "the wheel itself"
SYSTEM = "the system"
DRIVERS = "drivers (not checked)"
INTERPRETER = "Python"


@dataclass(frozen=True)
class AbiReport:
    """What the gate has checked, and where it is."""

    symbols: int = 0  # that the wheel's libraries import, each counted once
    providers: Mapping[str, int] = field(default_factory=dict)  # of these, by who has them
    drivers: tuple[str, ...] = ()  # libraries that are left to the user's drivers
    skipped: str = ""  # why nothing was checked

    def __str__(self) -> str:
        if self.skipped:
            return f"ABI not checked: {self.skipped}"
        parts = [f"{count:,} of {name}" for name, count in self.providers.items()]
        left = f"; left to drivers: {', '.join(self.drivers)}" if self.drivers else ""
        return f"ABI: {self.symbols:,} symbols: {', '.join(parts)}{left}"


@dataclass(frozen=True, eq=False)
class Library:
    """What the gate reads of a shared library."""

    name: str  # of its file
    owner: str  # name and version of the distribution that has it, or OWN
    needed: tuple[str, ...]  # libraries it is linked against
    imports: Mapping[str, str]  # symbols it must find, with the library of their version
    exports: frozenset[str]

    def __str__(self) -> str:
        return self.name if self.owner == OWN else f"{self.name} ({self.owner})"


def check(wheel: Wheel, site_packages: Path, excluded: Sequence[str]) -> AbiReport:
    """Hold the wheel against the environment it is installed in.

    Every library that it needs must be in the wheel, the system's (by auditwheel's policy), or
    in another distribution of ``site_packages``; so must every symbol that it imports, weak
    ones apart. The same holds for the libraries of others that it reaches. One whose name
    fits a pattern of ``excluded`` is never the wheel's own, though a copy may be packed; where
    nobody has it, a driver brings it.

    Raises:
        PipelineError: Something is missing; all of it is in the detail, demangled.

    Sources: System V ABI, "Dynamic Linking"; PEP 600; auditwheel's manylinux policies.
    """
    if not any("linux" in tag for tag in wheel.tags):
        return AbiReport(skipped=f"{wheel.name} is not a compiled Linux wheel")
    gate = _Gate(wheel, site_packages, excluded)
    libraries = list(gate.own.values())
    for library in libraries:  # it grows: a companion may be out of step with its own ones
        gate.check(library)
        libraries += [one for one in gate.linked(library) if one not in libraries]
    if gate.absent or gate.missing:
        raise gate.error()
    counts = Counter(gate.providers.values())
    return AbiReport(counts.total(), dict(sorted(counts.items())), tuple(sorted(gate.drivers)))


class _Gate:
    """The libraries that matter, each read once, and what became of the wheel's imports."""

    def __init__(self, wheel: Wheel, site_packages: Path, excluded: Sequence[str]) -> None:
        self.excluded = excluded
        self.system = system_libraries(wheel.tags)
        self.own = {library.name: library for library in read_libraries(wheel)}
        self.files = installed_libraries(site_packages, wheel.project)
        self.installed: dict[str, Library] = {}
        self.providers: dict[str, str] = {}  # by symbol
        self.missing: dict[str, set[Library]] = {}  # symbols, and who imports them
        self.absent: set[str] = set()  # sentences
        self.drivers: set[str] = set()

    def left_out(self, name: str) -> bool:
        """Whether the wheel's own copy of a library is not what is loaded."""
        return any(fnmatch(name, pattern) for pattern in self.excluded)

    def in_system(self, name: str) -> bool:
        """Whether every system of the wheel's tags has a library."""
        return name in self.system or name.startswith(("ld-linux", "ld64.so"))  # the loader

    def find(self, name: str) -> Library | None:
        """The library that is loaded by a name; None where nobody has it."""
        if name in self.own and not self.left_out(name):
            return self.own[name]
        if name in self.files and name not in self.installed:
            path, owner = self.files[name]
            self.installed[name] = read_library(path.read_bytes(), name, owner)
        return self.installed.get(name)

    def linked(self, library: Library) -> list[Library]:
        """All that is loaded with a library, nearest first, as the loader searches it."""
        chain = [library]
        for one in chain:  # it grows on the way
            needed = map(self.find, one.needed)
            chain += dict.fromkeys(new for new in needed if new and new not in chain)
        return chain[1:]

    def check(self, library: Library) -> None:
        """Find out who has what a library of the wheel needs."""
        system = [name for name in library.needed if self.in_system(name)]
        unknown = {
            name for name in library.needed if name not in system and not self.find(name)
        }
        # A copy in the wheel shows that it is a companion's, and no driver's.
        drivers = {name for name in unknown if self.left_out(name) and name not in self.own}
        self.drivers |= drivers
        self.absent |= {f"{library} needs {name}" for name in unknown - drivers}
        chain = self.linked(library)
        for symbol, source in library.imports.items():
            holder = next((str(one) for one in chain if symbol in one.exports), "")
            if self.in_system(source) or not holder and system_has(symbol, system):
                holder = SYSTEM
            elif not holder and symbol.startswith(("Py", "_Py")):
                holder = INTERPRETER
            elif not holder and drivers and not symbol.startswith("_Z"):
                holder = DRIVERS  # their interfaces are C, never C++
            if not holder:
                self.missing.setdefault(symbol, set()).add(library)
            elif library.owner == OWN:
                self.providers[symbol] = holder

    def error(self) -> PipelineError:
        """What does not fit, in one sentence; everything in its detail."""
        lines = sorted(f"{line}, which is nowhere" for line in self.absent)
        lines += [f"missing: {text}" for text in demangled(sorted(self.missing))]
        if self.absent:
            return PipelineError(
                f"{min(self.absent)}, which is not in the wheel, the system or a dependency.",
                "Declare what has it (the flavour's companion, WHEEL_REQUIRES), or name it in "
                "WHEEL_EXCLUDE if a driver brings it.",
                "\n".join(lines),
            )
        users = set().union(*self.missing.values())
        linked = {one.owner for user in users for one in self.linked(user)} - {OWN}
        count = len(self.missing)
        return PipelineError(
            f"{', '.join(sorted({str(user) for user in users}))}: "
            f"{count} symbol{'s' * (count > 1)} not found in "
            f"{' and '.join(sorted(linked)) or 'anything it is linked against'}.",
            "They are out of step: change the flavour's companion to the version that this "
            "source was written for, or the source.",
            "\n".join(lines),
        )


def system_libraries(tags: Sequence[str]) -> frozenset[str]:
    """Names of the libraries that every system of a Linux wheel's tags has."""
    from auditwheel.architecture import Architecture  # auditwheel is on Linux alone
    from auditwheel.libc import Libc
    from auditwheel.policy import WheelPolicies

    platforms = {tag.rsplit("-", 1)[1] for tag in tags}
    [arch] = {re.sub(r"^(many)?linux(\d+|_\d+_\d+)?_", "", name) for name in platforms}
    policies = WheelPolicies(libc=Libc.GLIBC, arch=Architecture(arch))
    fitting = [p.whitelist for p in policies if p.whitelist and p.name in platforms]
    return frozenset.intersection(*(fitting or [policies.highest.whitelist]))


def system_has(symbol: str, libraries: Sequence[str]) -> bool:
    """Whether this machine's own libraries have a symbol for which none of their versions is
    required: the linker found it in a library without versions (as TVM's copies of what
    libstdc++ has), which another TVM may lack.
    """
    return any(hasattr(system_library(name), symbol) for name in libraries)


@functools.cache
def system_library(name: str) -> ctypes.CDLL | None:
    """A library of this machine; None where it has none of that name."""
    try:
        return ctypes.CDLL(name)
    except OSError:
        return None


def installed_libraries(site_packages: Path, project: str) -> dict[str, tuple[Path, str]]:
    """The shared libraries of all distributions but ``project``, by file name, each with its
    path and its owner (name and version).
    """
    libraries = {}
    for one in distributions(path=[str(site_packages)]):
        if canonicalize_name(one.name) == project:
            continue
        for file in one.files or ():
            if re.search(r"\.so(\.\d+)*$", file.name):
                libraries[file.name] = (Path(str(file.locate())), f"{one.name} {one.version}")
    return libraries


def read_libraries(wheel: Wheel) -> Iterator[Library]:
    """The shared libraries of a wheel."""
    with zipfile.ZipFile(wheel.path) as archive:
        for name in archive.namelist():
            if re.search(r"\.so(\.\d+)*$", name):
                yield read_library(archive.read(name), name.rsplit("/", 1)[-1], OWN)


def read_library(data: bytes, name: str, owner: str) -> Library:
    """Read the dynamic part of an ELF file of a 64-bit machine."""
    elf = ELFFile(io.BytesIO(data))
    dynamic: Any = elf.get_section_by_name(".dynamic")
    needed = tuple(tag.needed for tag in dynamic.iter_tags("DT_NEEDED")) if dynamic else ()
    table: Any = elf.get_section_by_name(".dynsym")
    versions: Any = elf.get_section_by_name(".gnu.version")
    sources: Any = elf.get_section_by_name(".gnu.version_r")
    from_library = {
        version["vna_other"]: library.name
        for library, its in (sources.iter_versions() if sources else ())
        for version in its
    }
    # The loader looks up what a relocation names, not each symbol that is left undefined.
    # ELF-64 Object File Format, "Relocations": the upper half of r_info is the symbol.
    relocations = b"".join(one.data() for one in elf.iter_sections("SHT_RELA"))
    used = {info >> 32 for _, info, _ in struct.iter_unpack("<QQq", relocations)}
    imports, exports = {}, set()
    for index, symbol in enumerate(table.iter_symbols() if table else ()):
        if symbol["st_info"]["bind"] == "STB_LOCAL" or not symbol.name:
            continue
        if symbol["st_shndx"] != "SHN_UNDEF":
            exports.add(symbol.name)
        elif index in used and symbol["st_info"]["bind"] != "STB_WEAK":
            version = versions.get_symbol(index)["ndx"] if versions else None
            imports[symbol.name] = from_library.get(version, "")
    return Library(name, owner, needed, imports, frozenset(exports))


def demangled(symbols: Sequence[str]) -> list[str]:
    """C++ names as one writes them; those that libstdc++ cannot read stay as they are."""
    import cxxfilt  # finds libstdc++ when it is imported, so on Linux alone

    texts = []
    for symbol in symbols:
        try:
            texts.append(str(cxxfilt.demangle(symbol)))
        except cxxfilt.InvalidName:
            texts.append(symbol)
    return texts
