"""Reading a package: its versions from GitHub, the manifests that matter from the registry."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import TypeVar

from tools.cleanup.memory import Memory
from tools.cleanup.package import NO_LINKS, Links, Package
from tools.cleanup.plan import Policy, unread
from tools.core.errors import PipelineError
from tools.core.progress import Report
from tools.github.packages import Packages, PackageVersion
from tools.registry.client import NotFound, Registry, RegistryError
from tools.registry.manifest import DOCKER_MANIFEST, OCI_MANIFEST, Manifest

T = TypeVar("T")
R = TypeVar("R")

PLAIN_TYPES = (OCI_MANIFEST, DOCKER_MANIFEST)
WORKERS = 32
BATCH = 1_000  # items that wait at a time: packages are large


def links_of(manifest: Manifest) -> Links:
    """What a manifest says of other manifests."""
    nested = [
        child.digest for child in manifest.children if child.media_type not in PLAIN_TYPES
    ]
    links = Links(
        tuple(dict.fromkeys(sys.intern(child.digest) for child in manifest.children)),
        tuple(dict.fromkeys(map(sys.intern, nested))),
        sys.intern(manifest.subject.digest) if manifest.subject else "",
    )
    return NO_LINKS if links == NO_LINKS else links


def side_by_side(work: Callable[[T], R], items: Sequence[T]) -> Iterator[tuple[T, R]]:
    """Each item with the result of ``work`` on it, several at a time, in order."""
    waiting = iter(items)
    with ThreadPoolExecutor(WORKERS) as pool:
        while batch := list(islice(waiting, BATCH)):
            yield from zip(batch, pool.map(work, batch), strict=True)


@dataclass
class Reader:
    """Reads a package, again and again: what was read before is not read twice.

    Attributes:
        packages: GitHub's side.
        registry: The registry's side.
        memory: What is known already.
        report: Called with (done, all) while manifests are read.
        manifests_read: How many manifests were asked for.
    """

    packages: Packages
    registry: Registry
    memory: Memory
    report: Report = lambda done, total: None
    manifests_read: int = 0
    _known: dict[str, PackageVersion] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The repository's name in the registry."""
        return self.packages.image

    def read(self, policy: Policy) -> Package:
        """All that a plan needs to know.

        Raises:
            PipelineError: The versions or the tags cannot be read, or GitHub and the
                registry speak of different packages. A single manifest that cannot be
                read is no error: the package says so.
        """
        versions: dict[str, PackageVersion] = {}
        for version in self.packages.versions():
            # The same objects as last time: a package is looked at several times.
            known = self._known.get(version.digest)
            versions[version.digest] = known if known == version else version
        self._known = versions
        self._add_unlisted_tags(versions)
        package = Package(versions, self.memory.links)
        while digests := unread(package, policy):
            package = self._read_some(package, digests)
        if package.gone and not any(digest in self.memory.links for digest in versions):
            raise PipelineError(
                f"GitHub lists versions of {self.name}, and {self.registry.host} has none of"
                " them.",
                "Check REGISTRY, IMAGE_NAME and GITHUB_API_URL: they must name one package.",
            )
        return package

    def _add_unlisted_tags(self, versions: dict[str, PackageVersion]) -> None:
        """Believe the registry's tags too: a listing in pages can miss a version.

        A version that moves to an earlier page while we read is not seen, and what it
        needs would look free. The registry's own list of tags closes that gap.
        """
        if not versions:
            return
        listed = {tag for version in versions.values() for tag in version.tags}
        try:
            tags = self.registry.tags(self.name)
        except NotFound:
            if listed:
                raise
            tags = []  # some registries know no repository of untagged manifests alone
        unlisted = [tag for tag in tags if tag not in listed]
        for tag, digest in side_by_side(self._digest_of_tag, unlisted):
            if digest:
                # A version of number 0 is kept for its tag, and never deleted.
                version = versions.get(digest) or PackageVersion(0, sys.intern(digest))
                versions[digest] = replace(version, tags=(*version.tags, tag))

    def _digest_of_tag(self, tag: str) -> str:
        try:
            return self.registry.head(self.name, tag).digest
        except NotFound:
            return ""  # it went while we looked

    def _read_some(self, package: Package, digests: Sequence[str]) -> Package:
        unreadable, gone = dict(package.unreadable), set(package.gone)
        failures: list[RegistryError] = []
        for number, (digest, result) in enumerate(
            side_by_side(lambda digest: self._links(package.versions[digest]), digests), 1
        ):
            self.manifests_read += 1
            if isinstance(result, Links):
                self.memory.links[digest] = result
            elif result is None:
                gone.add(digest)
            else:
                failures.append(result)
                unreadable[digest] = result.message
            self.report(number, len(digests))
        if failures and not self.memory.links:
            raise failures[0]
        return Package(package.versions, self.memory.links, unreadable, gone)

    def _links(self, version: PackageVersion) -> Links | RegistryError | None:
        """What a manifest says; None if it is certainly absent; else why it is unknown."""
        try:
            return links_of(self.registry.manifest(self.name, version.digest))
        except NotFound as error:
            return self._doubt(version, error)
        except RegistryError as error:
            if error.status == 401:
                raise  # the login is wrong for all of them
            return error

    def _doubt(self, version: PackageVersion, first: NotFound) -> Links | RegistryError | None:
        """A 404 for what GitHub lists is believed only if the registry repeats it in words."""
        for reference in (version.digest, *version.tags):
            try:
                manifest = self.registry.manifest(self.name, reference)
            except NotFound as error:
                if "MANIFEST_UNKNOWN" not in error.said:
                    return error
            except RegistryError as error:
                return error
            else:
                return links_of(manifest) if reference == version.digest else first
        return None if "MANIFEST_UNKNOWN" in first.said else first
