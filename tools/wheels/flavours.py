"""Flavours: what a wheel is built for (``[tool.mlc-pipeline.flavours]`` in pyproject.toml)."""

import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
from packaging.utils import canonicalize_name

from tools.core import machine
from tools.core.errors import PipelineError, UsageError


@dataclass(frozen=True)
class Flavour:
    """One row of the table."""

    companion: str  # requirement of the TVM that its wheels are built for, and declare
    name: str = ""  # as in the table
    default: bool = False  # whether its wheels have the plain name, on its runners' platforms
    cmake: tuple[str, ...] = ()  # options, NAME=VALUE
    architectures: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # by option
    exclude: tuple[str, ...] = ()  # libraries that repair leaves out, beside WHEEL_EXCLUDE
    toolchain: tuple[str, ...] = ()  # programs without which it cannot be built
    image: str = ""  # that it is built in on Linux; empty for that of all wheels
    runners: Mapping[str, str] = field(default_factory=dict)  # of CI, by platform (linux-x64)

    def __str__(self) -> str:
        return self.name

    def cmake_args(self) -> list[str]:
        """Its options, as CMake takes them."""
        lists = [f"{option}={';'.join(one)}" for option, one in self.architectures.items()]
        return [f"-D{option}" for option in (*self.cmake, *lists)]

    def identity(
        self, project: str, version: str | None, naming: str
    ) -> tuple[str, str | None]:
        """Name and version of its wheels of a ``project``, by the setting FLAVOUR_NAMING; no
        version is the source's own.

        Source: PyPA, "Version specifiers", Local version identifiers.
        """
        if self.default:
            return project, version
        if naming == "name" or version is None:
            return f"{canonicalize_name(project)}-{self.name}", version
        return project, f"{version}{'.' if '+' in version else '+'}{self.name}"


PLAIN = Flavour(companion="", default=True)  # of what is the same in all flavours


def load_flavours(root: Path) -> dict[str, Flavour]:
    """The table of the checkout ``root``; a UsageError says which entry is wrong."""
    document = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    table = document["tool"]["mlc-pipeline"].get("flavours", {})
    flavours = {}
    for name, row in table.items():
        try:
            if unknown := row.keys() - Flavour.__dataclass_fields__.keys():
                raise ValueError(f"{min(unknown)} is not a key of a flavour")
            flavours[name] = msgspec.convert({**row, "name": name}, Flavour)
        except (ValueError, AttributeError) as error:
            raise UsageError(
                f"pyproject.toml, [tool.mlc-pipeline.flavours.{name}]: {error}.",
                f"Its keys are {', '.join(Flavour.__dataclass_fields__)}.",
            ) from error
    return flavours


def this_platform() -> str:
    """This machine as platforms are named here: ``linux-x64``, ``macos-arm64``."""
    return "-".join(machine.runner()).lower()


def choose(
    flavours: Mapping[str, Flavour], names: Sequence[str], here: str
) -> tuple[Flavour, ...]:
    """The flavours with these ``names``; without any the default of the platform ``here``
    (a UsageError for a name that is not in the table).
    """
    for name in names:
        if name not in flavours:
            known = ", ".join(flavours) or "none"
            raise UsageError(f"There is no flavour {name!r}.", f"Known flavours: {known}.")
    if names:
        return tuple(flavours[name] for name in dict.fromkeys(names))
    defaults = [one for one in flavours.values() if one.default]
    fitting = [one for one in defaults if here in one.runners]
    return tuple((fitting or defaults)[:1])


def check_toolchain(flavour: Flavour, find: Callable[[str], object]) -> None:
    """Refuse a flavour, before hours are spent on it, where ``find`` finds not all programs
    that it needs.
    """
    missing = [name for name in flavour.toolchain if not find(name)]
    if missing:
        where = f"set WHEEL_CONTAINER=auto: {flavour.image} has them" if flavour.image else ""
        raise PipelineError(
            f"The flavour {flavour.name} needs {' and '.join(missing)}, not found here.",
            f"Install the toolchain, or {where or 'build another flavour'}.",
        )


def matrix(flavours: Mapping[str, Flavour]) -> list[dict[str, str]]:
    """The rows of the workflow's matrix."""
    rows = []
    for name, flavour in flavours.items():
        for where, runner in flavour.runners.items():
            system, arch = where.split("-")
            rows.append({"os": runner, "platform": system, "arch": arch, "flavour": name})
    return rows
