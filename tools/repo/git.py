"""Asking git: one small function a question, without a shell."""

from __future__ import annotations

import os
import re
from pathlib import Path

from tools.core import process
from tools.core.errors import PipelineError, UsageError
from tools.repo.event import Checkout
from tools.repo.versions import development_version, known_versions

REMOTE_LIMIT = 60.0  # seconds that a remote may take to answer


def git(root: Path, *arguments: str, check: bool = True, timeout: float | None = None) -> str:
    """Output of a git command in ``root``, stripped; empty if it fails unchecked.

    Raises:
        PipelineError: git is missing, or (with ``check``) ended with an error.
    """
    # Not ours to answer questions, nor to take locks while somebody else works.
    env = dict(os.environ, GIT_TERMINAL_PROMPT="0", GIT_OPTIONAL_LOCKS="0")
    command = ["git", "-C", str(root), *arguments]
    try:
        done = process.run(command, env=env, check=False, timeout=timeout, mask=False)
    except process.TimeLimitError as error:
        raise PipelineError(
            f"git {arguments[0]} did not end within {timeout:.0f} s.",
            "See whether the remote can be reached.",
        ) from error
    if done.code:
        if not check:
            return ""
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise PipelineError(f"git {arguments[0]} failed: {last}.")
    return done.stdout.strip()


def repository_of(address: str) -> str:
    """``owner/name`` of a remote's address, or empty if it has no such form."""
    match = re.search(r"[/:]([^/:\s]+/[^/\s]+?)(?:\.git)?/?$", address)
    is_path = address.startswith(("/", ".", "file:")) or re.match(r"[A-Za-z]:[\\/]", address)
    return match.group(1) if match and not is_path else ""


def tags(root: Path) -> list[str]:
    """All tags of the clone."""
    return git(root, "tag", "--list", check=False).splitlines()


def remote_tags(root: Path) -> list[str]:
    """All tags of the remote ``origin``.

    Raises:
        PipelineError: It cannot be asked.
    """
    text = git(root, "ls-remote", "--tags", "--refs", "origin", timeout=REMOTE_LIMIT)
    return [
        line.split("refs/tags/", 1)[1] for line in text.splitlines() if "refs/tags/" in line
    ]


def is_shallow(root: Path) -> bool:
    """Whether the clone lacks history, and so perhaps tags."""
    return git(root, "rev-parse", "--is-shallow-repository", check=False) == "true"


def every_tag(root: Path) -> list[str]:
    """All tags of the repository: a shallow clone has few, so its origin is asked too.

    Raises:
        PipelineError: The clone is shallow and its origin cannot be asked. Without all
            tags a floating tag could move backwards.
    """
    found = set(tags(root))
    if is_shallow(root):
        try:
            found |= set(remote_tags(root))
        except PipelineError as error:
            raise PipelineError(
                "The clone is shallow, and origin could not be asked for the other tags.",
                "Fetch them with git fetch --unshallow --tags (on Actions: fetch-depth: 0).",
                error.message,
            ) from error
    return sorted(found)


def version_tags_at(root: Path, commit: str = "HEAD") -> list[str]:
    """Version tags that point at a commit, the lowest version first."""
    listed = git(root, "tag", "--points-at", commit, check=False).splitlines()
    return [found.tag for found in known_versions(listed)]


def _default_branch(root: Path) -> str:
    head = git(root, "symbolic-ref", "--short", "refs/remotes/origin/HEAD", check=False)
    return head.removeprefix("origin/") or "main"


def read_checkout(root: Path) -> Checkout:
    """What the checkout at ``root`` tells of the event that it stands for.

    Raises:
        UsageError: There is no commit here.
    """
    try:
        sha = git(root, "rev-parse", "--verify", "HEAD")
    except PipelineError as error:
        raise UsageError(
            f"{root} is not a git checkout with a commit.",
            "Clone the repository, or give the event with --event and --ref.",
            error.message,
        ) from error
    return Checkout(
        sha=sha,
        branch=git(root, "symbolic-ref", "--short", "--quiet", "HEAD", check=False) or None,
        tags_here=tuple(version_tags_at(root)),
        default_branch=_default_branch(root),
        repository=repository_of(git(root, "remote", "get-url", "origin", check=False)),
        committed=int(git(root, "log", "-1", "--format=%ct")),
        dirty=is_dirty(root),
        shallow=is_shallow(root),
    )


def is_dirty(root: Path) -> bool:
    """Whether tracked files have changes that are not committed."""
    return bool(git(root, "status", "--porcelain", "--untracked-files=no", check=False))


def commit_time(root: Path) -> int:
    """Seconds since the epoch of the commit, or ``SOURCE_DATE_EPOCH`` where set.

    Source: reproducible-builds.org, SOURCE_DATE_EPOCH specification.
    """
    given = os.environ.get("SOURCE_DATE_EPOCH", "")
    if given:
        if not re.fullmatch(r"[0-9]{1,11}", given):  # up to the year 5138
            raise UsageError(
                f"SOURCE_DATE_EPOCH is {given!r}.", "Give whole seconds since 1970-01-01 UTC."
            )
        return int(given)
    return int(git(root, "log", "-1", "--format=%ct", check=False) or 0)


def describe_version(root: Path) -> str:
    """The PEP 440 version of the checkout: its version tag, else a development one."""
    dirty = is_dirty(root)
    here = version_tags_at(root)
    if here and not dirty:
        return str(known_versions(here)[-1].version)
    sha = git(root, "rev-parse", "HEAD")
    merged = git(root, "tag", "--merged", "HEAD", check=False).splitlines()
    last = known_versions(merged)[-1].tag if known_versions(merged) else None
    span = f"{last}..HEAD" if last else "HEAD"
    return development_version(last, int(git(root, "rev-list", "--count", span)), sha, dirty)
