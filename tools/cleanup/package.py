"""What is in a container package, and what needs what in it (pure).

An index reaches its children, which may be indexes too. A signature, an SBOM or another
artifact refers to its subject: by the field ``subject``, or by a tag that is made of the
subject's digest.

Sources: OCI image specification 1.1 (image-index, ``subject``); OCI distribution
specification 1.1, "Referrers Tag Schema"; sigstore/cosign, specs/SIGNATURE_SPEC.md
(``sha256-<hex>.sig``, and ``.att``, ``.sbom`` beside it).
"""

import re
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain

from msgspec import Struct

from tools.github.packages import PackageVersion

_REFERRER_TAG = re.compile(r"(sha256)-([0-9a-f]{64})(?:\.(?:sig|att|sbom))?")


class Links(Struct, frozen=True, omit_defaults=True):
    """What a manifest says of other manifests, by their digests."""

    children: tuple[str, ...] = ()  # the manifests of an index, each once
    nested: tuple[str, ...] = ()  # those that their descriptor does not call plain images
    subject: str = ""  # what it refers to


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
    """All that is known of a package, and the edges that follow from it."""

    versions: Mapping[str, PackageVersion]  # by digest
    links: Mapping[str, Links]  # by digest; more may be known than is in the package
    unreadable: Mapping[str, str] = field(default_factory=dict)  # digest to reason
    gone: Collection[str] = frozenset()  # GitHub lists it, the registry surely has it not
    # Child to the indexes that list it, referrer to what it refers to (here or not), and
    # back; what an index's descriptor says to be a plain image manifest.
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

    def unknown(self) -> list[str]:
        """Versions whose manifests were not read, and are not certainly absent."""
        return [d for d in self.versions if d not in self.links and d not in self.gone]

    def above(self, digest: str) -> tuple[str, ...]:
        """The indexes that list a manifest, and what it refers to."""
        return (*self.parents.get(digest, ()), *self.subjects.get(digest, ()))

    def living(self, roots: Mapping[str, str], within: Collection[str]) -> dict[str, str]:
        """All of ``within`` that lives for ``roots`` (digest to reason), with reasons."""

        def linked(digest: str) -> Iterator[str]:
            # Subjects too: who signs or describes an image right now still needs it.
            around = (self.referrers.get(digest, ()), self.subjects.get(digest, ()))
            others = chain(self._children(digest), *around)
            return (other for other in others if other in within)

        living = _walk(roots, linked)
        return {digest: roots.get(digest, "linked to what stays") for digest in living}

    def _children(self, digest: str) -> tuple[str, ...]:
        return self.links.get(digest, NO_LINKS).children

    def needs(self) -> dict[str, tuple[str, ...]]:
        """Each tag, with all that a pull of it needs, in the package or not."""
        return {
            tag: tuple(_walk([version.digest], self._children))
            for version in self.versions.values()
            for tag in version.tags
        }


def _walk(start: Iterable[str], step: Callable[[str], Iterable[str]]) -> dict[str, None]:
    """All that ``step`` leads to from ``start``, itself included, the nearest first."""
    reached = dict.fromkeys(start)
    queue = deque(reached)
    while queue:
        new = [one for one in step(queue.popleft()) if one not in reached]
        reached |= dict.fromkeys(new)
        queue += new
    return reached


def lacking(
    needs: Mapping[str, tuple[str, ...]], is_missing: Callable[[str], bool]
) -> dict[str, tuple[str, ...]]:
    """The tags that need something missing, with what that is."""
    missing = {tag: tuple(filter(is_missing, parts)) for tag, parts in needs.items()}
    return {tag: parts for tag, parts in missing.items() if parts}
