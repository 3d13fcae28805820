"""What this machine is, and what it can take at once (container limits included)."""

import os
import platform
from pathlib import Path

import psutil

CGROUP = Path("/sys/fs/cgroup")
# Source: GitHub, "Contexts reference", runner.os and runner.arch.
_SYSTEMS = {"Linux": "Linux", "Windows": "Windows", "Darwin": "macOS"}
_ARCHITECTURES = {"x86_64": "X64", "amd64": "X64", "aarch64": "ARM64", "arm64": "ARM64"}


def runner() -> tuple[str, str]:
    """System and architecture as a runner of Actions on this machine would name them; empty
    what has no runners.
    """
    machine = platform.machine().lower()
    return _SYSTEMS.get(platform.system(), ""), _ARCHITECTURES.get(machine, "")


def _numbers(file: Path) -> list[int]:
    """The numbers in a file of Linux's "Control Group v2"; none if it says ``max``."""
    try:
        return [int(word) for word in file.read_text(encoding="ascii").split()]
    except (OSError, ValueError):
        return []


def parallel_jobs(memory_each: int, cgroup: Path = CGROUP) -> int:
    """Compilers to run at once, at least one: as many as processors that we may use (a
    container sees all of its host's), each with ``memory_each`` bytes of what is free.
    """
    affinity = getattr(os, "sched_getaffinity", None)
    jobs = len(affinity(0)) if affinity else os.cpu_count() or 1
    if quota := _numbers(cgroup / "cpu.max"):
        jobs = min(jobs, quota[0] // quota[1])
    free = int(psutil.virtual_memory().available)
    limit, used = _numbers(cgroup / "memory.max"), _numbers(cgroup / "memory.current")
    if limit and used:
        free = min(free, limit[0] - used[0])
    if memory_each:
        jobs = min(jobs, free // memory_each)
    return max(1, jobs)
