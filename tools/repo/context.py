"""What a command needs to know before it starts: settings, event, version, time."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from tools.core import console
from tools.core.settings import ROOT, Settings, load
from tools.repo.event import Event, from_actions
from tools.repo.git import commit_time, describe_version, git, head, repository_of
from tools.repo.versions import known_versions, parse_tag


@dataclass(frozen=True)
class Context:
    """Settings, the event, and what git knows of the commit."""

    settings: Settings
    event: Event
    version: str  # PEP 440, of what is built
    created: int  # seconds since the epoch of the commit (or SOURCE_DATE_EPOCH)
    root: Path = ROOT  # the checkout


def checkout_event(root: Path = ROOT) -> Event:
    """The push that would have brought the checkout here: of its branch, else its tag
    (UsageError if there is no commit).
    """
    sha = head(root)
    branch = git(root, "symbolic-ref", "--short", "--quiet", "HEAD", check=False)
    versions = known_versions(git(root, "tag", "--points-at", "HEAD").splitlines())
    ref = f"refs/heads/{branch or f'detached-{sha[:7]}'}"
    if versions and not branch:
        ref = f"refs/tags/{versions[-1].tag}"
    origin = git(root, "remote", "get-url", "origin", check=False)
    trunk = git(root, "symbolic-ref", "--short", "refs/remotes/origin/HEAD", check=False)
    trunk = trunk.removeprefix("origin/") or "main"
    return Event("push", ref, sha, repository_of(origin), trunk)


def current_event(env: Mapping[str, str], root: Path = ROOT) -> Event:
    """The event of the Actions variables where they are set, else of the checkout
    (UsageError if neither can be read).
    """
    event = from_actions(env) if env.get("GITHUB_EVENT_NAME") else checkout_event(root)
    event = replace(event, repository=env.get("GITHUB_REPOSITORY") or event.repository)
    if console.debugging:
        console.table(("event", "value"), list(event.to_json().items()))
    return event


def load_context(env: Mapping[str, str] | None = None, root: Path = ROOT) -> Context:
    """Read everything once (UsageError if a setting, the event or the tag is wrong)."""
    env = os.environ if env is None else env
    settings, event = load(env, root), current_event(env, root)
    version = str(parse_tag(event.tag).version) if event.tag else describe_version(root)
    return Context(settings, event, version, commit_time(root), root)
