"""Which versions of a container package may go: pure, from data to data.

The graph: an index reaches its children (also other indexes); an artifact, a signature or
an SBOM refers to its subject, by the field ``subject`` (OCI 1.1) or by a tag that is made
of the subject's digest. Lives: what is tagged by a person, the newest images without a
tag, and what is young; then all that these reach, and all that refers to what lives. The
rest goes, parents before their children, subjects before what refers to them: wherever a
run is interrupted, no tag has lost a part.

Sources: OCI image specification 1.1 (image-index, ``subject``); OCI distribution
specification 1.1, "Referrers Tag Schema"; sigstore/cosign, specs/SIGNATURE_SPEC.md
(``sha256-<hex>.sig``, and ``.att``, ``.sbom`` beside it).
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

DAY = 86400.0

_REFERRER_TAG = re.compile(r"(sha256)-([0-9a-f]{64})(?:\.(?:sig|att|sbom))?")


@dataclass(frozen=True, slots=True)
class Version:
    """A package version: one manifest of the registry, as GitHub lists it.

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


@dataclass(frozen=True, slots=True)
class Facts:
    """What a manifest says of other manifests.

    Attributes:
        children: Digests of an index's manifests.
        nested: Those of them that may have children of their own: their descriptor does
            not say that they are plain image manifests.
        subject: Digest that it refers to; empty for none.
    """

    children: tuple[str, ...] = ()
    nested: tuple[str, ...] = ()
    subject: str = ""


PLAIN = Facts()


@dataclass(frozen=True)
class Package:
    """All that is known of a package.

    Attributes:
        versions: By digest.
        facts: What was read, by digest. What no living index needs is not read.
        unreadable: Digest to reason: neither read nor certainly absent.
        gone: Listed by GitHub, but the registry says that it has no such manifest.
    """

    versions: Mapping[str, Version]
    facts: Mapping[str, Facts]
    unreadable: Mapping[str, str] = field(default_factory=dict)
    gone: frozenset[str] = frozenset()


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

    def is_young(self, version: Version) -> bool:
        """Whether a version is kept for its age alone."""
        return version.changed > self.now - max(self.grace, self.older_than)

    def may_lose(self, names: Collection[str]) -> bool:
        """Whether a version with these tags (not those of referrers) may go."""

        def matches(name: str, patterns: Iterable[str]) -> bool:
            return any(fnmatchcase(name, pattern) for pattern in patterns)

        if any(matches(name, self.keep_tags) for name in names):
            return False
        return all(matches(name, self.tags_matching) for name in names)


@dataclass(frozen=True, slots=True)
class Deletion:
    """A version that goes.

    Attributes:
        version: The version.
        reason: Why it is not kept.
        after: Digests that must be gone before: its doomed parents and subjects.
    """

    version: Version
    reason: str
    after: tuple[str, ...] = ()


@dataclass(frozen=True)
class Plan:
    """What happens to each version, and why.

    Attributes:
        deletions: What goes, in an order that can be interrupted anywhere.
        kept: Digest to reason of what stays.
        broken: Tag to the digests that it needs and the package doesn't have.
        undecided: Digest to reason: manifests that could not be read. Nothing that they
            could reach is deleted.
    """

    deletions: tuple[Deletion, ...]
    kept: Mapping[str, str]
    broken: Mapping[str, tuple[str, ...]]
    undecided: Mapping[str, str]


def subject_of_tag(tag: str) -> str:
    """The digest that a referrer's tag is made of; empty for any other tag."""
    match = _REFERRER_TAG.fullmatch(tag)
    return f"{match.group(1)}:{match.group(2)}" if match else ""


def proper_tags(version: Version) -> tuple[str, ...]:
    """The tags that a person gave: those that are no referrer's."""
    return tuple(tag for tag in version.tags if not subject_of_tag(tag))


def short(digest: str) -> str:
    """A digest as people compare them: its first 12 hexadecimal digits."""
    return digest.partition(":")[2][:12]


