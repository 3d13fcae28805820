"""Releases, assets, tags, generated notes and rate limits of the simulated GitHub.

Behaviour after GitHub's REST documentation ("Releases", "Release assets") and, where that
is silent, after what its users report: drafts are found in the list alone and by those
who may push; several drafts may bear one tag; an upload that breaks off leaves an asset in
state ``starter``; a second published release of a tag is refused; an immutable release
takes no more changes.
"""

import hashlib
import re
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from tests.services.github import Answer, Call, Refusal, Route


def now() -> str:
    """The time as GitHub writes it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


# --- views -------------------------------------------------------------------


def user(login: str) -> dict[str, Any]:
    """A simple user."""
    api = f"https://api.github.com/users/{login}"
    links = "followers following gists starred subscriptions organizations repos events"
    return {
        "login": login,
        "id": 1,
        "node_id": "MDQ6VXNlcjE=",
        "avatar_url": f"https://avatars.githubusercontent.com/{login}",
        "gravatar_id": "",
        "url": api,
        "html_url": f"https://github.com/{login}",
        "type": "User",
        "site_admin": False,
        **{f"{name}_url": f"{api}/{name}" for name in links.split()},
        "received_events_url": f"{api}/received_events",
    }


def repository(call: Call) -> dict[str, Any]:
    """The repository of the request; 404 if there is none."""
    name = f"{call.values['owner']}/{call.values['repo']}"
    if not (found := call.store.get("repositories", name.lower())):
        raise Refusal(404, "Not Found")
    return dict(found)


def asset_view(call: Call, asset: dict[str, Any]) -> dict[str, Any]:
    """An asset as GitHub shows it."""
    release = call.store.get("releases", asset["release"])
    name, web = release["repository"], "https://github.com"
    tag = release["tag_name"] if not release["draft"] else f"untagged-{release['id']}"
    return {
        **{key: value for key, value in asset.items() if key != "release"},
        "url": f"{call.base}/repos/{name}/releases/assets/{asset['id']}",
        "node_id": f"RA_{asset['id']}",
        "uploader": user("octocat"),
        "download_count": 0,
        "browser_download_url": f"{web}/{name}/releases/download/{tag}/{asset['name']}",
    }


def assets_of(call: Call, release: dict[str, Any]) -> list[dict[str, Any]]:
    """The assets of a release, the oldest first."""
    return [a for a in call.store.all("assets") if a["release"] == release["id"]]


def release_view(call: Call, release: dict[str, Any]) -> dict[str, Any]:
    """A release as GitHub shows it."""
    name, number, draft = release["repository"], release["id"], release["draft"]
    url = f"{call.base}/repos/{name}/releases/{number}"
    tag = f"untagged-{number}" if draft else release["tag_name"]
    return {
        **{key: value for key, value in release.items() if key != "repository"},
        "url": url,
        "html_url": f"https://github.com/{name}/releases/tag/{tag}",
        "assets_url": f"{url}/assets",
        "upload_url": f"{call.uploads}/repos/{name}/releases/{number}/assets{{?name,label}}",
        "tarball_url": None if draft else f"{call.base}/repos/{name}/tarball/{tag}",
        "zipball_url": None if draft else f"{call.base}/repos/{name}/zipball/{tag}",
        "node_id": f"RE_{number}",
        "author": user("octocat"),
        "assets": [asset_view(call, asset) for asset in assets_of(call, release)],
    }


def all_releases(call: Call) -> list[dict[str, Any]]:
    """The repository's releases that the token sees, the newest first."""
    name = repository(call)["full_name"]
    may_push = call.token is not None and call.token.may("contents", "write")
    found = [r for r in call.store.all("releases") if r["repository"] == name]
    found = [r for r in found if may_push or not r["draft"]]
    return sorted(found, key=lambda release: -int(release["id"]))


