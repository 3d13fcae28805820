"""Which runs there are to show: of the Actions API where there is a token, else local.

Source: GitHub REST API, "Workflow runs", "Workflow jobs" and "Artifacts".
"""

import dataclasses
import re
from collections.abc import Iterable, Mapping
from datetime import datetime
from itertools import islice

from github.WorkflowJob import WorkflowJob
from github.WorkflowRun import WorkflowRun

from tools.core import console
from tools.core.errors import UsageError
from tools.core.settings import ROOT, Settings, load
from tools.github.client import connect
from tools.github.errors import GitHubError, refusals
from tools.repo.context import current_event
from tools.runs import record
from tools.runs.record import ArtifactRecord, JobRecord, MatrixJobRecord, RunRecord
from tools.workflow import model
from tools.workflow.model import Job, Workflow

WAIT_LIMIT = 30.0  # seconds: a picture is not worth the waits that a release is
# Conclusions that have another name here; others (neutral, stale ...) stay as they are.
_RESULTS = {"timed_out": "failure", "startup_failure": "failure"}
_WORST = ("failure", "cancelled", "running", "success", "skipped")


def find_records(env: Mapping[str, str], limit: int, local: bool = False) -> list[RunRecord]:
    """The runs to show, at most ``limit``, the oldest first (UsageError: there are none)."""
    settings = load(env)
    if settings.gh_token and not local and (name := current_event(env).repository):
        try:
            return fetch_records(settings, name, limit, env.get("GITHUB_RUN_ID", ""))
        except GitHubError as error:
            console.warn(f"The runs on Actions cannot be read: {error}")
    records = record.history(ROOT, limit)
    if not records:
        raise UsageError("There is no run to draw yet.", "Run nox -s pipeline first.")
    return records


def fetch_records(settings: Settings, name: str, limit: int, current: str) -> list[RunRecord]:
    """The last runs on Actions that have ended, the oldest first, then the ``current`` one,
    which goes on (GitHubError if it was refused, or there are none).
    """
    wait, graph = min(settings.github_time_limit, WAIT_LIMIT), model.load()
    github = connect(dataclasses.replace(settings, github_time_limit=wait))
    with refusals(f"the runs of {graph.path.name}"):
        there = github.get_repo(name)
        ended = there.get_workflow(graph.path.name).get_runs(status="completed")
        runs = [run for run in reversed([*islice(ended, limit)]) if str(run.id) != current]
        if current:
            runs.append(there.get_workflow_run(int(current)))
        if not runs:
            raise GitHubError(f"{name} has no run of {graph.path.name} that has ended.")
        return [run_record(run, graph) for run in runs]


def result_of(conclusion: str | None) -> str:
    """A conclusion of the API as a result of ours."""
    return _RESULTS.get(conclusion, conclusion) if conclusion else "running"


def run_record(run: WorkflowRun, graph: Workflow) -> RunRecord:
    """A run of the API, its jobs and artifacts, as a record."""
    began, listed = run.run_started_at, list(run.jobs())
    jobs = tuple(job_record(graph.jobs[name], listed, began) for name in graph.order())
    ends = [one.started + one.seconds for job in jobs for one in job.matrix_jobs]
    # The job that draws this is part of the run: what the others came to counts.
    so_far = "failure" if any(job.result == "failure" for job in jobs) else "success"
    return RunRecord(
        run=str(run.id),
        began=f"{began:%Y-%m-%dT%H:%M:%SZ}",
        event={"name": run.event, "ref": run.head_branch or ""},
        seconds=max(ends, default=0.0),
        result=result_of(run.conclusion) if run.conclusion else so_far,
        parallel=0,
        jobs=jobs,
        artifacts=tuple(ArtifactRecord(a.name, a.size_in_bytes) for a in run.get_artifacts()),
        address=run.html_url or "",
    )


def job_record(job: Job, listed: Iterable[WorkflowJob], began: datetime) -> JobRecord:
    """A job with all its matrix jobs, which are found by their display names."""
    parts = re.split(r"\$\{\{.*?\}\}", job.title)
    title = re.compile("(.+)".join(map(re.escape, parts)))
    every = []
    for one in listed:
        if match := title.fullmatch(one.name):
            # PyGithub's types leave out that both are missing while a job waits or runs.
            times: list[datetime | None] = [one.started_at, one.completed_at]
            start = times[0] or began
            took = max(0.0, ((times[1] or start) - start).total_seconds())
            since = max(0.0, (start - began).total_seconds())
            label, result = "-".join(match.groups()), result_of(one.conclusion)
            every.append(MatrixJobRecord(label, result, since, took, log=one.html_url or ""))
    results = {one.result for one in every}
    result = next((r for r in _WORST if r in results), next(iter(results), "skipped"))
    ran = tuple(one for one in every if one.result != "skipped")
    return JobRecord(job.name, job.needs, result, matrix_jobs=ran)
