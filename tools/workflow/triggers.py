"""Which events start a workflow: GitHub's filter patterns. Pure.

Source: "Workflow syntax for GitHub Actions", the chapters "Filter pattern cheat sheet" and
``on.<push|pull_request>``.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeAlias

from msgspec import Struct

from tools.core.errors import UsageError
from tools.repo.event import Event

Filters: TypeAlias = Mapping[str, tuple[str, ...]]

FILTERS = tuple("branches branches-ignore tags tags-ignore paths paths-ignore types".split())
UNKNOWN = ("workflows", "names", "versions")  # of workflow_run and image_version
# The activities that start a workflow which names none; of other events all do.
_TYPES = dict.fromkeys(
    ("pull_request", "pull_request_target"), ("opened", "synchronize", "reopened")
)
_PIECE = re.compile(r"(\*\*)|(\*)|\[([^]]+)\]|\\(.)|([?+])|(.)", re.DOTALL)


def pattern_regex(pattern: str) -> re.Pattern[str]:
    """A filter pattern as a regular expression; ValueError if it is none.

    ``*`` any characters but ``/``; ``**`` any; ``?`` and ``+`` zero or one, one or more
    of what precedes; ``[]`` one of the characters listed; ``\\`` takes the next literally.
    """
    pieces: list[str] = []
    for anything, part, listed, literal, count, char in _PIECE.findall(pattern):
        if anything or part:
            pieces.append(".*" if anything else "[^/]*")
        elif listed:
            pieces.append("[" + re.escape(listed).replace(r"\-", "-") + "]")
        elif count and pieces:
            pieces[-1] = f"(?:{pieces[-1]}){count}"
        else:
            pieces.append(re.escape(literal or count or char))
    try:
        return re.compile("".join(pieces), re.DOTALL)
    except (re.error, RecursionError) as error:
        raise ValueError(f"the filter pattern {pattern!r} is not understood") from error


def matches(name: str, patterns: Iterable[str]) -> bool:
    """Whether a name passes the patterns; a later one that begins with ``!`` takes it out."""
    passed = False
    for pattern in patterns:
        if pattern_regex(pattern.removeprefix("!")).fullmatch(name):
            passed = not pattern.startswith("!")
    return passed


class Trigger(Struct, frozen=True):
    """One entry of ``on``: the event's name and its filters, as they stand."""

    name: str
    filters: Filters


def not_triggered(event: Event, triggers: Sequence[Trigger]) -> str:
    """Why an event does not start a workflow; empty if it does (UsageError if that hangs on
    what is not known of the event).
    """
    reason = f"the workflow is not triggered by {event.name}"
    filters = {trigger.name: trigger.filters for trigger in triggers}.get(event.name)
    if filters is None:
        return reason
    if event.deleted:
        return f"{event.ref} is deleted, which starts nothing"
    if unknown := [one for one in filters if one in UNKNOWN]:
        raise UsageError(f"{unknown[0]}, by which {event.name} is filtered, is not understood.")
    unfit = _unfit_type(event, filters) or _unfit_name(event, filters)
    if not unfit and event.tag is None:
        unfit = _unfit_paths(event, filters)
    return f"{reason}: {unfit}" if unfit else ""


def _unfit_type(event: Event, filters: Filters) -> str:
    accepted = filters.get("types") or _TYPES.get(event.name, ())
    if not accepted or event.action in accepted:
        return ""
    if not event.action and "types" not in filters:
        return ""  # most likely one of the usual
    if not event.action:
        raise UsageError(
            f"Which activity of {event.name} it is is not known, and the workflow has types.",
            f"Give --action, such as {accepted[0]}.",
        )
    return f"{event.action} is none of types {', '.join(accepted)}"


def _unfit_name(event: Event, filters: Filters) -> str:
    kind, name = "branches", event.target or event.ref_name
    if event.tag is not None:
        kind, name = "tags", event.tag
    accepted, ignored = filters.get(kind), filters.get(f"{kind}-ignore")
    if accepted is not None and not matches(name, accepted):
        return f"{name} is none of {kind} {', '.join(accepted)}"
    if ignored is not None and matches(name, ignored):
        return f"{name} is one of {kind}-ignore {', '.join(ignored)}"
    of_names = [filter for filter in filters if filter.startswith(("branches", "tags"))]
    if event.name == "push" and of_names and accepted is ignored is None:
        # Filters for one of the two alone keep the other out.
        return f"{name} is not what {', '.join(of_names)} are for"
    return ""


def _unfit_paths(event: Event, filters: Filters) -> str:
    """Which files changed; of tags they are not looked at."""
    accepted, ignored = filters.get("paths"), filters.get("paths-ignore")
    if accepted is ignored is None:
        return ""
    if event.changed is None:
        raise UsageError(
            "The workflow has paths, and which files the event changes is not known.",
            "Fetch the commits before it (git fetch --unshallow; on Actions: fetch-depth: 0).",
        )
    if accepted is not None and not any(matches(path, accepted) for path in event.changed):
        return f"no changed file is one of paths {', '.join(accepted)}"
    if ignored is not None and all(matches(path, ignored) for path in event.changed):
        return f"all changed files are of paths-ignore {', '.join(ignored)}"
    return ""
