"""Talking to the person: on stderr, masked, in the way of the place we run in.

On a terminal rich colours and draws (``NO_COLOR`` is honoured); on Actions errors become
annotations and steps fold; elsewhere plain lines. JSON alone goes to stdout.
"""

import contextlib
import os
import sys
import time
from collections.abc import Iterator, Sequence

from tools.core.errors import PipelineError
from tools.core.files import to_json
from tools.core.secrets import redact

debugging = False  # --debug: settings, the event and commands are shown
emitted = False  # whether this command has printed its JSON document


def on_actions() -> bool:
    """Whether we run as a step of GitHub Actions."""
    return os.environ.get("GITHUB_ACTIONS") == "true"


def on_ci() -> bool:
    """Whether we run in any CI: ``CI`` is set to something true."""
    return os.environ.get("CI", "").lower() not in {"", "0", "false"}


def is_terminal() -> bool:
    """Whether stderr is a terminal that a person looks at."""
    return sys.stderr.isatty() and not on_ci()


def say(text: str = "", style: str = "") -> None:
    """Print lines to stderr, secrets masked; ``style`` is a rich style name."""
    if style and is_terminal():
        from rich.console import Console

        Console(stderr=True, highlight=False).print(redact(text), style=style, markup=False)
    else:
        print(redact(text), file=sys.stderr, flush=True)


def _annotate(level: str, message: str) -> None:
    """Make a message an annotation of the run on Actions; elsewhere nothing.

    Source: actions/toolkit, ``command.ts``, for what is escaped.
    """
    if on_actions():
        line = redact(message).replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
        say(f"::{level}::{line}")


def warn(message: str) -> None:
    """A warning: something is not as it should be, but the work goes on."""
    say(f"warning: {message}", style="yellow")
    _annotate("warning", message)


def fail(error: PipelineError) -> None:
    """Show an error: the sentence, the remedy, and the detail above."""
    if error.detail:
        say(error.detail.rstrip())
    say(f"error: {error.message}", style="bold red")
    if error.remedy:
        say(f"  what to do: {error.remedy}")
    _annotate("error", str(error))


@contextlib.contextmanager
def step(title: str) -> Iterator[None]:
    """One step of a command: its heading, folded on Actions, and how long it took."""
    started = time.monotonic()
    say(f"::group::{title}" if on_actions() else title)
    try:
        yield
    finally:
        if on_actions():
            say("::endgroup::")
        say(f"{title}: {time.monotonic() - started:.1f} s")


def table(headings: Sequence[str], rows: Sequence[Sequence[object]], title: str = "") -> None:
    """Print a table to stderr: drawn on a terminal, aligned plain columns elsewhere."""
    cells = [[redact(str(cell)) for cell in row] for row in rows]
    if is_terminal():
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        drawn = Table(*headings, title=title or None)
        for row in cells:
            drawn.add_row(*map(Text, row))
        Console(stderr=True).print(drawn)
        return
    lines = [list(headings), *cells]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    if title:
        say(title)
    for line in lines:
        say("  ".join(map(str.ljust, line, widths)).rstrip())


def markdown_table(headings: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A table in GitHub's Markdown, cells escaped."""
    lines = [headings, ["---"] * len(headings), *rows]
    cells = [[str(c).replace("|", "\\|").replace("\n", " ") for c in line] for line in lines]
    return "".join(f"| {' | '.join(line)} |\n" for line in cells)


def emit_json(value: object) -> None:
    """Print one JSON document to stdout: the only thing that ever goes there."""
    global emitted
    emitted = True
    print(redact(to_json(value)), flush=True)


def step_summary(markdown: str) -> None:
    """Append Markdown to the job's summary (``GITHUB_STEP_SUMMARY``), if there is one."""
    if path := os.environ.get("GITHUB_STEP_SUMMARY"):
        with open(path, "a", encoding="utf-8") as handle:
            handle.write(redact(markdown).rstrip("\n") + "\n\n")


def set_output(name: str, value: str) -> None:
    """Set a step's output (``GITHUB_OUTPUT``), several lines allowed; elsewhere nothing."""
    mark = "EOF"
    while mark in value:
        mark += "_"
    if path := os.environ.get("GITHUB_OUTPUT"):
        with open(path, "a", encoding="utf-8") as handle:
            handle.write(f"{name}<<{mark}\n{value}\n{mark}\n")


def human_size(size: float) -> str:
    """Bytes as a person reads them, in decimal units: ``12.3 MB``."""
    from rich.filesize import decimal

    return decimal(int(size))
