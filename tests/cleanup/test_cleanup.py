"""The cleanup from end to end: a simulated GitHub before a real registry, real clients."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.services.cleanup_world import (
    DELETES,
    LISTING,
    TOKEN,
    Ran,
    World,
    fill,
    old,
    quick,
    remove_images,
)
from tests.services.faults import Fault, limited
from tests.services.gate import Fault as GateFault
from tests.services.github import Answer, Call, Token
from tests.services.registry import Registry, digest_of
from tools.cleanup import __main__ as cleanup
from tools.cleanup.memory import load as load_memory
from tools.cleanup.plan import DAY
from tools.core.settings import ROOT
from tools.core.settings import load as load_settings

RESTORES = "packages/restore-package-version-for-user"


def replace_route(world: World, name: str, run: Callable[[Call], Answer]) -> None:
    """Let an endpoint of the simulated GitHub do something else."""
    routes = world.server.routes
    routes[:] = [replace(one, run=run) if one.name == name else one for one in routes]


# --- what it does ---


def test_deletes_what_nothing_needs_and_no_more(world: World, run: Callable[..., Ran]):
    """The whole promise on one package of everything; a second run has nothing to do."""
    going = fill(world.repository)
    tags = old(world)
    ran = run(world, "--keep", "0")
    assert ran.code == 0, ran.err
    assert set(ran.report["deleted"]) == set(going.values())
    left = {tag: digest for tag, digest in tags.items() if digest not in going.values()}
    assert world.repository.digests().isdisjoint(going.values())
    world.check_pulls(left)
    assert ran.report["verified"] == {"tags": len(left), "broken": {}}
    again = run(world, "--keep", "0")
    assert (again.code, again.report["delete"], again.report["deleted"]) == (0, [], [])


def test_dry_run_changes_nothing(world: World, run: Callable[..., Ran]):
    """A dry run shows the plan as a table and as JSON, and only reads."""
    going = fill(world.repository)
    tags, before = old(world), world.repository.digests()
    ran = run(world, "--keep", "0", "--dry-run")
    assert ran.code == 0
    assert {one["digest"] for one in ran.report["delete"]} == set(going.values())
    assert world.repository.digests() == before and world.repository.tags() == tags
    assert {seen.method for seen in world.gate.seen} <= {"GET", "HEAD"}
    assert {entry["method"] for entry in world.server.log} == {"GET"}
    assert "untagged, not one of the newest 0" in ran.err
    assert "part of" in ran.err and TOKEN not in ran.err


def test_forty_images_with_provenance(world: World, run: Callable[..., Ran]):
    """The case that breaks 18 of 20 tags elsewhere: every second of 40 images is tagged."""
    for number in range(40):
        world.repository.build(f"v{number}" if number % 2 else "")
    tags = old(world)
    ran = run(world)
    assert ran.code == 0, ran.err
    # 20 untagged images, of which the newest 10 stay, with 3 manifests each.
    assert len(ran.report["deleted"]) == 30
    # Each index and each untagged part is read once; parts of tagged images never are.
    read = [
        seen.path
        for seen in world.gate.seen
        if seen.method == "GET" and "/manifests/" in seen.path
    ]
    assert len(read) == len(set(read)) == 20 + 60
    # Two pages to plan, two to look again, one of what is left; a deletion for each.
    kinds = world.kinds()
    assert kinds.count(LISTING.partition("/")[2]) == 5
    assert kinds.count(DELETES.partition("/")[2]) == 30
    assert len(kinds) == 1 + 5 + 30
    world.check_pulls(tags)


def test_grace_protects_a_push_in_progress(world: World, run: Callable[..., Ran]):
    """The parts of an image are there before its tag: what is young is left alone."""
    world.repository.build("v1")
    world.repository.build("")
    ran = run(world, "--keep", "0")
    assert ran.report["delete"] == []
    ran = run(world, "--keep", "0", "--grace", "0")
    assert len(ran.report["deleted"]) == 3


def test_tags_can_be_given_up(world: World, run: Callable[..., Ran]):
    """Tagged images go only when asked, and only when all their tags match."""
    for tag in ("v1", "pr-1", "pr-2", "pr-keep"):
        world.repository.build(tag)
    pointed = world.repository.tags()
    # A second tag on the same image.
    body = json.dumps(world.repository.get("pr-2")).encode()
    assert digest_of(body) == pointed["pr-2"]
    world.repository.manifest(json.loads(body), "stable")
    old(world)
    assert run(world, "--keep", "0").report["delete"] == []
    chosen = ("--tags-matching", "pr-*", "--keep-tags", "*keep", "--older-than", "20d")
    ran = run(world, "--keep", "0", *chosen)
    assert ran.code == 0, ran.err
    assert sorted(world.repository.tags()) == ["pr-2", "pr-keep", "stable", "v1"]
    world.check_pulls({tag: digest for tag, digest in {**pointed, "stable": pointed["pr-2"]}.items() if tag != "pr-1"})  # fmt: skip


def test_organisation_and_escaped_names(world: World, run: Callable[..., Ran]):
    """Organisations have other paths; slashes in a package's name are escaped."""
    world.service.organizations.add("owner")
    world.repository.build("v1")
    world.repository.build("")
    old(world)
    assert len(run(world, "--keep", "0").report["deleted"]) == 3
    paths = [entry["path"] for entry in world.server.log]
    escaped = world.repository.name.removeprefix("owner/").replace("/", "%2F")
    assert any(f"/orgs/owner/packages/container/{escaped}/versions" in path for path in paths)