def find_release(call: Call) -> dict[str, Any]:
    """The release of the request; 404 if there is none."""
    for release in all_releases(call):
        if str(release["id"]) == call.values["release_id"]:
            return release
    raise Refusal(404, "Not Found")


def find_asset(call: Call) -> tuple[dict[str, Any], dict[str, Any]]:
    """The asset of the request and its release; 404 if there is none."""
    if not (asset := call.store.get("assets", call.values["asset_id"])):
        raise Refusal(404, "Not Found")
    call.values["release_id"] = str(asset["release"])
    return asset, find_release(call)


# --- releases ----------------------------------------------------------------


def _invalid(resource: str, code: str, name: str) -> Refusal:
    error = {"resource": resource, "code": code, "field": name}
    return Refusal(422, "Validation Failed", [error])


def _publish(call: Call, release: dict[str, Any], make_latest: str) -> None:
    """What publishing does: the tag, the time, the mark of the latest, immutability. A
    second published release of a tag is refused, and a tag that is spent.
    """
    tag, repo = release["tag_name"], repository(call)
    name = repo["full_name"]
    if any(r["tag_name"] == tag and not r["draft"] for r in all_releases(call)):
        raise _invalid("Release", "already_exists", "tag_name")
    if tag in (call.store.get("spent_tags", name) or []):
        raise _invalid("Release", "custom", "tag_name")
    if tag not in repo["tags"]:
        repo["tags"][tag] = release["target_commitish"]
        call.store.put("repositories", name.lower(), repo)
    release |= {"published_at": now(), "immutable": repo["immutable"]}
    if make_latest == "true" and not release["prerelease"]:
        call.store.put("latest", name, release["id"])


def list_releases(call: Call) -> Answer:
    """Drafts only for those who may push."""
    return call.page([release_view(call, release) for release in all_releases(call)])


def create_release(call: Call) -> Answer:
    """A draft bears no tag yet, so several of one tag are no conflict."""
    repo, given = repository(call), call.json()
    call.need("contents", "write")
    if not given.get("tag_name"):
        raise _invalid("Release", "missing_field", "tag_name")
    release = {
        "id": call.store.next_id(),
        "repository": repo["full_name"],
        "tag_name": given["tag_name"],
        "target_commitish": given.get("target_commitish") or "main",
        "name": given.get("name"),
        "body": given.get("body"),
        "draft": bool(given.get("draft")),
        "prerelease": bool(given.get("prerelease")),
        "immutable": False,
        "created_at": now(),
        "updated_at": now(),
        "published_at": None,
    }
    if not release["draft"]:
        _publish(call, release, given.get("make_latest") or "true")
    call.store.put("releases", release["id"], release)
    return Answer(201, release_view(call, release))


def get_release(call: Call) -> Answer:
    """One release, draft or not, by its number."""
    return Answer(200, release_view(call, find_release(call)))


def update_release(call: Call) -> Answer:
    """Also publishes, which is refused while the tag has another published release."""
    given, before = call.json(), find_release(call)
    call.need("contents", "write")
    if before["immutable"] and given.get("tag_name", before["tag_name"]) != before["tag_name"]:
        raise Refusal(422, "Cannot change the tag of an immutable release.")
    release = {**before, **{k: v for k, v in given.items() if k in before}, "updated_at": now()}
    if before["draft"] and not release["draft"]:
        _publish(call, release, given.get("make_latest") or "true")
    call.store.put("releases", release["id"], release)
    return Answer(200, release_view(call, release))


def delete_release(call: Call) -> Answer:
    """With its assets; the tag of an immutable release can never be used again."""
    call.need("contents", "write")
    release = find_release(call)
    if release["immutable"]:
        spent = call.store.get("spent_tags", release["repository"]) or []
        call.store.put("spent_tags", release["repository"], [*spent, release["tag_name"]])
    # The release goes first: nothing is ever seen published without its assets.
    for table, one in [
        ("releases", release),
        *(("assets", a) for a in assets_of(call, release)),
    ]:
        call.store.put(table, one["id"], None)
    return Answer(204)


