"""The client of GitHub: what it sends again, how long it waits, what it says."""

from __future__ import annotations

import contextlib
import json
import logging
import socket
import ssl
import threading
import time
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import pytest
import requests
import trustme
from github.Repository import Repository
from hypothesis import given
from hypothesis import strategies as st

from tests.services.faults import Fault, already_exists, limited
from tests.services.github import GitHubServer, Token
from tools.core.errors import PipelineError
from tools.core.settings import load
from tools.github import client
from tools.github.client import HostBoundToken, connect
from tools.github.errors import GitHubError, refusals

TOKEN = "ghp_simulated0123456789"
REPOSITORY = "owner/name"
CREATE = "repos/create-release"

Open = Callable[..., Repository]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[GitHubServer]:
    with GitHubServer(tmp_path / "github") as running:
        running.add_token(TOKEN)
        running.add_repository(REPOSITORY, {"v1.0.0": "a" * 40})
        yield running
        assert running.errors == []


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long was waited for GitHub; nobody really waits, but the clock goes on."""
    seen: list[float] = []
    passed = types.SimpleNamespace(
        time=time.time, monotonic=lambda: time.monotonic() + sum(seen), sleep=seen.append
    )
    monkeypatch.setattr(client, "time", passed)
    return seen


@pytest.fixture
def open_repository(server: GitHubServer, waits: list[float], tmp_path: Path) -> Open:
    """Opens the repository with some environment; nothing is asked for that."""

    def opened(token: str = TOKEN, **env: str) -> Repository:
        settings = load({"GITHUB_API_URL": server.url, "GH_TOKEN": token, **env}, tmp_path)
        return connect(settings, between_writes=0, timeout=2).get_repo(REPOSITORY)

    return opened


def draft(repository: Repository, tag: str = "v1.0.0") -> None:
    with refusals("a draft"):
        repository.create_git_release(tag, tag, "", draft=True)


def releases(repository: Repository) -> int:
    with refusals("the releases"):
        return len(list(repository.get_releases()))


def test_enterprise_base_address(server: GitHubServer, open_repository: Open) -> None:
    """A base with a path (GitHub Enterprise Server) works."""
    repository = open_repository(GITHUB_API_URL=f"{server.url}/api/v3")
    draft(repository)
    assert releases(repository) == 1


@pytest.mark.parametrize(
    "fault",
    [
        Fault("status", status=500),
        Fault("status", status=502),
        Fault("status", status=408),
        Fault("reset-before"),
        Fault("reset-after"),
        Fault("stall-before"),
        limited(in_seconds=100),
        Fault("status", status=429),
        Fault("status", status=429, headers={"retry-after": "9"}),
    ],
    ids=lambda fault: f"{fault.action}-{fault.status}",
)
def test_passing_faults_are_tried_again(
    open_repository: Open, server: GitHubServer, waits: list[float], fault: Fault
) -> None:
    """A read survives every fault that passes."""
    server.faults.script.append(fault)
    assert releases(open_repository()) == 0
    assert server.faults.fired == [fault] and waits


@pytest.mark.parametrize(
    ("fault", "least"),
    [
        (Fault("status", status=503, headers={"retry-after": "7"}), 7),
        (Fault("status", status=403, headers={"retry-after": "60"}), 60),
        (None, 90),
        (Fault("status", status=429), 60),
        (
            Fault(
                "status", status=403,
                data={"message": "You have exceeded a secondary rate limit. Please wait"},
            ),
            60,
        ),
    ],
)  # fmt: skip
def test_waits_as_github_asks(
    open_repository: Open,
    server: GitHubServer,
    waits: list[float],
    fault: Fault | None,
    least: int,
) -> None:
    """Each kind of limit: at least as long as GitHub says, and not much longer."""
    server.faults.script.append(fault or limited(in_seconds=least + 1))
    releases(open_repository())
    assert least <= sum(waits) <= least + 15


@pytest.mark.parametrize(
    "fault",
    [Fault("reset-before"), Fault("reset-after"), Fault("stall-after"), Fault("status")],
    ids=lambda fault: fault.action,
)
def test_a_post_that_may_have_acted_is_not_repeated(
    open_repository: Open, server: GitHubServer, fault: Fault
) -> None:
    """Creating twice would leave two drafts: the caller learns that it is unknown."""
    fault.kind = CREATE
    server.faults.script.append(fault)
    with pytest.raises(GitHubError) as caught:
        draft(open_repository())
    assert caught.value.acted
    assert [entry["kind"] for entry in server.log] == [CREATE]


def test_a_post_is_repeated_after_a_limit(open_repository: Open, server: GitHubServer) -> None:
    """A limit means that GitHub did not act, so even a POST is sent again."""
    server.faults.script.append(limited(in_seconds=100))
    repository = open_repository()
    draft(repository)
    assert releases(repository) == 1


@pytest.mark.parametrize(
    "fault",
    [Fault("status", status=503, headers={"retry-after": "100"}, nth=0), limited(3600)],
    ids=["down for good", "a reset in an hour"],
)
def test_waiting_is_bounded(
    open_repository: Open, server: GitHubServer, waits: list[float], fault: Fault
) -> None:
    """All waits together stay within the limit, and the sentence names it."""
    server.faults.script.append(fault)
    with pytest.raises(GitHubError, match="over the limit of 300 s") as caught:
        releases(open_repository(GITHUB_TIME_LIMIT="300s"))
    assert "GITHUB_TIME_LIMIT" in caught.value.remedy
    assert sum(waits) <= 300


@given(st.lists(st.tuples(st.integers(0, 100), st.integers(0, 100)), max_size=20))
def test_waits_at_the_same_time_count_once(waits: list[tuple[int, int]]) -> None:
    """What is spent is the time in which somebody waited, however many did (uploads)."""
    budget, waited, now = client.Budget(5000), set[int](), 0
    clock = types.SimpleNamespace(monotonic=lambda: float(now))
    with mock.patch("tools.github.client.time", clock):
        for pause, seconds in waits:
            now += pause
            budget.take(seconds)
            waited |= set(range(now, now + seconds))
    assert budget.spent == len(waited)


def test_no_token(open_repository: Open) -> None:
    """Without a token the remedy is to set one."""
    with pytest.raises(GitHubError, match="none is set") as caught:
        draft(open_repository(token=""))
    assert caught.value.status == 401 and "GH_TOKEN" in caught.value.remedy


@pytest.mark.parametrize(
    ("token", "status", "words"),
    [
        (None, 401, "has expired, was revoked or is mistyped"),
        (Token(expires=1.0), 401, "has expired, was revoked or is mistyped"),
        (Token(scopes=("read:packages",)), 404, "scopes repo"),
        (Token(kind="fine-grained", permissions={"contents": "read"}), 403, "contents=write"),
        (
            Token(kind="installation", permissions={"contents": "read"}),
            403,
            "permissions: contents",
        ),
    ],
)
def test_what_a_token_lacks(
    server: GitHubServer, open_repository: Open, token: Token | None, status: int, words: str
) -> None:
    """A bad token, an expired one and each kind of missing right are told apart."""
    value = "ghp_another0123456789"
    if token:
        server.add_token(value, token)
    with pytest.raises(GitHubError) as caught:
        draft(open_repository(token=value))
    assert caught.value.status == status
    assert words in str(caught.value) and value not in str(caught.value)


def test_single_sign_on_is_named(open_repository: Open, server: GitHubServer) -> None:
    """An organization's single sign-on comes with the address to authorize at."""
    headers = {"X-GitHub-SSO": "required; url=https://github.com/orgs/o/sso?x=1"}
    server.faults.script.append(Fault("status", status=403, headers=headers))
    with pytest.raises(GitHubError, match="single sign-on") as caught:
        releases(open_repository())
    assert "https://github.com/orgs/o/sso?x=1" in caught.value.remedy


