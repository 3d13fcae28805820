"""The release command: what it refuses, what it prepares, what it publishes."""

from __future__ import annotations

import hashlib
import json
import logging
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.release.project import (
    LINUX,
    REPOSITORY,
    TAG,
    TOKEN,
    change_wheel,
    check_end,
    check_history,
    expected_assets,
    git,
    make_project,
    run_release,
    serve,
    start_release,
    write_index,
    write_wheel,
)
from tests.services import releases
from tests.services.faults import Fault, limited
from tests.services.github import Call, GitHubServer, Token
from tools.images.record import ImageRecord, write
from tools.release.publish import draft_mark

PURE = "py3-none-any"
WRITES = {
    "repos/create-release",
    "repos/update-release",
    "repos/delete-release",
    "repos/upload-release-asset",
    "repos/delete-release-asset",
}
Capture = pytest.CaptureFixture[str]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return make_project(tmp_path / "project")


@pytest.fixture
def server(tmp_path: Path, project: Path) -> Iterator[GitHubServer]:
    with GitHubServer(tmp_path / "github") as running:
        serve(running, project)
        yield running
        assert running.errors == [] and running.leaks == []


def record(root: Path, **changes: Any) -> ImageRecord:
    """The record of a pushed development image of the checkout."""
    values: dict[str, Any] = {
        "image": "development",
        "name": "ghcr.io/owner/name",
        "digest": "sha256:" + "ab" * 32,
        "tags": ("ghcr.io/owner/name:v1.0.0",),
        "platforms": ("linux/amd64",),
        "size": 1000,
        "output": "push",
        "version": "1.0.0",
        "revision": git(root, "rev-parse", "HEAD"),
    }
    return ImageRecord(**{**values, **changes})


def kinds(server: GitHubServer) -> list[str]:
    """Operations that were asked of the server, in order."""
    return [entry["kind"] for entry in server.log]


def add_release(server: GitHubServer, tag: str = TAG, **fields: Any) -> int:
    """A release that somebody else created; its number."""
    number = server.store.next_id()
    moment = "2026-01-01T00:00:00Z"
    values = {"id": number, "repository": REPOSITORY, "tag_name": tag, "name": tag, "body": "",
              "target_commitish": "main", "draft": True, "prerelease": False,
              "immutable": False, "created_at": moment, "updated_at": moment,
              "published_at": None}  # fmt: skip
    server.store.put("releases", number, {**values, **fields})
    return number


def release_of(server: GitHubServer) -> dict[str, Any]:
    """The published release."""
    (one,) = (r for r in server.store.all("releases") if not r["draft"])
    return dict(one)


# --- checks -------------------------------------------------------------------


