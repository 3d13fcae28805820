"""The runner of benchmarks, and how it judges a promise."""

from __future__ import annotations

import importlib

import pytest

from bench import __main__ as runner
from bench.compare import compare, show


def test_every_benchmark_can_be_run_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    """Each module that is listed has a main; an unknown name is exit code 2, with the list."""
    names = runner.names()
    assert {"doctor", "lint"} <= set(names) and "compare" not in names
    for name in names:
        assert callable(importlib.import_module(f"bench.{name}").main)
    assert runner.main(["nonsense"]) == 2 and "lint" in capsys.readouterr().out


def test_ways_are_taken_in_turns_and_judged(capsys: pytest.CaptureFixture[str]) -> None:
    """A slow minute of the machine falls on all; the first round is not counted."""
    turns: list[str] = []
    measured = compare({"a": lambda: turns.append("a"), "b": lambda: turns.append("b")}, 3)
    assert turns == ["a", "b"] * 4
    assert [len(way.seconds) for way in measured] == [3, 3]
    ratio = measured[1].median / measured[0].median
    show(measured, ratio * 1.01)
    assert capsys.readouterr().out.endswith(": kept\n")
    show(measured, ratio * 0.99)
    assert capsys.readouterr().out.endswith(": NOT kept\n")
