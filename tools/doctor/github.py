"""The doctor's checks of GitHub: token, rights, limits, clock, and the release to come."""

from __future__ import annotations

import re
import time
import typing
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from tools.core.console import human_size
from tools.core.errors import PipelineError
from tools.doctor.base import (
    Check,
    Result,
    Subject,
    from_error,
    not_applicable,
    ok,
    problem,
    warning,
)
from tools.github.errors import GitHubError
from tools.repo.versions import TagVersion, parse_tag

if typing.TYPE_CHECKING:
    from tools.github.old import GitHub, Response

GITHUB = frozenset({"release", "cleanup", "docker_dev", "prod_image", "pipeline"})
RELEASE = frozenset({"release"})
# GitHub's apps and registries take tokens whose times differ by a minute at most.
MOST_SKEW = 60.0
SOON = 7 * 86400.0
FEW_REQUESTS = 100
# Kinds of token by their prefix ("Behind GitHub's new authentication token formats").
KINDS = {
    "ghp_": "a classic personal access token",
    "github_pat_": "a fine-grained personal access token",
    "ghs_": "a token of an Actions run or an app",
    "gho_": "an OAuth token",
    "ghu_": "a token of an app's user",
}
SCOPES = {"contents": {"repo", "public_repo"}, "packages": {"write:packages"}}
DELETE_SCOPE = {"delete:packages"}


def _client(subject: Subject) -> GitHub:
    # Half a second that the other checks need not wait for.
    from tools.github.old import GitHub

    settings = subject.settings
    return GitHub(
        settings.github_api_url,
        settings.gh_token,
        time_limit=0,
        timeout=8.0,
        verify=str(settings.ca_path) if settings.ca_path else True,
    )


def _get(subject: Subject, path: str) -> Response:
    """One answer, once: the doctor has no time to insist."""
    with _client(subject) as client:
        return client.request("GET", path, repeat=False)


def _limits(subject: Subject) -> tuple[Response, float]:
    """The answer of ``/rate_limit``, which costs nothing, and by how much clocks differ."""

    def ask() -> tuple[Response, float]:
        before = time.time()
        answer = _get(subject, "/rate_limit")
        return answer, _skew(answer, (before + time.time()) / 2)

    found: tuple[Response, float] = subject.once("limits", ask)
    return found


def _skew(answer: Response, now: float) -> float:
    """Seconds by which our clock is ahead of the server's ``Date``; 0 without one."""
    try:
        return now - parsedate_to_datetime(answer.headers.get("date", "")).timestamp()
    except (ValueError, TypeError):
        return 0.0


def check_api(subject: Subject) -> Result:
    """GitHub's API answers. A refused token is another check's."""
    address = subject.settings.github_api_url
    try:
        _limits(subject)
    except GitHubError as error:
        if error.status == 0:
            return from_error(error, address)
    return ok(f"{address} answers.", address)


def check_token(subject: Subject) -> Result:
    """GH_TOKEN is there, and GitHub accepts it."""
    token = subject.settings.gh_token
    if not token:
        sentence = "GH_TOKEN is not set: nothing is pushed, released or cleaned up."
        remedy = "Set GH_TOKEN (on Actions: secrets.GH_TOKEN or secrets.GITHUB_TOKEN)."
        if subject.wants("release", "cleanup"):
            return problem(sentence, remedy, "GH_TOKEN")
        return warning(sentence, remedy, "GH_TOKEN")
    _limits(subject)  # its error is the sessions' own
    value = token.reveal()
    kind = next((k for prefix, k in KINDS.items() if value.startswith(prefix)), "a token")
    return ok(f"GitHub accepts GH_TOKEN, {kind}.", "GH_TOKEN")


def check_expiry(subject: Subject) -> Result:
    """The token does not expire within days ("Token expiration", a header of GitHub's)."""
    if not subject.settings.gh_token:
        return not_applicable("There is no token.", "GH_TOKEN")
    headers = _limits(subject)[0].headers
    text = headers.get("github-authentication-token-expiration", "")
    match = re.match(r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d) (UTC|[+-]\d{4})", text)
    if match is None:
        return ok("GitHub names no day on which the token expires.", "GH_TOKEN")
    zone = match[2].replace("UTC", "+0000")
    until = datetime.strptime(f"{match[1]} {zone}", "%Y-%m-%d %H:%M:%S %z")
    day = until.astimezone(UTC).date().isoformat()
    left = until.timestamp() - time.time()
    if left < SOON:
        return warning(
            f"The token expires on {day}, in {max(0, left) / 86400:.0f} days.",
            "Make a new one and set it as GH_TOKEN.",
            "GH_TOKEN",
        )
    return ok(f"The token is valid until {day}.", "GH_TOKEN")


