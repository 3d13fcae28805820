"""Checks of the machine and the checkout: settings, git, the clone, space, the workflow."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from tools.core.console import human_size
from tools.core.errors import PipelineError
from tools.core.settings import names, variable
from tools.doctor.base import Caution, Check, Skipped, Subject
from tools.repo import context
from tools.repo.event import Event
from tools.repo.git import every_tag, git, is_shallow
from tools.workflow import model

BUILDS = frozenset({"wheels", "docker_dev", "prod_image", "pipeline"})


def checkout(subject: Subject) -> Path:
    """The root of a git checkout (PipelineError if git is missing, or it is not one)."""
    git(subject.root, "rev-parse", "--git-dir")
    return subject.root


def event(subject: Subject) -> Event:
    """What triggered us (UsageError if it cannot be read)."""
    return context.current_event(subject.env, subject.get(checkout))


def repository(subject: Subject) -> str:
    """``owner/name`` on GitHub (Skipped if nothing names it)."""
    name = subject.env.get("GITHUB_REPOSITORY") or subject.get(event).repository
    if not name:
        raise Skipped("No repository on GitHub is known.")
    return name


def check_settings(subject: Subject) -> str:
    """All settings are valid; those that are set are named, secrets too, without values."""
    origins = subject.settings.origins
    shown = [variable(n) for n in names() if origins.get(n, "default") != "default"]
    return f"All settings are valid; set: {', '.join(shown) or 'none'}."


def check_git(subject: Subject) -> str:
    """git is there, and this is a checkout."""
    return f"{git(subject.get(checkout), '--version')}."


def check_event(subject: Subject) -> str:
    """What triggered us can be read."""
    found = subject.get(event)
    return f"{found.name} of {found.ref} at {found.short_sha}."


def check_clone(subject: Subject) -> str:
    """The clone has, or can ask for, all tags: floating tags and versions need them."""
    root = subject.get(checkout)
    tags = every_tag(root)  # its error is the sessions' own
    if is_shallow(root):
        raise Caution(
            "The clone is shallow: versions between two tags are counted wrongly.",
            "Fetch the rest with git fetch --unshallow --tags (on Actions: fetch-depth: 0).",
        )
    return f"The clone is complete and has {len(tags)} tags."


def check_disk(subject: Subject) -> str:
    """Room for a build in the checkout and in the folder for temporary files."""
    required = subject.settings.disk_needed
    for path in (Path(subject.env.get("TMPDIR") or tempfile.gettempdir()), subject.root):
        free = shutil.disk_usage(path).free
        if free < required:
            raise PipelineError(
                f"Only {human_size(free)} are free in {path}; "
                f"a build takes {human_size(required)}.",
                "Free some (docker buildx prune, docker image prune, rm -r .nox), or lower "
                "DISK_NEEDED.",
            )
    return f"{human_size(free)} are free in {path}."


def check_workflow(subject: Subject) -> str:
    """The pipeline's workflow file is valid."""
    return f"{len(model.load(subject.root).jobs)} jobs, in a valid order."


CHECKS = (
    Check("settings", check_settings),
    Check("git", check_git),
    Check("event", check_event),
    Check("clone", check_clone, BUILDS | {"release", "plan"}),
    Check("disk space", check_disk, BUILDS),
    Check("workflow", check_workflow, frozenset({"plan", "pipeline"})),
)
