"""The simulated GitHub against descriptions and clients that are not ours.

``githubkit`` is generated from GitHub's OpenAPI document: its models say what an answer
must hold. ``gh`` is GitHub's own client.
"""

import base64
import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from githubkit import GitHub as GitHubKit
from githubkit.exception import RequestFailed
from githubkit_schemas.latest import models

from tests.github.conftest import TOKEN, github
from tests.services.actions import Actions
from tests.services.certificates import certificates
from tests.services.faults import Fault
from tests.services.github import GitHubServer, Token
from tests.services.releases import now

OWNER, REPO, TAG = "owner", "name", "v1.0.0"


def client(server: GitHubServer, token: str = TOKEN) -> GitHubKit[Any]:
    return GitHubKit(token, base_url=f"{server.url}/", auto_retry=False)


@pytest.fixture
def kit(server: GitHubServer) -> GitHubKit[Any]:
    return client(server)


def upload(kit: GitHubKit[Any], release: models.Release, name: str) -> models.ReleaseAsset:
    """Upload through githubkit's plain request: it has no streaming upload of its own."""
    address = release.upload_url.partition("{")[0]
    answer = kit.request(
        "POST", address, params={"name": name}, content=b"content",
        headers={"Content-Type": "text/plain"}, response_model=models.ReleaseAsset,
    )  # fmt: skip
    return answer.parsed_data


def test_every_answer_is_what_openapi_says(kit: GitHubKit[Any]) -> None:
    """githubkit parses each endpoint's answer into its model, required fields and all."""
    repos = kit.rest.repos
    release = repos.create_release(OWNER, REPO, tag_name=TAG, name="x", draft=True).parsed_data
    assert release.draft is True and release.published_at is None
    asset = upload(kit, release, "a.txt")
    assert asset.state == "uploaded" and str(asset.digest).startswith("sha256:")
    number = release.id
    assert repos.list_releases(OWNER, REPO).parsed_data[0].id == number
    assert repos.get_release(OWNER, REPO, number).parsed_data.assets[0].name == "a.txt"
    assert repos.list_release_assets(OWNER, REPO, number).parsed_data[0].size == 7
    assert repos.get_release_asset(OWNER, REPO, asset.id).parsed_data.id == asset.id
    renamed = repos.update_release_asset(OWNER, REPO, asset.id, name="b.txt").parsed_data
    assert renamed.name == "b.txt"
    notes = repos.generate_release_notes(OWNER, REPO, tag_name=TAG).parsed_data
    assert TAG in notes.body
    done = repos.update_release(OWNER, REPO, number, draft=False).parsed_data
    assert done.draft is False and done.published_at is not None
    assert repos.get_release_by_tag(OWNER, REPO, TAG).parsed_data.id == number
    assert repos.get_latest_release(OWNER, REPO).parsed_data.id == number
    assert repos.delete_release_asset(OWNER, REPO, asset.id).status_code == 204
    assert repos.delete_release(OWNER, REPO, number).status_code == 204
    assert kit.rest.rate_limit.get().parsed_data.resources.core.limit == 5000


def refused(call: Callable[[], object]) -> tuple[int, dict[str, Any]]:
    """Status and body of a request that GitHub refuses."""
    with pytest.raises(RequestFailed) as caught:
        call()
    return caught.value.response.status_code, json.loads(caught.value.response.text)


def test_errors_are_what_openapi_says(server: GitHubServer, kit: GitHubKit[Any]) -> None:
    """Error bodies fit the models of the basic and of the validation error."""
    repos = kit.rest.repos
    status, body = refused(lambda: repos.get_release_by_tag(OWNER, REPO, "v9"))
    assert status == 404 and models.BasicError.model_validate(body).message == "Not Found"
    assert body["status"] == "404" and body["documentation_url"].startswith("https://")
    repos.create_release(OWNER, REPO, tag_name=TAG)
    status, body = refused(lambda: repos.create_release(OWNER, REPO, tag_name=TAG))
    error = models.ValidationError.model_validate(body)
    assert status == 422 and error.message == "Validation Failed"
    [listed] = body["errors"]
    assert listed == {"resource": "Release", "code": "already_exists", "field": "tag_name"}
    other = client(server, "ghp_wrong")
    status, body = refused(lambda: other.rest.repos.list_releases(OWNER, REPO))
    assert (status, body["message"]) == (401, "Bad credentials")