class Graph:
    """The edges between the versions of a package.

    Attributes:
        package: What it was made of.
        parents: Child to the indexes that list it.
        subjects: Referrer to what it refers to (in the package or not).
        referrers: Subject to what refers to it.
        plain: What an index's descriptor says to be a plain image manifest.
    """

    def __init__(self, package: Package) -> None:
        self.package = package
        self.parents: dict[str, list[str]] = {}
        self.subjects: dict[str, tuple[str, ...]] = {}
        self.referrers: dict[str, list[str]] = {}
        self.plain: set[str] = set()
        for digest in package.versions:
            self._add_children(digest)
            self._add_subjects(digest)

    def _add_children(self, digest: str) -> None:
        facts = self.package.facts.get(digest, PLAIN)
        for child in facts.children:
            self.parents.setdefault(child, []).append(digest)
            if child not in facts.nested:
                self.plain.add(child)

    def _add_subjects(self, digest: str) -> None:
        facts = self.package.facts.get(digest, PLAIN)
        found = [subject_of_tag(tag) for tag in self.package.versions[digest].tags]
        found.append(facts.subject)
        subjects = tuple(dict.fromkeys(s for s in found if s and s != digest))
        if subjects:
            self.subjects[digest] = subjects
            for subject in subjects:
                self.referrers.setdefault(subject, []).append(digest)

    def children(self, digest: str) -> tuple[str, ...]:
        """What an index lists, whether the package has it or not."""
        return self.package.facts.get(digest, PLAIN).children

    def is_known(self, digest: str) -> bool:
        """Whether what a manifest reaches is known: read, absent, or known to be plain."""
        package = self.package
        return digest in package.facts or digest in package.gone or digest in self.plain

    def living(self, roots: Mapping[str, str], within: Collection[str]) -> dict[str, str]:
        """All that lives because of ``roots``, each with the reason.

        Args:
            roots: Digest to reason.
            within: The versions that are there.
        """
        kept = dict(roots)
        queue = deque(roots)
        while queue:
            digest = queue.popleft()
            for other, reason in self._neighbours(digest):
                if other in within and other not in kept:
                    kept[other] = reason
                    queue.append(other)
        return kept

    def _neighbours(self, digest: str) -> Iterator[tuple[str, str]]:
        children = self.children(digest)
        if children:
            part = f"part of {short(digest)}"
            for child in children:
                yield child, part
        for referrer in self.referrers.get(digest, ()):
            yield referrer, f"refers to {short(digest)}"
        # Who signs or describes an image right now still wants it.
        for subject in self.subjects.get(digest, ()):
            yield subject, f"subject of {short(digest)}"

    def reach(self, digest: str) -> Iterator[str]:
        """``digest`` and all its children's children, in the package or not."""
        seen = {digest}
        queue = deque(seen)
        while queue:
            found = queue.popleft()
            yield found
            for child in self.children(found):
                if child not in seen:
                    seen.add(child)
                    queue.append(child)


def _tag_roots(versions: Iterable[Version], policy: Policy) -> dict[str, str]:
    """What lives for its tags, and what GitHub doesn't list: that cannot be deleted."""
    roots: dict[str, str] = {}
    for version in versions:
        names = proper_tags(version)
        if not version.id:
            roots[version.digest] = "in the registry alone"
        elif names and not policy.may_lose(names):
            roots[version.digest] = f"tagged {', '.join(names)}"
    return roots


def unread(package: Package, policy: Policy) -> list[str]:
    """What must be read next to decide; empty when all is known that matters.

    First what is tagged; then the nested indexes that it reaches; then all that no tag
    reaches. A plain part of a living image is never read: it lives, and reaches nothing.
    """
    graph = Graph(package)

    def is_new(digest: str) -> bool:
        seen = digest in package.facts or digest in package.gone
        return not seen and digest not in package.unreadable

    tagged = [d for d, version in package.versions.items() if version.tags and is_new(d)]
    if tagged:
        return tagged
    living = graph.living(_tag_roots(package.versions.values(), policy), package.versions)
    nested = [d for d in living if is_new(d) and d not in graph.plain]
    if nested:
        return nested
    return [d for d in package.versions if d not in living and is_new(d)]


