"""The cleanup from end to end: a simulated GitHub before a real registry, real clients."""

import json
from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.services.cleanup_world import DELETES, LISTING, TOKEN, Ran, World, old, quick
from tests.services.faults import Fault, limited
from tests.services.gate import Fault as GateFault
from tests.services.github import Answer, Call, Token
from tests.services.packages import fill
from tests.services.registry import digest_of, pull_all
from tools.cleanup import __main__ as cleanup

RESTORES = "packages/restore-package-version-for-user"
Run = Callable[..., Ran]

# --- what it does ---


def test_deletes_what_nothing_needs_and_no_more(world: World, run: Run):
    """The whole promise on one package of everything. A dry run shows it as a table and as
    JSON, and only reads; a second run has nothing to do.
    """
    going = fill(world.repository)
    tags, before = old(world), world.repository.digests()
    ran = run(world, "--keep", "0", "--dry-run")
    assert ran.code == 0
    assert {one["digest"] for one in ran.report["delete"]} == set(going.values())
    assert world.repository.digests() == before and world.repository.tags() == tags
    assert {seen.method for seen in world.gate.seen} <= {"GET", "HEAD"}
    assert {entry["method"] for entry in world.server.log} == {"GET"}
    for words in ("untagged, not one of the newest 0", "part of", "refers to"):
        assert words in ran.err and TOKEN not in ran.err
    ran = run(world, "--keep", "0")
    assert ran.code == 0, ran.err
    assert set(ran.report["deleted"]) == set(going.values())
    left = {tag: digest for tag, digest in tags.items() if digest not in going.values()}
    assert world.repository.digests() == before - set(going.values())
    assert pull_all(world.repository, world.folder) == left
    assert ran.report["verified"] == {"tags": len(left), "broken": {}}
    again = run(world, "--keep", "0")
    assert (again.code, again.report["delete"], again.report["deleted"]) == (0, [], [])


def test_images_with_provenance(world: World, run: Run):
    """The case that breaks most tags elsewhere: every second of 16 images is tagged."""
    for number in range(16):
        world.repository.build(f"v{number}" if number % 2 else "")
    tags = old(world)
    ran = run(world, "--keep", "3")
    assert ran.code == 0, ran.err
    # 8 untagged images, of which the newest 3 stay, with 3 manifests each.
    assert len(ran.report["deleted"]) == 15
    # Each index and each untagged part is read once; parts of tagged images never are.
    seen = [one.path for one in world.gate.seen if one.method == "GET"]
    read = [path for path in seen if "/manifests/" in path]
    assert len(read) == len(set(read)) == 8 + 24
    # A page to plan, one to look again, one of what is left; a deletion for each.
    kinds = world.kinds()
    assert kinds.count(LISTING) == 3 and kinds.count(DELETES) == 15
    assert len(kinds) == 1 + 3 + 15
    world.check_pulls(tags)


def test_grace_protects_a_push_in_progress(world: World, run: Run):
    """The job runs whatever happened before, also before the first push. The parts of an image
    are there before its tag: what is young is left alone.
    """
    ran = run(world)
    assert ran.code == 0 and "nothing to do" in ran.err and ran.report["versions"] == 0
    world.repository.build("v1")
    world.repository.build("")
    assert run(world, "--keep", "0").report["delete"] == []
    assert len(run(world, "--keep", "0", "--grace", "0").report["deleted"]) == 3


def test_tags_can_be_given_up(world: World, run: Run):
    """Tagged images go only when asked, and only when all their tags match."""
    for tag in ("v1", "pr-1", "pr-2", "pr-keep"):
        world.repository.build(tag)
    world.repository.manifest(world.repository.get("pr-2"), "stable")
    tags = old(world)
    assert tags["stable"] == tags["pr-2"]
    assert run(world, "--keep", "0").report["delete"] == []
    chosen = ("--tags-matching", "pr-*", "--keep-tags", "*keep", "--older-than", "20d")
    ran = run(world, "--keep", "0", *chosen)
    assert ran.code == 0, ran.err
    del tags["pr-1"]
    world.check_pulls(tags)


