"""GitHub's refusals as errors that a person can act on (pure).

Source: GitHub REST API documentation, "Troubleshooting the REST API", "Rate limits for
the REST API" and "Permissions required for fine-grained personal access tokens".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tools.core.errors import PipelineError
from tools.core.secrets import redact

LIMIT_WORDS = ("rate limit", "abuse detection", "retry your request again later")


class GitHubError(PipelineError):
    """GitHub refused a request, or could not be reached.

    Attributes:
        status: HTTP status; 0 when there was no answer.
        method: HTTP method of the request.
        path: Path of the request, without host and query.
        said: GitHub's own message; empty when there was no answer.
        codes: Codes of a validation error, such as ``already_exists``.
        headers: Headers of the answer, names in small letters.
        limited: Whether it was a rate limit: the same request will be welcome later.
        acted: Whether GitHub may have carried the request out all the same: there was
            no answer, or one that does not tell (5xx).
    """

    def __init__(
        self,
        message: str,
        remedy: str = "",
        *,
        status: int = 0,
        method: str = "",
        path: str = "",
        said: str = "",
        codes: frozenset[str] = frozenset(),
        headers: Mapping[str, str] | None = None,
        limited: bool = False,
    ) -> None:
        super().__init__(redact(message), redact(remedy))
        self.status = status
        self.method = method
        self.path = path
        self.said = redact(said)
        self.codes = codes
        self.headers = dict(headers or {})
        self.limited = limited

    @property
    def acted(self) -> bool:
        """Whether the request may have been carried out although it failed for us."""
        return self.status == 0 or self.status >= 500


def message_of(data: Any) -> str:
    """GitHub's message in an answer's body, the errors' own messages included."""
    if not isinstance(data, Mapping):
        return ""
    parts = [str(data.get("message") or "")]
    errors = data.get("errors")
    for error in errors if isinstance(errors, list) else []:
        if isinstance(error, Mapping):
            words = [str(error[key]) for key in ("resource", "field", "code") if error.get(key)]
            parts.append(str(error.get("message") or " ".join(words)))
        else:
            parts.append(str(error))
    return "; ".join(part for part in parts if part)


def codes_of(data: Any) -> frozenset[str]:
    """Codes of a validation error (422), such as ``already_exists``."""
    errors = data.get("errors") if isinstance(data, Mapping) else None
    if not isinstance(errors, list):
        return frozenset()
    return frozenset(str(e["code"]) for e in errors if isinstance(e, Mapping) and e.get("code"))


def is_limit(status: int, headers: Mapping[str, str], data: Any) -> bool:
    """Whether a refusal is a rate limit, primary or secondary, and no matter of rights.

    Both come as 403 or 429; a secondary limit may come without any header, and is then
    told by its message alone.
    """
    if status == 429:
        return True
    if status != 403:
        return False
    if "retry-after" in headers or headers.get("x-ratelimit-remaining") == "0":
        return True
    said = message_of(data).lower()
    return any(word in said for word in LIMIT_WORDS)


def _unauthorized(has_token: bool) -> tuple[str, str]:
    if not has_token:
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
    if "resource not accessible by integration" in said.lower():
        needed = headers.get("x-accepted-github-permissions", "contents=write")
        return what, f"Give the job the permission in the workflow (permissions: {needed})."
    if headers.get("x-accepted-github-permissions"):
        needed = headers["x-accepted-github-permissions"]
        return what, f"Give the token the repository permission {needed}."
    if headers.get("x-accepted-oauth-scopes"):
        has = headers.get("x-oauth-scopes") or "none"
        wanted = headers["x-accepted-oauth-scopes"]
        return what, f"Give the token one of the scopes {wanted} (it has: {has})."
    return what, "Give the token write access to the repository's contents and packages."


def _scopes(value: str) -> set[str]:
    return {scope.strip() for scope in value.split(",") if scope.strip()}


def _not_found(headers: Mapping[str, str], method: str) -> tuple[str, str]:
    """GitHub hides what a token may not touch behind the same status as what is not there."""
    wanted = _scopes(headers.get("x-accepted-oauth-scopes", ""))
    if (
        wanted
        and "x-oauth-scopes" in headers
        and not wanted & _scopes(headers["x-oauth-scopes"])
    ):
        return (
            f"the token lacks the scope (it has: {headers['x-oauth-scopes'] or 'none'})",
            f"Give the token one of the scopes {', '.join(sorted(wanted))}.",
        )
    remedy = (
        "Check the repository's name (GITHUB_REPOSITORY) and that the token has access to it."
    )
    if method in {"POST", "PATCH"}:
        # "Create a release": a 404 also stands for a commit that changes a workflow.
        remedy += (
            " If the tagged commit changes a workflow file that the default branch has"
            " otherwise, the token needs the workflow scope as well."
        )
    return "there is no such thing, or the token may not see it", remedy


def refusal(
    status: int, method: str, path: str, headers: Mapping[str, str], data: Any, has_token: bool
) -> GitHubError:
    """The error for an answer of 300 or more that is not worth another try.

    Args:
        status: HTTP status.
        method: HTTP method of the request.
        path: Path of the request.
        headers: Headers of the answer, names in small letters.
        data: Parsed body of the answer.
        has_token: Whether a token was sent.
    """
    said = message_of(data)
    if status == 401:
        what, remedy = _unauthorized(has_token)
    elif status == 403:
        what, remedy = _forbidden(headers, said)
    elif status == 404:
        what, remedy = _not_found(headers, method)
    elif status == 422:
        what = f"the request is not valid ({said})"
        remedy = "See the message; an immutable or existing object cannot be changed."
        if "already_exists" in codes_of(data):
            remedy = "Something of that name is there already; look at it before trying again."
    elif 300 <= status < 400:
        what = f"it has moved to {headers.get('location', 'another address')}"
        remedy = "Set GITHUB_REPOSITORY or GITHUB_API_URL to the new one."
    else:
        what, remedy = f"GitHub answered {status} ({said})" if said else f"status {status}", ""
    return GitHubError(
        f"{method} {path} failed with {status}: {what}.",
        remedy,
        status=status,
        method=method,
        path=path,
        said=said,
        codes=codes_of(data),
        headers=headers,
    )
