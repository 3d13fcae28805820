"""The workflow, with stand-ins, on a real runner: one run for each event of the table."""

import hashlib
import itertools
import json
import sys
import tarfile
from collections.abc import Callable, Collection
from pathlib import Path

import pytest

from tests.e2e import harness
from tests.e2e.act import Run
from tests.e2e.harness import JOB_TOKEN, SECRET_TOKEN, World
from tests.workflow.events import CASES, JOBS, Case
from tools.cleanup.plan import DAY
from tools.core.settings import ROOT
from tools.wheels.flavours import load_flavours, matrix

pytestmark = [
    pytest.mark.engine,
    pytest.mark.timeout(harness.LIMIT + 60),
    pytest.mark.skipif(sys.platform != "linux", reason="jobs of ubuntu-latest run here"),
]
BY_TITLE = {case.title: case for case in CASES if case.starts}
# The other case in which lint fails shows this too, and more.
RUN = [title for title in BY_TITLE if title != "manual, lint fails"]
# The secret GH_TOKEN may be missing: then the job's own token is used.
WITHOUT_SECRET = {"push to develop", "manual"}
NOT_PUSHED = ("pull_request", "merge_group")  # the image is handed on as an artifact
TRUNK = {"latest", "main", "buildcache-development"}
VERSION = {"v1.0.0", "1.0", "1"}  # a tag is built of no cache, and makes none
PLATFORMS = ("linux-x64", "linux-arm64", "windows-x64", "macos-arm64-metal")
OLD = 12  # untagged versions, of which cleanup keeps ten


def by_commit(world: World, tags: set[str]) -> dict[str, str]:
    """The digest of each tag of the package, if it has these and the one of the commit."""
    there = dict(world.image.tags())
    commit = [tag for tag in there if tag.endswith(world.project.git("rev-parse", "HEAD")[:7])]
    assert there.keys() - set(commit) == tags
    return there


def check_wheels(world: World, version: str) -> None:
    """Each row of the matrix hands on its wheel and the record of its build."""
    for platform in PLATFORMS:
        folder = world.artifacts / f"wheels-{platform}"
        record = json.loads((folder / "wheels.json").read_text("utf-8"))
        assert record["commit"] == world.project.git("rev-parse", "HEAD")
        assert record["version"].startswith(version)
        [wheel] = folder.glob("*.whl")
        [entry] = record["wheels"]
        digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
        assert (entry["name"], entry["sha256"]) == (wheel.name, digest)
        assert world.files(folder.name) == {"requirements.txt", "wheels.json", wheel.name}


def check_pushed(world: World, run: Run, tags: set[str], prod: Collection[str] = ()) -> None:
    """What was built has all its tags, and by that digest it was tested; nothing else has."""
    caches = {"buildcache-production"} if "prod" in prod else set()
    there = by_commit(world, tags | caches | set(prod))
    images = {
        digest for tag, digest in there.items() if "buildcache" not in tag and tag not in prod
    }
    [development] = images
    assert run.said("test-docker-image").count(f"--digest {development}\n") >= 3
    if prod:
        [production] = {there[tag] for tag in prod}
        assert f"--digest {production}\n" in run.said("build-production-image")


def check_handed_on(world: World, run: Run) -> None:
    """Nothing is pushed from a pull request: the archive goes on, and is tested by digest."""
    assert world.image.tags() == {} and len(world.image.digests()) == OLD
    with tarfile.open(world.artifacts / "image-development/development.oci.tar") as archive:
        index = json.load(archive.extractfile("index.json"))  # type: ignore[arg-type]
    [digest] = {one["digest"] for one in index["manifests"]}
    assert run.said("test-docker-image").count(f"--digest {digest}\n") >= 3
    assert world.files("image-development") == {"development.oci.tar"}


def check_release(world: World) -> None:
    """A release with its assets, each of which was attested before it could be seen."""
    store = world.server.store
    [release] = store.all("releases")
    assert (release["tag_name"], release["draft"], release["prerelease"]) == (
        "v1.0.0",
        False,
        False,
    )
    assets = {asset["name"]: asset["digest"] for asset in store.all("assets")}
    [attested] = store.all("attestations")
    assert {s["name"]: f"sha256:{s['digest']['sha256']}" for s in attested["subject"]} == assets
    wheel = "mlc_llm-1.0.0-py3-none-any.whl"
    kept = (world.artifacts / "wheels-linux-x64" / wheel).read_bytes()
    assert assets[wheel] == f"sha256:{hashlib.sha256(kept).hexdigest()}"
    assert "SHA256SUMS" in assets and len(assets) >= 3
    image = json.loads(
        (world.artifacts / "image-record-development/development.json").read_text()
    )
    assert (
        image["digest"] == world.image.tags()["v1.0.0"] and image["digest"] in release["body"]
    )
    kinds = [entry["kind"] for entry in world.server.log]
    assert kinds.index("repos/create-attestation") < kinds.index("repos/update-release")


