"""What wheels are built from: the stand-in, a folder, or a git address.

The source itself is never touched: a copy is built, into which version, name and further
dependencies are put.
"""

import hashlib
import os
import re
import shutil
from collections.abc import Iterable
from dataclasses import astuple, dataclass
from pathlib import Path

import tomlkit
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tools.core import console, files, process
from tools.core.errors import PipelineError, UsageError
from tools.core.secrets import remember_userinfo
from tools.repo import git
from tools.wheels.archive import RecordedSource

ACCEPTED = (
    "Give a folder with a pyproject.toml, or an address such as "
    "git+https://github.com/mlc-ai/mlc-llm@main."
)
# PyPA, "VCS support" of pip; the reference follows the last @.
_ADDRESS = re.compile(
    r"git\+(?P<location>(https|ssh|file)://[^/#\s]*/[^#\s]+?)"
    r"(@(?P<ref>[^@#\s]*))?(#subdirectory=(?P<part>[\w./-]+))?"
)


@dataclass(frozen=True)
class Source:
    """Where the package comes from."""

    kind: str  # stand-in, folder or git
    location: str  # the folder's path, or the address without git+, reference and part
    ref: str = ""  # branch, tag or full commit of an address; empty for its default branch
    subdirectory: str = ""  # of the package, inside an address's repository

    def __str__(self) -> str:
        return " ".join(filter(None, astuple(self)))


@dataclass(frozen=True)
class Tree:
    """A package's folder that is ready to be copied."""

    folder: Path
    recorded: RecordedSource
    files: tuple[str, ...] | None = None  # what git tracks; None where it knows nothing


def parse_source(text: str, root: Path) -> Source:
    """The source that the setting ``MLC_LLM_SOURCE`` names: the stand-in where it is empty,
    else a git address or a folder, relative to the checkout ``root``; else a UsageError.
    """
    if not text:
        return Source("stand-in", str(root / "package"))
    if "://" not in text and not text.startswith("git+"):
        folder = root / os.path.expanduser(text)
        if not (folder / "pyproject.toml").is_file():
            what = "not a folder with a pyproject.toml"
            raise UsageError(f"MLC_LLM_SOURCE is {text!r}, which is {what}.", ACCEPTED)
        return Source("folder", str(folder.resolve()))
    userinfo = re.search(r"://([^/]*)@", text)
    if userinfo and (":" in userinfo[1] or not text.startswith("git+ssh:")):
        remember_userinfo(text)
        raise UsageError(
            "The address in MLC_LLM_SOURCE holds a name or password.",
            "Leave it out: git's credential helper (git config credential.helper) gives it.",
        )
    match = _ADDRESS.fullmatch(text)
    if match is None or (match["ref"] or "").startswith("-"):  # it would be an option
        raise UsageError(f"MLC_LLM_SOURCE is {text!r}.", ACCEPTED)
    part = (match["part"] or "").strip("/")
    return Source("git", match["location"], match["ref"] or "", part)


def fetch(source: Source, cache: Path) -> Path:
    """A checkout of a git address, submodules included: that of the folder ``cache``,
    which nobody else uses now, brought up to date.
    """
    folder = cache / hashlib.sha256(source.location.encode()).hexdigest()[:12]
    if _check_out(source, folder, "--depth=1"):
        return folder
    # A killed git left its locks, or the server gives no part of its history.
    console.say("fetching it again, from scratch")
    fresh = folder.with_suffix(".new")
    files.remove_tree(fresh)
    if not _check_out(source, fresh):
        raise PipelineError(
            f"git could not fetch {source.ref or 'the default branch'} of {source.location}.",
            "See git's words above. A branch, a tag or the full 40 digits of a commit follows "
            "the @; git must be able to read the address without asking (credential helper).",
        )
    files.remove_tree(folder)
    os.replace(fresh, folder)
    return folder


def _check_out(source: Source, folder: Path, *depth: str) -> bool:
    """Bring ``folder`` to the source's reference; whether git could."""
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
        if process.stream(command, env=env, check=False).code:
            return False
    return True


