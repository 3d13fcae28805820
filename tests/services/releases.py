"""Releases, assets, tags, generated notes and rate limits of the simulated GitHub.

Behaviour after GitHub's REST documentation ("Releases", "Release assets") and, where that
is silent, after what its users report: drafts are found in the list alone and by those
who may push; several drafts may bear one tag; an upload that breaks off leaves an asset in
state ``starter``; a second published release of a tag is refused; an immutable release
takes no more changes.
"""

from __future__ import annotations

import hashlib
import re
import time
from datetime import UTC, datetime
from typing import Any

from tests.services.github import Answer, Call, Refusal, Route


def now() -> str:
    """The time as GitHub writes it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def user(login: str) -> dict[str, Any]:
    """A simple user."""
    web, api = f"https://github.com/{login}", f"https://api.github.com/users/{login}"
    parts = {
        "followers_url": "/followers",
        "following_url": "/following{/other_user}",
        "gists_url": "/gists{/gist_id}",
        "starred_url": "/starred{/owner}{/repo}",
        "subscriptions_url": "/subscriptions",
        "organizations_url": "/orgs",
        "repos_url": "/repos",
        "events_url": "/events{/privacy}",
        "received_events_url": "/received_events",
    }
    return {
        "login": login,
        "id": 1,
        "node_id": "MDQ6VXNlcjE=",
        "avatar_url": f"https://avatars.githubusercontent.com/{login}",
        "gravatar_id": "",
        "url": api,
        "html_url": web,
        "type": "User",
        "site_admin": False,
        **{name: api + end for name, end in parts.items()},
    }


# --- views -------------------------------------------------------------------


def repository(call: Call) -> dict[str, Any]:
    """The repository of the request; 404 if there is none that may be seen."""
    name = f"{call.values['owner']}/{call.values['repo']}"
    found = call.store.get("repositories", name.lower())
    if not found or (found["private"] and call.token is None):
        raise Refusal(404, "Not Found")
    return dict(found)


def asset_view(call: Call, asset: dict[str, Any]) -> dict[str, Any]:
    """An asset as GitHub shows it."""
    release = call.store.get("releases", asset["release"])
    name, web = release["repository"], "https://github.com"
    kept = ("id", "name", "label", "content_type", "state", "size", "digest")
    tag = release["tag_name"] if not release["draft"] else f"untagged-{release['id']}"
    return {
        "url": f"{call.base}/repos/{name}/releases/assets/{asset['id']}",
        "node_id": f"RA_{asset['id']}",
        "uploader": user("octocat"),
        "download_count": 0,
        "created_at": asset["created_at"],
        "updated_at": asset["updated_at"],
        "browser_download_url": f"{web}/{name}/releases/download/{tag}/{asset['name']}",
        **{key: asset[key] for key in kept},
    }


def assets_of(call: Call, release: dict[str, Any]) -> list[dict[str, Any]]:
    """The assets of a release, the oldest first."""
    return [a for a in call.store.all("assets") if a["release"] == release["id"]]


def release_view(call: Call, release: dict[str, Any]) -> dict[str, Any]:
    """A release as GitHub shows it."""
    name, number = release["repository"], release["id"]
    url = f"{call.base}/repos/{name}/releases/{number}"
    draft = release["draft"]
    tag = f"untagged-{number}" if draft else release["tag_name"]
    ball = None if draft else f"{call.base}/repos/{name}/tarball/{tag}"
    kept = ("id", "tag_name", "target_commitish", "name", "body", "draft", "prerelease")
    return {
        "url": url,
        "html_url": f"https://github.com/{name}/releases/tag/{tag}",
        "assets_url": f"{url}/assets",
        "upload_url": f"{call.uploads}/repos/{name}/releases/{number}/assets{{?name,label}}",
        "tarball_url": ball,
        "zipball_url": ball and ball.replace("tarball", "zipball"),
        "node_id": f"RE_{number}",
        "immutable": release["immutable"],
        "created_at": release["created_at"],
        "updated_at": release["updated_at"],
        "published_at": release["published_at"],
        "author": user("octocat"),
        "assets": [asset_view(call, asset) for asset in assets_of(call, release)],
        **{key: release[key] for key in kept},
    }


def may_push(call: Call) -> bool:
    """Whether the token sees drafts."""
    return call.token is not None and call.token.may("contents", "write")


def all_releases(call: Call) -> list[dict[str, Any]]:
    """The repository's releases that the token sees, the newest first."""
    name = repository(call)["full_name"]
    found = [r for r in call.store.all("releases") if r["repository"] == name]
    if not may_push(call):
        found = [release for release in found if not release["draft"]]
    return sorted(found, key=lambda release: -int(release["id"]))


