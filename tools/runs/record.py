"""The record of a run, ``dist/runs/<run>/run.json``, and its critical path."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tools.core import files
from tools.core.errors import PipelineError
from tools.images.record import ImageRecord

FOLDER = Path("dist/runs")


@dataclass(frozen=True)
class MatrixJobRecord:
    """One combination of a job's matrix, or the job itself.

    Attributes:
        label: ``basic``; empty for a job without a matrix.
        result: ``success``, ``failure``, ``cancelled``, ``running`` or ``not run``.
        started: Seconds since the run began.
        seconds: How long it took.
        reason: Why it failed or was not run.
        log: Path relative to the checkout, or the address of its page on Actions; empty
            if it was not run.
    """

    label: str
    result: str
    started: float = 0.0
    seconds: float = 0.0
    reason: str = ""
    log: str = ""


@dataclass(frozen=True)
class JobRecord:
    """One job; ``matrix_jobs`` is empty if it was skipped."""

    name: str
    needs: tuple[str, ...]
    result: str
    reason: str = ""
    matrix_jobs: tuple[MatrixJobRecord, ...] = ()

    @property
    def started(self) -> float:
        """When its first matrix job began, in seconds since the run began."""
        return min((one.started for one in self.matrix_jobs if one.log), default=0.0)

    @property
    def seconds(self) -> float:
        """Its longest matrix job: what it takes where none waits for a processor."""
        return max((one.seconds for one in self.matrix_jobs), default=0.0)


@dataclass(frozen=True)
class ArtifactRecord:
    """A file that a run left: name, bytes, SHA-256 (empty where it is not known)."""

    name: str
    size: int
    sha256: str = ""


@dataclass(frozen=True)
class RunRecord:
    """A whole run.

    Attributes:
        run: Its name, which is the folder's.
        began: Time of its beginning, ISO 8601, UTC.
        event: The event, as ``plan`` shows it.
        seconds: Wall time.
        result: ``success``, ``failure`` or ``cancelled``.
        parallel: How many matrix jobs could run at the same time.
        jobs: In the file's order.
        artifacts: What it left in ``dist/``.
        images: The records of the images it built.
    """

    run: str
    began: str
    event: Mapping[str, str | int | bool | None]
    seconds: float
    result: str
    parallel: int
    jobs: tuple[JobRecord, ...]
    artifacts: tuple[ArtifactRecord, ...] = ()
    images: tuple[ImageRecord, ...] = ()

    @property
    def title(self) -> str:
        """``push of refs/heads/main``."""
        return f"{self.event.get('name', '')} of {self.event.get('ref', '')}"

    def to_json(self) -> dict[str, object]:
        """Plain data, with the critical path."""
        chain = critical_path(self.jobs)
        longest = sum(job.seconds for job in chain)
        path = {"jobs": [job.name for job in chain], "seconds": longest}
        return {**vars(self), "critical_path": path}


def critical_path(jobs: Sequence[JobRecord]) -> list[JobRecord]:
    """The chain of jobs, each needing the one before, that took longest.

    No run can be faster than it, however many processors there are.

    Args:
        jobs: Each after all that it needs.
    """

    def seconds(chain: Sequence[JobRecord]) -> float:
        return sum(job.seconds for job in chain)

    best: dict[str, list[JobRecord]] = {}
    for job in jobs:
        before = [best[name] for name in job.needs if name in best]
        best[job.name] = [*max(before, key=seconds, default=[]), job]
    return [job for job in max(best.values(), key=seconds, default=[]) if job.seconds > 0]


def write(record: RunRecord, root: Path) -> Path:
    """Write the record, whole or not at all; its path."""
    path = root / FOLDER / record.run / "run.json"
    files.write_json(path, record.to_json())
    return path


def history(root: Path, limit: int = 50) -> list[RunRecord]:
    """The records of past runs, the oldest first; what is not a record is passed over."""
    records = []
    for path in sorted((root / FOLDER).glob("*/run.json"))[-limit:]:
        try:
            records.append(files.read_json(path, RunRecord))
        except (OSError, PipelineError):
            continue
    return records
