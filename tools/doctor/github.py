"""Checks of GitHub: the token and its rights, the release to come."""

from __future__ import annotations

import time
from datetime import datetime

from github import Github

from tools.core.errors import PipelineError
from tools.doctor.base import Caution, Check, Skipped, Subject
from tools.doctor.machine import event, repository
from tools.github.client import connect, policy
from tools.github.errors import refusals
from tools.release import checks

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
    return connect(subject.settings, retry=policy(subject.settings, attempts=0), timeout=8)


def accepted(subject: Subject) -> dict[str, str]:
    """What GitHub tells of the token in the headers of ``/rate_limit``, which costs nothing
    (GitHubError if it does not answer, or refuses the token).
    """
    if not subject.settings.gh_token:
        required = subject.sessions & {"release", "cleanup"}
        raise (PipelineError if required else Caution)(
            "GH_TOKEN is not set: nothing is pushed, released or cleaned up.",
            "Set GH_TOKEN (on Actions: secrets.GH_TOKEN or secrets.GITHUB_TOKEN).",
        )
    with refusals("its rate limit"):
        return subject.get(client).requester.requestJsonAndCheck("GET", "/rate_limit")[0]


def check_token(subject: Subject) -> str:
    """GH_TOKEN is there, accepted, and does not expire within days.

    Source: docs.github.com, "Token expiration": the header that names the day.
    """
    text = subject.get(accepted).get("github-authentication-token-expiration", "")
    if not text:
        return "GitHub accepts GH_TOKEN, and names no day on which it expires."
    expires = datetime.strptime(text.replace("UTC", "+0000"), "%Y-%m-%d %H:%M:%S %z")
    days = (expires.timestamp() - time.time()) / 86400
    if days < SOON:
        raise Caution(
            f"The token expires on {expires.date()}, in {max(0, days):.0f} days.",
            "Create a new one and set it as GH_TOKEN.",
        )
    return f"GitHub accepts GH_TOKEN, until {expires.date()}."


def check_rights(subject: Subject) -> str:
    """The token may write contents and packages, as far as GitHub tells."""
    scopes = subject.get(accepted).get("x-oauth-scopes")
    if scopes is None:
        return _permissions(subject)
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


def _permissions(subject: Subject) -> str:
    """What GitHub tells of a token that has permissions instead of scopes."""
    name = subject.get(repository)
    with refusals(name):
        may_push = subject.get(client).get_repo(name).permissions.push
    if not may_push:
        raise PipelineError(
            f"The token may not write to {name}.",
            "Give it contents: write (in the workflow, under permissions:).",
        )
    return f"The token may write to {name}; GitHub tells nothing of packages."


def check_release(subject: Subject) -> str:
    """All that the session checks first: the tag, here and on GitHub, and the wheels."""
    tag = subject.get(event).tag
    if "release" not in subject.sessions or not tag:
        raise Skipped("A release is checked with --for release, where a tag triggers the run.")
    name, platforms = subject.get(repository), subject.settings.wheel_platforms
    there = subject.get(client).get_repo(name) if subject.settings.gh_token else None
    wheels = checks.check(subject.root, tag, platforms, there).wheels
    return f"{tag} can be released with {len(wheels)} wheels."


CHECKS = (
    Check("github token", check_token, TOKEN),
    Check("token rights", check_rights, TOKEN),
    Check("release", check_release, RELEASE),
)