def test_drafts_are_hidden(server: GitHubServer, kit: GitHubKit[Any]) -> None:
    """A draft is not found by its tag, nor listed for those who may not push."""
    repos = kit.rest.repos
    for _ in range(2):
        repos.create_release(OWNER, REPO, tag_name=TAG, draft=True)
    assert refused(lambda: repos.get_release_by_tag(OWNER, REPO, TAG))[0] == 404
    assert len(repos.list_releases(OWNER, REPO).parsed_data) == 2
    server.add_token("ghp_reader", Token(kind="fine-grained", permissions={"contents": "read"}))
    reader = client(server, "ghp_reader")
    assert reader.rest.repos.list_releases(OWNER, REPO).parsed_data == []


def test_what_is_refused(server: GitHubServer, kit: GitHubKit[Any]) -> None:
    """Of two drafts of a tag only one can be published; a taken name is refused (special
    characters are renamed, as GitHub does); once an immutable release is published, no asset
    comes or goes, and its tag is spent when it is deleted.
    """
    server.add_repository(f"{OWNER}/{REPO}", {TAG: "a" * 40}, immutable=True)
    repos = kit.rest.repos
    first, second = (
        repos.create_release(OWNER, REPO, tag_name=TAG, draft=True).parsed_data for _ in "12"
    )
    asset = upload(kit, second, "a b+c.txt")
    assert asset.name == "a.b.c.txt"
    assert repos.update_release(OWNER, REPO, second.id, draft=False).parsed_data.immutable
    for call in (
        lambda: repos.update_release(OWNER, REPO, first.id, draft=False),
        lambda: upload(kit, second, "a.b.c.txt"),
        lambda: upload(kit, second, "b.txt"),
        lambda: repos.delete_release_asset(OWNER, REPO, asset.id),
    ):
        assert refused(call)[0] == 422
    repos.delete_release(OWNER, REPO, second.id)
    assert refused(lambda: repos.create_release(OWNER, REPO, tag_name=TAG))[0] == 422
    # Half a body: the asset is there, in state "starter", and keeps its name taken.
    server.faults.script.append(Fault("half-read", "repos/upload-release-asset", nth=0))
    with pytest.raises(Exception, match="reset|disconnected|ReadError"):
        upload(kit, first, "a.txt")
    [left] = server.store.all("assets")
    assert (left["state"], left["size"]) == ("starter", 0)
    server.faults.script.clear()
    assert refused(lambda: upload(kit, first, "a.txt"))[0] == 422


def test_pages_and_headers(server: GitHubServer, kit: GitHubKit[Any]) -> None:
    """githubkit's own paginator reads all pages; the headers are named as GitHub's are."""
    server.add_token(TOKEN, Token(expires=4102444800.0))
    repos = kit.rest.repos
    for number in range(7):
        repos.create_release(OWNER, REPO, tag_name=f"v0.0.{number}", draft=True)
    pages = kit.rest.paginate(repos.list_releases, owner=OWNER, repo=REPO, per_page=3)
    assert len({release.id for release in pages}) == 7
    headers = repos.list_releases(OWNER, REPO, per_page=3, page=2).headers
    named = {f"x-ratelimit-{n}" for n in ("limit", "remaining", "used", "reset", "resource")}
    assert named | {"link", "x-oauth-scopes", "x-github-request-id"} <= set(headers)
    expiration = headers["github-authentication-token-expiration"]
    assert expiration == "2100-01-01 00:00:00 UTC"