def _age_order(version: Version) -> tuple[float, int]:
    """Sorts versions by age, the oldest first."""
    return version.created, version.id


class _Planner:
    """One decision over the versions that are there."""

    def __init__(self, graph: Graph, policy: Policy) -> None:
        self.graph = graph
        self.policy = policy

    def keep(self, there: Mapping[str, Version]) -> dict[str, str]:
        """What of ``there`` lives, each with the reason."""
        tagged = _tag_roots(there.values(), self.policy)
        tops = [v for v in there.values() if v.digest not in tagged and self._is_top(v, there)]
        if not tagged and tops and all(v.digest in self.graph.subjects for v in tops):
            # Signatures may be kept in a package of their own.
            return dict.fromkeys(there, "its subject is in another package")
        roots = dict(tagged)
        for digest, version in there.items():
            if digest in self.graph.package.unreadable:
                roots.setdefault(digest, "it could not be read")
            elif self.policy.is_young(version):
                roots.setdefault(digest, "changed within the grace period")
        tops.sort(key=_age_order, reverse=True)
        for version in tops[: self.policy.keep]:
            roots.setdefault(version.digest, f"one of the newest {self.policy.keep}")
        kept = self.graph.living(roots, there)
        labelled = [version for version in there.values() if version.tags]
        kept = self._spare_one(labelled, "the last tagged version", kept, there)
        if kept:
            return kept
        return self._spare_one(tops or list(there.values()), "the last version", kept, there)

    def _is_top(self, version: Version, there: Collection[str]) -> bool:
        """Whether it counts as an image: part of none here, and refers to none here."""
        above = self.graph.parents.get(version.digest, ())
        subjects = self.graph.subjects.get(version.digest, ())
        return not any(other in there for other in (*above, *subjects))

    def _spare_one(
        self,
        among: Sequence[Version],
        reason: str,
        kept: dict[str, str],
        there: Collection[str],
    ) -> dict[str, str]:
        """Keep the newest of ``among`` if none is: GitHub refuses to delete the last
        version of a package, and the last tagged one."""
        if not among or any(version.digest in kept for version in among):
            return kept
        newest = max(among, key=_age_order)
        return self.graph.living({**kept, newest.digest: reason}, there)


class _Reasons:
    """Why versions go. One text for many: a package may have a hundred thousand."""

    def __init__(self, graph: Graph, policy: Policy, kept: Collection[str]) -> None:
        self._graph = graph
        self._kept = kept
        self._stale = f"untagged, not one of the newest {policy.keep}"
        self._last = ("", "")

    def of(self, version: Version) -> str:
        """Why a version goes."""
        if proper_tags(version):
            return "its tags match"
        subjects = self._graph.subjects.get(version.digest, ())
        if subjects:
            here = [s for s in subjects if s in self._graph.package.versions]
            fate = "goes" if here else "is gone"
            return f"refers to {short((here or subjects)[0])}, which {fate}"
        for parent in self._graph.parents.get(version.digest, ()):
            if parent not in self._kept:
                if self._last[0] != parent:
                    self._last = (parent, f"part of {short(parent)}, which goes")
                return self._last[1]
        return self._stale