def open_tree(source: Source, cache: Path) -> Tree:
    """Fetch the source if it is far away, and find out what belongs to it: in a git
    checkout what git tracks, submodules included, with the changes of the working tree.
    """
    folder = fetch(source, cache) if source.kind == "git" else Path(source.location)
    folder = folder / source.subdirectory
    listed = git.git(folder, "ls-files", "-z", "--recurse-submodules", check=False)
    tracked = tuple(name for name in listed.split("\0") if name)
    if "pyproject.toml" not in tracked:
        return Tree(folder, RecordedSource(source.kind, None, False))
    for name in tracked:
        if (folder / name).is_dir() and not (folder / name).is_symlink():
            raise PipelineError(
                f"The submodule {name} of {folder} is not checked out.",
                f"Run: git -C {folder} submodule update --init --recursive",
            )
    asked = ("--porcelain", "--untracked-files=all", "--ignore-submodules=untracked", "--", ".")
    states = [line[:2] for line in git.git(folder, "status", *asked, check=False).splitlines()]
    untracked = states.count("??")
    modified = len(states) > untracked
    commit = git.git(folder, "rev-parse", "HEAD", check=False)
    if untracked:
        console.warn(f"{untracked} files are left out: git does not track them (see git add)")
    if modified:
        console.warn("the source has changes that are not committed; they are built")
    return Tree(folder, RecordedSource(source.kind, commit or None, modified), tracked)


def copy_tree(tree: Tree, target: Path) -> None:
    """Copy what belongs to the source into the new folder ``target``."""
    if tree.files is None:
        junk = shutil.ignore_patterns(".git", ".nox", ".venv", "__pycache__", "*.egg-info")
        shutil.copytree(tree.folder, target, symlinks=True, ignore=junk)
        for name in ("build", "dist"):  # at its top alone
            shutil.rmtree(target / name, ignore_errors=True)
    for name in tree.files or ():
        path, copy = tree.folder / name, target / name
        if path.is_symlink() or path.exists():  # else deleted in the working tree
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, copy, follow_symlinks=False)


@dataclass(frozen=True)
class _Project:
    """What matters of a ``[project]`` table."""

    name: str
    version: str = ""
    dependencies: tuple[str, ...] = ()
    dynamic: tuple[str, ...] = ()

    def undeclared(self, requires: Iterable[str]) -> list[str]:
        """Those of ``requires`` that say more than the dependencies do: one with a version is
        stated beside one without, as installers heed both.
        """
        required = list(map(Requirement, requires))
        if required and "dependencies" in self.dynamic:
            raise PipelineError(
                f"The source's dependencies are dynamic: {', '.join(map(str, required))} "
                "cannot be added.",
                "Declare them where the source keeps the others, and not in the settings.",
            )
        declared = list(map(Requirement, self.dependencies))
        names = {canonicalize_name(one.name) for one in declared if not one.marker}
        new = [one for one in required if one not in declared]
        return [str(o) for o in new if o.specifier or canonicalize_name(o.name) not in names]


def put_project(
    folder: Path, version: str | None, name: str = "", requires: Iterable[str] = ()
) -> tuple[list[str], dict[str, str]]:
    """Put ``version``, ``name`` and further dependencies (``requires``) into the copy in
    ``folder``, which keeps its own version if it is None, and its own name if it is empty.
    Returns the copy's build requirements, and variables that its build needs.

    A static ``project.version`` is replaced in the file; a dynamic one is given by
    the variable of setuptools-scm, which hatch-vcs and scikit-build-core heed too.

    Source: PyPA, "pyproject.toml specification"; setuptools-scm, "Overrides".
    """
    path, environment = folder / "pyproject.toml", {}
    try:
        before = path.read_text(encoding="utf-8")
        document = tomlkit.parse(before)
        table = document.unwrap()
        project = files.convert(table["project"], _Project)
        undeclared = project.undeclared(requires)
    except (OSError, ValueError, KeyError) as error:
        raise PipelineError(
            f"The [project] table of the source's pyproject.toml cannot be read: {error}.",
            "It needs at least a name; where the package is in a folder of the repository, "
            "append #subdirectory=FOLDER to the address.",
        ) from error
    if name:
        document["project"]["name"] = name
    if version and project.version:
        document["project"]["version"] = version
    elif version:
        variable = canonicalize_name(name or project.name).replace("-", "_").upper()
        environment[f"SETUPTOOLS_SCM_PRETEND_VERSION_FOR_{variable}"] = version
    if undeclared:
        document["project"].setdefault("dependencies", []).extend(undeclared)
    if (after := tomlkit.dumps(document)) != before:
        path.write_text(after, encoding="utf-8", newline="\n")
    if "build-dir" not in table.get("tool", {}).get("scikit-build", {}):
        # Inside the copy, not in a temporary folder of random name.
        environment["SKBUILD_BUILD_DIR"] = "build"
    return table.get("build-system", {}).get("requires", ["setuptools"]), environment
