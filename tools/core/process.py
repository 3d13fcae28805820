"""Running other programs: output masked, the whole process tree ended with us."""

from __future__ import annotations

import contextlib
import shlex
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from tools.core import console
from tools.core.errors import PipelineError
from tools.core.janitor import Janitor, end_tree
from tools.core.secrets import redact

GRACE = 10.0  # seconds for a program to end by itself
PAUSES = (2.0, 8.0)  # seconds before the second and the third attempt of a command

Child = subprocess.Popen[str]

_running: set[Child] = set()
_janitor: Janitor | None = None
_inherited: tuple[int, ...] = ()


@contextlib.contextmanager
def watched_by(janitor: Janitor, inherit: Sequence[int] = ()) -> Iterator[None]:
    """What is started inside is ended by ``janitor`` when we are killed.

    It keeps the descriptors ``inherit`` open (not on Windows): those of a lock say that it
    runs even before the janitor has been told.
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
    """What a program left: its exit code, what it printed, secrets masked (unless
    :func:`run` was told that it is data), and how many seconds it ran.
    """

    code: int
    stdout: str
    stderr: str
    seconds: float = 0.0

    @property
    def output(self) -> str:
        """Both streams, stdout first."""
        return self.stdout + self.stderr

    def tail(self, lines: int = 20) -> str:
        """The last lines of both."""
        return "\n".join(self.output.splitlines()[-lines:])


class MissingProgramError(PipelineError):
    """A program is not on the PATH."""


class TimeLimitError(PipelineError):
    """A program ran out of its time, and was ended."""


class CommandError(PipelineError):
    """A program ended with a code that is not 0; ``done`` is what it left."""

    def __init__(self, command: Sequence[str], done: Done, remedy: str = "") -> None:
        super().__init__(
            f"{display(command)} ended with exit code {done.code}.", remedy, done.tail()
        )
        self.done = done


def display(command: Sequence[str]) -> str:
    """A command as one would type it, secrets masked."""
    return redact(shlex.join(command))


@contextlib.contextmanager
def _started(
    command: Sequence[str], env: Mapping[str, str] | None, cwd: Path | None, stdin: str | None
) -> Iterator[Child]:
    """Start ``command`` in a session of its own; end all of it when we are interrupted."""
    if console.debugging():
        console.say(f"$ {display(command)}")
    try:
        child = subprocess.Popen(
            list(command),
            stdin=subprocess.DEVNULL if stdin is None else subprocess.PIPE,
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
        raise MissingProgramError(
            f"The program {name} was not found.", f"Install {name} and put it on the PATH."
        ) from error
    janitor = _janitor
    _running.add(child)
    try:
        if janitor is not None:
            janitor.owe("tree", str(child.pid))
        yield child
    except BaseException:
        end_tree(child.pid, GRACE)
        child.wait()
        raise
    finally:
        _running.discard(child)
        if janitor is not None:
            janitor.forget("tree", str(child.pid))


def end_all(grace: float = GRACE) -> None:
    """End every program that runs, in whatever thread; who waits for it goes on."""
    running = list(_running)
    with ThreadPoolExecutor(max(1, len(running))) as pool:
        list(pool.map(lambda child: end_tree(child.pid, grace), running))


def run(
    command: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    stdin: str | None = None,
    check: bool = True,
    timeout: float | None = None,
    mask: bool = True,
) -> Done:
    """Run a program to its end and keep what it prints.

    Args:
        command: Program and arguments; never a shell string.
        env: The whole environment; None for ours.
        cwd: Folder to run in.
        stdin: Text for its standard input, where secrets belong.
        check: Raise when it ends with another code than 0.
        timeout: Seconds after which it is ended.
        mask: False where stdout is data to work with, unless it fails: an account's name,
            which is masked as well, may stand in a path or an address.

    Raises:
        CommandError: It ended with another code than 0 (and ``check``).
        TimeLimitError: It ran out of its time.
        MissingProgramError: It is not on the PATH.
    """
    began = time.monotonic()
    with _started(command, env, cwd, stdin) as child:
        try:
            out, err = child.communicate(stdin, timeout=timeout)
        except subprocess.TimeoutExpired as error:
            end_tree(child.pid, GRACE)
            child.communicate()  # closes the pipes
            raise TimeLimitError(
                f"{display(command)} did not end within {timeout:.0f} s."
            ) from error
    data = not mask and child.returncode == 0
    took = time.monotonic() - began
    done = Done(child.returncode, out if data else redact(out), redact(err), took)
    if check and done.code:
        raise CommandError(command, done)
    return done


def stream(
    command: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    check: bool = True,
    show: Callable[[str], None] = console.say,
    keep: int = 5000,
) -> Done:
    """As :func:`run`, but ``show`` is called with each line of both streams, masked, as it
    comes, from one thread a stream; the last ``keep`` lines of each are kept.
    """
    began = time.monotonic()

    def pump(source: Iterator[str], kept: deque[str]) -> None:
        for line in source:
            kept.append(redact(line.rstrip("\n")))
            show(kept[-1])

    out: deque[str] = deque(maxlen=keep)
    err: deque[str] = deque(maxlen=keep)
    with _started(command, env, cwd, None) as child:
        assert child.stdout is not None and child.stderr is not None
        pumps = [
            threading.Thread(target=pump, args=pair, daemon=True)
            for pair in ((child.stdout, out), (child.stderr, err))
        ]
        for thread in pumps:
            thread.start()
        child.wait()
        for thread in pumps:
            thread.join()
        child.stdout.close()
        child.stderr.close()
    shown = ["".join(f"{line}\n" for line in lines) for lines in (out, err)]
    done = Done(child.returncode, shown[0], shown[1], time.monotonic() - began)
    if check and done.code:
        raise CommandError(command, done)
    return done


def together(
    commands: Mapping[str, Sequence[str]],
    *,
    cwd: Path | None = None,
    enough: Callable[[str, Done], bool] = lambda _name, _done: False,
) -> dict[str, Done]:
    """Run programs at the same time; what each left, by its name, in the same order.

    ``enough`` is asked with each that has ended; when it says so, or a program is missing,
    the others are ended (and missing from the result).
    """
    found: dict[str, Done] = {}
    with ThreadPoolExecutor(max(1, len(commands))) as pool:
        waiting = {
            pool.submit(run, command, cwd=cwd, check=False): name
            for name, command in commands.items()
        }
        try:
            for future in as_completed(waiting):
                name = waiting[future]
                found[name] = future.result()
                if enough(name, found[name]):
                    break
        finally:
            while not all(future.done() for future in waiting):
                # One that is only just being started is ended in the next round.
                end_all()
    return {name: found[name] for name in commands if name in found}


def again(attempt: Callable[[], Done], passing: Callable[[Done], str]) -> Done:
    """Run a command, and again after a pause where ``passing`` says what of the failure may
    pass (an empty text: trying again is no use); what the last attempt left.
    """
    for pause in PAUSES:
        done = attempt()
        trouble = passing(done) if done.code else ""
        if not trouble:
            return done
        console.warn(f"{trouble}; trying again in {pause:.0f} s")
        time.sleep(pause)
    return attempt()
