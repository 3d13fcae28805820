"""``coverage``: hand the coverage of the tests to Codecov, with its own uploader.

Inert without ``CODECOV_TOKEN``. The token goes through the environment, never argv.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from tools.core import cli, console, process
from tools.core.errors import UsageError
from tools.core.settings import load
from tools.repo.context import current_event
from tools.repo.event import Event

REPORT = Path("coverage.xml")


def upload_command(event: Event, report: Path) -> list[str]:
    """How Codecov's uploader is called for an event.

    Source: codecov-cli, ``codecovcli upload-process --help``.
    """
    command = ["codecovcli", "upload-process", "--disable-search", "--file", str(report)]
    command += ["--sha", event.sha, "--flag", "tests", "--fail-on-error"]
    if event.repository:
        command += ["--slug", event.repository, "--git-service", "github"]
    if event.pull_request is not None:
        command += ["--pr", str(event.pull_request), "--branch", event.head_ref]
    elif event.branch:
        command += ["--branch", event.branch]
    return command


def environment(env: Mapping[str, str], token: str) -> dict[str, str]:
    """The uploader's environment: it reads its token from there."""
    return {**env, "CODECOV_TOKEN": token}


def work(given: argparse.Namespace) -> int:
    """Upload, or say what would be uploaded."""
    token = load().codecov_token
    event = current_event(os.environ)
    command = upload_command(event, REPORT)
    if given.dry_run:
        console.say(process.display(command))
        return 0
    if not token:
        console.say("nothing to do: CODECOV_TOKEN is not set")
        return 0
    if not REPORT.exists():
        raise UsageError(f"There is no {REPORT} to upload.", "Run nox -s tests first.")
    process.stream(command, env=environment(os.environ, token.reveal()))
    console.say("Codecov has the coverage")
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """``python -m tools.coverage_upload``."""
    made = cli.parser("coverage", "Upload the coverage of the tests to Codecov.")
    made.add_argument("--dry-run", action="store_true", help="show the command, send nothing")
    return cli.main(made, argparse.Namespace, work, arguments)


if __name__ == "__main__":
    sys.exit(main())
