"""Running other programs, for real."""

import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest
from filelock import FileLock, Timeout

from tools.core import process
from tools.core.errors import PipelineError
from tools.core.secrets import Secret
from tools.core.settings import ROOT

TOKEN = "process-test-token"
posix = pytest.mark.skipif(sys.platform == "win32", reason="sessions of processes")


def python(code: str, *arguments: str) -> list[str]:
    """A command that runs a bit of Python."""
    return [sys.executable, "-c", textwrap.dedent(code), *arguments]


# A child that starts a grandchild, which ignores SIGTERM, and writes both ids.
TREE = """
    import os, signal, subprocess, sys, time
    code = "import signal,time;signal.signal(signal.SIGTERM,signal.SIG_IGN);print(1,flush=True);time.sleep(600)"
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    child.stdout.readline()
    open(sys.argv[1], "w").write(f"{os.getpid()} {child.pid}")
    print("ready", flush=True)
    time.sleep(600)
"""


def ended(ids: Path) -> bool:
    """Whether the processes of a tree have ended (a zombie that nobody reaps has)."""
    for pid in ids.read_text().split():
        stat = Path(f"/proc/{pid}/stat")
        if stat.exists() and stat.read_text().rsplit(")", 1)[1].split()[0] != "Z":
            return False
    return True


def start(code: str, *arguments: str) -> subprocess.Popen[str]:
    """Our code in a process of its own, once what it started is ready."""
    command = python(code, *arguments, textwrap.dedent(TREE))
    child = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=ROOT)
    assert child.stderr is not None and child.stderr.readline() == "ready\n"
    return child


def test_run_keeps_both_streams() -> None:
    """Output, errors and the exit code are told apart; input is given, or is at its end."""
    code = "import sys; print(sys.stdin.read()); print('err', file=sys.stderr); sys.exit(3)"
    done = process.run(python(code), stdin="in", check=False)
    assert (done.code, done.stdout, done.stderr) == (3, "in\n", "err\n")
    assert done.output == "in\nerr\n"
    assert process.run(python(code), check=False).stdout == "\n"
    process.run(python("pass"), stdin="x" * 1_000_000)  # which it does not read


def test_a_failure_shows_its_end_masked() -> None:
    """The error has the command, the code, and the last lines, without secrets."""
    Secret(TOKEN)
    code = "import sys; [print(n) for n in range(50)]; print(sys.argv[1]); sys.exit(2)"
    with pytest.raises(PipelineError, match="exit code 2") as caught:
        process.run(python(code, TOKEN), mask=False)
    assert "\n49\n***" in caught.value.detail and "\n29\n" not in caught.value.detail
    assert TOKEN not in str(caught.value) + caught.value.detail
    assert process.run(python("print(input())"), stdin=TOKEN, mask=False).stdout == f"{TOKEN}\n"


def test_stream_shows_lines_as_they_come_masked() -> None:
    """Both streams, each line masked, and only the last ones kept."""
    Secret(TOKEN)
    seen: list[str] = []
    code = f"import sys; print(1); print(2); print('{TOKEN}'); print('x', file=sys.stderr)"
    done = process.stream(python(code), show=seen.append, keep=2)
    assert sorted(seen) == ["***", "1", "2", "x"]
    assert (done.stdout, done.stderr) == ("2\n***\n", "x\n")


@posix
def test_a_timeout_ends_the_whole_tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also the grandchild that ignores SIGTERM."""
    monkeypatch.setattr(process, "GRACE", 0.3)
    ready, join = threading.Event(), threading.Thread.join

    def once_ready(thread: threading.Thread, timeout: float) -> None:
        assert timeout <= 0.1 and ready.wait(60)
        join(thread, timeout)

    monkeypatch.setattr(threading.Thread, "join", once_ready)
    with pytest.raises(process.TimeLimitError, match="did not end within 0 s"):
        command = python(TREE, str(tmp_path / "ids"))
        process.stream(command, timeout=0.1, show=lambda _line: ready.set())
    assert ended(tmp_path / "ids")


@posix
def test_sigterm_ends_the_whole_tree(tmp_path: Path) -> None:
    """A cancelled job leaves nothing running: SIGTERM to us reaches all we started."""
    ours = """
        import sys
        from dataclasses import make_dataclass
        from tools.core import cli, process
        process.GRACE = 0.3
        work = lambda _: process.stream([sys.executable, "-c", sys.argv[2], sys.argv[1]])
        sys.exit(cli.command("x", "", make_dataclass("O", ()), work)([]))
    """
    child = start(ours, str(tmp_path / "ids"))
    child.send_signal(signal.SIGTERM)
    assert child.wait(timeout=30) == 130
    child.stderr.close()
    assert ended(tmp_path / "ids")


@posix
def test_sigkill_ends_the_whole_tree_before_the_lock_is_free(tmp_path: Path) -> None:
    """Who has the lock after a kill finds nothing of the killed work alive: an orphan would
    write into, and clean up, what is now somebody else's.
    """
    ours = """
        import sys
        from filelock import FileLock
        from tools.core import process
        lock, ids, code = sys.argv[1:]
        held = []
        with FileLock(lock, on_acquired=held.append), process.watched(held):
            process.run([sys.executable, "-c", "pass"])
            process.stream([sys.executable, "-c", code, ids])
    """
    child = start(ours, str(tmp_path / "lock"), str(tmp_path / "ids"))
    with pytest.raises(Timeout):
        FileLock(tmp_path / "lock", timeout=0).acquire()
    child.kill()
    child.wait()
    child.stderr.close()
    with FileLock(tmp_path / "lock", timeout=30):
        assert ended(tmp_path / "ids")


def test_what_is_owed_is_removed(tmp_path: Path) -> None:
    """But not what was said to be gone by itself."""
    with process.watched() as janitor:
        for name in ("owed", "settled"):
            (tmp_path / name).mkdir()
            janitor.owe("folder", str(tmp_path / name))
        janitor.forget("folder", str(tmp_path / "settled"))
    assert [path.name for path in tmp_path.iterdir()] == ["settled"]


def test_together_runs_at_the_same_time(tmp_path: Path) -> None:
    """Each waits for what the other writes: one after another neither would end."""
    code = """
        import pathlib, sys, time
        mine, other = map(pathlib.Path, sys.argv[1:])
        mine.touch()
        while not other.exists(): time.sleep(0.01)
        print(mine.name)
    """
    commands = {"a": python(code, "one", "two"), "b": python(code, "two", "one")}
    done = process.together(commands, cwd=tmp_path)
    assert {name: left.stdout for name, left in done.items()} == {"a": "one\n", "b": "two\n"}


def test_a_missing_program_is_named() -> None:
    """The remedy says what to install; what runs at the same time does not stay behind."""
    commands = {"slow": python("import time; time.sleep(600)"), "none": ["no-such-program"]}
    with pytest.raises(PipelineError, match="Install no-such-program"):
        process.together(commands)
