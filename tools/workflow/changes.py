"""Which files an event changes, where the workflow asks for it, from git."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from tools.core.errors import PipelineError
from tools.repo.event import NO_COMMIT, Event, dig
from tools.repo.git import git
from tools.workflow.triggers import Trigger


def find(event: Event, triggers: Sequence[Trigger], root: Path) -> Event:
    """The event with its changed files, if they are asked for and git has the commits.

    Source: "Workflow syntax for GitHub Actions", ``paths``: a push is compared with what was
    there before it, a pull request with where it began.
    """
    filters = [one.filters for one in triggers if one.name == event.name]
    if not any("paths" in one or "paths-ignore" in one for one in filters):
        return event
    base, dots = dig(event.payload, "before"), ".."
    if event.pull_request is not None:
        base, dots = dig(event.payload, "pull_request", "base", "sha"), "..."
        base = base or f"origin/{event.target}"
    elif base is None:  # a push from this checkout is to bring what origin has not
        base = f"origin/{event.branch}"
    if not isinstance(base, str) or base == NO_COMMIT or event.sha == NO_COMMIT:
        return event
    try:
        span = f"{base}{dots}{event.sha}"
        names = git(root, "diff", "--name-only", "-z", "--end-of-options", span, "--")
    except PipelineError:
        return event
    return dataclasses.replace(event, changed=tuple(filter(None, names.split("\0"))))
