"""The session lint: the real linters on small projects with one fault each."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tools import lint
from tools.core.settings import ROOT

GOOD = '"""A module."""\n\nANSWER = 42\n'
WORKFLOW = """\
name: x
on: push
permissions: {}
concurrency:
  group: x
  cancel-in-progress: true
jobs:
  a:
    name: a
    runs-on: ubuntu-latest
    steps:
      - run: echo hello
"""
Output = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def mypy_cache(tmp_path_factory: pytest.TempPathFactory) -> str:
    """mypy reads the standard library's stubs once for all tests."""
    return str(tmp_path_factory.mktemp("mypy"))


@pytest.fixture
def project(tmp_path: Path, mypy_cache: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small git checkout with this project's own linter settings, all clean."""
    settings = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    (tmp_path / "pyproject.toml").write_text(settings.replace("exhaustive = true\n", ""))
    for room in ("core", "repo", "github", "images"):
        write(tmp_path / "tools" / room / "__init__.py", GOOD)
    for room in (
        "doctor",
        "wheels",
        "release",
        "cleanup",
        "workflow",
        "runs",
        "registry",
        "lint",
    ):
        write(tmp_path / "tools" / f"{room}.py", GOOD)
    write(tmp_path / "tools" / "__init__.py", "")
    write(tmp_path / ".gitignore", ".nox/\n.mypy_cache/\nignored/\n")
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    monkeypatch.setenv("MYPY_CACHE_DIR", mypy_cache)
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setattr(lint, "ROOT", tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(path: Path, text: str) -> None:
    """A file, its folder included."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_a_clean_project(project: Path, capsys: Output) -> None:
    """All linters are content; folders that do not exist are named, and no error."""
    write(project / ".github/workflows/a.yml", WORKFLOW)
    write(project / "Dockerfile", "FROM scratch\n")
    write(project / "tools/ignored/bad.py", "import os\n")
    assert lint.main([]) == 0
    err = capsys.readouterr().err
    assert re.search("left out, as they do not exist: .*package", err)
    for name in ("black", "isort", "flake8", "mypy", "hadolint", "workflows", "zizmor"):
        assert f"{name}: clean" in err
    assert "import-linter: clean" in err and "dependabot" not in err


FAULTS = [
    # linter, path, text, line (0: the linter names none), and what it says
    ("black", "tools/bad.py", '"""M."""\n\nB = [1,2]\n', 0, "would reformat"),
    ("black", "tools/bad.py", "x = (1\n", 1, "cannot parse"),
    ("isort", "tools/bad.py", '"""M."""\n\nimport sys\nimport os\n', 0, "incorrectly sorted"),
    ("flake8", "tools/bad.py", '"""M."""\n\nimport os\n', 3, "'os' imported but unused"),
    ("mypy", "tools/bad.py", '"""M."""\n\nA: str = 1\n', 3, "Incompatible types"),
    ("hadolint", "Dockerfile", "FROM scratch\nRUN cd /x\n", 2, "Use WORKDIR"),
    ("workflows", ".github/workflows/a.yml", WORKFLOW.replace("runs-", "runs_"), 0, "not valid"),
    ("dependabot", ".github/dependabot.yml", "version: 2\nupdates: 3\n", 0, "not of type"),
    (
        "zizmor", ".github/workflows/a.yml",
        WORKFLOW.replace("hello", "${{ github.event.issue.title }}"), 12, "code injection",
    ),
]  # fmt: skip


def annotations(output: str) -> list[dict[str, str]]:
    """What the problem matchers make of the output, as the runner does.

    Source: actions/runner, "Problem Matchers": the patterns of a matcher match lines that
    follow each other, and each sets what its groups name; colours are taken out before.
    """
    lines = re.sub(r"\x1b\[[\d;]*m", "", output).splitlines()
    matchers = json.loads((ROOT / ".github/problem-matchers.json").read_text())
    found = []
    for matcher in matchers["problemMatcher"]:
        patterns = matcher["pattern"]
        for start in range(len(lines) - len(patterns) + 1):
            values = {"severity": matcher.get("severity", "error"), "owner": matcher["owner"]}
            for pattern, line in zip(patterns, lines[start:], strict=False):
                match = re.search(pattern["regexp"], line)
                if match is None:
                    break
                groups = {k: match[v] for k, v in pattern.items() if k != "regexp"}
                values.update({k: v for k, v in groups.items() if v})
            else:
                found.append(values)
    return found


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: str(fault[0]))
def test_each_linter_finds_its_fault(
    fault: tuple[str, str, str, int, str], project: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: Output,
) -> None:  # fmt: skip
    """Shown, with exit code 1; on Actions the line becomes an annotation of that file."""
    name, path, text, line, says = fault
    write(project / path, text)
    only = tuple(linter for linter in lint.LINTERS if linter[0] == name)
    monkeypatch.setattr(lint, "LINTERS", only)
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    assert lint.main([]) == 1
    output = capsys.readouterr().err
    assert "::add-matcher::.github/problem-matchers.json" in output
    first = next(found for found in annotations(output) if says in found["message"])
    assert Path(first["file"]).resolve() == (project / path).resolve()
    assert int(first.get("line", 0)) == line
    assert first["severity"] in {"error", "warning"}


UP_OR_ASIDE = {
    "core/x": "repo", "repo/x": "github", "github/x": "images", "registry": "github",
    "wheels": "images", "cleanup": "images.engine", "images/x": "doctor",
}  # fmt: skip


def test_imports_that_go_up_or_aside(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    """import-linter holds the direction of imports between the rooms."""
    only = tuple(linter for linter in lint.LINTERS if linter[0] == "import-linter")
    monkeypatch.setattr(lint, "LINTERS", only)
    for module in ("engine", "record"):
        write(project / f"tools/images/{module}.py", GOOD)
    write(project / "tools/release.py", "from tools.images import record\n")
    assert lint.main([]) == 0
    for importer, imported in UP_OR_ASIDE.items():
        write(project / f"tools/{importer}.py", f"import tools.{imported}\n")
    assert lint.main([]) == 1
    shown = capsys.readouterr().err
    for importer, imported in UP_OR_ASIDE.items():
        assert f"tools.{importer.replace('/', '.')} -> tools.{imported}" in shown


def test_a_fault_in_the_formatting_ends_the_others(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    """Their findings would stand on lines that move; --fix is named, and corrects it."""
    bad = project / "tools/bad.py"
    bad.write_text('"""M."""\nimport sys\nimport os\nA = [os,sys]\n')
    slow = ("slow", "sleep", ("600",))
    (project / "600").write_text("")
    with monkeypatch.context() as patch:
        patch.setattr(lint, "LINTERS", (lint.LINTERS[0], slow))
        assert lint.main([]) == 1
    err = capsys.readouterr().err
    assert "slow: not finished" in err and "nox -s lint -- --fix" in err
    assert lint.main(["--fix"]) == 0
    assert bad.read_text() == '"""M."""\n\nimport os\nimport sys\n\nA = [os, sys]\n'


def test_all_findings_are_shown(project: Path, capsys: Output) -> None:
    """One linter's finding does not hide another's, and a fault is found again."""
    write(project / "tools/bad.py", '"""M."""\n\nimport os\n\nA: str = 1\n')
    for _ in range(2):
        assert lint.main([]) == 1
        err = capsys.readouterr().err
        assert "F401" in err and "Incompatible types" in err
        assert "Not clean: flake8, mypy." in err


def test_nothing_has_changed(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    """What was clean is not looked at again until a file, a setting or a package changes."""
    monkeypatch.setattr(lint, "LINTERS", (("quick", "echo", lint.PYTHON),))

    def looks(*options: str) -> bool:
        assert lint.main([*options]) == 0
        return "quick: clean" in capsys.readouterr().err

    assert looks() and not looks()
    for name in ("tools/new.py", "new.toml", ".flake8"):
        write(project / name, "")
        assert looks() and not looks()
    shutil.rmtree(project / "tools/images")
    assert looks() and not looks()
    write(project / "site/new-1.0.dist-info", "")
    write(project / ".git/info/exclude", "site\n")
    monkeypatch.syspath_prepend(project / "site")
    assert looks() and not looks()
    assert looks("--all")
    monkeypatch.setenv("LINT_PATHS", "tools")
    assert looks() and not looks()
    monkeypatch.setenv("CI", "true")
    assert looks()
