"""GitHub's refusals as errors that a person can act on (pure).

Source: GitHub REST API documentation, "Troubleshooting the REST API", "Rate limits for
the REST API" and "Permissions required for fine-grained personal access tokens".
"""

import contextlib
from collections.abc import Iterator, Mapping

import requests
import urllib3
from github import GithubException
from github.Requester import Requester

from tools.core import http
from tools.core.errors import PipelineError
from tools.core.failures import Failure, explain
from tools.core.secrets import redact


class GitHubError(PipelineError):
    """GitHub refused a request, or could not be reached."""

    status = 0  # HTTP; 0 when there was no response
    said = ""  # GitHub's own message
    codes: frozenset[str] = frozenset()  # of a validation error: already_exists
    limited = False  # by a rate limit: the same request will be welcome later

    @property
    def acted(self) -> bool:
        """Whether the request may have been carried out although it failed for us."""
        return self.status == 0 or self.status >= 500


# What a refusal means, and what to do: the first row that matches a text of the status, of
# what GitHub said, and of the headers.
_REFUSALS = (
    Failure(
        "^limited",
        "the rate limit is used up ({said})",
        "Wait and run it again, or raise GITHUB_TIME_LIMIT.",
    ),
    Failure(
        "^401 .*(?i:requires authentication)",
        "GitHub wants a token for this, and none is set",
        "Set GH_TOKEN; on Actions pass secrets.GITHUB_TOKEN.",
    ),
    Failure(
        "^401",
        "GitHub does not accept the token: it has expired, was revoked or is mistyped",
        "Make a new token and set it as GH_TOKEN.",
    ),
    Failure(
        "^403(?s:.*)^x-github-sso: required; url=(?P<url>.+)",
        "the organization wants the token authorized for single sign-on",
        "Authorize it: {url}.",
    ),
    Failure(
        "^403(?s:.*)^x-accepted-github-permissions: (?P<rights>.+)",
        "the token lacks a permission ({said})",
        "Give it the permission {rights} (on Actions: the job, under permissions:).",
    ),
    Failure(
        "^403",
        "the token lacks a permission ({said})",
        "Give it write access to the repository's contents and packages.",
    ),
    # GitHub hides what a token may not touch behind the same status as what is not there.
    # "Create a release": a 404 also stands for a commit that changes a workflow.
    Failure(
        "^404",
        "there is no such thing, or the token may not see it",
        "Check the repository's name (GITHUB_REPOSITORY) and that the token has access to it."
        " To release a commit that changes a workflow file the token needs the workflow scope"
        " as well.",
    ),
    Failure(
        "^422",
        "the request is not valid ({said})",
        "See the message; what exists already or is immutable cannot be changed.",
    ),
    Failure("", "{said}", "See githubstatus.com, then run it again."),
)


def _read(data: object) -> tuple[str, frozenset[str]]:
    """GitHub's message in a body, a validation's errors included, and their codes."""
    body = data if isinstance(data, Mapping) else {}
    errors = body.get("errors")
    parts, codes = [str(body.get("message") or "no message")], set[str]()
    for error in errors if isinstance(errors, list) else []:
        fields = error if isinstance(error, Mapping) else {"message": error}
        words = [str(fields[key]) for key in ("resource", "field", "code") if fields.get(key)]
        parts.append(str(fields.get("message") or " ".join(words)))
        codes.add(str(fields.get("code") or ""))
    return redact("; ".join(parts)), frozenset(codes - {""})


def _refusal(status: int, what: str, headers: Mapping[str, str], data: object) -> GitHubError:
    """The error for a response of 300 or more; the headers' names are in small letters."""
    said, codes = _read(data)
    # Lacking rights is a 403 too; a secondary limit may be told by its message alone.
    named = "retry-after" in headers or headers.get("x-ratelimit-remaining") == "0"
    limited = status == 429 or status == 403 and (named or Requester.isRateLimitError(said))
    lines = [f"{'limited' if limited else status} {said}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    found = explain("\n".join(lines), _REFUSALS, PipelineError(said), said=said)
    remedy, scopes = found.remedy, headers.get("x-accepted-oauth-scopes")
    if scopes and status in (403, 404) and not limited:
        has = headers.get("x-oauth-scopes") or "none"
        remedy += f" It takes one of the scopes {scopes} (the token has: {has})."
    error = GitHubError(f"GitHub refused {what} with {status}: {found.message}.", remedy)
    error.status, error.said, error.codes, error.limited = status, said, codes, limited
    return error


@contextlib.contextmanager
def refusals(what: str = "the request") -> Iterator[None]:
    """Turn what PyGithub and requests raise inside into a :class:`GitHubError`, which names
    ``what`` is asked for (``the release of v1.0.0``). The original is not chained: it holds
    the request, and so the token.
    """
    try:
        yield
    except GithubException as error:
        headers = {key.lower(): str(value) for key, value in (error.headers or {}).items()}
        raise _refusal(error.status, what, headers, error.data) from None
    except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
        raise GitHubError(
            f"GitHub did not respond to {what}: {http.reason(error)}.",
            "Check the network and githubstatus.com, then run it again.",
        ) from None
    except AssertionError as error:
        # PyGithub asserts that the address belongs to the API.
        raise GitHubError(
            f"GitHub's response for {what} points to another host ({error}).",
            "Check GITHUB_API_URL; the token is sent nowhere else.",
        ) from None
