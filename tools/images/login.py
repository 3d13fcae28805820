"""Registry logins that leave no trace.

They stand in a private temporary configuration of Docker's (``DOCKER_CONFIG``), removed
afterwards, also when we are killed. The user's own is read, never written; what of it builds
need (contexts, builders, plug-ins, logins for other registries) stays in force.
"""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from tools.core import failures, files, process
from tools.core.errors import PipelineError
from tools.core.failures import Failure
from tools.core.secrets import Secret
from tools.core.settings import Settings
from tools.registry import client as registry
from tools.repo.context import Context

PREFIX = "mlc-docker-config-"
HUB_KEY = "https://index.docker.io/v1/"  # Docker Hub's name in Docker's configuration
# What a registry holds against a login or a push.
REFUSALS = (
    Failure(
        r"(?i)unauthorized|failed to authorize|authentication required|no basic auth",
        "The registry {host} refused the login.",
        "Check that GH_TOKEN is set, has not expired and has write:packages (for Docker Hub: "
        "DOCKER_HUB_TOKEN).",
    ),
    Failure(
        r"(?i)denied",
        "The registry {host} does not let this token write packages.",
        "Give GH_TOKEN the permission write:packages (a classic token) or packages: "
        "write (a workflow), and this repository access to the package.",
    ),
)


class Login(NamedTuple):
    """An account at a registry."""

    host: str
    username: str
    password: Secret


def hub_login(settings: Settings) -> Login | None:
    """The login for Docker Hub, if both of its secrets are there."""
    name, password = settings.docker_hub_username.reveal(), settings.docker_hub_token
    return Login(settings.docker_hub_registry, name, password) if name and password else None


def push_logins(context: Context) -> list[Login]:
    """The accounts that a push needs: at the registry, and at Docker Hub."""
    settings = context.settings
    ours = Login(settings.registry, *registry.login(settings, context.event.actor))
    return [login for login in (ours, hub_login(settings)) if login and login.password]


def explain(host: str, output: str, otherwise: str = "") -> PipelineError:
    """The error behind a refused login or push; of anything else, ``otherwise``."""
    other = PipelineError(otherwise, "See nox -s doctor.")
    return failures.explain(output, REFUSALS, other, host=host)


def _private_config(user: Path, logins: Sequence[Login]) -> dict[str, object]:
    """The configuration in the folder ``user`` with ``logins``: without a helper, they are
    looked for in the file itself, not in the keychain of a ``credsStore``.
    """
    try:
        whole = files.parse_json((user / "config.json").read_bytes(), dict[str, object])
        auths = files.convert(whole.get("auths", {}), dict[str, object])
        helpers = files.convert(whole.get("credHelpers", {}), dict[str, str])
        plugins = files.convert(whole.get("cliPluginsExtraDirs", []), list[str])
    except (OSError, ValueError):
        whole, auths, helpers, plugins = {}, {}, {}, []
    for login in logins:
        key = HUB_KEY if login.host in registry.HUB_NAMES else login.host
        auths[key] = {
            "auth": registry.basic(login.username, login.password).removeprefix("Basic ")
        }
        helpers[key] = ""
    plugins.append(str(user / "cli-plugins"))
    return whole | {"auths": auths, "credHelpers": helpers, "cliPluginsExtraDirs": plugins}


@contextlib.contextmanager
def logged_in(logins: Sequence[Login]) -> Iterator[Mapping[str, str]]:
    """The environment in which ``docker`` is logged in: ours if there are no ``logins``."""
    if not logins:
        yield os.environ
        return
    user = Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker")
    buildx = os.environ.get("BUILDX_CONFIG") or str(user / "buildx")
    with process.watched() as janitor:
        folder = Path(tempfile.mkdtemp(prefix=PREFIX))  # nobody else may read it
        janitor.owe("folder", str(folder))
        files.write_json(folder / "config.json", _private_config(user, logins))
        if (user / "contexts").is_dir():
            shutil.copytree(user / "contexts", folder / "contexts")
        yield {**os.environ, "DOCKER_CONFIG": str(folder), "BUILDX_CONFIG": buildx}
