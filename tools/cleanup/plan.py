"""Which versions of a container package may go: pure, from data to data.

What lives: what has a tag that a person gave, the newest images without one, and what is
young; then all that these reach, and all that refers to what lives. The rest goes, parents
before their children and subjects before what refers to them: wherever a run is
interrupted, no tag has lost a part.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from graphlib import CycleError, TopologicalSorter

from tools.cleanup.package import Package, own_tags, short
from tools.github.packages import PackageVersion

DAY = 86400.0


@dataclass(frozen=True)
class Policy:
    """What is to be kept.

    Attributes:
        keep: How many of the newest images without a tag are kept.
        grace: Seconds for which everything is kept after a change.
        older_than: Only what was not changed for so many seconds may go.
        tags_matching: Patterns (``pr-*``); a version may go in spite of its tags if each
            of them matches one. None by default: what is tagged stays.
        keep_tags: Patterns of tags that always stay.
        now: Seconds since the epoch.
    """

    keep: int = 10
    grace: float = DAY
    older_than: float = 0.0
    tags_matching: tuple[str, ...] = ()
    keep_tags: tuple[str, ...] = ()
    now: float = 0.0

    def is_young(self, version: PackageVersion) -> bool:
        """Whether a version is kept for its age alone."""
        return version.changed > self.now - max(self.grace, self.older_than)

    def may_lose(self, tags: Collection[str]) -> bool:
        """Whether a version with these tags (not those of referrers) may go."""

        def matches(tag: str, patterns: Iterable[str]) -> bool:
            return any(fnmatchcase(tag, pattern) for pattern in patterns)

        if any(matches(tag, self.keep_tags) for tag in tags):
            return False
        return all(matches(tag, self.tags_matching) for tag in tags)


@dataclass(frozen=True, slots=True)
class Deletion:
    """A version that goes.

    Attributes:
        id: GitHub's number of it.
        digest: Digest of its manifest.
        tags: Its tags.
        created: When it was pushed first (ISO 8601, UTC).
        reason: Why it is not kept.
        after: Digests that must be gone before it: parents and subjects that go too.
    """

    id: int
    digest: str
    tags: tuple[str, ...]
    created: str
    reason: str
    after: tuple[str, ...] = ()


@dataclass(frozen=True)
class CleanupPlan:
    """What happens to each version, and why.

    Attributes:
        to_delete: What goes, in an order that can be interrupted anywhere.
        kept: Digest to reason of what stays.
        broken: Tag to the digests that it needs and the package doesn't have.
        undecided: Digest to reason: manifests that could not be read. Nothing that they
            could reach is deleted.
    """

    to_delete: tuple[Deletion, ...]
    kept: Mapping[str, str]
    broken: Mapping[str, tuple[str, ...]]
    undecided: Mapping[str, str]


def make_plan(
    package: Package, policy: Policy, within: Collection[str] | None = None
) -> CleanupPlan:
    """Decide what goes.

    Args:
        package: Versions and manifests.
        policy: What is to be kept.
        within: Digests that an earlier plan deletes: nothing else goes, nor what it needs.

    Returns:
        The plan. A second one, made of what the first leaves, deletes nothing.
    """
    undecided = package.undecided()
    if undecided:
        reason = "a manifest that could not be read may need it"
        kept = dict.fromkeys(package.versions, reason)
    else:
        kept = _decide(package, policy)
    if within is not None:
        others = (d for d in package.versions if d not in kept and d not in within)
        kept = package.living(
            {**kept, **dict.fromkeys(others, "not planned")}, package.versions
        )
    to_delete = []
    for digest, after in _ordered(package, [d for d in package.versions if d not in kept]):
        version = package.versions[digest]
        created = datetime.fromtimestamp(version.created, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        reason = _reason(package, policy, version, kept)
        to_delete.append(Deletion(version.id, digest, version.tags, created, reason, after))
    unreadable = {d: why for d, why in package.unreadable.items() if d in package.versions}
    return CleanupPlan(
        tuple(to_delete), kept, package.broken_tags(), {**unreadable, **undecided}
    )


def unread(package: Package, policy: Policy) -> list[str]:
    """What must be read next to decide; empty when all is known that matters.

    First what is tagged, then all but the plain parts of images that live for their tags:
    such a part lives as well, and reaches nothing.
    """
    new = [digest for digest in package.versions if not package.was_tried(digest)]
    tagged = [digest for digest in new if package.versions[digest].tags]
    if tagged or not new:
        return tagged
    living = package.living(_tagged(package.versions, policy), package.versions)
    return [digest for digest in new if digest not in living or digest not in package.plain]


# --- what stays --------------------------------------------------------------


def _decide(package: Package, policy: Policy) -> dict[str, str]:
    """What stays, each with the reason."""
    there = package.versions
    # Without its parents a part may count as an image: decide again over what is left.
    while len(kept := _keep(package, policy, there)) < len(there):
        there = {digest: there[digest] for digest in kept}
    return kept


def _keep(
    package: Package, policy: Policy, there: Mapping[str, PackageVersion]
) -> dict[str, str]:
    """What of ``there`` lives, each with the reason."""
    roots = _tagged(there, policy)
    images = [v for d, v in there.items() if d not in roots and is_image(package, d, there)]
    images.sort(key=_age, reverse=True)
    if images and not roots and all(image.digest in package.subjects for image in images):
        # Signatures may be kept in a package of their own.
        return dict.fromkeys(there, "its subject is in another package")
    for digest, version in there.items():
        if digest in package.unreadable:
            roots.setdefault(digest, "it could not be read")
        elif policy.is_young(version):
            roots.setdefault(digest, "changed within the grace period")
    for image in images[: policy.keep]:
        roots.setdefault(image.digest, f"one of the newest {policy.keep}")
    kept = package.living(roots, there)
    # GitHub refuses to delete the last tagged version of a package, and the last of all.
    tagged = [version for version in there.values() if version.tags]
    if tagged and not any(version.digest in kept for version in tagged):
        last = {max(tagged, key=_age).digest: "the last tagged version"}
        kept = package.living({**kept, **last}, there)
    if there and not kept:
        newest = max(images or there.values(), key=_age)
        kept = package.living({newest.digest: "the last version"}, there)
    return kept


def is_image(package: Package, digest: str, there: Collection[str]) -> bool:
    """Whether a version counts as an image: nothing here lists it, and it refers to nothing
    here. All else is a part, a signature or another artifact of something.
    """
    parents = package.parents.get(digest, ())
    subjects = package.subjects.get(digest, ())
    return not any(other in there for other in (*parents, *subjects))


def _tagged(versions: Mapping[str, PackageVersion], policy: Policy) -> dict[str, str]:
    """What lives for its tags, and what GitHub doesn't list: that cannot be deleted."""
    roots: dict[str, str] = {}
    for digest, version in versions.items():
        tags = own_tags(version)
        if not version.id:
            roots[digest] = "in the registry alone"
        elif tags and not policy.may_lose(tags):
            roots[digest] = f"tagged {', '.join(tags)}"
    return roots


