"""The stand-ins keep the rules of the actions that they stand for."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.act import STAND_INS, pinned_actions
from tests.services import project

Action = Callable[..., subprocess.CompletedProcess[str]]
UPLOAD = {"if-no-files-found": "error", "retention-days": "1", "compression-level": "6"}
DOWNLOAD = {"name": "", "pattern": "", "merge-multiple": "false"}


@pytest.fixture
def act(tmp_path: Path) -> Action:
    """Run a stand-in in a workspace, with inputs, as the runner does."""
    for name in ("work", "artifacts", "temp"):
        (tmp_path / name).mkdir()

    def run(name: str, inputs: dict[str, str], **env: str) -> subprocess.CompletedProcess[str]:
        variables = {
            **os.environ, "INPUTS": json.dumps(inputs), "RUNNER_TEMP": str(tmp_path / "temp"),
            "E2E_ARTIFACTS": str(tmp_path / "artifacts"), **env,
            **{f"GITHUB_{file}": str(tmp_path / file) for file in ("ENV", "PATH", "OUTPUT")},
        }  # fmt: skip
        return subprocess.run(
            [sys.executable, str(STAND_INS / name / "run.py")], cwd=tmp_path / "work",
            env=variables, capture_output=True, text=True, check=False,
        )  # fmt: skip

    return run


def fill(folder: Path, *names: str) -> None:
    """Files with their own names inside."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)


def files(folder: Path) -> set[str]:
    """The files below a folder."""
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}


PATHS = [
    ("dist/a.whl", {"a.whl"}),  # a single file: its name alone
    ("dist/*.whl", {"a.whl", "b.whl"}),  # below what is before the pattern
    ("dist/*.whl\ndist/wheels.json", {"a.whl", "b.whl", "wheels.json"}),
    ("dist/a.whl\nother/c.txt", {"dist/a.whl", "other/c.txt"}),  # below what they share
    ("dist", {"a.whl", "b.whl", "wheels.json", "sub/d.txt"}),  # hidden files stay
]


@pytest.mark.parametrize(("path", "kept"), PATHS)
def test_what_an_artifact_holds(act: Action, tmp_path: Path, path: str, kept: set[str]) -> None:
    """Files are named below the least common ancestor of the paths."""
    names = ("a.whl", "b.whl", "wheels.json", "sub/d.txt", ".hidden")
    fill(tmp_path / "work/dist", *names)
    fill(tmp_path / "work/other", "c.txt")
    assert act("upload-artifact", {**UPLOAD, "name": "x", "path": path}).returncode == 0
    assert files(tmp_path / "artifacts/x") == kept


def test_a_name_is_taken_once_and_files_must_be_there(act: Action, tmp_path: Path) -> None:
    """A second artifact of a name is a conflict, no file is what is asked for, a name is one."""
    fill(tmp_path / "work", "a.txt")
    inputs = {**UPLOAD, "name": "x", "path": "a.txt"}
    assert act("upload-artifact", inputs).returncode == 0
    assert "Conflict" in act("upload-artifact", inputs).stderr
    nothing = {**UPLOAD, "name": "y", "path": "b.txt"}
    assert "No files were found" in act("upload-artifact", nothing).stderr
    warned = act("upload-artifact", {**nothing, "if-no-files-found": "warn"})
    assert (warned.returncode, "::warning::" in warned.stdout) == (0, True)
    assert act("upload-artifact", {**inputs, "name": "a/b"}).returncode == 1


MATCHES = [
    ({"name": "wheels-linux"}, {"wheels-linux.txt"}),
    ({"pattern": "wheels-*"}, {"wheels-linux/wheels-linux.txt", "wheels-win/wheels-win.txt"}),
    ({"pattern": "wheels-l*"}, {"wheels-linux.txt"}),  # a single match has no folder
    ({"pattern": "wheels-*", "merge-multiple": "true"}, {"wheels-linux.txt", "wheels-win.txt"}),
    ({"pattern": "other-*"}, set()),  # that is no error
]


@pytest.mark.parametrize(("inputs", "there"), MATCHES)
def test_where_artifacts_go(
    act: Action, tmp_path: Path, inputs: dict[str, str], there: set[str]
) -> None:
    """One by its name, several by a pattern."""
    for name in ("wheels-linux", "wheels-win", "summary"):
        fill(tmp_path / "artifacts" / name, f"{name}.txt")
    assert act("download-artifact", {**DOWNLOAD, **inputs, "path": "to"}).returncode == 0
    assert files(tmp_path / "work/to") == there
    missing = act("download-artifact", {**DOWNLOAD, "name": "wheels", "path": "to"})
    assert missing.returncode == 1 and "not found" in missing.stderr


CHECKOUTS = [
    ("refs/heads/main", "1", set(), "1"),
    ("refs/heads/main", "0", {"v0.1.0", "v0.2.0"}, "3"),
    ("refs/tags/v0.2.0", "1", {"v0.2.0"}, "1"),
    ("refs/pull/7/merge", "0", {"v0.1.0", "v0.2.0"}, "3"),
]


@pytest.mark.parametrize(("ref", "depth", "tags", "commits"), CHECKOUTS)
def test_how_deep_a_clone_is(
    act: Action, tmp_path: Path, ref: str, depth: str, tags: set[str], commits: str
) -> None:
    """One commit without other tags, or all of both; origin is GitHub."""
    source = project.Project(tmp_path / "source")
    source.root.mkdir()
    source.git("init", "-q", "-b", "main")
    for number in range(3):
        sha = source.commit(f"change {number}")
        source.git("tag", "-a", f"v0.{number}.0", "-m", "x") if number else None
    env = {"GITHUB_SHA": sha, "GITHUB_REF": ref, "GITHUB_REPOSITORY": "o/n"}
    env |= {"GITHUB_SERVER_URL": "https://github.test", "E2E_REPOSITORY": str(source.root)}
    inputs = {"fetch-depth": depth, "persist-credentials": "false", "submodules": "recursive"}
    done = act("checkout", inputs, **env)
    assert done.returncode == 0, done.stderr
    clone = project.Project(tmp_path / "work")
    assert clone.git("rev-parse", "HEAD") == sha
    assert set(clone.git("tag").split()) == tags
    assert clone.git("rev-list", "--count", "HEAD") == commits
    assert clone.git("remote", "get-url", "origin") == "https://github.test/o/n"
    kept = act("checkout", {**inputs, "persist-credentials": "true"}, **env)
    assert "the token would stay" in kept.stderr


def test_an_input_that_a_stand_in_does_not_know(tmp_path: Path) -> None:
    """It would do something else than the action: that is an error before anything runs."""
    workflows = tmp_path / ".github/workflows"
    workflows.mkdir(parents=True)
    step = {"uses": "actions/checkout@" + "a" * 40, "with": {"fetch-depth": "0"}}
    job = {"jobs": {"a": {"steps": [step, {"run": "true"}, {"uses": "./.github/actions/x"}]}}}
    (workflows / "ci-cd.yml").write_text(json.dumps(job))
    assert pinned_actions(tmp_path) == {step["uses"]: "checkout"}
    step["with"]["sparse-checkout"] = "docs"  # type: ignore[index]
    (workflows / "ci-cd.yml").write_text(json.dumps(job))
    with pytest.raises(AssertionError, match="sparse-checkout"):
        pinned_actions(tmp_path)
