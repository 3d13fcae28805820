"""The Docker engine: whether it is there, what it can do, and which builder builds."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tools.core import process
from tools.core.errors import PipelineError

# The first buildx whose build takes --provenance.
LEAST_BUILDX = (0, 10)


class EngineError(PipelineError):
    """The engine cannot be used; ``cause`` tells the kinds apart.

    One of ``no-client``, ``not-running``, ``no-permission``, ``no-buildx``, ``old-buildx``,
    ``no-builder``.
    """

    def __init__(self, cause: str, message: str, remedy: str) -> None:
        super().__init__(message, remedy)
        self.cause = cause


@dataclass(frozen=True)
class Engine:
    """What an engine says of itself.

    Attributes:
        version: Of the server.
        containerd_store: Whether it keeps images in containerd's store, and so can hold
            and push indexes and attestations by itself.
        storage_driver: ``overlayfs``, ``overlay2``, ...
        buildx: Version of the buildx plugin, ``0.13.1``.
    """

    version: str
    containerd_store: bool
    storage_driver: str
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


def explain(output: str, host: str = "") -> EngineError:
    """The error behind what ``docker`` printed when it did not reach its engine."""
    where = f" at {host}" if host else ""
    if "permission denied" in output.lower():
        return EngineError(
            "no-permission",
            f"The Docker socket{where} refuses this user.",
            "Add yourself to the docker group (sudo usermod -aG docker $USER, then log in "
            "again), or use a rootless engine.",
        )
    return EngineError(
        "not-running",
        f"No Docker engine answers{where}.",
        "Start it (Docker Desktop, colima start, sudo systemctl start docker), or point "
        "DOCKER_HOST at one.",
    )


def _info(env: Mapping[str, str] | None) -> dict[str, Any]:
    try:
        done = process.run(
            ["docker", "info", "--format", "{{json .}}"], env=env, check=False, timeout=30
        )
    except PipelineError as error:
        if "not found" in error.message:
            raise EngineError(
                "no-client", "The program docker was not found.", "Install Docker with buildx."
            ) from error
        raise
    host = (env or os.environ).get("DOCKER_HOST", "")
    try:
        found: dict[str, Any] = json.loads(done.stdout)
    except ValueError as error:
        raise explain(done.output, host) from error
    problems = "\n".join(found.get("ServerErrors") or [])
    if problems or not found.get("ServerVersion"):
        raise explain(problems + done.stderr, host)
    return found


def find_engine(env: Mapping[str, str] | None = None) -> Engine:
    """Ask the engine that ``docker`` would use.

    Raises:
        EngineError: No client, no engine, no permission, no buildx or too old a one.
    """
    found = _info(env)
    plugins = found.get("ClientInfo", {}).get("Plugins") or []
    versions = [str(p.get("Version", "")) for p in plugins if p.get("Name") == "buildx"]
    numbers = re.search(r"(\d+)\.(\d+)(\.\d+)?", versions[0]) if versions else None
    if numbers is None:
        raise EngineError(
            "no-buildx",
            "Docker has no buildx plugin.",
            "Install it (Debian and Ubuntu: docker-buildx or docker-buildx-plugin).",
        )
    if (int(numbers.group(1)), int(numbers.group(2))) < LEAST_BUILDX:
        raise EngineError(
            "old-buildx",
            f"buildx {numbers.group(0)} is too old.",
            f"Install version {'.'.join(map(str, LEAST_BUILDX))} or newer.",
        )
    status = {str(pair[0]): str(pair[1]) for pair in found.get("DriverStatus") or []}
    return Engine(
        version=str(found["ServerVersion"]),
        containerd_store=status.get("driver-type") == "io.containerd.snapshotter.v1",
        storage_driver=str(found.get("Driver", "")),
        buildx=numbers.group(0),
    )


def find_builder(name: str = "", env: Mapping[str, str] | None = None) -> Builder:
    """The builder called ``name``, or the one that is current.

    Raises:
        EngineError: There is none of that name, or it cannot be reached.
    """
    command = ["docker", "buildx", "inspect", *([name] if name else [])]
    done = process.run(command, env=env, check=False, timeout=60)
    driver = re.search(r"^Driver:\s+(\S+)", done.stdout, re.MULTILINE)
    if driver is None:
        last = (done.output.strip().splitlines() or ["no answer"])[-1]
        raise EngineError(
            "no-builder",
            f"The buildx builder {name or 'in use'} cannot be used: {last}.",
            "See docker buildx ls, or unset BUILDX_BUILDER.",
        )
    return Builder(name, driver.group(1))