def corrupt(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[content.index(b"A package")] ^= 1
    path.write_bytes(bytes(content))


def linux(root: Path) -> Path:
    return next(root.glob("dist/*linux*.whl"))


# fmt: off
PROBLEMS: list[tuple[Callable[[Path], object], str]] = [
    (lambda p: [w.unlink() for w in p.glob("dist/*.whl")], "There is no wheel"),
    (lambda p: linux(p).write_bytes(b""), "is damaged"),
    (lambda p: linux(p).write_bytes(b"PK\3\4 not an archive"), "is damaged"),
    (lambda p: corrupt(linux(p)), "wrong checksum"),
    (lambda p: write_wheel(p / "dist", "1.0.1", LINUX), "has version 1.0.1, not 1.0.0"),
    (lambda p: next(p.glob("dist/*win*.whl")).unlink(), "wheel in dist/ serves windows-x64"),
    (lambda p: write_wheel(p / "dist" / "other", size=201), "two different files mlc_llm-1.0.0"),
    (lambda p: write_wheel(p / "dist", name="other"), "several projects: mlc-llm, other"),
    (lambda p: write_wheel(p / "dist", size=999), "is not the file that was built"),
    (lambda p: write_index(p / "dist", "f" * 40, []), "is of fffffff, but"),
    (lambda p: (p / "dist" / "wheels.json").write_text("{}"), "wheels.json cannot be read"),
    (lambda p: git(p, "commit", "-q", "--allow-empty", "-m", "two"), "points at"),
    (lambda p: git(p, "tag", "-d", TAG), "does not exist in this clone"),
    (lambda p: write(record(p, revision="e" * 40), p), "development.json is of 1.0.0 (eeeeeee)"),
    (lambda p: write(record(p), p).write_text("{"), "development.json cannot be read"),
]
# fmt: on


@pytest.mark.parametrize(("spoil", "words"), PROBLEMS)
def test_what_is_refused(
    spoil: Callable[[Path], object],
    words: str,
    project: Path,
    server: GitHubServer,
    capsys: Capture,
) -> None:
    """Each thing that may be wrong with checkout or dist/ is named; nothing is written."""
    spoil(project)
    assert run_release(project, server.url, TAG) == 1
    said = capsys.readouterr().err
    assert words in said and "Traceback" not in said
    assert not WRITES & set(kinds(server))
    assert not (project / "dist" / "release").exists()


@pytest.mark.parametrize("tag", ["1.0.0", "v1", "v1.0.0+local", "latest"])
def test_not_a_version_tag(
    tag: str, project: Path, server: GitHubServer, capsys: Capture
) -> None:
    """One sentence with the accepted forms, exit code 2."""
    assert run_release(project, server.url, tag) == 2
    said = capsys.readouterr().err
    assert "is not a version" in said and "v1.2.3-rc1" in said


def test_unknown_repository(project: Path, server: GitHubServer, capsys: Capture) -> None:
    """Without GITHUB_REPOSITORY and a remote it is not known where to publish."""
    assert run_release(project, server.url, TAG, GITHUB_REPOSITORY="") == 2
    assert "which GitHub repository this is" in capsys.readouterr().err


def test_all_problems_at_once(project: Path, server: GitHubServer, capsys: Capture) -> None:
    """Everything that is wrong is reported in one go, with what to do about each."""
    next(project.glob("dist/*win*.whl")).write_bytes(b"")
    write_wheel(project / "dist", "2.0.0", PURE)
    git(project, "commit", "-q", "--allow-empty", "-m", "two")
    server.add_token(TOKEN, Token(kind="installation", permissions={"contents": "read"}))
    assert run_release(project, server.url, TAG) == 1
    said = capsys.readouterr().err
    for words in ("is damaged", "has version 2.0.0", "points at", "things stand against",
                  "contents=write", "git checkout v1.0.0"):  # fmt: skip
        assert words in said


@pytest.mark.parametrize(
    "token",
    [
        None,
        Token(expires=1.0),
        Token(scopes=("read:org",)),
        Token(kind="fine-grained", permissions={"contents": "read"}),
    ],
)
def test_token_that_cannot_write(
    token: Token | None, project: Path, server: GitHubServer, capsys: Capture
) -> None:
    """It is refused before anything is done; the token is not shown."""
    if token:
        server.add_token("ghp_weak0123456789", token)
    assert run_release(project, server.url, TAG, GH_TOKEN="ghp_weak0123456789") == 1
    said = capsys.readouterr().err
    assert "token" in said and "ghp_weak" not in said
    assert not WRITES & set(kinds(server))


def test_no_token(
    project: Path, server: GitHubServer, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All but publishing happens, without GitHub; in a job of Actions it is an error."""
    assert run_release(project, server.url, TAG, GH_TOKEN="") == 0
    assert "no token is set" in capsys.readouterr().err
    assert server.log == []
    assert "SHA256SUMS" in expected_assets(project)
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    assert run_release(project, server.url, TAG, GH_TOKEN="") == 1


def test_dry_run_changes_nothing(project: Path, server: GitHubServer, capsys: Capture) -> None:
    """--dry-run checks all, prepares all, prints the plan, and writes nothing to GitHub."""
    assert run_release(project, server.url, TAG, "--dry-run", "--json") == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["outcome"] is None
    assert {a["name"] for a in shown["plan"]["assets"]} == set(expected_assets(project))
    assert json.loads((project / "dist" / "release.json").read_text()) == shown["plan"]
    assert not WRITES & set(kinds(server))


@pytest.mark.parametrize(
    ("there", "words"), [(None, "is not on GitHub"), ("f" * 40, "on GitHub points at fffffff")]
)
def test_tag_on_github(
    there: str | None, words: str, project: Path, server: GitHubServer, capsys: Capture
) -> None:
    """A tag that was not pushed, or points elsewhere there, is not released."""
    server.add_repository(REPOSITORY, {TAG: there} if there else {})
    assert run_release(project, server.url, TAG) == 1
    assert words in capsys.readouterr().err


# --- what is published --------------------------------------------------------


def test_pure_wheel_of_every_job_is_one_asset(tmp_path: Path) -> None:
    """The same pure wheel from each job of the matrix serves every platform."""
    root = make_project(tmp_path / "project", tags=())
    for folder in ("wheels-linux-x64", "wheels-windows-x64"):
        wheel = write_wheel(root / "dist" / folder, tag=PURE)
        write_index(root / "dist" / folder, git(root, "rev-parse", "HEAD"), [wheel])
    with GitHubServer(tmp_path / "github") as server:
        serve(server, root)
        assert run_release(root, server.url, TAG) == 0
        check_end(server, expected_assets(root))
    assert [name for name in expected_assets(root) if name.endswith(".whl")] == [wheel.name]


def test_records_that_name_the_annotated_tag(tmp_path: Path) -> None:
    """A record may hold the hash of the tag's own object: it stands for the commit."""
    root = make_project(tmp_path / "project")
    git(root, "tag", "-f", "-a", TAG, "-m", "release")
    of_tag = git(root, "rev-parse", f"refs/tags/{TAG}")
    assert of_tag != git(root, "rev-parse", "HEAD")
    write_index(root / "dist", of_tag, sorted((root / "dist").glob("*.whl")))
    write(record(root, revision=of_tag), root)
    assert run_release(root, "http://127.0.0.1:9", TAG, GH_TOKEN="") == 0


@pytest.mark.skipif(sys.platform == "win32", reason="no sha256sum")
def test_sha256sum_reads_the_checksums(project: Path, server: GitHubServer) -> None:
    """``sha256sum --check SHA256SUMS`` accepts all that was published."""
    assert run_release(project, server.url, TAG) == 0
    command = ["sha256sum", "--check", "--strict", "SHA256SUMS"]
    done = subprocess.run(
        command, cwd=project / "dist" / "release", capture_output=True, text=True, check=True
    )
    assert done.stdout.count(": OK") == len(expected_assets(project)) - 1


def test_what_was_prepared_is_what_is_published(project: Path, server: GitHubServer) -> None:
    """CI attests the files of a dry run, and publishes in a second run: the same bytes."""
    assert run_release(project, server.url, TAG, "--dry-run") == 0
    attested = expected_assets(project)
    assert run_release(project, server.url, TAG) == 0
    check_end(server, attested)


def test_image_digests(project: Path, server: GitHubServer) -> None:
    """Pushed images are published by digest; one that stayed local is not."""
    write(record(project), project)
    write(record(project, image="production", output="load"), project)
    assert run_release(project, server.url, TAG) == 0
    (image,) = json.loads((project / "dist/release/image-digests.json").read_text())["images"]
    assert image["reference"] == "ghcr.io/owner/name@sha256:" + "ab" * 32
    assert f"docker pull {image['reference']}" in release_of(server)["body"]
    check_end(server, expected_assets(project))


def test_notes(project: Path, server: GitHubServer) -> None:
    """The changelog's section first, then GitHub's notes, then how to install."""
    assert run_release(project, server.url, TAG) == 0
    body = release_of(server)["body"]
    order = ["Written by hand.", "## What's Changed", "## Installation", "No image digest"]
    places = [body.index(words) for words in order]
    assert places == sorted(places) and "Old." not in body
    digest = hashlib.sha256(linux(project).read_bytes()).hexdigest()
    url = f"https://github.com/{REPOSITORY}/releases/download/{TAG}/{linux(project).name}"
    assert f'pip install "{url}#sha256={digest}"' in body


@pytest.mark.parametrize(
    ("tag", "version"), [("v1.0.0-rc1", "1.0.0rc1"), ("v1.0.0.dev3", "1.0.0.dev3")]
)
def test_prerelease(tag: str, version: str, tmp_path: Path) -> None:
    """Alpha, beta, rc and dev are prereleases, and never the latest."""
    root = make_project(tmp_path / "project", tag, version)
    with GitHubServer(tmp_path / "github") as server:
        serve(server, root, tag)
        assert run_release(root, server.url, tag) == 0
        assert release_of(server)["prerelease"]
        assert server.store.get("latest", REPOSITORY) is None


@pytest.mark.parametrize(("other", "latest"), [("v0.9.0", True), ("v1.1.0", False)])
def test_latest_is_the_highest_stable(
    other: str, latest: bool, project: Path, server: GitHubServer
) -> None:
    """A patch of an old line does not take the mark of the latest release."""
    former = add_release(server, other, draft=False)
    assert run_release(project, server.url, TAG) == 0
    (ours,) = (r["id"] for r in server.store.all("releases") if r["id"] != former)
    assert (server.store.get("latest", REPOSITORY) == ours) is latest


def test_step_outputs(
    project: Path, server: GitHubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On Actions the address is an output of the step, and the summary has a table."""
    monkeypatch.setenv("GITHUB_OUTPUT", str(tmp_path / "output"))
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary"))
    assert run_release(project, server.url, TAG) == 0
    assert f"/releases/tag/{TAG}" in (tmp_path / "output").read_text()
    assert "| SHA256SUMS |" in (tmp_path / "summary").read_text()


# --- already there ------------------------------------------------------------


@pytest.mark.parametrize("immutable", [False, True])
def test_twice_is_nothing_to_do(immutable: bool, project: Path, server: GitHubServer) -> None:
    """The same release again is success, and writes nothing."""
    head = git(project, "rev-parse", "HEAD")
    server.add_repository(REPOSITORY, {TAG: head}, immutable=immutable)
    assert run_release(project, server.url, TAG) == 0
    assert release_of(server)["immutable"] is immutable
    server.log.clear()
    assert run_release(project, server.url, TAG) == 0
    assert not WRITES & set(kinds(server))


@pytest.mark.parametrize("digests", [True, False])
def test_other_content_is_an_error(
    digests: bool, project: Path, server: GitHubServer, capsys: Capture
) -> None:
    """A published release with other files is left alone, and the differences are listed.

    Where GitHub reports no digest, the assets are downloaded and hashed.
    """
    server.no_digests = not digests
    assert run_release(project, server.url, TAG) == 0
    assert ("repos/get-release-asset" in kinds(server)) is not digests
    change_wheel(project)
    server.log.clear()
    assert run_release(project, server.url, TAG) == 1
    said = capsys.readouterr().err
    assert "is published with other content" in said
    assert f"- there: mlc_llm-1.0.0-{LINUX}.whl, 1448 bytes" in said
    assert not WRITES & set(kinds(server))


# --- drafts -------------------------------------------------------------------


def test_whose_a_draft_is(tmp_path: Path) -> None:
    """The attempts of a run share a mark, and so do all runs in a checkout; no others."""
    first, second = ({"GITHUB_RUN_ID": "7", "GITHUB_RUN_ATTEMPT": n} for n in "12")
    assert draft_mark(tmp_path, first) == draft_mark(tmp_path / "x", second)
    assert draft_mark(tmp_path, {}) == draft_mark(tmp_path, {})
    others = [{"GITHUB_RUN_ID": "77"}, {"GITHUB_RUN_ID": "7", "GITHUB_JOB": "other"}]
    marks = {draft_mark(tmp_path, env) for env in (first, *others, {})}
    assert len(marks | {draft_mark(tmp_path / "x", {})}) == 5


def test_drafts_of_others_stay(project: Path, server: GitHubServer) -> None:
    """Drafts of people, of other runs and of other tags are not touched and do not block.

    There are more releases than a page of the list holds.
    """
    others = {
        add_release(server, body="By hand."),
        add_release(server, body=draft_mark(project / "elsewhere", {})),
        add_release(server, "v0.9.0", body=draft_mark(project, {})),
        *(add_release(server, f"v0.0.{number}") for number in range(110)),
    }
    before = [r for r in server.store.all("releases") if r["id"] in others]
    assert run_release(project, server.url, TAG) == 0
    assert [r for r in server.store.all("releases") if r["id"] in others] == before
    assert not any(f"/releases/{number}" in e["path"] for e in server.log for number in others)
    check_history(server, expected_assets(project))


SPOILED = {
    "starter": {"state": "starter", "size": 0, "digest": None},
    "wrong size": {"size": 1},
    "wrong digest": {"digest": "sha256:" + "0" * 64},
    "extra": {"name": "what-is-this"},
}


@pytest.mark.parametrize("spoiled", SPOILED)
def test_left_draft_is_repaired(spoiled: str, project: Path, server: GitHubServer) -> None:
    """What a former run of this checkout left wrong in its draft is replaced, the rest kept."""
    refused = Fault("status", "repos/update-release", 0, status=401, data={"message": "no"})
    server.faults.script.append(refused)
    assert run_release(project, server.url, TAG) == 1
    server.faults.script.clear()
    left = server.store.all("assets")
    bad = next(a for a in left if "linux" in a["name"])
    server.store.put("assets", bad["id"], {**bad, **SPOILED[spoiled]})
    assert run_release(project, server.url, TAG) == 0
    check_end(server, expected_assets(project))
    now = {a["id"] for a in server.store.all("assets")}
    assert {a["id"] for a in left} - now == {bad["id"]}


def test_upload_that_arrives_corrupted(project: Path, server: GitHubServer) -> None:
    """GitHub accepts the upload, with other bytes than ours: it never becomes visible."""

    def corrupt_asset() -> None:
        asset = server.store.all("assets")[0]
        server.store.put("assets", asset["id"], {**asset, "digest": "sha256:" + "0" * 64})

    hook = Fault("call-after", "repos/upload-release-asset", 4, hook=corrupt_asset)
    server.faults.script.append(hook)
    assert run_release(project, server.url, TAG) == 0
    check_history(server, expected_assets(project))
    check_end(server, expected_assets(project))


def test_deleted_asset_never_counts(project: Path, server: GitHubServer) -> None:
    """A broken upload that completes just before it is deleted is not what is published.

    GitHub may carry the deletion out late, when the release would be visible.
    """
    deletion = Fault("status", "repos/delete-release-asset", 1, status=404)

    def complete() -> None:
        asset = next(a for a in server.store.all("assets") if a["state"] == "starter")
        late.append(asset["id"])
        done = {
            "state": "uploaded",
            "size": sizes[asset["name"]],
            "digest": expected[asset["name"]],
        }
        server.store.put("assets", asset["id"], {**asset, **done})

    late: list[int] = []
    assert run_release(project, server.url, TAG, "--dry-run") == 0
    expected = expected_assets(project)
    sizes = {p.name: p.stat().st_size for p in (project / "dist" / "release").iterdir()}
    server.faults.script += [
        Fault("half-read", "repos/upload-release-asset", 2),
        Fault("call-before", "repos/delete-release-asset", 1, hook=complete),
        deletion,
    ]
    assert run_release(project, server.url, TAG) == 0
    assert late and late[0] not in {a["id"] for a in server.store.all("assets")}
    check_end(server, expected)


def test_limit_that_is_not_waited_for(
    project: Path, server: GitHubServer, capsys: Capture
) -> None:
    """A rate limit beyond GITHUB_TIME_LIMIT ends the run, and says what to do."""
    fault = limited(in_seconds=3600)
    fault.kind = "repos/upload-release-asset"
    server.faults.script.append(fault)
    assert run_release(project, server.url, TAG, GITHUB_TIME_LIMIT="60s") == 1
    assert "raise GITHUB_TIME_LIMIT" in capsys.readouterr().err
    assert all(r["draft"] for r in server.store.all("releases"))


def test_files_go_to_githubs_own_hosts_alone(
    project: Path, server: GitHubServer, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    """Another host that a response names for uploads gets no token, and no file."""
    view = releases.release_view

    def elsewhere(call: Call, release: dict[str, Any]) -> dict[str, Any]:
        return {**view(call, release), "upload_url": f"{server.storage}/assets{{?name}}"}

    monkeypatch.setattr(releases, "release_view", elsewhere)
    assert run_release(project, server.url, TAG) == 1
    assert "the token is sent nowhere else" in capsys.readouterr().err
    assert server.leaks == [] and all(r["draft"] for r in server.store.all("releases"))


@pytest.mark.parametrize("same", [True, False])
def test_published_by_another_meanwhile(
    same: bool, project: Path, server: GitHubServer, tmp_path: Path
) -> None:
    """The same files from another checkout first: success. Other files: an error.

    At every moment one complete release is visible, or none.
    """
    other = tmp_path / "other"
    git(tmp_path, "clone", "-q", str(project), str(other))
    (other / "dist").mkdir()
    for path in (project / "dist").glob("*.*"):
        (other / "dist" / path.name).write_bytes(path.read_bytes())
    if not same:
        change_wheel(other)
    codes = []

    def other_run() -> None:
        process = start_release(other, server.url, TAG)
        process.communicate(timeout=60)
        codes.append(process.returncode)

    server.faults.script.append(Fault("call-before", "repos/update-release", 1, hook=other_run))
    assert run_release(project, server.url, TAG, timeout=60) == (0 if same else 1)
    assert codes == [0]
    check_history(server, expected_assets(other))
    if same:
        check_end(server, expected_assets(other))


# --- the token and the process ------------------------------------------------


def test_token_is_nowhere(
    project: Path, server: GitHubServer, caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """Not in logs at any level, in output, in files that are written, nor in arguments."""
    caplog.set_level(logging.DEBUG)
    arguments: list[str] = []

    def look() -> None:
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                arguments.append(path.read_text(errors="replace"))
            except OSError:
                continue

    server.faults.script += [
        Fault("call-before", "repos/create-release", hook=look),
        Fault("reset-after", "repos/upload-release-asset", 2),
        Fault("status", "repos/update-release", 1, status=500),
    ]
    process = start_release(project, server.url, TAG, "--debug", "--json")
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert run_release(project, server.url, TAG, "--debug") == 0
    captured = capfd.readouterr()
    everything = [out, err, captured.out, captured.err, caplog.text, *arguments]
    everything += [p.read_text(errors="replace") for p in project.rglob("*") if p.is_file()]
    assert all(TOKEN not in text for text in everything)
    if sys.platform == "linux":
        assert any("tests.release.project" in line for line in arguments)


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGINT to a process of its own")
def test_interrupted_run_ends_soon(project: Path, server: GitHubServer) -> None:
    """Ctrl-C during an upload ends within seconds; the draft stays invisible."""
    reached = threading.Event()
    server.faults.script += [
        Fault("call-before", "repos/upload-release-asset", 1, hook=reached.set),
        Fault("delay", "repos/upload-release-asset", 1, seconds=0.5),
    ]
    process = start_release(project, server.url, TAG)
    assert reached.wait(30)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert all(r["draft"] for r in server.store.all("releases"))
    assert run_release(project, server.url, TAG) == 0
    check_end(server, expected_assets(project))
