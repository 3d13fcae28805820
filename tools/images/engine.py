"""The Docker engine: whether it is there, what it can do, and which builder builds."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

from msgspec import Struct
from packaging.version import Version

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
    """What an engine says of itself; with containerd's store it can hold and push indexes
    and attestations by itself.
    """

    version: str
    containerd_store: bool
    buildx: str  # version of the plugin


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
        PipelineError: No client, no engine, no permission, no buildx or too old a one.
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
    texts = "".join(plugin.version for plugin in plugins if plugin.name == "buildx")
    buildx = re.search(r"\d+\.\d+(\.\d+)?", texts)
    if buildx is None:
        remedy = "Install it (Debian and Ubuntu: docker-buildx or docker-buildx-plugin)."
        raise PipelineError("Docker has no buildx plugin.", remedy)
    if Version(buildx.group()) < Version(LEAST_BUILDX):
        remedy = f"Install version {LEAST_BUILDX} or newer."
        raise PipelineError(f"buildx {buildx.group()} is too old.", remedy)
    store = ("driver-type", "io.containerd.snapshotter.v1") in (info.driver_status or ())
    return Engine(info.server_version, store, buildx.group())


def find_builder(name: str = "", env: Mapping[str, str] | None = None) -> Builder:
    """The builder called ``name``, or the one that is current (PipelineError: it cannot be
    used).
    """
    command = ["docker", "buildx", "inspect", *([name] if name else [])]
    done = process.run(command, env=env, check=False, timeout=60)
    driver = re.search(r"^Driver:\s+(\S+)", done.stdout, re.MULTILINE)
    if driver is None:
        message = f"The buildx builder {name or 'in use'} cannot be used: {done.tail(1)}."
        raise PipelineError(message, "See docker buildx ls, or unset BUILDX_BUILDER.")
    return Builder(name, driver.group(1))
