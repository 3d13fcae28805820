"""The cleanup under fire: every request fails, every deletion is the last, pushes race it."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from tests.services.cleanup_world import DELETES, World, old
from tests.services.faults import Fault
from tests.services.gate import Fault as GateFault
from tests.services.registry import Repository, pull_all
from tools.cleanup.plan import DAY
from tools.core.errors import PipelineError
from tools.core.settings import ROOT
from tools.github import client

LENGTH = int(os.environ.get("CAMPAIGN", "1"))  # a night has more time than a change

LIMIT = {"message": "You have exceeded a secondary rate limit."}
FAULTS = (  # of GitHub, and of the registry
    (Fault("status", status=500), GateFault(500)),
    (Fault("reset-after"), GateFault(reset=True)),
    (Fault("stall-before"), GateFault(hang=0.8)),
    (Fault("status", status=403, headers={"retry-after": "0"}, data=LIMIT), GateFault(403)),
    (
        Fault("status", status=404, data={"message": "Not Found"}),
        GateFault(404, body=b'{"errors":[{"code":"MANIFEST_UNKNOWN","message":"gone"}]}'),
    ),
)


def small(repository: Repository) -> None:
    """A package that is small, and still has a part of each kind to lose."""
    image = repository.build("v1")
    repository.cosign(image)
    stale = repository.build("")
    repository.cosign(stale)
    repository.image_manifest("plain")


def check_whole_then_ended(copy: World, tags: dict[str, str], end: set[str]) -> None:
    """After a run that went wrong every tag that stays pulls; the next run ends the work."""
    there = copy.repository.digests()
    assert end <= there
    copy.check_pulls({tag: digest for tag, digest in tags.items() if digest in there})
    copy.forget()
    assert not copy.clean().problems
    assert copy.repository.digests() == end


@pytest.mark.campaign
def test_every_request_may_fail(world: World, monkeypatch: pytest.MonkeyPatch):
    """Each request of a run fails in turn, in each way: every tag that stays, pulls.

    CAMPAIGN ways a request (1 by default), in rotation; from 5 on all of them.
    """
    monkeypatch.setattr(client.Policy, "sleep", lambda policy, response=None: None)
    small(world.repository)
    tags, first = old(world), world.again()
    assert not first.clean().problems
    counts = len(world.server.log), len(world.gate.seen)
    of_github = [(0, number) for number in range(1, counts[0] + 1)]
    of_registry = [(1, number) for number in range(1, counts[1] + 1)]
    for side, number in (*of_github, *of_registry):
        for kind in range(number, number + min(LENGTH, len(FAULTS))):
            copy = world.again()
            world.forget()
            fault = FAULTS[kind % len(FAULTS)][side]
            if isinstance(fault, Fault):
                world.server.faults.script.append(replace(fault, nth=number))
            else:
                at = {number: fault}
                world.gate.fault = lambda seen, at=at: at.get(seen.number)
            with contextlib.suppress(PipelineError):
                copy.clean()
            assert world.server.faults.fired or len(world.gate.seen) >= number
            check_whole_then_ended(copy, tags, first.repository.digests())


@pytest.mark.campaign
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_ended_at_each_deletion(world: World, how: signal.Signals):
    """What is killed has done the last deletion; what is asked to end (Ctrl-C, SIGTERM) ends
    with 130, and begins nothing new: it remembers what it deleted.
    """
    small(world.repository)
    tags, first = old(world), world.again()
    total = len(first.clean().deleted)
    assert total == 4
    for number in range(1, total + 1):
        copy = world.again()
        world.forget()
        child: list[subprocess.Popen] = []
        ready = threading.Event()

        def end(child=child, ready=ready) -> None:
            ready.wait(30)
            child[0].send_signal(how)
            child[0].wait(30)

        world.server.faults.script.append(Fault("call-after", DELETES, number, hook=end))
        child.append(
            subprocess.Popen(
                [sys.executable, "-m", "tools.cleanup", "--keep", "0"],
                env={**os.environ, **copy.env()}, cwd=ROOT, stderr=subprocess.PIPE, text=True,
            )
        )  # fmt: skip
        ready.set()
        assert "Traceback" not in child[0].communicate(timeout=60)[1]
        copy.settle()
        gone = world.repository.digests() - copy.repository.digests()
        assert len(gone) == number
        if how == signal.SIGTERM:
            assert set(copy.reader().memory.deleted) == gone
        assert child[0].returncode == (130 if how == signal.SIGTERM else -signal.SIGKILL)
        check_whole_then_ended(copy, tags, first.repository.digests())


# --- a real builder ---


@pytest.mark.engine
@pytest.mark.campaign
def test_pushed_by_buildx_while_cleanup_runs(world: World, tmp_path: Path):
    """Images that a real buildx pushes while cleanup runs again and again: all pull.

    6 pushes (times CAMPAIGN); every second one is of an image whose parts are there already,
    untagged and about to go.
    """
    pushes = 6 * LENGTH
    repository = world.repository
    repository.build("v1")
    names = [f"{repository.image}:t{number}" for number in range(pushes)]
    (tmp_path / "Dockerfile").write_text("FROM scratch\nCOPY content /\n")
    build = ("docker", "buildx", "build", "--provenance=true", "--push", str(tmp_path), "--tag")

    def push(content: int, name: str) -> bool:
        (tmp_path / "content").write_text(f"content {content} of {repository.name}")
        done = subprocess.run([*build, name], capture_output=True, text=True, timeout=120)
        assert not done.returncode or re.search("manifest|blob|not found", done.stderr)
        return not done.returncode

    stop = threading.Event()
    problems: list[str] = []
    deleted: list[str] = []

    def clean() -> None:
        while not stop.is_set():
            try:
                result = world.clean()
                deleted.extend(result.deleted)
                problems.extend(result.problems)
            except PipelineError as error:
                problems.append(str(error))

    cleaner = threading.Thread(target=clean)
    cleaner.start()
    pushed: dict[str, str] = {}
    try:
        for number in range(0, pushes, 2):
            # Let another image take the tag, and all be old: the first one is about to go
            # while we push it again, under a new tag.
            push(number, names[number])
            repository.image_manifest(f"t{number}")
            repository.set_all_ages(30 * DAY)
            if push(number, names[number + 1]):
                pushed[f"t{number + 1}"] = repository.tags()[f"t{number + 1}"]
    finally:
        stop.set()
        cleaner.join()
        # In the background: after each the engine looks for what nothing uses, for seconds.
        subprocess.run(f"docker image rm {' '.join(names)} >/dev/null 2>&1 &", shell=True)
    assert len(pushed) >= pushes // 3 and len(deleted) >= pushes and not problems
    found = pull_all(repository, tmp_path)
    assert {tag: found[tag] for tag in pushed} == pushed
    # When all is old, what no tag needs goes, to the last part.
    repository.set_all_ages(30 * DAY)
    world.clean()
    assert world.check_pulls(found) == repository.digests()
