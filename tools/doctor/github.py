"""Checks of GitHub: the token and its rights, the release to come."""

import time
from datetime import datetime

from github import Github

from tools.core.errors import PipelineError
from tools.doctor.base import Caution, Check, Skipped, Subject
from tools.github.client import connect, policy
from tools.github.errors import refusals
from tools.release import checks
from tools.repo.context import current_event

RELEASE = frozenset({"release"})
TOKEN = RELEASE | {"docker_dev", "prod_image", "pipeline", "cleanup"}
SOON = 7  # days
# Scopes of a classic token, any of a set, and the sessions that need it.
SCOPES = (
    ({"repo", "public_repo"}, RELEASE),
    ({"write:packages"}, TOKEN - RELEASE),
    ({"delete:packages"}, {"cleanup"}),
)


def client(subject: Subject) -> Github:
    """A client that asks once, as time is short here."""
    once = policy(subject.settings, attempts=0)
    return connect(subject.settings, retry=once, timeout=subject.timeout)


def check_token(subject: Subject) -> str:
    """GitHub accepts GH_TOKEN, which has the rights that it tells of, for days to come.

    ``/rate_limit`` costs nothing. Source: docs.github.com, "Token expiration": the header.
    """
    if not subject.settings.gh_token:
        required = subject.sessions & {"release", "cleanup"}
        raise (PipelineError if required else Caution)(
            "GH_TOKEN is not set: nothing is pushed, released or cleaned up.",
            "Set GH_TOKEN (on Actions: secrets.GH_TOKEN or secrets.GITHUB_TOKEN).",
        )
    with refusals("its rate limit"):
        headers = client(subject).requester.requestJsonAndCheck("GET", "/rate_limit")[0]
    scopes = headers.get("x-oauth-scopes")
    rights = permissions(subject) if scopes is None else check_scopes(subject, scopes)
    if text := headers.get("github-authentication-token-expiration", ""):
        expires = datetime.strptime(text.replace("UTC", "+0000"), "%Y-%m-%d %H:%M:%S %z")
        days = (expires.timestamp() - time.time()) / 86400
        if days < SOON:
            raise Caution(
                f"The token expires on {expires.date()}, in {max(0, days):.0f} days.",
                "Create a new one and set it as GH_TOKEN.",
            )
    return rights


def check_scopes(subject: Subject, scopes: str) -> str:
    """A classic token has the scopes that the sessions need."""
    has = set(scopes.replace(",", " ").split())
    sessions = subject.sessions or {"release", "docker_dev"}
    missing = [any_of for any_of, needs in SCOPES if needs & sessions and not any_of & has]
    if missing:
        raise PipelineError(
            f"The token lacks the scope {', '.join(' or '.join(sorted(m)) for m in missing)} "
            f"(it has: {', '.join(sorted(has)) or 'none'}).",
            "Add it in GitHub's settings, Developer settings, Personal access tokens.",
        )
    return f"The token has the scopes {', '.join(sorted(has))}."


def permissions(subject: Subject) -> str:
    """What GitHub tells of a token that has permissions instead: whether it may write."""
    name = current_event(subject.env, subject.root).repository
    if not name:
        return "GitHub accepts the token; which repository it is for is not known."
    with refusals(name):
        may_push = client(subject).get_repo(name).permissions.push
    if not may_push:
        raise PipelineError(
            f"The token may not write to {name}.",
            "Give it contents: write (in the workflow, under permissions:).",
        )
    return f"The token may write to {name}; GitHub tells nothing of packages."


def check_release(subject: Subject) -> str:
    """All that the session checks first: the tag, here and on GitHub, and the wheels."""
    event, settings = current_event(subject.env, subject.root), subject.settings
    tag, name = event.tag, event.repository
    if "release" not in subject.sessions or not tag:
        raise Skipped("A release is checked with --for release, where a tag triggers the run.")
    there = client(subject).get_repo(name) if settings.gh_token and name else None
    wheels = checks.check(subject.root, tag, settings.wheel_platforms, there).wheels
    return f"{tag} can be released with {len(wheels)} wheels."


CHECKS = (
    Check("github token", check_token, TOKEN),
    Check("release", check_release, RELEASE),
)
