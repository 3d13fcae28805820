"""A simulated GitHub."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.services import actions, releases
from tests.services.github import GitHubServer

NAME, TOKEN = "owner/name", "ghp_simulated0123456789"


@contextlib.contextmanager
def github(folder: Path, tls: tuple[Path, Path] | None = None) -> Iterator[GitHubServer]:
    """A GitHub that keeps its state in a folder, with our token, a repository and its tag."""
    with GitHubServer(folder, [*releases.ROUTES, *actions.ROUTES], tls=tls) as running:
        running.add_token(TOKEN)
        running.add_repository(NAME, {"v1.0.0": "a" * 40})
        yield running
        assert running.errors == []


@pytest.fixture
def server(tmp_path: Path) -> Iterator[GitHubServer]:
    with github(tmp_path / "github") as running:
        yield running
