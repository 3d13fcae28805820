"""What may go: documented cases in a table, and properties over random packages."""

import os
from collections.abc import Collection
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tools.cleanup.package import NO_LINKS, Links, Package, own_tags, subject_of_tag
from tools.cleanup.plan import DAY, CleanupPlan, Policy, make_plan, unread
from tools.github.packages import PackageVersion

NOW = 1_000 * DAY
LENGTH = int(os.environ.get("CAMPAIGN", "1"))  # a night has more time than a change


def digest(number: int) -> str:
    """A digest that a test can name by a number."""
    return f"sha256:{number:064x}"


def ref(number: int, suffix: str = "") -> str:
    """The tag of a referrer of manifest ``number``."""
    return f"sha256-{number:064x}{suffix}"


def package(*rows, unreadable=(), gone=(), unlisted=(), updated=(), plain=False) -> Package:
    """A package from rows (number, age in days, tags, children, subject)."""
    versions, links = {}, {}
    for number, age, *more in rows:
        tags, children, subject = (*more, *((), (), 0)[len(more) :])
        times = NOW - age * DAY, NOW - dict(updated).get(number, age) * DAY
        listed = 0 if number in unlisted else number
        one = PackageVersion(listed, digest(number), tuple(tags), *times)
        versions[one.digest] = one
        children = tuple(map(digest, children))
        if number not in {*unreadable, *gone}:
            nested = () if plain else children
            links[one.digest] = Links(children, nested, digest(subject) if subject else "")
    failed = dict.fromkeys(map(digest, unreadable), "status 500")
    return Package(versions, links, failed, set(map(digest, gone)))


def numbers(digests: Collection[str]) -> list[int]:
    """Digests as the numbers that they were made of."""
    return [int(one.partition(":")[2], 16) for one in digests]


# --- documented cases ---

IMAGE = [(1, 9, ["v1"], [2, 3]), (2, 9), (3, 9)]
OLD = [(11, 20, [], [12, 13]), (12, 20), (13, 20)]

PR = {"tags_matching": ("pr-*",)}

