"""tools.core.machine: how much is compiled at once."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tools.core import machine

GB = 10**9


@pytest.mark.parametrize(
    ("processors", "memory", "each", "jobs"),
    [
        (8, 64 * GB, 2 * GB, 8),
        (8, 7 * GB, 2 * GB, 3),
        (8, 1 * GB, 2 * GB, 1),
        (8, 0, 0, 8),
        (1, 64 * GB, 2 * GB, 1),
    ],
)
def test_jobs(processors: int, memory: int, each: int, jobs: int) -> None:
    """All processors, but never more compilers than the memory holds, and at least one."""
    assert machine.parallel_jobs(processors, memory, each) == jobs


@given(st.integers(1, 512), st.integers(0, 2**45), st.integers(0, 2**40))
def test_jobs_never_exceed_either_bound(processors: int, memory: int, each: int) -> None:
    """More than one compiler always fits into the memory and onto the processors."""
    jobs = machine.parallel_jobs(processors, memory, each)
    assert 1 <= jobs <= processors
    assert jobs == 1 or jobs * each <= memory


def test_container_limits(tmp_path: Path) -> None:
    """A container's quotas bound what the host would offer."""
    (tmp_path / "cpu.max").write_text("100000 100000\n")
    (tmp_path / "memory.max").write_text("3000000\n")
    (tmp_path / "memory.current").write_text("1000000\n")
    assert machine.processors(tmp_path) == 1
    assert machine.available_memory(tmp_path) == 2_000_000


def test_no_limits(tmp_path: Path) -> None:
    """``max``, or no control group at all, bounds nothing."""
    unbounded = machine.processors(tmp_path), machine.available_memory(tmp_path)
    (tmp_path / "cpu.max").write_text("max 100000\n")
    (tmp_path / "memory.max").write_text("max\n")
    assert machine.processors(tmp_path) == unbounded[0]
    assert machine.available_memory(tmp_path) > 1_000_000
