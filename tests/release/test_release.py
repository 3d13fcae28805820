"""The release command: what it refuses, what it prepares, what it publishes."""

import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests

from tests.release.project import (
    LINUX,
    REPOSITORY,
    TAG,
    TOKEN,
    World,
    change_wheel,
    digest_of,
    git,
    head,
    make_project,
    make_world,
    write_record,
    write_wheel,
)
from tests.services.faults import Fault, limited
from tests.services.github import Token
from tools.images.record import ImageRecord, write
from tools.release.publish import draft_mark

PURE = "py3-none-any"
UPLOAD, DELETE = "repos/upload-release-asset", "repos/delete-release-asset"
CREATE, UPDATE = "repos/create-release", "repos/update-release"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with make_world(make_project(tmp_path / "project"), tmp_path / "github") as world:
        yield world


def write_image(
    root: Path, revision: str = "", image: str = "development", output: str = "push"
) -> Path:
    """The record of an image of the checkout."""
    name, digest, revision = "ghcr.io/owner/name", "sha256:" + "ab" * 32, revision or head(root)
    what = ImageRecord(image, name, digest, (f"{name}:v1.0.0",), ("linux/amd64",), 1000, output,
                       "1.0.0", revision)  # fmt: skip
    return write(what, root)


def add_release(world: World, tag: str = TAG, body: str = "", draft: bool = True) -> None:
    """A release that somebody else creates."""
    address = f"{world.server.url}/repos/{REPOSITORY}/releases"
    requests.post(
        address, json={"tag_name": tag, "body": body, "draft": draft}, timeout=10,
        headers={"Authorization": f"Bearer {TOKEN}"},
    ).raise_for_status()  # fmt: skip


def linux(root: Path) -> Path:
    return next(root.glob("dist/*linux*.whl"))