def test_state_survives_a_restart(tmp_path: Path) -> None:
    """Releases, assets and tokens are there again, with ids that go on."""
    for count in (1, 2):
        with github(tmp_path) as server:
            kit = client(server)
            made = kit.rest.repos.create_release(OWNER, REPO, tag_name=TAG, draft=True)
            upload(kit, made.parsed_data, "a.txt")
            listed = kit.rest.repos.list_releases(OWNER, REPO).parsed_data
            assert len({release.id for release in listed}) == count
            assert all(len(release.assets) == 1 for release in listed)


@pytest.mark.skipif(shutil.which("gh") is None, reason="gh is not installed")
def test_gh_creates_and_reads_a_release(tmp_path: Path) -> None:
    """GitHub's own client makes a release with assets here, lists, reads and downloads it."""
    certificate, key, bundle = certificates(tmp_path)
    files = [tmp_path / "a.whl", tmp_path / "b.whl"]
    for path in files:
        path.write_bytes(path.name.encode() * 10_000)
    with github(tmp_path / "github", (certificate, key)) as server:
        host = server.url.removeprefix("https://")
        env = {
            "PATH": os.environ["PATH"], "GH_HOST": host, "GH_ENTERPRISE_TOKEN": TOKEN,
            "GH_REPO": f"{host}/{OWNER}/{REPO}", "GH_CONFIG_DIR": str(tmp_path / "config"),
            "SSL_CERT_FILE": str(bundle),
        }  # fmt: skip

        def gh(*arguments: str) -> str:
            return subprocess.check_output(["gh", *arguments], env=env, text=True)

        gh("release", "create", TAG, *map(str, files), "--title", "One", "--notes", "Notes.")
        assert TAG in gh("release", "list")
        seen = json.loads(gh("release", "view", TAG, "--json", "isDraft,body,assets"))
        assert (seen["isDraft"], seen["body"]) == (False, "Notes.")
        assert [a["size"] for a in seen["assets"]] == [path.stat().st_size for path in files]
        gh("release", "download", TAG, "--dir", str(tmp_path / "got"))
        for path in files:
            assert (tmp_path / "got" / path.name).read_bytes() == path.read_bytes()


def test_runs_jobs_and_artifacts(server: GitHubServer, kit: GitHubKit[Any]) -> None:
    """Each answer of the Actions API is what OpenAPI says; a run goes on while it is read."""
    told, actions = Actions(server, f"{OWNER}/{REPO}"), kit.rest.actions
    for number in range(1, 5):
        told.run(number, status="completed", conclusion="success" if number % 2 else "failure")
    told.run(5, status="in_progress", event="pull_request", head_branch="fix")
    told.job(5, "Lint", status="completed", conclusion="success", completed_at=now())
    told.job(5, "Build", status="in_progress")
    told.artifact(5, "wheels", 9000)
    workflow = actions.get_workflow(OWNER, REPO, "ci-cd.yml").parsed_data
    listed = actions.list_workflow_runs(OWNER, REPO, workflow.id, status="failure").parsed_data
    assert [run.id for run in listed.workflow_runs] == [4, 2] and listed.total_count == 2
    every = kit.rest.paginate(
        actions.list_workflow_runs_for_repo, lambda one: one.parsed_data.workflow_runs,
        owner=OWNER, repo=REPO, per_page=2,
    )  # fmt: skip
    assert [run.id for run in every] == [5, 4, 3, 2, 1]
    [run] = actions.list_workflow_runs_for_repo(
        OWNER, REPO, branch="fix"
    ).parsed_data.workflow_runs
    assert (run.status, run.conclusion, run.event) == ("in_progress", None, "pull_request")
    assert actions.get_workflow_run(OWNER, REPO, 5).parsed_data.display_title
    first, second = actions.list_jobs_for_workflow_run(OWNER, REPO, 5).parsed_data.jobs
    assert (first.conclusion, second.status, second.completed_at) == (
        "success",
        "in_progress",
        None,
    )
    told.job(5, "Build", status="completed", conclusion="failure", completed_at=now())
    job = actions.get_job_for_workflow_run(OWNER, REPO, second.id).parsed_data
    assert (job.name, job.conclusion) == ("Build", "failure")
    [artifact] = actions.list_workflow_run_artifacts(OWNER, REPO, 5).parsed_data.artifacts
    assert actions.list_workflow_run_artifacts(OWNER, REPO, 4).parsed_data.total_count == 0
    assert (
        actions.list_artifacts_for_repo(OWNER, REPO, name="other").parsed_data.artifacts == []
    )
    assert actions.get_artifact(OWNER, REPO, artifact.id).parsed_data.size_in_bytes == 9000


