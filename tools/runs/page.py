"""Runs as one self-contained web page: the last one's time line, the trends of all.

What is shown is computed here; ``page.html.j2`` lays it out (bars are plain boxes, in percent
of the longest), ``style.css`` gives the colours, light and dark.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from jinja2 import Environment, FileSystemLoader

from tools.core.console import human_size
from tools.runs.record import RunRecord, critical_path

WINDOW = 10  # runs that a moving success rate covers


class Bar(NamedTuple):
    """A bar of a time line or a trend."""

    name: str
    result: str  # which colours it
    text: str
    start: float  # percent
    length: float  # percent


class Trend(NamedTuple):
    """One bar a run, the newest last; ``most`` is what the longest stands for."""

    title: str
    most: str
    bars: list[Bar]


def clock(seconds: float) -> str:
    """``7.3 s``, ``2:05 min`` or ``1:02 h``."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}:{rest:02d} min"
    return f"{minutes // 60}:{minutes % 60:02d} h"


def timeline(record: RunRecord) -> Iterator[Bar]:
    """When each matrix job began and ended; jobs that were not run have no length."""
    ends = [one.started + one.seconds for job in record.jobs for one in job.matrix_jobs]
    whole = max([record.seconds, *ends]) or 1.0
    for job in record.jobs:
        for one in job.matrix_jobs:
            name = f"{job.name} ({one.label})" if one.label else job.name
            took = clock(one.seconds) if one.seconds else ""
            text = took if one.result == "success" else f"{took} {one.result}"
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
    ends = range(1, len(records) + 1)
    rates = [success_rate(records[max(0, end - WINDOW) : end]) for end in ends]
    sizes = [float(sum(artifact.size for artifact in record.artifacts)) for record in records]
    for title, values, shown in (
        ("Wall time of the last runs", [record.seconds for record in records], clock),
        (f"Success rate, each run with the {WINDOW - 1} before it", rates, "{:.0%}".format),
        ("Size of all artifacts", sizes, human_size),
    ):
        most = max(values) or 1.0
        bars = [
            Bar(record.began, record.result, shown(value), 0.0, value / most * 100)
            for record, value in zip(records, values, strict=True)
        ]
        yield Trend(title, shown(most), bars)


def page(records: Sequence[RunRecord]) -> str:
    """The page of at least one run, the oldest first."""
    environment = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True)
    environment.filters.update(clock=clock, human_size=human_size)
    last = records[-1]
    return environment.get_template("page.html.j2").render(
        last=last,
        critical=sum(job.seconds for job in critical_path(last.jobs)),
        rate=success_rate(records),
        count=len(records),
        timeline=timeline(last),
        trends=trends(records),
    )
