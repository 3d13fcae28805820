"""Running other programs: output masked, the whole process tree ended with us."""

from __future__ import annotations

import contextlib
import os
import queue
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tools.core.console import say
from tools.core.errors import PipelineError
from tools.core.janitor import Janitor
from tools.core.secrets import redact

_show_commands = False
_janitor: Janitor | None = None
_inherited: tuple[int, ...] = ()


def show_commands(on: bool = True) -> None:
    """Print every command that is run (``--debug``), secrets masked."""
    global _show_commands
    _show_commands = on


@contextlib.contextmanager
def watched_by(janitor: Janitor, inherit: Sequence[int] = ()) -> Iterator[None]:
    """What is started inside ends with us, also when we are killed.

    Args:
        janitor: Who ends it.
        inherit: Descriptors that it keeps open (not on Windows): those of a lock say
            that it runs even before the janitor has been told.
    """
    global _janitor, _inherited
    before = _janitor, _inherited
    _janitor = janitor
    _inherited = () if sys.platform == "win32" else tuple(inherit)
    try:
        yield
    finally:
        _janitor, _inherited = before


@dataclass(frozen=True)
class Done:
    """What a program left: its exit code and what it printed, secrets masked (unless
    :func:`run` was told that it is data).

    ``seconds`` is how long it ran, where :func:`together` started it.
    """

    code: int
    stdout: str
    stderr: str
    seconds: float = 0.0

    @property
    def output(self) -> str:
        """Both streams, stdout first."""
        return self.stdout + self.stderr


class TimeLimitError(PipelineError):
    """A program ran out of its time, and was ended."""


class CommandError(PipelineError):
    """A program ended with a code that is not 0; ``done`` is what it left."""

    def __init__(self, command: Sequence[str], done: Done, remedy: str = "") -> None:
        tail = "\n".join(done.output.splitlines()[-20:])
        super().__init__(f"{display(command)} ended with exit code {done.code}.", remedy, tail)
        self.done = done


def display(command: Sequence[str]) -> str:
    """A command as one would type it, secrets masked."""
    return redact(shlex.join(command))