def find_release(call: Call) -> dict[str, Any]:
    """The release of the request; 404 if there is none."""
    for release in all_releases(call):
        if str(release["id"]) == call.values["release_id"]:
            return release
    raise Refusal(404, "Not Found")


def find_asset(call: Call) -> tuple[dict[str, Any], dict[str, Any]]:
    """The asset of the request and its release; 404 if there is none."""
    asset = call.store.get("assets", call.values["asset_id"])
    for release in all_releases(call) if asset else []:
        if release["id"] == asset["release"]:
            return asset, release
    raise Refusal(404, "Not Found")


# --- releases ----------------------------------------------------------------


def _invalid(resource: str, code: str, name: str) -> Refusal:
    error = {"resource": resource, "code": code, "field": name}
    return Refusal(422, "Validation Failed", [error])


def _check_tag(call: Call, release: dict[str, Any]) -> None:
    """Refuse a second published release of a tag, and a tag that is spent."""
    if release["draft"]:
        return
    for other in all_releases(call):
        same = other["tag_name"] == release["tag_name"] and other["id"] != release["id"]
        if same and not other["draft"]:
            raise _invalid("Release", "already_exists", "tag_name")
    if release["tag_name"] in (call.store.get("spent_tags", release["repository"]) or []):
        message = "tag_name was used by an immutable release"
        error = {
            "resource": "Release",
            "code": "custom",
            "field": "tag_name",
            "message": message,
        }
        raise Refusal(422, "Validation Failed", [error])


def _publish(call: Call, release: dict[str, Any], make_latest: str) -> None:
    """What publishing does: the tag, the time, the mark of the latest, immutability."""
    repo = repository(call)
    if release["tag_name"] not in repo["tags"]:
        repo["tags"][release["tag_name"]] = release["target_commitish"]
        call.store.put("repositories", repo["full_name"].lower(), repo)
    release["published_at"] = now()
    release["immutable"] = bool(repo["immutable"])
    if make_latest == "true" and not release["prerelease"]:
        call.store.put("latest", repo["full_name"], release["id"])


def list_releases(call: Call) -> Answer:
    """Drafts only for those who may push."""
    return call.page([release_view(call, release) for release in all_releases(call)])


def create_release(call: Call) -> Answer:
    """A draft bears no tag yet, so several of one tag are no conflict."""
    repo = repository(call)
    given = call.json()
    call.need("contents", "write")
    if not given.get("tag_name"):
        raise _invalid("Release", "missing_field", "tag_name")
    with call.store.lock:
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
        _check_tag(call, release)
        if not release["draft"]:
            _publish(call, release, given.get("make_latest") or "true")
        call.store.put("releases", release["id"], release)
        return Answer(201, release_view(call, release))


def get_release(call: Call) -> Answer:
    """One release, draft or not, by its number."""
    with call.store.lock:
        return Answer(200, release_view(call, find_release(call)))


def update_release(call: Call) -> Answer:
    """Also publishes, which is refused while the tag has another published release."""
    given = call.json()
    call.need("contents", "write")
    with call.store.lock:
        before = find_release(call)
        if before["immutable"] and set(given) - {"name", "body", "prerelease", "make_latest"}:
            if given.get("tag_name", before["tag_name"]) != before["tag_name"]:
                raise Refusal(422, "Cannot change the tag of an immutable release.")
        kept = {
            "tag_name", "target_commitish", "name", "body", "draft", "prerelease"
        }  # fmt: skip
        release = {**before, **{k: v for k, v in given.items() if k in kept}}
        _check_tag(call, release)
        if before["draft"] and not release["draft"]:
            _publish(call, release, given.get("make_latest") or "true")
        release["updated_at"] = now()
        call.store.put("releases", release["id"], release)
        return Answer(200, release_view(call, release))