@pytest.mark.parametrize(("links", "size"), [(True, 100), (False, 100), (True, 50)])
def test_more_than_a_page(world: World, run: Callable[..., Ran], links: bool, size: int):
    """Every page of versions is read, also where a proxy has taken the links between them
    away, or a page is shorter than asked for: what is on the last one must not look free.
    """
    world.server.links = links
    real = world.service.versions

    def versions(call):
        call.query["per_page"] = str(min(size, int(call.query["per_page"])))
        return real(call)

    replace_route(world, LISTING, versions)
    parts = [world.repository.image_manifest(seed=f"part {n}") for n in range(120)]
    world.repository.index(parts[::2], "v1")
    world.repository.set_all_ages(30 * DAY)
    ran = run(world, "--keep", "0")
    assert (ran.report["versions"], len(ran.report["deleted"])) == (121, 60)
    assert world.kinds().count(LISTING.partition("/")[2]) >= 4
    assert all(world.repository.has(part.digest) for part in parts[::2])


def test_broken_tags_are_told_and_left(world: World, run: Callable[..., Ran]):
    """A tag that is broken before is said; the run goes on with the rest."""
    image = world.repository.build("v1")
    part = world.repository.get(image.digest)["manifests"][0]["digest"]
    world.repository.delete(part)
    world.repository.build("v2")
    world.repository.image_manifest()
    old(world)
    ran = run(world, "--keep", "0")
    assert ran.code == 0
    assert ran.report["broken"] == {"v1": [part]}
    assert "The tag v1 is broken already" in ran.err
    assert len(ran.report["deleted"]) == 1


def test_refusals_of_github_are_skipped_and_told(world: World, run: Callable[..., Ran]):
    """More than 5,000 downloads: GitHub keeps it, so its parts stay as well."""
    world.repository.build("v1")
    famous = world.repository.build("")
    other = world.repository.build("")
    old(world)
    world.service.downloads[famous.digest] = 5001
    ran = run(world, "--keep", "0")
    assert ran.code == 0, ran.err
    assert list(ran.report["skipped"]) == [famous.digest]
    assert "more than 5000 downloads" in ran.err
    assert len(ran.report["saved"]) == 2 and len(ran.report["deleted"]) == 3
    assert not world.repository.has(other.digest)
    parts = [child["digest"] for child in world.repository.get(famous.digest)["manifests"]]
    assert all(world.repository.has(part) for part in parts)


def test_never_the_last_version(world: World, run: Callable[..., Ran]):
    """A package of nothing but old untagged images keeps one, whole."""
    world.repository.build("")
    kept = world.repository.build("")
    old(world)
    world.repository.set_age(kept.digest, 29 * DAY)
    ran = run(world, "--keep", "0", "--grace", "0")
    assert ran.code == 0 and len(ran.report["deleted"]) == 3
    assert world.repository.has(kept.digest)
    assert len(world.repository.digests()) == 3


def test_no_package_yet(world: World, run: Callable[..., Ran]):
    """The job runs whatever happened before, also before the first push."""
    ran = run(world)
    assert ran.code == 0 and "nothing to do" in ran.err