def _end_tree(child: subprocess.Popen[str], limit: float = 10.0) -> None:
    """End a child and all that it started: politely, then not."""
    for polite in (True, False):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if sys.platform == "win32":
                child.terminate()
            else:
                os.killpg(child.pid, signal.SIGTERM if polite else signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(timeout=limit)
            break
    if sys.platform != "win32":
        # What it started may have outlived it, and would keep our pipes open.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, signal.SIGKILL)


@contextlib.contextmanager
def _started(
    command: Sequence[str], env: Mapping[str, str] | None, cwd: Path | None, with_input: bool
) -> Iterator[subprocess.Popen[str]]:
    """Start ``command`` in a group of its own; end the group when we are interrupted."""
    if _show_commands:
        say(f"$ {display(command)}")
    try:
        child = subprocess.Popen(
            list(command),
            stdin=subprocess.PIPE if with_input else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            errors="replace",
            env=dict(env) if env is not None else None,
            cwd=cwd,
            start_new_session=sys.platform != "win32",
            pass_fds=_inherited,
        )
    except FileNotFoundError as error:
        name = Path(command[0]).name
        raise PipelineError(
            f"The program {name} was not found.", f"Install {name} and put it on the PATH."
        ) from error
    janitor = _janitor
    try:
        if janitor is not None:
            janitor.owe("group", str(child.pid))
        yield child
    except BaseException:
        _end_tree(child)
        raise
    finally:
        if janitor is not None:
            janitor.forget("group", str(child.pid))


def run(
    command: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    given: str | None = None,
    check: bool = True,
    timeout: float | None = None,
    mask: bool = True,
) -> Done:
    """Run a program to its end and keep what it prints.

    Args:
        command: Program and arguments; never a shell string.
        env: The whole environment; None for ours.
        cwd: Folder to run in.
        given: Text for its standard input, where secrets belong.
        check: Raise when it ends with another code than 0.
        timeout: Seconds after which it is ended.
        mask: Mask secrets in stdout; False where that is data to work with: an account's
            name, which is masked as well, may stand in a path or an address. That of a
            program that failed is always masked.

    Returns:
        Exit code and both streams.

    Raises:
        CommandError: It ended with another code than 0 (and ``check``).
        TimeLimitError: It ran out of its time.
        PipelineError: The program is missing.
    """
    with _started(command, env, cwd, given is not None) as child:
        try:
            out, err = child.communicate(given, timeout=timeout)
        except subprocess.TimeoutExpired as error:
            _end_tree(child)
            child.communicate()  # closes the pipes
            raise TimeLimitError(
                f"{display(command)} did not end within {timeout:.0f} s."
            ) from error
    data = not mask and child.returncode == 0
    done = Done(child.returncode, out if data else redact(out), redact(err))
    if check and done.code:
        raise CommandError(command, done)
    return done


def stream(
    command: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    given: str | None = None,
    check: bool = True,
    show: Callable[[str], None] | None = say,
    keep: int = 5000,
) -> Done:
    """Run a program and show its lines, both streams, as they come.

    Args:
        command: Program and arguments.
        env: The whole environment; None for ours.
        cwd: Folder to run in.
        given: Text for its standard input.
        check: Raise when it ends with another code than 0.
        show: Called with each line, masked; None to keep them only.
        keep: How many of the last lines of each stream to keep.

    Returns:
        Exit code and the last lines, secrets masked.

    Raises:
        CommandError: It ended with another code than 0 (and ``check``).
        PipelineError: The program is missing.
    """
    kept: tuple[deque[str], deque[str]] = (deque(maxlen=keep), deque(maxlen=keep))

    def pump(source: Iterator[str], into: deque[str]) -> None:
        for line in source:
            line = redact(line.rstrip("\n"))
            into.append(line)
            if show is not None:
                show(line)

    with _started(command, env, cwd, given is not None) as child:
        assert child.stdout is not None and child.stderr is not None
        pumps = [
            threading.Thread(target=pump, args=(source, into), daemon=True)
            for source, into in ((child.stdout, kept[0]), (child.stderr, kept[1]))
        ]
        for thread in pumps:
            thread.start()
        if given is not None and child.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                child.stdin.write(given)
                child.stdin.close()
        child.wait()
        for thread in pumps:
            thread.join()
        child.stdout.close()
        child.stderr.close()
    out, err = ("".join(f"{line}\n" for line in lines) for lines in kept)
    done = Done(child.returncode, out, err)
    if check and done.code:
        raise CommandError(command, done)
    return done


def together(
    commands: Mapping[str, Sequence[str]],
    *,
    cwd: Path | None = None,
    enough: Callable[[str, Done], bool] = lambda _name, _done: False,
) -> dict[str, Done]:
    """Run programs at the same time, and keep what each prints.

    Args:
        commands: A name for each command.
        cwd: Folder to run in.
        enough: Asked with each that has ended; when it says so, the others are ended.

    Returns:
        What each left, in the order of ``commands``; those that were ended are missing.

    Raises:
        PipelineError: A program is missing; the others have been ended.
    """
    ended: queue.SimpleQueue[tuple[str, Done | PipelineError]] = queue.SimpleQueue()
    children: list[subprocess.Popen[str]] = []
    lock = threading.Lock()
    stopping = False

    def follow(name: str, command: Sequence[str]) -> None:
        begun = time.monotonic()
        try:
            with _started(command, None, cwd, False) as child:
                with lock:
                    children.append(child)
                    late = stopping
                if late:
                    _end_tree(child)
                out, err = child.communicate()
        except PipelineError as error:
            ended.put((name, error))
            return
        seconds = time.monotonic() - begun
        ended.put((name, Done(child.returncode, redact(out), redact(err), seconds)))

    threads = [
        threading.Thread(target=follow, args=pair, daemon=True) for pair in commands.items()
    ]
    found: dict[str, Done] = {}
    try:
        for thread in threads:
            thread.start()
        for _ in commands:
            name, left = ended.get()
            if isinstance(left, PipelineError):
                raise left
            found[name] = left
            if enough(name, left):
                break
    finally:
        with lock:
            stopping = True
            running = [child for child in children if child.poll() is None]
        for child in running:
            _end_tree(child)
        for thread in threads:
            thread.join()
    return {name: found[name] for name in commands if name in found}


def is_alive(pid: int) -> bool:
    """Whether a process with this id runs."""
    if sys.platform == "win32":
        listing = run(["tasklist", "/FI", f"PID eq {pid}", "/NH"], check=False).stdout
        return str(pid) in listing
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
