"""The release command: what it refuses, what it prepares, what it publishes."""

from __future__ import annotations

import hashlib
import json
import logging
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from tests.release.project import (
    LINUX,
    REPOSITORY,
    TAG,
    TOKEN,
    WINDOWS,
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
from tests.services.faults import Fault
from tests.services.github import GitHubServer, Token
from tools.core.secrets import Secret
from tools.github.old import GitHub
from tools.images.record import ImageRecord, write
from tools.release.owner import Mark, Owner, read_mark, this_run
from tools.release.plan import Asset, ReleasePlan
from tools.release.publish import Publisher

PURE = "py3-none-any"
RELEASES = f"/repos/{REPOSITORY}/releases"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return make_project(tmp_path / "project")


@pytest.fixture
def server(tmp_path: Path, project: Path) -> Iterator[GitHubServer]:
    with GitHubServer(tmp_path / "github") as running:
        serve(running, project)
        yield running
        assert running.errors == [] and running.leaks == []


@pytest.fixture
def client(server: GitHubServer) -> Iterator[GitHub]:
    with GitHub(server.url, Secret(TOKEN)) as made:
        yield made


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


WRITES = {
    "repos/create-release",
    "repos/update-release",
    "repos/delete-release",
    "repos/upload-release-asset",
    "repos/delete-release-asset",
}


# --- checks -------------------------------------------------------------------


def corrupt(path: Path) -> None:
    content = bytearray(path.read_bytes())
    at = content.index(b"A package")
    content[at] ^= 1
    path.write_bytes(bytes(content))


PROBLEMS = {
    "no wheels": (lambda p: [w.unlink() for w in p.glob("dist/*.whl")], "There is no wheel"),
    "empty": (lambda p: next(p.glob("dist/*linux*.whl")).write_bytes(b""), "is empty"),
    "truncated": (
        lambda p: next(p.glob("dist/*linux*.whl")).write_bytes(b"PK\3\4 no archive"),
        "is damaged",
    ),
    "bit flipped": (lambda p: corrupt(next(p.glob("dist/*linux*.whl"))), "wrong checksum"),
    "other version": (
        lambda p: write_wheel(p / "dist", "1.0.1", LINUX),
        "has version 1.0.1, not 1.0.0",
    ),
    "missing platform": (
        lambda p: next(p.glob("dist/*win*.whl")).unlink(),
        "No wheel in dist/ serves windows-x64",
    ),
    "two of one name": (
        lambda p: write_wheel(p / "dist" / "wheels-linux-x64", size=201),
        "two different files mlc_llm-1.0.0",
    ),
    "two projects": (
        lambda p: write_wheel(p / "dist", name="other"),
        "several projects: mlc-llm, other",
    ),
    "not the file that was built": (
        lambda p: write_wheel(p / "dist", size=999),
        "is not the file that was built",
    ),
    "built for another commit": (
        lambda p: write_index(p / "dist", "f" * 40, []),
        "was built for fffffff",
    ),
    "moved on": (
        lambda p: git(p, "commit", "-q", "--allow-empty", "-m", "two"),
        "points at",
    ),
    "no tag": (lambda p: git(p, "tag", "-d", TAG), "does not exist in this clone"),
    "image of another commit": (
        lambda p: write(record(p, revision="e" * 40), p),
        "development.json is of 1.0.0 (eeeeeee)",
    ),
    "image record unreadable": (
        lambda p: write(record(p), p).write_text("{"),
        "development.json cannot be read",
    ),
}


@pytest.mark.parametrize("name", PROBLEMS)
def test_what_is_refused(
    name: str, project: Path, server: GitHubServer, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each thing that may be wrong with checkout or dist/ is named; nothing is written."""
    spoil, words = PROBLEMS[name]
    spoil(project)
    assert run_release(project, server.url, TAG) == 1
    said = capsys.readouterr().err
    assert words in said and "Traceback" not in said
    assert not WRITES & set(kinds(server))
    assert not (project / "dist" / "release").exists()


@pytest.mark.parametrize(
    "tag", ["1.0.0", "v1", "release-1.0.0", "v1.0.0+local", "latest", "v1.x"]
)
def test_no_version_tag(
    tag: str, project: Path, server: GitHubServer, capsys: pytest.CaptureFixture[str]
) -> None:
    """A tag that is no version: one sentence with the accepted forms, exit code 2."""
    assert run_release(project, server.url, tag) == 2
    said = capsys.readouterr().err
    assert "is not a version" in said and "v1.2.3-rc1" in said


def test_all_problems_at_once(
    project: Path, server: GitHubServer, capsys: pytest.CaptureFixture[str]
) -> None:
    """Everything that is wrong is reported in one go, with what to do about each."""
    next(project.glob("dist/*win*.whl")).write_bytes(b"")
    write_wheel(project / "dist", "2.0.0", PURE)
    git(project, "commit", "-q", "--allow-empty", "-m", "two")
    server.add_token(TOKEN, Token(kind="installation", permissions={"contents": "read"}))
    assert run_release(project, server.url, TAG) == 1
    said = capsys.readouterr().err
    for words in (
        "is empty",
        "has version 2.0.0",
        "points at",
        "lacks a permission",
        "things stand against",
        "permissions: contents=write",
        "git checkout v1.0.0",
    ):
        assert words in said


@pytest.mark.parametrize(
    ("token", "words"),
    [
        (None, "has expired, was revoked or is mistyped"),
        (Token(expires=1.0), "has expired, was revoked or is mistyped"),
        (Token(scopes=("read:org",)), "lacks the scope"),
        (Token(kind="fine-grained", permissions={"contents": "read"}), "contents=write"),
    ],
)
def test_token_that_cannot_write(
    token: Token | None,
    words: str,
    project: Path,
    server: GitHubServer,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A token that is not accepted and one that may not write are told apart, first."""
    if token:
        server.add_token("ghp_weak0123456789", token)
    assert run_release(project, server.url, TAG, GH_TOKEN="ghp_weak0123456789") == 1
    said = capsys.readouterr().err
    assert words in said and "ghp_weak" not in said
    assert not WRITES & set(kinds(server))


def test_token_that_expires_soon(
    project: Path, server: GitHubServer, capsys: pytest.CaptureFixture[str]
) -> None:
    """It works today, but says that it will not for long."""
    server.add_token(TOKEN, Token(expires=time.time() + 86400))
    assert run_release(project, server.url, TAG) == 0
    assert "The token expires on" in capsys.readouterr().err


def test_no_token_prepares_everything(
    project: Path, server: GitHubServer, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a token all but publishing happens, and GitHub is not asked at all."""
    assert run_release(project, server.url, TAG, GH_TOKEN="") == 0
    assert "no token is set" in capsys.readouterr().err
    assert server.log == []
    assert "SHA256SUMS" in expected_assets(project)


def test_no_token_on_actions_is_an_error(
    project: Path, server: GitHubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job that was to publish must not be green when it could not."""
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    assert run_release(project, server.url, TAG, GH_TOKEN="") == 1


def test_dry_run_changes_nothing(
    project: Path, server: GitHubServer, capsys: pytest.CaptureFixture[str]
) -> None:
    """--dry-run checks all, prepares all, prints the plan, and writes nothing to GitHub."""
    assert run_release(project, server.url, TAG, "--dry-run", "--json") == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["outcome"] is None
    assert {a["name"] for a in shown["plan"]["assets"]} == set(expected_assets(project))
    assert set(kinds(server)) == {"repos/generate-release-notes", "repos/get-commit"}


@pytest.mark.parametrize(
    ("there", "words"), [(None, "is not on GitHub"), ("f" * 40, "on GitHub points at fffffff")]
)
def test_tag_on_github(
    there: str | None,
    words: str,
    project: Path,
    server: GitHubServer,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A tag that was not pushed, or points elsewhere there, is not released."""
    server.add_repository(REPOSITORY, {TAG: there} if there else {})
    assert run_release(project, server.url, TAG) == 1
    assert words in capsys.readouterr().err


# --- what is published --------------------------------------------------------


def test_pure_wheel_serves_every_platform(tmp_path: Path) -> None:
    """The same pure wheel from each job of the matrix is one asset."""
    root = make_project(tmp_path / "project", tags=())
    head = git(root, "rev-parse", "HEAD")
    for folder in ("wheels-linux-x64", "wheels-windows-x64"):
        wheel = write_wheel(root / "dist" / folder, tag=PURE)
        write_index(root / "dist" / folder, head, [wheel])
    with GitHubServer(tmp_path / "github") as server:
        serve(server, root)
        assert run_release(root, server.url, TAG) == 0
        assets = expected_assets(root)
        check_end(server, assets)
    assert [name for name in assets if name.endswith(".whl")] == [
        "mlc_llm-1.0.0-py3-none-any.whl"
    ]


def test_records_that_name_the_annotated_tag(tmp_path: Path) -> None:
    """A record may hold the hash of the tag's own object: it stands for the commit."""
    root = make_project(tmp_path / "project")
    git(root, "tag", "-f", "-a", TAG, "-m", "release")
    of_tag = git(root, "rev-parse", f"refs/tags/{TAG}")
    assert of_tag != git(root, "rev-parse", "HEAD")
    write_index(root / "dist", of_tag, sorted((root / "dist").glob("*.whl")))
    write(record(root, revision=of_tag), root)
    assert run_release(root, "http://127.0.0.1:9", TAG, GH_TOKEN="") == 0


def test_sha256sum_reads_the_checksums(project: Path, server: GitHubServer) -> None:
    """``sha256sum -c SHA256SUMS`` accepts what was published, and covers all of it."""
    assert run_release(project, server.url, TAG) == 0
    folder = project / "dist" / "release"
    done = subprocess.run(
        ["sha256sum", "--check", "--strict", "SHA256SUMS"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(": OK") == len(list(folder.iterdir())) - 1


def test_sbom_is_cyclonedx_and_reproducible(project: Path, server: GitHubServer) -> None:
    """The SBOM passes the schema and names wheels, licence and requirements."""
    path = project / "dist" / "release" / "mlc-llm-1.0.0.cdx.json"
    assert run_release(project, server.url, TAG, "--dry-run") == 0
    text = path.read_text(encoding="utf-8")
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    bom = json.loads(text)
    names = {component["name"] for component in bom["components"]}
    assert {
        f"mlc_llm-1.0.0-{LINUX}.whl",
        f"mlc_llm-1.0.0-{WINDOWS}.whl",
        "numpy",
        "tqdm",
    } == names
    assert bom["metadata"]["component"]["licenses"][0]["license"]["id"] == "Apache-2.0"
    path.unlink()
    assert run_release(project, server.url, TAG, "--dry-run") == 0
    assert path.read_text(encoding="utf-8") == text


def test_what_was_prepared_is_what_is_published(project: Path, server: GitHubServer) -> None:
    """CI attests the files of a dry run, and publishes in a second run: the same bytes."""
    assert run_release(project, server.url, TAG, "--dry-run") == 0
    attested = expected_assets(project)
    assert run_release(project, server.url, TAG) == 0
    check_end(server, attested)


def test_image_digests(project: Path, server: GitHubServer, client: GitHub) -> None:
    """Pushed images are published by digest; one that stayed local is not."""
    write(record(project), project)
    write(record(project, image="production", output="load"), project)
    assert run_release(project, server.url, TAG) == 0
    published = json.loads((project / "dist/release/image-digests.json").read_text())
    (image,) = published["images"]
    assert image["reference"] == "ghcr.io/owner/name@sha256:" + "ab" * 32
    body = client.request("GET", f"{RELEASES}/tags/{TAG}").data["body"]
    assert f"docker pull {image['reference']}" in body
    check_end(server, expected_assets(project))


def test_notes(project: Path, server: GitHubServer, client: GitHub) -> None:
    """The changelog's section first, then GitHub's notes, then how to install."""
    assert run_release(project, server.url, TAG) == 0
    release = client.request("GET", f"{RELEASES}/tags/{TAG}").data
    body = release["body"]
    order = ["Written by hand.", "## What's Changed", "## Installation", "No image digest"]
    places = [body.index(words) for words in order]
    assert places == sorted(places)
    assert "Old." not in body and "mlc-llm-pipeline {" not in body
    wheel = project / "dist" / f"mlc_llm-1.0.0-{LINUX}.whl"
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    url = (
        f"https://github.com/{REPOSITORY}/releases/download/{TAG}/{wheel.name}#sha256={digest}"
    )
    assert f'pip install "{url}"' in body
    assert not release["prerelease"] and not release["draft"]


@pytest.mark.parametrize(
    ("tag", "version"), [("v1.0.0-rc1", "1.0.0rc1"), ("v1.0.0.dev3", "1.0.0.dev3")]
)
def test_prerelease(tag: str, version: str, tmp_path: Path) -> None:
    """Alpha, beta, rc and dev are prereleases, and never the latest."""
    root = make_project(tmp_path / "project", tag, version)
    with GitHubServer(tmp_path / "github") as server:
        serve(server, root, tag)
        assert run_release(root, server.url, tag) == 0
        (release,) = server.store.all("releases")
        assert release["prerelease"]
        assert server.store.get("latest", REPOSITORY) is None


LATEST = [
    ((), True),
    (("v0.9.0",), True),
    (("v1.1.0",), False),
    (("v2.0.0-rc1",), True),
    (("nightly",), True),
]


@pytest.mark.parametrize(("others", "latest"), LATEST)
def test_latest_is_the_highest_stable(
    others: tuple[str, ...], latest: bool, project: Path, server: GitHubServer, client: GitHub
) -> None:
    """A patch of an old line does not take the mark of the latest release."""
    for other in others:
        client.request("POST", RELEASES, json={"tag_name": other, "make_latest": "false"})
    assert run_release(project, server.url, TAG) == 0
    number = client.request("GET", f"{RELEASES}/tags/{TAG}").data["id"]
    assert (server.store.get("latest", REPOSITORY) == number) is latest


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


def test_twice_is_nothing_to_do(
    project: Path, server: GitHubServer, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same release again is success, and writes nothing."""
    assert run_release(project, server.url, TAG) == 0
    server.log.clear()
    assert run_release(project, server.url, TAG) == 0
    assert "nothing to do" in capsys.readouterr().err
    assert not WRITES & set(kinds(server))


def change_wheel(root: Path) -> None:
    wheels = [write_wheel(root / "dist", size=333), write_wheel(root / "dist", tag=WINDOWS)]
    write_index(root / "dist", git(root, "rev-parse", "HEAD"), wheels)


def test_other_content_is_an_error(
    project: Path, server: GitHubServer, capsys: pytest.CaptureFixture[str]
) -> None:
    """A published release with other files is left alone, and the differences are listed."""
    assert run_release(project, server.url, TAG) == 0
    before = expected_assets(project)
    change_wheel(project)
    assert run_release(project, server.url, TAG) == 1
    said = capsys.readouterr().err
    assert "is published with other content" in said and "--replace-assets" in said
    assert f"mlc_llm-1.0.0-{LINUX}.whl: there 1448 bytes" in said
    check_end(server, before)


def test_replace_assets(project: Path, server: GitHubServer) -> None:
    """--replace-assets: at every moment the old release, none, or the new one; all whole."""
    assert run_release(project, server.url, TAG) == 0
    old = expected_assets(project)
    change_wheel(project)
    assert run_release(project, server.url, TAG, "--replace-assets") == 0
    new = expected_assets(project)
    assert new != old
    check_end(server, new)
    for tables in server.store.history():
        visible = [r for r in tables.get("releases", {}).values() if not r["draft"]]
        assert len(visible) <= 1
        for release in visible:
            there = {
                a["name"]: a["digest"]
                for a in tables.get("assets", {}).values()
                if a["release"] == release["id"]
            }
            assert there in (old, new)


def test_immutable_release_is_not_fought(
    project: Path, server: GitHubServer, capsys: pytest.CaptureFixture[str]
) -> None:
    """An immutable release of other content: one error, not a single write."""
    head = git(project, "rev-parse", "HEAD")
    server.add_repository(REPOSITORY, {TAG: head}, immutable=True)
    assert run_release(project, server.url, TAG) == 0
    assert run_release(project, server.url, TAG) == 0
    change_wheel(project)
    server.log.clear()
    assert run_release(project, server.url, TAG, "--replace-assets") == 1
    assert "is immutable" in capsys.readouterr().err
    assert not WRITES & set(kinds(server))


# --- drafts -------------------------------------------------------------------


def test_several_drafts_become_one(project: Path, server: GitHubServer, client: GitHub) -> None:
    """Drafts that a race or another program left are gone in the end."""
    for _ in range(3):
        client.request("POST", RELEASES, json={"tag_name": TAG, "draft": True})
    client.request("POST", RELEASES, json={"tag_name": "v0.9.0", "draft": True})
    assert run_release(project, server.url, TAG) == 0
    check_end(server, expected_assets(project))
    assert len(server.store.all("releases")) == 2, "the draft of another tag stays"


def test_hand_written_draft(
    project: Path, server: GitHubServer, client: GitHub, capsys: pytest.CaptureFixture[str]
) -> None:
    """A draft with notes of a person: the notes are kept; one with other files stays."""
    client.request("POST", RELEASES, json={"tag_name": TAG, "draft": True, "body": "My notes."})
    other = client.request("POST", RELEASES, json={"tag_name": TAG, "draft": True}).data
    address = other["upload_url"].split("{")[0]
    with (project / "CHANGELOG.md").open("rb") as source:
        client.upload(address, {"name": "manual.pdf"}, source, 20, "application/pdf")
    assert run_release(project, server.url, TAG) == 0
    (kept,) = (project / "dist" / "removed-drafts").iterdir()
    assert kept.read_text() == "My notes."
    assert "it holds manual.pdf" in capsys.readouterr().err
    assert [r["id"] for r in server.store.all("releases") if r["draft"]] == [other["id"]]


@pytest.mark.parametrize("spoiled", ["starter", "wrong size", "wrong digest", "extra"])
def test_left_draft_is_repaired(
    spoiled: str, project: Path, server: GitHubServer, client: GitHub
) -> None:
    """What a dead run of this checkout left wrong in its draft is replaced, the rest kept."""
    fault = Fault("status", "repos/update-release", 0, status=401, data={"message": "no"})
    server.faults.script.append(fault)
    assert run_release(project, server.url, TAG) == 1
    server.faults.script.clear()
    assets = server.store.all("assets")
    asset = next(a for a in assets if "linux" in a["name"])
    changes = {
        "starter": {"state": "starter", "size": 0, "digest": None},
        "wrong size": {"size": asset["size"] - 1},
        "wrong digest": {"digest": "sha256:" + "0" * 64},
        "extra": {"name": "claim-of-somebody"},
    }
    server.store.put("assets", asset["id"], {**asset, **changes[spoiled]})
    assert run_release(project, server.url, TAG) == 0
    check_end(server, expected_assets(project))
    now = {a["id"] for a in server.store.all("assets")}
    assert asset["id"] not in now
    assert {a["id"] for a in assets} - {asset["id"]} <= now


def test_without_reported_digests(project: Path, server: GitHubServer) -> None:
    """Where GitHub reports no digest, the asset is downloaded and hashed."""
    server.no_digests = True
    assert run_release(project, server.url, TAG) == 0
    assert kinds(server).count("repos/get-release-asset") >= len(expected_assets(project))
    server.log.clear()
    change_wheel(project)
    assert run_release(project, server.url, TAG) == 1, "other bytes are noticed all the same"


def test_a_live_draft_of_another_job_is_not_touched(
    project: Path, server: GitHubServer, client: GitHub
) -> None:
    """Before the release is published, nothing of another job's draft is changed."""
    mark = Mark("x", "actions/1/other", 1, "nonce")
    body = {"tag_name": TAG, "draft": True, "body": mark.to_text()}
    other = client.request("POST", RELEASES, json=body).data
    server.log.clear()
    assert run_release(project, server.url, TAG) == 0
    touched = [e for e in server.log if f"/releases/{other['id']}" in e["path"]]
    assert [e["method"] for e in touched] == ["DELETE"]
    order = kinds(server)
    assert order.index("repos/update-release") < order.index("repos/delete-release")


def test_published_by_another_meanwhile(project: Path, server: GitHubServer) -> None:
    """If somebody publishes the same files first, that is success, and one release."""
    late = []

    def other_run() -> None:
        process = start_release(project, server.url, TAG)
        process.communicate(timeout=60)
        late.append(process.returncode)

    server.faults.script.append(Fault("call-before", "repos/update-release", 1, hook=other_run))
    assert run_release(project, server.url, TAG, timeout=60) == 0
    assert late == [0]
    check_history(server, expected_assets(project))
    check_end(server, expected_assets(project))


# --- owners -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("owner", "mark", "outlived"),
    [
        (Owner("actions/7/release", 2, False, "b"), ("actions/7/release", 1, "a"), True),
        (Owner("actions/7/release", 1, False, "b"), ("actions/7/release", 1, "a"), False),
        (Owner("actions/7/release", 2, False, "b"), ("actions/8/release", 1, "a"), False),
        (Owner("actions/7/release", 2, False, "b"), ("actions/7/other", 1, "a"), False),
        (Owner("local/x", 0, True, "b"), ("local/x", 0, "a"), True),
        (Owner("local/x", 0, True, "b"), ("local/x", 0, "b"), False),
        (Owner("local/x", 0, True, "b"), ("local/y", 0, "a"), False),
    ],
)
def test_who_may_take_over(owner: Owner, mark: tuple[str, int, str], outlived: bool) -> None:
    """A draft changes hands only when its run has surely ended."""
    assert owner.outlived(Mark("f", *mark)) is outlived


def test_mark_is_read_back() -> None:
    """The mark survives in a body among other text; other comments are no marks."""
    mark = Mark("f", "local/x", 0, "n")
    assert read_mark(f"Notes.\n<!-- other -->\n{mark.to_text()}\n") == mark
    assert read_mark("<!-- mlc-llm-pipeline {} -->") is None
    assert read_mark(None) is None


def test_only_one_run_is_alone_in_a_checkout(tmp_path: Path) -> None:
    """A second run at the same time may not continue the first one's draft."""
    with this_run(tmp_path, {}) as first, this_run(tmp_path, {}) as second:
        assert first.alone and not second.alone
        assert first.instance != second.instance
    with this_run(tmp_path, {}) as third:
        assert third.outlived(first.mark("f"))


def publisher(client: GitHub, plan: ReleasePlan, nonce: str, tmp_path: Path) -> Publisher:
    """The second attempt of a job on Actions."""
    return Publisher(client, plan, Owner("actions/7/release", 2, False, nonce), tmp_path)


@pytest.mark.parametrize("late", [False, True])
def test_one_heir_takes_a_draft_over(
    late: bool, server: GitHubServer, client: GitHub, tmp_path: Path
) -> None:
    """Of two heirs one continues the draft, even if the other acts on an old listing."""
    path = tmp_path / "a.txt"
    path.write_bytes(b"content")
    asset = Asset(path, 7, hashlib.sha256(b"content").hexdigest())
    plan = ReleasePlan(TAG, "1.0.0", REPOSITORY, "a" * 40, False, (asset,), (), "Notes.")
    first, second = (publisher(client, plan, nonce, tmp_path) for nonce in ("one", "two"))
    mark = Mark(plan.fingerprint, "actions/7/release", 1, "former")
    body = {"tag_name": TAG, "draft": True, "body": mark.to_text()}
    client.request("POST", RELEASES, json=body)
    listing = first.look().drafts
    taken = first._take_over(listing)
    assert taken is not None
    if late:
        first._fill(taken)  # the claim is gone again
    assert second._take_over(listing) is None
    outcome = first.run()
    assert outcome.number == taken["id"]
    assert second.run().what == "nothing to do"
    assert [a["name"] for a in server.store.all("assets")] == ["a.txt"]


def test_many_other_releases(project: Path, server: GitHubServer, client: GitHub) -> None:
    """A draft is found among more releases than a page holds."""
    body = {"tag_name": TAG, "draft": True}
    client.request("POST", RELEASES, json=body)
    for number in range(65):
        client.request("POST", RELEASES, json={"tag_name": f"v0.0.{number}", "draft": True})
    assert run_release(project, server.url, TAG) == 0
    check_end(server, expected_assets(project))


# --- the token and the process ------------------------------------------------


def test_token_is_nowhere(
    project: Path, server: GitHubServer, caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str], tmp_path: Path,
) -> None:  # fmt: skip
    """Not in logs at any level, in output, in files that are written, nor in arguments."""
    caplog.set_level(logging.DEBUG)
    seen: list[str] = []

    def look() -> None:
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                seen.append(path.read_text(errors="replace"))
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
    everything = [out, err, captured.out, captured.err, caplog.text, *seen]
    everything += [p.read_text(errors="replace") for p in project.rglob("*") if p.is_file()]
    assert all(TOKEN not in text for text in everything)
    if sys.platform == "linux":
        assert any("tests.release.project" in line for line in seen)


def test_interrupted_run_ends_soon(project: Path, server: GitHubServer) -> None:
    """Ctrl-C during an upload ends within seconds; the draft stays invisible."""
    if sys.platform == "win32":
        pytest.skip("no SIGINT to a process of its own")
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
