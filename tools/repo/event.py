"""What triggered us: an Actions event, a description on the command line, a checkout.

Values only: reading git is :mod:`tools.repo.git`'s, choosing is :mod:`tools.repo.context`'s.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tools.core.errors import UsageError

EVENT_NAMES = ("push", "pull_request", "workflow_dispatch")
NO_COMMIT = "0" * 40


@dataclass(frozen=True)
class Event:
    """One event, as the workflow would see it.

    Attributes:
        name: ``push``, ``pull_request`` or ``workflow_dispatch``.
        ref: Full git reference, ``refs/heads/main``.
        sha: Full commit hash.
        repository: ``owner/name``.
        default_branch: The repository's default branch.
        pull_request: Number of the pull request, if it is one.
        head_ref: Source branch of a pull request.
        base_ref: Target branch of a pull request.
        fork: Whether the pull request comes from a fork: no secrets, no push rights.
        force_build: The input of a manual run.
        actor: Who triggered it.
        payload: The raw event, for the ``github.event`` context.
    """

    name: str
    ref: str
    sha: str = NO_COMMIT
    repository: str = ""
    default_branch: str = "main"
    pull_request: int | None = None
    head_ref: str = ""
    base_ref: str = ""
    fork: bool = False
    force_build: bool = False
    actor: str = ""
    payload: Mapping[str, Any] = field(default_factory=dict, compare=False)

    @property
    def branch(self) -> str | None:
        """The branch, if the reference is one and this is no pull request."""
        is_branch = self.ref.startswith("refs/heads/") and self.pull_request is None
        return self.ref.removeprefix("refs/heads/") if is_branch else None

    @property
    def tag(self) -> str | None:
        """The tag, if the reference is one."""
        is_tag = self.ref.startswith("refs/tags/") and self.pull_request is None
        return self.ref.removeprefix("refs/tags/") if is_tag else None

    @property
    def on_default_branch(self) -> bool:
        """Whether this is a push to, or a manual run on, the default branch."""
        return self.branch is not None and self.branch == self.default_branch

    @property
    def short_sha(self) -> str:
        """The first 7 hexadecimal digits of the commit."""
        return self.sha[:7]

    @property
    def ref_name(self) -> str:
        """``github.ref_name``: the reference without its kind."""
        return re.sub(r"^refs/(heads|tags|pull)/", "", self.ref)

    def to_json(self) -> dict[str, Any]:
        """The event as plain data (without the raw payload)."""
        return {
            "name": self.name,
            "ref": self.ref,
            "sha": self.sha,
            "repository": self.repository,
            "default_branch": self.default_branch,
            "pull_request": self.pull_request,
            "head_ref": self.head_ref,
            "base_ref": self.base_ref,
            "fork": self.fork,
            "force_build": self.force_build,
        }


@dataclass(frozen=True)
class Checkout:
    """What a git checkout tells: the part of an event that is known locally."""

    sha: str
    branch: str | None
    tags_here: tuple[str, ...] = ()
    default_branch: str = "main"
    repository: str = ""
    committed: int = 0  # seconds since the epoch, of the commit
    dirty: bool = False
    shallow: bool = False


def check_event_name(name: str) -> str:
    """``name`` if the workflow has such a trigger; UsageError otherwise."""
    if name not in EVENT_NAMES:
        raise UsageError(
            f"The event {name!r} does not trigger this pipeline.",
            f"Use one of: {', '.join(EVENT_NAMES)}.",
        )
    return name


def full_ref(ref: str) -> str:
    """A full git reference; UsageError for anything else.

    A bare name is not guessed at: ``v1.0.0`` may be a branch as well as a tag.
    """
    if re.fullmatch(r"refs/(heads|tags|pull)/\S.*", ref) and not ref.endswith("/"):
        return ref
    raise UsageError(
        f"The reference {ref!r} is not a full git reference.",
        "Give one such as refs/heads/main, refs/tags/v1.0.0 or refs/pull/123/merge.",
    )


def read_payload(path: str) -> dict[str, Any]:
    """The JSON object of an Actions event file; UsageError if it is none."""
    try:
        payload = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(
            f"The event file {path!r} cannot be read: {error}.",
            "Give the path of a JSON file as GITHUB_EVENT_PATH names it.",
        ) from error
    if not isinstance(payload, dict):
        raise UsageError(f"The event file {path!r} holds no JSON object.", "Give another file.")
    return payload


def _dig(payload: Mapping[str, Any], *keys: str) -> Any:
    """The value under ``keys``, or None where any of them is missing."""
    found: Any = payload
    for key in keys:
        if not isinstance(found, Mapping):
            return None
        found = found.get(key)
    return found


def check_sha(sha: str) -> str:
    """``sha`` if it is a full commit hash (SHA-1 or SHA-256); UsageError otherwise."""
    if re.fullmatch(r"[0-9a-f]{40}([0-9a-f]{24})?", sha):
        return sha
    raise UsageError(
        f"The commit {sha!r} is not a full hash.",
        "Give 40 hexadecimal digits, in small letters.",
    )


def is_fork(payload: Mapping[str, Any]) -> bool:
    """Whether a pull request's head lives in another repository than its base."""
    if "pull_request" not in payload:
        return False
    head = _dig(payload, "pull_request", "head", "repo", "full_name")
    base = _dig(payload, "pull_request", "base", "repo", "full_name")
    # A deleted fork has no head repository: it is a fork all the same.
    return head is None or bool(head != base)


