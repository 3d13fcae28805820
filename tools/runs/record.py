"""The record of a run, ``dist/runs/<run>/run.json``, and its critical path."""

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tools.core import files
from tools.core.errors import PipelineError
from tools.images.record import ImageRecord

FOLDER = Path("dist/runs")


@dataclass
class MatrixJobRecord:
    """One combination of a job's matrix, or the job itself."""

    label: str  # basic; empty for a job without a matrix
    result: str  # success, failure, cancelled, running or not run
    started: float = 0.0  # seconds since the run began
    seconds: float = 0.0
    reason: str = ""  # why it failed or was not run
    log: str = ""  # relative to the checkout, or its page on Actions; empty if not run


@dataclass(frozen=True)
class JobRecord:
    """One job; ``matrix_jobs`` is empty if it was skipped."""

    name: str
    needs: tuple[str, ...]
    result: str
    reason: str = ""
    matrix_jobs: tuple[MatrixJobRecord, ...] = ()

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
    """A whole run."""

    run: str  # its name, which is the folder's
    began: str  # ISO 8601, UTC
    event: Mapping[str, str | int | bool | None]  # as plan shows it
    seconds: float  # wall time
    result: str  # success, failure or cancelled
    parallel: int  # how many matrix jobs could run at the same time
    jobs: tuple[JobRecord, ...]  # each after those it needs
    artifacts: tuple[ArtifactRecord, ...] = ()  # what it left in dist/
    images: tuple[ImageRecord, ...] = ()  # those that it built
    address: str = ""  # its page on Actions

    @property
    def title(self) -> str:
        """``push of refs/heads/main``."""
        return f"{self.event.get('name', '')} of {self.event.get('ref', '')}"

    def to_json(self) -> dict[str, object]:
        """Plain data, with the critical path."""
        chain = critical_path(self.jobs)
        path = {"jobs": [job.name for job in chain], "seconds": sum(j.seconds for j in chain)}
        return {**vars(self), "critical_path": path}


def critical_path(jobs: Sequence[JobRecord]) -> list[JobRecord]:
    """The chain of jobs, each needing the one before, that took longest: no run can be
    faster, however many processors there are. ``jobs`` come after those they need.
    """

    def seconds(chain: Sequence[JobRecord]) -> float:
        return sum(job.seconds for job in chain)

    best: dict[str, list[JobRecord]] = {}
    for job in jobs:
        before = [best[name] for name in job.needs if name in best]
        best[job.name] = [*max(before, key=seconds, default=[]), job]
    return [job for job in max(best.values(), key=seconds, default=[]) if job.seconds > 0]


def write(record: RunRecord, root: Path) -> None:
    """Write the record, whole or not at all."""
    files.write_json(root / FOLDER / record.run / "run.json", record.to_json())


def history(root: Path, limit: int = 50) -> list[RunRecord]:
    """The records of past runs, the oldest first; what is not a record is passed over."""
    records = []
    for path in sorted((root / FOLDER).glob("*/run.json"))[-limit:]:
        with contextlib.suppress(OSError, PipelineError):
            records.append(files.read_json(path, RunRecord))
    return records
