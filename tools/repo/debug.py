"""What ``--debug`` shows before the work begins: settings, event, and the plan's reasons.

Nothing here may keep the work from being tried: what cannot be read is said, and left
for the work itself to refuse.
"""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Mapping
from pathlib import Path

from tools.core import console
from tools.core.errors import PipelineError
from tools.core.settings import ROOT, Settings, is_secret, load, names, variable
from tools.repo import context
from tools.repo.event import Event
from tools.workflow import decisions
from tools.workflow import model as workflow


def setting_rows(settings: Settings) -> list[tuple[str, str, str]]:
    """Variable, value and origin of every setting; of a secret only whether it is set."""
    rows = []
    for name in names():
        value = getattr(settings, name)
        if is_secret(name):
            shown = "set" if value else "not set"
        elif isinstance(value, tuple):
            shown = " ".join(value)
        else:
            shown = str(value)
        rows.append((variable(name), shown, settings.origins.get(name, "default")))
    return rows


def event_rows(event: Event) -> list[tuple[str, str]]:
    """The event's parts, without its raw payload."""
    return [(name, str(value)) for name, value in event.to_json().items()]


def plan_rows(event: Event, root: Path) -> list[tuple[str, str, str]]:
    """What becomes of each of the workflow's jobs for the event, and why."""
    found = decisions.decide(workflow.load(root), event)
    return [(name, d.result if d.run else "-", d.reason) for name, d in found.items()]


def show(env: Mapping[str, str] | None = None, root: Path = ROOT) -> None:
    """Print everything, folded on Actions."""
    env = os.environ if env is None else env
    with console.group("debug: settings, event and plan"):
        console.say(f"Python {platform.python_version()} on {platform.platform()}")
        console.say(f"arguments: {sys.argv[1:]}")
        try:
            rows = setting_rows(load(env, root))
            console.table(("setting", "value", "from"), rows)
            event = context.current_event(env, root)
            console.table(("event", "value"), event_rows(event))
            console.table(("job", "plan", "why"), plan_rows(event, root))
        except (PipelineError, OSError) as error:
            console.say(f"cannot be shown: {error}")
