"""The edge of every command: arguments in, one clear sentence and an exit code out."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence

from tools.core import console, process
from tools.core.errors import PipelineError


def parser(command: str, about: str) -> argparse.ArgumentParser:
    """A parser with the options that every session has (``--debug``)."""
    made = argparse.ArgumentParser(prog=f"nox -s {command} --", description=about)
    made.add_argument("--debug", action="store_true", help="show settings, event and commands")
    return made


def _debug_asked(arguments: argparse.Namespace) -> bool:
    # RUNNER_DEBUG is set when a run is repeated with debug logging on Actions.
    return bool(getattr(arguments, "debug", False)) or os.environ.get("RUNNER_DEBUG") == "1"


def _show_debug() -> None:
    # Only now: what it imports would slow down every start.
    from tools.repo import debug

    debug.show()


def _terminated(_number: int, _frame: object) -> None:
    """SIGTERM ends us as Ctrl-C does, so that everything is cleaned up."""
    raise KeyboardInterrupt


def _of_system(error: OSError) -> PipelineError:
    """What the system refused (a full disk, a missing right), as a sentence."""
    where = f" ({error.filename})" if error.filename else ""
    return PipelineError(
        f"The system refused: {error.strerror or error}{where}.",
        "See whether the disk is full and the file may be written.",
    )


def main(
    made: argparse.ArgumentParser,
    work: Callable[[argparse.Namespace], int | None],
    arguments: Sequence[str] | None = None,
) -> int:
    """Parse, work, and turn what goes wrong into a sentence and an exit code.

    Returns:
        0 done or nothing to do, 1 the work failed, 2 bad usage or settings, 130
        interrupted.
    """
    given = made.parse_args(arguments)
    if hasattr(signal, "SIGTERM"):
        signal.signal(signal.SIGTERM, _terminated)
    started = time.monotonic()
    code = _guarded(given, work)
    name = made.prog.removeprefix("nox -s ").removesuffix(" --")
    result = "done" if code == 0 else f"failed with exit code {code}"
    console.step_summary(
        f"Session `{name}`: {result} after {time.monotonic() - started:.1f} s."
    )
    return code


def _guarded(
    given: argparse.Namespace, work: Callable[[argparse.Namespace], int | None]
) -> int:
    """Work; every failure that a person can do something about is a sentence and a code."""
    try:
        if _debug_asked(given):
            process.show_commands()
            _show_debug()
        return work(given) or 0
    except PipelineError as error:
        console.fail(error)
        return error.exit_code
    except BrokenPipeError:
        # Who read our output has had enough (``| head``); leave nothing to flush.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        console.fail(_of_system(error))
        return 1
    except KeyboardInterrupt:
        console.say("interrupted")
        return 130