def test_what_the_actions_api_refuses(server: GitHubServer, kit: GitHubKit[Any]) -> None:
    """What is not there is not found, a token without the right is told which one it lacks,
    and faults befall these endpoints by their names.
    """
    Actions(server, f"{OWNER}/{REPO}").run(1)
    actions = kit.rest.actions
    for call in (
        lambda: actions.get_workflow(OWNER, REPO, "other.yml"),
        lambda: actions.list_workflow_runs(OWNER, REPO, "other.yml"),
        lambda: actions.get_workflow_run(OWNER, REPO, 9),
        lambda: actions.list_jobs_for_workflow_run(OWNER, "other", 1),
        lambda: actions.get_job_for_workflow_run(OWNER, REPO, 9),
        lambda: actions.get_artifact(OWNER, REPO, 9),
        lambda: kit.rest.git.get_ref(OWNER, REPO, "heads/other"),
    ):
        assert refused(call)[0] == 404
    server.add_token("ghs_job", Token(kind="installation", permissions={"contents": "read"}))
    other = client(server, "ghs_job")
    with pytest.raises(RequestFailed) as caught:
        other.rest.actions.get_workflow_run(OWNER, REPO, 1)
    headers = caught.value.response.headers
    assert headers["x-accepted-github-permissions"] == "actions=read"
    server.faults.script.append(Fault("status", "actions/get-workflow-run", nth=0, status=502))
    assert refused(lambda: actions.get_workflow_run(OWNER, REPO, 1))[0] == 502
    server.faults.script.clear()
    used = "x-ratelimit-used"
    before, after = (actions.get_workflow_run(OWNER, REPO, 1).headers[used] for _ in "12")
    assert int(after) == int(before) + 1


def test_branches_and_attestations(server: GitHubServer, kit: GitHubKit[Any]) -> None:
    """The head of a branch, and what is attested of a file."""
    server.add_repository(f"{OWNER}/{REPO}", branches={"main": "b" * 40})
    found = kit.rest.git.get_ref(OWNER, REPO, "heads/main").parsed_data
    assert (found.ref, found.object_.sha) == ("refs/heads/main", "b" * 40)
    statement = {"subject": [{"name": "a.whl", "digest": {"sha256": "c" * 64}}]}
    payload = base64.b64encode(json.dumps(statement).encode()).decode()
    bundle = {"dsseEnvelope": {"payload": payload}}
    made = kit.rest.repos.create_attestation(OWNER, REPO, data={"bundle": bundle})
    assert made.parsed_data.id
    assert server.store.all("attestations")[0]["subject"] == statement["subject"]


def test_git_asks_for_a_login(server: GitHubServer) -> None:
    """Without a token nothing is read of a private repository, as git itself finds."""
    command = ["git", "ls-remote", "--tags", f"{server.url}/{OWNER}/{REPO}"]
    env = {**os.environ, "GIT_TERMINAL_PROMPT": "0", "GIT_CONFIG_GLOBAL": os.devnull}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 128 and "could not read Username" in done.stderr
