"""The session lint: the real linters on small projects with faults."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tools import lint
from tools.core.settings import ROOT

GOOD = '"""A module."""\n\nANSWER = 42\n'
USER = '"""A module."""\n\nfrom tools.images import record\n\nANSWER = record.ANSWER\n'
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
FILES = ["doctor", "wheels", "release", "cleanup", "workflow", "runs", "registry", "lint"]
FOLDERS = ["core", "repo", "github", "images"]
Output = pytest.CaptureFixture[str]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small git checkout with this project's own linter settings, all clean."""
    settings = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    settings = settings.replace("exhaustive = true\n", "")
    write(
        tmp_path / "pyproject.toml", re.sub("(?m)^files = .*$", 'files = ["tools"]', settings)
    )
    for name in [*FILES, *(f"{folder}/__init__" for folder in FOLDERS)]:
        write(tmp_path / f"tools/{name}.py", GOOD)
    write(tmp_path / "tools/__init__.py", "")
    write(tmp_path / ".gitignore", ".nox/\n.mypy_cache\nignored/\n")
    # mypy reads the standard library's stubs once for all tests.
    (tmp_path.parent / "mypy").mkdir(exist_ok=True)
    (tmp_path / ".mypy_cache").symlink_to(tmp_path.parent / "mypy")
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
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
    write(project / "tools/images/record.py", GOOD)  # data: others may import it
    write(project / "tools/release.py", USER)
    assert lint.main([]) == 0
    err = capsys.readouterr().err
    assert re.search("left out, as they do not exist: .*package", err)
    nothing_to_do = {"actions", "dependabot"}
    assert set(re.findall("^(.*): clean$", err, re.M)) | nothing_to_do == {
        name for name, *_ in lint.LINTERS
    }


SCRIPTED = WORKFLOW.replace("hello", "${{ github.event.issue.title }}")
NEEDY = WORKFLOW.replace("    runs-on", "    needs: [zero]\n    runs-on")
UP_OR_ASIDE = {
    "core/x": "repo", "repo/x": "github", "github/x": "images", "registry": "github",
    "wheels": "images", "cleanup": "images.record2", "images/x": "doctor",
}  # fmt: skip
FAULTS = [
    # path, text, line (0: the linter names none), and what is said
    ("tools/a.py", '"""M."""\n\nB = [1,2]\n', 0, "would reformat"),
    ("tools/b.py", '"""M."""\n\nimport sys\nimport os\n', 0, "incorrectly sorted"),
    ("tools/c.py", '"""M."""\n\nimport os\n', 3, "'os' imported but unused"),
    ("tools/d.py", '"""M."""\n\nA: str = 1\n', 3, "Incompatible types"),
    ("tools/e.py", '"""M."""\n\nimport os\n\nA = os.fork()\n', 5, "no attribute"),
    ("Dockerfile", "FROM scratch\nRUN cd /x\n", 2, "Use WORKDIR"),
    (".github/workflows/a.yml", WORKFLOW.replace("runs-", "runs_"), 0, "not valid"),
    (".github/workflows/b.yml", SCRIPTED, 12, "code injection"),
    (".github/workflows/c.yml", NEEDY, 8, 'needs job "zero"'),
    (".github/dependabot.yml", "version: 2\nupdates: 3\n", 0, "not of type"),
]


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


def assert_annotated(project: Path, output: str, fault: tuple[str, str, int, str]) -> None:
    """An annotation of the fault's file and line says what it is."""
    path, _, line, says = fault
    found = [one for one in annotations(output) if says in one["message"]]
    places = {(Path(one["file"]).resolve(), int(one.get("line", 0))) for one in found}
    assert ((project / path).resolve(), line) in places, fault
    assert {one["severity"] for one in found} <= {"error", "warning"}


def test_all_findings_are_shown(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    """One linter's finding hides no other's; on Actions each becomes an annotation."""
    for path, text, _, _ in FAULTS:
        write(project / path, text)
    write(project / "tools/images/record2.py", GOOD)
    for importer, imported in UP_OR_ASIDE.items():
        write(project / f"tools/{importer}.py", f"import tools.{imported}\n")
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    assert lint.main([]) == 1
    output = capsys.readouterr().err
    assert "::add-matcher::.github/problem-matchers.json" in output
    for fault in FAULTS:
        assert_annotated(project, output, fault)
    for importer, imported in UP_OR_ASIDE.items():
        assert f"tools.{importer.replace('/', '.')} -> tools.{imported}" in output
    assert "nox -s lint -- --fix" in output


def test_fix(project: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output) -> None:
    """--fix corrects what black and isort would change; a fault stays one until then."""
    monkeypatch.setattr(lint, "LINTERS", lint.LINTERS[:2])
    fault = (
        "tools/bad.py",
        '"""M."""\nimport sys\nimport os\nA = [os,(sys\n',
        4,
        "annot parse",
    )
    write(project / fault[0], fault[1])
    assert lint.main([]) == lint.main([]) == 1
    assert_annotated(project, capsys.readouterr().err, fault)
    write(project / fault[0], fault[1].replace("(sys", "sys]"))
    assert lint.main(["--fix"]) == 0
    fixed = '"""M."""\n\nimport os\nimport sys\n\nA = [os, sys]\n'
    assert (project / fault[0]).read_text() == fixed


def test_nothing_has_changed(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    """What was clean is not looked at again until a file, a setting or a package changes."""
    monkeypatch.setattr(lint, "LINTERS", [("quick", "echo", lint.PYTHON)])

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
