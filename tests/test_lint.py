"""The session lint: the real linters on small projects with one fault each."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tools import lint
from tools.core.process import Done
from tools.core.settings import ROOT
from tools.linters import first_changes, linters, read_black, read_mypy, yaml_line

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


@pytest.fixture(scope="module")
def mypy_memory(tmp_path_factory: pytest.TempPathFactory) -> str:
    """mypy reads the standard library's stubs once for all tests."""
    return str(tmp_path_factory.mktemp("mypy"))


@pytest.fixture
def project(tmp_path: Path, mypy_memory: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small git checkout with this project's own linter settings, all clean."""
    monkeypatch.setenv("MYPY_CACHE_DIR", mypy_memory)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    (tmp_path / "tools").mkdir()
    (tmp_path / "tools" / "good.py").write_text(GOOD)
    (tmp_path / ".gitignore").write_text(".nox/\n.mypy_cache/\nignored/\n")
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    return tmp_path


def run(root: Path, monkeypatch: pytest.MonkeyPatch, **options: bool) -> int:
    """The session in ``root``; its exit code."""
    monkeypatch.chdir(root)
    monkeypatch.delenv("CI", raising=False)
    given = dict.fromkeys(("fix", "all", "json", "dry_run"), False) | options
    return lint.work(argparse.Namespace(**given), root)


def findings(capsys: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    """What ``--json`` printed."""
    found = json.loads(capsys.readouterr().out)
    assert isinstance(found, list)
    return found


def test_a_clean_project(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 0; the folders that are missing are named, and no error."""
    assert run(project, monkeypatch) == 0
    err = capsys.readouterr().err
    assert "left out, as it is not there: package" in err
    assert "left out, as it is not there: tools" not in err


FAULTS = [
    # tool, path, text, line, code
    ("flake8", "tools/bad.py", '"""M."""\n\nimport os\n', 3, "F401"),
    ("mypy", "tools/bad.py", '"""M."""\n\n\ndef f(a):  # noqa: D103\n    return a\n', 4, "no-untyped-def"),
    ("black", "tools/bad.py", '"""M."""\n\nA = 1\nB = [1,2]\n', 4, ""),
    ("isort", "tools/bad.py", '"""M."""\n\nimport sys\nimport os\n\nA = (os, sys)\n', 3, ""),
    ("hadolint", "Dockerfile", "FROM scratch\nRUN cd /x\n", 2, "DL3003"),
    (
        "workflow schema", ".github/workflows/a.yml",
        WORKFLOW.replace("runs-on", "runs_on"), 8, "$.jobs.a",
    ),
    (
        "zizmor", ".github/workflows/a.yml",
        WORKFLOW.replace("hello", "${{ github.event.issue.title }}"), 12, "template-injection",
    ),
    ("dependabot schema", ".github/dependabot.yml", "version: 2\nupdates: 3\n", 2, "$.updates"),
]  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS, ids=[fault[0] for fault in FAULTS])
def test_each_linter_finds_its_fault(
    fault: tuple[str, str, str, int, str], project: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """On the right line, by the right linter; exit code 1."""
    tool, path, text, line, code = fault
    (project / path).parent.mkdir(parents=True, exist_ok=True)
    (project / path).write_text(text)
    only = [linter for linter in linters() if linter.name == tool]
    monkeypatch.setattr(lint, "linters", lambda: only)
    assert run(project, monkeypatch, json=True) == 1
    first = findings(capsys)[0]
    assert (first["path"], first["line"], first["code"]) == (path, line, code)


def test_clean_workflow(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The workflow that the faults above are made of has none of its own."""
    path = project / ".github" / "workflows" / "a.yml"
    path.parent.mkdir(parents=True)
    path.write_text(WORKFLOW)
    assert run(project, monkeypatch) == 0


def test_all_findings_of_all_tools_are_shown(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One linter's finding does not hide another's."""
    (project / "tools" / "bad.py").write_text(
        '"""M."""\n\nimport os\n\n\ndef f(a):\n    return undefined\n'
    )
    (project / "Dockerfile").write_text("FROM scratch\nRUN cd /x\n")
    assert run(project, monkeypatch, json=True) == 1
    found = {(item["tool"], item["code"]) for item in findings(capsys)}
    wanted = {("flake8", "F401"), ("flake8", "F821"), ("mypy", "no-untyped-def")}
    assert wanted | {("mypy", "name-defined"), ("hadolint", "DL3003")} <= found


def test_a_formatting_failure_ends_the_others(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The others' findings would move: they are ended, and said to be."""
    (project / "tools" / "bad.py").write_text('"""M."""\nimport sys\nimport os\n')
    wrapped = [
        lint.dataclasses.replace(linter, command=_sleep) if linter.name == "mypy" else linter
        for linter in linters()
    ]
    monkeypatch.setattr(lint, "linters", lambda: wrapped)
    assert run(project, monkeypatch) == 1
    err = capsys.readouterr().err
    assert "ended: the formatting comes first" in err
    assert "nox -s lint -- --fix" in err


def _sleep(_files: object) -> list[str]:
    """A linter that would take ten minutes."""
    return [lint.sys.executable, "-c", "import time; time.sleep(600)"]


def test_fix(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """--fix sorts and formats, and leaves nothing for the check to find."""
    bad = project / "tools" / "bad.py"
    bad.write_text('"""M."""\nimport sys\nimport os\nA = [os,sys]\n')
    assert run(project, monkeypatch, fix=True) == 0
    assert bad.read_text() == '"""M."""\n\nimport os\nimport sys\n\nA = [os, sys]\n'


def test_annotations(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On Actions each finding is put on its line."""
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    (project / "tools" / "bad.py").write_text('"""M."""\n\nimport os\n')
    run(project, monkeypatch)
    wanted = "::error file=tools/bad.py,line=3,col=1,title=flake8 F401::"
    assert wanted in capsys.readouterr().err


def looked_at(root: Path) -> dict[str, tuple[str, ...]]:
    """What each linter would look at now."""
    tasks = lint.plan(root, ["tools"], lint.recall(root), linters())
    return {task.linter.name: task.look_at for task in tasks}


def test_what_was_clean_is_remembered(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only what has changed is looked at again; a change of settings is one of all."""
    (project / "Dockerfile").write_text("FROM scratch\n")
    assert run(project, monkeypatch) == 0
    assert not any(looked_at(project).values())
    (project / "tools" / "new.py").write_text(GOOD)
    now = looked_at(project)
    assert now["flake8"] == ("tools/new.py",) and now["mypy"] == ("tools",)
    assert now["hadolint"] == ()
    (project / ".hadolint.yaml").write_text("ignored: []\n")
    assert all(looked_at(project).values())


def test_a_fault_is_never_remembered_as_clean(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However often one asks, and next to files that are clean."""
    (project / "tools" / "bad.py").write_text('"""M."""\n\nimport os\n\nA: str = 1\n')
    assert run(project, monkeypatch) == 1
    now = looked_at(project)
    assert now["flake8"] == ("tools/bad.py",) and now["mypy"] == ("tools",)
    assert run(project, monkeypatch) == 1


def test_ci_does_not_trust_the_memory(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With CI set, or --all, everything is looked at."""
    assert run(project, monkeypatch) == 0
    assert run(project, monkeypatch, all=True) == 0
    assert "unchanged" not in capsys.readouterr().err
    monkeypatch.setenv("CI", "true")
    monkeypatch.chdir(project)
    options = dict.fromkeys(("fix", "all", "json", "dry_run"), False)
    assert lint.work(argparse.Namespace(**options), project) == 0
    assert "unchanged" not in capsys.readouterr().err


@pytest.mark.parametrize("text", ["", "{", "[1]", "3", '{"a": 1}', "null"])
def test_a_broken_memory_is_no_memory(project: Path, text: str) -> None:
    """A file cut short by a full disk makes all look again, no more."""
    path = project / lint.MEMORY
    path.parent.mkdir(parents=True)
    path.write_text(text)
    assert all(looked_at(project).values())


def test_files(project: Path) -> None:
    """What git ignores is not linted; what is new and not yet added is."""
    for name in ("tools/ignored/a.py", "tools/new.py", "tools/stub.pyi", "other/b.py"):
        (project / name).parent.mkdir(exist_ok=True)
        (project / name).write_text("")
    found = lint.python_files(project, ["tools"])
    assert found == ["tools/good.py", "tools/new.py", "tools/stub.pyi"]


def test_files_without_git(tmp_path: Path) -> None:
    """An unpacked archive is linted as well."""
    (tmp_path / "tools").mkdir()
    (tmp_path / "tools" / "a.py").write_text("")
    (tmp_path / "noxfile.py").write_text("")
    assert lint.python_files(tmp_path, ["noxfile.py", "tools"]) == ["noxfile.py", "tools/a.py"]


def test_a_crash_is_a_finding(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A linter that cannot even start its work never passes for content."""
    task = next(t for t in lint.plan(project, ["tools"], frozenset(), linters()))
    found = lint.read(project, task, Done(3, "", "Traceback\nboom\n"))
    assert [str(f) for f in found] == ["exit code 3: Traceback / boom"]
    outcome = lint.Outcome(task, Done(3, "", ""), found)
    lint.remember(project, [outcome], frozenset())
    assert lint.recall(project) == frozenset()


def test_dry_run_runs_nothing(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """--dry-run says what would be looked at, and finds nothing."""
    (project / "tools" / "bad.py").write_text("import os\n")
    assert run(project, monkeypatch, dry_run=True) == 0
    assert "tools/bad.py" in capsys.readouterr().err
    assert not (project / lint.MEMORY).exists()


def test_syntax_error_has_its_line() -> None:
    """black's two ways to say that it cannot read a file."""
    text = "error: cannot parse: a b.py:1:6\n    x = (1\n"
    text += "error: cannot format c.py: Cannot parse for target version Python 3.11: 3:8: x\n"
    found = read_black(Done(123, "", text))
    assert [(f.path, f.line, f.column) for f in found] == [("a b.py", 1, 6), ("c.py", 0, 0)]


def test_mypy_notes_are_notices() -> None:
    """A note explains an error; it is none."""
    item = {"file": "a.py", "line": 1, "column": 0, "message": "m", "hint": None, "code": None}
    text = json.dumps(item | {"severity": "note"}) + "\nFound 1 error\n"
    assert [f.level for f in read_mypy(Done(1, text, ""))] == ["notice"]


def test_first_changes() -> None:
    """The first changed line of each file, counted in the file as it is."""
    text = (
        "--- a.py\t2026\n+++ a.py\t2026\n@@ -10,3 +10,3 @@\n x\n y\n-z\n+w\n"
        "--- /p/b.py:before\t2026\n+++ /p/b.py:after\t2026\n@@ -1,2 +1,3 @@\n+new\n a\n"
    )
    assert first_changes(text) == {"a.py": 12, "/p/b.py": 1}


@pytest.mark.parametrize(
    ("path", "line"),
    [("$", 1), ("$.a", 1), ("$.a.c[1]", 4), ("$.a.none", 1), ("$.a.c[9]", 2), ("$.d", 5)],
)
def test_yaml_line(path: str, line: int) -> None:
    """The deepest part of a path that is there."""
    text = "a:\n  c:\n    - 1\n    - 2\nd: 3\n"
    assert yaml_line(text, path) == line


def test_yaml_line_of_no_yaml() -> None:
    """What cannot be read has no lines."""
    assert yaml_line("a: [", "$.a") == 0


def test_this_project_lints_clean() -> None:
    """The formatters and flake8 agree with each other on the project's own settings.

    ``nox -s lint`` itself shows the rest; here one file that uses what they differ on.
    """
    text = '"""M."""\n\nA = [1, 2, 3]\nB = A[len(A) - 1 :]\n\n\ndef f() -> None: ...\n'
    for command in (["black", "--check", "-"], ["isort", "--check", "-"], ["flake8", "-"]):
        done = subprocess.run(
            [lint.sys.executable, "-m", *command],
            input=text, text=True, capture_output=True, cwd=ROOT, env=dict(os.environ),
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