def get_by_tag(call: Call) -> Answer:
    """A published release by its tag; a draft is not found so."""
    for release in all_releases(call):
        if release["tag_name"] == call.values["tag"] and not release["draft"]:
            return Answer(200, release_view(call, release))
    raise Refusal(404, "Not Found")


def get_latest(call: Call) -> Answer:
    """The release that bears the mark of the latest."""
    number = call.store.get("latest", repository(call)["full_name"])
    call.values["release_id"] = str(number)
    return get_release(call)


def generate_notes(call: Call) -> Answer:
    """Needs the right to write contents, and changes nothing."""
    name, tag = repository(call)["full_name"], call.json()["tag_name"]
    call.need("contents", "write")
    body = (
        "## What's Changed\n"
        f"* A change by @octocat in https://github.com/{name}/pull/1\n\n"
        f"**Full Changelog**: https://github.com/{name}/commits/{tag}"
    )
    return Answer(200, {"name": tag, "body": body})


# --- assets ------------------------------------------------------------------


def list_assets(call: Call) -> Answer:
    """Unfinished ones too, in state ``starter``."""
    return call.page([asset_view(call, asset) for asset in assets_of(call, find_release(call))])


def upload_asset(call: Call) -> Answer:
    """Streamed to a file; the asset stays a ``starter`` until all bytes are there."""
    call.need("contents", "write")
    name = re.sub(r"[^A-Za-z0-9._@-]", ".", call.query["name"])
    with call.store.lock:
        release = find_release(call)
        if release["immutable"]:
            raise Refusal(422, "Cannot upload assets to an immutable release.")
        if any(asset["name"] == name for asset in assets_of(call, release)):
            raise _invalid("ReleaseAsset", "already_exists", "name")
        asset = {
            "id": call.store.next_id(),
            "release": release["id"],
            "name": name,
            "label": call.query.get("label") or "",
            "content_type": call.header("Content-Type") or "application/octet-stream",
            "state": "starter",
            "size": 0,
            "digest": None,
            "created_at": now(),
            "updated_at": now(),
        }
        call.store.put("assets", asset["id"], asset)
    digest, path = hashlib.sha256(), call.store.folder / "blobs" / str(asset["id"])
    path.parent.mkdir(exist_ok=True)
    with path.open("wb") as target:
        while piece := call.handler.read_body(1 << 18):
            digest.update(piece)
            target.write(piece)
    asset |= {"state": "uploaded", "size": path.stat().st_size, "updated_at": now()}
    if not call.server.no_digests:
        asset["digest"] = f"sha256:{digest.hexdigest()}"
    with call.store.lock:
        if not call.store.get("assets", asset["id"]):
            raise Refusal(404, "Not Found")
        call.store.put("assets", asset["id"], asset)
        return Answer(201, asset_view(call, asset))


def get_asset(call: Call) -> Answer:
    """Its data, or with ``Accept: application/octet-stream`` a redirect to its bytes."""
    asset, _ = find_asset(call)
    if "octet-stream" in call.header("Accept"):
        return Answer(302, headers={"Location": f"{call.server.storage}/{asset['id']}"})
    return Answer(200, asset_view(call, asset))


def update_asset(call: Call) -> Answer:
    """A new name or label."""
    call.need("contents", "write")
    (asset, release), given = find_asset(call), call.json()
    if release["immutable"]:
        raise Refusal(422, "Cannot update assets of an immutable release.")
    names = {a["name"] for a in assets_of(call, release) if a["id"] != asset["id"]}
    if given.get("name") in names:
        raise _invalid("ReleaseAsset", "already_exists", "name")
    changed = {k: given[k] for k in ("name", "label") if k in given}
    asset = {**asset, **changed, "updated_at": now()}
    call.store.put("assets", asset["id"], asset)
    return Answer(200, asset_view(call, asset))


