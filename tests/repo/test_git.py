"""Asking a real git."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest
from packaging.version import Version

from tools.core.errors import PipelineError, UsageError
from tools.core.secrets import MASK, forget, redact
from tools.repo import git
from tools.repo.context import checkout_event, load_context

ENV = {
    "GIT_AUTHOR_NAME": "A", "GIT_AUTHOR_EMAIL": "a@b.c", "GIT_COMMITTER_NAME": "A",
    "GIT_COMMITTER_EMAIL": "a@b.c", "GIT_AUTHOR_DATE": "1700000000 +0000",
    "GIT_COMMITTER_DATE": "1700000000 +0000", "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_SYSTEM": os.devnull,
}  # fmt: skip


@pytest.fixture(autouse=True)
def plain_git(monkeypatch: pytest.MonkeyPatch) -> None:
    """The person's own git settings have no say."""
    for name, value in ENV.items():
        monkeypatch.setenv(name, value)


def do(root: Path | str, *arguments: str) -> str:
    """A git command that must succeed."""
    command = ["git", "-C", str(root), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository with two commits on main, the first of them v1.0.0."""
    root = tmp_path / "repository"
    root.mkdir()
    do(root, "init", "-q", "-b", "main")
    (root / "file").write_text("one")
    do(root, "add", ".")
    do(root, "commit", "-q", "-m", "one")
    do(root, "tag", "v1.0.0")
    do(root, "tag", "nightly")
    (root / "file").write_text("two")
    do(root, "commit", "-q", "-a", "-m", "two")
    return root


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("https://github.com/owner/name.git", "owner/name"),
        ("https://github.com/owner/name", "owner/name"),
        ("https://github.com/owner/name/", "owner/name"),
        ("git@github.com:owner/name.git", "owner/name"),
        ("ssh://git@github.com:22/owner/name.git", "owner/name"),
        ("https://user:word@github.com/owner/na.me.git", "owner/na.me"),
        ("/srv/git/name.git", ""),
        ("../name", ""),
        ("file:///srv/git/name", ""),
        ("C:\\git\\name", ""),
        ("C:/git/owner/name", ""),
        ("", ""),
    ],
)
def test_repository_of(address: str, name: str) -> None:
    """owner/name of every form of a remote's address, nothing from a path."""
    assert git.repository_of(address) == name


def test_the_event_of_a_checkout(repository: Path) -> None:
    """Branch, commit and origin are those that git has."""
    do(repository, "remote", "add", "origin", "git@github.com:o/n.git")
    event = checkout_event(repository)
    assert (event.ref, event.repository) == ("refs/heads/main", "o/n")
    assert event.sha == do(repository, "rev-parse", "HEAD")


def test_a_detached_commit(repository: Path) -> None:
    """Neither branch nor tag: the reference says so, and is of no branch that exists."""
    do(repository, "checkout", "-q", "--detach")
    sha = do(repository, "rev-parse", "HEAD")
    assert checkout_event(repository).ref == f"refs/heads/detached-{sha[:7]}"


def test_a_detached_checkout_of_a_tag_is_that_tag(repository: Path) -> None:
    """The highest version tag of the commit; other tags do not count."""
    do(repository, "tag", "v1.0.0rc1", "v1.0.0")
    do(repository, "checkout", "-q", "v1.0.0")
    context = load_context({}, repository)
    assert (context.event.tag, context.version) == ("v1.0.0", "1.0.0")
    assert set(context.tags) == {"v1.0.0", "v1.0.0rc1", "nightly"}


def test_context_of_actions(repository: Path) -> None:
    """On Actions the variables win over what is checked out."""
    env = {"GITHUB_EVENT_NAME": "push", "GITHUB_REF": "refs/tags/v3.0.0", "REGISTRY": "r.io"}
    context = load_context(env, repository)
    assert (context.event.tag, context.version) == ("v3.0.0", "3.0.0")
    assert context.settings.registry == "r.io"


def test_version_of_a_commit_without_tag(repository: Path) -> None:
    """A development release after the last tag, with the commit, and whether dirty."""
    sha = do(repository, "rev-parse", "HEAD")
    assert git.describe_version(repository) == f"1.0.1.dev1+g{sha[:7]}"
    (repository / "file").write_text("changed")
    assert git.describe_version(repository) == f"1.0.1.dev1+g{sha[:7]}.dirty"


def test_version_of_a_changed_tag_is_not_the_release(repository: Path) -> None:
    """What is built from a changed checkout must not pass for the release."""
    do(repository, "checkout", "-q", "v1.0.0")
    assert git.describe_version(repository) == "1.0.0"
    (repository / "file").write_text("changed")
    assert Version(git.describe_version(repository)).is_prerelease


def test_an_empty_repository(tmp_path: Path) -> None:
    """Without a commit, or without git's folder, one sentence says what to do."""
    for prepare in (False, True):
        if prepare:
            do(tmp_path, "init", "-q")
        with pytest.raises(UsageError, match="Clone the repository") as caught:
            checkout_event(tmp_path)
        assert caught.value.detail


def test_a_shallow_clone_asks_its_origin(repository: Path, tmp_path: Path) -> None:
    """Its own tags are few; without those of its origin `1` could move backwards."""
    shallow = tmp_path / "shallow"
    do(tmp_path, "clone", "-q", "--depth=1", "--no-tags", repository.as_uri(), str(shallow))
    assert git.tags(shallow) == []
    assert git.every_tag(shallow) == ["nightly", "v1.0.0"]


def test_a_shallow_clone_without_origin_is_refused(repository: Path, tmp_path: Path) -> None:
    """Not knowing the tags is an error, not an empty list of tags."""
    shallow = tmp_path / "shallow"
    do(tmp_path, "clone", "-q", "--depth=1", repository.as_uri(), str(shallow))
    do(shallow, "remote", "set-url", "origin", (tmp_path / "gone").as_uri())
    with pytest.raises(PipelineError, match="fetch-depth: 0"):
        git.every_tag(shallow)


def test_names_that_are_not_utf8(repository: Path) -> None:
    """git's names are bytes: an odd one breaks nothing."""
    command = [b"git", b"-C", os.fsencode(repository), b"tag", b"caf\xe9"]
    subprocess.run(command, check=True)
    assert "v1.0.0" in git.tags(repository)


@pytest.mark.parametrize("given", ["now", "-1", "1.5", "9" * 5000, "٣"])
def test_bad_source_date_epoch(
    repository: Path, monkeypatch: pytest.MonkeyPatch, given: str
) -> None:
    """A value that is no time is one sentence."""
    monkeypatch.setenv("SOURCE_DATE_EPOCH", given)
    with pytest.raises(UsageError, match="whole seconds"):
        git.commit_time(repository)


def test_commit_time(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The commit's own time, unless SOURCE_DATE_EPOCH says otherwise."""
    assert git.commit_time(repository) == 1_700_000_000
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "5")
    assert git.commit_time(repository) == 5


def test_git_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without git the sentence names it."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(PipelineError, match="Install git"):
        git.git(tmp_path, "status")


def test_what_git_says_is_not_masked(repository: Path) -> None:
    """An account's name is masked where it is shown, not where it is data: the owner of the
    repository often has the same name at Docker Hub.
    """
    do(repository, "remote", "add", "origin", "https://github.com/robotic/name.git")
    (repository / "robotic.py").write_text("")
    env = {"DOCKER_HUB_USERNAME": "robotic", "DOCKER_HUB_TOKEN": "token-of-robotic"}
    try:
        context = load_context(env, repository)
        assert redact("robotic") == MASK
        assert context.event.repository == "robotic/name"
        assert git.git(repository, "ls-files", "--others") == "robotic.py"
        with pytest.raises(PipelineError, match=re.escape(MASK)):
            git.git(repository, "cat-file", "-p", "robotic")
    finally:
        for value in env.values():
            forget(value)
