"""What triggered us: an Actions event, a description on the command line, a checkout.

Values only: reading git is :mod:`tools.repo.git`'s, choosing is :mod:`tools.repo.context`'s.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tools.core.errors import UsageError
from tools.core.files import parse_json

# "Events that trigger workflows", all of them: which start a workflow is its own matter.
EVENT_NAMES = tuple(
    """branch_protection_rule check_run check_suite create delete deployment deployment_status
    discussion discussion_comment fork gollum image_version issue_comment issues label
    merge_group milestone page_build public pull_request pull_request_review
    pull_request_review_comment pull_request_target push registry_package release
    repository_dispatch schedule status watch workflow_call workflow_dispatch
    workflow_run""".split()
)
NO_COMMIT = "0" * 40  # git's word for a reference that is not there

Payload = Mapping[str, object]

# What fields of an event must be: a pattern, what is wrong with others, what to do.
_CHECKS = {
    "name": (
        "|".join(EVENT_NAMES),
        "{!r} is not an event of GitHub's.",
        "Use one such as push, pull_request, merge_group, workflow_dispatch or schedule.",
    ),
    # A bare name is not guessed at: v1.0.0 may be a branch as well as a tag. What is not
    # UTF-8 has no name here.
    "ref": (
        r"refs/(heads|tags|pull)/(?!\s)[^\n\ud800-\udfff]+(?<!/)",
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
    deleted: bool = False  # a push that takes the branch or tag away
    action: str = ""  # its activity, such as synchronize; empty if it has none or is unknown
    force_build: bool = False  # the input of a manual run
    actor: str = ""  # who triggered it
    payload: Payload = field(default_factory=dict, compare=False)  # raw, for github.event
    changed: tuple[str, ...] | None = None  # files; None where nobody has looked

    def __post_init__(self) -> None:
        for name, (pattern, wrong, remedy) in _CHECKS.items():
            value = getattr(self, name)
            if not re.fullmatch(pattern, value):
                raise UsageError(wrong.format(value), remedy)

    @property
    def branch(self) -> str | None:
        """The branch, if the reference is one that somebody works on: not that of a pull
        request or of a merge queue.
        """
        return self._name_in("refs/heads/")

    @property
    def tag(self) -> str | None:
        """The tag, if the reference is one."""
        return self._name_in("refs/tags/")

    def _name_in(self, kind: str) -> str | None:
        proposed = self.pull_request is not None or self.name == "merge_group"
        is_one = self.ref.startswith(kind) and not proposed
        return self.ref.removeprefix(kind) if is_one else None

    @property
    def publishes(self) -> bool:
        """Whether what is built for it may be published: somebody with push rights asked for
        it, for a branch or tag; never what a pull request or a merge queue only proposes.
        """
        asked = self.name in {"push", "workflow_dispatch", "schedule", "release"}
        return asked and not self.deleted and bool(self.branch or self.tag)

    @property
    def target(self) -> str:
        """The branch that a pull request or a merge queue is to change; empty for others."""
        if self.name == "merge_group":
            queue = re.fullmatch(r"refs/heads/gh-readonly-queue/(.+)/pr-[^/]*", self.ref)
            base = dig(self.payload, "merge_group", "base_ref")
            named = base if isinstance(base, str) else queue[1] if queue else ""
            return named.removeprefix("refs/heads/") or self.default_branch
        return "" if self.pull_request is None else self.base_ref or self.default_branch

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
        """The event as plain data (without actor, raw payload and files)."""
        hidden = ("actor", "payload", "changed")
        return {k: v for k, v in vars(self).items() if k not in hidden}


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
    if not name.startswith("pull_request"):
        return None
    for number in (payload.get("number"), dig(payload, "pull_request", "number")):
        if type(number) is int and number > 0:
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
    sha = env.get("GITHUB_SHA") or NO_COMMIT
    branch, repository, action = (
        str(found) if isinstance(found := dig(payload, *keys), str) else ""
        for keys in (("repository", "default_branch"), ("repository", "full_name"), ("action",))
    )
    head, base = (
        dig(payload, "pull_request", side, "repo", "full_name") for side in ("head", "base")
    )
    return Event(
        name=name,
        ref=ref,
        sha=sha,
        repository=env.get("GITHUB_REPOSITORY") or repository,
        default_branch=branch or "main",
        pull_request=_number(name, ref, payload),
        head_ref=env.get("GITHUB_HEAD_REF", ""),
        base_ref=env.get("GITHUB_BASE_REF", ""),
        # A deleted fork has no head repository: it is a fork all the same.
        fork="pull_request" in payload and (head is None or head != base),
        deleted=name == "push"
        and (payload.get("deleted") is True or env.get("GITHUB_SHA") == NO_COMMIT),
        action=action,
        force_build=str(dig(payload, "inputs", "force_build")).lower() == "true",
        actor=env.get("GITHUB_ACTOR", ""),
        payload=payload,
    )
