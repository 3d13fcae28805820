"""Checks of registries: they answer, accept the login, and let us push."""

from __future__ import annotations

from tools.core.errors import PipelineError
from tools.core.secrets import Secret
from tools.doctor.base import Caution, Check, Skipped, Subject
from tools.images import login
from tools.registry import client
from tools.registry.client import Registry, RegistryError
from tools.registry.manifest import is_loopback

PUSHES = frozenset({"docker_dev", "prod_image", "pipeline", "cleanup"})


def connect(subject: Subject, host: str, user: str, password: Secret) -> Registry:
    """A registry that is asked once, as time is short here."""
    bundle = subject.settings.ca_certificates
    return Registry(host, user, password, ca_certificates=bundle, retries=0, timeout=8)


def ours(subject: Subject) -> tuple[Registry, str]:
    """The registry of the settings, and how it answers (RegistryError if it does not)."""
    user, password = client.login(subject.settings, subject.env.get("GITHUB_ACTOR", ""))
    registry = connect(subject, subject.settings.registry, user, password)
    return registry, registry.answer()


def check_login(subject: Subject) -> str:
    """The registry answers, and accepts our login."""
    host, found = subject.settings.registry, subject.get(ours)[1]
    if found == "refuses":
        raise login.explain(host, "unauthorized")
    if found == "asks":
        raise Caution(
            f"There is no login for the registry {host}: images are kept here, not pushed.",
            "Set GH_TOKEN to a token with write:packages.",
        )
    return f"{host} {'accepts the' if found == 'accepts' else 'asks for no'} login."


def check_push(subject: Subject) -> str:
    """We may push to the image's repository; nothing is pushed."""
    (registry, found), settings = subject.get(ours), subject.settings
    if not (found == "accepts" or found == "open" and is_loopback(settings.registry)):
        raise Skipped("Without a login nothing is pushed.")
    try:
        registry.check_push(settings.image_name)
    except RegistryError as error:
        if error.status not in (401, 403):  # 401 where an accepted login lacks a right
            raise
        raise login.explain(settings.registry, "denied") from error
    return f"We may push to {settings.image}."


def check_hub(subject: Subject) -> str:
    """Docker Hub accepts the login, where there is one."""
    user, token = subject.settings.docker_hub_username, subject.settings.docker_hub_token
    hub = login.hub_login(subject.settings)
    if hub is None and (user or token):
        missing = "DOCKER_HUB_USERNAME" if token else "DOCKER_HUB_TOKEN"
        raise PipelineError(
            f"Only one half of the login for Docker Hub is set: {missing} is missing.",
            f"Set {missing} too, or unset the other.",
        )
    if hub is None:
        raise Skipped("Nothing is copied to Docker Hub: no login is set.")
    if connect(subject, hub.host, hub.username, hub.password).answer() == "refuses":
        raise PipelineError(
            f"The registry {hub.host} refused the login.",
            "Check DOCKER_HUB_USERNAME, and that DOCKER_HUB_TOKEN has not expired.",
        )
    return f"{hub.host} accepts the login."


CHECKS = (
    Check("registry login", check_login, PUSHES),
    Check("push right", check_push, PUSHES),
    Check("docker hub", check_hub, PUSHES),
)
