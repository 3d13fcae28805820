"""Workflow runs, their jobs and artifacts on the simulated GitHub, and what a run needs more.

A test tells what there is (:class:`Actions`); the endpoints show it as GitHub does. Also here:
branches, attestations, a Slack hook, and git's own address, which asks for a login as that of
a private repository does.

Source: GitHub REST API, "Workflow runs", "Workflow jobs", "Artifacts", "Git references",
"Artifact attestations"; git's documentation, "HTTP transfer protocols".
"""

import base64
import json
from typing import Any

from tests.services.github import Answer, Call, GitHubServer, Refusal, Route
from tests.services.releases import alone, now, repository, user

WEB = "https://github.com"
_LINKS = (
    "archive assignees blobs branches collaborators comments commits compare contents"
    " contributors deployments downloads events forks git_commits git_refs git_tags"
    " issue_comment issue_events issues keys labels languages merges milestones notifications"
    " pulls releases stargazers statuses subscribers subscription tags teams trees hooks"
)


class Actions:
    """What a test says of the runs of one repository."""

    def __init__(self, server: GitHubServer, name: str, workflow: str = "ci-cd.yml") -> None:
        self.server, self.store = server, server.store
        self.name = name
        self.store.put(
            "workflows", workflow, {"id": 700, "path": f".github/workflows/{workflow}"}
        )

    def run(self, number: int, **values: Any) -> None:
        """Add a run, or change it: its ``status``, ``conclusion`` and times."""
        known = {
            "event": "push",
            "head_branch": "main",
            "head_sha": "a" * 40,
            "status": "queued",
        }
        known |= {"created_at": now(), "run_started_at": now(), "conclusion": None}
        known |= self.store.get("runs", number) or {}
        value = {**known, **values, "id": number, "repository": self.name, "updated_at": now()}
        self.store.put("runs", number, value)

    def job(self, run: int, name: str, **values: Any) -> None:
        """Add a job of a run, or change it, by its display name."""
        key = f"{run} {name}"
        known = self.store.get("jobs", key) or {"id": self.store.next_id(), "created_at": now()}
        known = {"status": "queued", "conclusion": None, "completed_at": None} | known
        known.setdefault("started_at", known["created_at"])
        self.store.put("jobs", key, {**known, **values, "run_id": run, "name": name})

    def artifact(self, run: int, name: str, size: int) -> None:
        """Add an artifact of a run."""
        value = {"id": self.store.next_id(), "run": run, "name": name, "size_in_bytes": size}
        self.store.put("artifacts", value["id"], {**value, "created_at": now()})


# --- views ---------------------------------------------------------------------------


def _repository_view(call: Call, name: str) -> dict[str, Any]:
    url, short = f"{call.base}/repos/{name}", name.partition("/")[2]
    return {
        "id": 1, "node_id": "R_1", "name": short, "full_name": name, "private": False,
        "owner": user(name.partition("/")[0]), "html_url": f"{WEB}/{name}", "fork": False,
        "description": None, "url": url,
        **{f"{link}_url": f"{url}/{link}" for link in _LINKS.split()},
    }  # fmt: skip


def run_view(call: Call, run: dict[str, Any]) -> dict[str, Any]:
    """A run as GitHub shows it."""
    name, number, sha = run["repository"], run["id"], run["head_sha"]
    url, (workflow,) = f"{call.base}/repos/{name}/actions/runs/{number}", call.store.all(
        "workflows"
    )
    links = "jobs logs artifacts cancel rerun"
    person = {"name": "octocat", "email": "octocat@example.org"}
    commit = {"id": sha, "tree_id": sha, "message": "A change", "timestamp": run["created_at"]}
    return {
        **run, "node_id": f"WFR_{number}", "path": workflow["path"], "run_number": number,
        "run_attempt": 1, "workflow_id": workflow["id"], "url": url, "display_title": "A change",
        "html_url": f"{WEB}/{name}/actions/runs/{number}", "pull_requests": [],
        "check_suite_url": f"{call.base}/repos/{name}/check-suites/1",
        "workflow_url": f"{call.base}/repos/{name}/actions/workflows/{workflow['id']}",
        "head_commit": {**commit, "author": person, "committer": person},
        "repository": _repository_view(call, name),
        "head_repository": _repository_view(call, name),
        **{f"{link}_url": f"{url}/{link}" for link in links.split()},
    }  # fmt: skip


