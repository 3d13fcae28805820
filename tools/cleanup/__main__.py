"""The session ``cleanup``: old, untagged versions of the container package go.

See docs/cleanup.md for what is kept and why.
"""

import os
import sys
from dataclasses import dataclass
from urllib.parse import urlsplit

from tools.cleanup.plan import Policy
from tools.cleanup.read import Reader
from tools.cleanup.report import report
from tools.cleanup.run import clean, seconds_between_deletes
from tools.core import cli, console
from tools.core.errors import PipelineError, UsageError
from tools.core.settings import load
from tools.github.client import connect as connect_github
from tools.registry.client import connect
from tools.registry.manifest import is_loopback


@dataclass(frozen=True)
class Options(Policy):
    """What the command line asks for."""

    dry_run: bool = cli.option(False, "show the plan, delete nothing")
    json: bool = cli.option(False, "print the report as JSON on stdout")


def work(options: Options) -> None:
    """Read, decide, delete, verify, report."""
    settings = load()
    if not settings.gh_token:
        raise UsageError(
            "No token is set, and GitHub lists a package's versions to nobody without one.",
            "Set GH_TOKEN to a token with read:packages and delete:packages; on Actions"
            " give the job packages: write and pass secrets.GITHUB_TOKEN.",
        )
    is_public = urlsplit(settings.github_api_url).hostname == "api.github.com"
    if is_public and settings.registry != "ghcr.io" and not is_loopback(settings.registry):
        raise UsageError(
            f"{settings.registry} is not GitHub's registry: its images are no GitHub packages.",
            "Set REGISTRY to ghcr.io, or use that registry's own retention rules.",
        )
    github = connect_github(settings, seconds_between_deletes(settings))
    registry = connect(settings, os.environ.get("GITHUB_ACTOR", ""))
    result = clean(Reader(settings, github, registry), options, options.dry_run)
    report(result)
    if options.json:
        console.emit_json(result.to_json())
    if result.problems:
        raise PipelineError(result.problems[0], "", "\n".join(result.problems[1:]))


main = cli.command(
    "cleanup", "Delete old, untagged versions of the container package.", Options, work
)


if __name__ == "__main__":
    sys.exit(main())
