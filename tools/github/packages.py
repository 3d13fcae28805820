"""Versions of a container package through the GitHub Packages API.

Requests go through :class:`tools.github.old.GitHub` (auth, retries, limits) at a pace that
stays within the secondary limits.

Source: GitHub REST API documentation, "Packages"; names with slashes are escaped.
"""

from __future__ import annotations

import re
import sys
import urllib.parse
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any

from tools.cleanup.plan import Version
from tools.github.errors import GitHubError
from tools.github.old import PER_PAGE, GitHub, Response
from tools.github.pacing import CHANGE_POINTS, READ_POINTS, Pacer
from tools.github.rules import next_page, pages_by_number

# Fewer pages at once than the pace allows: a listing is not the place to hit limits.
PAGES_AT_ONCE = 8


class TooManyDownloads(Exception):
    """GitHub keeps public versions of more than 5,000 downloads."""


class LastVersion(Exception):
    """GitHub keeps the last version, and the last tagged one, of a package."""


def seconds(text: str) -> float:
    """Seconds since the epoch of a time as GitHub writes it (ISO 8601)."""
    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


def parse_version(data: Any) -> Version:
    """A version from the API's JSON.

    Raises:
        ValueError: A field is missing or wrong: better no plan than a wrong one.
    """
    try:
        created = seconds(data["created_at"])
        # One object a digest, however many indexes name it: packages are large.
        return Version(
            int(data["id"]),
            sys.intern(str(data["name"])),
            tuple(str(tag) for tag in data["metadata"]["container"]["tags"]),
            created,
            seconds(data.get("updated_at") or data["created_at"]),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"GitHub sent a version without {error}") from error


def page_number(link: str, relation: str) -> int:
    """The page number that a ``Link`` header gives for a relation; 0 for none."""
    for part in link.split(","):
        if re.search(rf'rel="?{relation}"?', part):
            match = re.search(r"[?&]page=(\d+)", part)
            return int(match.group(1)) if match else 0
    return 0


class Packages:
    """A container package.

    Args:
        github: The client.
        image: ``owner/name``; what comes after the owner may have slashes.
        pacer: Keeps the pace.
    """

    def __init__(self, github: GitHub, image: str, pacer: Pacer) -> None:
        self.github = github
        self.pacer = pacer
        self.owner, _, self.name = image.partition("/")
        self._base = ""
        self.listed_pages = 0

    @property
    def base(self) -> str:
        """Path of the package: owners are users or organisations, at different paths."""
        if not self._base:
            owner = urllib.parse.quote(self.owner, safe="")
            name = urllib.parse.quote(self.name, safe="")
            where = "orgs" if self._is_organisation(owner, name) else "users"
            self._base = f"/{where}/{owner}/packages/container/{name}"
        return self._base

    def _is_organisation(self, owner: str, name: str) -> bool:
        """Whether the owner is one: GitHub says so, or has the package at that path."""
        try:
            found = self._read(f"/users/{owner}").data
        except GitHubError as error:
            if error.status != 404:
                raise
            found = None  # an account that is hidden from this token
        if isinstance(found, dict) and found.get("type") in {"Organization", "User"}:
            return bool(found["type"] == "Organization")
        return self._has_versions(f"/orgs/{owner}/packages/container/{name}")

    def _has_versions(self, base: str) -> bool:
        try:
            self._read(f"{base}/versions", per_page=1)
        except GitHubError as error:
            if error.status != 404:
                raise
            return False
        return True

    def versions(self) -> Iterator[Version]:
        """All versions, page by page.

        A push while we read moves versions to the next page: they come twice then.

        Raises:
            GitHubError: A page could not be read; status 404 if there is no such package.
        """
        for page in self._pages():
            self.listed_pages += 1
            if not isinstance(page.data, list):
                raise self._unusable("a page that is no list")
            try:
                yield from [parse_version(one) for one in page.data]
            except ValueError as error:
                raise self._unusable(str(error)) from error

    def exists(self, version: Version) -> bool:
        """Whether a version is there."""
        try:
            self._read(f"{self.base}/versions/{version.id}")
        except GitHubError as error:
            if error.status == 404:
                return False
            raise
        return True

    def delete(self, version: Version) -> None:
        """Delete a version; one that is not there any more is as good.

        Raises:
            TooManyDownloads: GitHub keeps it for its downloads.
            LastVersion: GitHub keeps it because it is the last.
            GitHubError: Anything else.
        """
        path = f"{self.base}/versions/{version.id}"
        try:
            with self.pacer.turn(CHANGE_POINTS):
                self.github.request("DELETE", path)
        except GitHubError as error:
            said = error.said.lower()
            if error.status == 400 and "downloads" in said:
                raise TooManyDownloads(error.said) from error
            if error.status == 400 and "last" in said:
                raise LastVersion(error.said) from error
            if error.status != 404 or self.exists(version):
                raise

    def restore(self, version: Version) -> None:
        """Bring a deleted version back; GitHub keeps deleted ones for 30 days.

        Raises:
            GitHubError: It could not be restored.
        """
        with self.pacer.turn(CHANGE_POINTS):
            path = f"{self.base}/versions/{version.id}/restore"
            self.github.request("POST", path, repeat=True)

    def _read(self, path: str, **params: int) -> Response:
        with self.pacer.turn(READ_POINTS):
            return self.github.request("GET", path, params=params)

    def _page(self, number: int) -> Response:
        return self._read(f"{self.base}/versions", per_page=PER_PAGE, page=number)

    def _pages(self) -> Iterator[Response]:
        """All pages: the first tells how many, the others are read side by side."""
        first = self._page(1)
        yield first
        link = first.headers.get("link", "")
        if not link:
            # A version that is not seen could be the index that keeps others.
            yield from pages_by_number(first, PER_PAGE, self._page)
            return
        last = page_number(link, "last")
        newest = first
        if last > 1:
            with ThreadPoolExecutor(PAGES_AT_ONCE) as pool:
                for newest in self._in_order(pool, range(2, last + 1)):
                    yield newest
        # What was added meanwhile, or a server that names no last page.
        while following := next_page(newest.headers.get("link", "")):
            newest = self._read(following)
            yield newest

    def _in_order(self, pool: ThreadPoolExecutor, numbers: Iterable[int]) -> Iterator[Response]:
        """Pages by number, only a few ahead of the reader: memory stays bounded."""
        waiting = []
        for number in numbers:
            waiting.append(pool.submit(self._page, number))
            if len(waiting) >= 2 * PAGES_AT_ONCE:
                yield waiting.pop(0).result()
        for one in waiting:
            yield one.result()

    def _unusable(self, what: str) -> GitHubError:
        return GitHubError(
            f"The versions of {self.owner}/{self.name} cannot be read: {what}.",
            "Run it again; nothing was deleted.",
        )
