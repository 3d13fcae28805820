"""Docker engines, each with its image store and the base image.

Standard library only: this runs before anything is installed.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Mapping
from pathlib import Path

from daemons import alive, end, spawn, wait_for
from machine import ServicesError, as_root, debian_mirror, is_debian, os_release, run, say

BASE_IMAGE = "python:3.11-slim-bookworm"


def image_store(docker_host: str | None) -> str:
    """How the engine at ``docker_host`` (None: where docker looks) keeps images: ``classic``
    or ``containerd``; empty if none answers.
    """
    if shutil.which("docker") is None:
        return ""
    env = dict(os.environ)
    if docker_host:
        env["DOCKER_HOST"] = docker_host
    command = ["docker", "info", "--format", "{{.ServerVersion}} {{json .DriverStatus}}"]
    try:
        done = subprocess.run(
            command, env=env, capture_output=True, text=True, timeout=20, check=False
        )
    except subprocess.TimeoutExpired:
        return ""
    version, _, status = done.stdout.partition(" ")
    if not version:
        return ""
    return "containerd" if "io.containerd.snapshotter" in status else "classic"


def start_engine(folder: Path, store: str, second: bool = False) -> str:
    """Start an engine of our own with an image store under ``folder``; its address. The
    second on a machine shares nothing with the first: neither its bridge and its firewall
    rules, nor the names in a containerd that both may use.
    """
    host = f"unix://{folder / 'docker.sock'}"
    if alive(folder / "dockerd.pid") and image_store(host):
        return host
    folder.mkdir(exist_ok=True)
    config = folder / "dockerd.json"
    settings = {
        # With containerd's store the docker driver pushes indexes and attestations.
        "features": {"containerd-snapshotter": store == "containerd"},
        "insecure-registries": ["127.0.0.0/8"],
    }
    config.write_text(json.dumps(settings))
    for stale in ("docker.sock", "docker.pid"):
        (folder / stale).unlink(missing_ok=True)
    command = [
        "dockerd",
        f"--config-file={config}",
        f"--data-root={folder / 'engine'}",
        f"--exec-root={folder / 'exec'}",
        f"--pidfile={folder / 'docker.pid'}",
        f"--host={host}",
        f"--group={os.getgid()}",
    ]
    if second:
        name = have_bridge(folder)
        command += [f"--bridge={name}", "--iptables=false", "--ip6tables=false"]
        command += [f"--containerd-namespace={name}"]
        command += [f"--containerd-plugins-namespace=plugins.{name}"]
    pid = spawn([*(as_root() or []), *command], "dockerd", folder)
    wait_for("the Docker engine", lambda: bool(image_store(host)), pid, folder / "dockerd.log")
    say(f"engine with the {store} image store started (process {pid})")
    return host


def stop_engine(folder: Path) -> None:
    """End the engine under ``folder``, if one runs, and its bridge, if it has one."""
    end(folder / "dockerd.pid")
    if Path("/sys/class/net", bridge_of(folder)).exists():
        run(*(as_root() or []), "ip", "link", "delete", bridge_of(folder))


def bridge_of(folder: Path) -> str:
    """The network bridge of the engine under ``folder``; names may have 15 characters."""
    return f"mlc-{hashlib.sha256(os.fsencode(folder)).hexdigest()[:8]}"


def have_bridge(folder: Path) -> str:
    """Make the bridge of the engine under ``folder``; its name. With ``--bridge=none`` dockerd
    would delete docker0, the first engine's.
    """
    name = bridge_of(folder)
    if not Path("/sys/class/net", name).exists():
        run(*(as_root() or []), "ip", "link", "add", name, "type", "bridge")
    return name


def both_stores(state: Path, first: str) -> dict[str, str]:
    """The variables that lead to an engine with each image store: the ``first``, and another
    that is there or is started beside it, with the same base image; without one where that
    is impossible.
    """
    store = image_store(first)
    other = {"classic": "containerd", "containerd": "classic"}[store]
    found = {f"{store.upper()}_DOCKER_HOST": first}
    name = f"{other.upper()}_DOCKER_HOST"
    host = os.environ.get(name)
    if not (host and image_store(host) == other):
        if as_root() is None or shutil.which("dockerd") is None:
            say(f"no engine with the {other} image store can be started here: not its tests")
            return found
        host = start_engine(state / other, other, second=True)
    copy_base_image(first, host)
    return found | {name: host}


def have_base_image(env: Mapping[str, str], state: Path) -> None:
    """Make ``BASE_IMAGE`` known to the engine: there, pulled, or a stand-in, which is made in
    the folder ``state``.
    """

    def docker(*arguments: str, limit: float) -> bool:
        command = ["docker", *arguments]
        done = subprocess.run(
            command, env=dict(env), capture_output=True, timeout=limit, check=False
        )
        return done.returncode == 0

    if docker("image", "inspect", BASE_IMAGE, limit=60):
        return
    with contextlib.suppress(subprocess.TimeoutExpired):
        if docker("pull", "--quiet", BASE_IMAGE, limit=300):
            return
    if shutil.which("debootstrap") is None or not is_debian() or os.geteuid() != 0:
        say(f"{BASE_IMAGE} can neither be pulled nor made here: image builds will say so")
        return
    say(f"{BASE_IMAGE} cannot be pulled: making a stand-in with debootstrap")
    mirror, _ = debian_mirror(os_release()["VERSION_CODENAME"])
    with tempfile.TemporaryDirectory(prefix="base-", dir=state) as folder:
        root = Path(folder) / "root"
        packages = "ca-certificates,python3,python3-venv,python3-pip"
        run(
            "debootstrap", "--variant=minbase", f"--include={packages}",
            "bookworm", str(root), mirror,
        )  # fmt: skip
        for rubbish in ("var/cache/apt/archives", "var/lib/apt/lists"):
            shutil.rmtree(root / rubbish, ignore_errors=True)
            (root / rubbish / "partial").mkdir(parents=True)
        archive = Path(folder) / "root.tar"
        with tarfile.open(archive, "w") as tar:
            tar.add(root, arcname=".")
        change = 'CMD ["python3"]'
        done = subprocess.run(
            ["docker", "import", "--change", change, str(archive), BASE_IMAGE],
            env=dict(env), capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode:
            raise ServicesError(f"docker import failed: {done.stderr.strip()}")


def copy_base_image(source: str, target: str) -> None:
    """Make ``BASE_IMAGE`` of one engine known to another, if the one has it."""
    save, load = (["docker", f"--host={host}"] for host in (source, target))
    inspect = [*load, "image", "inspect", BASE_IMAGE]
    if subprocess.run(inspect, capture_output=True, check=False).returncode == 0:
        return
    with subprocess.Popen([*save, "save", BASE_IMAGE], stdout=subprocess.PIPE) as saving:
        subprocess.run([*load, "load", "--quiet"], stdin=saving.stdout, check=False, stdout=2)
