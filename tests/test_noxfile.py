"""The sessions whose work is in the noxfile itself."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from tools.core.settings import ROOT

pytest.importorskip("nox")


def coverage(*arguments: str, folder: Path, token: str) -> subprocess.CompletedProcess[str]:
    """``nox -s coverage`` with an uploader that prints its arguments and its token."""
    program = folder / "codecovcli"
    program.write_text('#!/bin/sh\necho "token: $CODECOV_TOKEN, arguments: $@"\n')
    program.chmod(0o755)
    env = {**os.environ, "CODECOV_TOKEN": token, "PATH": f"{folder}:{os.environ['PATH']}"}
    command = [sys.executable, "-m", "nox", "--no-venv", "-s", "coverage", "--", *arguments]
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)


def test_coverage_without_a_token(tmp_path: Path) -> None:
    """Nothing is sent, and the session says why; --dry-run shows what would be run."""
    done = coverage(folder=tmp_path, token="")
    assert done.returncode == 0 and "CODECOV_TOKEN is not set" in done.stderr
    done = coverage("--dry-run", folder=tmp_path, token="token-of-the-test")
    assert done.returncode == 0 and "codecovcli upload-process" in done.stderr
    assert "arguments: " not in done.stdout + done.stderr


@pytest.fixture(scope="module")
def noxfile() -> Iterator[ModuleType]:
    """The noxfile as a module, whose sessions install nothing."""
    spec = importlib.util.spec_from_file_location("noxfile", ROOT / "noxfile.py")
    assert spec is not None and spec.loader is not None
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        patch.setattr(module, "prepare", lambda *_: None)
        yield module


class Session:
    """What a session is told to run; ``failing`` programs fail."""

    def __init__(self, *failing: str) -> None:
        self.posargs: list[str] = []
        self.failing = failing
        self.ran: list[str] = []

    def run(self, program: str, *arguments: str) -> None:
        """Note the command."""
        from nox.command import CommandFailed

        self.ran.append(" ".join([program, *arguments]))
        if program in self.failing:
            raise CommandFailed("it failed")

    def error(self, text: str) -> None:
        """End the session."""
        raise RuntimeError(text)


def test_the_token_is_not_an_argument(
    noxfile: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The uploader reads it from the environment, and is told of this one report."""
    monkeypatch.setenv("CODECOV_TOKEN", "token-of-the-test")
    session = Session()
    noxfile.coverage.func(session)
    assert session.ran[0].startswith("codecovcli upload-process")
    assert "--file=coverage.xml" in session.ran[0] and "token" not in session.ran[0]


def test_audit(noxfile: ModuleType) -> None:
    """One check's findings do not hide another's; all that failed are named."""
    session = Session("pip-audit", "zizmor")
    with pytest.raises(RuntimeError, match="not clean: pip-audit, zizmor"):
        noxfile.audit.func(session)
    programs = [command.split()[0] for command in session.ran]
    assert programs == ["pip-audit", "bandit", "zizmor", "hadolint"]
    assert "--strict" in session.ran[0]  # what cannot be looked up is not clean
    session = Session()
    noxfile.audit.func(session)
    assert len(session.ran) == 4
