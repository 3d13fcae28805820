"""A run in Markdown, for the step summary: a Mermaid Gantt chart and tables."""

from __future__ import annotations

import re

from tools.core.console import human_size, markdown_table
from tools.runs.record import RunRecord, critical_path

_STATES = {
    "success": "done, ",
    "failure": "crit, ",
    "cancelled": "crit, ",
    "running": "active, ",
}


def clock(seconds: float) -> str:
    """``7.3 s``, ``2:05 min`` or ``1:02 h``."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}:{rest:02d} min"
    return f"{minutes // 60}:{minutes % 60:02d} h"


def _name(text: str) -> str:
    """Text that Mermaid takes for a name: it has no escapes for these."""
    return re.sub(r"[:;#,]", " ", text)


def gantt(record: RunRecord) -> str:
    """A run as a Mermaid Gantt chart; times count from the run's beginning.

    Source: Mermaid, "Gantt diagrams".
    """
    lines = ["gantt", "    dateFormat X", "    axisFormat %H:%M:%S"]
    for job in record.jobs:
        if job.matrix_jobs:
            lines.append(f"    section {_name(job.name)}")
        for one in job.matrix_jobs:
            if not one.seconds:
                continue
            start, end = round(one.started), round(one.started + one.seconds)
            # A colon would end the name: 2:05 min is written 2m05.
            took = re.sub(r"(\d+):(\d\d) (m|h)\w*", r"\1\3\2", clock(one.seconds))
            state = _STATES.get(one.result, "")
            name = _name(one.label or job.name)
            lines.append(f"    {name} {took} :{state}{start}, {max(end, start + 1)}")
    return "\n".join(lines) + "\n"


def markdown(record: RunRecord) -> str:
    """The summary of a run for the step summary."""
    chain = critical_path(record.jobs)
    rows = [
        (job.name, job.result, clock(job.seconds) if job.seconds else "", job.reason)
        for job in record.jobs
    ]
    text = f"### The run\n\n```mermaid\n{gantt(record)}```\n\n"
    text += markdown_table(("job", "result", "longest matrix job", "why"), rows)
    names = " → ".join(job.name for job in chain)
    total = clock(sum(job.seconds for job in chain))
    text += f"\nCritical path: {names}, {total} of {clock(record.seconds)}.\n"
    if record.artifacts:
        lines = [(a.name, human_size(a.size), f"`{a.sha256}`") for a in record.artifacts]
        text += "\n" + markdown_table(("artifact", "size", "SHA-256"), lines)
    return text
