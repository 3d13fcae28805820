"""What wheels are built from: the stand-in, a folder, or a git address.

The source itself is never touched: a copy is built, with the version put into it.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
import tomllib
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

import tomlkit
from packaging.utils import canonicalize_name

from tools.core import process
from tools.core.errors import PipelineError, UsageError
from tools.core.secrets import remember_userinfo
from tools.repo import git

STAND_IN = "package"
ACCEPTED = (
    "a folder with a pyproject.toml, or an address such as "
    "git+https://github.com/mlc-ai/mlc-llm@main"
)
# Left out of a folder that git knows nothing of; the second ones at its top only.
_JUNK = {".git", ".hg", ".nox", ".tox", ".venv", "__pycache__", ".mypy_cache"}
_TOP_JUNK = {"build", "dist"}


@dataclass(frozen=True)
class Source:
    """Where the package comes from.

    Attributes:
        kind: ``stand-in``, ``folder`` or ``git``.
        location: The folder's path, or the address without ``git+``, reference and part.
        ref: Branch, tag or full commit of an address; empty for its default branch.
        subdirectory: Folder of the package inside an address's repository.
    """

    kind: str
    location: str
    ref: str = ""
    subdirectory: str = ""

    @property
    def described(self) -> str:
        """One line for a person."""
        text = f"{self.kind} {self.location}" + (f" at {self.ref}" if self.ref else "")
        return text + (f", folder {self.subdirectory}" if self.subdirectory else "")


def parse_source(text: str, root: Path) -> Source:
    """The source that the setting ``MLC_LLM_SOURCE`` names.

    Args:
        text: The setting; empty for the stand-in.
        root: The checkout, which a relative folder is relative to.

    Raises:
        UsageError: It is neither a folder with a pyproject.toml nor a git address, or
            the address holds a password.

    Source of the address's form: PyPA, "VCS support" of pip.
    """
    if not text:
        return Source("stand-in", str(root / STAND_IN))
    if "://" in text or text.startswith("git+"):
        return _parse_address(text)
    try:
        folder = root / Path(text).expanduser()
    except RuntimeError as error:  # the home of a user that does not exist
        raise UsageError(f"MLC_LLM_SOURCE is {text!r}: {error}", f"Give {ACCEPTED}.") from error
    if not (folder / "pyproject.toml").is_file():
        what = "has no pyproject.toml" if folder.is_dir() else "is no folder"
        raise UsageError(f"MLC_LLM_SOURCE is {text!r}, which {what}.", f"Give {ACCEPTED}.")
    return Source("folder", str(folder.resolve()))


def _parse_address(text: str) -> Source:
    try:
        parts = urlsplit(text)
    except ValueError as error:
        raise UsageError(
            f"MLC_LLM_SOURCE is {text!r}: {error}.", f"Give {ACCEPTED}."
        ) from error
    if parts.password or (parts.username and parts.scheme != "git+ssh"):
        remember_userinfo(text)
        raise UsageError(
            "The address in MLC_LLM_SOURCE holds a name or password.",
            "Leave it out: git's credential helper (git config credential.helper) gives it.",
        )
    path, at, ref = parts.path.rpartition("@")
    path = path if at else ref
    ref = ref if at else ""
    match = re.fullmatch(r"(?:subdirectory=([\w./-]+))?", parts.fragment)
    good_scheme = parts.scheme in {"git+https", "git+ssh", "git+file"}
    good_host = bool(parts.netloc) or parts.scheme == "git+file"
    good_ref = re.fullmatch(r"(?!-)[\w./+-]*", ref) and ".." not in ref
    inside = match and ".." not in PurePosixPath(match.group(1) or "").parts
    if not (good_scheme and good_host and good_ref and inside and path.strip("/")):
        raise UsageError(f"MLC_LLM_SOURCE is {text!r}.", f"Give {ACCEPTED}.")
    location = f"{parts.scheme.removeprefix('git+')}://{parts.netloc}{path}"
    return Source("git", location, ref, (match.group(1) or "").strip("/") if match else "")


@dataclass(frozen=True)
class Tree:
    """A folder that is ready to be copied, and what is known of it."""

    folder: Path
    commit: str = ""
    files: tuple[str, ...] | None = None  # None where git does not know the folder
    untracked: int = 0
    dirty: bool = False


def _remote_ref(source: Source) -> tuple[str, str]:
    """Full name and commit that a remote's reference stands for; name or commit alone.

    Raises:
        PipelineError: The remote cannot be asked or has no such reference.
    """
    wanted = source.ref or "HEAD"
    done = process.run(
        ["git", *_options(source), "ls-remote", "--", source.location],
        env=_env(),
        check=False,
        mask=False,
    )
    if done.code:
        raise _unreachable(source, done)
    known: dict[str, str] = {}
    for line in done.stdout.splitlines():
        commit, _, name = line.partition("\t")
        known[name] = commit
    for name in (wanted, f"refs/tags/{wanted}", f"refs/heads/{wanted}"):
        if name in known:
            return name, known.get(f"{name}^{{}}", known[name])
    if re.fullmatch(r"[0-9a-f]{40}", wanted):
        return "", wanted
    raise PipelineError(
        f"{source.location} has no branch or tag {wanted!r}.",
        "Give a branch, a tag or the full 40 digits of a commit after the @.",
    )


def _env() -> dict[str, str]:
    return dict(os.environ, GIT_TERMINAL_PROMPT="0")


def _options(source: Source) -> list[str]:
    # git refuses submodules at file addresses unless told; whoever names a local
    # repository as the source trusts it.
    return ["-c", "protocol.file.allow=always"] if source.location.startswith("file:") else []


def _unreachable(source: Source, done: process.Done) -> PipelineError:
    tail = "\n".join(done.output.splitlines()[-10:])
    return PipelineError(
        f"git could not fetch {source.location} (exit code {done.code}).",
        "Check the address, and that git may read it without asking (credential helper, key).",
        tail,
    )


def fetch(source: Source, cache: Path) -> Path:
    """A checkout of a git address, submodules included, from the cache if it is there.

    It is made under another name and renamed when complete, so that a checkout in
    the cache is never a half one. Older checkouts of the same address are removed.

    Args:
        source: A source of kind ``git``.
        cache: Folder that keeps checkouts from run to run.

    Returns:
        The folder of the checkout.

    Raises:
        PipelineError: The remote, the reference or a submodule cannot be had.
    """
    name, commit = _remote_ref(source)
    address = hashlib.sha256(source.location.encode()).hexdigest()[:12]
    final = cache / f"{address}-{commit}"
    if final.is_dir():
        return final
    cache.mkdir(parents=True, exist_ok=True)
    for unfinished in cache.glob(".part-*"):  # of a run that was killed; ours has the lock
        shutil.rmtree(unfinished, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=cache, prefix=".part-") as part:
        folder = Path(part) / "checkout"
        _clone(source, name or commit, commit, folder)
        for old in cache.glob(f"{address}-*"):
            shutil.rmtree(old, ignore_errors=True)
        os.replace(folder, final)
    return final


def _clone(source: Source, wanted: str, commit: str, folder: Path) -> None:
    """Check ``commit`` out into ``folder``, with as little history as the server allows."""

    def run(*arguments: str, check: bool = True) -> process.Done:
        command = ["git", *_options(source), "-C", str(folder), *arguments]
        done = process.stream(command, env=_env(), check=False)
        if done.code and check:
            raise _unreachable(source, done)
        return done

    folder.mkdir(parents=True)
    run("init", "--quiet")
    run("remote", "add", "origin", source.location)
    # A server may refuse single commits by their hash; branches and tags it gives.
    if run("fetch", "--quiet", "--depth=1", "origin", wanted, check=False).code:
        run("fetch", "--quiet", "--tags", "origin", "+refs/heads/*:refs/remotes/origin/*")
    run("-c", "advice.detachedHead=false", "checkout", "--quiet", commit)
    update = ("submodule", "update", "--init", "--recursive", "--jobs=4")
    if run(*update, "--depth=1", check=False).code:
        run("submodule", "deinit", "--all", "--force")
        shutil.rmtree(folder / ".git" / "modules", ignore_errors=True)
        run(*update)


def open_tree(source: Source, cache: Path) -> Tree:
    """Fetch the source if it is far away, and find out what belongs to it.

    In a git checkout that is what git tracks, submodules included, with the changes
    of the working tree; so build products and forgotten files never enter a wheel.

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
    files = tuple(name for name in listed.split("\0") if name)
    if "pyproject.toml" not in files:
        return Tree(folder)
    for name in files:
        path = folder / name
        if path.is_dir() and not path.is_symlink():
            raise PipelineError(
                f"The submodule {name} of {folder} is not checked out.",
                f"Run: git -C {folder} submodule update --init --recursive",
            )
    new = git.git(folder, "ls-files", "-z", "--others", "--exclude-standard", check=False)
    status = git.git(
        folder, "status", "--porcelain", "--untracked-files=no", "--", ".", check=False
    )
    commit = git.git(folder, "rev-parse", "HEAD", check=False)
    untracked = len([name for name in new.split("\0") if name])
    return Tree(folder, commit, files, untracked, bool(status))


