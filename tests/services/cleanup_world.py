"""The world of a cleanup in tests: a registry, the GitHub before it, and ways to run."""

import json
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import pytest

from tests.services.faults import Faults
from tests.services.gate import Gate
from tests.services.github import Answer, Call, GitHubServer
from tests.services.packages import PackagesService
from tests.services.registry import Registry, Repository, digest_of
from tools.cleanup import __main__ as cleanup
from tools.cleanup.plan import DAY, Policy
from tools.cleanup.read import Reader
from tools.cleanup.report import CleanupResult
from tools.cleanup.run import clean
from tools.core.settings import ROOT
from tools.core.settings import load as load_settings
from tools.github.client import connect
from tools.registry.client import Registry as Client

TOKEN = "ghp_0123456789simulated"
DELETES = "packages/delete-package-version-for-user"
LISTING = "packages/get-all-package-versions-for-package-owned-by-user"


@dataclass
class World:
    """A package in a registry, and the GitHub that lists it."""

    server: GitHubServer
    service: PackagesService
    gate: Gate  # stands before the registry for the cleanup (tests go past it)
    repository: Repository  # the package's
    folder: Path  # for files

    def env(self, **more: str) -> dict[str, str]:
        """The environment that leads a cleanup here."""
        return {
            "REGISTRY": self.gate.address,
            "IMAGE_NAME": self.repository.name,
            "GITHUB_API_URL": self.server.url,
            "GH_TOKEN": TOKEN,
            "MANIFEST_CACHE": str(self.folder / "cache"),
            "GITHUB_POINTS_PER_MINUTE": "0",
            **more,
        }

    def reader(self) -> Reader:
        """What a cleanup reads with: clients that neither pace nor pause."""
        settings = load_settings(self.env(), ROOT)
        return Reader(settings, connect(settings, 0, timeout=1), quick(settings))

    def clean(self) -> CleanupResult:
        """A cleanup of all that may go, without the command line."""
        return clean(self.reader(), Policy(keep=0), dry_run=False)

    def again(self) -> Self:
        """A fresh copy of the package, under another name."""
        return type(self)(
            self.server, self.service, self.gate, self.repository.clone(), self.folder
        )

    def replace_route(self, name: str, run: Callable[[Call], Answer]) -> None:
        """Let an endpoint of the simulated GitHub do something else."""
        routes = self.server.routes
        routes[:] = [replace(one, run=run) if one.name == name else one for one in routes]

    def forget(self) -> None:
        """Forget requests and faults so far."""
        self.gate.reset()
        self.server.log.clear()
        self.server.faults = Faults()

    def settle(self) -> None:
        """Wait until GitHub has ended every request: a killed client's go on."""
        until = time.monotonic() + 30
        while any("seconds" not in entry for entry in self.server.log):
            assert time.monotonic() < until, "a request does not end"
            time.sleep(0.01)

    def kinds(self) -> list[str]:
        """Operations that GitHub was asked for, in order."""
        return [entry["kind"] for entry in self.server.log]

    def check_pulls(self, expected: Mapping[str, str]) -> set[str]:
        """Read all of every tag, as a pull does: these, and no other. The digests of it all."""
        whole: set[str] = set()

        def pull(reference: str) -> str:
            body = self.repository._request((200,), "GET", f"manifests/{reference}").data
            whole.add(digest_of(body))
            for child in json.loads(body).get("manifests", ()):
                assert child["digest"] in whole or pull(child["digest"]) == child["digest"]
            return digest_of(body)

        assert {tag: pull(tag) for tag in self.repository.tags()} == dict(expected)
        return whole


@pytest.fixture
def world(registry: Registry, tmp_path: Path) -> Iterator[World]:
    service = PackagesService(registry)
    github = GitHubServer(tmp_path / "github", service.routes)
    with Gate(registry.url) as gate, github as server:
        server.add_token(TOKEN)
        repository = registry.repository(f"owner/{os.urandom(4).hex()}/image")
        yield World(server, service, gate, repository, tmp_path)
        assert server.errors == []


@dataclass
class Ran:
    """What a run of the command line left."""

    code: int
    report: dict[str, Any]
    err: str


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> Callable[..., Ran]:
    """Run the session's command in this process: a world, options, and settings."""

    def runs(world: World, *arguments: str, **env: str) -> Ran:
        for name, value in world.env(**env).items():
            monkeypatch.setenv(name, value)
        before = signal.getsignal(signal.SIGTERM)
        code = cleanup.main([*arguments, "--json"])
        signal.signal(signal.SIGTERM, before)
        said = capsys.readouterr()
        return Ran(code, json.loads(said.out), said.err)

    return runs


def old(world: World) -> dict[str, str]:
    """Let all that is there be old; tag to digest."""
    world.repository.set_all_ages(30 * DAY)
    return world.repository.tags()


def quick(settings, user: str = "") -> Client:
    """A registry client that does not pause."""
    return Client(settings.registry, user, settings.gh_token, backoff=0, timeout=0.5)