def _needed_scopes(subject: Subject) -> list[set[str]]:
    """Scopes that a classic token needs, each set an alternative, for what was asked."""
    if not subject.sessions:
        return list(SCOPES.values())
    needed = []
    if subject.wants("release"):
        needed.append(SCOPES["contents"])
    if subject.wants("docker_dev", "prod_image", "pipeline", "cleanup"):
        needed.append(SCOPES["packages"])
    if subject.wants("cleanup"):
        needed.append(DELETE_SCOPE)
    return needed


def check_rights(subject: Subject) -> Result:
    """The token may write contents and packages, as far as the API tells."""
    if not subject.settings.gh_token:
        return not_applicable("There is no token.", "GH_TOKEN")
    headers = _limits(subject)[0].headers
    if "x-oauth-scopes" in headers:
        has = {scope.strip() for scope in headers["x-oauth-scopes"].split(",")} - {""}
        missing = [" or ".join(sorted(s)) for s in _needed_scopes(subject) if not s & has]
        if missing:
            return problem(
                f"The token lacks the scope {', '.join(missing)} "
                f"(it has: {', '.join(sorted(has)) or 'none'}).",
                "Add it in GitHub's settings, Developer settings, Personal access tokens.",
                "GH_TOKEN",
            )
        return ok(f"The token has the scopes {', '.join(sorted(has))}.", "GH_TOKEN")
    return _permissions(subject)


def _permissions(subject: Subject) -> Result:
    """What the API tells of a token that has permissions instead of scopes."""
    name = subject.repository
    if not name:
        return not_applicable("No repository on GitHub is known.", "GITHUB_REPOSITORY")
    answer = _get(subject, f"/repos/{name}")
    allowed = answer.data.get("permissions") if isinstance(answer.data, dict) else None
    if not isinstance(allowed, dict):
        return warning(
            f"GitHub does not tell what the token may do with {name}.",
            "Make sure it has contents: write and packages: write.",
            name,
        )
    if not allowed.get("push"):
        return problem(
            f"The token may not write to {name}.",
            "Give it contents: write (in the workflow, under permissions:).",
            name,
        )
    return ok(f"The token may write to {name}; GitHub tells nothing of packages.", name)


def check_limit(subject: Subject) -> Result:
    """Requests to the API are left."""
    data = _limits(subject)[0].data
    core = data.get("resources", {}).get("core", {}) if isinstance(data, dict) else {}
    left, reset = core.get("remaining"), core.get("reset")
    if not isinstance(left, int):
        return ok("The API names no limit.", "/rate_limit")
    if left >= FEW_REQUESTS:
        return ok(f"{left} requests are left.", "/rate_limit")
    minutes = max(0.0, float(reset or 0) - time.time()) / 60
    if subject.settings.gh_token:
        remedy = f"Wait {minutes:.0f} minutes, or use a token of another account."
    else:
        remedy = f"Set GH_TOKEN, or wait {minutes:.0f} minutes."
    sentence = f"Only {left} requests to GitHub's API are left."
    make = problem if left == 0 and subject.settings.gh_token else warning
    return make(sentence, remedy, "/rate_limit")


def check_clock(subject: Subject) -> Result:
    """Our clock agrees with GitHub's: tokens and certificates depend on it."""
    skew = _limits(subject)[1]
    if abs(skew) > MOST_SKEW:
        where = "ahead of" if skew > 0 else "behind"
        return problem(
            f"This machine's clock is {abs(skew):.0f} s {where} GitHub's: tokens and "
            "certificates will be refused.",
            "Set the clock (timedatectl set-ntp true).",
            "Date",
        )
    return ok(f"The clock differs from GitHub's by {abs(skew):.0f} s at most.", "Date")


def _tag(subject: Subject) -> TagVersion | None:
    """The version tag of the event (UsageError if it is no version)."""
    tag = subject.event.tag
    return parse_tag(tag) if tag else None


