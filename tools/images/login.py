"""Registry logins that leave no trace.

``docker login`` writes what it is given into its configuration. Here that is a private
temporary one (``DOCKER_CONFIG``), removed afterwards, also when we are killed; the user's
own is read, never written. What of it builds need (contexts, builders, plug-ins, logins
for other registries) stays in force.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from tools.core import process
from tools.core.errors import PipelineError
from tools.core.janitor import Janitor
from tools.core.secrets import Secret
from tools.core.settings import Settings
from tools.registry import client as registry

PREFIX = "mlc-docker-config-"
HUB_HOST = "docker.io"


@dataclass(frozen=True)
class Login:
    """An account at a registry."""

    host: str
    username: str
    password: Secret


def registry_login(settings: Settings, actor: str = "") -> Login | None:
    """The login for the registry that images go to, if there is a token."""
    name, password = registry.login(settings, actor)
    return Login(settings.registry, name, password) if password else None


def hub_login(settings: Settings) -> Login | None:
    """The login for Docker Hub, if both of its secrets are there."""
    if not (settings.docker_hub_username and settings.docker_hub_token):
        return None
    name = settings.docker_hub_username.reveal()
    return Login(settings.docker_hub_registry, name, settings.docker_hub_token)


def explain(host: str, output: str) -> PipelineError:
    """The error behind a refused login or push: what the registry holds against it."""
    text = output.lower()
    if "denied" in text and "unauthorized" not in text:
        return PipelineError(
            f"The registry {host} does not let this token write packages.",
            "Give GH_TOKEN the permission write:packages (a classic token) or packages: "
            "write (a workflow), and this repository access to the package.",
        )
    if re.search(r"unauthorized|401|authentication|authorize|incorrect", text):
        return PipelineError(
            f"The registry {host} refused the login.",
            "Check that GH_TOKEN is set, has not expired and has write:packages.",
        )
    last = (output.strip().splitlines() or ["no answer"])[-1]
    last = last.removeprefix("ERROR: ").rstrip(".")
    return PipelineError(f"The registry {host} failed: {last}.", "See nox -s doctor.")


def _user_config(env: Mapping[str, str]) -> Path:
    given = env.get("DOCKER_CONFIG")
    return Path(given) if given else Path.home() / ".docker"


def _private_config(user: Path, hosts: Sequence[str]) -> dict[str, Any]:
    """A configuration like the user's, whose store of credentials is not the user's.

    With the user's ``credsStore`` in it, a login would be written to the keychain; as
    ``credHelpers`` of the other registries it still serves for reading.
    """
    try:
        theirs: dict[str, Any] = json.loads((user / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        theirs = {}
    ours = {k: v for k, v in theirs.items() if k not in {"credsStore", "credHelpers", "auths"}}
    auths = {k: v for k, v in theirs.get("auths", {}).items() if k not in hosts}
    helpers = {k: v for k, v in theirs.get("credHelpers", {}).items() if k not in hosts}
    if theirs.get("credsStore"):
        helpers |= {host: theirs["credsStore"] for host in auths if host not in helpers}
    plugins = [*theirs.get("cliPluginsExtraDirs", []), str(user / "cli-plugins")]
    ours |= {"auths": auths, "credHelpers": helpers, "cliPluginsExtraDirs": plugins}
    return ours


def sweep() -> None:
    """Remove what processes that are gone have left (a janitor killed with its owner)."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        number = folder.name.removeprefix(PREFIX).split("-")[0]
        if number.isdigit() and not psutil.pid_exists(int(number)):
            shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def logged_in(
    logins: Sequence[Login], env: Mapping[str, str] | None = None
) -> Iterator[dict[str, str]]:
    """Log in, and yield the environment in which ``docker`` is logged in.

    Args:
        logins: The accounts; with none, the environment is ours unchanged.
        env: The environment to start from; ours if not given.

    Raises:
        PipelineError: A registry refused a login; the sentence says which and why.
    """
    start = dict(os.environ if env is None else env)
    if not logins:
        yield start
        return
    sweep()
    with Janitor() as janitor, process.watched_by(janitor):
        folder = Path(tempfile.gettempdir()) / f"{PREFIX}{os.getpid()}-{os.urandom(6).hex()}"
        janitor.owe("folder", str(folder))
        folder.mkdir(mode=0o700)
        user = _user_config(start)
        inside = start | {
            "DOCKER_CONFIG": str(folder),
            "BUILDX_CONFIG": start.get("BUILDX_CONFIG") or str(user / "buildx"),
        }
        config = _private_config(user, [login.host for login in logins])
        (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
        if (user / "contexts").is_dir():
            shutil.copytree(user / "contexts", folder / "contexts")
        for login in logins:
            command = ["docker", "login", "--username", login.username]
            command += ["--password-stdin", login.host]
            done = process.run(
                command, env=inside, stdin=login.password.reveal(), check=False, timeout=60
            )
            if done.code:
                raise explain(login.host, done.output)
        yield inside
