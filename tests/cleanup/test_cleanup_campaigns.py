"""The cleanup under fire: every request fails, every deletion is the last, pushes race it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.services.cleanup_world import (
    DELETES,
    World,
    make_cleanup,
    old,
    remove_images,
    run_once,
)
from tests.services.faults import Fault
from tests.services.gate import Fault as GateFault
from tests.services.gate import Seen
from tests.services.registry import Repository, pull_all
from tools.cleanup.plan import DAY, make_plan
from tools.core.errors import PipelineError
from tools.core.settings import ROOT
from tools.github import client

LENGTH = int(os.environ.get("CAMPAIGN", "1"))  # a night has more time than a change

GITHUB_FAULTS = {
    "500": dict(action="status", status=500),
    "reset": dict(action="reset-after"),
    "timeout": dict(action="stall-before"),
    "403 rate limit": dict(
        action="status", status=403, headers={"retry-after": "0"},
        data={"message": "You have exceeded a secondary rate limit."},
    ),
    "404": dict(action="status", status=404, data={"message": "Not Found"}),
}  # fmt: skip
REGISTRY_FAULTS = {
    "500": GateFault(500),
    "reset": GateFault(reset=True),
    "timeout": GateFault(hang=1.5),
    "403 rate limit": GateFault(403),
    "404": GateFault(404, body=b'{"errors":[{"code":"MANIFEST_UNKNOWN","message":"gone"}]}'),
}


def small(repository: Repository) -> None:
    """A package that is small, and still has a part of each kind to lose."""
    image = repository.build("v1")
    repository.cosign(image)
    stale = repository.build("")
    repository.cosign(stale)
    repository.image_manifest("plain")


@pytest.mark.campaign
def test_every_request_may_fail(world: World, monkeypatch: pytest.MonkeyPatch):
    """Each request of a run fails in turn, in each way: every tag that stays, pulls.

    CAMPAIGN ways a request (1 by default), in rotation; from 5 on all of them.
    """
    monkeypatch.setattr(client.Policy, "sleep", lambda policy, response=None: None)
    small(world.repository)
    old(world)
    first = world.again()
    assert run_once(first) is not None
    counts = {"github": len(world.server.log), "registry": len(world.gate.seen)}
    kinds = list(GITHUB_FAULTS)
    seen_faults = 0
    for side, count in counts.items():
        for number in range(1, count + 1):
            for kind in (kinds * 2)[number % len(kinds) :][: min(LENGTH, len(kinds))]:
                copy = world.again()
                tags = copy.repository.tags()
                world.forget()
                if side == "github":
                    world.server.faults.script.append(Fault(nth=number, **GITHUB_FAULTS[kind]))
                else:
                    world.gate.fault = fault_at(number, REGISTRY_FAULTS[kind])
                try:
                    run_once(copy)
                except PipelineError:
                    pass
                seen_faults += 1
                there = copy.repository.digests()
                copy.check_pulls({t: d for t, d in tags.items() if d in there})
                assert {"v1", "plain"} <= set(copy.repository.tags()), (side, number, kind)
                # The next run ends the work.
                world.forget()
                assert run_once(copy) is not None
                assert make_no_plan(copy), (side, number, kind)
    assert seen_faults >= sum(counts.values())


def fault_at(number: int, fault: GateFault) -> Callable[[Seen], GateFault | None]:
    """The fault befalls one request."""
    return lambda seen: fault if seen.number == number else None


def make_no_plan(world: World) -> bool:
    """Whether a cleanup would find nothing to delete."""
    run = make_cleanup(world, MANIFEST_CACHE="none")
    return make_plan(run.reader.read(run.policy), run.policy).to_delete == ()


@pytest.mark.campaign
@pytest.mark.parametrize("how", ["before", "after"])
def test_killed_at_each_deletion(world: World, how: str):
    """SIGKILL right before and right after each deletion: every tag that stays, pulls."""
    small(world.repository)
    old(world)
    first = world.again()
    report = run_once(first)
    assert report is not None
    total = len(report.outcome.deleted)
    assert total == 4
    for number in range(1, total + 1):
        copy = world.again()
        tags = copy.repository.tags()
        world.forget()
        child: list[subprocess.Popen] = []
        ready = threading.Event()

        def kill() -> None:
            ready.wait(30)
            child[0].send_signal(signal.SIGKILL)
            child[0].wait(30)

        world.server.faults.script.append(Fault(f"call-{how}", DELETES, number, hook=kill))
        env = {**os.environ, **copy.env(MANIFEST_CACHE="none")}
        child.append(
            subprocess.Popen(
                [sys.executable, "-m", "tools.cleanup", "--keep", "0"],
                env=env, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )
        )  # fmt: skip
        ready.set()
        assert child[0].wait(60) == -signal.SIGKILL
        copy.settle()
        there = copy.repository.digests()
        copy.check_pulls({t: d for t, d in tags.items() if d in there})
        assert {"v1", "plain"} <= set(copy.repository.tags())
        world.forget()
        assert run_once(copy) is not None
        assert make_no_plan(copy)


# --- a real builder ---


@pytest.mark.engine
@pytest.mark.campaign
def test_pushed_by_buildx_while_cleanup_runs(world: World, tmp_path: Path):
    """Images that a real buildx pushes while cleanup runs without any grace: all pull.

    10 pushes (times CAMPAIGN); half of them are of images whose parts are there already, untagged and
    about to go.
    """
    pushes = 10 * LENGTH
    repository = world.repository
    repository.build("v1")

    def build(content: int, tag: str) -> subprocess.CompletedProcess:
        context = tmp_path / f"context-{content}"
        context.mkdir(exist_ok=True)
        (context / "Dockerfile").write_text("FROM scratch\nCOPY content /\n")
        (context / "content").write_text(f"content {content}")
        command = [
            "docker", "buildx", "build", "--provenance=true", "--push", "--platform",
            "linux/amd64,linux/arm64", "--tag", f"{repository.image}:{tag}", str(context),
        ]  # fmt: skip
        return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)

    stop = threading.Event()
    problems: list[str] = []
    deleted: list[str] = []

    def clean() -> None:
        while not stop.is_set():
            try:
                # The default grace; what the same tag is pushed over becomes old at once.
                report = make_cleanup(world).run(False)
                deleted.extend(report.outcome.deleted if report else ())
            except PipelineError as error:
                problems.append(str(error))

    cleaner = threading.Thread(target=clean)
    cleaner.start()
    try:
        pushed = {}
        for number in range(pushes):
            # Every second push repeats an earlier content under a new tag.
            done = build(number // 2, f"t{number}")
            if done.returncode == 0:
                pushed[f"t{number}"] = repository.tags()[f"t{number}"]
            else:
                assert re.search("manifest|blob|not found", done.stderr), done.stderr
            # Overwrite a tag and let its image be old: it is about to go while we push it again.
            if number % 2 == 0:
                repository.image_manifest(f"t{number}")
                pushed.pop(f"t{number}", None)
                repository.set_all_ages(30 * DAY)
    finally:
        stop.set()
        cleaner.join()
        remove_images(repository, (f"t{number}" for number in range(pushes)))
    make_cleanup(world).run(False)
    assert len(pushed) >= pushes // 3 and len(deleted) >= pushes
    found = pull_all(repository, tmp_path)
    assert {tag: found[tag] for tag in pushed} == pushed
    assert problems == []
