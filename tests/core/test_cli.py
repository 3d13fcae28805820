"""The edge of every command: sentences and exit codes."""

from __future__ import annotations

import errno
import json
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tools.core import cli, process
from tools.core.errors import PipelineError, UsageError


@dataclass(frozen=True)
class NoOptions:
    """A command without options of its own."""


@dataclass(frozen=True)
class JsonOption:
    """A command with ``--json``."""

    json: bool = cli.option(False, "a result as JSON")


def code_of(work: object, arguments: tuple[str, ...] = ()) -> int:
    """The exit code of a command that does ``work``."""
    assert callable(work)
    return cli.main("x", "about", NoOptions, work, arguments)


def raising(error: BaseException) -> object:
    """Work that ends in an error."""

    def work(_options: NoOptions) -> int:
        raise error

    return work


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (PipelineError("It broke.", "Mend it."), 1, "error: It broke.\n  what to do: Mend it."),
        (UsageError("Not so."), 2, "error: Not so."),
        (KeyboardInterrupt(), 130, "interrupted"),
        (
            OSError(errno.ENOSPC, "No space left on device", "a.whl"),
            1,
            "No space left on device (a.whl)",
        ),
        (
            PermissionError(errno.EACCES, "Permission denied", "dist"),
            1,
            "Permission denied (dist)",
        ),
    ],
)
def test_errors_become_sentences(
    capsys: pytest.CaptureFixture[str], error: BaseException, code: int, said: str
) -> None:
    """No traceback for what a person can mend, and the documented exit codes."""
    assert code_of(raising(error)) == code
    err = capsys.readouterr().err
    assert said in err and "Traceback" not in err


@pytest.mark.parametrize(("returned", "code"), [(None, 0), (0, 0), (1, 1)])
def test_codes(returned: int | None, code: int) -> None:
    """Work that returns nothing has succeeded."""
    assert code_of(lambda _given: returned) == code


def test_bad_options_exit_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    """As does any wrong usage, in a sentence like any other."""
    assert code_of(lambda _given: 0, ("--no-such-option",)) == 2
    assert "error: Unrecognized arguments: --no-such-option." in capsys.readouterr().err


def test_an_error_is_json_too(capsys: pytest.CaptureFixture[str]) -> None:
    """With --json the error is the one document on stdout."""
    work = raising(UsageError("Not so.", "Do this."))
    assert cli.main("x", "about", JsonOption, work, ["--json"]) == 2  # type: ignore[arg-type]
    out = json.loads(capsys.readouterr().out)
    assert out == {"error": {"message": "Not so.", "remedy": "Do this."}}


@pytest.mark.parametrize("way", ["option", "variable"])
def test_debug(
    way: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """--debug, or a run repeated with debug logging on Actions, shows commands."""
    work = lambda _given: process.run([sys.executable, "-c", "pass"]).code  # noqa: E731
    if way == "variable":
        monkeypatch.setenv("RUNNER_DEBUG", "1")
    code_of(work, ("--debug",) if way == "option" else ())
    assert "$ " in capsys.readouterr().err
    monkeypatch.delenv("RUNNER_DEBUG", raising=False)
    code_of(work)  # and the next command in the same process does not
    assert "$ " not in capsys.readouterr().err


def test_a_reader_that_leaves_early() -> None:
    """`... --json | head -1` ends without a traceback."""
    code = """
import sys
from dataclasses import dataclass
from tools.core import cli, console
def work(_):
    console.say("go")
    sys.stdin.readline()
    console.emit_json(["x" * 100] * 10000)
sys.exit(cli.main("x", "", dataclass(type("O", (), {})), work, []))
"""
    child = subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert child.stdin and child.stdout and child.stderr
    assert child.stderr.readline() == "go\n"
    child.stdout.close()
    child.stdin.write("\n")
    child.stdin.close()
    rest = child.stderr.read()
    child.stderr.close()
    assert child.wait(timeout=30) == 1
    assert "Traceback" not in rest and "Exception ignored" not in rest


def test_every_session_notes_its_duration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each session appends its result and duration to the step summary."""
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "step.md"))
    assert code_of(lambda _given: 3) == 3 and code_of(lambda _given: 0) == 0
    first, second = (tmp_path / "step.md").read_text().split("\n\n")[:2]
    assert re.fullmatch(r"Session `x`: failed with exit code 3 after \d+\.\d s\.", first)
    assert re.fullmatch(r"Session `x`: done after \d+\.\d s\.", second)
