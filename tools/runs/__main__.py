"""``summary``: the picture of a run, and how runs went over time.

For Actions a Mermaid Gantt chart in the step summary; for people who look rather than
read a self-contained page, ``dist/summary.html``.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path

from tools.core import cli, console, files
from tools.core.errors import PipelineError
from tools.runs.find import find_records
from tools.runs.gantt import clock, gantt, markdown
from tools.runs.page import page

OUTPUT = "dist/summary.html"
LIMIT = 20


@dataclass(frozen=True)
class Options:
    """What the command line asks for."""

    source: str = cli.option("auto", "where runs are", choices=("auto", "actions", "local"))
    limit: int = cli.option(LIMIT, f"runs ({LIMIT})", type=cli.count)
    output: str = cli.option(OUTPUT, f"the page ({OUTPUT})")
    mermaid: bool = cli.option(False, "the Gantt chart on stdout too")


def work(options: Options) -> int:
    """Find the runs, draw the page, write the step summary."""
    try:
        records = find_records(os.environ, options.source, options.limit)
    except PipelineError as error:
        if not console.on_actions() or options.source != "auto":
            raise
        # A picture that cannot be drawn is no reason to fail a run that went well.
        console.warn(f"No summary: {error}")
        return 0
    last = records[-1]
    files.write(Path(options.output), page(records))
    console.step_summary(markdown(last))
    if options.mermaid:
        print(gantt(last), end="")
    took = clock(last.seconds)
    console.say(f"run {last.run}: {last.result}, {took}; page: {options.output}")
    return 0


main = cli.command("summary", "Draw the last run, and how runs went over time.", Options, work)


if __name__ == "__main__":
    sys.exit(main())
