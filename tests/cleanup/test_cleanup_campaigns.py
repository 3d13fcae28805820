"""The cleanup under fire: every request fails, every deletion is the last, pushes race it."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
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
    "timeout": GateFault(hang=0.8),
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
    counts = {"github": len(world.server.log), "registry": len(world.gate.seen)}
    kinds = list(GITHUB_FAULTS)
    for side, count in counts.items():
        for number in range(1, count + 1):
            for kind in (kinds * 2)[number % len(kinds) :][: min(LENGTH, len(kinds))]:
                copy = world.again()
                world.forget()
                if side == "github":
                    world.server.faults.script.append(Fault(nth=number, **GITHUB_FAULTS[kind]))
                else:
                    fault = {number: REGISTRY_FAULTS[kind]}
                    world.gate.fault = lambda seen, fault=fault: fault.get(seen.number)
                with contextlib.suppress(PipelineError):
                    copy.clean()
                fired = world.server.faults.fired or len(world.gate.seen) >= number
                assert fired, (side, number, kind)
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
    """Images that a real buildx pushes while cleanup runs without any grace: all pull.

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
                # The default grace; what the same tag is pushed over becomes old at once.
                result = world.clean()
            except PipelineError as error:
                problems.append(str(error))
            else:
                deleted.extend(result.deleted)
                problems.extend(result.problems)

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