def test_organisations_and_escaped_names(world: World, run: Run):
    """Organisations have other paths; slashes in a package's name are escaped."""
    world.service.organizations.add("owner")
    world.repository.build("v1")
    world.repository.build("")
    old(world)
    assert len(run(world, "--keep", "0").report["deleted"]) == 3
    name = world.repository.name.removeprefix("owner/").replace("/", "%2F")
    expected = f"/orgs/owner/packages/container/{name}/versions"
    assert any(expected in entry["path"] for entry in world.server.log)


@pytest.mark.parametrize(
    ("size", "links", "missed"),
    [(10, True, ""), (10, False, ""), (5, True, ""), (10, True, "v1")],
)
def test_more_than_a_page(
    world: World, run: Run, monkeypatch: pytest.MonkeyPatch, size: int, links: bool, missed: str
):
    """Every page of versions is read, also where a proxy has taken the links between them
    away, or a page is shorter than asked for: what is on the last one must not look free.
    Nor what a version needs that slips from one page to another while we read.
    """
    monkeypatch.setattr("tools.github.packages.PER_PAGE", 10)
    world.server.links = links

    def versions(call: Call) -> Answer:
        call.query["per_page"] = str(min(size, int(call.query["per_page"])))
        answer = world.service.versions(call)
        tagged = [one for one in answer.data if missed in one["metadata"]["container"]["tags"]]
        answer.data = [one for one in answer.data if one not in tagged]
        return answer

    world.replace_route(LISTING, versions)
    parts = [world.repository.image_manifest() for _ in range(12)]
    world.repository.index(parts[::2], "v1")
    tags = old(world)
    ran = run(world, "--keep", "0")
    assert (ran.report["versions"], len(ran.report["deleted"])) == (13, 6)
    assert world.kinds().count(LISTING) >= 4
    world.check_pulls(tags)


def test_refusals_and_broken_tags_are_told(world: World, run: Run):
    """More than 5,000 downloads: GitHub keeps it, so its parts stay as well. A tag that is
    broken before is left; the run goes on with the rest.
    """
    famous, other = world.repository.build(""), world.repository.build("")
    broken = world.repository.build("v1")
    part = world.repository.get(broken.digest)["manifests"][0]["digest"]
    world.repository.delete(part)
    old(world)
    world.service.downloads[famous.digest] = 5001
    ran = run(world, "--keep", "0")
    assert ran.code == 0, ran.err
    assert list(ran.report["skipped"]) == [famous.digest]
    assert "more than 5000 downloads" in ran.err
    assert len(ran.report["saved"]) == 2 and len(ran.report["deleted"]) == 3
    assert other.digest in ran.report["deleted"]
    parts = {child["digest"] for child in world.repository.get(famous.digest)["manifests"]}
    assert parts <= world.repository.digests()
    assert ran.report["broken"] == ran.report["verified"]["broken"] == {"v1": [part]}
    assert "The tag v1 is broken already" in ran.err


@pytest.mark.parametrize(
    ("arguments", "env", "message"),
    [
        ([], {"GH_TOKEN": ""}, "No token is set"),
        ([], {"GITHUB_API_URL": "https://api.github.com", "REGISTRY": "docker.io"}, "not GitHub's"),
        (["--keep", "-1"], {}, "whole number"),
        (["--grace", "1 year"], {}, "duration"),
        (["--nonsense"], {}, "--nonsense"),
    ],
)  # fmt: skip
def test_bad_usage(world: World, run: Run, arguments, env, message):
    """Bad options and settings are a sentence and exit code 2; nothing is asked for."""
    ran = run(world, *arguments, **env)
    assert ran.code == 2 and message in ran.err and "Traceback" not in ran.err
    assert world.server.log == [] and world.gate.seen == []


