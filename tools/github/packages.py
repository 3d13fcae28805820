"""Versions of a container package through the GitHub Packages API, which PyGithub lacks.

Source: GitHub REST API documentation, "Packages"; names with slashes are escaped.
"""

from __future__ import annotations

import itertools
import re
import sys
import urllib.parse
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime

from github import Github

from tools.core.files import convert
from tools.github.client import PER_PAGE
from tools.github.errors import GitHubError, refusals


@dataclass(frozen=True, slots=True)
class PackageVersion:
    """One manifest of the registry, as GitHub lists it.

    Attributes:
        id: GitHub's number of it; 0 for what only the registry knows.
        digest: Digest of the manifest.
        tags: Its tags; empty for an untagged one.
        created: When it was pushed first, in seconds since the epoch.
        updated: When it or its tags were changed last.
    """

    id: int
    digest: str
    tags: tuple[str, ...] = ()
    created: float = 0.0
    updated: float = 0.0

    @property
    def changed(self) -> float:
        """The later of both times: a tag that was just set makes an old version young."""
        return max(self.created, self.updated)


class KeptByGitHub(Exception):
    """GitHub keeps the last version, the last tagged one, and public ones of more than
    5,000 downloads.
    """


@dataclass
class _Container:
    tags: tuple[str, ...]


@dataclass
class _Metadata:
    container: _Container


@dataclass
class _Listed:
    """A version as the API sends it."""

    id: int
    name: str
    metadata: _Metadata
    created_at: datetime
    updated_at: datetime | None = None


def parse_version(data: object) -> PackageVersion:
    """A version from the API's JSON; ValueError if a field is missing or wrong."""
    one = convert(data, _Listed)
    created, updated = one.created_at, one.updated_at or one.created_at
    # One object a digest, however many indexes name it: packages are large.
    digest, tags = sys.intern(one.name), one.metadata.container.tags
    return PackageVersion(one.id, digest, tags, created.timestamp(), updated.timestamp())


class Packages:
    """A container package; every method raises GitHubError where GitHub refuses.

    Args:
        github: The client.
        image: ``owner/name``; what comes after the owner may have slashes.
    """

    def __init__(self, github: Github, image: str) -> None:
        self._github = github
        self.image = image
        self._base = ""
        self.listed_pages = 0

    def _ask(
        self, method: str, path: str, what: str, **query: int
    ) -> tuple[Mapping[str, object], object]:
        """Headers (names in small letters) and parsed body."""
        address = path + (f"?{urllib.parse.urlencode(query)}" if query else "")
        with refusals(what):
            return self._github.requester.requestJsonAndCheck(method, address)

    @property
    def base(self) -> str:
        """Path of the package: owners are users or organisations, at different paths."""
        if not self._base:
            owner, _, name = self.image.partition("/")
            owner, name = (urllib.parse.quote(part, safe="") for part in (owner, name))
            path = f"/{owner}/packages/container/{name}"
            self._base = ("/orgs" if self._is_organisation(owner, path) else "/users") + path
        return self._base

    def _is_organisation(self, owner: str, path: str) -> bool:
        """Whether the owner is one: GitHub says so, or has the package at that path."""
        account = self._if_there(f"/users/{owner}")
        if isinstance(account, dict) and account.get("type") in {"Organization", "User"}:
            return bool(account["type"] == "Organization")
        return self._if_there(f"/orgs{path}/versions", per_page=1) is not None

    def _if_there(self, path: str, **query: int) -> object:
        try:
            return self._ask("GET", path, path, **query)[1]
        except GitHubError as error:
            if error.status == 404:
                return None
            raise

    def versions(self) -> Iterator[PackageVersion]:
        """All versions, page by page: on while a page is full (a proxy may take away the
        header that names the next) or names a next one (it may be short all the same). A
        push while we read moves versions on: they come twice then.
        """
        what = f"the versions of {self.image}"
        page: list[object] = []
        for number in itertools.count(1):
            before, path = page, f"{self.base}/versions"
            headers, data = self._ask("GET", path, what, per_page=PER_PAGE, page=number)
            self.listed_pages += 1
            try:
                page = convert(data, list[object])
                yield from [parse_version(one) for one in page]
            except ValueError as error:
                raise GitHubError(
                    f"GitHub sent something else than {what}: {error}.",
                    "Run it again; nothing was deleted.",
                ) from error
            more = len(page) >= PER_PAGE or re.search(r'rel="?next', str(headers.get("link")))
            if not more or page == before:  # the same again: a server that has no pages
                return

    def exists(self, version: PackageVersion) -> bool:
        """Whether a version is there."""
        return self._if_there(f"{self.base}/versions/{version.id}") is not None

    def delete(self, version: PackageVersion) -> None:
        """Delete a version; one that is not there any more is as good.

        Raises:
            KeptByGitHub: It refuses to, for this version alone.
        """
        try:
            path = f"{self.base}/versions/{version.id}"
            self._ask("DELETE", path, f"the deletion of {version.digest}")
        except GitHubError as error:
            words = error.said.lower()
            if error.status == 400 and ("downloads" in words or "last" in words):
                raise KeptByGitHub(error.said) from error
            if error.status != 404 or self.exists(version):
                raise

    def restore(self, version: PackageVersion) -> None:
        """Bring a deleted version back; GitHub keeps deleted ones for 30 days."""
        path = f"{self.base}/versions/{version.id}/restore"
        self._ask("POST", path, f"the restoration of {version.digest}")
