"""Running other programs: output masked, the whole process tree ended with us."""

import contextlib
import shlex
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO

from tools.core import console
from tools.core.errors import PipelineError
from tools.core.janitor import Janitor, end_tree, remove
from tools.core.secrets import redact

GRACE = 10.0  # seconds for a program to end by itself
PAUSES = (2.0, 8.0)  # seconds before the second and the third attempt of a command

_running: set[subprocess.Popen[str]] = set()
_janitor: Janitor | None = None
_inherited: tuple[int, ...] = ()


@contextlib.contextmanager
def watched(keep_open: Sequence[int] = ()) -> Iterator[Janitor]:
    """A janitor, which also ends what is started inside when we are killed.

    It and what is started keep the descriptors ``keep_open``: a lock is held until all end.
    """
    global _janitor, _inherited
    before = _janitor, _inherited
    _inherited = () if sys.platform == "win32" else tuple(keep_open)
    _janitor = janitor = Janitor(_inherited)
    try:
        yield janitor
    finally:
        _janitor, _inherited = before
        janitor.close()


@contextlib.contextmanager
def owed(kind: str, value: str) -> Iterator[None]:
    """What comes into being inside, as the janitor calls it, is removed at the end; also when
    we are killed, if somebody watches.
    """
    if _janitor is not None:
        _janitor.owe(kind, value)
    try:
        yield
    finally:
        remove(kind, value)
        if _janitor is not None:
            _janitor.forget(kind, value)


@dataclass(frozen=True)
class Done:
    """What a program left; secrets are masked, unless :func:`run` was told of data."""

    code: int
    stdout: str
    stderr: str

    @property
    def output(self) -> str:
        """Both streams, stdout first."""
        return self.stdout + self.stderr

    def tail(self, lines: int = 20) -> str:
        """The last lines of both."""
        return "\n".join(self.output.splitlines()[-lines:])


class TimeLimitError(PipelineError):
    """A program ran out of its time, and was ended."""


def display(command: Sequence[str]) -> str:
    """A command as one would type it, secrets masked."""
    return redact(shlex.join(command))


@contextlib.contextmanager
def _started(
    command: Sequence[str], env: Mapping[str, str] | None, cwd: Path | None
) -> Iterator[subprocess.Popen[str]]:
    """``command`` in a session of its own, all of which ends when we are interrupted."""
    if console.debugging:
        console.say(f"$ {display(command)}")
    try:
        child = subprocess.Popen(
            list(command),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            errors="replace",
            env=env,
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
    _running.add(child)
    try:
        if janitor is not None:
            janitor.owe("tree", str(child.pid))
        yield child
    except BaseException:
        end_tree(child.pid, GRACE)
        raise
    finally:
        child.wait()
        _running.discard(child)
        if janitor is not None:
            janitor.forget("tree", str(child.pid))


def end_all(grace: float = GRACE) -> None:
    """End every program that runs, in whatever thread; who waits for it goes on."""
    running = list(_running)
    with ThreadPoolExecutor(max(1, len(running))) as pool:
        list(pool.map(lambda child: end_tree(child.pid, grace), running))


def _pump(source: IO[str], lines: deque[str], show: Callable[[str], None] | None) -> None:
    """Keep the lines of a stream, and show each, masked, as it comes."""
    with source:
        for line in source:
            lines.append(line)
            if show:
                show(redact(line.rstrip("\n")))


def run(
    command: Sequence[str],  # program and arguments; never a shell string
    *,
    env: Mapping[str, str] | None = None,  # the whole environment; None for ours
    cwd: Path | None = None,
    stdin: str = "",  # where secrets belong
    check: bool = True,  # raise when its code is not 0
    timeout: float | None = None,  # seconds after which it is ended
    mask: bool = True,
    show: Callable[[str], None] | None = None,  # takes each line, masked, as it comes
    keep: int | None = None,  # the last lines of each stream that are kept; None for all
) -> Done:
    """Run a program to its end and keep what it prints.

    ``mask`` is False where stdout is data to work with, unless it fails: an account's name,
    which is masked as well, may stand in a path or an address. ``show`` is called from two
    threads.

    Raises:
        TimeLimitError: It ran out of its time.
        PipelineError: It is not on the PATH, or its code is not 0 (and ``check``).
    """
    name = display(command)
    ends = None if timeout is None else time.monotonic() + timeout
    out: deque[str] = deque(maxlen=keep)
    err: deque[str] = deque(maxlen=keep)

    with _started(command, env, cwd) as child:
        # Daemons: what has left our session may hold the pipes for ever.
        waiting = [
            threading.Thread(target=_pump, args=(child.stdout, out, show), daemon=True),
            threading.Thread(target=_pump, args=(child.stderr, err, show), daemon=True),
            threading.Thread(target=child.wait, daemon=True),
        ]
        for thread in waiting:
            thread.start()
        assert child.stdin is not None
        with contextlib.suppress(OSError), child.stdin:  # it may end without reading
            child.stdin.write(stdin)
        for thread in waiting:
            thread.join(None if ends is None else max(0.0, ends - time.monotonic()))
            if thread.is_alive():
                message = f"{name} did not end within {timeout:.0f} s."
                last = [*out.copy(), *err.copy()][-20:]  # copies: they still grow
                raise TimeLimitError(message, detail=redact("".join(last)))
    text, errors = "".join(out), redact("".join(err))
    done = Done(child.returncode, redact(text) if mask or child.returncode else text, errors)
    if check and done.code:
        raise PipelineError(f"{name} ended with exit code {done.code}.", detail=done.tail())
    return done


# Lines are shown as they come, and the last ones kept: a long build does not fill memory.
stream = partial(run, show=console.say, keep=5000)


def together(commands: Mapping[str, Sequence[str]], cwd: Path | None = None) -> dict[str, Done]:
    """Run programs at the same time; what each left. A missing one ends the others."""
    with ThreadPoolExecutor(max(1, len(commands))) as pool:
        waiting = [pool.submit(run, one, cwd=cwd, check=False) for one in commands.values()]
        try:
            wait(waiting, return_when=FIRST_EXCEPTION)
        finally:
            while not all(future.done() for future in waiting):
                # One that is only just being started is ended in the next round.
                end_all()
        return {name: future.result() for name, future in zip(commands, waiting, strict=True)}


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
