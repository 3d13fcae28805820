"""Registry logins that leave no trace.

``docker login`` writes what it is given into its configuration. Here that is a private
temporary one (``DOCKER_CONFIG``), removed afterwards, also when we are killed; the user's
own is read, never written. What of it builds need (contexts, builders, plug-ins, logins
for other registries) stays in force.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
from msgspec import Struct

from tools.core import failures, files, process
from tools.core.errors import PipelineError
from tools.core.failures import Failure
from tools.core.janitor import Janitor
from tools.core.secrets import Secret
from tools.core.settings import Settings
from tools.registry import client as registry

PREFIX = "mlc-docker-config-"
# What a registry holds against a login or a push.
REFUSALS = (
    Failure(
        r"(?i)unauthorized|failed to authorize|authentication required|no basic auth",
        "The registry {host} refused the login.",
        "Check that GH_TOKEN is set, has not expired and has write:packages.",
    ),
    Failure(
        r"(?i)denied",
        "The registry {host} does not let this token write packages.",
        "Give GH_TOKEN the permission write:packages (a classic token) or packages: "
        "write (a workflow), and this repository access to the package.",
    ),
)


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
    name, password = settings.docker_hub_username.reveal(), settings.docker_hub_token
    return Login(settings.docker_hub_registry, name, password) if name and password else None


def explain(host: str, output: str) -> PipelineError:
    """The error behind a refused login or push."""
    last = (output.strip().splitlines() or ["no response"])[-1]
    words = f"The registry {host} failed: {last.removeprefix('ERROR: ').rstrip('.')}."
    other = PipelineError(words, "See nox -s doctor.")
    return failures.explain(output, REFUSALS, other, host=host)


class _Config(Struct, rename="camel"):
    """What matters here of Docker's ``config.json``."""

    auths: dict[str, dict[str, object]] = {}
    cred_helpers: dict[str, str] = {}
    creds_store: str = ""
    cli_plugins_extra_dirs: list[str] = []


def _private_config(user: Path, hosts: Collection[str]) -> dict[str, object]:
    """A configuration like the user's, whose store of credentials is not the user's.

    With the user's ``credsStore`` in it, a login would be written to the keychain; as
    ``credHelpers`` of the other registries it still serves for reading.
    """
    try:
        whole = files.parse_json((user / "config.json").read_bytes(), dict[str, object])
        theirs = files.convert(whole, _Config)
    except (OSError, ValueError):
        whole, theirs = {}, _Config()
    auths = {host: auth for host, auth in theirs.auths.items() if host not in hosts}
    stores = dict.fromkeys(auths, theirs.creds_store) if theirs.creds_store else {}
    helpers = stores | {k: v for k, v in theirs.cred_helpers.items() if k not in hosts}
    plugins = [*theirs.cli_plugins_extra_dirs, str(user / "cli-plugins")]
    whole.pop("credsStore", None)
    return whole | {"auths": auths, "credHelpers": helpers, "cliPluginsExtraDirs": plugins}


def sweep() -> None:
    """Remove what processes that are gone have left (a janitor killed with its owner)."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        number = folder.name.removeprefix(PREFIX).split("-")[0]
        if number.isdigit() and not psutil.pid_exists(int(number)):
            shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def logged_in(logins: Sequence[Login]) -> Iterator[dict[str, str]]:
    """Log in, and yield the environment in which ``docker`` is logged in: ours if there are
    no ``logins``.

    Raises:
        PipelineError: A registry refused a login; the sentence says which and why.
    """
    env = dict(os.environ)
    if not logins:
        yield env
        return
    sweep()
    user = Path(env.get("DOCKER_CONFIG") or Path.home() / ".docker")
    folder = Path(tempfile.gettempdir()) / f"{PREFIX}{os.getpid()}-{os.urandom(6).hex()}"
    env["DOCKER_CONFIG"] = str(folder)
    env["BUILDX_CONFIG"] = env.get("BUILDX_CONFIG") or str(user / "buildx")
    with Janitor() as janitor, process.watched_by(janitor):
        janitor.owe("folder", str(folder))
        folder.mkdir(mode=0o700)
        config = _private_config(user, [login.host for login in logins])
        files.write_json(folder / "config.json", config)
        if (user / "contexts").is_dir():
            shutil.copytree(user / "contexts", folder / "contexts")
        for login in logins:
            words = ["docker", "login", "--username", login.username, "--password-stdin"]
            secret = login.password.reveal()
            done = process.run(
                [*words, login.host], env=env, stdin=secret, check=False, timeout=60
            )
            if done.code:
                raise explain(login.host, done.output)
        yield env