def _ordered(graph: Graph, doomed: Collection[str]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """``doomed`` with what must be gone before each: parents strictly, subjects if possible.

    Digests make circles of children impossible; tags can make one of subjects (an index
    tagged as referrer of its own child). Then the subject has to wait.
    """
    hard: dict[str, tuple[str, ...]] = {}
    soft: dict[str, tuple[str, ...]] = {}
    for digest in doomed:
        parents = tuple(dict.fromkeys(p for p in graph.parents.get(digest, ()) if p in doomed))
        subjects = (s for s in graph.subjects.get(digest, ()) if s in doomed)
        if parents:
            hard[digest] = parents
        if others := tuple(s for s in subjects if s not in parents):
            soft[digest] = others
    waiting = {d: [len(hard.get(d, ())), len(soft.get(d, ()))] for d in {**hard, **soft}}
    ready = deque(d for d in doomed if d not in waiting)
    stuck = deque(d for d, (strict, _) in waiting.items() if not strict)
    done: set[str] = set()
    while ready or stuck:
        digest = ready.popleft() if ready else stuck.popleft()
        if digest in done:
            continue
        done.add(digest)
        before = (*hard.get(digest, ()), *soft.get(digest, ()))
        yield digest, tuple(other for other in before if other in done)
        for other, kind in _waiters(graph, digest, hard, soft):
            if other in done:
                continue
            left = waiting[other]
            left[kind] -= 1
            if left == [0, 0]:
                ready.append(other)
            elif left[0] == 0:
                stuck.append(other)


def _waiters(
    graph: Graph,
    digest: str,
    hard: Mapping[str, tuple[str, ...]],
    soft: Mapping[str, tuple[str, ...]],
) -> Iterator[tuple[str, int]]:
    """What waits for ``digest``: strictly (0), or if possible (1)."""
    for child in dict.fromkeys(graph.children(digest)):
        if digest in hard.get(child, ()):
            yield child, 0
    for referrer in dict.fromkeys(graph.referrers.get(digest, ())):
        if digest in soft.get(referrer, ()):
            yield referrer, 1


def broken_tags(graph: Graph) -> dict[str, tuple[str, ...]]:
    """Tags that need manifests which the package doesn't have: tag to their digests."""
    package = graph.package
    found: dict[str, tuple[str, ...]] = {}
    for version in package.versions.values():
        for tag in version.tags:
            missing = tuple(
                digest
                for digest in graph.reach(version.digest)
                if digest not in package.versions or digest in package.gone
            )
            if missing:
                found[tag] = missing
    return found


def _undecided(graph: Graph) -> dict[str, str]:
    """Manifests that were not read and are not known to be plain: digest to reason."""
    package = graph.package
    return {
        digest: package.unreadable.get(digest, "was not read")
        for digest in package.versions
        if not graph.is_known(digest)
    }


def _decide(graph: Graph, policy: Policy) -> dict[str, str]:
    """What stays, each with the reason, when all that matters is known."""
    planner = _Planner(graph, policy)
    there = graph.package.versions
    while True:
        kept = planner.keep(there)
        if len(kept) == len(there):
            return kept
        # Without its parents a part may count as an image: decide again over what is left.
        there = {digest: version for digest, version in there.items() if digest in kept}


def make_plan(package: Package, policy: Policy) -> Plan:
    """Decide what goes.

    Args:
        package: Versions and manifests.
        policy: What is to be kept.

    Returns:
        The plan. A second one, made of what the first leaves, deletes nothing.
    """
    graph = Graph(package)
    # It could reach anything: nothing goes.
    undecided = _undecided(graph)
    if undecided:
        reason = "a manifest that could not be read may need it"
        kept = dict.fromkeys(package.versions, reason)
    else:
        kept = _decide(graph, policy)
    reasons = _Reasons(graph, policy, kept)
    doomed = dict.fromkeys(d for d in package.versions if d not in kept)
    deletions = tuple(
        Deletion(package.versions[digest], reasons.of(package.versions[digest]), after)
        for digest, after in _ordered(graph, doomed)
    )
    still = {d: reason for d, reason in package.unreadable.items() if d in package.versions}
    return Plan(deletions, kept, broken_tags(graph), {**still, **undecided})


def still_doomed(package: Package, policy: Policy, planned: Collection[str]) -> set[str]:
    """What of an earlier plan may still go: what a new look would delete as well.

    Args:
        package: What is there now.
        policy: What is to be kept.
        planned: Digests that the earlier plan deletes.

    Returns:
        Those of them that nothing keeps, neither the rules nor a version that is not
        in the earlier plan.
    """
    graph = Graph(package)
    if _undecided(graph):
        return set()
    kept = _decide(graph, policy)
    spared = {d: "not planned" for d in package.versions if d not in kept and d not in planned}
    if spared:
        kept = graph.living({**kept, **spared}, package.versions)
    return {digest for digest in planned if digest in package.versions and digest not in kept}
