"""Charts as SVG text: a run's time line, trends over runs. Colours come from the page."""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tools.runs.record import JobRecord, RunRecord

WIDTH = 900
ROW = 26
LABEL = 270  # room for the names of jobs


def clock(seconds: float) -> str:
    """``7.3 s``, ``2:05 min`` or ``1:02 h``."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}:{rest:02d} min"
    return f"{minutes // 60}:{minutes % 60:02d} h"


def ticks(most: float, about: int = 5) -> list[float]:
    """Round numbers from 0 to at least ``most``, about as many as asked for."""
    if most <= 0:
        return [0.0, 1.0]
    raw = most / about
    power: float = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw)
    return _until(most, step)


def time_ticks(most: float, about: int = 5) -> list[float]:
    """As :func:`ticks`, for seconds: steps that are round on a clock."""
    steps = (15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400)
    fitting = [step for step in steps if step >= most / about]
    return ticks(most, about) if most <= 60 or not fitting else _until(most, fitting[0])


def _until(most: float, step: float) -> list[float]:
    return [step * index for index in range(math.ceil(most / step) + 1)]


def svg(height: float, title: str, content: str) -> str:
    """A picture that fits its place, with its title for who cannot see it."""
    return (
        f'<svg viewBox="0 0 {WIDTH} {height:.0f}" role="img" aria-label="{html.escape(title)}">'
        f"{content}</svg>"
    )


def _text(x: float, y: float, text: str, kind: str = "", anchor: str = "start") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}" text-anchor="{anchor}">'
        f"{html.escape(text)}</text>"
    )


def _bar(x: float, y: float, wide: float, high: float, kind: str, tip: str) -> str:
    return (
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{max(wide, 1.5):.1f}" height="{high:.1f}" '
        f'rx="3" class="bar {html.escape(kind)}"><title>{html.escape(tip)}</title></rect>'
    )


def _rows(jobs: Sequence[JobRecord]) -> list[tuple[str, str, float, float]]:
    """(name, result, started, seconds) of every leg, and of jobs that had none."""
    found = []
    for job in jobs:
        if not job.legs:
            found.append((job.name, job.result, 0.0, 0.0))
        for leg in job.legs:
            name = f"{job.name} ({leg.label})" if leg.label else job.name
            found.append((name, leg.result, leg.started, leg.seconds))
    return found


def timeline(record: RunRecord) -> str:
    """When each job of a run began and ended."""
    rows = _rows(record.jobs)
    most = max([record.seconds, *(start + took for _, _, start, took in rows)])
    marks = time_ticks(most)
    scale = (WIDTH - LABEL - 90) / marks[-1]
    height = len(rows) * ROW + 30
    parts = []
    for mark in marks:
        x = LABEL + mark * scale
        parts.append(
            f'<line x1="{x:.1f}" x2="{x:.1f}" y1="4" y2="{height - 22}" class="grid"/>'
        )
        parts.append(_text(x, height - 6, clock(mark) if mark else "0", "axis", "middle"))
    for index, (name, result, start, took) in enumerate(rows):
        y = index * ROW + 6
        parts.append(_text(LABEL - 10, y + 14, name, "label", "end"))
        x = LABEL + start * scale
        if took:
            tip = f"{name}: {result}, {clock(took)} from {clock(start)} on"
            parts.append(_bar(x, y, took * scale, ROW - 8, result.replace(" ", "-"), tip))
            said = clock(took) if result == "success" else f"{clock(took)}, {result}"
            parts.append(_text(x + took * scale + 6, y + 14, said, "value"))
        else:
            parts.append(_text(LABEL + 2, y + 14, result, "value"))
    return svg(height, f"Time line of run {record.run}", "".join(parts))


@dataclass(frozen=True)
class Point:
    """One run in a trend: what to call it, its value, its result."""

    name: str
    value: float
    kind: str = "success"


def trend(title: str, points: Sequence[Point], shown: Callable[[float], str]) -> str:
    """One bar a run, the newest on the right."""
    height, left, bottom = 190.0, 80.0, 24.0
    most = max((p.value for p in points), default=0.0)
    marks = time_ticks(most, 4) if shown is clock else ticks(most, 4)
    scale = (height - bottom - 12) / marks[-1]
    step = (WIDTH - left - 10) / max(len(points), 12)
    parts = []
    for mark in marks:
        y = height - bottom - mark * scale
        parts.append(f'<line x1="{left}" x2="{WIDTH}" y1="{y:.1f}" y2="{y:.1f}" class="grid"/>')
        parts.append(_text(left - 8, y + 4, shown(mark) if mark else "0", "axis", "end"))
    for index, point in enumerate(points):
        x = left + 6 + index * step
        high = point.value * scale
        tip = f"{point.name}: {shown(point.value)}, {point.kind}"
        y = height - bottom - high
        wide = min(step * 0.7, 48)
        parts.append(_bar(x, y, wide, max(high, 1.5), point.kind.replace(" ", "-"), tip))
    if points:
        parts.append(_text(left, height - 6, points[0].name, "axis"))
        if len(points) > 1:
            parts.append(_text(WIDTH, height - 6, points[-1].name, "axis", "end"))
    return svg(height, title, "".join(parts))
