"""The sessions whose work is in the noxfile itself."""

import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator
from types import ModuleType

import pytest

from tools.core.settings import ROOT

pytest.importorskip("nox")


def test_coverage_session() -> None:
    """Without a token nothing is sent, and the session says why; --dry-run shows what would
    be run: no option has the token.
    """
    command = [sys.executable, "-m", "nox", "--no-venv", "-s", "coverage", "--"]
    for token, words, said in (
        ("", [], "CODECOV_TOKEN is not set"),
        ("token-of-the-test", ["--dry-run"], "codecovcli upload-process"),
    ):
        env = {**os.environ, "CODECOV_TOKEN": token}
        done = subprocess.run(
            [*command, *words], cwd=ROOT, env=env, capture_output=True, text=True
        )
        assert done.returncode == 0 and said in done.stderr
        assert "token-of-the-test" not in done.stderr


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


def test_audit(noxfile: ModuleType) -> None:
    """One check's findings do not hide another's; all that failed are named."""
    session = Session("pip-audit", "zizmor")
    with pytest.raises(RuntimeError, match="not clean: pip-audit, zizmor"):
        noxfile.audit.func(session)
    programs = [command.split()[0] for command in session.ran]
    assert programs == ["pip-audit", "bandit", "zizmor", "hadolint"]
    assert "--strict" in session.ran[0]  # what cannot be looked up is not clean
    noxfile.audit.func(Session())