def test_validation_codes(open_repository: Open, server: GitHubServer) -> None:
    """A caller can tell ``already_exists`` from other validation errors."""
    server.faults.script.append(already_exists("Release", "tag_name"))
    with pytest.raises(GitHubError, match="Release tag_name already_exists") as caught:
        releases(open_repository())
    assert caught.value.codes == {"already_exists"}


def test_a_page_elsewhere_is_refused(open_repository: Open, server: GitHubServer) -> None:
    """A next page on another host does not get the token."""
    headers = {"link": '<https://evil.example/page>; rel="next"'}
    server.faults.script.append(Fault("status", status=200, data=[{"id": 1}], headers=headers))
    with pytest.raises(GitHubError, match="evil.example"):
        releases(open_repository())


def test_the_token_is_in_the_request_header_alone(
    open_repository: Open, server: GitHubServer, caplog: pytest.LogCaptureFixture
) -> None:
    """No log at any level and no exception, however deep, holds the token."""
    caplog.set_level(logging.DEBUG)
    repository = open_repository()
    draft(repository)
    for action in ("reset-before", "status", "stall-before", "half-answer"):
        server.faults.script[:] = [Fault(action, CREATE, nth=0, status=500)]
        with pytest.raises(GitHubError) as caught:
            draft(repository)
        error: BaseException | None = caught.value
        while error:
            assert TOKEN not in json.dumps([str(error), repr(error), str(vars(error))])
            error = error.__cause__ or (
                None if error.__suppress_context__ else error.__context__
            )
    assert caplog.records
    assert all(TOKEN not in str(vars(record)) for record in caplog.records)


def test_a_certificate_that_is_not_trusted(waits: list[float], tmp_path: Path) -> None:
    """It fails at once: waiting makes no certificate trusted."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def refuse() -> None:
            with contextlib.suppress(OSError):
                while True:
                    with contextlib.suppress(ssl.SSLError):
                        context.wrap_socket(listener.accept()[0], server_side=True).close()

        threading.Thread(target=refuse, daemon=True).start()
        address = f"https://127.0.0.1:{listener.getsockname()[1]}"
        settings = load({"GITHUB_API_URL": address, "GH_TOKEN": TOKEN}, tmp_path)
        with pytest.raises(GitHubError, match="(?i)certificate"):
            releases(connect(settings, timeout=2).get_repo(REPOSITORY))
    assert waits == []


def test_netrc_does_not_replace_the_token(
    open_repository: Open, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A login of ~/.netrc for the host would be refused."""
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login x password wrong\n")
    monkeypatch.setenv("NETRC", str(netrc))
    assert releases(open_repository()) == 0


@pytest.mark.parametrize(
    ("api", "address", "ours"),
    [
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
    ],
)
def test_the_token_goes_to_githubs_own_hosts_alone(
    api: str, address: str, ours: bool, tmp_path: Path
) -> None:
    """An address in a response cannot make us send the token elsewhere."""
    token = HostBoundToken(load({"GITHUB_API_URL": api, "GH_TOKEN": TOKEN}, tmp_path))
    request = requests.Request("POST", address, auth=token)
    with (
        contextlib.nullcontext() if ours else pytest.raises(PipelineError, match="nowhere else")
    ):
        assert request.prepare().headers["Authorization"] == f"Bearer {TOKEN}"
