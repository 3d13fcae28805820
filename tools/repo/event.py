"""What triggered us: an Actions event, a description on the command line, a checkout.

Values only: reading git is :mod:`tools.repo.git`'s, choosing is :mod:`tools.repo.context`'s.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tools.core.errors import UsageError
from tools.core.files import parse_json

EVENT_NAMES = ("push", "pull_request", "workflow_dispatch")
NO_COMMIT = "0" * 40

Payload = Mapping[str, object]

# What fields of an event must be: a pattern, what is wrong with others, what to do.
_CHECKS = {
    "name": (
        "|".join(EVENT_NAMES),
        "The event {!r} does not trigger this pipeline.",
        f"Use one of: {', '.join(EVENT_NAMES)}.",
    ),
    # A bare name is not guessed at: v1.0.0 may be a branch as well as a tag.
    "ref": (
        r"refs/(heads|tags|pull)/\S.*(?<!/)",
        "The reference {!r} is not a full git reference.",
        "Give one such as refs/heads/main, refs/tags/v1.0.0 or refs/pull/123/merge.",
    ),
    "sha": (
        r"[0-9a-f]{40}([0-9a-f]{24})?",
        "The commit {!r} is not a full hash.",
        "Give 40 hexadecimal digits, in small letters.",
    ),
}


@dataclass(frozen=True)
class Event:
    """One event, as the workflow would see it; UsageError if it cannot be one."""

    name: str  # one of EVENT_NAMES
    ref: str  # full git reference, refs/heads/main
    sha: str = NO_COMMIT  # full commit hash
    repository: str = ""  # owner/name
    default_branch: str = "main"
    pull_request: int | None = None  # number of the pull request, if it is one
    head_ref: str = ""  # source branch of a pull request
    base_ref: str = ""  # target branch of a pull request
    fork: bool = False  # a pull request from a fork: no secrets, no push rights
    force_build: bool = False  # the input of a manual run
    actor: str = ""  # who triggered it
    payload: Payload = field(default_factory=dict, compare=False)  # raw, for github.event

    def __post_init__(self) -> None:
        for name, (pattern, wrong, remedy) in _CHECKS.items():
            value = getattr(self, name)
            if not re.fullmatch(pattern, value):
                raise UsageError(wrong.format(value), remedy)

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
        return self.branch == self.default_branch

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
        return {k: v for k, v in vars(self).items() if k not in ("actor", "payload")}


def read_payload(path: str) -> dict[str, object]:
    """The JSON object of an Actions event file; UsageError if there is none."""
    try:
        return parse_json(Path(path).read_bytes(), dict[str, object])
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(
            f"The event file {path!r} cannot be read: {error}.",
            "Give the path of a JSON file as GITHUB_EVENT_PATH names it.",
        ) from error


def dig(payload: Payload, *keys: str) -> object:
    """The value under ``keys``, or None where any of them is missing."""
    value: object = payload
    for key in keys:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def _number(name: str, ref: str, payload: Payload) -> int | None:
    """Number of the pull request, from the reference, else from the payload (UsageError if
    it has none: taken for a push of its branch, it would move that branch's tags).
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


def from_actions(env: Mapping[str, str]) -> Event:
    """The event that the standard Actions variables describe (UsageError if one of them, or
    the event file, is wrong).

    Source: GitHub Actions, "Default environment variables" and "Events that trigger
    workflows".
    """
    payload = read_payload(env["GITHUB_EVENT_PATH"]) if env.get("GITHUB_EVENT_PATH") else {}
    ref, name = env.get("GITHUB_REF", ""), env.get("GITHUB_EVENT_NAME", "")
    branch = dig(payload, "repository", "default_branch")
    head, base = (
        dig(payload, "pull_request", side, "repo", "full_name") for side in ("head", "base")
    )
    return Event(
        name=name,
        ref=ref,
        sha=env.get("GITHUB_SHA") or NO_COMMIT,
        repository=env.get("GITHUB_REPOSITORY", ""),
        default_branch=branch if isinstance(branch, str) and branch else "main",
        pull_request=_number(name, ref, payload),
        head_ref=env.get("GITHUB_HEAD_REF", ""),
        base_ref=env.get("GITHUB_BASE_REF", ""),
        # A deleted fork has no head repository: it is a fork all the same.
        fork="pull_request" in payload and (head is None or head != base),
        force_build=str(dig(payload, "inputs", "force_build")).lower() == "true",
        actor=env.get("GITHUB_ACTOR", ""),
        payload=payload,
    )
