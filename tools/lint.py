"""The session ``lint``: all linters at the same time; what they print is shown as it is."""

import hashlib
import shutil
import sys
import sysconfig
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tools.core import cli, console, files, process
from tools.core.errors import PipelineError
from tools.core.settings import ROOT, load
from tools.repo.git import git

STAMP = Path(".nox/.cache/lint.txt")
PYTHON = ["Python files below LINT_PATHS"]
WORKFLOWS, ACTIONS = ".github/workflows/*.y*ml", ".github/actions/*/action.y*ml"
DEPENDABOT = ".github/dependabot.y*ml"
SCHEMA = "check-jsonschema --builtin-schema vendor"
# A POSIX-only call without a guard is an error there.
WINDOWS = "mypy --platform win32 --no-warn-unreachable --cache-dir .mypy_cache/win32"
# Name, command, and the files it is given (git's patterns): without any it is left out.
LINTERS = [
    ("black", "black --check", PYTHON),
    ("isort", "isort --check-only --filter-files", PYTHON),
    ("flake8", "flake8", PYTHON),
    ("mypy", "mypy --config-file", ["pyproject.toml"]),
    ("mypy for Windows", WINDOWS, ["noxfile.py", "tools/*.py"]),
    ("import-linter", "lint-imports --no-logo --no-cache --config", ["pyproject.toml"]),
    ("hadolint", "hadolint --no-color", ["Dockerfile", "docker/*Dockerfile"]),
    ("workflows", f"{SCHEMA}.github-workflows", [WORKFLOWS]),
    ("actions", f"{SCHEMA}.github-actions", [ACTIONS]),
    ("dependabot", f"{SCHEMA}.dependabot", [DEPENDABOT]),
    ("actionlint", "actionlint -no-color -shellcheck= -pyflakes=", [WORKFLOWS]),
    ("zizmor", "zizmor --offline -q --persona pedantic", [WORKFLOWS, ACTIONS, DEPENDABOT]),
]


@dataclass(frozen=True)
class Options:
    """What the command line asks for."""

    fix: bool = cli.option(False, "let isort and black correct files")
    all: bool = cli.option(False, "lint although nothing has changed")


def files_of(*patterns: str) -> list[str]:
    """Files (like ``patterns``, if any) that git tracks or does not ignore, sorted."""
    options = ("--cached", "--others", "--exclude-standard", "-z")
    listed = git(ROOT, "ls-files", *options, "--", *patterns)
    return sorted({name for name in listed.split("\0") if (ROOT / name).is_file()})


def program(line: str, words: Sequence[str]) -> list[str]:
    """A command whose program is this environment's, else the PATH's."""
    name, *options = line.split()
    found = shutil.which(name, path=sysconfig.get_path("scripts")) or name
    return [found, *options, *words]


def fingerprint(paths: Sequence[str]) -> str:
    """Digest of all that the verdict depends on: files, settings, installed packages."""
    folders = (Path(entry) for entry in sys.path)
    installed = sorted(info.name for folder in folders for info in folder.glob("*.dist-info"))
    whole = hashlib.sha256(repr((sys.version, installed, paths)).encode())
    for name in files_of():
        whole.update(f"\0{name}\0{files.sha256(ROOT / name)}".encode())
    return whole.hexdigest()


def lint(python: Sequence[str]) -> None:
    """Run all linters; show what those print that are not content (then PipelineError)."""
    if console.on_actions():  # makes annotations of the linters' lines
        console.say("::add-matcher::.github/problem-matchers.json")
    selected = {
        name: python if like == PYTHON else files_of(*like) for name, _, like in LINTERS
    }
    commands = {n: program(line, selected[n]) for n, line, _ in LINTERS if selected[n]}
    done = process.together(commands, cwd=ROOT)
    for name, one in done.items():
        console.say(f"{name}: not clean\n{one.output}" if one.code else f"{name}: clean")
    if failed := [name for name, one in done.items() if one.code]:
        fix = {"black", "isort"} & set(failed)
        remedy = "Run nox -s lint -- --fix." if fix else "See what they print above."
        raise PipelineError(f"Not clean: {', '.join(failed)}.", remedy)


def work(options: Options) -> None:
    """Correct the files if asked to; lint, unless nothing has changed since all was clean."""
    paths = load(root=ROOT).lint_paths
    if missing := [path for path in paths if not (ROOT / path).exists()]:
        console.say(f"left out, as they do not exist: {', '.join(missing)}")
    python = [file for file in files_of(*paths) if file.endswith(".py")]
    for fixer in ("isort -q --filter-files", "black -q") if options.fix and python else ():
        process.stream(program(fixer, python), cwd=ROOT)
    now, stamp = fingerprint(paths), ROOT / STAMP
    known = stamp.exists() and stamp.read_text(encoding="utf-8") == now
    # A CI run must not depend on what an earlier one found.
    if known and not options.all and not console.on_ci():
        console.say("nothing has changed since all was clean")
        return
    lint(python)
    files.write(stamp, now)


main = cli.command("lint", "Run all linters at the same time.", Options, work)


if __name__ == "__main__":
    sys.exit(main())
