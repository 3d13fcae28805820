"""The GitHub client: what it sends again, how long it waits, what it says."""

from __future__ import annotations

import io
import json
import logging
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.services.faults import Fault, already_exists, limited
from tests.services.github import GitHubServer, Token
from tools.core.secrets import Secret
from tools.github.errors import GitHubError, is_limit
from tools.github.old import Clock, GitHub, Response, backoff
from tools.github.rules import next_page, upload_host_allowed, wait_of

TOKEN = "ghp_simulated0123456789"
REPOSITORY = "owner/name"
RELEASES = f"/repos/{REPOSITORY}/releases"


class FakeTime:
    """A clock that passes only when somebody waits for it."""

    def __init__(self) -> None:
        self.time = 1_800_000_000.0
        self.waits: list[float] = []
        self._lock = threading.Lock()

    def clock(self, uniform: Callable[[float, float], float] = lambda low, high: high) -> Clock:
        return Clock(lambda: self.time, lambda: self.time, self.wait, uniform)

    def wait(self, event: threading.Event, seconds: float) -> bool:
        with self._lock:
            self.waits.append(seconds)
            self.time += seconds
        return event.is_set()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[GitHubServer]:
    with GitHubServer(tmp_path / "github") as running:
        running.add_token(TOKEN)
        running.add_repository(REPOSITORY, {"v1.0.0": "a" * 40})
        yield running
        assert running.errors == []


@pytest.fixture
def fake() -> FakeTime:
    return FakeTime()


@pytest.fixture
def client(server: GitHubServer, fake: FakeTime) -> Iterator[GitHub]:
    with GitHub(server.url, Secret(TOKEN), timeout=2.0, clock=fake.clock()) as made:
        yield made


def draft(client: GitHub, tag: str = "v1.0.0") -> dict[str, Any]:
    given = {"tag_name": tag, "name": tag, "draft": True}
    return dict(client.request("POST", RELEASES, json=given).data)


def put(client: GitHub, release: dict[str, Any], name: str, content: bytes) -> Response:
    address = release["upload_url"].split("{")[0]
    params = {"name": name}
    return client.upload(address, params, io.BytesIO(content), len(content), "text/plain")


# --- pure rules ---------------------------------------------------------------


@given(st.integers(0, 10_000))
def test_backoff_grows_to_a_minute(attempt: int) -> None:
    """Full jitter: anything from 0 up to a bound that doubles, and never over 60 s."""
    assert backoff(attempt, lambda low, high: low) == 0
    assert backoff(attempt, lambda low, high: high) == min(60.0, 2.0 ** min(attempt, 30))


LATER = "Wed, 21 Oct 2026 07:28:30 GMT"
NOW = "Wed, 21 Oct 2026 07:28:00 GMT"
EPOCH = 1792567680  # NOW


@pytest.mark.parametrize(
    ("status", "headers", "message", "wait"),
    [
        (500, {}, "", 0.0),
        (503, {"retry-after": "7"}, "", 7.0),
        (503, {"retry-after": LATER, "date": NOW}, "", 30.0),
        (408, {}, "", 0.0),
        (429, {}, "", 60.0),
        (429, {"retry-after": "3"}, "", 3.0),
        (403, {"retry-after": "60"}, "", 60.0),
        (403, {"x-ratelimit-remaining": "0", "x-ratelimit-reset": str(EPOCH + 90)}, "", 91.0),
        (403, {"x-ratelimit-remaining": "0", "x-ratelimit-reset": str(EPOCH - 90)}, "", 1.0),
        (403, {}, "You have exceeded a secondary rate limit. Please wait", 60.0),
        (403, {"x-ratelimit-remaining": "12"}, "Resource not accessible", None),
        (401, {}, "Bad credentials", None),
        (404, {}, "Not Found", None),
        (422, {}, "Validation Failed", None),
    ],
)
def test_waits_as_github_asks(
    status: int, headers: dict[str, str], message: str, wait: float | None
) -> None:
    """Each kind of refusal: how long to wait, or that waiting is no use."""
    # Our own clock is an hour wrong: GitHub's Date header counts.
    clock = Clock(now=lambda: EPOCH + 3600.0, uniform=lambda low, high: low)
    answer = Response(status, {"date": NOW, **headers}, {"message": message})
    assert wait_of(answer, 0, clock) == wait


