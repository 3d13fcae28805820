"""The linters: what each is asked, and how its answer is read (pure).

Each reads its settings from the project's own files: pyproject.toml for black, flake8
(through flake8-pyproject), isort and mypy, ``.hadolint.yaml``, ``.github/zizmor.yml``.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
import sysconfig
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from tools.core.process import Done

WORKFLOWS = (".github/workflows/*.yml", ".github/workflows/*.yaml")
ACTIONS = (".github/actions/*/action.yml", ".github/actions/*/action.yaml")
DEPENDABOT = (".github/dependabot.yml", ".github/dependabot.yaml")


@dataclass(frozen=True)
class Finding:
    """One thing that a linter found.

    Attributes:
        tool: The linter.
        path: File, relative to the root; empty if it concerns none.
        line: Line, from 1; 0 if unknown.
        column: Column, from 1; 0 if unknown.
        code: The rule, such as ``F401``.
        message: What is wrong.
        level: ``error``, ``warning`` or ``notice``.
    """

    tool: str
    path: str
    line: int
    column: int
    code: str
    message: str
    level: str = "error"

    def __str__(self) -> str:
        place = ":".join(str(part) for part in (self.path, self.line, self.column) if part)
        code = f" [{self.code}]" if self.code else ""
        return f"{place}: {self.message}{code}" if place else f"{self.message}{code}"


@dataclass(frozen=True)
class Linter:
    """One linter.

    Attributes:
        name: What it is called.
        patterns: Globs of the files it looks at; empty for the project's Python files.
        command: The command for the files that are to be looked at.
        read: Its findings in what it printed.
        formats: Whether its failure is one of formatting, which stops everything.
        memory: Whether its verdict hangs on each ``file`` alone, or on ``all`` together.
        typed: Whether it is given the paths of ``[tool.mypy] files`` instead.
    """

    name: str
    command: Callable[[Sequence[str]], list[str]]
    read: Callable[[Done], list[Finding]]
    patterns: tuple[str, ...] = ()
    formats: bool = False
    memory: Literal["file", "all"] = "all"
    typed: bool = False


def _module(name: str, *options: str) -> Callable[[Sequence[str]], list[str]]:
    """A command that runs a Python module on the files."""
    return lambda files: [sys.executable, "-m", name, *options, *files]


def _program(name: str, *options: str) -> Callable[[Sequence[str]], list[str]]:
    """A command that runs a program of this environment, else of the PATH."""
    found = shutil.which(name, path=sysconfig.get_path("scripts")) or name
    return lambda files: [found, *options, *files]


def read_black(done: Done) -> list[Finding]:
    """black's lines: ``would reformat FILE`` and ``error: cannot parse: FILE:LINE:COL``."""
    found = []
    for line in done.stderr.splitlines():
        if match := re.match(r"would reformat (.+)$", line):
            found.append(Finding("black", _relative(match[1]), 0, 0, "", "is not formatted"))
        elif match := re.match(r"error: cannot (?:parse|format): (.+?):(\d+):(\d+)", line):
            place = _relative(match[1]), int(match[2]), int(match[3])
            found.append(Finding("black", *place, "", "cannot be parsed as Python"))
        elif match := re.match(r"error: cannot format (.+?): (.+)$", line):
            found.append(Finding("black", _relative(match[1]), 0, 0, "", match[2]))
    return found


def read_isort(done: Done) -> list[Finding]:
    """isort's lines: ``ERROR: FILE Imports are incorrectly sorted and/or formatted.``"""
    pattern = re.compile(r"ERROR: (.+?) (Imports are incorrectly sorted.*)$", re.MULTILINE)
    message = "imports are not sorted"
    return [
        Finding("isort", _relative(m[1]), 0, 0, "", message)
        for m in pattern.finditer(done.output)
    ]


def read_flake8(done: Done) -> list[Finding]:
    """flake8's default form: ``FILE:LINE:COL: CODE message``."""
    pattern = re.compile(r"^(.+?):(\d+):(\d+): ([A-Z]\w+) (.*)$", re.MULTILINE)
    return [
        Finding("flake8", _relative(m[1]), int(m[2]), int(m[3]), m[4], m[5])
        for m in pattern.finditer(done.stdout)
    ]


def read_mypy(done: Done) -> list[Finding]:
    """mypy's ``--output json``: one object a line; its columns start at 0."""
    found = []
    for line in done.stdout.splitlines():
        if not line.startswith("{"):
            continue
        item = json.loads(line)
        hint = f" ({item['hint']})" if item.get("hint") else ""
        level = "error" if item["severity"] == "error" else "notice"
        place = _relative(item["file"]), max(item["line"], 0), max(item["column"] + 1, 0)
        found.append(Finding("mypy", *place, item["code"] or "", item["message"] + hint, level))
    return found


