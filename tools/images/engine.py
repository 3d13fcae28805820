"""The Docker engine: whether it is there, what it can do, and which builder builds."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

from packaging.version import Version

from tools.core import process
from tools.core.errors import PipelineError
from tools.core.failures import Failure, explain

LEAST_BUILDX = "0.10"  # the first whose build takes --provenance
# A line each: the engine's version, its store, and the version of buildx.
INFO = """{{.ServerVersion}}
{{json .DriverStatus}}
{{range .ClientInfo.Plugins}}{{if eq .Name "buildx"}}{{.Version}}{{end}}{{end}}"""
NO_PERMISSION = Failure(
    r"(?i)permission denied",
    "The Docker socket{where} refuses this user.",
    "Add yourself to the docker group (sudo usermod -aG docker $USER, then log in again), "
    "or use a rootless engine.",
)


@dataclass(frozen=True)
class Engine:
    """What an engine says of itself."""

    version: str
    containerd_store: bool  # with it, it holds and pushes indexes and attestations itself
    buildx: str  # version of the plugin


def find_engine(env: Mapping[str, str] | None = None) -> Engine:
    """Ask the engine that ``docker`` would use (PipelineError: there is no client, no engine,
    no permission, no buildx or too old a one).
    """
    done = process.run(["docker", "info", "--format", INFO], env=env, check=False, timeout=30)
    version, store, plugin = [*done.stdout.splitlines(), "", "", ""][:3]
    if not version:
        host = (env or os.environ).get("DOCKER_HOST", "")
        where = f" at {host}" if host else ""
        no_engine = PipelineError(
            f"No Docker engine answers{where}.",
            "Start it (Docker Desktop, colima start, sudo systemctl start docker), or point "
            "DOCKER_HOST at one.",
        )
        raise explain(done.output, [NO_PERMISSION], no_engine, where=where)
    buildx = re.search(r"\d+\.\d+(\.\d+)?", plugin)
    if buildx is None or Version(buildx[0]) < Version(LEAST_BUILDX):
        raise PipelineError(
            f"Docker's buildx plugin is {f'{buildx[0]}, too old' if buildx else 'missing'}.",
            f"Install {LEAST_BUILDX} or newer (Debian: docker-buildx, docker-buildx-plugin).",
        )
    return Engine(version, "io.containerd.snapshotter.v1" in store, buildx[0])


def find_driver(builder: str = "", env: Mapping[str, str] | None = None) -> str:
    """The driver of a buildx builder, or of the current one (PipelineError: it cannot be
    used). With ``docker`` the engine itself builds, and its image store has the results.
    """
    command = ["docker", "buildx", "inspect", *([builder] if builder else [])]
    done = process.run(command, env=env, check=False, timeout=60)
    driver = re.search(r"^Driver:\s+(\S+)", done.stdout, re.MULTILINE)
    if driver is None:
        message = f"The buildx builder {builder or 'in use'} cannot be used: {done.tail(1)}."
        raise PipelineError(message, "See docker buildx ls, or unset BUILDX_BUILDER.")
    return driver[1]
