#!/usr/bin/env python3
"""A Docker engine, a registry and a base image for a machine that has none.

Used by ``.ci/run`` and ``.ci/local.py``; also by hand::

    python3 .ci/services.py start        # prints the variables to export
    python3 .ci/services.py stop
    python3 .ci/services.py run -- CMD   # start, run CMD with the variables, stop

With ``--both-stores``, which tests want, there is an engine with each image store (the
classic one, which hosted runners have had, and containerd's): the one that is missing is
started beside the first, where that can be, and CLASSIC_DOCKER_HOST and
CONTAINERD_DOCKER_HOST lead to the two.

What is already there is used as it is: an engine that answers is never replaced, a
base image that is present is never rebuilt. On Debian 12 as root a missing engine is
installed from Debian's own packages and started beside (never instead of) anything
else, with its own data, socket and process files. Only what was started here is
stopped. Standard library only: this runs before anything is installed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import daemons
import engines
import machine
from machine import ServicesError, say


def state_dir() -> Path:
    """Folder that holds sockets, data and process files of what is started here."""
    given = os.environ.get("MLC_SERVICES_DIR")
    if given:
        return Path(given)
    cache = os.environ.get("XDG_CACHE_HOME")
    base = Path(cache) if cache else Path.home() / ".cache"
    return base / "mlc-pipeline" / "services"


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
    if (
        daemons.alive(state / "registry.pid")
        and kept.exists()
        and registry_answers(kept.read_text())
    ):
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
    pid = daemons.spawn([program, "serve", str(config)], "registry", state)
    daemons.wait_for(
        "the registry", lambda: registry_answers(address), pid, state / "registry.log"
    )
    kept.write_text(address)
    say(f"registry started at {address} (process {pid})")
    return address


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


def start(user: str, install: bool = True, both: bool = False) -> dict[str, str]:
    """Start what is missing for ``user``, with ``both`` an engine for each image store; the
    variables that lead to it.

    ``user`` is a process id or a name; what is started lives until its last user
    called :func:`stop` or is gone.
    """
    state = state_dir()
    found: dict[str, str] = {}
    with locked(state):
        env = dict(os.environ)
        engine_answers = bool(engines.image_store(None))
        if install:
            machine.install_packages(engine=not engine_answers)
        if not engine_answers:
            found["DOCKER_HOST"] = engines.start_engine(state, "containerd")
            env.update(found)
        registry = start_registry(state)
        if registry:
            found["REGISTRY"] = registry
        engines.have_base_image(env, state)
        # The stand-in has the official name but not the pinned digest.
        found["BASE_IMAGE"] = engines.BASE_IMAGE
        if both:
            words = ("docker", "context", "inspect", "--format={{.Endpoints.docker.Host}}")
            found |= engines.both_stores(
                state, found.get("DOCKER_HOST") or machine.run(*words).strip()
            )
        users = state / "users"
        users.mkdir(exist_ok=True)
        (users / user).touch()
    return found


def environment(found: Mapping[str, str]) -> dict[str, str]:
    """Ours with what was ``found``. What a person set wins over what was started here, except
    for engines: ours are started only where theirs do not answer.
    """
    hosts = {name: host for name, host in found.items() if name.endswith("DOCKER_HOST")}
    return {**found, **os.environ, **hosts}


def stop(user: str) -> None:
    """Stop what was started here, unless somebody else still uses it."""
    state = state_dir()
    with locked(state):
        users = state / "users"
        (users / user).unlink(missing_ok=True)
        for other in users.glob("*") if users.exists() else ():
            if other.name.isdigit() and not daemons.alive_pid(int(other.name)):
                other.unlink(missing_ok=True)
            else:
                say(f"left running: {other.name} still uses the services")
                return
        daemons.end(state / "registry.pid")
        for folder in (state / "classic", state / "containerd", state):
            engines.stop_engine(folder)


def run_with(command: Sequence[str], install: bool, both: bool) -> int:
    """Start, run ``command`` with the variables set, stop; its exit code."""
    user = str(os.getpid())
    try:
        child = subprocess.Popen(command, env=environment(start(user, install, both)))
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
    parser.add_argument(
        "--both-stores", action="store_true", help="an engine for each image store"
    )
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    cut = arguments.index("--") if "--" in arguments else len(arguments)
    command = arguments[cut + 1 :]
    given = parser.parse_args(arguments[:cut])
    try:
        if given.action == "start":
            found = start("by-hand", not given.no_install, given.both_stores)
            for name, value in found.items():
                print(f"export {name}={shlex.quote(value)}")
            return 0
        if given.action == "stop":
            stop("by-hand")
            return 0
        if not command:
            parser.error("run needs a command after --")
        return run_with(command, not given.no_install, given.both_stores)
    except (ServicesError, subprocess.TimeoutExpired, OSError) as error:
        say(str(error))
        return 1


if __name__ == "__main__":
    sys.exit(main())
