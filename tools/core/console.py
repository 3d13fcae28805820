"""Talking to the person: on stderr, masked, in the way of the place we run in.

On a terminal rich colours and draws; on Actions errors become annotations and long
output folds into groups; elsewhere plain lines. ``NO_COLOR`` is honoured by rich.
Machine-readable output alone goes to stdout, through :func:`emit_json`.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterator, Sequence

from tools.core.errors import PipelineError
from tools.core.files import to_json
from tools.core.secrets import redact

_debugging = False
_emitted = False


def debug(on: bool = True) -> None:
    """Show settings, the event and every command as they are read and run (``--debug``)."""
    global _debugging
    _debugging = on


def debugging() -> bool:
    """Whether ``--debug`` was given."""
    return _debugging


def emitted(reset: bool = False) -> bool:
    """Whether the JSON document was printed; ``reset`` begins a new command."""
    global _emitted
    _emitted = _emitted and not reset
    return _emitted


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
    text = redact(text)
    if style and is_terminal():
        from rich.console import Console

        Console(stderr=True, highlight=False).print(text, style=style, markup=False)
        return
    print(text, file=sys.stderr, flush=True)


def _escape(value: str, of_property: bool = False) -> str:
    """Escape a workflow command's text, as actions/toolkit's ``command.ts`` does."""
    value = value.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
    return value.replace(":", "%3A").replace(",", "%2C") if of_property else value


def annotate(level: str, message: str, title: str = "") -> None:
    """Make a message an annotation of the run on Actions; elsewhere nothing.

    Args:
        level: ``error``, ``warning`` or ``notice``.
        message: The text; newlines are allowed.
        title: A short title.
    """
    if on_actions():
        head = f"::{level} title={_escape(redact(title), True)}" if title else f"::{level}"
        print(f"{head}::{_escape(redact(message))}", file=sys.stderr, flush=True)


def warn(message: str) -> None:
    """A warning: something is not as it should be, but the work goes on."""
    say(f"warning: {message}", style="yellow")
    annotate("warning", message)


def fail(error: PipelineError) -> None:
    """Show an error: the sentence, the remedy, and the detail below."""
    if error.detail:
        say(error.detail.rstrip())
    say(f"error: {error.message}", style="bold red")
    if error.remedy:
        say(f"  what to do: {error.remedy}")
    annotate("error", str(error))


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
            drawn.add_row(*(Text(cell) for cell in row))
        Console(stderr=True).print(drawn)
        return
    lines = [list(headings), *cells]
    widths = [max(len(line[i]) for line in lines) for i in range(len(headings))]
    if title:
        say(title)
    for line in lines:
        say("  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip())


def markdown_table(headings: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A table in GitHub's Markdown, cells escaped."""

    def line(cells: Sequence[object]) -> str:
        texts = (str(c).replace("|", "\\|").replace("\n", " ") for c in cells)
        return "| " + " | ".join(texts) + " |"

    return "\n".join([line(headings), line(["---"] * len(headings)), *map(line, rows)]) + "\n"


def emit_json(value: object) -> None:
    """Print one JSON document, plain data or dataclasses, to stdout: the only thing that
    ever goes there.
    """
    global _emitted
    _emitted = True
    print(redact(to_json(value)), flush=True)


def step_summary(markdown: str) -> None:
    """Append Markdown to the job's summary (``GITHUB_STEP_SUMMARY``), if there is one."""
    path = os.environ.get("GITHUB_STEP_SUMMARY")
    if path:
        with open(path, "a", encoding="utf-8") as handle:
            handle.write(redact(markdown).rstrip("\n") + "\n\n")


def set_output(name: str, value: str) -> None:
    """Set a step output (``GITHUB_OUTPUT``), several lines allowed; elsewhere nothing.

    Uses the heredoc form with a delimiter that cannot occur in the value.
    """
    path = os.environ.get("GITHUB_OUTPUT")
    if not path:
        return
    mark = "EOF"
    while mark in value:
        mark += "_"
    with open(path, "a", encoding="utf-8") as handle:
        handle.write(f"{name}<<{mark}\n{value}\n{mark}\n")


def human_size(size: float) -> str:
    """Bytes as a person reads them, in decimal units: ``12.3 MB``."""
    for unit in ("B", "kB", "MB", "GB"):
        if abs(size) < 999.95 or unit == "GB":
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    raise AssertionError("unreachable")
