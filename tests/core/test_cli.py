"""The edge of every command: sentences and exit codes."""

import errno
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from tools.core import cli, console
from tools.core.errors import PipelineError, UsageError
from tools.core.settings import ROOT

Output = pytest.CaptureFixture[str]


@dataclass(frozen=True)
class Options:
    """A command's options."""

    json: bool = cli.option(False, "a result as JSON")
    names: tuple[str, ...] = cli.option((), "names", "--name")
    count: int = cli.option(1, "how many", "-n", "--number", type=cli.count)


def code_of(work: Callable[[Options], int | None], *arguments: str) -> int:
    """The exit code of a command that does ``work``."""
    return cli.command("x", "about", Options, work)(arguments)


def raising(error: BaseException) -> Callable[[Options], int]:
    """Work that ends in an error."""

    def work(_options: Options) -> int:
        raise error

    return work


FULL = OSError(errno.ENOSPC, "No space left on device", "a.whl")


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (PipelineError("It broke.", "Mend it."), 1, "error: It broke.\n  what to do: Mend it."),
        (UsageError("Not so."), 2, "error: Not so."),
        (KeyboardInterrupt(), 130, "interrupted"),
        (FULL, 1, "No space left on device (a.whl)"),
    ],
)
def test_errors_become_sentences(
    capsys: Output, error: BaseException, code: int, said: str
) -> None:
    """No traceback for what a person can mend, and the documented exit codes."""
    assert code_of(raising(error)) == code
    err = capsys.readouterr().err
    assert said in err and "Traceback" not in err


def test_options(capsys: Output) -> None:
    """They are declared once; a wrong one is a sentence like any other, with code 2."""
    seen: list[Options] = []
    assert code_of(seen.append) == 0
    assert code_of(seen.append, "--name", "a", "--name=b", "-n", "3", "--json") == 0
    assert seen == [Options(), Options(True, ("a", "b"), 3)]
    for arguments, said in {
        ("--no-such-option",): "error: Unrecognized arguments: --no-such-option.",
        ("-n", "0"): "error: Argument -n/--number: '0' is not a whole number of at least 1.",
    }.items():
        assert code_of(seen.append, *arguments) == 2
        assert said in capsys.readouterr().err


def test_an_error_is_json_too(capsys: Output) -> None:
    """With --json the error is the one document on stdout, unless a result tells of it."""

    def with_result(_options: Options) -> int:
        console.emit_json("a result")
        raise UsageError("Not so.")

    assert code_of(raising(UsageError("Not so.", "Do this.")), "--json") == 2
    out = json.loads(capsys.readouterr().out)
    assert out == {"error": {"message": "Not so.", "remedy": "Do this."}}
    assert code_of(with_result, "--json") == 2
    assert json.loads(capsys.readouterr().out) == "a result"


def test_debug_ends_with_its_command() -> None:
    """The next command in the same process is quiet again."""
    seen: list[bool] = []
    for arguments in (["--debug"], []):
        code_of(lambda _options: seen.append(console.debugging), *arguments)
    assert seen == [True, False]


def test_a_reader_that_leaves_early() -> None:
    """`... --json | head -1` ends without a traceback."""
    code = """
import sys
from dataclasses import make_dataclass
from tools.core import cli, console
def work(_):
    console.say("go")
    sys.stdin.readline()
    console.emit_json(["x" * 100] * 10000)
sys.exit(cli.command("x", "", make_dataclass("O", ()), work)([]))
"""
    child = subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert child.stdin and child.stdout and child.stderr
    assert child.stderr.readline() == "go\n"
    child.stdout.close()
    _, rest = child.communicate("\n", timeout=30)
    assert child.returncode == 1
    assert "Traceback" not in rest and "Exception ignored" not in rest


def test_every_session_notes_its_duration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each session appends its result and duration to the step summary."""
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "step.md"))
    assert code_of(lambda _options: 3) == 3 and code_of(lambda _options: 0) == 0
    first, second = (tmp_path / "step.md").read_text().split("\n\n")[:2]
    assert re.fullmatch(r"Session `x`: failed with exit code 3 after \d+\.\d s\.", first)
    assert re.fullmatch(r"Session `x`: done after \d+\.\d s\.", second)


NOXFILE = """
import sys, nox
@nox.session(venv_backend="none", allow_parallel=True)
@nox.parametrize("number", [1, 2])
def one(session, number):
    session.run(sys.executable, "command.py", stderr=sys.stderr)
"""
COMMAND = """
import os, sys
from dataclasses import dataclass
from pathlib import Path
from tools.core import cli, process
@dataclass(frozen=True)
class Options: ...
def work(_):
    run = f"echo > {os.getpid()}.$$.pid; exec sleep 300"
    process.run(["sh", "-c", run])
sys.exit(cli.command("x", "about", Options, work)())
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGTERM on Windows")
@pytest.mark.parametrize("parallel", [[], ["--parallel=2"]])
def test_nox_alone_is_stopped(tmp_path: Path, parallel: list[str]) -> None:
    """A SIGTERM that reaches nox alone, or a parallel nox's own parent, ends the commands that
    run in its sessions, and what these have started; also if nobody takes notice of its end.
    """
    (tmp_path / "noxfile.py").write_text(NOXFILE)
    (tmp_path / "command.py").write_text(COMMAND)
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "nox", *parallel]
    nox = subprocess.Popen(command, cwd=tmp_path, env=env, stderr=subprocess.DEVNULL)
    expected, deadline = 2 if parallel else 1, time.monotonic() + 60
    while len(named := list(tmp_path.glob("*.pid"))) < expected:
        assert time.monotonic() < deadline and nox.poll() is None
        time.sleep(0.05)
    pids = [int(pid) for path in named for pid in path.stem.split(".")]
    started = [psutil.Process(pid) for pid in pids]
    nox.terminate()
    _, alive = psutil.wait_procs(started, timeout=30)
    nox.wait()
    assert alive == []
