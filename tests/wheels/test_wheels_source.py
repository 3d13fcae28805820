"""tools.wheels.source: which files a wheel is built from, and as which version."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import tomlkit
from hypothesis import given
from hypothesis import strategies as st

from tools.core import secrets
from tools.core.errors import PipelineError, UsageError
from tools.core.secrets import MASK, redact
from tools.wheels.source import (
    Source,
    Tree,
    copy_tree,
    fetch,
    open_tree,
    parse_source,
    put_version,
)

PROJECT = '[project]\nname = "mlc_llm"\nversion = "0.20.0.dev0"  # kept\n'


@pytest.fixture(autouse=True, scope="module")
def masked_here_only() -> Iterator[None]:
    """What these tests make a secret is not one in other tests."""
    before = set(secrets._known)
    yield
    secrets._known.intersection_update(before)


def git(folder: Path, *arguments: str) -> str:
    """Run git in a folder, with an author and without the user's configuration."""
    author = {f"GIT_{who}_{what}": "t@example.com" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}  # fmt: skip
    env = dict(os.environ, GIT_CONFIG_GLOBAL=os.devnull, **author)
    command = ["git", "-c", "protocol.file.allow=always", "-C", str(folder), *arguments]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def repository(folder: Path, files: dict[str, str]) -> Path:
    """A git repository with one commit of some files."""
    folder.mkdir(parents=True)
    git(folder, "init", "--quiet", "--initial-branch=main")
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message=one")
    return folder


def below(folder: Path) -> set[str]:
    """Relative names of all files below a folder."""
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize(
    ("text", "location", "ref", "part"),
    [
        ("git+https://host/o/n@v1.2", "https://host/o/n", "v1.2", ""),
        ("git+https://host/o/n", "https://host/o/n", "", ""),
        ("git+https://host:8443/o/n.git@feature/x", "https://host:8443/o/n.git", "feature/x", ""),
        ("git+https://[::1]:1/o/n@main", "https://[::1]:1/o/n", "main", ""),
        ("git+ssh://git@host/o/n@main", "ssh://git@host/o/n", "main", ""),
        ("git+file:///srv/n@main#subdirectory=a/b", "file:///srv/n", "main", "a/b"),
        ("git+file:///srv@x/n@main", "file:///srv@x/n", "main", ""),
    ],
)  # fmt: skip
def test_addresses(tmp_path: Path, text: str, location: str, ref: str, part: str) -> None:
    """The address's parts are told apart as pip does; no setting means the stand-in."""
    assert parse_source(text, tmp_path) == Source("git", location, ref, part)
    assert parse_source("", tmp_path) == Source("stand-in", str(tmp_path / "package"))


@pytest.mark.parametrize(
    "text",
    ["https://host/o/n", "git+ext::sh -c id", "git+http://host/o/n", "git+https://host",
     "git+https:///o/n", "git+https://host/o/n@--upload-pack=x", "git+https://host/o/n@-x",
     "git+https://host/o/n@a..b", "git+https://host/o/n#subdirectory=../up",
     "git+https://host/o/n#egg=x", "no/such/folder", "~no-such-user-of-ours/x",
     "git+https://[::1/o/n"],
)  # fmt: skip
def test_refused_sources(tmp_path: Path, text: str) -> None:
    """What is not a source, or would be an option of git, is refused before anything is done."""
    with pytest.raises(UsageError, match="MLC_LLM_SOURCE"):
        parse_source(text, tmp_path)


@given(
    st.text(max_size=60)
    | st.from_regex(r"\A(git\+)?https://[\[\]@:/#a-z.]{0,20}", fullmatch=True)
)
def test_any_text_is_a_source_or_a_sentence(text: str) -> None:
    """No setting ends in a traceback."""
    try:
        parse_source(text.replace("\0", ""), Path("no-such-root"))
    except UsageError as error:
        assert error.remedy


