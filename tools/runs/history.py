"""Past runs of the workflow on GitHub Actions, in the form of local run records.

Source: GitHub REST API, "Workflow runs", "Workflow jobs" and "Artifacts".
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterable, Mapping
from typing import Any

from tools.github.old import GitHub
from tools.runs.record import JobRecord, LegRecord, RunRecord
from tools.workflow.model import Job, Workflow

# Results that a run can have; others (neutral, stale ...) are shown as they are.
_RESULTS = {"timed_out": "failure", "startup_failure": "failure", None: "running"}


def parse_time(text: str | None) -> float:
    """Seconds since the epoch of an ISO 8601 time; 0 for none."""
    if not text:
        return 0.0
    return datetime.datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


def result_of(conclusion: str | None) -> str:
    """A conclusion of the API as a result of ours."""
    return _RESULTS.get(conclusion, str(conclusion))


def title_pattern(job: Job) -> re.Pattern[str]:
    """What the display names of a job's legs look like."""
    parts = re.split(r"\$\{\{.*?\}\}", job.title)
    return re.compile("(.+)".join(map(re.escape, parts)))


def leg_of(job: Job, data: Mapping[str, Any], began: float) -> LegRecord | None:
    """A job of the API as a leg of ``job``, or None if it is another's."""
    match = title_pattern(job).fullmatch(str(data["name"]))
    if match is None:
        return None
    started, ended = parse_time(data.get("started_at")), parse_time(data.get("completed_at"))
    result = result_of(data.get("conclusion"))
    if result == "skipped":
        return LegRecord("-".join(match.groups()), result)
    took = max(0.0, ended - started) if ended else 0.0
    where = str(data.get("html_url") or "")
    return LegRecord(
        "-".join(match.groups()), result, max(0.0, started - began), took, "", where
    )


_WORST = ("failure", "cancelled", "running", "success", "skipped")


def job_record(job: Job, listed: Iterable[Mapping[str, Any]], began: float) -> JobRecord:
    """A job with all its legs."""
    legs = [leg for data in listed if (leg := leg_of(job, data, began)) is not None]
    results = {leg.result for leg in legs}
    result = next((r for r in _WORST if r in results), next(iter(results), "skipped"))
    ran = tuple(leg for leg in legs if leg.result != "skipped")
    return JobRecord(job.name, job.needs, result, legs=ran)


def run_record(
    run: Mapping[str, Any],
    jobs: Iterable[Mapping[str, Any]],
    artifacts: Iterable[Mapping[str, Any]],
    graph: Workflow,
) -> RunRecord:
    """A run of the API, its jobs and artifacts, as a record."""
    began = parse_time(run.get("run_started_at") or run["created_at"])
    listed = list(jobs)
    records = tuple(job_record(graph.jobs[name], listed, began) for name in graph.order())
    ends = [leg.started + leg.seconds for job in records for leg in job.legs]
    result = result_of(run.get("conclusion"))
    if result == "running":
        # The job that draws this is part of the run: what the others came to counts.
        failed = any(job.result == "failure" for job in records)
        result = "failure" if failed else "success"
    return RunRecord(
        run=str(run["id"]),
        began=str(run.get("run_started_at") or run["created_at"]),
        event={"name": run.get("event", ""), "ref": run.get("head_branch") or ""},
        seconds=max(ends, default=0.0),
        result=result,
        parallel=0,
        jobs=records,
        artifacts=tuple(
            {"name": a["name"], "size": a["size_in_bytes"], "sha256": a.get("digest", "")}
            for a in artifacts
        ),
    )


def fetch_run(
    github: GitHub, repository: str, run: Mapping[str, Any], graph: Workflow
) -> RunRecord:
    """A run with its jobs and artifacts.

    Raises:
        GitHubError: It was refused.
    """
    base = f"/repos/{repository}/actions/runs/{run['id']}"
    jobs = [j for page in github.pages(f"{base}/jobs") for j in page.data["jobs"]]
    found = github.request("GET", f"{base}/artifacts", params={"per_page": 100})
    return run_record(run, jobs, found.data["artifacts"], graph)


def fetch_history(
    github: GitHub, repository: str, graph: Workflow, limit: int, current: str = ""
) -> list[RunRecord]:
    """The last runs of the workflow that have ended, the oldest first.

    Args:
        github: The client.
        repository: ``owner/name``.
        graph: The workflow.
        limit: How many runs at most.
        current: Id of the run that goes on; it comes last.

    Raises:
        GitHubError: It was refused.
    """
    address = f"/repos/{repository}/actions/workflows/{graph.path.name}/runs"
    query = {"status": "completed", "per_page": limit}
    listed = github.request("GET", address, params=query).data["workflow_runs"][:limit]
    found = [fetch_run(github, repository, run, graph) for run in reversed(listed)]
    if current:
        now = github.request("GET", f"/repos/{repository}/actions/runs/{current}").data
        found = [record for record in found if record.run != current]
        found.append(fetch_run(github, repository, now, graph))
    return found
