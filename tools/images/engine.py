"""The Docker engine: whether it is there, what it can do, and which builder builds."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

from msgspec import Struct

from tools.core import process
from tools.core.errors import PipelineError
from tools.core.failures import Failure, explain
from tools.core.files import parse_json

LEAST_BUILDX = "0.10"  # the first whose build takes --provenance
NO_PERMISSION = Failure(
    r"(?i)permission denied",
    "The Docker socket{where} refuses this user.",
    "Add yourself to the docker group (sudo usermod -aG docker $USER, then log in again), "
    "or use a rootless engine.",
)


@dataclass(frozen=True)
class Engine:
    """What an engine says of itself.

    Attributes:
        version: Of the server.
        containerd_store: Whether it keeps images in containerd's store, and so can hold
            and push indexes and attestations by itself.
        buildx: Version of the buildx plugin, ``0.13.1``; empty if there is none.
    """

    version: str
    containerd_store: bool
    buildx: str


@dataclass(frozen=True)
class Builder:
    """A buildx builder: its name (empty for the current one) and its driver."""

    name: str
    driver: str

    @property
    def is_local(self) -> bool:
        """Whether its results are in the local engine's own image store."""
        return self.driver == "docker"


class _Plugin(Struct, rename="pascal"):
    name: str = ""
    version: str = ""


class _Client(Struct, rename="pascal"):
    plugins: list[_Plugin] | None = None


class _Info(Struct, rename="pascal"):
    server_version: str = ""
    server_errors: list[str] | None = None
    driver_status: list[tuple[str, str]] | None = None
    client_info: _Client | None = None


def unreachable(output: str, env: Mapping[str, str]) -> PipelineError:
    """The error behind what ``docker`` printed when it did not reach its engine."""
    host = env.get("DOCKER_HOST", "")
    where = f" at {host}" if host else ""
    no_engine = PipelineError(
        f"No Docker engine answers{where}.",
        "Start it (Docker Desktop, colima start, sudo systemctl start docker), or point "
        "DOCKER_HOST at one.",
    )
    return explain(output, [NO_PERMISSION], no_engine, where=where)


def find_engine(env: Mapping[str, str] | None = None) -> Engine:
    """Ask the engine that ``docker`` would use.

    Raises:
        PipelineError: There is no client, no engine, or no permission.
    """
    env = os.environ if env is None else env
    command = ["docker", "info", "--format", "{{json .}}"]
    done = process.run(command, env=env, check=False, timeout=30)
    try:
        info = parse_json(done.stdout, _Info)
    except ValueError as error:
        raise unreachable(done.output, env) from error
    if info.server_errors or not info.server_version:
        raise unreachable("\n".join([*(info.server_errors or ()), done.stderr]), env)
    plugins = (info.client_info and info.client_info.plugins) or ()
    versions = "".join(plugin.version for plugin in plugins if plugin.name == "buildx")
    number = re.search(r"\d+\.\d+(\.\d+)?", versions)
    store = ("driver-type", "io.containerd.snapshotter.v1") in (info.driver_status or ())
    return Engine(info.server_version, store, number.group() if number else "")


def check_buildx(engine: Engine) -> None:
    """Refuse an engine's client without buildx, or with one that is too old (PipelineError)."""
    if not engine.buildx:
        remedy = "Install it (Debian and Ubuntu: docker-buildx or docker-buildx-plugin)."
        raise PipelineError("Docker has no buildx plugin.", remedy)
    numbers, least = ([int(n) for n in v.split(".")] for v in (engine.buildx, LEAST_BUILDX))
    if numbers < least:
        remedy = f"Install version {LEAST_BUILDX} or newer."
        raise PipelineError(f"buildx {engine.buildx} is too old.", remedy)


def find_builder(name: str = "", env: Mapping[str, str] | None = None) -> Builder:
    """The builder called ``name``, or the one that is current.

    Raises:
        PipelineError: There is none of that name, or it cannot be reached.
    """
    command = ["docker", "buildx", "inspect", *([name] if name else [])]
    done = process.run(command, env=env, check=False, timeout=60)
    driver = re.search(r"^Driver:\s+(\S+)", done.stdout, re.MULTILINE)
    if driver is None:
        message = f"The buildx builder {name or 'in use'} cannot be used: {done.tail(1)}."
        raise PipelineError(message, "See docker buildx ls, or unset BUILDX_BUILDER.")
    return Builder(name, driver.group(1))
