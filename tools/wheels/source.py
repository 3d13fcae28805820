"""What wheels are built from: the stand-in, a folder, or a git address.

The source itself is never touched: a copy is built, with the version put into it.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tomllib
from dataclasses import dataclass, field
from pathlib import Path

import tomlkit
from packaging.utils import canonicalize_name

from tools.core import console, files, process
from tools.core.errors import PipelineError, UsageError
from tools.core.failures import Failure, explain
from tools.core.secrets import remember_userinfo
from tools.repo import git

STAND_IN = "package"
ACCEPTED = (
    "Give a folder with a pyproject.toml, or an address such as "
    "git+https://github.com/mlc-ai/mlc-llm@main."
)
# PyPA, "VCS support" of pip; the reference follows the last @.
_ADDRESS = re.compile(
    r"git\+(?P<location>(?:(?:https://|ssh://([\w.-]+@)?)([\w.-]+|\[[\da-fA-F:.]+\])(:\d+)?"
    r"|file://[\w.-]*)/[^#\s]+?)"
    r"(?:@(?P<ref>[^@#]*))?(?:#subdirectory=(?P<part>[\w./-]+))?"
)
FAILURES = (
    Failure(
        r"couldn't find remote ref (?P<ref>.+)|not our ref (?P<commit>\w+)",
        "{location} has no branch, tag or commit {ref}{commit}.",
        "Give a branch, a tag or the full 40 digits of a commit after the @.",
    ),
)
# Left out of a folder that git does not know; "build" and "dist" at its top, too.
_JUNK = (".git", ".hg", ".nox", ".tox", ".venv", "__pycache__", ".mypy_cache", "*.egg-info")


@dataclass(frozen=True)
class Source:
    """Where the package comes from."""

    kind: str  # stand-in, folder or git
    location: str  # the folder's path, or the address without git+, reference and part
    ref: str = ""  # branch, tag or full commit of an address; empty for its default branch
    subdirectory: str = ""  # of the package, inside an address's repository

    @property
    def described(self) -> str:
        """One line for a person."""
        text = f"{self.kind} {self.location}" + (f" at {self.ref}" if self.ref else "")
        return text + (f", folder {self.subdirectory}" if self.subdirectory else "")


@dataclass(frozen=True)
class Tree:
    """A package's folder that is ready to be copied."""

    folder: Path
    commit: str = ""  # empty where git does not know the folder
    files: tuple[str, ...] | None = None  # what git tracks; None where it knows nothing
    untracked: int = 0  # files that git does not track, ignored ones aside
    modified: bool = False  # whether tracked files have changes that are not committed


@dataclass(frozen=True)
class SourceProject:
    """What a pyproject.toml says of how it is built."""

    name: str  # of the distribution, as written
    requires: tuple[str, ...] = ()  # build requirements
    build_dir: bool = False  # whether it sets scikit-build-core's build-dir itself
    environment: dict[str, str] = field(default_factory=dict)  # gives a dynamic version


def parse_source(text: str, root: Path) -> Source:
    """The source that the setting ``MLC_LLM_SOURCE`` names; the stand-in where it is empty.

    A relative folder is relative to the checkout ``root``.

    Raises:
        UsageError: It is neither a folder with a pyproject.toml nor a git address, or
            the address holds a password.
    """
    if not text:
        return Source("stand-in", str(root / STAND_IN))
    if "://" in text or text.startswith("git+"):
        return _parse_address(text)
    folder = root / os.path.expanduser(text)
    if not (folder / "pyproject.toml").is_file():
        what = "has no pyproject.toml" if folder.is_dir() else "is not a folder"
        raise UsageError(f"MLC_LLM_SOURCE is {text!r}, which {what}.", ACCEPTED)
    return Source("folder", str(folder.resolve()))


def _parse_address(text: str) -> Source:
    userinfo = re.search(r"://([^/]*)@", text)
    if userinfo and (":" in userinfo[1] or not text.startswith("git+ssh:")):
        remember_userinfo(text)
        raise UsageError(
            "The address in MLC_LLM_SOURCE holds a name or password.",
            "Leave it out: git's credential helper (git config credential.helper) gives it.",
        )
    match = _ADDRESS.fullmatch(text)
    ref, part = (match["ref"] or "", match["part"] or "") if match else ("", "")
    good_ref = re.fullmatch(r"(?!-)[\w./+-]*", ref) and ".." not in ref
    if match is None or not good_ref or ".." in part.split("/"):
        raise UsageError(f"MLC_LLM_SOURCE is {text!r}.", ACCEPTED)
    return Source("git", match["location"], ref, part.strip("/"))


