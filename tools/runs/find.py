"""Which runs there are to show: of the Actions API where there is a token, else local."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from tools.core import console
from tools.core.errors import UsageError
from tools.core.settings import ROOT, Settings, load
from tools.github.errors import GitHubError
from tools.repo.context import current_event
from tools.runs import record
from tools.runs.record import RunRecord
from tools.workflow import model

WAIT_LIMIT = 30.0  # seconds: a picture is not worth the waits that a release is


def find_records(
    env: Mapping[str, str], source: str, limit: int, root: Path | None = None
) -> list[RunRecord]:
    """The runs to show, the oldest first.

    Args:
        env: The environment.
        source: ``actions``, ``local`` or ``auto``.
        limit: How many at most.
        root: The checkout.

    Raises:
        UsageError: There are none, or no token where the Actions API was asked for.
        GitHubError: The API refused.
    """
    settings = load(env)
    repository = current_event(env).repository if source != "local" else ""
    if source == "actions" and not (settings.gh_token and repository):
        raise UsageError(
            "The runs on Actions cannot be asked for without a token and a repository.",
            "Set GH_TOKEN, and GITHUB_REPOSITORY where origin does not tell it.",
        )
    if settings.gh_token and repository:
        try:
            return _from_actions(settings, repository, limit, env.get("GITHUB_RUN_ID", ""))
        except GitHubError as error:
            if source == "actions":
                raise
            console.warn(f"The runs on Actions cannot be read: {error}")
    records = record.history(root or ROOT, limit)
    if not records:
        raise UsageError("There is no run to draw yet.", "Run nox -s pipeline first.")
    return records


def _from_actions(
    settings: Settings, repository: str, limit: int, current: str
) -> list[RunRecord]:
    from tools.github.client import connect
    from tools.runs.history import fetch_history

    wait = min(settings.github_time_limit, WAIT_LIMIT)
    github = connect(dataclasses.replace(settings, github_time_limit=wait))
    graph = model.load()
    records = fetch_history(github.get_repo(repository), graph, limit, current)
    if not records:
        raise GitHubError(f"{repository} has no run of {graph.path.name} that has ended.")
    return records
