"""The session ``lint``: all linters at the same time; what they print is shown as it is.

A fault in the formatting ends the others, whose findings would stand on lines that the
formatter moves. On Actions .github/problem-matchers.json makes annotations of the lines.
"""

from __future__ import annotations

import hashlib
import shutil
import sys
import sysconfig
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tools.core import cli, console, files, process
from tools.core.errors import PipelineError
from tools.core.settings import ROOT, load
from tools.repo.git import git

STAMP = Path(".nox/.cache/lint.txt")
Patterns = tuple[str, ...]
PYTHON: Patterns = ("Python files below LINT_PATHS",)
TYPED: Patterns = ("[tool.mypy] files",)
WORKFLOWS, ACTIONS = ".github/workflows/*.y*ml", ".github/actions/*/action.y*ml"
DEPENDABOT = ".github/dependabot.y*ml"
# Name, command, and the files it is given (git's patterns): without any it is left out.
LINTERS: tuple[tuple[str, str, Patterns], ...] = (
    ("black", "black --check", PYTHON),
    ("isort", "isort --check-only --filter-files", PYTHON),
    ("flake8", "flake8", PYTHON),
    ("mypy", "mypy", TYPED),
    ("import-linter", "lint-imports --no-logo --no-cache --config", ("pyproject.toml",)),
    ("hadolint", "hadolint --no-color", ("Dockerfile", "docker/*Dockerfile")),
    ("workflows", "check-jsonschema --builtin-schema vendor.github-workflows", (WORKFLOWS,)),
    ("actions", "check-jsonschema --builtin-schema vendor.github-actions", (ACTIONS,)),
    ("dependabot", "check-jsonschema --builtin-schema vendor.dependabot", (DEPENDABOT,)),
    ("zizmor", "zizmor --offline -q --persona pedantic", (WORKFLOWS, ACTIONS, DEPENDABOT)),
)


@dataclass(frozen=True)
class Options:
    """What the command line asks for."""

    fix: bool = cli.option(False, "let isort and black correct files")
    all: bool = cli.option(False, "lint although nothing has changed")


def files_of(root: Path, *patterns: str) -> list[str]:
    """Files (like ``patterns``, if any) that git tracks or does not ignore, sorted."""
    options = ("--cached", "--others", "--exclude-standard", "-z")
    listed = git(root, "ls-files", *options, "--", *patterns)
    return sorted({name for name in listed.split("\0") if (root / name).is_file()})


def python_files(root: Path, paths: Sequence[str]) -> list[str]:
    """The Python files that are, or are below, one of ``paths``."""
    return [file for file in files_of(root, *paths) if file.endswith((".py", ".pyi"))]


def program(name: str, *words: str) -> list[str]:
    """A command whose program is this environment's, else the PATH's."""
    return [shutil.which(name, path=sysconfig.get_path("scripts")) or name, *words]


def commands(root: Path, python: Sequence[str]) -> dict[str, list[str]]:
    """The command of each linter that has something to look at."""
    mypy = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["mypy"]
    typed = [path for path in mypy["files"] if (root / path).exists()]
    special: dict[Patterns, Sequence[str]] = {PYTHON: python, TYPED: typed}
    selected = {n: special.get(like) or files_of(root, *like) for n, _, like in LINTERS}
    return {n: program(*line.split(), *selected[n]) for n, line, _ in LINTERS if selected[n]}


def fingerprint(root: Path, paths: Sequence[str]) -> str:
    """Digest of all that the verdict depends on: files, settings, installed packages."""
    folders = (Path(entry) for entry in sys.path)
    installed = sorted(info.name for folder in folders for info in folder.glob("*.dist-info"))
    whole = hashlib.sha256(repr((sys.version, installed, list(paths))).encode())
    for name in files_of(root):
        whole.update(f"\0{name}\0{files.sha256(root / name)}".encode())
    return whole.hexdigest()


def lint(root: Path, python: Sequence[str]) -> None:
    """Run all linters; show what those print that are not content (then PipelineError)."""
    if console.on_actions():
        console.say("::add-matcher::.github/problem-matchers.json")
    names = commands(root, python)
    done = process.together(names, cwd=root, enough=lambda n, d: n == "black" and d.code != 0)
    failed = [name for name, ended in done.items() if ended.code]
    for name in failed:
        console.say(f"{name}:\n{done[name].output}")
    for name in names:
        result = "not clean" if name in failed else "clean" if name in done else "not finished"
        console.say(f"{name}: {result}")
    if failed:
        formats = {"black", "isort"} & set(failed)
        remedy = "Run nox -s lint -- --fix." if formats else "See what they print above."
        raise PipelineError(f"Not clean: {', '.join(failed)}.", remedy)


def work(options: Options) -> None:
    """Correct the files if asked to; lint, unless nothing has changed since all was clean."""
    paths = load(root=ROOT).lint_paths
    if missing := [path for path in paths if not (ROOT / path).exists()]:
        console.say(f"left out, as they do not exist: {', '.join(missing)}")
    python = python_files(ROOT, paths)
    for fixer in ("isort -q --filter-files", "black -q") if options.fix and python else ():
        process.stream(program(*fixer.split(), *python), cwd=ROOT)
    stamp, now = ROOT / STAMP, fingerprint(ROOT, paths)
    known = stamp.exists() and stamp.read_text(encoding="utf-8") == now
    # A CI run must not depend on what an earlier one found.
    if known and not options.all and not console.on_ci():
        console.say("nothing has changed since all was clean")
        return
    lint(ROOT, python)
    files.write(stamp, now)


main = cli.command("lint", "Run all linters at the same time.", Options, work)


if __name__ == "__main__":
    sys.exit(main())