@pytest.mark.parametrize("userinfo", ["me:s3cr%24t-token", "s3cr%24t-token"])
def test_passwords_in_addresses(tmp_path: Path, userinfo: str) -> None:
    """A token in the address would reach argv and logs: it is refused, and not repeated."""
    with pytest.raises(UsageError) as caught:
        parse_source(f"git+https://{userinfo}@host/o/n", tmp_path)
    assert "s3cr" not in str(caught.value)
    assert MASK in redact("the value s3cr$t-token")


def test_folder_is_relative_to_the_checkout(tmp_path: Path) -> None:
    """A relative folder means the same wherever nox is started."""
    (tmp_path / "src").mkdir()
    with pytest.raises(UsageError, match="no pyproject.toml"):
        parse_source("src", tmp_path)
    (tmp_path / "src" / "pyproject.toml").write_text(PROJECT)
    assert parse_source("src", tmp_path) == Source("folder", str((tmp_path / "src").resolve()))


def test_only_tracked_files_are_built(tmp_path: Path) -> None:
    """Forgotten files, ignored ones and build products do not enter a wheel."""
    origin = repository(tmp_path / "r", {"pyproject.toml": PROJECT, "a.py": "1", "gone.py": "", ".gitignore": "*.so\n"})  # fmt: skip
    (origin / "a.py").write_text("2")
    (origin / "gone.py").unlink()
    (origin / "stray.py").write_text("x")
    (origin / "old.so").write_text("x")
    (origin / "link.py").symlink_to("a.py")
    git(origin, "add", "link.py")
    tree = open_tree(Source("folder", str(origin)), tmp_path / "cache")
    assert (tree.untracked, tree.modified) == (1, True)
    assert tree.commit == git(origin, "rev-parse", "HEAD")
    copy_tree(tree, tmp_path / "copy")
    assert below(tmp_path / "copy") == {"pyproject.toml", "a.py", ".gitignore", "link.py"}
    assert (tmp_path / "copy" / "a.py").read_text() == "2"
    assert (tmp_path / "copy" / "link.py").is_symlink()


def test_folder_without_git(tmp_path: Path) -> None:
    """An unpacked archive is built whole, but for old build products at its top."""
    for name in ("pyproject.toml", "build/x.o", "src/build/y.py", ".venv/z", "m.egg-info/q"):
        path = tmp_path / "s" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(PROJECT)
    tree = open_tree(Source("folder", str(tmp_path / "s")), tmp_path / "cache")
    assert tree == Tree(tmp_path / "s")
    copy_tree(tree, tmp_path / "copy")
    assert below(tmp_path / "copy") == {"pyproject.toml", "src/build/y.py"}


def with_submodule(tmp_path: Path) -> Path:
    """A repository whose package needs a submodule that is not at its branch's tip."""
    part = repository(tmp_path / "part", {"part.txt": "pinned"})
    origin = repository(tmp_path / "whole", {"pyproject.toml": PROJECT})
    git(origin, "submodule", "--quiet", "add", part.as_uri(), "3rdparty/part")
    git(origin, "commit", "--quiet", "--message=two")
    git(origin, "tag", "--annotate", "v9.9.9", "--message=x")
    (part / "part.txt").write_text("newer")
    git(part, "commit", "--quiet", "--all", "--message=newer")
    return origin


@pytest.mark.parametrize("kind", ["tag", "branch", "default", "commit"])
def test_fetch_with_submodules(tmp_path: Path, kind: str) -> None:
    """A tag, branch or commit comes with its submodules at their pinned commits."""
    origin = with_submodule(tmp_path)
    commit = git(origin, "rev-parse", "HEAD")
    ref = {"tag": "v9.9.9", "branch": "main", "default": "", "commit": commit}[kind]
    address = f"git+{origin.as_uri()}" + (f"@{ref}" if ref else "")
    tree = open_tree(parse_source(address, origin), tmp_path / "cache")
    assert tree.commit == commit
    copy_tree(tree, tmp_path / "copy")
    assert (tmp_path / "copy/3rdparty/part/part.txt").read_text() == "pinned"
    assert not (tmp_path / "copy/.git").exists()


