"""The whole doctor on a healthy machine, against its checks one after another.

Everything is there: an engine (the one that ``docker`` finds), a registry, and a GitHub
(simulated, on loopback). Promised: under 3 seconds, nox's own start included.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from bench.compare import compare, show
from tests.services.github import GitHubServer
from tests.services.registry import running_registry
from tools.core.settings import ROOT

PROMISE = 3.0
TOKEN = "ghp_bench0123456789abcdef"
ONE_AFTER_ANOTHER = """
import os
from tools.core.settings import ROOT, load
from tools.doctor.__main__ import CHECKS
from tools.doctor.base import Skipped, Subject
subject = Subject(ROOT, os.environ, load())
for check in CHECKS:
    try:
        check.run(subject)
    except Skipped:
        pass
"""


@contextlib.contextmanager
def healthy() -> Iterator[dict[str, str]]:
    """The environment of a machine where nothing is wrong."""
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        with (
            running_registry(folder / "registry") as registry,
            GitHubServer(folder / "github") as github,
        ):
            github.add_repository("owner/name")
            github.add_token(TOKEN)
            yield {
                **os.environ,
                "GITHUB_API_URL": github.url,
                "GITHUB_REPOSITORY": "owner/name",
                "GH_TOKEN": TOKEN,
                "REGISTRY": registry.address,
                "BASE_IMAGE": os.environ.get("BASE_IMAGE", "python:3.11-slim-bookworm"),
            }


def main() -> None:
    """Print the table, and whether the promise is kept."""
    with healthy() as env:

        def run(*command: str) -> None:
            subprocess.run(
                [sys.executable, *command], cwd=ROOT, env=env, check=True, capture_output=True
            )

        measured = compare(
            {
                "its checks one after another": lambda: run("-c", ONE_AFTER_ANOTHER),
                "nox -s doctor": lambda: run("-m", "nox", "-s", "doctor"),
            },
            rounds=5,
        )
    show(measured)
    kept = measured[-1].median < PROMISE
    print(f"promised: under {PROMISE:.0f} s: {'kept' if kept else 'NOT kept'}")


if __name__ == "__main__":
    main()