def test_a_token_without_rights(world: World, run: Run):
    """It stops the work at once, and nothing is half done; 404 can mean no rights, and is not
    taken for an absent package.
    """
    fill(world.repository)
    tags = old(world)
    world.server.add_token(TOKEN, Token(scopes=("read:packages",)))
    ran = run(world, "--keep", "0")
    assert ran.code == 1 and ran.report["deleted"] == []
    hidden = Fault("status", LISTING, 0, 404, {"message": "Not Found"})
    world.server.faults.script.append(hidden)
    ran = run(world, "--keep", "0")
    assert ran.code == 1 and "token" in ran.err
    world.check_pulls(tags)


def test_the_cache_spares_the_second_run(world: World, run: Run):
    """Manifests never change: a second run reads only new ones; all, if the file is damaged."""
    for number in range(6):
        world.repository.build(f"v{number}")
    old(world)
    read = []
    for step in ("first", "second", "damaged"):
        world.repository.build(step)
        if step == "damaged":
            [path] = (world.folder / "cache").iterdir()
            path.write_bytes(path.read_bytes()[:-9])
        world.gate.reset()
        ran = run(world, "--dry-run")
        read.append(world.gate.count("GET", "/manifests/"))
        assert ran.report["requests"]["manifests"] == read[-1]
    assert read == [7, 1, 9] and "is damaged" in ran.err


# --- limits ---


def test_the_pace_of_githubs_limit(world: World, run: Run, monkeypatch: pytest.MonkeyPatch):
    """180 deletes a minute and no faster: so no request is ever refused for a limit."""
    waits: list[float] = []
    monkeypatch.setattr("github.Requester.time.sleep", waits.append)
    world.repository.build("v1")
    for _ in range(10):
        world.repository.image_manifest()
    old(world)
    ran = run(world, "--keep", "0", GITHUB_POINTS_PER_MINUTE="900")
    assert ran.code == 0 and len(ran.report["deleted"]) == 10
    assert len(waits) == 9 and 0 < min(waits) and max(waits) <= 1 / 3


def test_limits_are_obeyed(world: World, run: Run):
    """Somebody else uses the limit up as well: we wait as asked, and go on. That of an hour
    ends the run; it says what is left, and the next goes on.
    """
    going = fill(world.repository)
    tags = old(world)
    said = {"message": "You have exceeded a secondary rate limit"}
    world.server.faults.script += [
        Fault("status", DELETES, 2, 403, said, {"retry-after": "0"}),
        Fault("status", DELETES, 4, 429, {"message": "too many"}, {"retry-after": "1"}),
        replace(limited(3600), kind=DELETES, nth=6),
    ]
    ran = run(world, "--keep", "0", GITHUB_TIME_LIMIT="4s")
    assert ran.code == 1 and "GITHUB_TIME_LIMIT" in ran.err + str(ran.report)
    assert len(ran.report["deleted"]) == 3 and "left for the next run" in ran.err
    world.check_pulls({t: d for t, d in tags.items() if d in world.repository.digests()})
    world.forget()
    ran = run(world, "--keep", "0")
    assert ran.code == 0 and world.repository.digests().isdisjoint(going.values())


# --- what happens meanwhile ---


def test_a_new_tag_saves_what_was_to_go(world: World, run: Run):
    """Between plan and deletion somebody tags an image, or lists a part: both stay."""
    world.repository.build("v1")
    tagged, listed = world.repository.build(""), world.repository.image_manifest()
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
def test_what_a_late_push_needs_is_brought_back(world: World, run: Run, action: str):
    """A push that found a part there, while we deleted it: the part is restored, also where
    the first try fails, which is not repeated as it is a POST.
    """
    if action:
        world.server.faults.script.append(Fault(action, RESTORES))
    world.repository.build("v1")
    part = world.repository.image_manifest()
    old(world)

    def delete(call: Call) -> Answer:
        if world.service.find(call)[1]["name"] == part.digest:
            world.repository.index([part], "late")
        return world.service.delete(call)

    world.replace_route(DELETES, delete)
    ran = run(world, "--keep", "0")
    assert ran.code == 0, ran.err
    # After a reset the part is back, and the next look sees that.
    assert ran.report["restored"] == ([] if action == "reset-after" else [part.digest])
    world.check_pulls(world.repository.tags())
    assert sorted(world.repository.tags()) == ["late", "v1"]