def corrupt(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[content.index(b"A package")] ^= 1
    path.write_bytes(bytes(content))


# fmt: off
PROBLEMS: list[tuple[Callable[[Path], object], str]] = [
    (lambda p: [w.unlink() for w in p.glob("dist/*.whl")], "There is no wheel"),
    (lambda p: linux(p).write_bytes(b"PK\3\4 not an archive"), "is damaged"),
    (lambda p: corrupt(linux(p)), "wrong checksum"),
    (lambda p: write_wheel(p / "dist", "1.0.1", LINUX), "has version 1.0.1, not 1.0.0"),
    (lambda p: next(p.glob("dist/*win*.whl")).unlink(), "wheel in dist/ serves windows-x64"),
    (lambda p: write_wheel(p / "dist" / "other", size=201), "two different files mlc_llm-1.0.0"),
    (lambda p: write_wheel(p / "dist", size=999), "is not the file that was built"),
    (lambda p: write_record(p / "dist", "f" * 40), "is of fffffff, but"),
    (lambda p: (p / "dist" / "wheels.json").write_text("{}"), "wheels.json cannot be read"),
    (lambda p: git(p, "commit", "-q", "--allow-empty", "-m", "two"), "points at"),
    (lambda p: git(p, "tag", "-d", TAG), "does not exist in this clone"),
    (lambda p: write_image(p, revision="e" * 40), "development.json is of eeeeeee, but"),
    (lambda p: write_image(p).write_text("{"), "development.json cannot be read"),
]
# fmt: on


@pytest.mark.parametrize(("spoil", "words"), PROBLEMS)
def test_what_is_refused(spoil: Callable[[Path], object], words: str, world: World) -> None:
    """Each thing that may be wrong with checkout or dist/ is named; nothing is written."""
    spoil(world.root)
    assert world.run() == 1
    assert words in world.err and "Traceback" not in world.err
    assert not world.wrote() and not (world.root / "dist" / "release").exists()


def test_all_problems_at_once(world: World) -> None:
    """Everything that is wrong is reported in one go, with what to do about each."""
    next(world.root.glob("dist/*win*.whl")).write_bytes(b"")
    write_wheel(world.root / "dist", "2.0.0", PURE)
    git(world.root, "commit", "-q", "--allow-empty", "-m", "two")
    world.server.add_token(TOKEN, Token(kind="installation", permissions={"contents": "read"}))
    assert world.run() == 1
    for words in ("is damaged", "has version 2.0.0", "points at", "things stand against",
                  "contents=write", "git checkout v1.0.0"):  # fmt: skip
        assert words in world.err


def test_bad_usage(world: World) -> None:
    """One sentence with what is accepted, exit code 2."""
    assert world.run(GITHUB_REPOSITORY="") == 2
    assert "which GitHub repository this is" in world.err
    world.tag = "latest"
    assert world.run() == 2
    assert "is not a version" in world.err and "v1.2.3-rc1" in world.err


def test_token_that_cannot_write(world: World) -> None:
    """It is refused before anything is done; the token is not shown."""
    world.server.add_token("ghp_weak0123456789", Token(scopes=("read:org",)))
    for token in ("ghp_weak0123456789", "ghp_unknown0123456"):
        assert world.run(GH_TOKEN=token) == 1
        assert "token" in world.err and token not in world.err and not world.wrote()


def test_no_token(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """All but publishing happens, without GitHub; in a job of Actions it is an error."""
    assert world.run(GH_TOKEN="") == 0
    assert "no token is set" in world.err
    assert world.server.log == [] and "SHA256SUMS" in world.files()
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    assert world.run(GH_TOKEN="") == 1


def test_tag_on_github(world: World) -> None:
    """A tag that was not pushed, or points elsewhere there, is not released."""
    world.server.add_repository(REPOSITORY, {})
    assert world.run() == 1 and "is not on GitHub" in world.err
    world.server.add_repository(REPOSITORY, {TAG: "f" * 40})
    assert world.run() == 1 and "on GitHub points at fffffff" in world.err


def test_what_was_prepared_is_what_is_published(world: World) -> None:
    """A dry run prepares and shows all and publishes nothing; CI attests its files, and
    publishes the same bytes in a second run. ``sha256sum`` reads the sums.
    """
    assert world.run("--dry-run", "--json") == 0
    shown, attested = json.loads(world.out), world.files()
    assert shown["outcome"] is None and not world.wrote()
    assert {a["name"] for a in shown["plan"]["assets"]} == set(attested)
    assert json.loads((world.root / "dist" / "release.json").read_text()) == shown["plan"]
    (world.root / "dist" / "release" / "left by another run").write_text("")
    assert world.run() == 0
    assert world.files() == attested
    world.check()
    if shutil.which("sha256sum"):
        command, folder = ["sha256sum", "--check", "--strict", "SHA256SUMS"], "dist/release"
        done = subprocess.run(command, cwd=world.root / folder, capture_output=True, check=True)
        assert done.stdout.count(b": OK") == len(attested) - 1


def test_pure_wheel_of_every_job_is_one_asset(tmp_path: Path) -> None:
    """The same pure wheel from each job of the matrix serves every platform."""
    root = make_project(tmp_path / "project", tags=())
    for folder in ("wheels-linux-x64", "wheels-windows-x64"):
        wheel = write_wheel(root / "dist" / folder, tag=PURE)
        write_record(root / "dist" / folder, head(root))
    with make_world(root, tmp_path / "github") as world:
        assert world.run() == 0
        world.check()
        assert [name for name in world.files() if name.endswith(".whl")] == [wheel.name]


def test_records_that_name_the_annotated_tag(world: World) -> None:
    """A record may hold the hash of the tag's own object: it stands for the commit."""
    git(world.root, "tag", "-f", "-a", TAG, "-m", "release")
    of_tag = git(world.root, "rev-parse", f"refs/tags/{TAG}")
    assert of_tag != head(world.root)
    write_record(world.root / "dist", of_tag)
    write_image(world.root, revision=of_tag)
    assert world.run() == 0


def test_image_digests(world: World) -> None:
    """Pushed images are published by digest; one that stayed local is not."""
    write_image(world.root)
    write_image(world.root, image="production", output="load")
    assert world.run() == 0
    world.check()
    published = json.loads((world.root / "dist/release/image-digests.json").read_text())
    (image,) = published["images"]
    assert image["reference"] == "ghcr.io/owner/name@sha256:" + "ab" * 32
    assert f"docker pull {image['reference']}" in world.releases()[0]["body"]


def test_notes(world: World) -> None:
    """The changelog's section first, then GitHub's notes, then how to install."""
    assert world.run() == 0
    body = world.releases()[0]["body"]
    order = ["Written by hand.", "## What's Changed", "## Installation", "No image digest"]
    places = [body.index(words) for words in order]
    assert places == sorted(places) and "Old." not in body
    wheel = linux(world.root)
    url = f"https://github.com/{REPOSITORY}/releases/download/{TAG}/{wheel.name}"
    assert f'pip install "{url}#{digest_of(wheel).replace(":", "=")}"' in body


MARKS = [(TAG, "1.0.0", "v0.9.0", True), (TAG, "1.0.0", "v1.1.0", False),
         ("v1.0.0-rc1", "1.0.0rc1", "v0.9.0", False)]  # fmt: skip


@pytest.mark.parametrize(("tag", "version", "other", "latest"), MARKS)
def test_marks(tag: str, version: str, other: str, latest: bool, tmp_path: Path) -> None:
    """A candidate is a prerelease; the highest stable version is the latest."""
    root = make_project(tmp_path / "project", tag, version)
    with make_world(root, tmp_path / "github", tag=tag) as world:
        add_release(world, other, draft=False)
        assert world.run() == 0
        _, ours = world.releases()
        assert ours["prerelease"] is ("rc" in tag)
        assert (world.server.store.get("latest", REPOSITORY) == ours["id"]) is latest


@pytest.mark.parametrize("immutable", [False, True])
def test_twice_is_nothing_to_do(
    immutable: bool, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same release again is success, and writes nothing; the summary says which it was."""
    summary, page = world.root / "summary", f"releases/tag/{TAG})"
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    world.server.add_repository(REPOSITORY, {TAG: head(world.root)}, immutable=immutable)
    assert world.run() == 0 and f"{page}: published." in summary.read_text()
    assert world.releases()[0]["immutable"] is immutable
    world.server.log.clear()
    assert world.run() == 0 and f"{page}: nothing to do." in summary.read_text()
    assert not world.wrote()


@pytest.mark.parametrize("digests", [True, False])
def test_other_content_is_an_error(digests: bool, world: World) -> None:
    """A published release with other files is left alone, and the differences are listed.
    Where GitHub reports no digest, the assets are downloaded and hashed.
    """
    world.server.no_digests = not digests
    wheel = linux(world.root)
    there = f"- there: {wheel.name}, {wheel.stat().st_size} bytes"
    assert world.run() == 0
    assert ("repos/get-release-asset" in world.kinds()) is not digests
    change_wheel(world.root)
    world.server.log.clear()
    assert world.run() == 1
    assert "is published with other content" in world.err and there in world.err
    assert not world.wrote()


def test_whose_a_draft_is(tmp_path: Path) -> None:
    """The attempts of a run share a mark, and so do all runs in a checkout; no others."""
    first, second = ({"GITHUB_RUN_ID": "7", "GITHUB_RUN_ATTEMPT": n} for n in "12")
    assert draft_mark(tmp_path, first) == draft_mark(tmp_path / "x", second)
    assert draft_mark(tmp_path, {}) == draft_mark(tmp_path, {})
    others = [{"GITHUB_RUN_ID": "77"}, {"GITHUB_RUN_ID": "7", "GITHUB_JOB": "other"}]
    marks = {draft_mark(tmp_path, env) for env in (first, *others, {})}
    assert len(marks | {draft_mark(tmp_path / "x", {})}) == 5


def test_drafts_of_others_stay(world: World) -> None:
    """Drafts of people, of other runs and of other tags (more than a page of the list holds)
    are not touched and do not block.
    """
    add_release(world, body="By hand.")
    add_release(world, body=draft_mark(world.root / "elsewhere", {}))
    add_release(world, "v0.9.0", body=draft_mark(world.root, {}))
    for number in range(110):
        add_release(world, f"v0.0.{number}")
    before = world.releases(draft=True)
    assert world.run() == 0
    assert world.releases(draft=True) == before
    paths = [entry["path"] for entry in world.server.log]
    assert not any(f"/releases/{r['id']}" in path for r in before for path in paths)
    world.check_history(world.files())


SPOILED = {
    "starter": {"state": "starter", "size": 0, "digest": None},
    "wrong size": {"size": 1},
    "wrong digest": {"digest": "sha256:" + "0" * 64},
    "extra": {"name": "what-is-this"},
}


@pytest.mark.parametrize("spoiled", SPOILED)
def test_left_draft_is_repaired(spoiled: str, world: World) -> None:
    """What a former run of this checkout left wrong in its draft is replaced, the rest kept."""
    store, script = world.server.store, world.server.faults.script
    script.append(Fault("status", UPDATE, 0, status=401, data={"message": "no"}))
    assert world.run() == 1
    script.clear()
    left = store.all("assets")
    bad = next(a for a in left if "linux" in a["name"])
    store.put("assets", bad["id"], {**bad, **SPOILED[spoiled]})
    assert world.run() == 0
    world.check()
    assert {a["id"] for a in left} - {a["id"] for a in store.all("assets")} == {bad["id"]}


def test_upload_that_arrives_corrupted(world: World) -> None:
    """GitHub accepts the upload, with other bytes than ours: it never becomes visible."""
    store = world.server.store

    def corrupt_asset() -> None:
        asset = store.all("assets")[0]
        store.put("assets", asset["id"], {**asset, **SPOILED["wrong digest"]})

    world.server.faults.script.append(Fault("call-after", UPLOAD, 4, hook=corrupt_asset))
    assert world.run() == 0
    world.check()


def test_deleted_asset_never_counts(world: World) -> None:
    """A broken upload that completes just before it is deleted is not what is published:
    GitHub may carry the deletion out late, when the release would be visible.
    """
    store, late = world.server.store, []

    def complete() -> None:
        asset = next(a for a in store.all("assets") if a["state"] == "starter")
        late.append(asset["id"])
        file = world.root / "dist" / "release" / asset["name"]
        done = {"state": "uploaded", "size": file.stat().st_size, "digest": digest_of(file)}
        store.put("assets", asset["id"], {**asset, **done})

    world.server.faults.script += [
        Fault("half-read", UPLOAD, 2),
        Fault("call-before", DELETE, 1, hook=complete),
        Fault("status", DELETE, 1, status=404, data={"message": "Not Found"}),
    ]
    assert world.run() == 0
    assert late and late[0] not in {a["id"] for a in store.all("assets")}
    world.check()


def test_limit_that_is_not_waited_for(world: World) -> None:
    """A rate limit beyond GITHUB_TIME_LIMIT ends the run, and says what to do."""
    fault = limited(in_seconds=3600)
    fault.kind = UPLOAD
    world.server.faults.script.append(fault)
    assert world.run(GITHUB_TIME_LIMIT="60s") == 1
    assert "raise GITHUB_TIME_LIMIT" in world.err and not world.releases()


@pytest.mark.parametrize("same", [True, False])
def test_published_by_another_meanwhile(same: bool, world: World, tmp_path: Path) -> None:
    """The same files from another checkout first: success. Other files: an error."""
    other = World(tmp_path / "other", world.server)
    shutil.copytree(world.root, other.root)
    if not same:
        change_wheel(other.root)
    codes = []

    def other_run() -> None:
        process = other.start(tmp_path / "log")
        process.join(60)
        codes.append(process.exitcode)

    world.server.faults.script.append(Fault("call-before", UPDATE, 1, hook=other_run))
    assert world.run(timeout=60) == (0 if same else 1)
    assert codes == [0]
    other.check_history(other.files())
    if same:
        other.check()


def test_token_is_nowhere(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """Not in logs at any level, in output, in files that are written, nor in arguments."""
    caplog.set_level(logging.DEBUG)
    arguments: list[str] = []

    def look() -> None:
        done = subprocess.run(
            ["ps", "-ewwo", "args"], capture_output=True, text=True, check=True
        )
        arguments.append(done.stdout)

    world.server.faults.script += [
        Fault("call-before", CREATE, hook=look),
        Fault("reset-after", UPLOAD, 2),
        Fault("status", UPDATE, 1, status=500),
    ]
    assert world.run("--debug", "--json") == 0
    files = [p.read_text(errors="replace") for p in world.root.rglob("*") if p.is_file()]
    assert "Looking again" in world.err and caplog.text and "pytest" in arguments[0]
    for text in [world.out, world.err, caplog.text, *arguments, *files]:
        assert TOKEN not in text


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGINT to a process of its own")
def test_interrupted_run_ends_soon(world: World, tmp_path: Path) -> None:
    """Ctrl-C during an upload ends within seconds; the draft stays invisible."""
    reached, log = threading.Event(), tmp_path / "log"
    world.server.faults.script += [
        Fault("call-before", UPLOAD, 1, hook=reached.set),
        Fault("delay", UPLOAD, 1, seconds=0.5),
    ]
    process = world.start(log)
    assert reached.wait(30)
    os.kill(process.pid or 0, signal.SIGINT)
    process.join(20)
    assert process.exitcode == 130, log.read_text()
    assert "Traceback" not in log.read_text() and not world.releases()
    assert world.run() == 0
    world.check()