def test_fetch_is_cached_and_recovers(tmp_path: Path) -> None:
    """The checkout follows its reference; what a killed git left costs a fetch from scratch,
    and a remote that is away costs nothing.
    """
    origin = with_submodule(tmp_path)
    source, cache = Source("git", origin.as_uri(), "main"), tmp_path / "cache"
    folder = fetch(source, cache)
    (folder / "mark").touch()
    git(origin, "commit", "--quiet", "--allow-empty", "--message=three")
    for broken in (False, True):
        if broken:
            (folder / ".git" / "index.lock").touch()
            (folder / "pyproject.toml").unlink()
        assert fetch(source, cache) == folder
        assert git(folder, "rev-parse", "HEAD") == git(origin, "rev-parse", "HEAD")
        assert (folder / "3rdparty/part/part.txt").read_text() == "pinned"
        assert (folder / "mark").exists() is not broken
    assert list(cache.iterdir()) == [folder]
    origin.rename(tmp_path / "away")
    with pytest.raises(PipelineError, match="could not fetch"):
        fetch(source, cache)
    assert (folder / "pyproject.toml").exists()


def test_fetch_failures_are_sentences(tmp_path: Path) -> None:
    """A wrong reference, a wrong commit and a source without a package say so."""
    origin, cache = repository(tmp_path / "r", {"readme": ""}), tmp_path / "cache"
    for ref in ("nowhere", "1" * 40):
        with pytest.raises(PipelineError, match=f"has no branch, tag or commit {ref}"):
            fetch(Source("git", origin.as_uri(), ref), cache)
    with pytest.raises(PipelineError, match="no pyproject.toml"):
        open_tree(Source("git", origin.as_uri()), cache)


def test_missing_submodule(tmp_path: Path) -> None:
    """A folder whose submodules were not checked out is refused before it fails to compile."""
    origin = with_submodule(tmp_path)
    git(tmp_path, "clone", "--quiet", str(origin), "shallow")
    with pytest.raises(PipelineError, match="3rdparty/part.*not checked out") as caught:
        open_tree(Source("folder", str(tmp_path / "shallow")), tmp_path / "cache")
    assert "submodule update --init --recursive" in caught.value.remedy


def test_static_version_is_replaced(tmp_path: Path) -> None:
    """The version goes into the file, the rest of which stays as it is."""
    path = tmp_path / "pyproject.toml"
    path.write_text(PROJECT + '[build-system]\nrequires = ["x>=1"]\n')
    project = put_version(tmp_path, "1.2.3rc1")
    assert tomlkit.parse(path.read_text())["project"]["version"] == "1.2.3rc1"
    assert "# kept" in path.read_text()
    assert project.requires == ("x>=1",)


def test_dynamic_version_is_given_by_variable(tmp_path: Path) -> None:
    """A dynamic version is given in setuptools-scm's way; the file stays as it is."""
    path = tmp_path / "pyproject.toml"
    path.write_text('[project]\nname = "MLC.llm"\ndynamic = ["version"]\n')
    before = path.read_text()
    project = put_version(tmp_path, "1.2.3")
    assert project.environment == {"SETUPTOOLS_SCM_PRETEND_VERSION_FOR_MLC_LLM": "1.2.3"}
    assert path.read_text() == before


@pytest.mark.parametrize("text", ["[project", "[tool.x]\n", 'project = "x"\n'])
def test_unreadable_project(tmp_path: Path, text: str) -> None:
    """A pyproject.toml that names no project is one sentence."""
    (tmp_path / "pyproject.toml").write_text(text)
    with pytest.raises(PipelineError, match="gives no project name"):
        put_version(tmp_path, "1.2.3")