def test_secondary_limit_without_a_time_waits_longer_each_time() -> None:
    """GitHub asks for exponentially more when a secondary limit goes on."""
    clock = Clock(uniform=lambda low, high: low)
    waits = [wait_of(Response(429, {}), attempt, clock) for attempt in range(4)]
    assert waits == [60.0, 120.0, 240.0, 480.0]


def test_permission_is_no_limit() -> None:
    """A 403 for a missing permission is not waited for."""
    assert not is_limit(403, {"x-ratelimit-remaining": "4999"}, {"message": "Forbidden"})


@pytest.mark.parametrize(
    ("link", "following"),
    [
        ("", None),
        (
            '<https://a/x?page=2>; rel="next", <https://a/x?page=9>; rel="last"',
            "https://a/x?page=2",
        ),
        (
            '<https://a/x?page=1>; rel="prev", <https://a/x?page=3>; rel=next',
            "https://a/x?page=3",
        ),
        ('<https://a/x?page=1>; rel="first", <https://a/x?page=1>; rel="prev"', None),
    ],
)
def test_next_page(link: str, following: str | None) -> None:
    """Paging follows the ``next`` relation wherever it stands in the header."""
    assert next_page(link) == following


@pytest.mark.parametrize(
    ("api", "upload", "allowed"),
    [
        ("https://api.github.com", "https://uploads.github.com/repos/o/n", True),
        ("https://api.octo.ghe.com", "https://uploads.octo.ghe.com/repos/o/n", True),
        ("https://ghes.example/api/v3", "https://ghes.example/api/uploads/repos", True),
        ("http://127.0.0.1:8000", "http://127.0.0.1:8000/api/uploads", True),
        ("https://api.github.com", "http://uploads.github.com/repos/o/n", False),
        ("https://api.github.com", "https://uploads.github.com.evil.example/", False),
        ("https://api.github.com", "https://evil.example/", False),
        ("https://ghes.example/api/v3", "https://ghes.example:8443/", False),
    ],
)
def test_token_goes_to_githubs_own_upload_host_alone(
    api: str, upload: str, allowed: bool
) -> None:
    """An upload address in an answer cannot make us send the token elsewhere."""
    assert upload_host_allowed(api, upload) is allowed


# --- requests -----------------------------------------------------------------


@pytest.mark.parametrize("links", [True, False])
def test_pages_are_all_read(client: GitHub, server: GitHubServer, links: bool) -> None:
    """A list longer than a page is read to its end, each item once; also where a proxy has
    taken away the header that names the next one.
    """
    server.links = links
    release = draft(client)
    for number in range(205):
        put(client, release, f"file-{number}", b"x")
    names = [a["name"] for a in client.get_pages(f"{RELEASES}/{release['id']}/assets")]
    assert names == [f"file-{number}" for number in range(205)]
    assert [e["kind"] for e in server.log].count("repos/list-release-assets") == 3


