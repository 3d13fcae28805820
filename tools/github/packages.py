"""Versions of a container package: GitHub's REST API, "Packages", which PyGithub lacks."""

import functools
import itertools
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from urllib.parse import quote

from github import Github

from tools.core.files import convert
from tools.github.client import PER_PAGE
from tools.github.errors import GitHubError, refusals


@dataclass(frozen=True, slots=True)
class PackageVersion:
    """One manifest of the registry, as GitHub lists it."""

    id: int  # GitHub's number of it; 0 for what only the registry knows
    digest: str
    tags: tuple[str, ...] = ()
    created: float = 0.0  # when it was pushed first, in seconds since the epoch
    updated: float = 0.0  # when it or its tags were changed last

    @property
    def changed(self) -> float:
        """The later of both times: a tag that was just set makes an old version young."""
        return max(self.created, self.updated)


class KeptByGitHub(Exception):
    """GitHub keeps the last version, the last tagged one, and what has 5,000 downloads."""


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
    """The container package of an ``image``, ``owner/name``; what comes after the owner may
    have slashes. Every method raises GitHubError where GitHub refuses.
    """

    def __init__(self, github: Github, image: str) -> None:
        self._github = github
        self.image = image
        self.listed_pages = 0

    def _ask(self, method: str, path: str, what: str) -> tuple[Mapping[str, object], object]:
        """Headers (names in small letters) and parsed body."""
        with refusals(what):
            return self._github.requester.requestJsonAndCheck(method, path)

    @functools.cached_property
    def _versions(self) -> str:
        """Path of the versions: owners are users or organisations, at different paths."""
        owner, _, name = self.image.partition("/")
        with refusals(f"the account {owner}"):
            is_organization = self._github.get_user(owner).type == "Organization"
        kind = "orgs" if is_organization else "users"
        return f"/{kind}/{owner}/packages/container/{quote(name, safe='')}/versions"

    def versions(self) -> Iterator[PackageVersion]:
        """All versions, page by page: on while a page is full (a proxy may take away the
        header that names the next) or names a next one (it may be short all the same). A
        push while we read moves versions on: they come twice then.
        """
        what = f"the versions of {self.image}"
        page: list[object] = []
        for number in itertools.count(1):
            before, path = page, f"{self._versions}?per_page={PER_PAGE}&page={number}"
            headers, data = self._ask("GET", path, what)
            self.listed_pages += 1
            try:
                page = convert(data, list[object])
                yield from map(parse_version, page)
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
        try:
            self._ask("GET", f"{self._versions}/{version.id}", version.digest)
        except GitHubError as error:
            if error.status != 404:
                raise
            return False
        return True

    def delete(self, version: PackageVersion) -> None:
        """Delete a version; one that is not there any more is as good (KeptByGitHub if GitHub
        refuses it for this version alone).
        """
        path = f"{self._versions}/{version.id}"
        try:
            self._ask("DELETE", path, f"the deletion of {version.digest}")
        except GitHubError as error:
            words = error.said.lower()
            if error.status == 400 and ("downloads" in words or "last" in words):
                raise KeptByGitHub(error.said) from error
            if error.status != 404 or self.exists(version):
                raise

    def restore(self, version: PackageVersion) -> None:
        """Bring a deleted version back; GitHub keeps deleted ones for 30 days."""
        what = f"the restoration of {version.digest}"
        self._ask("POST", f"{self._versions}/{version.id}/restore", what)
