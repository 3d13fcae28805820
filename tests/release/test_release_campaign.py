"""Releases that are disturbed, killed and raced: what a user sees is complete, or not there.

Every case runs the real command against the simulated GitHub over HTTP. The journal of
the server then tells what was visible after each single change.

``RELEASE_RACES`` sets the number of races (default 50).
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

RACES = int(os.environ.get("RELEASE_RACES", "50"))
UPLOAD = "repos/upload-release-asset"
FAULTS: dict[str, Callable[[str], Fault]] = {
    "500": lambda kind: Fault("status", kind, status=500),
    "502": lambda kind: Fault("status", kind, status=502),
    "reset-before": lambda kind: Fault("reset-before", kind),
    "reset-after": lambda kind: Fault("reset-after", kind),
    "timeout-before": lambda kind: Fault("stall-before", kind),
    "timeout-after": lambda kind: Fault("stall-after", kind),
    "half-answer": lambda kind: Fault("half-answer", kind),
    "half-read": lambda kind: Fault("half-read", kind),
    "rate-limit": lambda kind: limited(in_seconds=120),
    "already-exists": lambda kind: already_exists("ReleaseAsset", "name"),
}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_project(tmp_path_factory.mktemp("campaign") / "project")


@pytest.fixture(scope="module")
def undisturbed(
    project: Path, tmp_path_factory: pytest.TempPathFactory
) -> list[tuple[str, int]]:
    """The requests of a release that nothing disturbs: kind, and which of its kind."""
    with GitHubServer(tmp_path_factory.mktemp("undisturbed")) as server:
        serve(server, project)
        assert run_release(project, server.url, TAG) == 0
        check_end(server, expected_assets(project))
        seen: Counter[str] = Counter()
        requests = []
        for entry in server.log:
            seen[entry["kind"]] += 1
            requests.append((entry["kind"], seen[entry["kind"]]))
    assert len(requests) >= 13
    return requests


@pytest.fixture(scope="module")
def processes() -> Iterator[multiprocessing.context.ForkServerContext]:
    """Processes that start in milliseconds: forked from one that has all modules loaded."""
    if sys.platform == "win32":
        pytest.skip("needs fork")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["__main__", "tests.release.project"])
    yield context


def _child(root: Path, url: str, log: Path, *arguments: str) -> None:
    """A release in a process of its own, its output in a file."""
    with log.open("w", encoding="utf-8") as sink:
        os.dup2(sink.fileno(), 1)
        os.dup2(sink.fileno(), 2)
        sys.stdout = sys.stderr = sink
        os._exit(run_release(root, url, *arguments))


@pytest.mark.parametrize("name", FAULTS)
def test_every_request_disturbed(
    name: str,
    project: Path,
    undisturbed: list[tuple[str, int]],
    tmp_path: Path,
    record_property: Callable[[str, object], None],
) -> None:
    """One fault at each request in turn: the run, or its repetition, ends complete."""
    cases = repeated = 0
    for kind, nth in undisturbed:
        if name == "half-read" and kind != UPLOAD:
            continue
        fault = FAULTS[name](kind)
        fault.kind, fault.nth = kind, nth
        # Short only where the fault is to be waited for: a slow machine is no fault.
        limit = 1.0 if name.startswith("timeout") else 20.0
        with GitHubServer(tmp_path / f"{cases}", faults=[fault]) as server:
            serve(server, project)
            if run_release(project, server.url, TAG, timeout=limit) != 0:
                repeated += 1
                assert run_release(project, server.url, TAG) == 0, f"{name} at {kind} {nth}"
            expected = expected_assets(project)
            check_history(server, expected)
            check_end(server, expected)
            assert server.faults.fired == [fault]
            assert server.errors == [] and server.leaks == []
        cases += 1
    record_property("cases", cases)
    print(f"{name}: {cases} cases, {repeated} needed a repetition")
    # Only an answer that says "no" for good may end a run.
    assert repeated == 0 or name == "already-exists"


@pytest.mark.parametrize("moment", ["call-before", "call-after"])
def test_killed_at_every_request(
    moment: str,
    project: Path,
    undisturbed: list[tuple[str, int]],
    tmp_path: Path,
    processes: multiprocessing.context.ForkServerContext,
    record_property: Callable[[str, object], None],
) -> None:
    """kill -9 as GitHub gets each request, or has acted on it: the repetition completes."""
    cases = 0
    for kind, nth in undisturbed:
        victim: list[multiprocessing.process.BaseProcess] = []
        fault = Fault(
            moment, kind, nth, hook=lambda: os.kill(victim[0].pid or 0, signal.SIGKILL)
        )
        with GitHubServer(tmp_path / f"{cases}", faults=[fault]) as server:
            serve(server, project)
            log = tmp_path / "log"
            child = processes.Process(target=_child, args=(project, server.url, log, TAG))
            victim.append(child)
            child.start()
            child.join(60)
            assert child.exitcode == -signal.SIGKILL, log.read_text()
            assert run_release(project, server.url, TAG) == 0, f"killed at {kind} {nth}"
            expected = expected_assets(project)
            check_history(server, expected)
            check_end(server, expected)
            assert server.errors == [] and server.leaks == []
        cases += 1
    record_property("cases", cases)
    print(f"kill {moment}: {cases} cases")


def test_a_killed_run_is_continued(
    project: Path, tmp_path: Path, processes: multiprocessing.context.ForkServerContext
) -> None:
    """The repetition in the same checkout uploads only what is missing."""
    victim: list[multiprocessing.process.BaseProcess] = []
    fault = Fault(
        "call-after", UPLOAD, 3, hook=lambda: os.kill(victim[0].pid or 0, signal.SIGKILL)
    )
    with GitHubServer(tmp_path / "github", faults=[fault]) as server:
        serve(server, project)
        log = tmp_path / "log"
        victim.append(processes.Process(target=_child, args=(project, server.url, log, TAG)))
        victim[0].start()
        victim[0].join(60)
        before = {a["id"] for a in server.store.all("assets") if a["state"] == "uploaded"}
        assert before
        assert run_release(project, server.url, TAG) == 0
        assert before <= {asset["id"] for asset in server.store.all("assets")}
        assert [e["kind"] for e in server.log].count("repos/create-release") == 1
        check_end(server, expected_assets(project))


def test_two_at_once(
    project: Path, tmp_path: Path, processes: multiprocessing.context.ForkServerContext
) -> None:
    """Two releases of one tag from the same moment on, in one checkout or in two."""
    other = tmp_path / "other"
    shutil.copytree(project, other, ignore=shutil.ignore_patterns(".nox"))
    chance = random.Random(20260101)
    ends: Counter[str] = Counter()
    for number in range(RACES):
        delays = [
            Fault("delay", "*", nth, seconds=chance.uniform(0, 0.03)) for nth in range(1, 60)
        ]
        with GitHubServer(tmp_path / f"{number}", faults=delays) as server:
            serve(server, project)
            roots = (project, other if number % 2 else project)
            logs = [tmp_path / f"{number}-{which}.log" for which in range(2)]
            runs = [
                processes.Process(target=_child, args=(root, server.url, log, TAG))
                for root, log in zip(roots, logs, strict=True)
            ]
            for run in runs:
                run.start()
            for run in runs:
                run.join(120)
            said = [log.read_text() for log in logs]
            assert [run.exitcode for run in runs] == [0, 0], "\n---\n".join(said)
            expected = expected_assets(project)
            check_history(server, expected)
            check_end(server, expected)
            assert server.errors == [] and server.leaks == []
            creations = [e["kind"] for e in server.log].count("repos/create-release")
            ends[f"{creations} drafts"] += 1
    print(f"{RACES} races: {dict(ends)}")
    assert ends["2 drafts"] > RACES // 5, "the runs hardly met"


@pytest.mark.parametrize("first", ["reset-after", "stall-after", "half-read"])
def test_two_faults_in_a_row(
    first: str, project: Path, undisturbed: list[tuple[str, int]], tmp_path: Path
) -> None:
    """What is done after a fault may fail as well: pairs of faults around the uploads."""
    seconds = ["reset-before", "half-answer"]
    targets = ["repos/list-release-assets", "repos/delete-release-asset", UPLOAD]
    for number, (second, kind) in enumerate(itertools.product(seconds, targets)):
        faults = [Fault(first, UPLOAD, 2), Fault(second, kind, 3 if kind == UPLOAD else 2)]
        if kind == "repos/delete-release-asset":
            faults[1].nth = 1
        limit = 1.0 if first.startswith("stall") else 20.0
        with GitHubServer(tmp_path / f"{number}", faults=faults) as server:
            serve(server, project)
            assert run_release(project, server.url, TAG, timeout=limit) == 0
            expected = expected_assets(project)
            check_history(server, expected)
            check_end(server, expected)
