"""The one place that talks to the GitHub API: auth, retries, limits, paging.

Requests go through PyGithub's requester (authentication, masked logging, streamed
uploads); what to do about a failure is decided here, because it depends on whether a
request may safely be sent twice. A client may be used by several threads.

The rules are in :mod:`tools.github.rules`, what refusals mean in
:mod:`tools.github.errors`.
"""

from __future__ import annotations

import contextlib
import re
import threading
import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from typing import Any, BinaryIO, cast

import requests
from github import Auth, GithubException
from github.Requester import (
    HTTPRequestsConnectionClass,
    HTTPSRequestsConnectionClass,
    Requester,
)

from tools.core.console import say
from tools.core.errors import PipelineError
from tools.core.secrets import Secret, redact
from tools.core.settings import Settings
from tools.github.errors import GitHubError, is_limit, message_of, refusal
from tools.github.rules import (
    Clock,
    Patience,
    Response,
    backoff,
    next_page,
    pages_by_number,
    parse_body,
    upload_host_allowed,
    wait_of,
)

__all__ = ["Clock", "GitHub", "Response", "PER_PAGE", "backoff"]

API_VERSION = "2022-11-28"
USER_AGENT = "mlc-llm-pipeline"
UPLOAD_BLOCK = 1 << 18  # bytes that are read and sent at once
PER_PAGE = 100  # the most that GitHub gives

Connection = HTTPRequestsConnectionClass | HTTPSRequestsConnectionClass


