"""GitHub's refusals as errors that a person can act on (pure).

Source: GitHub REST API documentation, "Troubleshooting the REST API", "Rate limits for
the REST API" and "Permissions required for fine-grained personal access tokens".
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

import requests
import urllib3
from github import GithubException
from github.Requester import Requester

from tools.core import http
from tools.core.errors import PipelineError
from tools.core.secrets import redact


class GitHubError(PipelineError):
    """GitHub refused a request, or could not be reached.

    Attributes:
        status: HTTP status; 0 when there was no response.
        said: GitHub's own message; empty when there was no response.
        codes: Codes of a validation error, such as ``already_exists``.
        limited: Whether it was a rate limit: the same request will be welcome later.
        acted: Whether GitHub may have carried the request out all the same: there was
            no response, or one that does not tell (5xx).
    """

    def __init__(
        self,
        message: str,
        remedy: str = "",
        *,
        status: int = 0,
        said: str = "",
        codes: frozenset[str] = frozenset(),
        limited: bool = False,
    ) -> None:
        super().__init__(redact(message), redact(remedy))
        self.status = status
        self.said = redact(said)
        self.codes = codes
        self.limited = limited

    @property
    def acted(self) -> bool:
        """Whether the request may have been carried out although it failed for us."""
        return self.status == 0 or self.status >= 500


def _read(data: object) -> tuple[str, frozenset[str]]:
    """GitHub's message in a body, a validation's errors included, and their codes."""
    body = data if isinstance(data, Mapping) else {}
    errors = body.get("errors")
    parts, codes = [str(body.get("message") or "")], set[str]()
    for error in errors if isinstance(errors, list) else []:
        if isinstance(error, Mapping):
            words = [str(error[key]) for key in ("resource", "field", "code") if error.get(key)]
            parts.append(str(error.get("message") or " ".join(words)))
            codes.add(str(error.get("code") or ""))
        else:
            parts.append(str(error))
    return "; ".join(filter(None, parts)), frozenset(codes - {""})


def _is_limit(status: int, headers: Mapping[str, str], said: str) -> bool:
    """Whether a refusal is a rate limit, and no matter of rights, which is a 403 too: a
    secondary limit may come without any header, and is told by its message alone.
    """
    named = "retry-after" in headers or headers.get("x-ratelimit-remaining") == "0"
    return status == 429 or (status == 403 and (named or Requester.isRateLimitError(said)))


def _unauthorized(said: str) -> tuple[str, str]:
    if "requires authentication" in said.lower():
        return (
            "GitHub wants a token for this, and none is set",
            "Set GH_TOKEN; on Actions pass secrets.GITHUB_TOKEN.",
        )
    return (
        "GitHub does not accept the token: it has expired, was revoked or is mistyped",
        "Make a new token and set it as GH_TOKEN.",
    )


def _forbidden(headers: Mapping[str, str], said: str) -> tuple[str, str]:
    """What a token lacks, from the headers in which GitHub says it."""
    what = f"the token lacks a permission ({said})" if said else "the token lacks a permission"
    sso = headers.get("x-github-sso", "")
    if "required" in sso:
        return (
            "the organization wants the token authorized for single sign-on",
            f"Authorize it: {sso.partition('url=')[2] or 'in the settings of the token'}.",
        )
    required = headers.get("x-accepted-github-permissions")
    if "resource not accessible by integration" in said.lower():
        rights = f"permissions: {required or 'contents=write'}"
        return what, f"Give the job the permission in the workflow ({rights})."
    if required:
        return what, f"Give the token the repository permission {required}."
    if scopes := headers.get("x-accepted-oauth-scopes"):
        has = headers.get("x-oauth-scopes") or "none"
        return what, f"Give the token one of the scopes {scopes} (it has: {has})."
    return what, "Give the token write access to the repository's contents and packages."


def _scopes(value: str) -> set[str]:
    return {scope.strip() for scope in value.split(",") if scope.strip()}


def _not_found(headers: Mapping[str, str]) -> tuple[str, str]:
    """GitHub hides what a token may not touch behind the same status as what is not there."""
    required = _scopes(headers.get("x-accepted-oauth-scopes", ""))
    scopes = headers.get("x-oauth-scopes")
    if required and scopes is not None and not required & _scopes(scopes):
        return (
            f"the token lacks the scope (it has: {scopes or 'none'})",
            f"Give the token one of the scopes {', '.join(sorted(required))}.",
        )
    # "Create a release": a 404 also stands for a commit that changes a workflow.
    return (
        "there is no such thing, or the token may not see it",
        "Check the repository's name (GITHUB_REPOSITORY) and that the token has access to it."
        " To release a commit that changes a workflow file the token needs the workflow scope"
        " as well.",
    )


def _invalid(said: str, codes: frozenset[str]) -> tuple[str, str]:
    remedy = "See the message; an immutable or existing object cannot be changed."
    if "already_exists" in codes:
        remedy = "Something of that name is there already; look at it before trying again."
    return f"the request is not valid ({said})", remedy


def refusal(status: int, what: str, headers: Mapping[str, str], data: object) -> GitHubError:
    """The error for a response of 300 or more.

    Args:
        status: HTTP status.
        what: What was asked for, as the sentence names it.
        headers: Headers of the response, names in small letters.
        data: Parsed body of the response.
    """
    said, codes = _read(data)
    limited = _is_limit(status, headers, said)
    if limited:
        meaning = f"the rate limit is used up ({said or 'no message'})"
        remedy = "Wait and run it again, or raise GITHUB_TIME_LIMIT."
    elif status == 401:
        meaning, remedy = _unauthorized(said)
    elif status == 403:
        meaning, remedy = _forbidden(headers, said)
    elif status == 404:
        meaning, remedy = _not_found(headers)
    elif status == 422:
        meaning, remedy = _invalid(said, codes)
    elif 300 <= status < 400:
        meaning = f"it has moved to {headers.get('location', 'another address')}"
        remedy = "Set GITHUB_REPOSITORY or GITHUB_API_URL to the new one."
    else:
        meaning, remedy = said or "no message", "See githubstatus.com, then run it again."
    return GitHubError(
        f"GitHub refused {what} with {status}: {meaning}.",
        remedy,
        status=status,
        said=said,
        codes=codes,
        limited=limited,
    )


@contextlib.contextmanager
def refusals(what: str = "the request") -> Iterator[None]:
    """Turn what PyGithub and requests raise inside into a :class:`GitHubError`.

    Args:
        what: What is asked for, as the sentence names it: ``the release of v1.0.0``.

    Raises:
        GitHubError: It was refused, or there was no response. The original is not chained:
            it holds the request, and so the token.
    """
    try:
        yield
    except GithubException as error:
        headers = {key.lower(): str(value) for key, value in (error.headers or {}).items()}
        raise refusal(error.status, what, headers, error.data) from None
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