def _number(name: str, ref: str, payload: Mapping[str, Any]) -> int | None:
    """Number of the pull request, from the reference, else from the payload.

    Raises:
        UsageError: It is a pull request without a number: taken for a push of its
            branch, it would move that branch's tags.
    """
    if match := re.fullmatch(r"refs/pull/([0-9]{1,15})/.+", ref):
        return int(match.group(1))
    if name != "pull_request":
        return None
    number = payload.get("number")
    if isinstance(number, int) and number > 0:
        return number
    raise UsageError(
        f"The event is a pull request, but {ref!r} names none.",
        "Give a reference such as refs/pull/123/merge.",
    )


def from_actions(env: Mapping[str, str], default_branch: str = "main") -> Event:
    """The event that the standard Actions variables describe.

    Args:
        env: The environment.
        default_branch: Used where the payload names none.

    Raises:
        UsageError: A variable or the event file cannot be read.

    Source: GitHub Actions, "Default environment variables" and "Events that trigger
    workflows".
    """
    payload = read_payload(env["GITHUB_EVENT_PATH"]) if env.get("GITHUB_EVENT_PATH") else {}
    ref = full_ref(env.get("GITHUB_REF", ""))
    name = check_event_name(env.get("GITHUB_EVENT_NAME", ""))
    named = _dig(payload, "repository", "default_branch")
    return Event(
        name=name,
        ref=ref,
        sha=check_sha(env.get("GITHUB_SHA", "") or NO_COMMIT),
        repository=env.get("GITHUB_REPOSITORY", ""),
        default_branch=named if isinstance(named, str) and named else default_branch,
        pull_request=_number(name, ref, payload),
        head_ref=env.get("GITHUB_HEAD_REF", ""),
        base_ref=env.get("GITHUB_BASE_REF", ""),
        fork=is_fork(payload),
        force_build=str(_dig(payload, "inputs", "force_build")).lower() == "true",
        actor=env.get("GITHUB_ACTOR", ""),
        payload=payload,
    )


def from_checkout(checkout: Checkout) -> Event:
    """The push that would have brought the checkout here: its branch, else its tag."""
    if checkout.branch is not None:
        ref = f"refs/heads/{checkout.branch}"
    elif checkout.tags_here:
        ref = f"refs/tags/{checkout.tags_here[-1]}"
    else:
        ref = f"refs/heads/detached-{checkout.sha[:7]}"
    return Event(
        name="push",
        ref=ref,
        sha=checkout.sha,
        repository=checkout.repository,
        default_branch=checkout.default_branch,
    )
