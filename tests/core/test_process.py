"""Running other programs, for real."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock, Timeout

from tools.core import console, process
from tools.core.errors import PipelineError
from tools.core.secrets import Secret
from tools.core.settings import ROOT

TOKEN = "process-test-token"


def python(code: str) -> list[str]:
    """A command that runs a bit of Python."""
    return [sys.executable, "-c", textwrap.dedent(code)]


# A child that starts a grandchild, which ignores SIGTERM, and prints both ids.
TREE = """
    import os, signal, subprocess, sys, time
    code = "import signal,time;signal.signal(signal.SIGTERM,signal.SIG_IGN);print(1,flush=True);time.sleep(600)"
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    child.stdout.readline()
    open(sys.argv[1] if len(sys.argv) > 1 else os.environ["IDS"], "w").write(f"{os.getpid()} {child.pid}")
    print("ready", flush=True)
    time.sleep(600)
"""


def ended(pid: int) -> bool:
    """Whether a process has ended (a zombie that nobody reaps has)."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return True
    return stat.rsplit(")", 1)[1].split()[0] == "Z"


def gone(pid: int, limit: float = 10.0) -> bool:
    """Whether a process has ended, soon at least."""
    until = time.monotonic() + limit
    while time.monotonic() < until:
        if ended(pid):
            return True
        time.sleep(0.01)
    return False


def test_run_keeps_both_streams() -> None:
    """Output, errors and the exit code are told apart."""
    code = "import sys; print('out'); print('err', file=sys.stderr); sys.exit(3)"
    done = process.run(python(code), check=False)
    assert (done.code, done.stdout, done.stderr) == (3, "out\n", "err\n")
    assert done.output == "out\nerr\n"


def test_run_gives_input() -> None:
    """Secrets go in by standard input, never by the command line."""
    done = process.run(python("print(input()[::-1])"), stdin="abc\n")
    assert done.stdout == "cba\n"


def test_no_input_never_waits() -> None:
    """A program that asks gets an end of file, not our terminal."""
    done = process.run(python("import sys; print(repr(sys.stdin.read()))"))
    assert done.stdout == "''\n"


def test_a_failure_shows_its_end_masked() -> None:
    """The error has the command, the code, and the last lines, without secrets."""
    Secret(TOKEN)
    code = "import sys; [print(n) for n in range(50)]; print(sys.argv[1]); sys.exit(2)"
    with pytest.raises(process.CommandError, match="exit code 2") as caught:
        process.run([*python(code), TOKEN])
    assert "\n49\n***" in caught.value.detail and "\n29\n" not in caught.value.detail
    assert TOKEN not in str(caught.value) + caught.value.detail


def test_a_missing_program_is_named() -> None:
    """The remedy says what to install."""
    for call in (process.run, process.stream):
        with pytest.raises(PipelineError, match="Install no-such-program"):
            call(["no-such-program"])


