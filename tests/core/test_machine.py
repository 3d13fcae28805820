"""How much is compiled at once."""

import os
from pathlib import Path

import psutil
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tools.core import machine

bounds = st.one_of(st.none(), st.integers(1, 2**45))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(1, 512), bounds, bounds, bounds, st.integers(0, 2**40))
def test_jobs_exceed_no_bound(
    tmp_path: Path, host: int, quota: int | None, limit: int | None, used: int | None, each: int
) -> None:
    """All processors, but what runs together fits the host, the container's quota and its
    memory; one compiler always runs. ``max``, or no file, bounds nothing.
    """
    (tmp_path / "cpu.max").write_text(f"{quota or 'max'} 100000\n")
    (tmp_path / "memory.max").write_text(f"{limit or 'max'}\n")
    (tmp_path / "memory.current").unlink(missing_ok=True)
    if used:
        (tmp_path / "memory.current").write_text(f"{used}\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "sched_getaffinity", lambda _pid: range(host), raising=False)
        free = psutil.virtual_memory()
        patch.setattr(psutil, "virtual_memory", lambda: free)
        jobs = machine.parallel_jobs(each, tmp_path)
    left = min(free.available, limit - used if limit and used else free.available)
    fits = [host, *([quota // 100000] if quota else []), *([left // each] if each else [])]
    assert jobs == max(1, min(fits))


def test_outside_a_container(tmp_path: Path) -> None:
    """Without control groups there is still an answer."""
    assert machine.parallel_jobs(0, tmp_path) >= 1
