"""The client of GitHub: what it sends again, how long it waits, what it says."""

import json
import logging
import time
import types
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import pytest
import requests
from github.Repository import Repository
from hypothesis import given
from hypothesis import strategies as st

from tests.github.conftest import NAME, TOKEN, github
from tests.services.certificates import certificates
from tests.services.faults import Fault, already_exists, limited
from tests.services.github import GitHubServer, Token
from tools.core.errors import PipelineError
from tools.core.settings import load
from tools.github import client
from tools.github.client import HostBoundToken, connect
from tools.github.errors import GitHubError, refusals

CREATE = "repos/create-release"


@dataclass
class World:
    """A GitHub, and how long was waited for it."""

    server: GitHubServer
    waits: list[float]

    def open(self, token: str = TOKEN, **env: str) -> Repository:
        """Our client's repository, with some environment; nothing is asked for that."""
        settings = load({"GITHUB_API_URL": self.server.url, "GH_TOKEN": token, **env})
        return connect(settings, between_writes=0, timeout=1).get_repo(NAME)

    def fail(self, *faults: Fault) -> None:
        """Let the next request end so."""
        self.server.faults.script[:] = faults


@pytest.fixture
def world(server: GitHubServer, monkeypatch: pytest.MonkeyPatch) -> World:
    """Nobody really waits, but the clock goes on."""
    waits: list[float] = []
    passed = types.SimpleNamespace(
        time=time.time, monotonic=lambda: time.monotonic() + sum(waits), sleep=waits.append
    )
    monkeypatch.setattr(client, "time", passed)
    return World(server, waits)


def draft(repository: Repository) -> None:
    with refusals("a draft"):
        repository.create_git_release("v1.0.0", "v1.0.0", "", draft=True)


def releases(repository: Repository) -> int:
    with refusals("the releases"):
        return len(list(repository.get_releases()))


