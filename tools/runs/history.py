"""Past runs of the workflow on GitHub Actions, as records.

Source: GitHub REST API, "Workflow runs", "Workflow jobs" and "Artifacts".
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import datetime
from itertools import islice

from github.Artifact import Artifact
from github.Repository import Repository
from github.WorkflowJob import WorkflowJob
from github.WorkflowRun import WorkflowRun

from tools.github.errors import refusals
from tools.runs.record import ArtifactRecord, JobRecord, MatrixJobRecord, RunRecord
from tools.workflow.model import Job, Workflow

# Conclusions that have another name here; others (neutral, stale ...) stay as they are.
_RESULTS = {"timed_out": "failure", "startup_failure": "failure"}
_WORST = ("failure", "cancelled", "running", "success", "skipped")


def result_of(conclusion: str | None) -> str:
    """A conclusion of the API as a result of ours; ``running`` where there is none yet."""
    return _RESULTS.get(conclusion, conclusion) if conclusion else "running"


def title_pattern(job: Job) -> re.Pattern[str]:
    """What the display names of a job's matrix jobs look like."""
    parts = re.split(r"\$\{\{.*?\}\}", job.title)
    return re.compile("(.+)".join(map(re.escape, parts)))


def matrix_job(job: Job, data: WorkflowJob, began: datetime) -> MatrixJobRecord | None:
    """A job of the API as a matrix job of ``job``, or None if it is another's."""
    match = title_pattern(job).fullmatch(data.name)
    if match is None:
        return None
    label, result = "-".join(match.groups()), result_of(data.conclusion)
    if result == "skipped":
        return MatrixJobRecord(label, result)
    # PyGithub's types leave out that both are missing while a job waits or runs.
    started: datetime | None = data.started_at
    ended: datetime | None = data.completed_at
    started = started or began
    return MatrixJobRecord(
        label,
        result,
        max(0.0, (started - began).total_seconds()),
        max(0.0, (ended - started).total_seconds()) if ended else 0.0,
        log=data.html_url or "",
    )


def job_record(job: Job, listed: Iterable[WorkflowJob], began: datetime) -> JobRecord:
    """A job with all its matrix jobs."""
    every = [one for data in listed if (one := matrix_job(job, data, began)) is not None]
    results = {one.result for one in every}
    result = next((r for r in _WORST if r in results), next(iter(results), "skipped"))
    ran = tuple(one for one in every if one.result != "skipped")
    return JobRecord(job.name, job.needs, result, matrix_jobs=ran)


def artifact_record(data: Artifact) -> ArtifactRecord:
    """An artifact of the API."""
    return ArtifactRecord(data.name, data.size_in_bytes)


def run_record(
    run: WorkflowRun,
    listed: Iterable[WorkflowJob],
    artifacts: Iterable[Artifact],
    graph: Workflow,
) -> RunRecord:
    """A run of the API, its jobs and artifacts, as a record."""
    began = run.run_started_at
    every = list(listed)
    jobs = tuple(job_record(graph.jobs[name], every, began) for name in graph.order())
    ends = [one.started + one.seconds for job in jobs for one in job.matrix_jobs]
    result = result_of(run.conclusion)
    if result == "running":
        # The job that draws this is part of the run: what the others came to counts.
        failed = any(job.result == "failure" for job in jobs)
        result = "failure" if failed else "success"
    return RunRecord(
        run=str(run.id),
        began=f"{began:%Y-%m-%dT%H:%M:%SZ}",
        event={"name": run.event, "ref": run.head_branch or ""},
        seconds=max(ends, default=0.0),
        result=result,
        parallel=0,
        jobs=jobs,
        artifacts=tuple(map(artifact_record, artifacts)),
    )


def fetch_history(
    repository: Repository, graph: Workflow, limit: int, current: str = ""
) -> list[RunRecord]:
    """The last runs of the workflow that have ended, the oldest first.

    Args:
        repository: Where it runs.
        graph: The workflow.
        limit: How many runs at most.
        current: Id of the run that goes on; it comes last.

    Raises:
        GitHubError: It was refused.
    """
    with refusals(f"the runs of {graph.path.name}"):
        workflow = repository.get_workflow(graph.path.name)
        ended = islice(workflow.get_runs(status="completed"), limit)
        runs = [run for run in reversed(list(ended)) if str(run.id) != current]
        if current:
            runs.append(repository.get_workflow_run(int(current)))
        return [run_record(run, run.jobs(), run.get_artifacts(), graph) for run in runs]
