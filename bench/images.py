"""``nox -s docker_dev`` of an unchanged tree against the same bare ``docker buildx build``.

Both with the same flags, so that what is compared is what the session adds: nox, settings,
the size of the context, the engine's answers, reading the digest back, the record. Nothing
is pushed unless the registry is a local one.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from bench.compare import compare, show
from tools.core.settings import ROOT
from tools.images import build
from tools.images.plan import Options, make_plan
from tools.registry.manifest import is_loopback
from tools.repo.context import load_context

PROMISE = 1.0  # seconds


def main() -> None:
    """Print the table and the seconds that the session adds."""
    context = load_context()
    local = is_loopback(context.settings.registry)
    flag = "--push" if local else "--no-push"
    plan = make_plan(Options("development", push=local), context, os.environ)
    with tempfile.TemporaryDirectory() as folder:
        bare = build.command(plan, Path(folder))
        env = {**os.environ, "SOURCE_DATE_EPOCH": str(plan.created)}
        session = [sys.executable, "-m", "nox", "--session", "docker_dev", "--", flag]

        def run(command: list[str]) -> None:
            subprocess.run(command, cwd=ROOT, env=env, check=True, capture_output=True)

        measured = compare(
            {
                "docker buildx build": lambda: run(bare),
                "nox -s docker_dev": lambda: run(session),
            }
        )
    show(measured)
    pairs = zip(measured[1].seconds, measured[0].seconds, strict=True)
    added = statistics.median(ours - theirs for ours, theirs in pairs)
    kept = "kept" if added <= PROMISE else "NOT kept"
    print(f"added: {added:.2f} s; promised: at most {PROMISE:.0f} s: {kept}")


if __name__ == "__main__":
    main()
