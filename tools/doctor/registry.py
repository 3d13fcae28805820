"""Checks of registries: they answer, accept the login, and let us push."""

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
    bundle, timeout = subject.settings.ca_certificates, subject.timeout
    return Registry(host, user, password, ca_certificates=bundle, retries=0, timeout=timeout)


def check_registry(subject: Subject) -> str:
    """The registry answers, accepts our login, and lets us push; nothing is pushed."""
    settings, host = subject.settings, subject.settings.registry
    user, password = client.login(settings, subject.env.get("GITHUB_ACTOR", ""))
    registry = connect(subject, host, user, password)
    found = registry.answer()
    if found == "refuses":
        raise login.explain(host, "unauthorized")
    if found == "asks" or found == "open" and not is_loopback(host):
        raise Caution(
            f"There is no login for the registry {host}: images are kept here, not pushed.",
            "Set GH_TOKEN to a token with write:packages.",
        )
    try:
        registry.check_push(settings.image_name)
    except RegistryError as error:
        if error.status not in (401, 403):  # 401 where an accepted login lacks a right
            raise
        raise login.explain(host, "denied") from error
    return f"We may push to {settings.image}."


def check_hub(subject: Subject) -> str:
    """Docker Hub accepts the login, where there is one."""
    user, token = subject.settings.docker_hub_username, subject.settings.docker_hub_token
    hub = login.hub_login(subject.settings)
    if hub is None and not user and not token:
        raise Skipped("Nothing is copied to Docker Hub: no login is set.")
    if hub is None:
        missing = "DOCKER_HUB_USERNAME" if token else "DOCKER_HUB_TOKEN"
        raise PipelineError(
            f"Only one half of the login for Docker Hub is set: {missing} is missing.",
            f"Set {missing} too, or unset the other.",
        )
    if connect(subject, hub.host, hub.username, hub.password).answer() == "refuses":
        raise PipelineError(
            f"The registry {hub.host} refused the login.",
            "Check DOCKER_HUB_USERNAME, and that DOCKER_HUB_TOKEN has not expired.",
        )
    return f"{hub.host} accepts the login."


CHECKS = (
    Check("registry", check_registry, PUSHES),
    Check("docker hub", check_hub, PUSHES),
)
