"""Comparing ways to the same end: taken in turns, the medians set side by side."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Measured:
    """Seconds of each round of one way."""

    name: str
    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        """The middle round."""
        return statistics.median(self.seconds)


def compare(ways: Mapping[str, Callable[[], object]], rounds: int = 7) -> list[Measured]:
    """Time each way ``rounds`` times, in turns, after one round that is not counted.

    In turns, so that what else the machine does falls on all of them alike.
    """
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds + 1):
        for name, way in ways.items():
            begun = time.perf_counter()
            way()
            if number:
                taken[name].append(time.perf_counter() - begun)
    return [Measured(name, tuple(seconds)) for name, seconds in taken.items()]


def show(measured: list[Measured], limit: float | None = None) -> None:
    """Print each way's median and its ratio to the first, which is the yardstick.

    Args:
        measured: From :func:`compare`.
        limit: The ratio that the last way promises to stay within.
    """
    base = measured[0].median
    width = max(len(m.name) for m in measured)
    print(f"{'':{width}}  median s   min s   max s  ratio")
    for m in measured:
        low, high = min(m.seconds), max(m.seconds)
        ratio = m.median / base
        print(f"{m.name:{width}}  {m.median:8.2f}  {low:6.2f}  {high:6.2f}  {ratio:5.2f}")
    if limit is not None:
        kept = measured[-1].median / base <= limit
        print(f"promised: at most {limit} of the first: {'kept' if kept else 'NOT kept'}")