def test_the_next_run_brings_back_what_this_one_could_not(world: World, run: Run):
    """A push ends after the last look: the next run knows what was deleted, and heals; it
    says what GitHub does not bring back.
    """
    world.repository.build("v1")
    stale = world.repository.build("")
    body = world.repository.get(stale.digest)
    parts = [child["digest"] for child in body["manifests"]]
    old(world)
    assert len(run(world, "--keep", "0").report["deleted"]) == 3
    # What GitHub's registry, unlike this one, may accept: an index without its parts.
    for gone in world.service.deleted.values():
        if digest_of(gone.body) in parts:
            world.repository.manifest(json.loads(gone.body))
    world.repository.manifest(body, "late")
    for part in parts:
        world.repository.delete(part)
    world.server.faults.script.append(Fault("status", RESTORES, 0, 500))
    ran = run(world, "--keep", "0")
    assert ran.code == 1 and "could not be brought back" in ran.err
    world.forget()
    ran = run(world, "--keep", "0")
    assert ran.code == 0 and sorted(ran.report["restored"]) == sorted(parts)
    world.check_pulls({"v1": world.repository.tags()["v1"], "late": stale.digest})


# --- what cannot be read ---


def test_tags_are_verified_without_a_last_listing(world: World, run: Run):
    """GitHub lists nothing after the deletions: what must be left is verified, and it is said
    that there may be new tags.
    """
    going, tags = fill(world.repository), old(world)
    world.server.faults.script.append(Fault("status", LISTING, 3, 404, {"message": "no"}))
    ran = run(world, "--keep", "0")
    assert ran.code == 1 and "New tags could not be verified" in ran.err
    left = {tag for tag, digest in tags.items() if digest not in going.values()}
    assert ran.report["verified"] == {"tags": len(left), "broken": {}}


@pytest.mark.parametrize("status", [404, 403, 500])
def test_an_index_that_cannot_be_read_keeps_everything(
    world: World, run: Run, status: int, monkeypatch: pytest.MonkeyPatch
):
    """A 404 without the registry's own words counts as little as a 500: nothing goes. With
    them, for all that GitHub lists, it is the wrong registry; once only, it is passed over.
    """
    monkeypatch.setattr(cleanup, "connect", quick)
    going, tags = fill(world.repository), old(world)
    world.gate.fault = lambda seen: GateFault(status) if tags["v1"] in seen.path else None
    ran = run(world, "--keep", "0")
    assert ran.code == 1 and "could not be read" in ran.err
    assert ran.report["deleted"] == [] and list(ran.report["undecided"]) == [tags["v1"]]
    unknown = GateFault(404, body=b'{"errors":[{"code":"MANIFEST_UNKNOWN"}]}')
    world.gate.fault = lambda seen: unknown if "/manifests/" in seen.path else None
    ran = run(world, "--keep", "0", MANIFEST_CACHE=str(world.folder / "new"))
    assert ran.code == 1 and "has none of them" in ran.err
    world.check_pulls(tags)
    once = [unknown]
    world.gate.fault = lambda seen: once.pop() if once and tags["v1"] in seen.path else None
    ran = run(world, "--keep", "0", MANIFEST_CACHE=str(world.folder / "third"))
    assert ran.code == 0 and not once
    assert {one["digest"] for one in ran.report["delete"]} == set(going.values())