def test_a_server_without_pages_is_read_once(
    client: GitHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that gives the same full page for any number does not hold us for ever."""
    asked = []

    def request(method: str, path: str, params: dict[str, Any]) -> Response:
        asked.append(params.get("page", 1))
        return Response(200, {}, [{"id": 1}, {"id": 2}])

    monkeypatch.setattr(client, "request", request)
    assert list(client.get_pages("/x", {"per_page": 2})) == [{"id": 1}, {"id": 2}]
    assert asked == [1, 2]


def test_enterprise_base_address(server: GitHubServer, fake: FakeTime) -> None:
    """A base with a path (GitHub Enterprise Server) works, paging and uploads included."""
    with GitHub(f"{server.url}/api/v3", Secret(TOKEN), clock=fake.clock()) as client:
        release = draft(client)
        put(client, release, "a", b"content")
        put(client, release, "b", b"content")
        path = f"{RELEASES}/{release['id']}/assets"
        assert len(list(client.get_pages(path, {"per_page": 1}))) == 2


@pytest.mark.parametrize(
    "fault",
    [
        Fault("status", status=500),
        Fault("status", status=502),
        Fault("reset-before"),
        Fault("reset-after"),
        Fault("stall-before"),
        Fault("half-answer"),
        limited(in_seconds=100),
        Fault("status", status=429, headers={"retry-after": "9"}),
    ],
    ids=lambda fault: f"{fault.action}-{fault.status}",
)
def test_passing_faults_are_tried_again(
    client: GitHub, server: GitHubServer, fake: FakeTime, fault: Fault
) -> None:
    """A read survives every fault that passes, after a wait."""
    server.faults.script.append(fault)
    assert client.request("GET", RELEASES).data == []
    assert server.faults.fired == [fault]
    assert fake.waits


@pytest.mark.parametrize("action", ["reset-after", "reset-before", "stall-after"])
def test_a_post_without_an_answer_is_not_repeated(
    client: GitHub, server: GitHubServer, action: str
) -> None:
    """Creating twice would leave two drafts: the caller learns that it is unknown."""
    server.faults.script.append(Fault(action, "repos/create-release"))
    with pytest.raises(GitHubError) as caught:
        draft(client)
    assert caught.value.acted
    assert [e["kind"] for e in server.log] == ["repos/create-release"]


def test_a_post_is_repeated_after_a_limit(client: GitHub, server: GitHubServer) -> None:
    """A limit means that GitHub did not act, so even a POST is sent again."""
    server.faults.script.append(limited(in_seconds=100))
    draft(client)
    assert len(client.request("GET", RELEASES).data) == 1


def test_time_is_bounded(server: GitHubServer, fake: FakeTime) -> None:
    """With GitHub down for good, trying ends within the limit, and says so."""
    server.faults.script.append(Fault("status", status=503, nth=0))
    with GitHub(server.url, Secret(TOKEN), time_limit=300, clock=fake.clock()) as client:
        with pytest.raises(GitHubError, match="Gave up after 300 s"):
            client.request("GET", RELEASES)
    assert 200 < sum(fake.waits) <= 300


def test_a_limit_longer_than_the_time_is_not_waited_for(
    server: GitHubServer, fake: FakeTime
) -> None:
    """A reset an hour away fails at once instead of after the whole time limit."""
    server.faults.script.append(limited(in_seconds=3600))
    with GitHub(server.url, Secret(TOKEN), time_limit=60, clock=fake.clock()) as client:
        with pytest.raises(GitHubError, match="rate limit is used up") as caught:
            client.request("GET", RELEASES)
    assert not caught.value.limited
    assert fake.waits == []


def test_good_time_does_not_count(server: GitHubServer, fake: FakeTime) -> None:
    """The bound is on trouble: a long run of good requests leaves it untouched."""
    with GitHub(server.url, Secret(TOKEN), time_limit=10, clock=fake.clock()) as client:
        for number in range(1, 6):
            server.faults.script.append(Fault("status", nth=3 * number))
        for _ in range(12):
            fake.time += 100
            client.request("GET", RELEASES)
    assert len(server.faults.fired) == 5


def test_a_limit_holds_back_all_threads(server: GitHubServer) -> None:
    """While one thread waits for a limit, the others send nothing."""
    fake = FakeTime()
    server.faults.script.append(Fault("status", status=429, headers={"retry-after": "30"}))
    with GitHub(server.url, Secret(TOKEN), clock=fake.clock()) as client:
        client.request("GET", RELEASES)
        before = fake.time
        client._pause(30, GitHubError("limited"))
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda _: client.request("GET", RELEASES), range(4)))
    assert fake.time >= before + 30


def test_many_threads_at_once(client: GitHub, server: GitHubServer) -> None:
    """Requests of several threads are never mixed up."""
    release = draft(client)

    def work(number: int) -> tuple[str, int]:
        done = put(client, release, f"file-{number}", b"x" * (number + 1))
        found = client.request("GET", f"{RELEASES}/assets/{done.data['id']}").data
        return found["name"], found["size"]

    with ThreadPoolExecutor(8) as pool:
        done = list(pool.map(work, range(60)))
    assert done == [(f"file-{number}", number + 1) for number in range(60)]


# --- refusals -----------------------------------------------------------------


def test_no_token(server: GitHubServer) -> None:
    """Without a token the remedy is to set one."""
    with GitHub(server.url, Secret()) as client, pytest.raises(GitHubError) as caught:
        draft(client)
    assert caught.value.status == 401
    assert "none is set" in caught.value.message and "GH_TOKEN" in caught.value.remedy


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
    server: GitHubServer, token: Token | None, status: int, words: str
) -> None:
    """A bad token, an expired one and each kind of missing right are told apart."""
    value = "ghp_another0123456789"
    if token:
        server.add_token(value, token)
    with GitHub(server.url, Secret(value)) as client, pytest.raises(GitHubError) as caught:
        draft(client)
    assert caught.value.status == status
    assert words in str(caught.value)
    assert value not in str(caught.value)


def test_single_sign_on_is_named(client: GitHub, server: GitHubServer) -> None:
    """An organization's single sign-on comes with the address to authorize at."""
    headers = {"X-GitHub-SSO": "required; url=https://github.com/orgs/o/sso?x=1"}
    server.faults.script.append(Fault("status", status=403, headers=headers))
    with pytest.raises(GitHubError, match="single sign-on") as caught:
        client.request("GET", RELEASES)
    assert "https://github.com/orgs/o/sso?x=1" in caught.value.remedy


def test_validation_codes(client: GitHub, server: GitHubServer) -> None:
    """A caller can tell ``already_exists`` from other validation errors."""
    server.faults.script.append(already_exists("Release", "tag_name"))
    with pytest.raises(GitHubError) as caught:
        client.request("GET", RELEASES)
    assert caught.value.codes == {"already_exists"}
    assert "Release tag_name already_exists" in caught.value.message


def test_upload_is_sent_once(client: GitHub, server: GitHubServer) -> None:
    """A broken upload is not blindly repeated: it would meet its own remains."""
    release = draft(client)
    server.faults.script.append(Fault("half-read", "repos/upload-release-asset"))
    with pytest.raises(GitHubError) as caught:
        put(client, release, "a.whl", b"x" * 3_000_000)
    assert caught.value.acted
    (asset,) = client.get_pages(f"{RELEASES}/{release['id']}/assets")
    assert (asset["state"], asset["size"]) == ("starter", 0)


def test_foreign_page_is_refused(client: GitHub) -> None:
    """A next page on another host does not get the token."""
    with pytest.raises(GitHubError, match="points to evil.example"):
        client.request("GET", "https://evil.example/page")


def test_download_streams_and_keeps_the_token_at_home(
    client: GitHub, server: GitHubServer
) -> None:
    """The storage host that an asset redirects to never sees the token."""
    release = draft(client)
    asset = put(client, release, "a.whl", b"0123456789" * 300_000).data
    pieces = list(client.download(f"{RELEASES}/assets/{asset['id']}", chunk=1 << 20))
    assert b"".join(pieces) == b"0123456789" * 300_000
    assert len(pieces) == 3
    assert server.leaks == []


# --- the token ----------------------------------------------------------------


def test_token_is_in_the_request_header_alone(
    client: GitHub, server: GitHubServer, caplog: pytest.LogCaptureFixture
) -> None:
    """No log at any level and no exception, however deep, holds the token."""
    caplog.set_level(logging.DEBUG)
    release = draft(client)
    put(client, release, "a.whl", b"x")
    for action in ("reset-before", "status", "stall-before", "half-answer"):
        server.faults.script.append(Fault(action, "repos/create-release", nth=0, status=500))
        with pytest.raises(GitHubError) as caught:
            draft(client)
        server.faults.script.clear()
        seen: list[BaseException] = []
        error: BaseException | None = caught.value
        while error and error not in seen:
            seen.append(error)
            assert TOKEN not in json.dumps([str(error), repr(error), str(vars(error))])
            assert not hasattr(error, "request")
            error = error.__cause__ or (
                None if error.__suppress_context__ else error.__context__
            )
    assert caplog.records
    assert TOKEN not in caplog.text
    assert all(TOKEN not in str(vars(record)) for record in caplog.records)
