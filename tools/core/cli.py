"""The edge of every command: arguments in, one clear sentence and an exit code out."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import field, fields
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, TypeVar

from tools.core import console
from tools.core.errors import PipelineError, UsageError

if TYPE_CHECKING:
    import psutil
    from _typeshed import DataclassInstance

T = TypeVar("T")
Options = TypeVar("Options", bound="DataclassInstance")


class Parser(argparse.ArgumentParser):
    """argparse, whose refusals are sentences like all others."""

    def error(self, message: str) -> NoReturn:
        """Refuse the arguments."""
        sentence = message[:1].upper() + message[1:].rstrip(".")
        raise UsageError(f"{sentence}.", f"See {self.prog} --help.")


def option(default: T, about: str, *flags: str, **more: object) -> T:
    """A field of a command's options: ``dry_run`` is the option ``--dry-run``.

    A ``default`` of False makes a switch, an empty tuple a list. ``flags`` are names in place
    of the field's; one without dashes makes it positional. ``more`` is for argparse; a
    ``type`` raises ValueError with the forms that it accepts.
    """
    return field(default=default, metadata={"about": about, "flags": flags, "more": more})


def parser(session: str, about: str, options: type[DataclassInstance]) -> Parser:
    """The parser of a command, with ``--debug``, which every session has."""
    new = Parser(prog=session, description=about)
    for one in fields(options):
        words = {"help": one.metadata["about"], **one.metadata["more"]}
        flags = one.metadata["flags"] or (f"--{one.name.replace('_', '-')}",)
        if flags[0].startswith("-"):
            words |= {"dest": one.name, "default": one.default}
        if one.default is False:
            words["action"] = "store_true"
        elif one.default == ():
            words |= {"action": "append", "default": []}
        if "type" in words:
            words["type"] = partial(_argument, words["type"])
        new.add_argument(*flags, **words)
    new.add_argument("--debug", action="store_true", help="show settings, event and commands")
    return new


def _argument(parse: Callable[[str], T], text: str) -> T:
    try:
        return parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not {error}") from error


def count(text: str) -> int:
    """A whole number of at least 1, for ``type=``."""
    if not text.isdecimal() or int(text) < 1:
        raise ValueError("a whole number of at least 1")
    return int(text)


def command(
    session: str, about: str, options: type[Options], work: Callable[[Options], int | None]
) -> Callable[..., int]:
    """The ``main`` of a module: takes arguments (ours if not given), works, and turns what
    goes wrong into a sentence and an exit code: 0 done or nothing to do, 1 the work failed,
    2 bad usage or settings, 130 interrupted.

    ``session`` is that of nox, or another command line that begins with a program; each
    field of ``options`` an :func:`option`; what ``work`` returns the exit code, None for 0.
    """
    line = session if " " in session else f"nox -s {session} --"

    def parse_and_work(words: Sequence[str]) -> int:
        parsed = vars(parser(line, about, options).parse_args(words))
        # RUNNER_DEBUG is set when a run is repeated with debug logging on Actions.
        console.debugging = parsed.pop("debug") or os.environ.get("RUNNER_DEBUG") == "1"
        if console.debugging:
            python = sys.version.split()[0]
            console.say(f"Python {python} on {sys.platform}, arguments {words}")
        lists = {name: tuple(one) for name, one in parsed.items() if isinstance(one, list)}
        return work(options(**parsed | lists)) or 0

    def main(arguments: Sequence[str] | None = None) -> int:
        words = list(sys.argv[1:] if arguments is None else arguments)
        # SIGTERM ends us as Ctrl-C does, so that everything is cleaned up.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        if "NOX_CURRENT_SESSION" in os.environ:
            _end_with_nox()
        started, console.emitted = time.monotonic(), False
        code = _guarded(partial(parse_and_work, words), "--json" in words)
        result = "done" if code == 0 else f"failed with exit code {code}"
        took = time.monotonic() - started
        console.step_summary(f"Session `{session}`: {result} after {took:.1f} s.")
        return code

    return main


@cache  # once a process: tests run many commands in theirs
def _end_with_nox() -> None:
    """End as by SIGTERM when a nox that we run under (with --parallel it has another above it)
    is gone: a SIGTERM, unlike a Ctrl-C, reaches nox alone, which dies of it.
    """
    import psutil

    for process in psutil.Process().parents():
        with contextlib.suppress(psutil.Error):
            names = {Path(word).name for word in process.cmdline()[:3]}
            if names & {"nox", "nox.exe"}:
                threading.Thread(target=_end_after, args=(process,), daemon=True).start()


def _end_after(process: psutil.Process) -> None:
    import psutil

    with contextlib.suppress(psutil.NoSuchProcess):
        # wait() would also wait until its parent has taken notice of its end.
        pause = threading.Event()
        while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
            pause.wait(0.3)
    if sys.platform == "win32":
        os.kill(os.getpid(), signal.SIGTERM)
    else:  # Of a process's own signals the thread that sends them may be the receiver.
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)


def _guarded(work: Callable[[], int], as_json: bool) -> int:
    """Work; every failure that a person can do something about is a sentence and a code."""
    try:
        return work()
    except BrokenPipeError:
        # Who read our output has had enough (``| head``); leave nothing to flush.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        console.say("interrupted")
        return 130
    except PipelineError as error:
        failure = error
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        failure = PipelineError(
            f"The system refused: {error.strerror or error}{where}.",
            "See whether the disk is full and the file may be written.",
        )
    console.fail(failure)
    if as_json and not console.emitted:  # else a result tells of the failure
        console.emit_json({"error": {"message": failure.message, "remedy": failure.remedy}})
    return failure.exit_code