def job_view(call: Call, job: dict[str, Any]) -> dict[str, Any]:
    """A job as GitHub shows it."""
    run = call.store.get("runs", job["run_id"])
    base, number = f"{call.base}/repos/{run['repository']}", job["id"]
    skipped = job["conclusion"] == "skipped"
    return {
        **job, "run_url": f"{base}/actions/runs/{job['run_id']}", "node_id": f"CR_{number}",
        "head_sha": run["head_sha"], "url": f"{base}/actions/jobs/{number}", "steps": [],
        "html_url": f"{WEB}/{run['repository']}/actions/runs/{job['run_id']}/job/{number}",
        "check_run_url": f"{base}/check-runs/{number}", "labels": ["ubuntu-latest"],
        "runner_id": None if skipped else 1, "runner_name": None if skipped else "a runner",
        "runner_group_id": None, "runner_group_name": None, "workflow_name": "CI/CD",
        "head_branch": run["head_branch"],
    }  # fmt: skip


def artifact_view(call: Call, artifact: dict[str, Any]) -> dict[str, Any]:
    """An artifact as GitHub shows it."""
    run, number = call.store.get("runs", artifact["run"]), artifact["id"]
    url = f"{call.base}/repos/{run['repository']}/actions/artifacts/{number}"
    return {
        **{key: value for key, value in artifact.items() if key != "run"},
        "node_id": f"A_{number}", "url": url, "archive_download_url": f"{url}/zip",
        "expired": False, "expires_at": None, "updated_at": artifact["created_at"],
        "workflow_run": {"id": run["id"], "head_branch": run["head_branch"]},
    }  # fmt: skip


# --- endpoints -----------------------------------------------------------------------


def _readable(call: Call) -> str:
    """The repository's name, if the token may read its runs."""
    call.need("actions", "read")
    return str(repository(call)["full_name"])


def _listed(call: Call, key: str, views: list[dict[str, Any]]) -> Answer:
    """A page of a list that GitHub wraps with its length."""
    page = call.page(views)
    return Answer(200, {"total_count": len(views), key: page.data}, page.headers)


def _run(call: Call) -> dict[str, Any]:
    name, run = _readable(call), call.store.get("runs", call.values["run"])
    if run is None or run["repository"] != name:
        raise Refusal(404, "Not Found")
    return dict(run)


def get_workflow(call: Call) -> Answer:
    """A workflow by its number or its file's name."""
    name, asked = _readable(call), call.values["workflow"]
    for file, one in call.store.tables.get("workflows", {}).items():
        if asked in (file, str(one["id"])):
            url = f"{call.base}/repos/{name}/actions/workflows/{one['id']}"
            html, badge = f"{WEB}/{name}/blob/main/{one['path']}", f"{WEB}/{name}/badge.svg"
            more = {"node_id": "W_1", "name": "CI/CD", "state": "active", "badge_url": badge}
            more |= {"created_at": now(), "updated_at": now(), "url": url, "html_url": html}
            return Answer(200, {**one, **more})
    raise Refusal(404, "Not Found")


def list_runs(call: Call) -> Answer:
    """Runs, the newest first, of one workflow or all; by ``status``, ``branch``, ``event``."""
    name, asked = _readable(call), call.query
    if "workflow" in call.values:
        get_workflow(call)  # 404 if there is none
    runs = [run for run in call.store.all("runs") if run["repository"] == name]
    status = asked.get("status")
    runs = [run for run in runs if status in (None, run["status"], run["conclusion"])]
    for key, field in (("branch", "head_branch"), ("event", "event")):
        runs = [run for run in runs if asked.get(key) in (None, run[field])]
    runs.sort(key=lambda run: -int(run["id"]))
    return _listed(call, "workflow_runs", [run_view(call, run) for run in runs])


def get_run(call: Call) -> Answer:
    """One run."""
    return Answer(200, run_view(call, _run(call)))


def list_jobs(call: Call) -> Answer:
    """The jobs of a run: those that came to nothing yet, too."""
    number = _run(call)["id"]
    jobs = [job_view(call, job) for job in call.store.all("jobs") if job["run_id"] == number]
    return _listed(call, "jobs", jobs)