CASES = {
    "parts of a tagged image stay": (IMAGE, {}, []),
    "an old image goes, index first": (IMAGE + OLD, {}, [11, 12, 13]),
    "a shared part stays": (IMAGE + [(11, 20, [], [2, 12]), (12, 20)], {}, [11, 12]),
    "indexes nest": ([(1, 9, ["v1"], [2]), (2, 9, [], [3]), (3, 9)], {}, []),
    "an image counts once with its parts": (
        [*IMAGE, *OLD, (21, 30, [], [22]), (22, 30)], {"keep": 1}, [21, 22],
    ),
    "a part that outlives its image counts as one from now on": (
        [*IMAGE, (20, 5), (21, 9, [], [22]), (22, 3)],
        {"keep": 1, "updated": {22: 0.5}}, [20, 21],
    ),
    "young things stay": ([*IMAGE, (11, 0.5), (12, 1.5)], {}, [12]),
    "grace can be none": ([*IMAGE, (11, 0.5)], {"grace": 0}, [11]),
    "a tag that was just moved": ([*IMAGE, (11, 20)], {"updated": {11: 0.1}}, []),
    "only what is older": ([*IMAGE, (11, 20), (12, 40)], {"older_than": 30 * DAY}, [12]),
    "a signature lives with its image": ([*IMAGE, (5, 9, [ref(1, ".sig")])], {}, []),
    "a signature of a part lives too": ([*IMAGE, (5, 9, [ref(2, ".att")])], {}, []),
    "a signature goes last": ([*IMAGE, *OLD, (15, 20, [ref(11, ".sig")])], {}, [11, 12, 13, 15]),
    "a signature of its own part": ([*IMAGE, (12, 20), (11, 20, [ref(12)], [12])], {}, [11, 12]),
    "an orphaned signature goes": ([*IMAGE, (5, 9, [ref(99, ".sbom")])], {}, [5]),
    "the fallback index and its artifacts": (
        [*IMAGE, (5, 9, [ref(1)], [6]), (6, 9, [], [], 1)], {}, [],
    ),
    "a referrer of a referrer lives": ([*IMAGE, (5, 9, [], [], 1), (6, 9, [], [], 5)], {}, []),
    "artifacts go with their subject": (
        [*IMAGE, *OLD, (15, 20, [], [], 11), (16, 20, [], [], 15)], {}, [11, 12, 13, 15, 16],
    ),
    "a signature with a person's tag": ([*IMAGE, (5, 9, [ref(99, ".sig"), "mine"])], {}, []),
    "another suffix is no referrer": ([*IMAGE, (5, 9, [ref(99, ".xyz")])], {}, []),
    "an image that somebody signs now": ([*IMAGE, *OLD, (15, 0.1, [ref(11, ".sig")])], {}, []),
    "signatures alone": ([(5, 9, [ref(98, ".sig")]), (6, 9, [ref(99, ".sig")])], {}, []),
    "the last version stays": ([(11, 20), (12, 30)], {}, [12]),
    "the last version stays whole": ([*OLD, (21, 30)], {}, [21]),
    "the last tagged version stays": ([(1, 50, ["pr-1"]), (2, 40, ["pr-2"])], PR, [1]),
    "tags can be given up": ([(1, 50, ["v1"]), (2, 50, ["pr-1"], [3]), (3, 50)], PR, [2, 3]),
    "all its tags must match": ([(1, 50, ["v1"]), (2, 50, ["pr-1", "latest"])], PR, []),
    "tags can be protected": (
        [(1, 50, ["v1"]), (2, 50, ["pr-1"]), (3, 50, ["pr-2"])], {**PR, "keep_tags": ("*-2",)}, [2],
    ),
    "what only the registry knows is never deleted, nor its parts": (
        [(1, 50, ["pr-1"], [2]), (2, 50), (3, 9, ["v1"]), (4, 50, [ref(99)])],
        {**PR, "unlisted": [1, 4]}, [],
    ),
    "unreadable stops all": ([*IMAGE, *OLD, (30, 40)], {"unreadable": [30]}, []),
    "surely absent stops nothing": ([*IMAGE, *OLD, (30, 40)], {"gone": [30]}, [11, 30, 12, 13]),
    "an unreadable plain part stops nothing": (
        [*IMAGE, *OLD], {"unreadable": [12], "plain": True}, [11, 13],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_documented_cases(name: str):
    """Each rule of docs/cleanup.md, on the smallest package that shows it."""
    rows, options, expected = CASES[name]
    policy = {"keep": 0, **{k: v for k, v in options.items() if hasattr(Policy, k)}}
    made = package(*rows, **{k: v for k, v in options.items() if not hasattr(Policy, k)})
    plan = make_plan(made, Policy(**policy), NOW)
    assert numbers(plan.to_delete) == expected
    assert {*plan.kept, *plan.to_delete} == set(made.versions)
    assert numbers(plan.undecided) == options.get("unreadable", [])


def test_reasons_are_told():
    """The table of a dry run says why, in words; and which tags lack what already."""
    rows = [*IMAGE, *OLD, (15, 20, [ref(11, ".sig")]), (16, 20, [ref(99)]), (30, 5)]
    broken = [(40, 9, ["old", "latest"], [41, 98]), (41, 9, [], [99]), (42, 9, ["gone"])]
    plan = make_plan(package(*rows, *broken, gone=[42]), Policy(keep=1), NOW)
    assert {numbers([one])[0]: why for one, why in plan.to_delete.items()} == {
        11: "untagged, not one of the newest 1",
        12: "part of 000000000000, which goes",
        13: "part of 000000000000, which goes",
        15: "refers to 000000000000, which goes",
        16: "refers to 000000000000, which is gone",
    }
    reasons = [plan.kept[digest(one)] for one in (1, 2, 30)]
    assert reasons == ["tagged", "linked to what stays", "one of the newest 1"]
    missing = {tag: numbers(parts) for tag, parts in plan.broken.items()}
    assert missing == {"old": [98, 99], "latest": [98, 99], "gone": [42]}


# --- properties ---


NODE = 7  # bytes that decide one manifest


def decode(data: bytes) -> Package:
    """A package from random bytes, which shrink well: nesting, shared and missing parts, any
    ages and tags. Manifests can only name what was made before; tags can name anything.
    """
    count = max(1, len(data) // NODE)
    data = data.ljust(count * NODE, b"\0")
    versions, links, taken = {}, {}, set()
    for number in range(1, count + 1):
        first, second, third, refers, tagging, named, age = data[(number - 1) * NODE :][:NODE]
        # 91 is a digest that the package doesn't have.
        earlier = [*range(1, number), 91]
        several = [byte for byte in (first, second, third) if byte >= 160]
        parts = tuple(dict.fromkeys(digest(earlier[byte % number]) for byte in several))
        subject = digest(earlier[refers % number]) if refers >= 192 else ""
        anything = [*range(1, count + 1), 91][named % (count + 1)]
        kinds = [(), ("v",), ("pr",), ("",), (".sig",), ("v", ".att"), ("pr", "v"), *[()] * 9]
        names = kinds[tagging % 16]
        tags = {
            f"{k}-{number}" if k in ("v", "pr") else ref(anything, k) for k in names
        } - taken
        taken |= tags
        created = NOW - (age % 32) * DAY / 8
        updated = created + (NOW - created) * (age // 32) / 7 if age >= 192 else created
        name = digest(number)
        versions[name] = PackageVersion(number, name, tuple(sorted(tags)), created, updated)
        links[name] = Links(parts, parts, subject)
    return Package(versions, links)


packages = st.binary(min_size=NODE, max_size=12 * NODE).map(decode)

policies = st.builds(
    Policy,
    keep=st.sampled_from([0, 0, 1, 2, 4]),
    grace=st.sampled_from([0.0, 0.0, DAY, 3 * DAY]),
    older_than=st.sampled_from([0.0, 0.0, 2 * DAY]),
    tags_matching=st.sampled_from([(), (), ("pr-*",), ("*",)]),
    keep_tags=st.sampled_from([(), ("v-*",)]),
)


def complete_tags(made: Package, there: Collection[str]) -> set[str]:
    """Tags that pull whole, walked independently of the planner."""

    def whole(one: str) -> bool:
        return one in there and all(whole(child) for child in made.links[one].children)

    return {tag for one in there for tag in made.versions[one].tags if whole(one)}


def subjects_of(made: Package, one: str) -> set[str]:
    """What a version refers to, by tag or by field."""
    found = {subject_of_tag(tag) for tag in made.versions[one].tags} | {made.links[one].subject}
    return found - {"", one}


def closure(made: Package, roots: set[str], there: Collection[str]) -> set[str]:
    """What lives because of ``roots``: a naive reading of the rules."""
    living, before = set(roots), set[str]()
    while living != before:
        before = set(living)
        for one in there:
            linked = subjects_of(made, one)
            if one in before:
                living |= (linked | set(made.links[one].children)) & set(there)
            if linked & before:
                living.add(one)
    return living


def check_every_moment(made: Package, plan: CleanupPlan, refused: set[int]) -> Package:
    """Wherever a run is interrupted, and whatever GitHub refuses to delete: no tag that was
    complete is broken, and what is refused keeps its parts. What is left at the end.
    """
    there = set(made.versions)
    before = complete_tags(made, there)
    stays: set[str] = set()
    for one, after in plan.after.items():
        if made.versions[one].id in refused or stays & set(after):
            stays.add(one)
            continue
        there.remove(one)
        left = {tag for one in there for tag in made.versions[one].tags}
        assert before & left <= complete_tags(made, there)
    for one in stays:
        assert set(made.links[one].children) & set(made.versions) <= there
    return Package({k: made.versions[k] for k in there}, {k: made.links[k] for k in there})


def check_what_stays(made: Package, policy: Policy, plan: CleanupPlan) -> None:
    """Roots and all they reach stay; what nothing keeps alive goes."""
    there = set(made.versions) - set(plan.to_delete)
    roots = set()
    for one, version in made.versions.items():
        names = own_tags(version)
        if (names and not policy.may_lose(names)) or policy.is_young(version, NOW):
            roots.add(one)
    living = closure(made, roots, made.versions)
    assert living <= there
    # What stays beside that is kept by the newest images, or is the last of its kind.
    tops = [
        one for one in there
        if not subjects_of(made, one) & there
        and not any(one in made.links[other].children for other in there)
        and not (one in roots and own_tags(made.versions[one]))
    ]  # fmt: skip
    tops.sort(key=lambda one: (made.versions[one].created, made.versions[one].id))
    newest = set(tops[len(tops) - min(policy.keep, len(tops)) :])
    rest = there - closure(made, living | newest, there)
    lasts = {"the last tagged version", "the last version", "its subject is in another package"}
    assert not rest or lasts & {plan.kept[one] for one in rest}
    # Without referrers: one of its own part counts as no image, one of itself as one.
    named = any(subject_of_tag(tag) for one in made.versions.values() for tag in one.tags)
    if not (named or policy.tags_matching or any(one.subject for one in made.links.values())):
        untagged = {one for one, version in made.versions.items() if not version.tags}
        assert len(untagged & there) >= min(policy.keep, len(untagged))


def check_unread(made: Package, policy: Policy, hidden: set[str]) -> None:
    """What can't be read might list anything: nothing goes, and the plan says so."""
    links = {key: value for key, value in made.links.items() if key not in hidden}
    known = Package(made.versions, links, dict.fromkeys(hidden, "500"))
    for within in (None, set(made.versions)):
        plan = make_plan(known, policy, NOW, within)
        assert hidden == set(plan.undecided) and not (hidden and plan.to_delete)


def check_second_look(made: Package, policy: Policy, plan: CleanupPlan, within: set) -> None:
    """If nothing has changed all that was planned may go; nothing else ever does."""
    assert make_plan(made, policy, NOW, within=plan.to_delete).to_delete == plan.to_delete
    less = make_plan(made, policy, NOW, within=within)
    assert less.to_delete.keys() <= within & plan.to_delete.keys()
    check_every_moment(made, less, set())


@given(packages, policies, st.sets(st.integers(1, 12), max_size=4))
@settings(max_examples=1000 * LENGTH)
def test_the_promises_hold_for_any_package(made: Package, policy: Policy, some: set[int]):
    """No complete tag breaks at any moment; what lives stays, all else goes, in one run, or
    in the next where GitHub refused some, some cannot be read, or some are needed now.
    """
    plan = make_plan(made, policy, NOW)
    check_what_stays(made, policy, plan)
    left = check_every_moment(made, plan, set())
    assert left.versions and not make_plan(left, policy, NOW).to_delete
    rest = check_every_moment(made, plan, some)
    rest = check_every_moment(rest, make_plan(rest, policy, NOW), set())
    assert not make_plan(rest, policy, NOW).to_delete
    chosen = set(map(digest, some)) & set(made.versions)
    check_unread(made, policy, chosen)
    check_second_look(made, policy, plan, set(made.versions) - chosen)


@given(packages, policies)
@settings(max_examples=200 * LENGTH)
def test_reading_only_what_matters_decides_the_same(made: Package, policy: Policy):
    """Parts of living images are not read: the plan must be the one of a full reading."""
    # Descriptors tell truly which parts have parts of their own.
    truth = {}
    for one, links in made.links.items():
        nested = (c for c in links.children if made.links.get(c, NO_LINKS).children)
        truth[one] = Links(links.children, tuple(nested), links.subject)
    full = make_plan(replace(made, links=truth), policy, NOW)
    known: dict[str, Links] = {}
    while required := unread(replace(made, links=known), policy):
        assert not set(required) & set(known)
        known |= {one: truth[one] for one in required}
    partial = make_plan(replace(made, links=known), policy, NOW)
    skipped = set(truth) - set(known)
    assert skipped <= set(partial.kept)
    # A skipped part may have a subject of its own; that can only keep more alive.
    assert full.to_delete.keys() <= partial.to_delete.keys()
    if full.to_delete.keys() < partial.to_delete.keys():
        assert any(subjects_of(made, one) for one in skipped)
