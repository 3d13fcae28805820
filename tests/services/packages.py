"""The packages endpoints of the simulated GitHub, in front of a real registry.

Versions are the registry's manifests with their tags and times; a DELETE removes the
manifest there, a restore brings it back. Refusals are worded as GitHub words them.

By hand, with a package to try the cleanup on; it prints the variables to export::

    python -m tests.services.packages --folder /tmp/packages

Source: GitHub REST API documentation, "Packages"; wordings from issues of
dataaxiom/ghcr-cleanup-action, actions/delete-package-versions (231) and
kairos-io/kairos (4723).
"""

import argparse
import contextlib
import signal
import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.services.github import Answer, Call, GitHubServer, Refusal, Route
from tests.services.registry import Registry, Repository, digest_of, running_registry


def iso(when: float) -> str:
    """A time as GitHub writes it."""
    return datetime.fromtimestamp(when, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass
class Deleted:
    """A version that can be restored."""

    repository: Repository
    body: bytes
    media_type: str
    created: float


class PackagesService:
    """Endpoints of container packages."""

    def __init__(self, registry: Registry) -> None:
        self.registry = registry
        self.organizations: set[str] = set()  # these owners are; the others are users
        self.downloads: dict[str, int] = {}  # digest to number (of public packages)
        self.deleted: dict[int, Deleted] = {}
        self._ids: dict[tuple[str, str], int] = {}
        self._lock = threading.RLock()

    @property
    def routes(self) -> list[Route]:
        """All endpoints, for users and organisations."""
        found = [Route("GET", "/users/{owner}", "users/get-by-username", self.owner)]
        for short, long in (("org", "organization"), ("user", "user")):
            base = f"/{short}s/{{owner}}/packages/container/{{package}}/versions"
            one = f"{base}/{{id}}"
            found += [
                Route(method, path, f"packages/{name}", run)
                for method, path, name, run in (
                    ("GET", base, f"get-all-package-versions-for-package-owned-by-{short}", self.versions),
                    ("GET", one, f"get-package-version-for-{long}", self.version),
                    ("DELETE", one, f"delete-package-version-for-{short}", self.delete),
                    ("POST", f"{one}/restore", f"restore-package-version-for-{short}", self.restore),
                )
            ]  # fmt: skip
        return found

    # --- endpoints ---

    def owner(self, call: Call) -> Answer:
        """Whether an owner is a user or an organisation."""
        kind = "Organization" if call.values["owner"] in self.organizations else "User"
        return Answer(200, {"login": call.values["owner"], "id": 1, "type": kind})

    def versions(self, call: Call) -> Answer:
        """All versions, the newest first."""
        call.need("packages", "read")
        listed = self.listed(self._repository(call))
        if not listed:
            raise Refusal(404, "Package not found.")
        listed.sort(key=lambda one: (one["created_at"], one["id"]), reverse=True)
        return call.page(listed)

    def version(self, call: Call) -> Answer:
        """One version."""
        call.need("packages", "read")
        return Answer(200, self.find(call)[1])

    def delete(self, call: Call) -> Answer:
        """Delete a version, and the manifest in the registry."""
        call.need("packages", "delete")
        with self._lock:
            repository, version = self.find(call)
            digest = version["name"]
            if self.downloads.get(digest, 0) > 5000:
                raise Refusal(
                    400,
                    "Publicly visible package versions with more than 5000 downloads cannot be"
                    " deleted. Contact GitHub support for further assistance.",
                )
            tagged = set(repository.tags().values())
            for kind, among in (("", repository.digests()), ("tagged ", tagged)):
                if among == {digest}:
                    raise Refusal(
                        400,
                        f"You cannot delete the last {kind}version of a package. You must delete"
                        " the package instead.",
                    )
            got = repository._request((200,), "GET", f"manifests/{digest}")
            kind, created = got.headers["Content-Type"], repository.pushed_at(digest)
            self.deleted[version["id"]] = Deleted(repository, got.data, kind, created)
            repository.delete(digest)
        return Answer(204)

    def restore(self, call: Call) -> Answer:
        """Bring a deleted version back."""
        call.need("packages", "write")
        number = int(call.values["id"])
        with self._lock:
            gone = self.deleted.pop(number, None)
            if gone is None:
                raise Refusal(404, "Not Found")
            digest = digest_of(gone.body)
            path = f"/v2/{gone.repository.name}/manifests/{digest}"
            kind = {"Content-Type": gone.media_type}
            if self.registry.request("PUT", path, gone.body, kind).status != 201:
                self.deleted[number] = gone
                raise Refusal(400, "Package version cannot be restored.")
            gone.repository.set_age(digest, time.time() - gone.created)
        return Answer(204)

    # --- inside ---

    def _repository(self, call: Call) -> Repository:
        return Repository(self.registry, f"{call.values['owner']}/{call.values['package']}")

    def find(self, call: Call) -> tuple[Repository, dict[str, Any]]:
        """The version that a request is about, and where it is."""
        repository, number = self._repository(call), int(call.values["id"])
        for version in self.listed(repository):
            if version["id"] == number:
                return repository, version
        raise Refusal(404, "Not Found")

    def listed(self, repository: Repository) -> list[dict[str, Any]]:
        """All versions, as GitHub describes them."""
        tags: dict[str, list[str]] = {}
        for tag, digest in repository.tags().items():
            tags.setdefault(digest, []).append(tag)
        found = []
        for digest in repository.digests():
            with contextlib.suppress(FileNotFoundError):  # it went while we looked
                found.append(self._describe(repository, digest, tags.get(digest, [])))
        return found

    def _describe(self, repository: Repository, digest: str, tags: list[str]) -> dict[str, Any]:
        created = repository.pushed_at(digest)
        updated = max([created, *(repository.tag_link(tag).stat().st_mtime for tag in tags)])
        with self._lock:
            number = self._ids.setdefault((repository.name, digest), 10_000 + len(self._ids))
        return {
            "id": number,
            "name": digest,
            "url": f"https://api.github.com/users/o/packages/container/p/versions/{digest}",
            "package_html_url": "https://github.com/users/o/packages/container/package/p",
            "created_at": iso(created),
            "updated_at": iso(updated),
            "metadata": {"package_type": "container", "container": {"tags": tags}},
        }


def fill(repository: Repository) -> dict[str, str]:
    """A small package with one of everything; name to digest of what must go."""
    kept = repository.build("v1", "amd64", "arm64")
    repository.build("latest")
    repository.image_manifest("plain", docker=True)
    inner = repository.build("", "riscv64")
    repository.index([repository.image_manifest(), inner], "nested")
    repository.cosign(kept)
    artifact = repository.artifact(kept, "application/vnd.example.sbom")
    repository.referrers_tag(kept, [artifact])
    stale = repository.build("", "amd64")
    going = {"stale": stale.digest, "stale signature": repository.cosign(stale).digest}
    for child in repository.get(stale.digest)["manifests"]:
        going[f"part {len(going)}"] = child["digest"]
    going["single"] = repository.image_manifest().digest
    orphan = repository.artifact(stale, "application/vnd.example.sbom")
    going["artifact"] = orphan.digest
    return going


def main() -> None:
    """Run until interrupted or terminated."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--image", default="owner/name")
    given = parser.parse_args()
    with running_registry(given.folder / "registry") as registry:
        service = PackagesService(registry)
        with GitHubServer(given.folder / "github", service.routes) as server:
            server.add_token("simulated-token")
            fill(repository := registry.repository(given.image))
            repository.set_all_ages(30 * 86400)
            print(f"export REGISTRY={registry.address} IMAGE_NAME={given.image}")
            print(f"export GITHUB_API_URL={server.url} GH_TOKEN=simulated-token", flush=True)
            signal.signal(signal.SIGTERM, signal.default_int_handler)
            with contextlib.suppress(KeyboardInterrupt):
                signal.pause()


if __name__ == "__main__":
    main()
