"""Compiling again with a warm cache, and with a store that somebody else has filled.

Builds ``MLC_LLM_SOURCE`` (the tests' project in MLC-LLM's shape if it is unset) in a container:
cold, then warm; and with sccache over Redis on loopback (Debian's redis-server), from one
checkout, and then from another in another folder. Needs the image: ``nox -s docker_dev``, or
``WHEEL_IMAGE``.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from bench.compare import Measured, show
from tools.core import process
from tools.core.settings import ROOT
from tools.repo.context import Context, load_context
from tools.wheels import __main__ as wheels
from tools.wheels import container
from tools.wheels.flavours import PLAIN
from tools.wheels.place import Place
from tools.wheels.source import open_tree

SHAPED = str(ROOT / "tests" / "data" / "shaped")
MOST = 0.25  # promised: warm over cold, for the real tree
LEAST = 95.0  # promised: percent of hits of the second checkout
RATE = re.compile(r"^(?:Cache hits rate +|  Hits: .*\( *)([\d.]+) ?%", re.MULTILINE)


@dataclass(frozen=True)
class Built:
    """What one build took, and percent of hits of each of its caches."""

    seconds: float
    hits: tuple[float, ...]


def build_once(
    context: Context, image: str, cache: str, work: Path, env: Mapping[str, str]
) -> Built:
    """One build in the new folder ``work``, with the caches that ``env`` leads to."""
    # What it keeps lies in its own folder, not in our checkout.
    plan = replace(wheels.make_plan(context), compiler_cache=cache, root=str(work), version="1")
    tree, shown = open_tree(plan.source, work / "sources"), io.StringIO()
    work.mkdir(parents=True)
    shutil.copy2(ROOT / "constraints.txt", work)
    os.environ.update(env)
    begun = time.perf_counter()
    try:
        with process.watched(), contextlib.redirect_stderr(shown):
            wheels.build_copy(plan, PLAIN, tree, work, Place(image), again=True)
    except BaseException:
        print(shown.getvalue(), file=sys.stderr)
        raise
    seconds = time.perf_counter() - begun
    return Built(seconds, tuple(map(float, RATE.findall(shown.getvalue()))))


@contextlib.contextmanager
def redis(folder: Path) -> Iterator[str]:
    """A Redis server on loopback, which keeps nothing; its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    options = ["--bind", "127.0.0.1", "--port", str(port), "--save", "", "--dir", str(folder)]
    child = subprocess.Popen(["redis-server", *options], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    with child, child.stdout:
        while "Ready to accept connections" not in (line := child.stdout.readline()):
            if not line:
                raise SystemExit("redis-server did not start")
        try:
            yield f"redis://127.0.0.1:{port}"
        finally:
            child.terminate()


def compare_builds(
    name: str,
    context: Context,
    image: str,
    cache: str,
    folders: tuple[Path, Path],
    env: dict[str, str],
) -> Built:
    """Two builds, one in each folder, and what the second took of the first; the second."""
    first, second = (build_once(context, image, cache, folder, env) for folder in folders)
    print(f"\n{name}: hits, percent: {first.hits}, then {second.hits}")
    rows = [Measured("empty cache", (first.seconds,)), Measured(name, (second.seconds,))]
    show(rows, MOST if context.settings.mlc_llm_source != SHAPED else None)
    return second


def main() -> int:
    """Measure and print; 1 where the second checkout misses too much."""
    os.environ.setdefault("MLC_LLM_SOURCE", SHAPED)
    context, env = load_context(), dict(os.environ)
    image = container.choose(context.settings.wheel_image, ROOT)
    with tempfile.TemporaryDirectory() as text:
        top = Path(text)
        same = (top / "warm" / "1", top / "warm" / "2")
        env["XDG_CACHE_HOME"] = str(top / "cache")
        compare_builds("warm ccache, sccache for Rust", context, image, "ccache", same, env)
        if not shutil.which("redis-server"):
            print("no redis-server here (Debian: apt-get install redis-server)")
            return 0
        with redis(top) as address:
            shared = env | {"SCCACHE_REDIS_ENDPOINT": address}
            folders = (top / "one checkout", top / "another" / "place of another length")
            second = compare_builds("filled store", context, image, "sccache", folders, shared)
    kept = min(second.hits) >= LEAST
    print(f"promised: at least {LEAST} % of hits: {'kept' if kept else 'NOT kept'}")
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
