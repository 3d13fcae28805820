"""The record of a local run, ``.nox/pipeline/<run>/run.json``, and its critical path."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

FOLDER = Path(".nox/pipeline")


@dataclass(frozen=True)
class LegRecord:
    """One combination of a job's matrix, or the job itself.

    Attributes:
        label: ``basic``; empty for a job without a matrix.
        result: ``success``, ``failure``, ``cancelled`` or ``not run``.
        started: Seconds since the run began.
        seconds: How long it took.
        reason: Why it failed or was not run.
        log: Path relative to the checkout; empty if it was not run.
    """

    label: str
    result: str
    started: float = 0.0
    seconds: float = 0.0
    reason: str = ""
    log: str = ""


@dataclass(frozen=True)
class JobRecord:
    """One job; ``legs`` is empty if it was skipped."""

    name: str
    needs: tuple[str, ...]
    result: str
    reason: str = ""
    log: str = ""
    legs: tuple[LegRecord, ...] = ()

    @property
    def started(self) -> float:
        """When its first leg began, in seconds since the run began."""
        return min((leg.started for leg in self.legs if leg.log), default=0.0)

    @property
    def seconds(self) -> float:
        """Its longest leg: what it takes where nothing has to wait for a processor."""
        return max((leg.seconds for leg in self.legs), default=0.0)


@dataclass(frozen=True)
class RunRecord:
    """A whole run.

    Attributes:
        run: Its name, which is the folder's.
        began: Time of its beginning, ISO 8601, UTC.
        event: The event, as ``plan`` shows it.
        seconds: Wall time.
        result: ``success``, ``failure`` or ``cancelled``.
        parallel: How many legs could run at the same time.
        jobs: In the file's order.
        artifacts: Name, bytes and SHA-256 of what it left in ``dist/``.
        images: The records of the images it built.
    """

    run: str
    began: str
    event: Mapping[str, Any]
    seconds: float
    result: str
    parallel: int
    jobs: tuple[JobRecord, ...]
    artifacts: tuple[Mapping[str, Any], ...] = ()
    images: tuple[Mapping[str, Any], ...] = field(default=())

    def to_json(self) -> dict[str, Any]:
        """Plain data, with the critical path."""
        chain = critical_path(self.jobs)
        found = asdict(self)
        found["critical_path"] = {
            "jobs": [job.name for job in chain],
            "seconds": sum(job.seconds for job in chain),
        }
        return found


def critical_path(jobs: Sequence[JobRecord]) -> list[JobRecord]:
    """The chain of jobs, each needing the one before, that took longest.

    No run can be faster than it, however many processors there are.

    Args:
        jobs: Each after all that it needs.
    """
    best: dict[str, list[JobRecord]] = {}
    for job in jobs:
        before = [best[name] for name in job.needs if name in best]
        longest = max(before, key=lambda chain: sum(j.seconds for j in chain), default=[])
        best[job.name] = [*longest, job]
    chain = max(best.values(), key=lambda chain: sum(j.seconds for j in chain), default=[])
    return [job for job in chain if job.seconds > 0]


def write(record: RunRecord, root: Path) -> Path:
    """Write the record, whole or not at all; its path."""
    path = root / FOLDER / record.run / "run.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(json.dumps(record.to_json(), indent=2) + "\n", encoding="utf-8")
    os.replace(part, path)
    return path


def read(data: Mapping[str, Any]) -> RunRecord:
    """A record of its plain data.

    Raises:
        KeyError, TypeError: It is no such data.
    """
    jobs = tuple(
        JobRecord(
            **{
                **job,
                "needs": tuple(job["needs"]),
                "legs": tuple(LegRecord(**leg) for leg in job["legs"]),
            }
        )
        for job in data["jobs"]
    )
    names = ("run", "began", "event", "seconds", "result", "parallel")
    return RunRecord(
        **{name: data[name] for name in names},
        jobs=jobs,
        artifacts=tuple(data.get("artifacts", ())),
        images=tuple(data.get("images", ())),
    )


def history(root: Path, limit: int = 50) -> list[RunRecord]:
    """The records of past runs, the oldest first; what is no record is passed over."""
    found = []
    for path in sorted((root / FOLDER).glob("*/run.json"))[-limit:]:
        try:
            found.append(read(json.loads(path.read_text(encoding="utf-8"))))
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return found
