"""What this machine can take at once: processors and memory, container limits included."""

from __future__ import annotations

import os
from pathlib import Path

import psutil

CGROUP = Path("/sys/fs/cgroup")


def _cgroup_numbers(name: str, folder: Path) -> list[int]:
    """The leading whole numbers of a control-group file; none if it says ``max``."""
    try:
        words = (folder / name).read_text(encoding="ascii").split()
    except OSError:
        return []
    return [int(word) for word in words] if words and words[0].isdecimal() else []


def processors(cgroup: Path = CGROUP) -> int:
    """Processors that we may use, at least 1.

    The affinity of the process and the quota of its control group bound it: a
    container sees all the processors of its host, but may not use them.

    Source: Linux, "Control Group v2", ``cpu.max``.
    """
    if hasattr(os, "sched_getaffinity"):
        count = len(os.sched_getaffinity(0))
    else:
        count = os.cpu_count() or 1
    quota = _cgroup_numbers("cpu.max", cgroup)
    if len(quota) == 2 and quota[1] > 0:
        count = min(count, quota[0] // quota[1])
    return max(1, count)


def available_memory(cgroup: Path = CGROUP) -> int:
    """Bytes of memory that can be taken without swapping.

    Source: Linux, "Control Group v2", ``memory.max`` and ``memory.current``.
    """
    free = int(psutil.virtual_memory().available)
    limit = _cgroup_numbers("memory.max", cgroup)
    used = _cgroup_numbers("memory.current", cgroup)
    if limit and used:
        free = min(free, max(0, limit[0] - used[0]))
    return free


def parallel_jobs(processors: int, memory: int, memory_each: int) -> int:
    """Compilers to run at once: all processors within the memory, at least one (pure).

    Args:
        processors: Processors that may be used.
        memory: Bytes available.
        memory_each: Bytes reckoned for one compiler; 0 for no bound.
    """
    fitting = memory // memory_each if memory_each else processors
    return max(1, min(processors, fitting))