def read_hadolint(done: Done) -> list[Finding]:
    """hadolint's ``--format json``."""
    levels = {"error": "error", "warning": "warning"}
    return [
        Finding(
            "hadolint", _relative(item["file"]), item["line"], item["column"], item["code"],
            item["message"], levels.get(item["level"], "notice"),
        )
        for item in _json(done.stdout, [])
    ]  # fmt: skip


def read_schema(name: str) -> Callable[[Done], list[Finding]]:
    """check-jsonschema's ``--output-format json``, for the check called ``name``."""

    def read(done: Done) -> list[Finding]:
        answer = _json(done.stdout, {})
        found = []
        for item in answer.get("errors", []):
            best = item.get("best_deep_match") or item.get("best_match") or item
            where = best.get("path", "$")
            found.append(Finding(name, item["filename"], 0, 0, where, best["message"]))
        for item in answer.get("parse_errors", []):
            found.append(Finding(name, item["filename"], 0, 0, "", "is no valid YAML"))
        return found

    return read


def read_zizmor(done: Done) -> list[Finding]:
    """zizmor's ``--format json-v1``; its rows and columns start at 0."""
    found = []
    for item in _json(done.stdout, []):
        if item["ignored"]:
            continue
        primary = [p for p in item["locations"] if p["symbolic"]["kind"] == "Primary"]
        place = (primary or item["locations"])[0]
        start = place["concrete"]["location"]["start_point"]
        local = place["symbolic"]["key"].get("Local", {})
        path = local.get("verbatim_path") or local.get("given_path") or ""
        severe = item["determinations"]["severity"]
        level = {"High": "error", "Medium": "warning"}.get(severe, "notice")
        message = f"{item['desc']}: {place['symbolic']['annotation']}"
        where = _relative(path), start["row"] + 1, start["column"] + 1
        found.append(Finding("zizmor", *where, item["ident"], message, level))
    return found


def _json(text: str, otherwise: Any) -> Any:
    """The JSON document in ``text``; ``otherwise`` where it holds none."""
    try:
        return json.loads(text)
    except ValueError:
        return otherwise


def _relative(path: str) -> str:
    """A path as annotations want it: with slashes, no ``./`` at the start."""
    return path.replace("\\", "/").removeprefix("./")


def first_changes(diff: str) -> dict[str, int]:
    """Line of the first change of each file of a unified diff (black's and isort's).

    Lines are counted in the old file, as that is what the reader has.
    """
    found: dict[str, int] = {}
    path, line = "", 0
    for text in diff.splitlines():
        if match := re.match(r"--- (.+?)(?::before)?\t", text):
            path, line = _relative(match[1]), 0
        elif match := re.match(r"@@ -(\d+)", text):
            line = int(match[1])
        elif line and text.startswith(("-", "+")):
            found.setdefault(path, line)
        elif line:
            line += 1
    return found


def yaml_line(text: str, path: str) -> int:
    """Line, from 1, of what a path such as ``$.jobs.build.steps[0]`` names in YAML.

    0 where the text is no YAML; the deepest part that is there otherwise.
    """
    import yaml  # only the few findings of a schema need it

    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError:
        return 0
    line = 1
    for name, index in re.findall(r"\.([^.\[\]]+)|\[(\d+)\]", path):
        if name and isinstance(node, yaml.MappingNode):
            pairs = [(key, value) for key, value in node.value if key.value == name]
            if not pairs:
                break
            key, node = pairs[0]
            line = key.start_mark.line + 1
        elif index and isinstance(node, yaml.SequenceNode) and int(index) < len(node.value):
            node = node.value[int(index)]
            line = node.start_mark.line + 1
        else:
            break
    return line


def linters() -> list[Linter]:
    """All linters, the formatters first."""
    pedantic = ("--quiet", "--no-progress", "--persona", "pedantic", "--format", "json-v1")
    zizmor = _program("zizmor", "--offline", *pedantic)
    sorting = _module("isort", "--check-only", "--filter-files")
    dockerfiles = ("Dockerfile", "docker/**/Dockerfile", "docker/**/*.Dockerfile")
    made = [
        Linter("black", _module("black", "--check"), read_black, formats=True, memory="file"),
        Linter("isort", sorting, read_isort, formats=True, memory="file"),
        Linter("flake8", _module("flake8"), read_flake8, memory="file"),
        Linter("mypy", _module("mypy", "--output", "json"), read_mypy, typed=True),
        Linter(
            "hadolint", _program("hadolint", "--format", "json"), read_hadolint, dockerfiles
        ),
        Linter("zizmor", zizmor, read_zizmor, (*WORKFLOWS, *ACTIONS, *DEPENDABOT)),
    ]
    kinds = (
        ("workflow schema", "vendor.github-workflows", WORKFLOWS),
        ("action schema", "vendor.github-actions", ACTIONS),
        ("dependabot schema", "vendor.dependabot", DEPENDABOT),
    )
    for name, schema, patterns in kinds:
        options = ("--builtin-schema", schema, "--output-format", "json")
        command = _module("check_jsonschema", *options)
        made.append(Linter(name, command, read_schema(name), patterns))
    return made
