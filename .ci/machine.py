"""The machine: commands, and Debian's packages where there is a Debian.

Standard library only: this runs before anything is installed.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ENGINE_PACKAGES = ("docker.io", "docker-cli", "docker-buildx")
HELPER_PACKAGES = (
    "docker-registry", "debootstrap", "skopeo", "iptables", "iproute2", "gh", "g++", "cargo",
)  # fmt: skip
ENGINE_SUITE = "trixie"


class ServicesError(Exception):
    """Something that a person must fix; the message says what."""


def say(text: str) -> None:
    """Talk to the person, on stderr."""
    print(f"services: {text}", file=sys.stderr, flush=True)


def run(*command: str, quiet: bool = True, timeout: float | None = None) -> str:
    """Run a command; its standard output, or a ServicesError with its last lines."""
    done = subprocess.run(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE if quiet else None,
        text=True,
        timeout=timeout,
        check=False,
    )
    if done.returncode:
        tail = "\n".join(((done.stdout or "") + (done.stderr or "")).splitlines()[-15:])
        raise ServicesError(f"{shlex.join(command)} ended with {done.returncode}:\n{tail}")
    return done.stdout


def os_release() -> dict[str, str]:
    """The fields of ``/etc/os-release``; none on a system without it."""
    try:
        text = Path("/etc/os-release").read_text()
    except OSError:
        return {}
    return dict(re.findall(r'^(\w+)="?([^"\n]*)"?$', text, re.MULTILINE))


def is_debian() -> bool:
    """Whether this is Debian or made from it (Ubuntu, the hosted runners)."""
    found = os_release()
    return "debian" in (found.get("ID"), *found.get("ID_LIKE", "").split())


def is_bookworm() -> bool:
    """Whether this is Debian 12."""
    found = os_release()
    return found.get("ID") == "debian" and found.get("VERSION_CODENAME") == "bookworm"


def as_root() -> list[str] | None:
    """What goes before a command to run it as root: nothing, sudo, or None: impossible.

    sudo only in CI, where it asks nothing: a person's machine is not ours to change.
    """
    if os.name == "nt":
        return None
    if os.geteuid() == 0:
        return []
    sudo = ["sudo", "--non-interactive"]
    if not os.environ.get("CI") or shutil.which("sudo") is None:
        return None
    done = subprocess.run([*sudo, "true"], capture_output=True, check=False)
    return sudo if done.returncode == 0 else None


def debian_mirror(release: str) -> tuple[str, str | None]:
    """Mirror address and key ring of the machine's own apt source of ``release``."""
    for path in sorted(Path("/etc/apt/sources.list.d").glob("*.sources")):
        for stanza in path.read_text().split("\n\n"):
            fields = dict(re.findall(r"^([\w-]+):\s*(.+)$", stanza, re.MULTILINE))
            if release in fields.get("Suites", "").split():
                return fields["URIs"].split()[0], fields.get("Signed-By")
    lists = [Path("/etc/apt/sources.list"), *Path("/etc/apt/sources.list.d").glob("*.list")]
    for path in lists:
        if not path.exists():
            continue
        pattern = rf"^deb\s+(?:\[([^\]]*)\]\s+)?(\S+)\s+{re.escape(release)}\s"
        match = re.search(pattern, path.read_text(), re.MULTILINE)
        if match:
            signed = re.search(r"signed-by=(\S+)", match.group(1) or "")
            return match.group(2), signed.group(1) if signed else None
    raise ServicesError(f"no apt source of {release} was found; add Debian's to /etc/apt")


@contextlib.contextmanager
def no_service_starts() -> Iterator[None]:
    """Keep packages from starting services of their own while they are installed."""
    policy = Path("/usr/sbin/policy-rc.d")
    if policy.exists() or as_root() != []:
        yield
        return
    policy.write_text("#!/bin/sh\nexit 101\n")
    policy.chmod(0o755)
    try:
        yield
    finally:
        policy.unlink(missing_ok=True)


def apt_get(*arguments: str) -> None:
    """apt-get, without questions, waiting for another apt that runs."""
    quiet = ["env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-qq"]
    run(*(as_root() or []), *quiet, "-o", "DPkg::Lock::Timeout=120", *arguments)


def installed(package: str) -> bool:
    """Whether dpkg has ``package`` installed."""
    command = ["dpkg-query", "-W", "-f", "${Status}", package]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.startswith("install ok installed")


def add_engine_suite() -> None:
    """Make apt know the suite that the engine comes from, and take nothing else from it."""
    mirror, key = debian_mirror("bookworm")
    source = f"Types: deb\nURIs: {mirror}\nSuites: {ENGINE_SUITE}\nComponents: main\n"
    source += f"Signed-By: {key}\n" if key else ""
    Path("/etc/apt/sources.list.d/mlc-pipeline-engine.sources").write_text(source)
    pin = f"Package: *\nPin: release n={ENGINE_SUITE}\nPin-Priority: 100\n"
    Path("/etc/apt/preferences.d/mlc-pipeline-engine").write_text(pin)


def can_install() -> bool:
    """Whether packages can be installed here: Debian or made from it, as root."""
    return is_debian() and as_root() is not None


def install_packages(engine: bool) -> None:
    """Install registry and helpers from Debian, and the engine if asked: what is missing.

    Debian 12's engine (20.10) lacks buildx and the containerd image store, so there the
    engine comes from the next suite of the same mirror: at a low pin, and by naming the
    packages' suite rather than with ``-t``, which would take libc from there as well.
    """
    if not can_install():
        if not engine:
            return
        raise ServicesError(
            "no Docker engine answers, and one can be installed here only as root on "
            "Debian; start yours (Docker Desktop, colima, systemctl start docker)"
        )
    # A Rust of rustup's, say, serves as well.
    helpers = [name for name in HELPER_PACKAGES if not shutil.which(name)]
    missing = [name for name in helpers if not installed(name)]
    missing_engine = [name for name in ENGINE_PACKAGES if engine and not installed(name)]
    if not missing_engine and not missing:
        return
    if missing_engine and is_bookworm():
        add_engine_suite()
        missing_engine = [f"{name}/{ENGINE_SUITE}" for name in missing_engine]
    say(f"installing {', '.join(missing_engine + missing)}")
    with no_service_starts():
        apt_get("update")
        for packages in (missing, missing_engine):
            if packages:
                apt_get("install", "--yes", "--no-install-recommends", *packages)