@pytest.mark.skipif(sys.platform == "win32", reason="process groups")
def test_a_timeout_ends_the_whole_tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also the grandchild that ignores SIGTERM."""
    monkeypatch.setenv("IDS", str(tmp_path / "ids"))
    monkeypatch.setattr(process, "GRACE", 0.5)
    wait = subprocess.Popen.communicate

    def once_started(child: subprocess.Popen[str], *given: Any, **named: Any) -> Any:
        if named.get("timeout"):
            assert child.stdout is not None and child.stdout.readline() == "ready\n"
        return wait(child, *given, **named)

    monkeypatch.setattr(subprocess.Popen, "communicate", once_started)
    with pytest.raises(PipelineError, match="did not end within 0 s"):
        process.run(python(TREE), timeout=0.1)
    assert all(gone(int(pid)) for pid in (tmp_path / "ids").read_text().split())


@pytest.mark.skipif(sys.platform == "win32", reason="process groups")
def test_sigterm_ends_the_whole_tree(tmp_path: Path) -> None:
    """A cancelled job leaves nothing running: SIGTERM to us reaches all we started."""
    ours = f"""
        import sys
        from dataclasses import dataclass
        from tools.core import cli, process
        process.GRACE = 0.5
        sys.exit(cli.main("x", "", dataclass(type("O", (), {{}})), lambda _: process.stream({python(TREE)!r}), []))
    """
    env = dict(os.environ, IDS=str(tmp_path / "ids"))
    child = subprocess.Popen(python(ours), env=env, stderr=subprocess.PIPE, text=True)
    assert child.stderr is not None
    assert child.stderr.readline() == "ready\n"
    child.send_signal(signal.SIGTERM)
    assert child.wait(timeout=30) == 130
    child.stderr.close()
    assert all(gone(int(pid)) for pid in (tmp_path / "ids").read_text().split())


WATCHED = """
    import sys
    from filelock import FileLock
    from tools.core import process
    from tools.core.janitor import Janitor
    held = []
    with FileLock(sys.argv[1], on_acquired=held.append):
        with Janitor(keep_open=held) as janitor, process.watched_by(janitor, held):
            process.run([sys.executable, "-c", sys.argv[2]], check=False)
            process.stream([sys.executable, "-c", sys.argv[3], sys.argv[4]])
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no descriptor is inherited there")
def test_sigkill_ends_the_whole_tree_before_the_lock_is_free(tmp_path: Path) -> None:
    """Who has the lock after a kill finds nothing of the killed work alive: an orphan would
    write into, and clean up, what is now somebody else's.
    """
    lock, ids = tmp_path / "lock", tmp_path / "ids"
    arguments = [str(lock), "pass", textwrap.dedent(TREE), str(ids)]
    child = subprocess.Popen(
        [*python(WATCHED), *arguments], stderr=subprocess.PIPE, text=True, cwd=ROOT
    )
    assert child.stderr is not None
    assert child.stderr.readline() == "ready\n"
    with pytest.raises(Timeout):
        FileLock(lock, timeout=0).acquire()
    child.kill()
    child.wait()
    child.stderr.close()
    with FileLock(lock, timeout=30):
        assert [ended(int(pid)) for pid in ids.read_text().split()] == [True, True]


def test_stream_shows_lines_as_they_come_masked() -> None:
    """Both streams, each line masked, the last ones kept."""
    Secret(TOKEN)
    seen: list[str] = []
    code = f"import sys; print('{TOKEN}'); print('x', file=sys.stderr)"
    done = process.stream(python(code), show=seen.append)
    assert sorted(seen) == ["***", "x"]
    assert (done.stdout, done.stderr) == ("***\n", "x\n")


def test_stream_keeps_the_last_lines_only() -> None:
    """A long build does not fill our memory."""
    done = process.stream(
        python("for n in range(1000): print(n)"), show=lambda line: None, keep=3
    )
    assert done.stdout == "997\n998\n999\n"


def test_commands_are_shown_on_demand(capsys: pytest.CaptureFixture[str]) -> None:
    """--debug prints each command, masked and quoted as one would type it."""
    Secret(TOKEN)
    console.debug()
    try:
        process.run([*python("pass"), TOKEN, "a b"])
    finally:
        console.debug(False)
    shown = capsys.readouterr().err
    assert shown.startswith("$ ") and "*** 'a b'" in shown


def test_together_runs_at_the_same_time(tmp_path: Path) -> None:
    """Each waits for what the other writes: one after another neither would end."""
    code = """
        import pathlib, sys, time
        mine, other = map(pathlib.Path, sys.argv[1:])
        mine.touch()
        while not other.exists(): time.sleep(0.01)
        print(mine.name)
    """
    one, two = str(tmp_path / "one"), str(tmp_path / "two")
    done = process.together(
        {"a": [*python(code), one, two], "b": [*python(code), two, one]}, cwd=tmp_path
    )
    assert {name: left.stdout for name, left in done.items()} == {"a": "one\n", "b": "two\n"}


def test_together_ends_the_others_once_one_is_enough() -> None:
    """The slow one is ended, and missing from the result."""
    sleepy = python("import time; time.sleep(600)")
    commands = {"slow": sleepy, "quick": python("raise SystemExit(4)")}
    done = process.together(commands, enough=lambda _name, left: left.code == 4)
    assert list(done) == ["quick"]


def test_together_without_one_program() -> None:
    """A missing program is an error; the others do not stay behind."""
    commands = {"slow": python("import time; time.sleep(600)"), "none": ["no-such-program"]}
    with pytest.raises(PipelineError, match="Install no-such-program"):
        process.together(commands)
