#!/usr/bin/env python3
"""A Docker engine, a registry and a base image for a machine that has none.

Used by ``.ci/run`` and ``.ci/local.py``; also by hand::

    python3 .ci/services.py start        # prints the variables to export
    python3 .ci/services.py stop
    python3 .ci/services.py run -- CMD   # start, run CMD with the variables, stop

Tests want an engine with each image store (the classic one, which hosted runners have had,
and containerd's): the one that is missing is started beside the first, where that can be,
and CLASSIC_DOCKER_HOST and CONTAINERD_DOCKER_HOST lead to the two.

What is already there is used as it is: an engine that answers is never replaced, a
base image that is present is never rebuilt. On Debian 12 as root a missing engine is
installed from Debian's own packages and started beside (never instead of) anything
else, with its own data, socket and process files. Only what was started here is
stopped. Standard library only: this runs before anything is installed.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

BASE_IMAGE = "python:3.11-slim-bookworm"
ENGINE_PACKAGES = ("docker.io", "docker-cli", "docker-buildx")
HELPER_PACKAGES = ("docker-registry", "debootstrap", "skopeo", "iptables", "gh", "g++")
ENGINE_SUITE = "trixie"
START_LIMIT = 60.0

# What this process started, by process id.
_children: dict[int, subprocess.Popen[bytes]] = {}


class ServicesError(Exception):
    """Something that a person must fix; the message says what."""


def say(text: str) -> None:
    """Talk to the person, on stderr."""
    print(f"services: {text}", file=sys.stderr, flush=True)


def state_dir() -> Path:
    """Folder that holds sockets, data and process files of what is started here."""
    given = os.environ.get("MLC_SERVICES_DIR")
    if given:
        return Path(given)
    cache = os.environ.get("XDG_CACHE_HOME")
    base = Path(cache) if cache else Path.home() / ".cache"
    return base / "mlc-pipeline" / "services"


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


def alive_pid(pid: int) -> bool:
    """Whether a process with this id runs."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def alive(pid_file: Path) -> int | None:
    """The process id in ``pid_file`` if what was started from that folder still runs.

    After a restart of the machine the number may be anybody's; the daemons that are
    started here name the folder in their arguments.
    """
    try:
        pid = int(pid_file.read_text())
        arguments = Path(f"/proc/{pid}/cmdline").read_bytes()
    except (OSError, ValueError):
        return None
    return pid if os.fsencode(pid_file.parent) in arguments else None


# --- Debian packages ---------------------------------------------------------


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
    missing = [name for name in HELPER_PACKAGES if not installed(name)]
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


# --- what is started ---------------------------------------------------------


def spawn(command: Sequence[str], name: str, state: Path) -> int:
    """Start a daemon in a session of its own, its output in ``<name>.log``."""
    with (state / f"{name}.log").open("ab") as log:
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    (state / f"{name}.pid").write_text(str(child.pid))
    _children[child.pid] = child
    return child.pid


def has_ended(pid: int) -> bool:
    """Whether a process is gone; one of our own children is reaped by asking."""
    child = _children.get(pid)
    return child.poll() is not None if child else not alive_pid(pid)


def wait_for(what: str, ready: Callable[[], bool], pid: int, log: Path) -> None:
    """Poll ``ready()`` until it is true, or say why it never will be."""
    limit = time.monotonic() + START_LIMIT
    while time.monotonic() < limit:
        if ready():
            return
        if has_ended(pid):
            break
        time.sleep(0.1)
    tail = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
    raise ServicesError(f"{what} did not start; the end of {log}:\n{tail}")


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


