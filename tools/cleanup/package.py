"""Reading a package: its versions from GitHub, the manifests that matter from the registry."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from typing import TypeVar

from tools.cleanup.cache import Cache
from tools.cleanup.plan import PLAIN, Facts, Package, Policy, Version, unread
from tools.core.errors import PipelineError
from tools.github.packages import Packages
from tools.registry.client import NotFound, Registry, RegistryError, Unauthorised
from tools.registry.manifest import DOCKER_MANIFEST, OCI_MANIFEST, InvalidManifest, Manifest

T = TypeVar("T")
R = TypeVar("R")

PLAIN_TYPES = (OCI_MANIFEST, DOCKER_MANIFEST)


def facts_of(manifest: Manifest) -> Facts:
    """What a manifest says of other manifests.

    Raises:
        InvalidManifest: It has a descriptor that is none.
    """
    children = manifest.children
    subject = manifest.subject
    if not children and subject is None:
        return PLAIN
    return Facts(
        tuple(dict.fromkeys(sys.intern(child.digest) for child in children)),
        tuple(
            dict.fromkeys(
                sys.intern(c.digest) for c in children if c.media_type not in PLAIN_TYPES
            )
        ),
        sys.intern(subject.digest) if subject else "",
    )


def side_by_side(
    work: Callable[[T], R], items: Iterable[T], workers: int
) -> Iterator[tuple[T, R]]:
    """Results of ``work`` on each item, as they come; a few are under way at a time.

    An exception of ``work`` ends it all: what was not begun is not begun.
    """
    with ThreadPoolExecutor(workers) as pool:
        waiting = {}
        for item in items:
            waiting[pool.submit(work, item)] = item
            if len(waiting) >= 2 * workers:
                done, _ = wait(waiting, return_when=FIRST_COMPLETED)
                for future in done:
                    yield waiting.pop(future), future.result()
        while waiting:
            done, _ = wait(waiting, return_when=FIRST_COMPLETED)
            for future in done:
                yield waiting.pop(future), future.result()


@dataclass
class Reader:
    """Reads a package, again and again: what was read before is not read twice.

    Attributes:
        packages: GitHub's side.
        registry: The registry's side.
        name: Name of the repository in the registry.
        cache: What is known already.
        workers: Requests to the registry at a time.
        told: Called with (done, all) while manifests are read.
        manifests_read: How many manifests were asked for.
    """

    packages: Packages
    registry: Registry
    name: str
    cache: Cache
    workers: int = 32
    told: Callable[[int, int], None] = lambda _done, _all: None
    manifests_read: int = 0
    _known: dict[str, Version] = field(default_factory=dict)

    def read(self, policy: Policy) -> Package:
        """All that a plan needs to know.

        Raises:
            PipelineError: The versions or the tags cannot be read, or GitHub and the
                registry speak of different packages. A single manifest that cannot be
                read is no error: the package says so.
        """
        versions: dict[str, Version] = {}
        for version in self.packages.versions():
            # The same objects as last time: a package is looked at several times.
            known = self._known.get(version.digest)
            versions[version.digest] = known if known == version else version
        self._known = versions
        self._add_unlisted_tags(versions)
        # The cache's own dictionary: what is there twice is kept once.
        facts = self.cache.facts
        package = Package(versions, facts)
        while wanted := unread(package, policy):
            package = self._read_some(package, facts, wanted)
        self._check_same(package)
        return package

    def _add_unlisted_tags(self, versions: dict[str, Version]) -> None:
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
        for tag, digest in side_by_side(self._digest_of_tag, unlisted, self.workers):
            if not digest:
                continue
            known = versions.get(digest)
            # A version of number 0 is kept for its tag, and never deleted.
            made = known or Version(0, sys.intern(digest))
            versions[digest] = replace(made, tags=(*made.tags, tag))

    def _digest_of_tag(self, tag: str) -> str:
        try:
            return self.registry.head(self.name, tag).digest
        except NotFound:
            return ""  # it went while we looked

    def _read_some(
        self, package: Package, facts: dict[str, Facts], wanted: list[str]
    ) -> Package:
        unreadable, gone = dict(package.unreadable), set(package.gone)
        failures: list[RegistryError] = []
        for number, (digest, found) in enumerate(
            side_by_side(lambda d: self._facts(package.versions[d]), wanted, self.workers), 1
        ):
            self.manifests_read += 1
            if isinstance(found, Facts):
                facts[digest] = found
            elif found is None:
                gone.add(digest)
            else:
                failures.append(found)
                unreadable[digest] = found.message
            self.told(number, len(wanted))
        if failures and not facts:
            raise failures[0]
        return replace(package, facts=facts, unreadable=unreadable, gone=frozenset(gone))

    def _facts(self, version: Version) -> Facts | RegistryError | None:
        """What a manifest says; None if it is certainly absent; else why it is unknown."""
        try:
            return facts_of(self.registry.manifest(self.name, version.digest))
        except NotFound as error:
            return self._doubt(version, error)
        except Unauthorised:
            raise  # the login is wrong for all of them
        except RegistryError as error:
            return error
        except InvalidManifest as error:
            text = f"{self.registry.host} sent a wrong manifest for {version.digest}: {error}."
            return RegistryError(text)

    def _doubt(self, version: Version, first: NotFound) -> Facts | RegistryError | None:
        """A 404 for what GitHub lists is believed only if the registry repeats it in words."""
        for reference in (version.digest, *version.tags):
            try:
                found = self.registry.manifest(self.name, reference)
            except NotFound as error:
                if "MANIFEST_UNKNOWN" not in error.said:
                    return error
            except RegistryError as error:
                return error
            else:
                return facts_of(found) if reference == version.digest else first
        return None if "MANIFEST_UNKNOWN" in first.said else first

    def _check_same(self, package: Package) -> None:
        if package.gone and not any(digest in package.facts for digest in package.versions):
            raise PipelineError(
                f"GitHub lists versions of {self.name}, and {self.registry.host} has none of"
                " them.",
                "Check REGISTRY, IMAGE_NAME and GITHUB_API_URL: they must name one package.",
            )
