"""The doctor's checks of registries: reachable, login, right to push."""

from __future__ import annotations

from tools.doctor.base import (
    Check,
    Result,
    Subject,
    from_error,
    not_applicable,
    ok,
    problem,
    warning,
)
from tools.images import login
from tools.registry import client as registry
from tools.registry import manifest as oci
from tools.registry.client import Answer, Forbidden, Registry, Unauthorised

PUSHES = frozenset({"docker_dev", "prod_image", "pipeline", "cleanup"})


def _client(subject: Subject) -> Registry:
    """The registry of the settings; it insists on nothing, as time is short here."""
    name, password = registry.login(subject.settings, _actor(subject))
    return Registry(
        subject.settings.registry,
        name,
        password,
        ca_certificates=subject.settings.ca_certificates,
        retries=0,
    )


def _actor(subject: Subject) -> str:
    return subject.env.get("GITHUB_ACTOR", "")


def _answer(subject: Subject) -> Answer:
    found: Answer = subject.once("registry", lambda: _client(subject).answer())
    return found


def check_registry(subject: Subject) -> Result:
    """The registry answers."""
    found = _answer(subject)
    host = subject.settings.registry
    asks = f"asks for a login ({found.challenge})" if found.challenge else "asks for no login"
    return ok(f"{host} answers and {asks}.", host)


def check_login(subject: Subject) -> Result:
    """The registry accepts our login."""
    found, host = _answer(subject), subject.settings.registry
    if not found.challenge:
        return not_applicable(f"{host} asks for no login.", host)
    if found.login is None:
        return warning(
            f"There is no login for the registry {host}: images are kept here, not pushed.",
            "Set GH_TOKEN to a token with write:packages.",
            "GH_TOKEN",
        )
    if not found.login:
        return from_error(login.explain(host, "unauthorized"), host)
    return ok(f"{host} accepts the login.", host)


def check_push(subject: Subject) -> Result:
    """We may push to the image's repository; nothing is pushed."""
    answer, settings = _answer(subject), subject.settings
    if answer.challenge and not answer.login:
        return not_applicable("Without a login nothing is pushed.", settings.image)
    if not answer.challenge and not oci.is_loopback(settings.registry):
        return not_applicable("Without a login nothing is pushed.", settings.image)
    try:
        _client(subject).check_push(settings.image_name)
    except (Forbidden, Unauthorised):
        # Some registries answer 401 where an accepted login lacks a right.
        why = "denied" if answer.login else "unauthorized"
        return from_error(login.explain(settings.registry, why), settings.image)
    return ok(f"We may push to {settings.image}.", settings.image)


def check_hub(subject: Subject) -> Result:
    """Docker Hub accepts the login, where there is one."""
    settings = subject.settings
    given = [bool(settings.docker_hub_username), bool(settings.docker_hub_token)]
    variables = "DOCKER_HUB_USERNAME, DOCKER_HUB_TOKEN"
    if not any(given):
        return not_applicable("Nothing is copied to Docker Hub: no login is set.", variables)
    if not all(given):
        missing = ("DOCKER_HUB_USERNAME", "DOCKER_HUB_TOKEN")[given.index(False)]
        return problem(
            f"Only one half of the login for Docker Hub is set: {missing} is missing.",
            f"Set {missing} too, or unset the other.",
            variables,
        )
    hub = login.hub_login(settings)
    assert hub is not None
    client = Registry(
        hub.host,
        hub.username,
        hub.password,
        ca_certificates=settings.ca_certificates,
        retries=0,
    )
    if client.answer().login is False:
        return problem(
            f"The registry {hub.host} refused the login.",
            "Check DOCKER_HUB_USERNAME, and that DOCKER_HUB_TOKEN has not expired.",
            variables,
        )
    return ok(f"{hub.host} accepts the login.", hub.host)


CHECKS = (
    Check("registry", "answers", check_registry, PUSHES, ("settings",)),
    Check("registry login", "is accepted", check_login, PUSHES, ("registry",)),
    Check("push right", "nothing is pushed", check_push, PUSHES, ("registry login",)),
    Check("docker hub", "accepts its login", check_hub, PUSHES, ("settings",)),
)
