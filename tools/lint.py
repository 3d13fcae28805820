"""The session ``lint``: all linters at the same time, all their findings shown.

A formatting failure stops at once, as everything else would be found again on the
lines that the formatter moves. What was clean, and has not changed since, is not looked
at again: neither the files, nor the linters' settings, nor any installed package.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import os
import sys
import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tools.core import cli, console
from tools.core.process import Done, stream, together
from tools.core.settings import ROOT, load
from tools.linters import Finding, Linter, first_changes, linters, yaml_line
from tools.repo.git import git

MEMORY = Path(".nox/.cache/lint.json")
# What the linters read their settings from; a change of any makes all look again.
CONFIGURATION = (
    "pyproject.toml",
    "constraints.txt",
    "setup.cfg",
    "tox.ini",
    ".flake8",
    ".isort.cfg",
    ".editorconfig",
    ".hadolint.yaml",
    ".github/zizmor.yml",
    "tools/linters.py",
)


@dataclass(frozen=True)
class Task:
    """What one linter is to do.

    Attributes:
        linter: The linter.
        files: All files it is responsible for.
        look_at: Those it must look at: the others were clean and have not changed.
        keys: The memory's key of each unit (a file, or all files) and its files.
    """

    linter: Linter
    files: tuple[str, ...]
    look_at: tuple[str, ...]
    keys: dict[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """What became of a task; ``done`` is None when it was not run, or was ended."""

    task: Task
    done: Done | None
    findings: tuple[Finding, ...] = ()

    @property
    def failed(self) -> bool:
        """Whether the linter was not content."""
        return self.done is not None and self.done.code != 0


def present(root: Path, paths: Iterable[str]) -> tuple[list[str], list[str]]:
    """Those of ``paths`` that exist below ``root``, and those that do not."""
    wanted = list(paths)
    there = [path for path in wanted if (root / path).exists()]
    return there, [path for path in wanted if path not in there]


def python_files(root: Path, paths: Sequence[str]) -> list[str]:
    """The Python files below ``paths`` that git tracks or does not ignore, sorted."""
    if not paths:
        return []
    options = ("--cached", "--others", "--exclude-standard", "-z")
    listed = git(root, "ls-files", *options, "--", *paths, check=False)
    if not listed:  # no git checkout: an unpacked archive
        found = [file for path in paths for file in _walk(root / path)]
        listed = "\0".join(file.relative_to(root).as_posix() for file in found)
    names = {name for name in listed.split("\0") if name.endswith((".py", ".pyi"))}
    return sorted(name for name in names if (root / name).is_file())


def _walk(path: Path) -> list[Path]:
    return [path] if path.is_file() else sorted(path.rglob("*.py*"))


def typed_paths(root: Path) -> list[str]:
    """Those of the paths in ``[tool.mypy] files`` that exist."""
    table = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    return present(root, table.get("tool", {}).get("mypy", {}).get("files", []))[0]


def _installed() -> list[str]:
    """Name and version of every distribution that can be imported."""
    folders = (Path(entry) for entry in sys.path)
    found = (file.name for folder in folders for file in folder.glob("*.dist-info"))
    return sorted(found)


def fingerprint(root: Path) -> str:
    """Digest of all that a verdict depends on besides the files themselves."""
    digest = hashlib.sha256(sys.version.encode())
    for name in CONFIGURATION:
        path = root / name
        digest.update(f"\0{name}\0".encode() + (path.read_bytes() if path.is_file() else b""))
    # isort takes what lies in the root for the project's own modules.
    names = sorted(path.name for path in root.iterdir() if not path.name.startswith("."))
    names += _installed()
    digest.update("\0".join(names).encode())
    return digest.hexdigest()


def _key(root: Path, base: str, linter: Linter, files: Sequence[str]) -> str:
    digest = hashlib.sha256(f"{base}\0{linter.name}".encode())
    for name in files:
        digest.update(f"\0{name}\0".encode() + (root / name).read_bytes())
    return digest.hexdigest()


def plan(
    root: Path, paths: Sequence[str], clean: frozenset[str], tools: Sequence[Linter]
) -> list[Task]:
    """What each linter has to do; those without any file are left out.

    Args:
        root: The checkout.
        paths: Files and folders whose Python is linted; all exist.
        clean: Keys of what was clean, from :func:`recall`.
        tools: The linters.
    """
    ours = tuple(python_files(root, paths))
    base = fingerprint(root)
    tasks = []
    for linter in tools:
        files = _files(root, linter, ours)
        if not files:
            continue
        keys: dict[str, tuple[str, ...]]
        if linter.memory == "file":
            keys = {_key(root, base, linter, (file,)): (file,) for file in files}
        else:
            # mypy follows imports: its verdict hangs on all of our files.
            keys = {_key(root, base, linter, ours if linter.typed else files): files}
        look_at = tuple(file for key, unit in keys.items() if key not in clean for file in unit)
        tasks.append(Task(linter, files, look_at, keys))
    return tasks


def _files(root: Path, linter: Linter, ours: tuple[str, ...]) -> tuple[str, ...]:
    """What a linter is given: matches of its patterns, mypy's paths, or our Python."""
    if linter.typed:
        return tuple(typed_paths(root))
    if not linter.patterns:
        return ours
    found = {file for pattern in linter.patterns for file in root.glob(pattern)}
    return tuple(sorted(file.relative_to(root).as_posix() for file in found))


