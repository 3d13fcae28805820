"""What is in a container package, and what needs what in it (pure).

An index reaches its children, which may be indexes too. A signature, an SBOM or another
artifact refers to its subject: by the field ``subject``, or by a tag that is made of the
subject's digest.

Sources: OCI image specification 1.1 (image-index, ``subject``); OCI distribution
specification 1.1, "Referrers Tag Schema"; sigstore/cosign, specs/SIGNATURE_SPEC.md
(``sha256-<hex>.sig``, and ``.att``, ``.sbom`` beside it).
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field

from tools.github.packages import PackageVersion

_REFERRER_TAG = re.compile(r"(sha256)-([0-9a-f]{64})(?:\.(?:sig|att|sbom))?")


@dataclass(frozen=True, slots=True)
class Links:
    """What a manifest says of other manifests.

    Attributes:
        children: Digests of an index's manifests, each once.
        nested: Those of them that may have children of their own: their descriptor does
            not say that they are plain image manifests.
        subject: Digest that it refers to; empty for none.
    """

    children: tuple[str, ...] = ()
    nested: tuple[str, ...] = ()
    subject: str = ""


NO_LINKS = Links()


def subject_of_tag(tag: str) -> str:
    """The digest that a referrer's tag is made of; empty for any other tag."""
    match = _REFERRER_TAG.fullmatch(tag)
    return f"{match.group(1)}:{match.group(2)}" if match else ""


def own_tags(version: PackageVersion) -> tuple[str, ...]:
    """The tags that a person gave: those that are not a referrer's."""
    return tuple(tag for tag in version.tags if not subject_of_tag(tag))


def short(digest: str) -> str:
    """A digest as people compare them: its first 12 hexadecimal digits."""
    return digest.partition(":")[2][:12]


@dataclass
class Package:
    """All that is known of a package, and the edges that follow from it.

    Attributes:
        versions: By digest.
        links: What was read, by digest; more may be known than is in the package.
        unreadable: Digest to reason: neither read nor certainly absent.
        gone: Listed by GitHub, but the registry says that it has no such manifest.
        parents: Child to the indexes that list it.
        subjects: Referrer to what it refers to, in the package or not.
        referrers: Subject to what refers to it.
        plain: What an index's descriptor says to be a plain image manifest.
    """

    versions: Mapping[str, PackageVersion]
    links: Mapping[str, Links]
    unreadable: Mapping[str, str] = field(default_factory=dict)
    gone: Collection[str] = frozenset()
    parents: dict[str, list[str]] = field(init=False, default_factory=dict)
    subjects: dict[str, list[str]] = field(init=False, default_factory=dict)
    referrers: dict[str, list[str]] = field(init=False, default_factory=dict)
    plain: set[str] = field(init=False, default_factory=set)

    def __post_init__(self) -> None:
        for digest, version in self.versions.items():
            links = self.links.get(digest, NO_LINKS)
            for child in links.children:
                self.parents.setdefault(child, []).append(digest)
            self.plain.update(child for child in links.children if child not in links.nested)
            named = [*map(subject_of_tag, version.tags), links.subject]
            for subject in dict.fromkeys(named):
                if subject and subject != digest:
                    self.subjects.setdefault(digest, []).append(subject)
                    self.referrers.setdefault(subject, []).append(digest)

    def was_tried(self, digest: str) -> bool:
        """Whether a manifest was asked for, with whatever result."""
        return digest in self.links or digest in self.gone or digest in self.unreadable

    def undecided(self) -> dict[str, str]:
        """Manifests that could reach anything, for they were not read: digest to reason."""
        return {
            digest: self.unreadable.get(digest, "was not read")
            for digest in self.versions
            if not (digest in self.links or digest in self.gone or digest in self.plain)
        }

    def living(self, roots: Mapping[str, str], within: Collection[str]) -> dict[str, str]:
        """All of ``within`` that lives for ``roots`` (digest to reason), with reasons."""
        kept = dict(roots)
        queue = deque(roots)
        while queue:
            for other, reason in self._neighbours(queue.popleft()):
                if other in within and other not in kept:
                    kept[other] = reason
                    queue.append(other)
        return kept

    def _neighbours(self, digest: str) -> Iterator[tuple[str, str]]:
        for child in self.links.get(digest, NO_LINKS).children:
            yield child, f"part of {short(digest)}"
        for referrer in self.referrers.get(digest, ()):
            yield referrer, f"refers to {short(digest)}"
        # Who signs or describes an image right now still needs it.
        for subject in self.subjects.get(digest, ()):
            yield subject, f"subject of {short(digest)}"

    def reach(self, digest: str) -> tuple[str, ...]:
        """``digest`` and its children's children, in the package or not: what a pull needs."""
        reached = {digest: None}
        queue = deque(reached)
        while queue:
            for child in self.links.get(queue.popleft(), NO_LINKS).children:
                if child not in reached:
                    reached[child] = None
                    queue.append(child)
        return tuple(reached)

    def needs(self) -> dict[str, tuple[str, ...]]:
        """Each tag, with all that a pull of it needs."""
        return {
            tag: self.reach(version.digest)
            for version in self.versions.values()
            for tag in version.tags
        }

    def broken_tags(self) -> dict[str, tuple[str, ...]]:
        """Tags that need manifests which the package doesn't have, with their digests."""
        there = self.versions.keys() - set(self.gone)
        lacking = {
            tag: tuple(digest for digest in parts if digest not in there)
            for tag, parts in self.needs().items()
        }
        return {tag: missing for tag, missing in lacking.items() if missing}
