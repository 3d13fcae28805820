"""What a command needs to know before it starts: settings, event, version, time."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tools.core import console
from tools.core.settings import ROOT, Settings, load
from tools.repo import git
from tools.repo.event import Event, from_actions
from tools.repo.versions import parse_tag


@dataclass(frozen=True)
class Context:
    """Settings, the event, and what git knows of the commit.

    Attributes:
        settings: All settings.
        event: What triggered us.
        version: PEP 440 version of what is built.
        created: Seconds since the epoch of the commit (or ``SOURCE_DATE_EPOCH``).
        tags: All git tags of the repository, where the event is a tag.
        root: The checkout.
    """

    settings: Settings
    event: Event
    version: str
    created: int
    tags: tuple[str, ...]
    root: Path = ROOT


def checkout_event(root: Path = ROOT) -> Event:
    """The push that would have brought the checkout here: of its branch, else its tag.

    Raises:
        UsageError: There is no commit here.
    """
    sha = git.head(root)
    ref = f"refs/heads/{git.branch(root) or f'detached-{sha[:7]}'}"
    if not git.branch(root) and (tags := git.version_tags(root)):
        ref = f"refs/tags/{tags[-1]}"
    return Event(
        "push",
        ref,
        sha=sha,
        repository=git.repository(root),
        default_branch=git.default_branch(root),
    )


def current_event(env: Mapping[str, str], root: Path = ROOT) -> Event:
    """The event of the Actions variables where they are set, else of the checkout.

    Raises:
        UsageError: Neither is there, or a variable cannot be read.
    """
    event = from_actions(env) if env.get("GITHUB_EVENT_NAME") else checkout_event(root)
    if console.debugging():
        console.table(("event", "value"), list(event.to_json().items()))
    return event


def load_context(env: Mapping[str, str] | None = None, root: Path = ROOT) -> Context:
    """Read everything once.

    Raises:
        UsageError: A setting, the event or the tag cannot be read.
    """
    env = os.environ if env is None else env
    settings = load(env, root)
    event = current_event(env, root)
    version = parse_tag(event.tag).version if event.tag else git.describe_version(root)
    return Context(
        settings=settings,
        event=event,
        version=str(version),
        created=git.commit_time(root),
        tags=tuple(git.every_tag(root)) if event.tag else (),
        root=root,
    )