def failing(status: int, said: object = "", **headers: str) -> Fault:
    """A response with a message or other data; names of headers are written with ``_``."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    data = {"message": said} if isinstance(said, str) else said
    return Fault("status", status=status, data=data, headers=named)


def test_enterprise_base_address(world: World, monkeypatch, tmp_path: Path):
    """A base with a path (GitHub Enterprise Server) works; the token is ours, not a login of
    ~/.netrc for the host.
    """
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login x password wrong\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    repository = world.open(GITHUB_API_URL=f"{world.server.url}/api/v3")
    draft(repository)
    assert releases(repository) == 1


# Faults that pass, and how long GitHub asks to wait.
PASSING = [
    (failing(500), 0),
    (failing(408), 0),
    (Fault("reset-before"), 0),
    (Fault("reset-after"), 0),
    (Fault("stall-before"), 0),
    (None, 90),  # a used-up limit, with a time at which it ends
    (failing(429), 60),
    (failing(429, retry_after="9"), 9),
    (failing(503, retry_after="7"), 7),
    (failing(403, retry_after="60"), 60),
    (failing(403, "You have exceeded a secondary rate limit. Please wait"), 60),
]


@pytest.mark.parametrize(("fault", "least"), PASSING)
def test_passing_faults_are_tried_again(world: World, fault: Fault | None, least: int):
    """A read survives them, waits at least as long as GitHub says, and not much longer."""
    world.fail(fault or limited(in_seconds=least + 1))
    assert releases(world.open()) == 0
    assert len(world.server.faults.fired) == 1
    assert least <= sum(world.waits) <= least + 15


def test_a_post_is_repeated_after_a_limit_alone(world: World):
    """GitHub did not act then. Else creating twice could leave two drafts: the caller learns
    that it is unknown.
    """
    world.fail(limited(in_seconds=100))
    draft(world.open())
    assert releases(world.open()) == 1
    for action in ("reset-before", "reset-after", "stall-after", "status"):
        world.server.log.clear()
        world.fail(Fault(action, CREATE, nth=0))
        with pytest.raises(GitHubError) as caught:
            draft(world.open())
        assert caught.value.acted
        assert [entry["kind"] for entry in world.server.log] == [CREATE]


@pytest.mark.parametrize("in_an_hour", [False, True])
def test_waiting_is_bounded(world: World, in_an_hour: bool):
    """All waits together stay within the limit, and the sentence names it."""
    down = Fault("status", status=503, headers={"retry-after": "100"}, nth=0)
    world.fail(limited(3600) if in_an_hour else down)
    with pytest.raises(GitHubError, match="over the limit of 300 s.*GITHUB_TIME_LIMIT"):
        releases(world.open(GITHUB_TIME_LIMIT="300s"))
    assert sum(world.waits) <= 300


@given(st.lists(st.tuples(st.integers(0, 100), st.integers(0, 100)), max_size=20))
def test_waits_at_the_same_time_count_once(waits: list[tuple[int, int]]):
    """What is spent is the time in which somebody waited, however many did (uploads)."""
    budget, waited, now = client.Budget(5000), set[int](), 0
    clock = types.SimpleNamespace(monotonic=lambda: float(now))
    with mock.patch("tools.github.client.time", clock):
        for pause, seconds in waits:
            now += pause
            budget.take(seconds)
            waited |= set(range(now, now + seconds))
    assert budget.spent == len(waited)


READ = {"contents": "read"}
TOKENS = [
    (None, 401, "has expired, was revoked or is mistyped"),
    (Token(expires=1.0), 401, "has expired, was revoked or is mistyped"),
    (Token(scopes=("read:packages",)), 404, r"scopes repo \(the token has: read:packages"),
    (Token(kind="installation", permissions=READ), 403, "permission contents=write.*the job"),
]


@pytest.mark.parametrize(("token", "status", "words"), TOKENS)
def test_what_a_token_lacks(world: World, token: Token | None, status: int, words: str):
    """A bad token, an expired one and each kind of missing right are told apart."""
    value = "ghp_another0123456789"
    if token:
        world.server.add_token(value, token)
    with pytest.raises(GitHubError, match=words) as caught:
        draft(world.open(token=value))
    assert caught.value.status == status and value not in str(caught.value)


REFUSALS = [
    (failing(401, "Requires authentication"), "none is set.*GH_TOKEN"),
    (failing(403, x_github_sso="required; url=https://a/x?y=1"), r"sign-on.*https://a/x\?y=1"),
    (failing(403, "no"), r"lacks a permission \(no\).*write access"),
    (already_exists("Release", "tag_name"), "Release tag_name already_exists.*the message"),
    (failing(410, "gone for good"), "gone for good"),
    # A next page on another host does not get the token.
    (
        failing(200, [{"id": 1}], link='<https://evil.example/>; rel="next"'),
        "evil.*nowhere else",
    ),
]


@pytest.mark.parametrize(("fault", "words"), REFUSALS)
def test_refusals(world: World, fault: Fault, words: str):
    """What GitHub says is in the sentence; a caller can tell ``already_exists``."""
    world.fail(fault)
    with pytest.raises(GitHubError, match=words) as caught:
        releases(world.open())
    assert caught.value.codes == ({"already_exists"} if caught.value.status == 422 else set())


def test_the_token_is_in_the_request_header_alone(world: World, caplog):
    """No log at any level and no exception, however deep, holds the token."""
    caplog.set_level(logging.DEBUG)
    for action in ("reset-before", "status", "stall-before", "half-answer"):
        world.fail(Fault(action, CREATE, nth=0, status=500))
        with pytest.raises(GitHubError) as caught:
            draft(world.open())
        error: BaseException | None = caught.value
        while error:
            assert TOKEN not in json.dumps([str(error), repr(error), str(vars(error))])
            hidden = error.__suppress_context__
            error = error.__cause__ or (None if hidden else error.__context__)
    assert caplog.records
    assert all(TOKEN not in str(vars(record)) for record in caplog.records)


def test_a_certificate_that_is_not_trusted(world: World, tmp_path: Path):
    """It fails at once: waiting makes no certificate trusted."""
    certificate, key, bundle = certificates(tmp_path)
    with github(tmp_path / "tls", (certificate, key)) as world.server:
        with pytest.raises(GitHubError, match="(?i)certificate"):
            releases(world.open())
        assert world.waits == []
        assert releases(world.open(CA_CERTIFICATES=str(bundle))) == 0


HOSTS = [
    ("https://api.github.com", "https://uploads.github.com/repos/o/n", True),
    ("https://api.github.com", "https://api.github.com/repos/o/n", True),
    ("https://api.octo.ghe.com", "https://uploads.octo.ghe.com/repos/o/n", True),
    ("https://ghes.example/api/v3", "https://GHES.example/api/uploads/repos", True),
    ("http://127.0.0.1:8000", "http://127.0.0.1:8000/api/uploads", True),
    ("https://api.github.com", "http://uploads.github.com/repos/o/n", False),
    ("https://api.github.com", "https://uploads.github.com.evil.example/", False),
    ("https://api.github.com", "https://api.github.com@evil.example/", False),
    ("https://api.github.com", "https://evil.example/api.github.com", False),
    ("https://ghes.example/api/v3", "https://uploads.ghes.example/", False),
    ("https://ghes.example/api/v3", "https://ghes.example:8443/", False),
]


@pytest.mark.parametrize(("api", "address", "ours"), HOSTS)
def test_the_token_goes_to_githubs_own_hosts_alone(api: str, address: str, ours: bool):
    """An address in a response cannot make us send the token elsewhere."""
    token = HostBoundToken(load({"GITHUB_API_URL": api, "GH_TOKEN": TOKEN}))
    request = requests.Request("POST", address, auth=token)
    if ours:
        assert request.prepare().headers["Authorization"] == f"Bearer {TOKEN}"
        return
    with pytest.raises(PipelineError, match="nowhere else"):
        request.prepare()