def fetch(source: Source, cache: Path) -> Path:
    """A checkout of a git address, submodules included: that of the folder ``cache``,
    which nobody else uses now, brought up to date.

    Raises:
        PipelineError: The remote, the reference or a submodule cannot be fetched.
    """
    folder = cache / hashlib.sha256(source.location.encode()).hexdigest()[:12]
    if not _check_out(source, folder, "--depth=1").code:
        return folder
    # A killed git left its locks, or the server gives no part of its history.
    console.say("fetching it again, from scratch")
    fresh = folder.with_suffix(".new")
    files.remove_tree(fresh)
    done = _check_out(source, fresh)
    if done.code:
        unknown = PipelineError(
            f"git could not fetch {source.location} (exit code {done.code}).",
            "Check the address, and that git may read it without asking (credential helper).",
        )
        raise explain(done.output, FAILURES, unknown, location=source.location)
    files.remove_tree(folder)
    os.replace(fresh, folder)
    return folder


def _check_out(source: Source, folder: Path, *depth: str) -> process.Done:
    """Bring ``folder`` to the source's reference; the end of the step that came last."""
    # git refuses submodules at file addresses unless it is told to; whoever names a local
    # repository as the source trusts it.
    trust = ("-c", "protocol.file.allow=always") if source.location.startswith("file:") else ()
    env = dict(os.environ, GIT_TERMINAL_PROMPT="0")
    folder.mkdir(parents=True, exist_ok=True)
    for step in (
        ("init", "--quiet"),
        ("fetch", "--quiet", *depth, source.location, source.ref or "HEAD"),
        ("checkout", "--quiet", "--force", "--detach", "FETCH_HEAD"),
        ("submodule", "update", "--init", "--recursive", "--force", "--jobs=4", *depth),
    ):
        command = ["git", *trust, "-C", str(folder), *step]
        done = process.stream(command, env=env, check=False)
        if done.code:
            break
    return done


def open_tree(source: Source, cache: Path) -> Tree:
    """Fetch the source if it is far away, and find out what belongs to it: in a git
    checkout what git tracks, submodules included, with the changes of the working tree.

    Raises:
        PipelineError: It cannot be fetched, has no pyproject.toml, or a submodule is
            not checked out.
    """
    folder = fetch(source, cache) if source.kind == "git" else Path(source.location)
    folder = folder / source.subdirectory
    if not (folder / "pyproject.toml").is_file():
        raise PipelineError(
            f"The source ({source.described}) has no pyproject.toml.",
            "Name the package's folder: append #subdirectory=FOLDER to the address.",
        )
    listed = git.git(folder, "ls-files", "-z", "--recurse-submodules", check=False)
    tracked = tuple(name for name in listed.split("\0") if name)
    if "pyproject.toml" not in tracked:
        return Tree(folder)
    for name in tracked:
        path = folder / name
        if path.is_dir() and not path.is_symlink():
            raise PipelineError(
                f"The submodule {name} of {folder} is not checked out.",
                f"Run: git -C {folder} submodule update --init --recursive",
            )
    asked = ("--porcelain", "--untracked-files=all", "--ignore-submodules=untracked", "--", ".")
    states = [line[:2] for line in git.git(folder, "status", *asked, check=False).splitlines()]
    untracked = states.count("??")
    commit = git.git(folder, "rev-parse", "HEAD", check=False)
    return Tree(folder, commit, tracked, untracked, len(states) > untracked)


def copy_tree(tree: Tree, target: Path) -> None:
    """Copy what belongs to the source into the new folder ``target``."""
    if tree.files is None:
        ignore = shutil.ignore_patterns(*_JUNK)
        shutil.copytree(tree.folder, target, symlinks=True, ignore=ignore)
        for name in ("build", "dist"):
            shutil.rmtree(target / name, ignore_errors=True)
        return
    for name in tree.files:
        path, copy = tree.folder / name, target / name
        if path.is_symlink() or path.exists():  # else deleted in the working tree
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, copy, follow_symlinks=False)


def put_version(folder: Path, version: str) -> SourceProject:
    """Put ``version`` into the copy in ``folder``; returns what its pyproject.toml says.

    A static ``project.version`` is replaced in the file; a dynamic one is given by
    the variable of setuptools-scm, which hatch-vcs and scikit-build-core heed too.

    Raises:
        PipelineError: The pyproject.toml cannot be read or names no project.

    Source: PyPA, "pyproject.toml specification"; setuptools-scm, "Overrides".
    """
    path = folder / "pyproject.toml"
    text = path.read_text(encoding="utf-8")
    try:
        table = tomllib.loads(text)
        name = str(table["project"]["name"])
    except (tomllib.TOMLDecodeError, KeyError, TypeError) as error:
        raise PipelineError(
            f"The source's pyproject.toml gives no project name: {error}.",
            "It needs a [project] table with a name (PEP 621).",
        ) from error
    if "version" in table["project"]:
        document = tomlkit.parse(text)
        document["project"]["version"] = version
        path.write_text(tomlkit.dumps(document), encoding="utf-8", newline="\n")
    variable = canonicalize_name(name).replace("-", "_").upper()
    return SourceProject(
        name,
        requires=tuple(table.get("build-system", {}).get("requires", ["setuptools"])),
        build_dir="build-dir" in table.get("tool", {}).get("scikit-build", {}),
        environment={f"SETUPTOOLS_SCM_PRETEND_VERSION_FOR_{variable}": version},
    )
