"""Releases that are disturbed, killed and raced: what a user sees is complete, or not there.

Every case runs the real command against the simulated GitHub over HTTP. The journal of
the server then shows what was visible after each single change. ``CAMPAIGN`` makes the
races so many times as many.
"""

import itertools
import os
import random
import shutil
import signal
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue

import pytest

from tests.release.project import World, make_project, make_world
from tests.services.faults import Fault, already_exists, limited

pytestmark = pytest.mark.campaign

RACES = 8 * int(os.environ.get("CAMPAIGN", "1"))
UPLOAD = "repos/upload-release-asset"
FAULTS: dict[str, Callable[[], Fault]] = {
    "500": lambda: Fault("status", status=500),
    "reset-before": lambda: Fault("reset-before"),
    "reset-after": lambda: Fault("reset-after"),
    "timeout-before": lambda: Fault("stall-before"),
    "timeout-after": lambda: Fault("stall-after"),
    "half-answer": lambda: Fault("half-answer"),
    "half-read": lambda: Fault("half-read"),
    "rate-limit": lambda: limited(in_seconds=120),
    "already-exists": lambda: already_exists("ReleaseAsset", "name"),
}
# A client that gives up soon, where the fault is to be waited for. What it gives up besides
# on a slow machine is one more fault to survive.
SOON = 0.15


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_project(tmp_path_factory.mktemp("campaign") / "project")


@pytest.fixture(scope="module")
def undisturbed(
    project: Path, tmp_path_factory: pytest.TempPathFactory
) -> list[tuple[str, int]]:
    """The requests of a release that nothing disturbs: kind, and which of its kind."""
    with make_world(project, tmp_path_factory.mktemp("undisturbed")) as world:
        assert world.run() == 0
        world.check()
        kinds = world.kinds()
    assert len(kinds) >= 13
    return [(kind, kinds[: place + 1].count(kind)) for place, kind in enumerate(kinds)]


@pytest.mark.parametrize("name", FAULTS)
def test_every_request_disturbed(
    name: str, project: Path, undisturbed: list[tuple[str, int]], tmp_path: Path
) -> None:
    """One fault at each request in turn: the run completes the release all the same."""
    timeout = SOON if name.startswith("timeout") else 20
    for case, (kind, nth) in enumerate(undisturbed):
        fault = FAULTS[name]()
        fault.kind, fault.nth = kind, nth
        with make_world(project, tmp_path / f"{case}", fault) as world:
            assert world.run(timeout=timeout) == 0, f"{name} at {kind} {nth}"
            assert world.server.faults.fired == [fault]
            world.check()


@pytest.mark.parametrize("first", ["reset-after", "stall-after", "half-read"])
def test_two_faults_in_a_row(first: str, project: Path, tmp_path: Path) -> None:
    """What is done after a fault may fail as well: pairs of faults around the uploads."""
    timeout = SOON if first.startswith("stall") else 20
    seconds = ["reset-before", "half-answer"]
    targets = [("repos/list-release-assets", 2), ("repos/delete-release-asset", 1), (UPLOAD, 5)]
    for case, (second, (kind, nth)) in enumerate(itertools.product(seconds, targets)):
        faults = [Fault(first, UPLOAD, 2), Fault(second, kind, nth)]
        with make_world(project, tmp_path / f"{case}", *faults) as world:
            assert world.run(timeout=timeout) == 0
            world.check()


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL")
@pytest.mark.parametrize("moment", ["call-before", "call-after"])
def test_killed_at_every_request(
    moment: str, project: Path, undisturbed: list[tuple[str, int]], tmp_path: Path
) -> None:
    """kill -9 as GitHub gets each request, or has acted on it: the next run completes the
    draft, and does not upload again what was there.
    """
    log, pids = tmp_path / "log", SimpleQueue[int]()

    def kill() -> None:
        os.kill(pids.get(timeout=30), signal.SIGKILL)

    for case, (kind, nth) in enumerate(undisturbed):
        with make_world(
            project, tmp_path / f"{case}", Fault(moment, kind, nth, hook=kill)
        ) as world:
            child = world.start(log)
            pids.put(child.pid or 0)
            child.join(60)
            assert child.exitcode == -signal.SIGKILL, log.read_text()
            store = world.server.store
            before = {a["id"] for a in store.all("assets") if a["state"] == "uploaded"}
            assert world.run() == 0, f"killed at {kind} {nth}"
            assert before <= {asset["id"] for asset in store.all("assets")}
            world.check()


def test_two_at_once(project: Path, tmp_path: Path) -> None:
    """Two releases of one tag from the same moment on, in two checkouts or in one."""
    other = tmp_path / "other"
    shutil.copytree(project, other)
    chance = random.Random(20260101)
    drafts: Counter[int] = Counter()
    for race in range(RACES):
        delays = [Fault("delay", "*", n, seconds=chance.uniform(0, 0.03)) for n in range(1, 60)]
        with make_world(project, tmp_path / f"{race}", *delays) as world:
            logs = [tmp_path / f"{race}-{which}.log" for which in range(2)]
            second = World(other, world.server) if race % 4 else world
            runs = [one.start(log) for one, log in zip((world, second), logs)]
            for run in runs:
                run.join(120)
            assert [run.exitcode for run in runs] == [0, 0], [log.read_text() for log in logs]
            drafts[world.kinds().count("repos/create-release")] += 1
            world.check()
    assert drafts[2] > RACES // 5, "the runs hardly met"
