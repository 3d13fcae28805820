"""``summary``: the picture of a run, and how runs went over time.

For Actions tables in the step summary; for people who look rather than read a
self-contained page, ``dist/summary.html``.
"""

import os
import sys
from dataclasses import dataclass
from pathlib import Path

from tools.core import cli, console, files
from tools.core.console import human_size, markdown_table
from tools.core.errors import PipelineError
from tools.runs.history import find_records
from tools.runs.page import clock, page
from tools.runs.record import RunRecord, critical_path


@dataclass(frozen=True)
class Options:
    """What the command line asks for."""

    source: str = cli.option("auto", "which runs", choices=("auto", "local"))
    limit: int = cli.option(20, "how many at most (20)", type=cli.count)
    output: str = cli.option("dist/summary.html", "the page (dist/summary.html)")


def markdown(record: RunRecord) -> str:
    """The summary of a run for the step summary."""
    rows = [
        (job.name, job.result, clock(job.seconds) if job.seconds else "", job.reason)
        for job in record.jobs
    ]
    text = f"### The run: {record.result}, {clock(record.seconds)}\n\n"
    text += markdown_table(("job", "result", "longest matrix job", "why"), rows)
    if chain := critical_path(record.jobs):
        names, total = " → ".join(job.name for job in chain), sum(job.seconds for job in chain)
        text += f"\nCritical path: {names}, {clock(total)}.\n"
    if record.artifacts:
        lines = [(a.name, human_size(a.size), f"`{a.sha256}`") for a in record.artifacts]
        text += "\n" + markdown_table(("artifact", "size", "SHA-256"), lines)
    return text


def work(options: Options) -> None:
    """Find the runs, draw the page, write the step summary."""
    try:
        records = find_records(os.environ, options.limit, options.source == "local")
    except PipelineError as error:
        if not console.on_actions():
            raise
        # A picture that cannot be drawn is no reason to fail a run that went well.
        return console.warn(f"No summary: {error}")
    files.write(Path(options.output), page(records))
    last = records[-1]
    console.step_summary(markdown(last))
    console.say(f"run {last.run}: {last.result}, {clock(last.seconds)}; {options.output}")


main = cli.command("summary", "Draw the last run, and how runs went over time.", Options, work)


if __name__ == "__main__":
    sys.exit(main())
