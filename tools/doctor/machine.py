"""Checks of the machine and the checkout: settings, git, the clone, space, the workflow."""

from __future__ import annotations

import re
import shutil
import tempfile
from pathlib import Path

from packaging.version import Version

from tools.core import process
from tools.core.console import human_size
from tools.core.errors import PipelineError
from tools.core.settings import names, variable
from tools.doctor.base import Caution, Check, Skipped, Subject
from tools.repo import context, git
from tools.repo.event import Event
from tools.workflow import model

BUILDS = frozenset({"wheels", "docker_dev", "prod_image", "pipeline"})
LEAST_GIT = "2.25"  # the first whose submodules and partial clones we rely on


def git_version(subject: Subject) -> str:
    """git's version (PipelineError if it is missing or too old)."""
    output = process.run(["git", "--version"], env=subject.env, timeout=8).stdout
    match = re.search(r"\d+(\.\d+)+", output)
    if match is None or Version(match[0]) < Version(LEAST_GIT):
        found = match[0] if match else output
        raise PipelineError(f"git {found} is too old; {LEAST_GIT} is required.", "Upgrade git.")
    return match[0]


def event(subject: Subject) -> Event:
    """What triggered us (UsageError if it cannot be read)."""
    subject.get(git_version)
    return context.current_event(subject.env, subject.root)


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
    """git is there and not too old."""
    return f"git {subject.get(git_version)}."


def check_event(subject: Subject) -> str:
    """What triggered us can be read."""
    found = subject.get(event)
    return f"{found.name} of {found.ref} at {found.short_sha}."


def check_clone(subject: Subject) -> str:
    """The clone has, or can ask for, all tags: floating tags and versions need them."""
    subject.get(git_version)
    if git.is_shallow(subject.root):
        git.every_tag(subject.root)  # its error is the sessions' own
        raise Caution(
            "The clone is shallow: versions between two tags are counted wrongly.",
            "Fetch the rest with git fetch --unshallow --tags (on Actions: fetch-depth: 0).",
        )
    return f"The clone is complete and has {len(git.tags(subject.root))} tags."


def check_submodules(subject: Subject) -> str:
    """Submodules are initialised and at the commits that the checkout names."""
    subject.get(git_version)
    if not (subject.root / ".gitmodules").exists():
        return "The repository has no submodules."
    lines = git.git(subject.root, "submodule", "status", "--recursive").splitlines()
    # The leading blank of the first line is lost: only the signs matter.
    wrong = [line.split()[1] for line in lines if line.startswith(("-", "+", "U"))]
    if wrong:
        raise Caution(
            f"Submodules are not as the checkout names them: {', '.join(wrong)}.",
            "Run git submodule update --init --recursive (on Actions: submodules: recursive).",
        )
    return f"{len(lines)} submodules are in place."


def check_space(path: Path, required: int) -> str:
    """``path`` has ``required`` bytes free."""
    free = shutil.disk_usage(path).free
    if free < required:
        raise PipelineError(
            f"Only {human_size(free)} are free in {path}; "
            f"a build takes {human_size(required)}.",
            "Free some (docker buildx prune, docker image prune, rm -r .nox), or lower "
            "DISK_NEEDED.",
        )
    return f"{human_size(free)} are free in {path}."


def check_disk(subject: Subject) -> str:
    """Room for a build in the folder for temporary files and in the checkout."""
    required = subject.settings.disk_needed
    check_space(Path(subject.env.get("TMPDIR") or tempfile.gettempdir()), required)
    return check_space(subject.root, required)


def check_workflow(subject: Subject) -> str:
    """The pipeline's workflow file is valid."""
    return f"{len(model.load(subject.root).jobs)} jobs, in a valid order."


CHECKS = (
    Check("settings", check_settings),
    Check("git", check_git),
    Check("event", check_event),
    Check("clone", check_clone, BUILDS | {"release", "plan"}),
    Check("submodules", check_submodules, BUILDS),
    Check("disk space", check_disk, BUILDS),
    Check("workflow", check_workflow, frozenset({"plan", "pipeline"})),
)
