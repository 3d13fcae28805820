"""Runs as one self-contained web page: the last one's time line, the trends of all.

What is shown is computed here; ``page.html.j2`` lays it out (bars are plain boxes, in percent
of the longest), ``style.css`` gives the colours, light and dark.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tools.core.console import human_size
from tools.runs.gantt import clock
from tools.runs.record import RunRecord, critical_path

HERE = Path(__file__).parent
WINDOW = 10  # runs that a moving success rate covers


@dataclass(frozen=True)
class Bar:
    """A bar: its name, its result (which colours it), its text, and in percent where it
    begins and how long it is.
    """

    name: str
    result: str
    text: str
    start: float
    length: float


@dataclass(frozen=True)
class Trend:
    """One bar a run, the newest last; ``most`` is what the longest stands for."""

    title: str
    most: str
    bars: list[Bar]


def timeline(record: RunRecord) -> Iterator[Bar]:
    """When each matrix job began and ended; jobs that were not run have no length."""
    ends = [one.started + one.seconds for job in record.jobs for one in job.matrix_jobs]
    whole = max([record.seconds, *ends]) or 1.0
    for job in record.jobs:
        for one in job.matrix_jobs:
            name = f"{job.name} ({one.label})" if one.label else job.name
            text = clock(one.seconds) if one.seconds else ""
            text += "" if one.result == "success" else f" {one.result}"
            start, length = one.started / whole * 100, one.seconds / whole * 100
            yield Bar(name, one.result, text, start, length)
        if not job.matrix_jobs:
            yield Bar(job.name, job.result, job.result, 0.0, 0.0)


def success_rate(records: Sequence[RunRecord]) -> float:
    """The share of runs that succeeded, of those that were not cancelled; 0 to 1."""
    ended = [record for record in records if record.result in {"success", "failure"}]
    return sum(r.result == "success" for r in ended) / len(ended) if ended else 0.0


def trends(records: Sequence[RunRecord]) -> Iterator[Trend]:
    """How runs went over time: wall time, success rate, size."""
    rates = [
        success_rate(records[max(0, end - WINDOW) : end]) for end in range(1, len(records) + 1)
    ]
    sizes = [float(sum(artifact.size for artifact in record.artifacts)) for record in records]
    for title, values, shown in (
        ("Wall time of the last runs", [record.seconds for record in records], clock),
        (f"Success rate, each run with the {WINDOW - 1} before it", rates, "{:.0%}".format),
        ("Size of all artifacts", sizes, human_size),
    ):
        most = max(values) or 1.0
        yield Trend(
            title,
            shown(most),
            [
                Bar(_began(record), record.result, shown(value), 0.0, value / most * 100)
                for record, value in zip(records, values, strict=True)
            ],
        )


def _began(record: RunRecord) -> str:
    return record.began.replace("T", " ").removesuffix("Z")


def page(records: Sequence[RunRecord]) -> str:
    """The page.

    Args:
        records: The oldest first; at least one.
    """
    from jinja2 import Environment, FileSystemLoader

    environment = Environment(loader=FileSystemLoader(HERE), autoescape=True)
    environment.filters.update(clock=clock, human_size=human_size)
    last = records[-1]
    return environment.get_template("page.html.j2").render(
        last=last,
        began=_began(last),
        critical=sum(job.seconds for job in critical_path(last.jobs)),
        rate=success_rate(records),
        count=len(records),
        size=sum(artifact.size for artifact in last.artifacts),
        timeline=timeline(last),
        trends=trends(records),
    )