def check_production(world: World, run: Run) -> None:
    """Built and tested before it is pushed, and tested again by its digest; the list of what is
    in the image names the wheel.
    """
    lines = run.said("build-production-image").splitlines()
    calls = [line for line in lines if "python -m tools.images" in line and ".sbom" not in line]
    steps = [(".test" in one, "--no-push" in one, "--digest" in one) for one in calls]
    assert [step for step, _ in itertools.groupby(steps)] == [
        (False, True, False),
        (True, False, False),
        (False, False, False),
        (True, False, True),
    ]
    path = world.artifacts / "sbom-production/production.cdx.json"
    listed = {
        one["name"]: one.get("version") for one in json.loads(path.read_text())["components"]
    }
    record = json.loads((world.artifacts / "wheels-linux-x64/wheels.json").read_text())
    assert (
        listed[next(name for name in listed if name in ("mlc-llm", "mlc_llm"))]
        == record["version"]
    )


def check_end(world: World, case: Case, run: Run) -> None:
    """Old untagged versions go, the run is drawn, Slack is told; from pull requests neither."""
    page = (world.artifacts / "summary/summary.html").read_text("utf-8")
    for job in run.results:
        assert job in page
    messages = world.server.store.all("messages")
    if case.name in NOT_PUSHED:
        assert messages == [] and not writes(world)
        return
    left = world.old & set(world.image.digests())
    assert len(left) == OLD - 2, "cleanup keeps ten"
    [message] = messages
    word = "failed" if case.failing else "succeeded"
    assert f"MLC-LLM pipeline {word}: " in message["text"]
    assert ("lint-and-format" in message["blocks"][0]["text"]["text"]) == bool(case.failing)


def writes(world: World) -> list[str]:
    """Operations that changed something on GitHub."""
    return [e["kind"] for e in world.server.log if e["method"] not in ("GET", "HEAD")]


@pytest.mark.parametrize(
    "title",
    [
        pytest.param(title, marks=pytest.mark.xdist_group(f"e2e-{number % 2}"))
        for number, title in enumerate(RUN)
    ],
)
def test_event(title: str, tmp_path: Path) -> None:
    """What the table says becomes of each job, and what each leaves behind."""
    check_event(BY_TITLE[title], tmp_path)


def check_event(case: Case, folder: Path, change: Callable[[Path], None] | None = None) -> None:
    """Run the workflow, with a ``change`` to the project, for an event; check all it did."""
    token = JOB_TOKEN if case.title in WITHOUT_SECRET else SECRET_TOKEN
    with harness.make_world(folder, token, change) as world:
        for age in range(OLD):
            image = world.image.image_manifest(seed=f"old {age}")
            world.image.set_age(image.digest, (20 + age) * DAY)
        world.old = set(world.image.digests())
        run = world.run(case)
        print(run.failures())
        check_jobs(case, run)
        log = (folder / "act.log").read_text("utf-8")
        assert not any(one in log for one in (SECRET_TOKEN, JOB_TOKEN, "/T0/B0/hook"))
        check_left(world, case, run)


def check_jobs(case: Case, run: Run) -> None:
    """Each job ended as the table says, with every row of its matrix."""
    assert {job: run.results.get(job, "skipped") for job in JOBS} == case.expected()
    assert run.rows("test-docker-image") == {"basic", "import", "help"}
    rows = {" ".join(sorted(row.values())) for row in matrix(load_flavours(ROOT))}
    assert run.rows("build-wheels") == rows
    assert run.code == int(bool(case.failing))


def check_left(world: World, case: Case, run: Run) -> None:
    """The artifacts, the package and the release are those of such an event."""
    on_tag, pulled = case.ref.startswith("refs/tags/"), case.name in NOT_PUSHED
    produced = "build-production-image" in run.results
    assert {one["lookup-only"] for one in world.caches()} == {str(on_tag).lower()}
    expected = {"summary", *(f"wheels-{platform}" for platform in PLATFORMS)}
    expected |= {"image-development"} if pulled else set()
    expected |= {"image-record-development"} if on_tag else set()
    expected |= {"sbom-production"} if produced else set()
    assert {path.name for path in world.artifacts.iterdir()} == expected
    check_wheels(world, "1.0.0" if on_tag else "0.9.1.dev")
    check_end(world, case, run)
    if produced:
        check_production(world, run)
    if on_tag:
        check_pushed(world, run, VERSION, {"v1.0.0-prod"})
        return check_release(world)
    assert not [*world.server.store.all("releases"), *world.server.store.all("attestations")]
    if pulled:
        check_handed_on(world, run)
    elif case.ref == "refs/heads/develop":
        check_pushed(world, run, {"develop", "buildcache-development"})
    else:
        check_pushed(world, run, TRUNK, {"main-prod", "prod"})
