"""Which events start a workflow: GitHub's filter patterns. Pure.

Source: "Workflow syntax for GitHub Actions", the chapters "Filter pattern cheat sheet" and
``on.<push|pull_request>``.
"""

import re
from collections.abc import Iterable, Mapping, Sequence

from msgspec import Struct

from tools.repo.event import Event

FILTERS = ("branches", "branches-ignore", "tags", "tags-ignore")
_PIECE = re.compile(r"(\*\*)|(\*)|\[([^]]+)\]|\\(.)|([?+])|(.)", re.DOTALL)


def pattern_regex(pattern: str) -> re.Pattern[str]:
    """A filter pattern as a regular expression.

    ``*`` any characters but ``/``; ``**`` any; ``?`` and ``+`` zero or one, one or more
    of what precedes; ``[]`` one of the characters listed; ``\\`` takes the next literally.
    """
    regex = ""
    for anything, part, listed, literal, count, char in _PIECE.findall(pattern):
        if anything or part:
            regex += ".*" if anything else "[^/]*"
        elif listed:
            regex += "[" + re.escape(listed).replace(r"\-", "-") + "]"
        else:
            regex += count if count and regex else re.escape(literal or count or char)
    return re.compile(regex, re.DOTALL)


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
    filters: Mapping[str, tuple[str, ...]]


def not_triggered(event: Event, triggers: Sequence[Trigger]) -> str:
    """Why an event does not start a workflow; empty if it does."""
    reason = f"the workflow is not triggered by {event.name}"
    filters = {trigger.name: trigger.filters for trigger in triggers}.get(event.name)
    if filters is None:
        return reason
    if event.deleted:
        return f"{event.ref} is deleted, which starts nothing"
    kind, name = "branches", event.target or event.ref_name
    if event.tag is not None:
        kind, name = "tags", event.tag
    accepted, ignored = filters.get(kind), filters.get(f"{kind}-ignore")
    if accepted is not None and not matches(name, accepted):
        return f"{reason}: {name} is none of {kind} {', '.join(accepted)}"
    if ignored is not None and matches(name, ignored):
        return f"{reason}: {name} is one of {kind}-ignore {', '.join(ignored)}"
    if event.name == "push" and filters and accepted is ignored is None:
        # Filters for one of the two alone keep the other out.
        return f"{reason}: {name} is not what {', '.join(filters)} are for"
    return ""