@pytest.mark.parametrize(
    ("arguments", "env", "message"),
    [
        ([], {"GH_TOKEN": ""}, "No token is set"),
        (
            [],
            {"GITHUB_API_URL": "https://api.github.com", "REGISTRY": "docker.io"},
            "not GitHub's",
        ),
        ([], {"IMAGE_NAME": "noowner"}, "has no owner"),
    ],
)
def test_bad_settings(world: World, run: Callable[..., Ran], arguments, env, message):
    """Bad settings are one sentence and exit code 2, before anything is asked for."""
    ran = run(world, *arguments, **env)
    assert ran.code == 2 and message in ran.err
    assert world.server.log == [] and world.gate.seen == []


@pytest.mark.parametrize("arguments", [["--keep", "-1"], ["--grace", "1 year"], ["--nonsense"]])
def test_bad_arguments(arguments: list[str], capsys: pytest.CaptureFixture):
    """Bad arguments end with code 2 before anything is asked for."""
    assert cleanup.main(arguments) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_a_token_that_may_not_delete(world: World, run: Callable[..., Ran]):
    """A wrong token stops the work at once, with what to do, and nothing is half done."""
    fill(world.repository)
    tags = old(world)
    world.server.add_token(TOKEN, Token(scopes=("read:packages",)))
    ran = run(world, "--keep", "0")
    assert ran.code == 1
    assert ran.report["deleted"] == []
    world.check_pulls(tags)


def test_a_token_that_may_not_read(world: World, run: Callable[..., Ran]):
    """404 can mean no rights: it is not taken for an absent package."""
    fill(world.repository)
    old(world)
    world.server.faults.script.append(
        Fault("status", LISTING, 0, 404, {"message": "Not Found"})
    )
    ran = run(world)
    assert ran.code == 1 and "token" in ran.err


def test_the_cache_spares_the_second_run(world: World, run: Callable[..., Ran]):
    """Manifests never change: a second run reads only new ones."""
    for number in range(6):
        world.repository.build(f"v{number}")
    old(world)
    first = run(world, "--dry-run")
    assert first.report["requests"]["manifests"] == 6
    world.repository.build("new")
    world.gate.reset()
    second = run(world, "--dry-run")
    assert second.report["requests"]["manifests"] == 1
    assert world.gate.count("GET", "/manifests/") == 1


def test_a_damaged_cache_is_read_anew(world: World, run: Callable[..., Ran]):
    """A cache is never trusted beyond its checksum, and never stops the work."""
    fill(world.repository)
    old(world)
    first = run(world, "--keep", "0", "--dry-run")
    [path] = (world.folder / "cache").iterdir()
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    second = run(world, "--keep", "0", "--dry-run")
    assert "is damaged" in second.err
    assert second.report["delete"] == first.report["delete"]


def test_the_pace_of_githubs_limit(
    world: World, run: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch
):
    """180 deletes a minute and no faster: so no request is ever refused for a limit."""
    waits: list[float] = []
    monkeypatch.setattr("github.Requester.time.sleep", waits.append)
    world.repository.build("v1")
    for number in range(10):
        world.repository.image_manifest(seed=f"stale {number}")
    old(world)
    ran = run(world, "--keep", "0", GITHUB_POINTS_PER_MINUTE="900")
    assert ran.code == 0 and len(ran.report["deleted"]) == 10
    assert len(waits) == 9 and 0 < min(waits) and max(waits) <= 1 / 3


def test_limits_that_are_told_are_obeyed(world: World, run: Callable[..., Ran]):
    """Somebody else uses the limit up as well: we wait as asked, then go on."""
    fill(world.repository)
    tags = old(world)
    world.server.faults.script += [
        Fault("status", DELETES, 2, 403, {"message": "You have exceeded a secondary rate limit"}, {"retry-after": "1"}),
        Fault("status", DELETES, 4, 429, {"message": "too many"}, {"retry-after": "0"}),
    ]  # fmt: skip
    ran = run(world, "--keep", "0")
    assert ran.code == 0, ran.err
    world.check_pulls({t: d for t, d in tags.items() if d not in ran.report["deleted"]})


