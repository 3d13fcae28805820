"""What triggered us: an Actions event, a description on the command line, a checkout.

Values only: reading git is :mod:`tools.repo.git`'s, choosing is :mod:`tools.repo.context`'s.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tools.core.errors import UsageError

EVENT_NAMES = ("push", "pull_request", "workflow_dispatch")
NO_COMMIT = "0" * 40

Payload = Mapping[str, object]


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
    payload: Payload = field(default_factory=dict, compare=False)

    @property
    def branch(self) -> str | None:
        """The branch, if the reference is one and this is no pull request."""
        return self._name_in("refs/heads/")

    @property
    def tag(self) -> str | None:
        """The tag, if the reference is one."""
        return self._name_in("refs/tags/")

    def _name_in(self, kind: str) -> str | None:
        is_one = self.ref.startswith(kind) and self.pull_request is None
        return self.ref.removeprefix(kind) if is_one else None

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

    def to_json(self) -> dict[str, str | int | bool | None]:
        """The event as plain data (without actor and raw payload)."""
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


def check_sha(sha: str) -> str:
    """``sha`` if it is a full commit hash (SHA-1 or SHA-256); UsageError otherwise."""
    if re.fullmatch(r"[0-9a-f]{40}([0-9a-f]{24})?", sha):
        return sha
    raise UsageError(
        f"The commit {sha!r} is not a full hash.",
        "Give 40 hexadecimal digits, in small letters.",
    )


def read_payload(path: str) -> dict[str, object]:
    """The JSON object of an Actions event file; UsageError if there is none."""
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


def dig(payload: Payload, *keys: str) -> object:
    """The value under ``keys``, or None where any of them is missing."""
    value: object = payload
    for key in keys:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def is_fork(payload: Payload) -> bool:
    """Whether a pull request's head lives in another repository than its base."""
    if "pull_request" not in payload:
        return False
    head = dig(payload, "pull_request", "head", "repo", "full_name")
    # A deleted fork has no head repository: it is a fork all the same.
    return head is None or head != dig(payload, "pull_request", "base", "repo", "full_name")


def forces_build(payload: Payload) -> bool:
    """Whether a manual run was told to build even if tests fail."""
    return str(dig(payload, "inputs", "force_build")).lower() == "true"


def _number(name: str, ref: str, payload: Payload) -> int | None:
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
    branch = dig(payload, "repository", "default_branch")
    return Event(
        name=name,
        ref=ref,
        sha=check_sha(env.get("GITHUB_SHA", "") or NO_COMMIT),
        repository=env.get("GITHUB_REPOSITORY", ""),
        default_branch=branch if isinstance(branch, str) and branch else default_branch,
        pull_request=_number(name, ref, payload),
        head_ref=env.get("GITHUB_HEAD_REF", ""),
        base_ref=env.get("GITHUB_BASE_REF", ""),
        fork=is_fork(payload),
        force_build=forces_build(payload),
        actor=env.get("GITHUB_ACTOR", ""),
        payload=payload,
    )
