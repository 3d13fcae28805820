"""Which events start a workflow: GitHub's filter patterns, and a job matrix (pure).

Sources: "Workflow syntax for GitHub Actions", the chapters "Filter pattern cheat sheet",
``on.<push|pull_request>``, and ``jobs.<job_id>.strategy.matrix``.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tools.repo.event import Event


def pattern_regex(pattern: str) -> re.Pattern[str]:
    """A filter pattern as a regular expression.

    ``*`` any characters but ``/``; ``**`` any; ``?`` and ``+`` zero or one, one or more
    of what precedes; ``[]`` one of the characters listed; ``\\`` takes the next literally.
    """
    found = ""
    at = 0
    while at < len(pattern):
        char = pattern[at]
        if pattern.startswith("**", at):
            found, at = found + ".*", at + 1
        elif char == "*":
            found += "[^/]*"
        elif char in "?+":
            found += char if found else re.escape(char)
        elif char == "[" and "]" in pattern[at:]:
            end = pattern.index("]", at)
            found, at = (
                found + "[" + re.escape(pattern[at + 1 : end]).replace(r"\-", "-") + "]",
                end,
            )
        elif char == "\\" and at + 1 < len(pattern):
            found, at = found + re.escape(pattern[at + 1]), at + 1
        else:
            found += re.escape(char)
        at += 1
    return re.compile(found, re.DOTALL)


def matches(name: str, patterns: Iterable[str]) -> bool:
    """Whether a name passes the patterns; a later one that begins with ``!`` takes it out."""
    passed = False
    for pattern in patterns:
        wanted = not pattern.startswith("!")
        if pattern_regex(pattern.removeprefix("!")).fullmatch(name):
            passed = wanted
    return passed


@dataclass(frozen=True)
class Trigger:
    """One entry of ``on``: the event's name and its filters, as they stand."""

    name: str
    filters: Mapping[str, tuple[str, ...]]

    def refusal(self, kind: str, name: str) -> str:
        """Why a branch or tag does not pass; empty if it does.

        Args:
            kind: ``branches`` or ``tags``.
            name: Its short name.
        """
        other = "tags" if kind == "branches" else "branches"
        wanted, unwanted = self.filters.get(kind), self.filters.get(f"{kind}-ignore")
        if wanted is not None and not matches(name, wanted):
            return f"{name} is none of {kind} {', '.join(wanted)}"
        if unwanted is not None and matches(name, unwanted):
            return f"{name} is one of {kind}-ignore {', '.join(unwanted)}"
        filtered = any(key in self.filters for key in (other, f"{other}-ignore"))
        if wanted is None and unwanted is None and filtered and self.name == "push":
            # Filters for one of the two alone keep the other out.
            return f"{name} is none of the {other} that it is for"
        return ""


def not_triggered(event: Event, triggers: Sequence[Trigger]) -> str:
    """Why an event does not start a workflow; empty if it does."""
    found = next((trigger for trigger in triggers if trigger.name == event.name), None)
    if found is None:
        return f"the workflow is not triggered by {event.name}"
    if event.name == "workflow_dispatch":
        return ""
    if event.name == "pull_request":
        reason = found.refusal("branches", event.base_ref or event.default_branch)
    elif event.tag is not None:
        reason = found.refusal("tags", event.tag)
    else:
        reason = found.refusal("branches", event.branch or event.ref_name)
    return f"the workflow is not triggered by {event.name}: {reason}" if reason else ""


def _fits(combination: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    return all(key in combination and combination[key] == wanted[key] for key in wanted)


def expand_matrix(
    axes: Mapping[str, Sequence[Any]],
    include: Sequence[Mapping[str, Any]] = (),
    exclude: Sequence[Mapping[str, Any]] = (),
) -> list[dict[str, Any]]:
    """All combinations of a matrix, in GitHub's order.

    An entry of ``include`` is added to every combination whose original values it does
    not overwrite; if there is none, it is a combination of its own.
    """
    rows = [dict(zip(axes, row, strict=True)) for row in itertools.product(*axes.values())]
    rows = [row for row in rows if not any(_fits(row, out) for out in exclude)] if axes else []
    originals = [dict(row) for row in rows]
    for extra in include:
        own = {key: extra[key] for key in extra if key in axes}
        takers = [row for row, first in zip(rows, originals, strict=False) if _fits(first, own)]
        for row in takers:
            row.update(extra)
        if not takers:
            rows.append(dict(extra))
    return rows