def free_port() -> int:
    """A TCP port on 127.0.0.1 that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def registry_answers(address: str) -> bool:
    """Whether a registry answers over plain HTTP at ``address`` (host:port)."""
    try:
        with urllib.request.urlopen(f"http://{address}/v2/", timeout=5) as answer:  # nosec B310
            return int(answer.status) == 200
    except (urllib.error.URLError, OSError):
        return False


def start_registry(state: Path) -> str | None:
    """Start a registry without login on 127.0.0.1; its ``host:port``."""
    kept = state / "registry.address"
    if alive(state / "registry.pid") and kept.exists() and registry_answers(kept.read_text()):
        return kept.read_text()
    program = shutil.which("docker-registry")
    if program is None:
        say("no docker-registry program here: images are not pushed anywhere")
        return None
    address = f"127.0.0.1:{free_port()}"
    config = state / "registry.yml"
    config.write_text(
        "version: 0.1\n"
        "log: {level: warn}\n"
        "storage:\n"
        f"  filesystem: {{rootdirectory: {json.dumps(str(state / 'registry'))}}}\n"
        "  delete: {enabled: true}\n"
        f"http: {{addr: {json.dumps(address)}}}\n"
    )
    pid = spawn([program, "serve", str(config)], "registry", state)
    wait_for("the registry", lambda: registry_answers(address), pid, state / "registry.log")
    kept.write_text(address)
    say(f"registry started at {address} (process {pid})")
    return address


def have_base_image(env: Mapping[str, str]) -> None:
    """Make ``BASE_IMAGE`` known to the engine: there, pulled, or a stand-in."""

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
    with tempfile.TemporaryDirectory(prefix="base-", dir=state_dir()) as folder:
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


# --- together ----------------------------------------------------------------


@contextlib.contextmanager
def locked(state: Path) -> Iterator[None]:
    """One process at a time starts or stops what is under ``state``."""
    if sys.platform == "win32":
        raise ServicesError("no engine can be started here on Windows; start Docker Desktop")
    import fcntl

    state.mkdir(parents=True, exist_ok=True)
    with (state / "lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def start(user: str, install: bool = True, both: bool = True) -> dict[str, str]:
    """Start what is missing for ``user``, with ``both`` an engine for each image store; the
    variables that lead to it.

    ``user`` is a process id or a name; what is started lives until its last user
    called :func:`stop` or is gone.
    """
    state = state_dir()
    found: dict[str, str] = {}
    with locked(state):
        env = dict(os.environ)
        engine_answers = bool(image_store(None))
        if install:
            install_packages(engine=not engine_answers)
        if not engine_answers:
            found["DOCKER_HOST"] = start_engine(state, "containerd")
            env.update(found)
        registry = start_registry(state)
        if registry:
            found["REGISTRY"] = registry
        have_base_image(env)
        # The stand-in has the official name but not the pinned digest.
        found["BASE_IMAGE"] = BASE_IMAGE
        if both:
            words = ("docker", "context", "inspect", "--format={{.Endpoints.docker.Host}}")
            found |= both_stores(state, found.get("DOCKER_HOST") or run(*words).strip())
        users = state / "users"
        users.mkdir(exist_ok=True)
        (users / user).touch()
    return found


def environment(found: Mapping[str, str]) -> dict[str, str]:
    """Ours with what was ``found``. What a person set wins over what was started here, except
    for engines: ours are started only where theirs do not answer.
    """
    engines = {name: host for name, host in found.items() if name.endswith("DOCKER_HOST")}
    return {**found, **os.environ, **engines}


def signal_process(pid: int, number: int) -> None:
    """Send a signal, as root to what was started as root."""
    try:
        os.kill(pid, number)
    except PermissionError:
        run(*(as_root() or []), "kill", f"-{int(number)}", str(pid))


def end(pid_file: Path, limit: float = 30.0) -> None:
    """End the process of ``pid_file``: politely, then not."""
    pid = alive(pid_file)
    if pid is not None:
        signal_process(pid, signal.SIGTERM)
        until = time.monotonic() + limit
        while not has_ended(pid) and time.monotonic() < until:
            time.sleep(0.1)
        if not has_ended(pid):
            signal_process(pid, signal.SIGKILL)
    pid_file.unlink(missing_ok=True)


def stop(user: str) -> None:
    """Stop what was started here, unless somebody else still uses it."""
    state = state_dir()
    with locked(state):
        users = state / "users"
        (users / user).unlink(missing_ok=True)
        for other in users.glob("*") if users.exists() else ():
            if other.name.isdigit() and not alive_pid(int(other.name)):
                other.unlink(missing_ok=True)
            else:
                say(f"left running: {other.name} still uses the services")
                return
        for folder in (state / "classic", state / "containerd"):
            end(folder / "dockerd.pid")
            if Path("/sys/class/net", bridge_of(folder)).exists():
                run(*(as_root() or []), "ip", "link", "delete", bridge_of(folder))
        for name in ("registry", "dockerd"):
            end(state / f"{name}.pid")


def run_with(command: Sequence[str], install: bool) -> int:
    """Start, run ``command`` with the variables set, stop; its exit code."""
    user = str(os.getpid())
    try:
        child = subprocess.Popen(command, env=environment(start(user, install)))
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, lambda got, _frame: child.send_signal(got))
        # Ctrl-C reaches the child by itself: it is in the same foreground group.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        return child.wait()
    finally:
        stop(user)


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; see the module's text."""
    parser = argparse.ArgumentParser(description="engine, registry and base image for tests")
    parser.add_argument("action", choices=("start", "stop", "run"))
    parser.add_argument("--no-install", action="store_true", help="install no packages")
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    cut = arguments.index("--") if "--" in arguments else len(arguments)
    command = arguments[cut + 1 :]
    given = parser.parse_args(arguments[:cut])
    try:
        if given.action == "start":
            found = start("by-hand", not given.no_install)
            for name, value in found.items():
                print(f"export {name}={shlex.quote(value)}")
            return 0
        if given.action == "stop":
            stop("by-hand")
            return 0
        if not command:
            parser.error("run needs a command after --")
        return run_with(command, not given.no_install)
    except (ServicesError, subprocess.TimeoutExpired, OSError) as error:
        say(str(error))
        return 1


if __name__ == "__main__":
    sys.exit(main())
