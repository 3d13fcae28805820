"""The runner of benchmarks."""

import importlib

import pytest

from bench import __main__ as runner


def test_every_benchmark_can_be_run_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    """Each module that is listed has a main; an unknown name is exit code 2, with the list."""
    names = runner.names()
    assert {"doctor", "lint"} <= set(names) and "compare" not in names
    for name in names:
        assert callable(importlib.import_module(f"bench.{name}").main)
    assert runner.main(["nonsense"]) == 2 and "lint" in capsys.readouterr().out
