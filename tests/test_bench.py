"""The runner of benchmarks, and how it compares."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

from bench import __main__ as runner
from bench.compare import Measured, compare, show
from tools.core.settings import ROOT


def test_every_benchmark_can_be_run_by_name() -> None:
    """Each module that is listed has a main, and helpers are not listed."""
    names = runner.names()
    assert {"doctor", "lint"} <= set(names) and "compare" not in names
    for name in names:
        assert callable(importlib.import_module(f"bench.{name}").main)


def test_an_unknown_name() -> None:
    """Exit code 2, and the names that there are."""
    command = [sys.executable, "-m", "bench", "nonsense"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and "lint" in done.stdout


def test_ways_are_taken_in_turns() -> None:
    """So that a slow minute of the machine falls on all; the first round is not counted."""
    taken: list[str] = []
    measured = compare({"a": lambda: taken.append("a"), "b": lambda: taken.append("b")}, 3)
    assert taken == ["a", "b"] * 4
    assert [len(m.seconds) for m in measured] == [3, 3]


@pytest.mark.parametrize(("seconds", "kept"), [(0.7, True), (0.9, False)])
def test_promises_are_judged(
    capsys: pytest.CaptureFixture[str], seconds: float, kept: bool
) -> None:
    """The ratio of medians to the first way, against the promise."""
    show([Measured("hand", (0.5, 1.0, 9.0)), Measured("ours", (seconds,) * 3)], 0.8)
    out = capsys.readouterr().out
    assert f"{seconds:.2f}" in out.splitlines()[2].split()[-1]
    assert out.endswith("kept\n") and ("NOT kept" in out) is not kept