class GitHub:
    """A client of one GitHub, for one command.

    Args:
        api_url: Base address of the REST API.
        token: The token; an empty one makes anonymous requests.
        time_limit: Seconds that all retrying may take together.
        verify: Certificate bundle, or True for the usual ones.
        timeout: Seconds without a sign of life after which a request has failed.
        clock: Time and chance.
    """

    def __init__(
        self,
        api_url: str,
        token: Secret,
        *,
        time_limit: float = 900.0,
        verify: bool | str = True,
        timeout: float = 30.0,
        clock: Clock | None = None,
    ) -> None:
        self.api_url = api_url.rstrip("/")
        self.clock = clock or Clock()
        self.stop = threading.Event()
        self._token = token
        self._verify = verify
        self._timeout = timeout
        self._time_limit = time_limit
        self._patience = Patience(time_limit, self.clock)
        # PyGithub's connections keep the request in themselves: one set a thread.
        self._local = threading.local()
        self._lock = threading.Lock()
        self._opened: list[Requester | Connection] = []
        self._not_before = 0.0  # monotonic; a limit holds for all threads

    @classmethod
    def from_settings(cls, settings: Settings, clock: Clock | None = None) -> GitHub:
        """A client as the settings say."""
        return cls(
            settings.github_api_url,
            settings.gh_token,
            time_limit=settings.github_time_limit,
            verify=str(settings.ca_path) if settings.ca_path else True,
            clock=clock,
        )

    def __enter__(self) -> GitHub:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections; threads that wait for another try give up."""
        self.stop.set()
        with self._lock:
            for opened in self._opened:
                opened.close()
            self._opened.clear()

    @property
    def has_token(self) -> bool:
        """Whether requests bear a token."""
        return bool(self._token)

    # --- requests ---------------------------------------------------------------

    def request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, Any] | None = None,
        json: Any = None,
        headers: Mapping[str, str] | None = None,
        repeat: bool | None = None,
    ) -> Response:
        """Send a JSON request, and again where that may help.

        Args:
            method: HTTP method.
            path: Path below the API's base (``/repos/...``), or a full address of it.
            params: Query.
            json: Body; None for none.
            headers: Further headers.
            repeat: Whether it may be sent again although GitHub may have acted on it
                (no answer, 5xx). None: all but POST. Limits are always waited out.

        Returns:
            The answer, status below 300.

        Raises:
            GitHubError: It was refused, or time ran out; ``acted`` tells whether GitHub
                may have carried it out.
        """
        where = self._absolute(path)
        given = {"Accept": "application/vnd.github+json", "X-GitHub-Api-Version": API_VERSION}
        given.update(headers or {})

        def send() -> Response:
            # The requester adds the token to the dictionary that it gets: never ours.
            query = dict(params or {})
            status, received, text = self._requester().requestJson(
                method, where, query, dict(given), json
            )
            return Response(status, received, parse_body(text))

        return self._insist(send, method, where, method != "POST" if repeat is None else repeat)

    def pages(self, path: str, params: Mapping[str, Any] | None = None) -> Iterator[Response]:
        """Every page of a list, following ``Link`` headers, 100 items a page.

        Raises:
            GitHubError: A page was refused, or points outside of the API.
        """
        given = {"per_page": PER_PAGE, **(params or {})}
        answer = self.request("GET", path, params=given)
        yield answer
        if "link" not in answer.headers:
            yield from pages_by_number(
                answer,
                given["per_page"],
                lambda number: self.request("GET", path, params={**given, "page": number}),
            )
        while following := next_page(answer.headers.get("link", "")):
            answer = self.request("GET", following)
            yield answer

    def get_pages(self, path: str, params: Mapping[str, Any] | None = None) -> Iterator[Any]:
        """Every item of a list, over all of its pages."""
        for page in self.pages(path, params):
            yield from page.data

    def upload(
        self,
        address: str,
        params: Mapping[str, str],
        body: BinaryIO,
        size: int,
        content_type: str,
    ) -> Response:
        """Send a file as it is read, once: whether to try again is the caller's choice.

        Args:
            address: The upload address that GitHub named, without its ``{...}``.
            params: Query (``name``, ``label``).
            body: Source of the bytes.
            size: Number of bytes.
            content_type: Media type.

        Raises:
            GitHubError: It was refused or broke off. After a limit, the next request of
                any thread waits as long as GitHub asks.
        """
        if not upload_host_allowed(self.api_url, address):
            raise GitHubError(
                f"GitHub names {address} for uploads, which does not belong to {self.api_url}.",
                "Check GITHUB_API_URL; the token is sent nowhere else.",
            )
        path = urllib.parse.urlparse(address).path
        given = {
            "Content-Type": content_type,
            "Content-Length": str(size),
            "Accept": "application/vnd.github+json",
            "X-GitHub-Api-Version": API_VERSION,
        }

        def send() -> Response:
            try:
                received, data = self._requester().requestMemoryBlobAndCheck(
                    "POST", address, dict(params), given, body, cnx=self._connection(address)
                )
            except GithubException as error:
                return Response(error.status, _lower(error.headers), error.data)
            return Response(201, received, data)

        self._hold()
        answer = self._attempt(send, "POST", path)
        if isinstance(answer, GitHubError):
            raise answer
        if answer.status < 300:
            return answer
        error, wait = self._judge(answer, "POST", path, 0)
        if error.limited:
            self._pause(wait or 0.0, error)
        raise error

    def download(self, path: str, chunk: int = 1 << 20) -> Iterator[bytes]:
        """The bytes of a release asset, piece by piece; the token stays with the API.

        Raises:
            GitHubError: It was refused or broke off.
        """
        where = self._absolute(path)
        headers = {"Accept": "application/octet-stream", "User-Agent": USER_AGENT}
        if self._token:
            headers["Authorization"] = f"Bearer {self._token.reveal()}"
        try:
            with requests.Session() as session:
                session.verify = self._verify
                session.auth = Requester.noopAuth  # else .netrc would replace the token
                # Redirects lead to a storage host; requests drops the token there.
                with session.get(
                    where, headers=headers, stream=True, timeout=self._timeout
                ) as answer:
                    if answer.status_code >= 300:
                        found = _lower(dict(answer.headers))
                        status, data = answer.status_code, parse_body(answer.text)
                        raise refusal(status, f"GET {where}", found, data)
                    yield from answer.iter_content(chunk)
        except requests.RequestException as error:
            raise self._no_answer("GET", where, error) from None

    # --- retrying ---------------------------------------------------------------

    def retry(self, attempt: int, why: GitHubError) -> bool:
        """Wait before a caller's own next try; False when the time is used up.

        For requests that cannot just be sent again (uploads): the caller looks at what
        GitHub has, then tries.
        """
        wait = backoff(attempt, self.clock.uniform)
        if wait > self._patience.left():
            return False
        with self.trouble():
            self._wait(wait, why)
        return True

    @contextlib.contextmanager
    def trouble(self) -> Iterator[None]:
        """Count the time inside as time spent on retrying."""
        self._patience.start()
        try:
            yield
        finally:
            self._patience.end()

    def _insist(
        self, send: Callable[[], Response], method: str, where: str, repeat: bool
    ) -> Response:
        """Send until there is an answer that counts, or the time is used up."""
        path = urllib.parse.urlparse(where).path
        with contextlib.ExitStack() as stack:
            attempt = 0
            while True:
                self._hold()
                answer = self._attempt(send, method, path)
                if isinstance(answer, Response) and answer.status < 300:
                    return answer
                error, wait = self._judge(answer, method, path, attempt)
                # A limit was no attempt to act: such a request may always be repeated.
                if wait is None or (error.acted and not repeat):
                    raise error
                if attempt == 0:
                    stack.enter_context(self.trouble())
                if error.limited:
                    self._pause(wait, error)
                else:
                    self._wait(wait, error)
                attempt += 1

    def _judge(
        self, answer: Response | GitHubError, method: str, path: str, attempt: int
    ) -> tuple[GitHubError, float | None]:
        """The error that a failure means, and how long to wait if it may pass."""
        if isinstance(answer, GitHubError):
            return answer, backoff(attempt, self.clock.uniform)
        data = answer.data
        wait = wait_of(answer, attempt, self.clock)
        if wait is None or not is_limit(answer.status, answer.headers, data):
            error = refusal(answer.status, f"{method} {path}", answer.headers, data)
            return error, wait
        error = GitHubError(
            f"{method} {path} failed with {answer.status}: GitHub's rate limit is used up"
            f" ({message_of(data) or 'no message'}); it asks to wait {wait:.0f} s.",
            "Wait and run it again, or raise GITHUB_TIME_LIMIT.",
            status=answer.status,
            said=message_of(data),
            limited=True,
        )
        return error, wait

    def _attempt(
        self, send: Callable[[], Response], method: str, path: str
    ) -> Response | GitHubError:
        """One try: the answer, or the error that stands for none."""
        try:
            return send()
        except (requests.RequestException, OSError, ValueError) as error:
            # ValueError: half a JSON document. The original is not chained, because
            # it holds the request, and so the token.
            return self._no_answer(method, path, error)

    def _no_answer(self, method: str, where: str, error: Exception) -> GitHubError:
        path = urllib.parse.urlparse(where).path
        reason = _reason(error)
        return GitHubError(
            f"{method} {path} got no answer from {self.api_url}: {redact(reason)}.",
            "Check the network and githubstatus.com, then run it again.",
        )

    def _hold(self) -> None:
        """Wait while a limit holds that this or another thread has run into."""
        with self._lock:
            wait = self._not_before - self.clock.monotonic()
        if wait > 0:
            with self.trouble():
                self.clock.wait(self.stop, wait)
        if self.stop.is_set():
            raise PipelineError("The work was given up.")

    def _pause(self, seconds: float, why: GitHubError) -> None:
        """Hold back all threads, as a limit asks; raise if that would take too long."""
        self._check_time(seconds, why)
        if seconds >= 5:
            say(f"waiting {seconds:.0f} s for GitHub: {why.message}")
        with self._lock:
            self._not_before = max(self._not_before, self.clock.monotonic() + seconds)

    def _wait(self, seconds: float, why: GitHubError) -> None:
        self._check_time(seconds, why)
        if seconds >= 5:
            say(f"trying again in {seconds:.0f} s: {why.message}")
        self.clock.wait(self.stop, seconds)
        if self.stop.is_set():
            raise PipelineError("The work was given up.")

    def _check_time(self, seconds: float, why: GitHubError) -> None:
        if seconds > self._patience.left():
            why.message += f" Gave up after {self._time_limit:.0f} s (GITHUB_TIME_LIMIT)."
            why.limited = False  # another try is no use
            raise why

    # --- connections ------------------------------------------------------------

    def _absolute(self, path: str) -> str:
        if path.startswith("/"):
            return self.api_url + path
        ours, theirs = urllib.parse.urlparse(self.api_url), urllib.parse.urlparse(path)
        if (ours.scheme, ours.netloc) != (theirs.scheme, theirs.netloc):
            raise GitHubError(
                f"An answer points to {theirs.netloc}, which is not {ours.netloc}.",
                "Check GITHUB_API_URL; the token is sent nowhere else.",
            )
        return path

    def _requester(self) -> Requester:
        """This thread's requester; it retries nothing and keeps no pauses of its own."""
        if not hasattr(self._local, "requester"):
            made = Requester(
                auth=Auth.Token(self._token.reveal()) if self._token else None,
                base_url=self.api_url,
                timeout=cast(int, self._timeout),  # requests takes fractions too
                user_agent=USER_AGENT,
                per_page=PER_PAGE,
                verify=self._verify,
                retry=0,
                pool_size=1,
            )
            self._local.requester = made
            self._local.connections = {}
            with self._lock:
                self._opened.append(made)
        return cast(Requester, self._local.requester)

    def _connection(self, address: str) -> Connection:
        """This thread's connection to an upload host.

        PyGithub opens a new one for each upload, without our timeout and certificates.
        """
        self._requester()
        at = urllib.parse.urlparse(address)
        connections: dict[str, Connection] = self._local.connections
        if at.netloc not in connections:
            kind = HTTPSRequestsConnectionClass if at.scheme == "https" else None
            made = (kind or HTTPRequestsConnectionClass)(
                at.hostname or "",
                at.port,
                retry=0,
                pool_size=1,
                timeout=cast(int, self._timeout * 4),
                verify=self._verify,
            )
            # urllib3 reads 16 kB at a time, which keeps a processor busy with TLS records.
            made.adapter.init_poolmanager(1, 1, blocksize=UPLOAD_BLOCK)
            connections[at.netloc] = made
            with self._lock:
                self._opened.append(made)
        return connections[at.netloc]


def _reason(error: Exception) -> str:
    """Why there was no answer, without the addresses of objects that requests wraps it in."""
    inner = error.args[0] if error.args and isinstance(error.args[0], Exception) else error
    cause = getattr(inner, "reason", None) or inner
    text = re.sub(r"^<?HTTPS?Connection\w*[^:]*?>?: ", "", str(cause))
    return text.rstrip(".") or type(error).__name__


def _lower(headers: Mapping[str, Any] | None) -> dict[str, str]:
    return {key.lower(): str(value) for key, value in (headers or {}).items()}
