"""Which versions of a container package may go: pure, from data to data.

What lives: what has a tag that a person gave, the newest images without one, and what is
young; then all that these reach, and all that refers to what lives. The rest goes, parents
before their children and subjects before what refers to them: wherever a run is
interrupted, no tag has lost a part.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from graphlib import CycleError, TopologicalSorter
from operator import attrgetter

from tools.cleanup.package import Package, lacking, own_tags, short
from tools.core import cli
from tools.core.settings import parse_duration
from tools.github.packages import PackageVersion

DAY = 86400.0
_age = attrgetter("created", "id")  # sorts versions, the oldest first


def whole(text: str) -> int:
    """A whole number from 0 on; ValueError otherwise."""
    if not text.isdecimal():
        raise ValueError("a whole number from 0 on")
    return int(text)


@dataclass(frozen=True)
class Policy:
    """What is to be kept, as the command line says it."""

    keep: int = cli.option(
        10, "keep the newest N images without a tag, with all parts", type=whole, metavar="N"
    )
    grace: float = cli.option(
        DAY,
        "keep what was changed within: a push (1d)",
        type=parse_duration,
        metavar="DURATION",
    )
    older_than: float = cli.option(
        0.0, "delete only what was not changed for", type=parse_duration, metavar="DURATION"
    )
    tags_matching: tuple[str, ...] = cli.option(
        (), "delete tagged images too, if all their tags match (pr-*); repeatable"
    )
    keep_tags: tuple[str, ...] = cli.option((), "always keep what has such a tag; repeatable")

    def is_young(self, version: PackageVersion, now: float) -> bool:
        """Whether a version is kept for its age alone."""
        return version.changed > now - max(self.grace, self.older_than)

    def may_lose(self, tags: Collection[str]) -> bool:
        """Whether a version with these tags (not those of referrers) may go."""
        if any(fnmatchcase(tag, pattern) for tag in tags for pattern in self.keep_tags):
            return False
        return all(any(fnmatchcase(tag, one) for one in self.tags_matching) for tag in tags)


@dataclass(frozen=True)
class CleanupPlan:
    """What happens to each version, and why; all by digest, but what is broken by tag."""

    to_delete: Mapping[str, str]  # to the reason, in an order that can be interrupted anywhere
    after: Mapping[str, tuple[str, ...]]  # to parents and subjects that must be gone before
    kept: Mapping[str, str]  # to the reason
    broken: Mapping[str, tuple[str, ...]]  # tag to what it needs and the package doesn't have
    # Manifests that could not be read, to the reason: nothing that they could reach goes.
    undecided: Mapping[str, str]


def make_plan(
    package: Package, policy: Policy, now: float, within: Collection[str] | None = None
) -> CleanupPlan:
    """Decide what goes ``now`` (seconds since the epoch); a second plan, made of what this
    one leaves, deletes nothing. If an earlier plan deletes what is ``within``, nothing else
    goes, nor what that needs.
    """
    undecided = {
        digest: package.unreadable.get(digest, "was not read")
        for digest in package.unknown()
        if digest in package.unreadable or digest not in package.plain
    }
    if all(digest in package.plain for digest in undecided):
        kept = _decide(package, policy, now)
    else:
        reason = "a manifest that could not be read may need it"
        kept = dict.fromkeys(package.versions, reason)
    if within is not None:
        others = (d for d in package.versions if d not in kept and d not in within)
        roots = {**kept, **dict.fromkeys(others, "not planned")}
        kept = package.living(roots, package.versions)
    after = _ordered(package, [d for d in package.versions if d not in kept])
    to_delete = {digest: _reason(package, policy, digest, after[digest]) for digest in after}
    there = package.versions.keys() - set(package.gone)
    broken = lacking(package.needs(), lambda digest: digest not in there)
    return CleanupPlan(to_delete, after, kept, broken, undecided)


def unread(package: Package, policy: Policy) -> list[str]:
    """What must be read next to decide; empty when all is known that matters.

    First what is tagged, then all but the plain parts of images that live for their tags:
    such a part lives as well, and reaches nothing.
    """
    new = [digest for digest in package.unknown() if digest not in package.unreadable]
    tagged = [digest for digest in new if package.versions[digest].tags]
    if tagged or not new:
        return tagged
    living = package.living(_tagged(package.versions, policy), package.versions)
    return [digest for digest in new if digest not in living or digest not in package.plain]


# --- what stays --------------------------------------------------------------


def _decide(package: Package, policy: Policy, now: float) -> dict[str, str]:
    """What stays, each with the reason."""
    there = package.versions
    # Without its parents a part may count as an image: decide again over what is left.
    while len(kept := _keep(package, policy, now, there)) < len(there):
        there = {digest: there[digest] for digest in kept}
    return kept


def _keep(
    package: Package, policy: Policy, now: float, there: Mapping[str, PackageVersion]
) -> dict[str, str]:
    """What of ``there`` lives, each with the reason."""
    roots = _tagged(there, policy)
    # An image is what nothing here lists, and what refers to nothing here: all else is a part,
    # a signature or another artifact.
    images = [
        version
        for digest, version in there.items()
        if digest not in roots and not any(one in there for one in package.above(digest))
    ]
    images.sort(key=_age, reverse=True)
    if images and not roots and all(image.digest in package.subjects for image in images):
        # Signatures may be kept in a package of their own.
        return dict.fromkeys(there, "its subject is in another package")
    for digest, version in there.items():
        if digest in package.unreadable:
            roots.setdefault(digest, "it could not be read")
        elif policy.is_young(version, now):
            roots.setdefault(digest, "changed within the grace period")
    for image in images[: policy.keep]:
        roots.setdefault(image.digest, f"one of the newest {policy.keep}")
    kept = package.living(roots, there)
    # GitHub refuses to delete the last tagged version of a package, and the last of all.
    tagged = [version for version in there.values() if version.tags]
    if tagged and not any(version.digest in kept for version in tagged):
        roots[max(tagged, key=_age).digest] = "the last tagged version"
    elif there and not kept:
        roots[max(images or there.values(), key=_age).digest] = "the last version"
    else:
        return kept
    return package.living(roots, there)


def _tagged(versions: Mapping[str, PackageVersion], policy: Policy) -> dict[str, str]:
    """What lives for its tags, and what GitHub doesn't list: that cannot be deleted."""
    roots: dict[str, str] = {}
    for digest, version in versions.items():
        tags = own_tags(version)
        if not version.id:
            roots[digest] = "in the registry alone"
        elif tags and not policy.may_lose(tags):
            roots[digest] = "tagged"
    return roots