def _age(version: PackageVersion) -> tuple[float, int]:
    """Sorts versions by age, the oldest first."""
    return version.created, version.id


# --- what goes ---------------------------------------------------------------


def _ordered(
    package: Package, digests: Collection[str]
) -> Iterator[tuple[str, tuple[str, ...]]]:
    """What goes, in order, each with what must be gone before: its parents and subjects."""
    going = dict.fromkeys(digests)
    parents = {d: tuple(p for p in package.parents.get(d, ()) if p in going) for d in going}
    before = {
        d: tuple(
            dict.fromkeys((*above, *(s for s in package.subjects.get(d, ()) if s in going)))
        )
        for d, above in parents.items()
    }
    while True:
        try:
            for digest in tuple(TopologicalSorter(before).static_order()):
                yield digest, before[digest]
            return
        except CycleError as error:
            # Manifests hold digests, so parents cannot make a circle; tags can make one (an
            # index tagged as referrer of its own child). Then subjects have to wait.
            before |= {digest: parents[digest] for digest in error.args[1]}


def _reason(
    package: Package, policy: Policy, version: PackageVersion, kept: Collection[str]
) -> str:
    """Why a version goes."""
    if own_tags(version):
        return "its tags match"
    subjects = package.subjects.get(version.digest, ())
    if subjects:
        here = [subject for subject in subjects if subject in package.versions]
        fate = "goes" if here else "is gone"
        return f"refers to {short((here or subjects)[0])}, which {fate}"
    for parent in package.parents.get(version.digest, ()):
        if parent not in kept:
            return f"part of {short(parent)}, which goes"
    return f"untagged, not one of the newest {policy.keep}"
