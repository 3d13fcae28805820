"""Asking a real git."""

import os
import re
import subprocess
from pathlib import Path

import pytest
from packaging.version import Version

from tests.services.project import Project
from tools.core.errors import PipelineError, UsageError
from tools.core.secrets import MASK, forget, redact
from tools.repo import git
from tools.repo.context import checkout_event, load_context


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A repository with two commits on main, the first of them v1.0.0; the person's own git
    settings have no say.
    """
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setenv("GIT_CONFIG_SYSTEM", os.devnull)
    new = Project(tmp_path / "repository")
    new.root.mkdir()
    new.git("init", "-q", "-b", "main")
    (new.root / "file").write_text("one")
    new.commit()
    new.git("tag", "v1.0.0")
    new.git("tag", "nightly")
    (new.root / "file").write_text("two")
    new.commit()
    return new


ADDRESSES = {
    "https://github.com/owner/name.git": "owner/name",
    "https://github.com/owner/name": "owner/name",
    "https://github.com/owner/name/": "owner/name",
    "git@github.com:owner/name.git": "owner/name",
    "ssh://git@github.com:22/owner/name.git": "owner/name",
    "https://user:word@github.com/owner/na.me.git": "owner/na.me",
    **dict.fromkeys(["/srv/git/name.git", "../name", "file:///srv/git/name", ""], ""),
    **dict.fromkeys(["C:\\git\\name", "C:/git/owner/name"], ""),
}


def test_repository_of() -> None:
    """owner/name of every form of a remote's address, nothing from a path."""
    assert {address: git.repository_of(address) for address in ADDRESSES} == ADDRESSES


def test_the_event_of_a_checkout(project: Project) -> None:
    """Its branch; else its highest version tag; else a reference of no branch that exists. On
    Actions the variables win over what is checked out.
    """
    project.git("remote", "add", "origin", "git@github.com:o/n.git")
    sha = project.git("rev-parse", "HEAD")
    event = checkout_event(project.root)
    assert (event.ref, event.repository, event.sha) == ("refs/heads/main", "o/n", sha)
    project.git("checkout", "-q", "--detach")
    assert checkout_event(project.root).ref == f"refs/heads/detached-{sha[:7]}"
    project.git("tag", "v1.0.0rc1", "v1.0.0")
    project.git("checkout", "-q", "v1.0.0")
    context = load_context({}, project.root)
    assert (context.event.tag, context.version) == ("v1.0.0", "1.0.0")
    # As in a job that tests what a private repository's tag built: a shallow clone, no login.
    project.git("remote", "set-url", "origin", "https://127.0.0.1:9/o/n.git")
    head = project.git("rev-parse", "HEAD")
    (project.root / ".git" / "shallow").write_text(f"{head}\n")
    assert load_context({}, project.root) == context
    env = {"GITHUB_EVENT_NAME": "push", "GITHUB_REF": "refs/heads/dev", "REGISTRY": "r.io"}
    context = load_context(env, project.root)
    assert (context.event.branch, context.settings.registry) == ("dev", "r.io")


def test_version_of_a_checkout(project: Project) -> None:
    """A tag's version, else a development release after the last tag; what is built from a
    changed checkout must not pass for the release.
    """
    sha = project.git("rev-parse", "HEAD")
    assert git.describe_version(project.root) == f"1.0.1.dev1+g{sha[:7]}"
    (project.root / "file").write_text("changed")
    assert git.describe_version(project.root) == f"1.0.1.dev1+g{sha[:7]}.dirty"
    project.git("checkout", "-q", "-f", "v1.0.0")
    assert git.describe_version(project.root) == "1.0.0"
    (project.root / "file").write_text("changed")
    assert Version(git.describe_version(project.root)).is_prerelease


def test_an_empty_repository(tmp_path: Path) -> None:
    """Without a commit, or without git's folder, one sentence says what to do."""
    for prepare in (lambda: None, lambda: Project(tmp_path).git("init", "-q")):
        prepare()
        with pytest.raises(UsageError, match="Clone the repository") as caught:
            checkout_event(tmp_path)
        assert caught.value.detail


def test_a_shallow_clone_asks_its_origin(project: Project, tmp_path: Path) -> None:
    """Its own tags are few; without those of its origin `1` could move backwards: not knowing
    them is an error, not an empty list. git's names are bytes: an odd one breaks nothing.
    """
    subprocess.run([b"git", b"-C", os.fsencode(project.root), b"tag", b"caf\xe9"], check=True)
    shallow = Project(tmp_path / "shallow")
    address = project.root.as_uri()
    project.git("clone", "-q", "--depth=1", "--no-tags", address, str(shallow.root))
    assert shallow.git("tag") == ""
    assert {"nightly", "v1.0.0"} < set(git.every_tag(shallow.root))
    shallow.git("remote", "set-url", "origin", (tmp_path / "gone").as_uri())
    with pytest.raises(PipelineError, match="fetch-depth: 0"):
        git.every_tag(shallow.root)


def test_commit_time(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """The commit's own time, unless SOURCE_DATE_EPOCH says otherwise, in whole seconds."""
    assert git.commit_time(project.root) == 1_767_323_045
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "5")
    assert git.commit_time(project.root) == 5
    for text in ("now", "-1", "1.5", "9" * 5000, "٣"):
        monkeypatch.setenv("SOURCE_DATE_EPOCH", text)
        with pytest.raises(UsageError, match="whole seconds"):
            git.commit_time(project.root)


def test_what_git_says_is_not_masked(project: Project) -> None:
    """An account's name is masked where it is shown, not where it is data: the owner of the
    repository often has the same name at Docker Hub.
    """
    project.git("remote", "add", "origin", "https://github.com/robotic/name.git")
    (project.root / "robotic.py").write_text("")
    env = {"DOCKER_HUB_USERNAME": "robotic", "DOCKER_HUB_TOKEN": "token-of-robotic"}
    try:
        context = load_context(env, project.root)
        assert redact("robotic") == MASK
        assert context.event.repository == "robotic/name"
        assert git.git(project.root, "ls-files", "--others") == "robotic.py"
        with pytest.raises(PipelineError, match=re.escape(MASK)):
            git.git(project.root, "cat-file", "-p", "robotic")
    finally:
        for value in env.values():
            forget(value)