def delete_release(call: Call) -> Answer:
    """With its assets; the tag of an immutable release can never be used again."""
    call.need("contents", "write")
    with call.store.lock:
        release = find_release(call)
        if release["immutable"]:
            spent = call.store.get("spent_tags", release["repository"]) or []
            call.store.put("spent_tags", release["repository"], [*spent, release["tag_name"]])
        # The release goes first: nothing is ever seen published without its assets.
        assets = assets_of(call, release)
        call.store.drop("releases", release["id"])
        for asset in assets:
            call.store.drop("assets", asset["id"])
    return Answer(204)


def get_by_tag(call: Call) -> Answer:
    """A published release by its tag; a draft is not found so."""
    with call.store.lock:
        for release in all_releases(call):
            if release["tag_name"] == call.values["tag"] and not release["draft"]:
                return Answer(200, release_view(call, release))
    raise Refusal(404, "Not Found")


def get_latest(call: Call) -> Answer:
    """The release that bears the mark of the latest."""
    with call.store.lock:
        number = call.store.get("latest", repository(call)["full_name"])
        release = call.store.get("releases", number) if number else None
        if not release:
            raise Refusal(404, "Not Found")
        return Answer(200, release_view(call, release))


def generate_notes(call: Call) -> Answer:
    """Needs the right to write contents, and changes nothing."""
    repo = repository(call)
    given = call.json()
    call.need("contents", "write")
    if not given.get("tag_name"):
        raise _invalid("Release", "missing_field", "tag_name")
    tag, name = given["tag_name"], repo["full_name"]
    body = (
        "## What's Changed\n"
        f"* A change by @octocat in https://github.com/{name}/pull/1\n\n"
        f"**Full Changelog**: https://github.com/{name}/commits/{tag}"
    )
    return Answer(200, {"name": tag, "body": body})


# --- assets ------------------------------------------------------------------


def list_assets(call: Call) -> Answer:
    """Unfinished ones too, in state ``starter``."""
    with call.store.lock:
        release = find_release(call)
        return call.page([asset_view(call, asset) for asset in assets_of(call, release)])


def _new_asset(call: Call) -> dict[str, Any]:
    """Take the name; the asset stays a ``starter`` until all bytes are there."""
    name = re.sub(r"[^A-Za-z0-9._@-]", ".", call.query.get("name") or "")
    if not name:
        raise Refusal(422, "Validation Failed")
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
        return asset


def upload_asset(call: Call) -> Answer:
    """Streamed to a file; the digest is taken as it comes."""
    call.need("contents", "write")
    asset = _new_asset(call)
    folder = call.store.folder / "blobs"
    folder.mkdir(exist_ok=True)
    digest, path = hashlib.sha256(), folder / str(asset["id"])
    half = getattr(call.handler, "half", None)
    with path.open("wb") as target:
        while call.handler.unread:
            if half is not None and call.length - call.handler.unread >= half:
                call.handler.reset()
            wanted = 1 << 18 if half is None else min(1 << 18, max(1, half))
            piece = call.handler.read_body(wanted)
            digest.update(piece)
            target.write(piece)
    if call.length == 0:
        raise Refusal(400, "Bad Content-Length")
    with call.store.lock:
        if not call.store.get("assets", asset["id"]):
            raise Refusal(404, "Not Found")
        done = {"state": "uploaded", "size": call.length, "updated_at": now()}
        if not call.server.no_digests:
            done["digest"] = f"sha256:{digest.hexdigest()}"
        call.store.put("assets", asset["id"], {**asset, **done})
        return Answer(201, asset_view(call, {**asset, **done}))


def get_asset(call: Call) -> Answer:
    """Its data, or with ``Accept: application/octet-stream`` a redirect to its bytes."""
    with call.store.lock:
        asset, _ = find_asset(call)
        if "octet-stream" in call.header("Accept"):
            return Answer(302, headers={"Location": f"{call.server.storage}/{asset['id']}"})
        return Answer(200, asset_view(call, asset))


def update_asset(call: Call) -> Answer:
    """A new name or label."""
    given = call.json()
    call.need("contents", "write")
    with call.store.lock:
        asset, release = find_asset(call)
        if release["immutable"]:
            raise Refusal(422, "Cannot update assets of an immutable release.")
        names = {a["name"] for a in assets_of(call, release) if a["id"] != asset["id"]}
        if given.get("name") in names:
            raise _invalid("ReleaseAsset", "already_exists", "name")
        changed = {k: given[k] for k in ("name", "label", "state") if k in given}
        call.store.put("assets", asset["id"], {**asset, **changed, "updated_at": now()})
        return Answer(200, asset_view(call, {**asset, **changed}))


