"""The one way to GitHub: PyGithub's own object, with what all commands need of it.

PyGithub keeps the token from other hosts and from ``.netrc``, pages through lists and waits
for rate limits; its calls belong into :func:`tools.github.errors.refusals`.
"""

import re
import threading
import time
from dataclasses import dataclass, field
from typing import Any, Self
from urllib.parse import urlsplit

import requests
from github import Auth, Github
from github.GithubRetry import GithubRetry
from urllib3 import BaseHTTPResponse

from tools.core import console
from tools.core.errors import PipelineError
from tools.core.http import USER_AGENT
from tools.core.settings import Settings
from tools.github.errors import GitHubError

PER_PAGE = 100  # the most that GitHub gives
# What GitHub asks to wait at least after a limit that names no time ("Rate limits for the
# REST API", "Exceeding the rate limit").
LIMIT_WAIT = 60.0


@dataclass
class Budget:
    """Seconds that a command may spend waiting for GitHub, all requests together; threads
    that wait at the same time spend them once.
    """

    limit: float
    spent: float = 0.0
    until: float = 0.0  # when the last wait ends, by the monotonic clock
    lock: threading.Lock = field(default_factory=threading.Lock)

    def take(self, seconds: float) -> float:
        """Spend some from now on; how many nobody waits for yet (GitHubError: too many)."""
        with self.lock:
            now = time.monotonic()
            more = max(0.0, now + seconds - max(now, self.until))
            if self.spent + more > self.limit:
                error = GitHubError(
                    f"GitHub asks to wait {seconds:.0f} s more, over the limit of "
                    f"{self.limit:.0f} s.",
                    "Run it again later, or raise GITHUB_TIME_LIMIT.",
                )
                error.limited = True
                raise error
            self.spent += more
            self.until = max(self.until, now + seconds)
        return more


class Policy(GithubRetry):
    """What is tried again: rate limits always; 5xx and broken connections unless a POST,
    which GitHub may have carried out (a second draft would be made).
    """

    def __init__(self, budget: Budget, **kwargs: Any) -> None:
        self.budget = budget
        super().__init__(**kwargs)

    def new(self, **kwargs: Any) -> Self:
        """A copy with other counts; the budget is the same."""
        return super().new(budget=self.budget, **kwargs)

    def is_retry(self, method: str, status_code: int, has_retry_after: bool = False) -> bool:
        """Whether a response is worth another try (403: PyGithub looks at its words)."""
        if method == "POST":
            return bool(self.total) and status_code in (403, 429)
        return super().is_retry(method, status_code, has_retry_after)

    def sleep(self, response: BaseHTTPResponse | None = None) -> None:
        """Wait as long as GitHub asks, else longer each time."""
        seconds = self.get_backoff_time()
        if response is not None:
            least = LIMIT_WAIT if response.status == 429 else 0.0
            seconds = max(seconds, self.get_retry_after(response) or least)
        if self.budget.take(seconds) >= 5:  # one of all threads says it
            console.say(f"waiting {seconds:.0f} s for GitHub")
        time.sleep(seconds)


def policy(settings: Settings, attempts: int = 12) -> Policy:
    """What is tried again, and how often, within ``GITHUB_TIME_LIMIT``."""
    return Policy(
        Budget(settings.github_time_limit),
        total=attempts,
        other=0,  # certificates that are not trusted
        backoff_factor=0.5,
        backoff_jitter=0.5,
        status_forcelist=[408, 429, *range(500, 600)],
        allowed_methods={"GET", "HEAD", "PATCH", "PUT", "DELETE"},
        raise_on_status=False,
        secondary_rate_wait=LIMIT_WAIT,
    )


def connect(
    settings: Settings,
    between_writes: float = 1.0,  # seconds: GitHub allows 180 deletes a minute
    retry: Policy | None = None,  # policy(settings) if not set
    timeout: int = 30,  # seconds without a sign of life
) -> Github:
    """GitHub as the settings name it, with their token (anonymous without one)."""
    return Github(
        auth=Auth.Token(settings.gh_token.reveal()) if settings.gh_token else None,
        base_url=settings.github_api_url,
        user_agent=USER_AGENT,
        timeout=timeout,
        verify=settings.ca_certificates or True,
        per_page=PER_PAGE,
        retry=retry or policy(settings),
        seconds_between_requests=0,
        seconds_between_writes=between_writes,
        lazy=True,  # nothing is asked before it is needed
    )


class HostBoundToken(requests.auth.AuthBase):
    """The token for requests without PyGithub, to GitHub's own hosts alone: the API's (GitHub
    Enterprise Server uploads there too) and, beside an ``api.`` one (github.com, ghe.com),
    its sibling ``uploads.``; over the same scheme and port.
    """

    def __init__(self, settings: Settings) -> None:
        self._api, self._token = settings.github_api_url, settings.gh_token

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        """Add the token (PipelineError if a response named another host's address)."""
        ours, theirs = urlsplit(self._api), urlsplit(request.url or "")
        host = ours.netloc.lower()
        own = {host, re.sub(r"^api\.", "uploads.", host)}
        if theirs.scheme != ours.scheme or theirs.netloc.lower() not in own:
            raise PipelineError(
                f"GitHub names {theirs.netloc}, which does not belong to {self._api}.",
                "Check GITHUB_API_URL; the token is sent nowhere else.",
            )
        request.headers["Authorization"] = f"Bearer {self._token.reveal()}"
        return request