def recall(root: Path) -> frozenset[str]:
    """Keys of what was clean when it was last looked at; empty if nothing is known."""
    try:
        return frozenset(json.loads((root / MEMORY).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return frozenset()


def remember(root: Path, outcomes: Iterable[Outcome], clean: frozenset[str]) -> None:
    """Keep what is clean now, and forget what is no longer there."""
    kept: set[str] = set()
    for outcome in outcomes:
        guilty = {finding.path for finding in outcome.findings}
        for key, unit in outcome.task.keys.items():
            if key in clean or _is_clean(outcome, unit, guilty):
                kept.add(key)
    path = root / MEMORY
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_suffix(f".{os.getpid()}")
    new.write_text(json.dumps(sorted(kept)), encoding="utf-8")
    new.replace(path)


def _is_clean(outcome: Outcome, unit: tuple[str, ...], guilty: set[str]) -> bool:
    if outcome.done is None or not outcome.failed:
        return outcome.done is not None
    # Only a finding without a file (a crash) says something about the other files.
    return outcome.task.linter.memory == "file" and guilty.isdisjoint({*unit, ""})


def read(root: Path, task: Task, done: Done) -> tuple[Finding, ...]:
    """The findings of a linter that has ended, their paths relative to ``root``."""
    found = task.linter.read(done)
    if done.code and not found:
        lines = [line for line in done.output.splitlines() if line.strip()][:5]
        said = " / ".join(lines) or "it printed nothing"
        found = [Finding(task.linter.name, "", 0, 0, "", f"exit code {done.code}: {said}")]
    return tuple(dataclasses.replace(f, path=_below(root, f.path)) for f in found)


def _below(root: Path, path: str) -> str:
    if path and Path(path).is_absolute():
        return Path(os.path.relpath(path, root)).as_posix()
    return path


def _locate_changes(root: Path, outcome: Outcome) -> Outcome:
    """A formatter's findings with the line where its first change would be made."""
    files = sorted({finding.path for finding in outcome.findings if finding.path})
    if not files:
        return outcome
    command = [sys.executable, "-m", outcome.task.linter.name, "--diff", *files]
    diff = together({"diff": command}, cwd=root)["diff"].stdout
    lines = {_below(root, path): line for path, line in first_changes(diff).items()}
    placed = (
        dataclasses.replace(f, line=f.line or lines.get(f.path, 0)) for f in outcome.findings
    )
    return dataclasses.replace(outcome, findings=tuple(placed))


def _locate_yaml(root: Path, outcome: Outcome) -> Outcome:
    """A schema's findings, whose rule is a path into the document, with its line."""
    placed = []
    for f in outcome.findings:
        if f.path and f.code.startswith("$"):
            text = (root / f.path).read_text(encoding="utf-8")
            f = dataclasses.replace(f, line=yaml_line(text, f.code))
        placed.append(f)
    return dataclasses.replace(outcome, findings=tuple(placed))


def carry_out(root: Path, tasks: Sequence[Task]) -> list[Outcome]:
    """Run all tasks that have something to look at, at the same time."""
    by_name = {task.linter.name: task for task in tasks}
    commands = {name: t.linter.command(t.look_at) for name, t in by_name.items() if t.look_at}
    ended = together(
        commands,
        cwd=root,
        enough=lambda name, done: by_name[name].linter.formats and done.code != 0,
    )
    outcomes = []
    for name, task in by_name.items():
        done = ended.get(name)
        outcome = Outcome(task, done, read(root, task, done) if done else ())
        locate = _locate_changes if task.linter.formats else _locate_yaml
        outcomes.append(locate(root, outcome))
    return outcomes


def fix(root: Path, files: Sequence[str]) -> None:
    """Let isort, then black, correct the files (black has the last word on layout).

    Raises:
        CommandError: One of them could not, because of a syntax error for example.
    """
    for name, options in (("isort", ["--quiet", "--filter-files"]), ("black", ["--quiet"])):
        stream([sys.executable, "-m", name, *options, *files], cwd=root)


def remark(outcome: Outcome) -> str:
    """What the table says about an outcome."""
    if not outcome.task.look_at:
        return "unchanged since it was clean"
    if outcome.done is None:
        return "ended: the formatting comes first"
    if not outcome.failed:
        return "clean"
    count = len(outcome.findings)
    return f"{count} finding{'s' if count != 1 else ''}"


def report(outcomes: Sequence[Outcome]) -> None:
    """Show all findings, as annotations too, and then one line a linter."""
    for outcome in outcomes:
        for finding in outcome.findings:
            console.say(f"{finding.tool}: {finding}")
            console.annotate(
                finding.level,
                finding.message,
                file=finding.path,
                line=finding.line,
                column=finding.column,
                title=f"{finding.tool} {finding.code}".strip(),
            )
    rows = [
        (
            outcome.task.linter.name,
            f"{len(outcome.task.look_at)} of {len(outcome.task.files)}",
            f"{outcome.done.seconds:.2f}" if outcome.done else "-",
            remark(outcome),
        )
        for outcome in outcomes
    ]
    console.table(("linter", "paths", "seconds", "result"), rows)
    if any(outcome.failed and outcome.task.linter.formats for outcome in outcomes):
        console.say("what to do: nox -s lint -- --fix")


def _as_json(outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    return [dataclasses.asdict(finding) for o in outcomes for finding in o.findings]


def work(given: argparse.Namespace, root: Path = ROOT) -> int:
    """Lint; 1 if a linter was not content."""
    paths, missing = present(root, load(root=root).lint_paths)
    for path in missing:
        console.say(f"left out, as it is not there: {path}")
    if given.fix:
        fix(root, python_files(root, paths))
    # A CI run must not depend on what an earlier one thought.
    clean = frozenset() if given.all or console.on_ci() else recall(root)
    tasks = plan(root, paths, clean, linters())
    if given.dry_run:
        rows = [(t.linter.name, len(t.look_at), " ".join(t.look_at)) for t in tasks]
        console.table(("linter", "paths", "would look at"), rows)
        return 0
    outcomes = carry_out(root, tasks)
    remember(root, outcomes, clean)
    report(outcomes)
    if given.json:
        console.emit_json(_as_json(outcomes))
    return int(any(outcome.failed for outcome in outcomes))


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line of the session."""
    made = cli.parser("lint", __doc__.splitlines()[0] if __doc__ else "")
    made.add_argument("--fix", action="store_true", help="let isort and black correct files")
    made.add_argument("--all", action="store_true", help="look at unchanged files too")
    made.add_argument("--json", action="store_true", help="findings as JSON on stdout")
    made.add_argument("--dry-run", action="store_true", help="say what would be looked at")
    return cli.main(made, argparse.Namespace, work, arguments)


if __name__ == "__main__":
    sys.exit(main())
