"""Asking git, without a shell."""

import os
import re
from collections.abc import Mapping
from pathlib import Path

from tools.core import process
from tools.core.errors import PipelineError, UsageError
from tools.repo.versions import development_version, known_versions

REMOTE_LIMIT = 60.0  # seconds that a remote may take to answer


def git(
    root: Path,
    *args: str,
    check: bool = True,
    timeout: float | None = None,
    env: Mapping[str, str] | None = None,
) -> str:
    """Output of a git command in ``root``, stripped; empty if it fails unchecked. What is in
    ``env`` comes on top of the environment.

    Raises:
        PipelineError: git is missing, out of time, or (with ``check``) ended with an error.
    """
    # Not ours to answer questions, nor to take locks while somebody else works.
    quiet = {"GIT_TERMINAL_PROMPT": "0", "GIT_OPTIONAL_LOCKS": "0"}
    env = {**os.environ, **quiet, **(env or {})}
    command = ["git", "-C", str(root), *args]
    done = process.run(command, env=env, check=False, timeout=timeout, mask=False)
    if done.code and check:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise PipelineError(f"git {args[0]} failed: {last}.")
    return "" if done.code else done.stdout.strip()


def repository_of(address: str) -> str:
    """``owner/name`` of a remote's address, or empty if it has no such form."""
    match = re.search(r"[/:]([^/:\s]+/[^/\s]+?)(?:\.git)?/?$", address)
    is_path = address.startswith(("/", ".", "file:")) or re.match(r"[A-Za-z]:[\\/]", address)
    return match.group(1) if match and not is_path else ""


def is_shallow(root: Path) -> bool:
    """Whether the clone lacks history, and so perhaps tags."""
    return git(root, "rev-parse", "--is-shallow-repository", check=False) == "true"


def every_tag(root: Path) -> list[str]:
    """All tags of the repository: a shallow clone has few, so its origin is asked too.

    Raises:
        PipelineError: The clone is shallow and its origin cannot be asked. Without all
            tags a floating tag could move backwards.
    """
    names = set(git(root, "tag", "--list", check=False).splitlines())
    if is_shallow(root):
        try:
            text = git(root, "ls-remote", "--tags", "--refs", "origin", timeout=REMOTE_LIMIT)
        except PipelineError as error:
            raise PipelineError(
                "The clone is shallow, and origin could not be asked for the other tags.",
                "Fetch them with git fetch --unshallow --tags (on Actions: fetch-depth: 0).",
                error.message,
            ) from error
        names |= {line.partition("refs/tags/")[2] for line in text.splitlines()} - {""}
    return sorted(names)


def contains(root: Path, commit: str, other: str) -> bool:
    """Whether a commit has another among its ancestors, as far as is known here."""
    return git(root, "merge-base", commit, other, check=False) == other


def head(root: Path) -> str:
    """The full hash of the commit that is checked out (UsageError if there is none)."""
    try:
        return git(root, "rev-parse", "--verify", "HEAD")
    except PipelineError as error:
        raise UsageError(
            f"{root} is not a git checkout with a commit.",
            "Clone the repository, or give the event with --event and --ref.",
            error.message,
        ) from error


def commit_time(root: Path) -> int:
    """Seconds since the epoch of the commit, or ``SOURCE_DATE_EPOCH`` where set.

    Source: reproducible-builds.org, SOURCE_DATE_EPOCH specification.
    """
    epoch = os.environ.get("SOURCE_DATE_EPOCH", "")
    if not epoch:
        return int(git(root, "log", "-1", "--format=%ct", check=False) or 0)
    if not re.fullmatch(r"[0-9]{1,11}", epoch):  # up to the year 5138
        raise UsageError(
            f"SOURCE_DATE_EPOCH is {epoch!r}.", "Give whole seconds since 1970-01-01 UTC."
        )
    return int(epoch)


def describe_version(root: Path) -> str:
    """The PEP 440 version of the checkout: its version tag, else a development one."""
    dirty = bool(git(root, "status", "--porcelain", "--untracked-files=no", check=False))
    here = known_versions(git(root, "tag", "--points-at", "HEAD", check=False).splitlines())
    if here and not dirty:
        return str(here[-1].version)
    merged = known_versions(git(root, "tag", "--merged", "HEAD", check=False).splitlines())
    span, last = "HEAD", None
    if merged:
        span, last = f"{merged[-1].tag}..HEAD", merged[-1].version
    distance = int(git(root, "rev-list", "--count", span))
    return development_version(last, distance, head(root), dirty)