def test_a_limit_that_lasts_ends_the_run_whole(world: World, run: Callable[..., Ran]):
    """The hour's limit is used up: the run ends, says what is left, and the next goes on."""
    fill(world.repository)
    tags = old(world)
    world.server.faults.script.append(limited(3600))
    world.server.faults.script[0].kind, world.server.faults.script[0].nth = DELETES, 3
    ran = run(world, "--keep", "0", GITHUB_TIME_LIMIT="2s")
    assert ran.code == 1 and "GITHUB_TIME_LIMIT" in ran.err + str(ran.report)
    world.check_pulls({t: d for t, d in tags.items() if d in world.repository.digests()})
    world.forget()
    assert run(world, "--keep", "0").code == 0


def test_a_new_tag_saves_what_was_to_go(world: World, run: Callable[..., Ran]):
    """Between plan and deletion somebody tags an image, or lists a part: both stay."""
    world.repository.build("v1")
    tagged = world.repository.build("")
    listed = world.repository.image_manifest()
    old(world)
    asked = []

    def push() -> None:
        asked.append(True)
        world.repository.manifest(world.repository.get(tagged.digest), "rescued")
        world.repository.index([listed], "new")

    # The second listing is the look before the first deletion.
    world.server.faults.script.append(Fault("call-before", LISTING, 2, hook=push))
    ran = run(world, "--keep", "0")
    assert asked and ran.code == 0, ran.err
    assert ran.report["deleted"] == [] and len(ran.report["delete"]) == 4
    world.check_pulls(world.repository.tags())


@pytest.mark.parametrize("action", ["", "status", "reset-after"])
def test_what_a_late_push_needs_is_brought_back(
    world: World, run: Callable[..., Ran], action: str
):
    """A push that found a part there, while we deleted it: the part is restored, also where
    the first try fails, which is not repeated as it is a POST.
    """
    if action:
        world.server.faults.script.append(Fault(action, RESTORES))
    world.repository.build("v1")
    part = world.repository.image_manifest()
    old(world)
    real = world.service.delete

    def delete(call):
        if world.service._find(call)[1] != part.digest:
            return real(call)
        world.repository.index([part], "late")
        return real(call)

    replace_route(world, DELETES, delete)
    ran = run(world, "--keep", "0")
    assert ran.code == 0, ran.err
    # After a reset the part is back, and the next look sees that.
    assert ran.report["restored"] == ([] if action == "reset-after" else [part.digest])
    world.check_pulls(world.repository.tags())
    assert sorted(world.repository.tags()) == ["late", "v1"]


def test_the_next_run_brings_back_what_this_one_could_not(
    world: World, run: Callable[..., Ran]
):
    """A push ends after the last look: the next run knows what was deleted, and heals."""
    world.repository.build("v1")
    stale = world.repository.build("")
    body = world.repository.get(stale.digest)
    parts = [child["digest"] for child in body["manifests"]]
    kept = world.repository.image_manifest("other")
    old(world)
    assert len(run(world, "--keep", "0").report["deleted"]) == 3
    # What GitHub's registry, unlike this one, may accept: an index without its parts.
    for part in parts:
        [number] = [n for n, d in world.service.deleted.items() if digest_of(d.body) == part]
        gone = world.service.deleted[number]
        world.repository.manifest(json.loads(gone.body))
    world.repository.manifest(body, "late")
    for part in parts:
        world.repository.delete(part)
    ran = run(world, "--keep", "0")
    assert ran.code == 0 and sorted(ran.report["restored"]) == sorted(parts)
    world.check_pulls({"v1": world.repository.tags()["v1"], "other": kept.digest, "late": stale.digest})  # fmt: skip


def test_a_tag_that_the_listing_misses_is_believed(world: World, run: Callable[..., Ran]):
    """A version that slips from one page to another while we read still counts."""
    image = world.repository.build("v1")
    world.repository.build("v2")
    world.repository.image_manifest()
    old(world)
    real = world.service.versions

    def without_v1(call):
        answer = real(call)
        answer.data = [one for one in answer.data if one["name"] != image.digest]
        return answer

    replace_route(world, LISTING, without_v1)
    tags = world.repository.tags()
    ran = run(world, "--keep", "0")
    assert ran.code == 0 and len(ran.report["deleted"]) == 1
    world.check_pulls(tags)


def test_the_wrong_registry_deletes_nothing(
    world: World, registry: Registry, run: Callable[..., Ran]
):
    """GitHub lists versions that the registry knows nothing of: that is no clean 404."""
    fill(world.repository)
    tags = old(world)
    world.gate.fault = lambda seen: (
        GateFault(404, body=b'{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}')
        if "/manifests/" in seen.path else None
    )  # fmt: skip
    ran = run(world, "--keep", "0")
    assert ran.code == 1 and "has none of them" in ran.err
    world.check_pulls(tags)