def delete_asset(call: Call) -> Answer:
    """Refused on an immutable release."""
    call.need("contents", "write")
    asset, release = find_asset(call)
    if release["immutable"]:
        raise Refusal(422, "Cannot delete asset from an immutable release.")
    call.store.put("assets", asset["id"], None)
    return Answer(204)


# --- the rest ----------------------------------------------------------------


def get_commit(call: Call) -> Answer:
    """The commit of a tag."""
    name, ref = repository(call)["full_name"], call.values["ref"]
    sha = repository(call)["tags"].get(ref.removeprefix("tags/"))
    if sha is None:
        raise Refusal(422, f"No commit found for SHA: {ref}")
    return Answer(200, {"sha": sha, "url": f"{call.base}/repos/{name}/commits/{sha}"})


def rate_limit(call: Call) -> Answer:
    """The state of the limits; asking costs nothing."""
    limit, used, hour = call.server.limit, call.server.used, int(time.time()) + 3600
    core = {"limit": limit, "used": used, "remaining": max(0, limit - used), "reset": hour}
    search = {"limit": 30, "used": 0, "remaining": 30, "reset": hour}
    return Answer(200, {"resources": {"core": core, "search": search}, "rate": core})


def graphql(call: Call) -> Answer:
    """The two questions that ``gh release`` asks by GraphQL: one release, all releases."""
    given = call.json()
    variables = given["variables"]
    call.values |= {"owner": variables["owner"], "repo": variables["name"]}
    found: dict[str, Any] = {"release": None}
    for release in all_releases(call):
        if release["tag_name"] == variables.get("tagName"):
            found = {"release": {"databaseId": release["id"], "isDraft": release["draft"]}}
    if "releases(first" in given["query"]:
        columns = {
            "name": "name", "tagName": "tag_name", "isDraft": "draft", "createdAt": "created_at",
            "isPrerelease": "prerelease", "publishedAt": "published_at",
        }  # fmt: skip
        nodes = [{k: r[v] for k, v in columns.items()} for r in all_releases(call)]
        nodes = [{"isLatest": False, **node} for node in nodes]
        found = {"releases": {"nodes": nodes, "pageInfo": {"hasNextPage": False}}}
    return Answer(200, {"data": {"repository": found}})


def alone(method: str, path: str, name: str, run: Callable[[Call], Answer]) -> Route:
    """An endpoint that runs while no other does."""

    def locked(call: Call) -> Answer:
        with call.store.lock:
            return run(call)

    return Route(method, path, name, locked)


_ALL = "/repos/{owner}/{repo}/releases"
_ONE, _ASSET = _ALL + "/{release_id}", _ALL + "/assets/{asset_id}"
ROUTES = [
    alone("GET", _ALL, "repos/list-releases", list_releases),
    alone("POST", _ALL, "repos/create-release", create_release),
    alone("GET", _ALL + "/latest", "repos/get-latest-release", get_latest),
    alone("GET", _ALL + "/tags/{tag*}", "repos/get-release-by-tag", get_by_tag),
    alone("POST", _ALL + "/generate-notes", "repos/generate-release-notes", generate_notes),
    alone("GET", _ASSET, "repos/get-release-asset", get_asset),
    alone("PATCH", _ASSET, "repos/update-release-asset", update_asset),
    alone("DELETE", _ASSET, "repos/delete-release-asset", delete_asset),
    alone("GET", _ONE, "repos/get-release", get_release),
    alone("PATCH", _ONE, "repos/update-release", update_release),
    alone("DELETE", _ONE, "repos/delete-release", delete_release),
    alone("GET", _ONE + "/assets", "repos/list-release-assets", list_assets),
    Route("UPLOAD POST", _ONE + "/assets", "repos/upload-release-asset", upload_asset),
    alone("GET", "/repos/{owner}/{repo}/commits/{ref*}", "repos/get-commit", get_commit),
    alone("POST", "/graphql", "graphql", graphql),
    alone("GET", "/rate_limit", "rate-limit/get", rate_limit),
]
