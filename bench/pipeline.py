"""``pipeline`` beside its sessions run one by one, its critical path, and ``plan``'s time.

Needs a Docker engine and a registry on the loopback range:
``python .ci/services.py run -- python -m bench.pipeline``. Both ways in turns, after a run
that is not counted.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from bench.compare import Measured, compare, show

EVENT = ("--event", "push", "--ref", "refs/heads/main")
PROCESSORS = 2
ROUNDS = 2
MOST_OF_PATH = 1.15  # promised: wall time over critical path
MOST_OF_PLAN = 0.5  # promised: seconds of plan beyond nox's own start

IDLE = """\
import nox
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.reuse_venv = "yes"
@nox.session
def idle(session):
    session.run("python", "-c", "pass")
"""


def nox(*args: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run nox as a person would; its output is shown if it fails."""
    command = [sys.executable, "-m", "nox", *args]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **env})
    if done.returncode:
        print(done.stdout[-3000:], done.stderr[-3000:], sep="\n")
        raise SystemExit(f"{shlex.join(command)} failed")
    return done


def pipeline(*args: str) -> str:
    """``nox -s pipeline`` for a push to main; what it prints to stdout."""
    return nox("-s", "pipeline", "--", *EVENT, *args).stdout


def commands() -> list[list[str]]:
    """The sessions of a push to main, in an order that the graph allows."""
    planned = json.loads(pipeline("--dry-run", "--json"))["commands"]
    return [shlex.split(line)[1:] for lines in planned.values() for line in lines]


def one_by_one(sha: str) -> float:
    """Seconds of the same sessions, typed one after another."""
    env = {"GITHUB_EVENT_NAME": "push", "GITHUB_REF": "refs/heads/main", "GITHUB_SHA": sha}
    sessions = commands()
    begun = time.perf_counter()
    for command in sessions:
        nox("--no-dependencies", *command, **env)
    return time.perf_counter() - begun


def of_pipeline() -> None:
    """Wall time against one by one, in turns, and against the critical path."""
    pipeline("--jobs", str(PROCESSORS))  # fills caches; not counted
    records, alone = [], []
    for _ in range(ROUNDS):
        records.append(json.loads(pipeline("--jobs", str(PROCESSORS), "--json")))
        alone.append(one_by_one(records[-1]["event"]["sha"]))
    walls = [record["seconds"] for record in records]
    show([Measured("one by one", tuple(alone)), Measured("pipeline", tuple(walls))])
    for record in records:
        wall, path = record["seconds"], record["critical_path"]["seconds"]
        kept = "kept" if wall / path <= MOST_OF_PATH else "NOT kept"
        print(
            f"critical path: {path:.1f} s; pipeline / critical path: {wall / path:.2f}; "
            f"promised: at most {MOST_OF_PATH}: {kept}"
        )


def processor(way: Callable[[], object]) -> float:
    """Seconds of processor that a way takes: they don't grow with what else runs."""
    before = os.times()
    way()
    after = os.times()
    spent = after.children_user - before.children_user
    return spent + after.children_system - before.children_system


def of_plan() -> None:
    """``plan`` against a session that does nothing."""
    with tempfile.TemporaryDirectory() as folder:
        noxfile = Path(folder) / "noxfile.py"
        noxfile.write_text(IDLE, encoding="utf-8")
        ways = {
            "nox, idle session": lambda: nox("-f", str(noxfile), "-s", "idle"),
            "nox -s plan": lambda: nox("-s", "plan", "--", *EVENT, "--json"),
        }
        idle, planned = compare(ways, rounds=5)
        cpu = processor(ways["nox -s plan"]) - processor(ways["nox, idle session"])
    show([idle, planned])
    beyond = planned.median - idle.median
    kept = "kept" if beyond < MOST_OF_PLAN else "NOT kept"
    print(
        f"plan beyond nox's own start: {beyond:.2f} s ({cpu:.2f} s of processor, load "
        f"{os.getloadavg()[0]:.1f}); promised: under {MOST_OF_PLAN}: {kept}"
    )


def main() -> None:
    """Print both tables."""
    of_plan()
    of_pipeline()


if __name__ == "__main__":
    main()