@pytest.mark.parametrize("status", [404, 403, 500])
def test_an_index_that_cannot_be_read_keeps_everything(
    world: World, run: Callable[..., Ran], status: int, monkeypatch: pytest.MonkeyPatch
):
    """A 404 without the registry's own words counts as little as a 500: nothing goes."""
    monkeypatch.setattr(cleanup, "connect", quick)
    fill(world.repository)
    tags = old(world)
    hidden = tags["v1"]
    world.gate.fault = lambda seen: GateFault(status) if hidden in seen.path else None
    ran = run(world, "--keep", "0")
    assert ran.code == 1 and "could not be read" in ran.err
    assert ran.report["deleted"] == [] and list(ran.report["undecided"]) == [hidden]
    world.gate.reset()
    world.check_pulls(tags)


def test_interrupted_politely(world: World):
    """Ctrl-C or SIGTERM: what is under way ends, nothing new begins, exit code 130."""
    for number in range(12):
        world.repository.image_manifest(seed=f"stale {number}")
    world.repository.build("v1")
    old(world)
    tags = world.repository.tags()
    child: list[subprocess.Popen] = []
    ready = threading.Event()

    def interrupt() -> None:
        ready.wait(30)
        child[0].send_signal(signal.SIGTERM)

    world.server.faults.script.append(Fault("call-before", DELETES, 2, hook=interrupt))
    world.server.latency = 0.2
    env = {**os.environ, **world.env(GITHUB_POINTS_PER_MINUTE="300")}
    child.append(
        subprocess.Popen(
            [sys.executable, "-m", "tools.cleanup", "--keep", "0"],
            env=env, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )
    )  # fmt: skip
    ready.set()
    _, err = child[0].communicate(timeout=30)
    assert child[0].returncode == 130, err
    assert "Traceback" not in err
    world.settle()
    gone = len(tags) + 14 - len(world.repository.digests())
    assert 0 < gone < 12
    world.check_pulls(tags)
    # What it deleted is remembered, for the next run to bring back if need be.
    settings = load_settings(world.env(), ROOT)
    assert len(load_memory(cleanup.memory_path(settings), settings.image).deleted) == gone


@pytest.mark.engine
def test_docker_pulls_what_is_left(world: World, run: Callable[..., Ran], tmp_path: Path):
    """An image of buildx with provenance for two platforms, pulled by the engine itself."""
    (tmp_path / "Dockerfile").write_text("FROM scratch\nCOPY content /\n")
    digests = {}
    for number, tag in enumerate(("old", "moving", "moving")):
        (tmp_path / "content").write_text(f"content {number} of {world.repository.name}")
        archive = tmp_path / "image.tar"
        build = [
            "docker", "buildx", "build", "--provenance=true", "--platform",
            "linux/amd64,linux/arm64", f"--output=type=oci,dest={archive}", str(tmp_path),
        ]  # fmt: skip
        # Not pushed by the engine: it reads a tag while it writes it, and gives up when
        # Debian's registry then answers 500.
        push = [
            "skopeo", "copy", "--all", "--quiet", "--dest-tls-verify=false",
            f"oci-archive:{archive}", f"docker://{world.repository.image}:{tag}",
        ]  # fmt: skip
        for command in (build, push):
            done = subprocess.run(command, capture_output=True, text=True, timeout=300)
            assert done.returncode == 0, done.stderr
        replaced = digests.get(tag, "")
        digests[tag] = world.repository.tags()[tag]
    # An index, and two images with their attestations.
    parts = {part["digest"] for part in world.repository.get(replaced)["manifests"]}
    tags = old(world)
    ran = run(world, "--keep", "0")
    assert ran.code == 0 and set(ran.report["deleted"]) == {replaced, *parts}
    for tag, digest in digests.items():
        reference = f"{world.repository.image}:{tag}"
        pulled = subprocess.run(["docker", "pull", reference], capture_output=True, text=True, timeout=120, check=True)  # fmt: skip
        assert f"Digest: {digest}" in pulled.stdout
    remove_images(world.repository, digests)
    world.check_pulls(tags)
