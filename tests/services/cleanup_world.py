"""The world of a cleanup in tests: a registry, the GitHub before it, and ways to run."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.services.gate import Gate, gate_before
from tests.services.github import GitHubServer
from tests.services.packages import PackagesService
from tests.services.registry import Registry, Repository, pull_all
from tools.cleanup import __main__ as cleanup
from tools.cleanup.plan import DAY, Policy
from tools.cleanup.report import CleanupResult
from tools.core.settings import ROOT
from tools.core.settings import load as load_settings
from tools.github.client import connect
from tools.registry.client import Registry as Client

TOKEN = "ghp_0123456789simulated"
DELETES = "packages/delete-package-version-for-user"
LISTING = "packages/get-all-package-versions-for-package-owned-by-user"


@dataclass
class World:
    """A package in a registry, and the GitHub that lists it.

    Attributes:
        server: The simulated GitHub.
        service: Its packages.
        gate: Stands before the registry for the cleanup (tests go past it).
        repository: The package's repository.
        folder: For files.
    """

    server: GitHubServer
    service: PackagesService
    gate: Gate
    repository: Repository
    folder: Path

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

    def again(self) -> World:
        """A fresh copy of the package, under another name."""
        return World(self.server, self.service, self.gate, self.repository.clone(), self.folder)

    def forget(self) -> None:
        """Forget requests and faults so far."""
        self.gate.reset()
        self.server.log.clear()
        self.server.faults.script.clear()
        self.server.faults._seen.clear()

    def settle(self) -> None:
        """Wait until GitHub has ended every request: a killed client's go on."""
        until = time.monotonic() + 30
        while any("seconds" not in entry for entry in self.server.log):
            assert time.monotonic() < until, "a request does not end"
            time.sleep(0.01)

    def kinds(self) -> list[str]:
        """Operations that GitHub was asked for, in order."""
        return [entry["kind"].partition("/")[2] for entry in self.server.log]

    def check_pulls(self, expected: Mapping[str, str]) -> None:
        """Pull every tag with a real client: all of ``expected``, with their digests."""
        assert pull_all(self.repository, self.folder) == dict(expected)


@pytest.fixture
def world(registry: Registry, tmp_path: Path) -> Iterator[World]:
    service = PackagesService(registry)
    with gate_before(registry.url) as gate:
        with GitHubServer(tmp_path / "github", service.routes) as server:
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
    """Run the session's command in this process."""

    def runs(world: World, *arguments: str, **env: str) -> Ran:
        for name, value in world.env(**env).items():
            monkeypatch.setenv(name, value)
        before = signal.getsignal(signal.SIGTERM)
        code = cleanup.main([*arguments, "--json"])
        signal.signal(signal.SIGTERM, before)
        said = capsys.readouterr()
        return Ran(code, json.loads(said.out) if said.out else {}, said.err)

    return runs


def old(world: World) -> dict[str, str]:
    """Let all that is there be old; tag to digest."""
    world.repository.set_all_ages(30 * DAY)
    return world.repository.tags()


def fill(repository: Repository) -> dict[str, str]:
    """A small package with one of everything; name to digest of what must go."""
    kept = repository.build("v1", "amd64", "arm64")
    repository.build("latest")
    repository.image_manifest("plain", docker=True)
    inner = repository.build("", "riscv64")
    repository.index([repository.image_manifest(), inner], "nested")
    repository.cosign(kept)
    artifact = repository.artifact(kept, "application/vnd.example.sbom")
    repository.referrers_tag(kept, [artifact])
    stale = repository.build("", "amd64")
    going = {"stale": stale.digest, "stale signature": repository.cosign(stale).digest}
    for child in repository.get(stale.digest)["manifests"]:
        going[f"part {len(going)}"] = child["digest"]
    going["single"] = repository.image_manifest().digest
    orphan = repository.artifact(stale, "application/vnd.example.sbom")
    going["artifact"] = orphan.digest
    return going


def quick(settings, user: str = "", connections: int = 32) -> Client:
    """A registry client that neither waits nor pauses."""
    return Client(settings.registry, user, settings.gh_token, backoff=0, timeout=1.0)


def make_cleanup(world: World, **env: str) -> cleanup.Cleanup:
    """A cleanup of all that may go, whose registry client does not wait."""
    settings = load_settings(world.env(**env), ROOT)
    policy = Policy(keep=0, now=time.time())
    return cleanup.Cleanup(settings, policy, connect(settings, 0, timeout=1), quick(settings))


def run_once(world: World) -> CleanupResult | None:
    """A cleanup without the command line."""
    return make_cleanup(world, MANIFEST_CACHE="none").run(False)


def remove_images(repository: Repository, tags: Iterable[str]) -> None:
    """Remove from the engine what a test's builds left there."""
    names = [f"{repository.image}:{tag}" for tag in tags]
    subprocess.run(["docker", "image", "rm", *names], capture_output=True, check=False)