def get_job(call: Call) -> Answer:
    """One job."""
    _readable(call)
    for job in call.store.all("jobs"):
        if str(job["id"]) == call.values["job"]:
            return Answer(200, job_view(call, job))
    raise Refusal(404, "Not Found")


def list_artifacts(call: Call) -> Answer:
    """The artifacts of a run, or of all; by ``name``."""
    number = _run(call)["id"] if "run" in call.values else _readable(call) and None
    found = [one for one in call.store.all("artifacts") if number in (None, one["run"])]
    found = [one for one in found if call.query.get("name") in (None, one["name"])]
    return _listed(call, "artifacts", [artifact_view(call, one) for one in found])


def get_artifact(call: Call) -> Answer:
    """One artifact."""
    _readable(call)
    if not (one := call.store.get("artifacts", call.values["artifact"])):
        raise Refusal(404, "Not Found")
    return Answer(200, artifact_view(call, one))


def get_ref(call: Call) -> Answer:
    """The commit of a branch or a tag."""
    repo, ref = repository(call), call.values["ref"]
    kind, _, name = ref.partition("/")
    known = {"heads": repo.get("branches", {}), "tags": repo["tags"]}.get(kind, {})
    if not (sha := known.get(name)):
        raise Refusal(404, "Not Found")
    url = f"{call.base}/repos/{repo['full_name']}/git"
    target = {"type": "commit", "sha": sha, "url": f"{url}/commits/{sha}"}
    more = {"node_id": "REF_1", "url": f"{url}/refs/{ref}", "object": target}
    return Answer(200, {"ref": f"refs/{ref}", **more})


def create_attestation(call: Call) -> Answer:
    """Keep the in-toto statement of a bundle."""
    name, envelope = repository(call)["full_name"], call.json()["bundle"]["dsseEnvelope"]
    call.need("attestations", "write")
    statement, number = json.loads(base64.b64decode(envelope["payload"])), call.store.next_id()
    call.store.put("attestations", number, {**statement, "repository": name})
    return Answer(201, {"id": number})


def git_refs(call: Call) -> Answer:
    """What ``git ls-remote`` and ``git fetch`` ask first, of a repository that is private."""
    raise Refusal(401, "Repository not found.", headers={"WWW-Authenticate": "Basic"})


def slack(call: Call) -> Answer:
    """A Slack hook: keeps the message, and says ok."""
    call.store.put("messages", call.store.next_id(), call.json())
    ok = call.store.folder / "ok"
    ok.write_text("ok", encoding="utf-8")
    return Answer(file=ok)


_REPO = "/repos/{owner}/{repo}"
_ACTIONS = f"{_REPO}/actions"
ROUTES = [
    alone("GET", _ACTIONS + "/workflows/{workflow}", "actions/get-workflow", get_workflow),
    alone("GET", _ACTIONS + "/workflows/{workflow}/runs", "actions/list-workflow-runs", list_runs),
    alone("GET", _ACTIONS + "/runs", "actions/list-workflow-runs-for-repo", list_runs),
    alone("GET", _ACTIONS + "/runs/{run}", "actions/get-workflow-run", get_run),
    alone("GET", _ACTIONS + "/runs/{run}/jobs", "actions/list-jobs-for-workflow-run", list_jobs),
    alone("GET", _ACTIONS + "/runs/{run}/artifacts", "actions/list-workflow-run-artifacts",
          list_artifacts),
    alone("GET", _ACTIONS + "/jobs/{job}", "actions/get-job-for-workflow-run", get_job),
    alone("GET", _ACTIONS + "/artifacts", "actions/list-artifacts-for-repo", list_artifacts),
    alone("GET", _ACTIONS + "/artifacts/{artifact}", "actions/get-artifact", get_artifact),
    alone("GET", _REPO + "/git/ref/{ref*}", "git/get-ref", get_ref),
    alone("POST", _REPO + "/attestations", "repos/create-attestation", create_attestation),
    Route("GET", "/{owner}/{repo}/info/refs", "git", git_refs),
    alone("POST", "/services/{hook*}", "slack", slack),
]  # fmt: skip