def copy_tree(tree: Tree, target: Path) -> None:
    """Copy what belongs to the source into the new folder ``target``.

    Raises:
        PipelineError: A file cannot be read.
    """
    try:
        if tree.files is None:
            shutil.copytree(tree.folder, target, symlinks=True, ignore=_ignored(tree.folder))
            return
        for name in tree.files:
            path, copy = tree.folder / name, target / name
            if path.is_symlink() or path.exists():  # else deleted in the working tree
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(path, copy, follow_symlinks=False)
    except (OSError, shutil.Error) as error:
        raise PipelineError(f"The source {tree.folder} cannot be copied: {error}.") from error


def _ignored(top: Path) -> Any:
    def choose(folder: str, names: list[str]) -> set[str]:
        junk = _JUNK | (_TOP_JUNK if Path(folder) == top else set())
        return {name for name in names if name in junk or name.endswith(".egg-info")}

    return choose


@dataclass(frozen=True)
class Project:
    """What a pyproject.toml says of how it is built.

    Attributes:
        name: Name of the distribution, as written.
        requires: Build requirements.
        static: Whether its version stood in the file (and has been replaced).
        build_dir: Whether it sets scikit-build-core's ``build-dir`` itself.
        environment: Variables that give a dynamic version.
    """

    name: str
    requires: tuple[str, ...] = ()
    static: bool = False
    build_dir: bool = False
    environment: dict[str, str] = field(default_factory=dict)


def put_version(folder: Path, version: str) -> Project:
    """Make the copy in ``folder`` build as ``version``.

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
    static = "version" in table["project"]
    if static:
        document = tomlkit.parse(text)
        document["project"]["version"] = version
        path.write_text(tomlkit.dumps(document), encoding="utf-8", newline="\n")
    variable = canonicalize_name(name).replace("-", "_").upper()
    build = table.get("build-system", {})
    return Project(
        name=name,
        requires=tuple(build.get("requires", ["setuptools"])),
        static=static,
        build_dir="build-dir" in table.get("tool", {}).get("scikit-build", {}),
        environment={f"SETUPTOOLS_SCM_PRETEND_VERSION_FOR_{variable}": version},
    )
