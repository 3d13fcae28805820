"""Reading a package: its versions from GitHub, the manifests that matter from the registry."""

import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import TypeVar

from github import Github

from tools.cleanup import memory
from tools.cleanup.package import NO_LINKS, Links, Package
from tools.cleanup.plan import Policy, unread
from tools.core.errors import PipelineError
from tools.core.progress import Report
from tools.core.settings import Settings
from tools.github.errors import GitHubError
from tools.github.packages import Packages, PackageVersion
from tools.registry.client import NotFound, Registry, RegistryError
from tools.registry.manifest import DOCKER_MANIFEST, OCI_MANIFEST, Manifest

T = TypeVar("T")

PLAIN_TYPES = (OCI_MANIFEST, DOCKER_MANIFEST)
WORKERS = 32
BATCH = 1_000  # items that wait at a time: packages are large


def links_of(manifest: Manifest) -> Links:
    """What a manifest says of other manifests."""
    nested = (c.digest for c in manifest.children if c.media_type not in PLAIN_TYPES)
    links = Links(
        tuple(dict.fromkeys(sys.intern(child.digest) for child in manifest.children)),
        tuple(dict.fromkeys(map(sys.intern, nested))),
        sys.intern(manifest.subject.digest) if manifest.subject else "",
    )
    return NO_LINKS if links == NO_LINKS else links


def side_by_side(
    work: Callable[[str], T], items: Sequence[str]
) -> Iterator[tuple[str, T | RegistryError]]:
    """Each item with the result of ``work`` on it, or the registry's refusal, in order."""

    def result(item: str) -> T | RegistryError:
        try:
            return work(item)
        except RegistryError as error:
            return error

    with ThreadPoolExecutor(WORKERS) as pool:
        for start in range(0, len(items), BATCH):
            batch = items[start : start + BATCH]
            yield from zip(batch, pool.map(result, batch), strict=True)


class Reader:
    """Reads the settings' package, again and again: nothing that was read is read twice."""

    def __init__(self, settings: Settings, github: Github, registry: Registry) -> None:
        self.settings = settings
        self.name = settings.image_name  # the package, and the repository in the registry
        self.packages = Packages(github, self.name)
        self.registry = registry
        self.memory = memory.load(settings)
        self.versions: dict[str, PackageVersion] = {}  # what was there at the last look
        self.manifests_read = 0

    def remember(self) -> None:
        """Keep for the next run what was read and deleted."""
        memory.save(self.settings, self.memory, self.versions)

    def read(self, policy: Policy, report: Report = lambda _done, _total: None) -> Package:
        """All that a plan needs to know; empty if there is no such package. A manifest that
        cannot be read is no error: the package says so.

        Raises:
            PipelineError: The versions or the tags cannot be read, or GitHub and the
                registry speak of different packages.
        """
        self.versions = versions = self._versions()
        package = Package(versions, self.memory.links)
        while digests := unread(package, policy):
            package = self._read_some(package, digests, report)
        if package.gone and not any(digest in self.memory.links for digest in versions):
            raise PipelineError(
                f"GitHub lists versions of {self.name}, and {self.registry.host} has none of"
                " them.",
                "Check REGISTRY, IMAGE_NAME and GITHUB_API_URL: they must name one package.",
            )
        return package

    def _versions(self) -> dict[str, PackageVersion]:
        versions: dict[str, PackageVersion] = {}
        refused: GitHubError | None = None
        try:
            versions = {version.digest: version for version in self.packages.versions()}
        except GitHubError as error:
            refused = error
            if error.status != 404:
                raise
        try:
            tags = self.registry.tags(self.name)
        except NotFound:
            if any(version.tags for version in versions.values()):
                raise
            return versions  # no package yet, or untagged manifests alone
        if refused:
            raise refused  # a 404 of GitHub alone can mean no rights
        self._add_tags(versions, tags)
        return versions

    def _add_tags(self, versions: dict[str, PackageVersion], tags: Sequence[str]) -> None:
        """Believe the registry's tags too: a version that moves to an earlier page of the
        listing while we read is not seen in it, and what it needs would look free.
        """
        listed = {tag for version in versions.values() for tag in version.tags}
        unlisted = [tag for tag in tags if tag not in listed]
        for tag, found in side_by_side(partial(self.registry.head, self.name), unlisted):
            if isinstance(found, NotFound):
                continue  # it went while we looked
            if isinstance(found, RegistryError):
                raise found
            # A version of number 0 is kept for its tag, and never deleted.
            version = versions.get(found.digest) or PackageVersion(0, sys.intern(found.digest))
            versions[version.digest] = replace(version, tags=(*version.tags, tag))

    def _read_some(self, package: Package, digests: Sequence[str], report: Report) -> Package:
        unreadable, gone = dict(package.unreadable), set(package.gone)
        results = side_by_side(lambda digest: self._links(package.versions[digest]), digests)
        for number, (digest, result) in enumerate(results, 1):
            self.manifests_read += 1
            if isinstance(result, Links):
                self.memory.links[digest] = result
            elif result is None:
                gone.add(digest)
            else:
                unreadable[digest] = result.message
            report(number, len(digests))
        return Package(package.versions, self.memory.links, unreadable, gone)

    def _links(self, version: PackageVersion) -> Links | None:
        """What a manifest says; None if it is certainly absent: a 404 for what GitHub lists
        is believed only if the registry repeats it, in words.
        """
        for reference in (version.digest, version.digest, *version.tags):
            try:
                manifest = self.registry.manifest(self.name, reference)
            except NotFound as error:
                if "MANIFEST_UNKNOWN" not in error.said:
                    raise
            else:
                if manifest.descriptor.digest == version.digest:
                    return links_of(manifest)
        return None