# --- what goes ---------------------------------------------------------------


def _ordered(package: Package, digests: Collection[str]) -> dict[str, tuple[str, ...]]:
    """What goes, in order, each with what must be gone before: its parents and subjects."""
    going = set(digests)
    before = {d: tuple(one for one in package.above(d) if one in going) for d in digests}
    while True:
        try:
            return {d: before[d] for d in TopologicalSorter(before).static_order()}
        except CycleError as error:
            # Manifests hold digests, so parents cannot make a circle; tags can make one (an
            # index tagged as referrer of its own child). Then subjects have to wait.
            for digest in error.args[1]:
                parents = package.parents.get(digest, ())
                before[digest] = tuple(one for one in before[digest] if one in parents)


def _reason(package: Package, policy: Policy, digest: str, before: tuple[str, ...]) -> str:
    """Why a version goes; ``before`` are the parents and subjects that go with it."""
    if own_tags(package.versions[digest]):
        return "its tags match"
    if subjects := package.subjects.get(digest):
        here = [subject for subject in subjects if subject in package.versions]
        fate = "goes" if here else "is gone"
        return f"refers to {short((here or subjects)[0])}, which {fate}"
    if before:
        return f"part of {short(before[0])}, which goes"
    return f"untagged, not one of the newest {policy.keep}"
