"""Releases that are disturbed, killed and raced: what a user sees is complete, or not there.

Every case runs the real command against the simulated GitHub over HTTP. The journal of
the server then shows what was visible after each single change.

``CAMPAIGN`` makes the races so many times as many.
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
import random
import shutil
import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.release.project import (
    TAG,
    check_end,
    check_history,
    expected_assets,
    make_project,
    run_release,
    serve,
)
from tests.services.faults import Fault, already_exists, limited
from tests.services.github import GitHubServer

pytestmark = [pytest.mark.campaign, pytest.mark.xdist_group("release-campaign")]

RACES = 12 * int(os.environ.get("CAMPAIGN", "1"))
UPLOAD = "repos/upload-release-asset"
FAULTS: dict[str, Callable[[], Fault]] = {
    "500": lambda: Fault("status", status=500),
    "502": lambda: Fault("status", status=502),
    "reset-before": lambda: Fault("reset-before"),
    "reset-after": lambda: Fault("reset-after"),
    "timeout-before": lambda: Fault("stall-before"),
    "timeout-after": lambda: Fault("stall-after"),
    "half-answer": lambda: Fault("half-answer"),
    "half-read": lambda: Fault("half-read"),
    "rate-limit": lambda: limited(in_seconds=120),
    "already-exists": lambda: already_exists("ReleaseAsset", "name"),
}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_project(tmp_path_factory.mktemp("campaign") / "project")


@contextmanager
def served(root: Path, folder: Path, *faults: Fault) -> Iterator[GitHubServer]:
    """A GitHub that knows the project; in the end one complete release has been visible."""
    with GitHubServer(folder, faults=faults) as server:
        serve(server, root)
        yield server
        expected = expected_assets(root)
        check_history(server, expected)
        check_end(server, expected)


@pytest.fixture(scope="module")
def undisturbed(
    project: Path, tmp_path_factory: pytest.TempPathFactory
) -> list[tuple[str, int]]:
    """The requests of a release that nothing disturbs: kind, and which of its kind."""
    with served(project, tmp_path_factory.mktemp("undisturbed")) as server:
        assert run_release(project, server.url, TAG) == 0
        seen: Counter[str] = Counter()
        requests = []
        for entry in server.log:
            seen[entry["kind"]] += 1
            requests.append((entry["kind"], seen[entry["kind"]]))
    assert len(requests) >= 13
    return requests


@pytest.fixture(scope="module")
def processes() -> multiprocessing.context.ForkServerContext:
    """Processes that start in milliseconds: forked from one that has all modules loaded."""
    if sys.platform == "win32":
        pytest.skip("needs fork")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["__main__", "tests.release.project"])
    return context


def _child(root: Path, url: str, log: Path) -> None:
    """A release in a process of its own, its output in a file."""
    with log.open("w", encoding="utf-8") as sink:
        os.dup2(sink.fileno(), 1)
        os.dup2(sink.fileno(), 2)
        sys.stdout = sys.stderr = sink
        os._exit(run_release(root, url, TAG))


@pytest.mark.parametrize("name", FAULTS)
def test_every_request_disturbed(
    name: str, project: Path, undisturbed: list[tuple[str, int]], tmp_path: Path
) -> None:
    """One fault at each request in turn: the run completes the release all the same."""
    for case, (kind, nth) in enumerate(undisturbed):
        if name == "half-read" and kind != UPLOAD:
            continue
        fault = FAULTS[name]()
        fault.kind, fault.nth = kind, nth
        # Short only where the fault is to be waited for: a slow machine is not a fault.
        limit = 0.5 if name.startswith("timeout") else 20
        with served(project, tmp_path / f"{case}", fault) as server:
            done = run_release(project, server.url, TAG, timeout=limit)
            assert done == 0, f"{name} at {kind} {nth}"
            assert server.faults.fired == [fault]


@pytest.mark.parametrize("first", ["reset-after", "stall-after", "half-read"])
def test_two_faults_in_a_row(first: str, project: Path, tmp_path: Path) -> None:
    """What is done after a fault may fail as well: pairs of faults around the uploads."""
    seconds = ["reset-before", "half-answer"]
    targets = [("repos/list-release-assets", 2), ("repos/delete-release-asset", 1), (UPLOAD, 5)]
    for case, (second, (kind, nth)) in enumerate(itertools.product(seconds, targets)):
        faults = [Fault(first, UPLOAD, 2), Fault(second, kind, nth)]
        limit = 0.5 if first.startswith("stall") else 20
        with served(project, tmp_path / f"{case}", *faults) as server:
            assert run_release(project, server.url, TAG, timeout=limit) == 0


@pytest.mark.parametrize("moment", ["call-before", "call-after"])
def test_killed_at_every_request(
    moment: str,
    project: Path,
    undisturbed: list[tuple[str, int]],
    tmp_path: Path,
    processes: multiprocessing.context.ForkServerContext,
) -> None:
    """kill -9 as GitHub gets each request, or has acted on it: the next run completes it.

    It goes on with the draft, and does not upload again what was there.
    """
    for case, (kind, nth) in enumerate(undisturbed):
        log = tmp_path / "log"
        fault = Fault(moment, kind, nth)
        with served(project, tmp_path / f"{case}", fault) as server:
            child = processes.Process(target=_child, args=(project, server.url, log))
            fault.hook = lambda: os.kill(child.pid or 0, signal.SIGKILL)
            child.start()
            child.join(60)
            assert child.exitcode == -signal.SIGKILL, log.read_text()
            before = {a["id"] for a in server.store.all("assets") if a["state"] == "uploaded"}
            assert run_release(project, server.url, TAG) == 0, f"killed at {kind} {nth}"
            assert before <= {asset["id"] for asset in server.store.all("assets")}
            assert len({t["id"] for t in server.store.all("releases")}) == 1


def test_two_at_once(
    project: Path, tmp_path: Path, processes: multiprocessing.context.ForkServerContext
) -> None:
    """Two releases of one tag from the same moment on, in two checkouts or in one."""
    other = tmp_path / "other"
    shutil.copytree(project, other)
    chance = random.Random(20260101)
    drafts: Counter[int] = Counter()
    for race in range(RACES):
        delays = [Fault("delay", "*", n, seconds=chance.uniform(0, 0.03)) for n in range(1, 60)]
        with served(project, tmp_path / f"{race}", *delays) as server:
            logs = [tmp_path / f"{race}-{which}.log" for which in range(2)]
            runs = [
                processes.Process(target=_child, args=(root, server.url, log))
                for root, log in zip((project, other if race % 4 else project), logs)
            ]
            for run in runs:
                run.start()
            for run in runs:
                run.join(120)
            output = "\n---\n".join(log.read_text() for log in logs)
            assert [run.exitcode for run in runs] == [0, 0], output
            drafts[[e["kind"] for e in server.log].count("repos/create-release")] += 1
    print(f"{RACES} races; drafts: {dict(drafts)}")
    assert drafts[2] > RACES // 5, "the runs hardly met"