def check_release_tag(subject: Subject) -> Result:
    """The tag is a version, is there, and is what is checked out."""
    from tools.release.checks import Problems, check_tag

    version = _tag(subject)
    if version is None:
        return not_applicable(f"{subject.event.ref} is no tag.", "git")
    found = Problems()
    check_tag(subject.root, version.tag, found)
    if found.found:
        return _first(found.found, version.tag)
    return ok(f"The tag {version.tag} is checked out.", version.tag)


def _first(errors: list[PipelineError], looked_at: str) -> Result:
    """The first of several problems, the others below it."""
    return problem(
        errors[0].message, errors[0].remedy, looked_at, "\n".join(map(str, errors[1:]))
    )


def check_release(subject: Subject) -> Result:
    """There is no published release of the tag yet."""
    version, name = _tag(subject), subject.repository
    if version is None or not name:
        return not_applicable("No release is due.", subject.event.ref)
    if not subject.settings.gh_token:
        return not_applicable("Without a token there is no release.", "GH_TOKEN")
    try:
        answer = _get(subject, f"/repos/{name}/releases/tags/{version.tag}")
    except GitHubError as error:
        if error.status == 404:
            return ok(f"There is no release {version.tag} yet.", name)
        raise
    assets = len(answer.data.get("assets", [])) if isinstance(answer.data, dict) else 0
    return warning(
        f"The release {version.tag} exists already, with {assets} files.",
        "A second run only compares it; --replace-assets replaces its files.",
        name,
    )


def check_wheels(subject: Subject) -> Result:
    """Wheels in dist/ are sound, of the tag's version, and complete."""
    from tools.release.checks import Problems, check_wheels, wheel_files

    version, dist = _tag(subject), subject.root / "dist"
    if version is None:
        return not_applicable(f"{subject.event.ref} is no tag.", "dist/")
    if not wheel_files(dist) and not subject.wants("release"):
        return not_applicable("No wheels have been built yet.", "dist/")
    found = Problems()
    platforms = subject.settings.wheel_platforms
    wheels = check_wheels(dist, subject.event.sha, version, platforms, found)
    if found.found:
        return _first(found.found, "dist/")
    size = human_size(sum(wheel.path.stat().st_size for wheel in wheels))
    return ok(f"{len(wheels)} wheels of {version.version}, {size}.", "dist/")


def check_secrets(subject: Subject) -> Result:
    """Which optional secrets are there; never their values."""
    settings = subject.settings
    optional = {
        "CODECOV_TOKEN": settings.codecov_token,
        "SLACK_WEBHOOK_URL": settings.slack_webhook_url,
        "DOCKER_HUB_USERNAME": settings.docker_hub_username,
        "DOCKER_HUB_TOKEN": settings.docker_hub_token,
    }
    there = [name for name, value in optional.items() if value]
    missing = [name for name, value in optional.items() if not value]
    webhook = settings.slack_webhook_url
    if webhook and not webhook.reveal().startswith(("https://", "http://127.0.0.1")):
        return problem(
            "SLACK_WEBHOOK_URL is no address of a webhook.",
            "Set it to the address that Slack shows, https://hooks.slack.com/...",
            "SLACK_WEBHOOK_URL",
        )
    text = f"Optional secrets set: {', '.join(there) or 'none'}; not set: "
    return ok(f"{text}{', '.join(missing) or 'none'}.", "environment")


CHECKS = (
    Check("github api", "answers", check_api, GITHUB, ("settings",)),
    Check("github token", "there, and accepted", check_token, GITHUB, ("github api",)),
    Check("token expiry", "not within days", check_expiry, GITHUB, ("github token",)),
    Check(
        "token rights", "contents: write, packages: write", check_rights, GITHUB,
        ("github token",),
    ),
    Check("api limit", "requests are left", check_limit, GITHUB, ("github token",)),
    Check("clock", "agrees with GitHub's", check_clock, GITHUB, ("github token",)),
    Check("release tag", "a version, checked out", check_release_tag, RELEASE, ("event",)),
    Check(
        "release", "not published yet", check_release, RELEASE, ("event", "github token"),
    ),
    Check("wheels", "agree with the tag", check_wheels, RELEASE, ("event", "settings")),
    Check("secrets", "which optional ones are set", check_secrets, needs=("settings",)),
)  # fmt: skip