def delete_asset(call: Call) -> Answer:
    """Refused on an immutable release."""
    call.need("contents", "write")
    with call.store.lock:
        asset, release = find_asset(call)
        if release["immutable"]:
            raise Refusal(422, "Cannot delete asset from an immutable release.")
        call.store.drop("assets", asset["id"])
    return Answer(204)


# --- the rest ----------------------------------------------------------------


def get_commit(call: Call) -> Answer:
    """The commit of a tag."""
    ref = call.values["ref"]
    sha = repository(call)["tags"].get(ref.removeprefix("refs/").removeprefix("tags/"))
    if sha is None:
        raise Refusal(422, f"No commit found for SHA: {ref}")
    name = f"{call.values['owner']}/{call.values['repo']}"
    return Answer(200, {"sha": sha, "url": f"{call.base}/repos/{name}/commits/{sha}"})


def rate_limit(call: Call) -> Answer:
    """The state of the limits; asking costs nothing."""
    core = {
        "limit": call.server.limit,
        "used": call.server.used,
        "remaining": max(0, call.server.limit - call.server.used),
        "reset": int(time.time()) + 3600,
    }
    search = {"limit": 30, "used": 0, "remaining": 30, "reset": int(time.time()) + 60}
    return Answer(200, {"resources": {"core": core, "search": search}, "rate": core})


def graphql(call: Call) -> Answer:
    """The two questions that ``gh release`` asks by GraphQL: one release, all releases."""
    given = call.json()
    variables = given.get("variables") or {}
    call.values |= {"owner": variables.get("owner", ""), "repo": variables.get("name", "")}
    with call.store.lock:
        releases = all_releases(call)
        latest = call.store.get("latest", repository(call)["full_name"])
    if "releases(first" in given.get("query", ""):
        nodes = [
            {
                "name": release["name"],
                "tagName": release["tag_name"],
                "isDraft": release["draft"],
                "isLatest": release["id"] == latest,
                "isPrerelease": release["prerelease"],
                "createdAt": release["created_at"],
                "publishedAt": release["published_at"],
            }
            for release in releases
        ]
        found: dict[str, Any] = {
            "releases": {"nodes": nodes, "pageInfo": {"hasNextPage": False}}
        }
    else:
        tag = variables.get("tagName")
        same = [release for release in releases if release["tag_name"] == tag]
        one = {"databaseId": same[0]["id"], "isDraft": same[0]["draft"]} if same else None
        found = {"release": one}
    return Answer(200, {"data": {"repository": found}})


_R = "/repos/{owner}/{repo}"
_UPLOAD = _R + "/releases/{release_id}/assets"
_ASSET = _R + "/releases/assets/{asset_id}"
ROUTES = [
    Route("GET", _R + "/releases", "repos/list-releases", list_releases),
    Route("POST", _R + "/releases", "repos/create-release", create_release),
    Route("GET", _R + "/releases/latest", "repos/get-latest-release", get_latest),
    Route("GET", _R + "/releases/tags/{tag*}", "repos/get-release-by-tag", get_by_tag),
    Route(
        "POST",
        _R + "/releases/generate-notes",
        "repos/generate-release-notes",
        generate_notes,
    ),
    Route("GET", _ASSET, "repos/get-release-asset", get_asset),
    Route("PATCH", _ASSET, "repos/update-release-asset", update_asset),
    Route("DELETE", _ASSET, "repos/delete-release-asset", delete_asset),
    Route("GET", _R + "/releases/{release_id}", "repos/get-release", get_release),
    Route("PATCH", _R + "/releases/{release_id}", "repos/update-release", update_release),
    Route("DELETE", _R + "/releases/{release_id}", "repos/delete-release", delete_release),
    Route("GET", _UPLOAD, "repos/list-release-assets", list_assets),
    Route("UPLOAD POST", _UPLOAD, "repos/upload-release-asset", upload_asset),
    Route("GET", _R + "/commits/{ref*}", "repos/get-commit", get_commit),
    Route("POST", "/graphql", "graphql", graphql),
    Route("GET", "/rate_limit", "rate-limit/get", rate_limit),
]
