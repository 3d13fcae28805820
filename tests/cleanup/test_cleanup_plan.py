"""What may go: documented cases in a table, and properties over random packages."""

from __future__ import annotations

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


def referrer_tag(number: int, suffix: str = "") -> str:
    """The tag of a referrer of manifest ``number``."""
    return f"sha256-{number:064x}{suffix}"


def package(
    *rows: tuple, unreadable: Collection[int] = (), gone: Collection[int] = ()
) -> Package:
    """A package from rows (number, age in days, tags, children, subject)."""
    versions, facts = {}, {}
    for number, age, *more in rows:
        tags, children, subject = (*more, *((), (), 0)[len(more) :])
        when = NOW - age * DAY
        versions[digest(number)] = PackageVersion(
            number, digest(number), tuple(tags), when, when
        )
        children = tuple(digest(child) for child in children)
        if number not in unreadable and number not in gone:
            facts[digest(number)] = Links(
                children, children, digest(subject) if subject else ""
            )
    return Package(
        versions,
        facts,
        {digest(number): "status 500" for number in unreadable},
        frozenset(digest(number) for number in gone),
    )


def numbers(digests: Collection[str]) -> list[int]:
    """Digests as the numbers that they were made of."""
    return sorted(int(one.partition(":")[2], 16) for one in digests)


def gone_by(plan: CleanupPlan) -> list[int]:
    """Numbers of what a plan deletes, in its order."""
    return [int(deletion.digest.partition(":")[2], 16) for deletion in plan.to_delete]


# --- documented cases ---

IMAGE = [(1, 9, ["v1"], [2, 3]), (2, 9), (3, 9)]
OLD = [(11, 20, [], [12, 13]), (12, 20), (13, 20)]

CASES = {
    "a part that outlives its image counts as one from now on": (
        [*IMAGE, (20, 5), (21, 9, [], [22]), (22, 3)],
        {"keep": 1, "updated": {22: 0.5}}, [20, 21],
    ),
    "parts of a tagged image stay": (IMAGE, {}, []),
    "an old image goes, index first": (IMAGE + OLD, {}, [11, 12, 13]),
    "a shared part stays": (IMAGE + [(11, 20, [], [2, 12]), (12, 20)], {}, [11, 12]),
    "indexes nest": ([(1, 9, ["v1"], [2]), (2, 9, [], [3]), (3, 9)], {}, []),
    "an image counts once with its parts": (
        [*IMAGE, *OLD, (21, 30, [], [22]), (22, 30)], {"keep": 1}, [21, 22],
    ),
    "young things stay": ([*IMAGE, (11, 0.5), (12, 1.5)], {}, [12]),
    "grace can be none": ([*IMAGE, (11, 0.5)], {"grace": 0}, [11]),
    "a tag that was just moved leaves a young version": (
        [*IMAGE, (11, 20)], {"updated": {11: 0.1}}, [],
    ),
    "only what is older": ([*IMAGE, (11, 20), (12, 40)], {"older_than": 30 * DAY}, [12]),
    "a signature lives with its image": ([*IMAGE, (5, 9, [referrer_tag(1, ".sig")])], {}, []),
    "a signature of a part lives too": ([*IMAGE, (5, 9, [referrer_tag(2, ".att")])], {}, []),
    "a signature goes after its image": (
        [*IMAGE, *OLD, (15, 20, [referrer_tag(11, ".sig")])], {}, [11, 12, 13, 15],
    ),
    "an orphaned signature goes": ([*IMAGE, (5, 9, [referrer_tag(99, ".sbom")])], {}, [5]),
    "the fallback index and its artifacts live": (
        [*IMAGE, (5, 9, [referrer_tag(1)], [6]), (6, 9, [], [], 1)], {}, [],
    ),
    "a referrer of a referrer lives": (
        [*IMAGE, (5, 9, [], [], 1), (6, 9, [], [], 5)], {}, [],
    ),
    "artifacts go with their subject": (
        [*IMAGE, *OLD, (15, 20, [], [], 11), (16, 20, [], [], 15)], {}, [11, 12, 13, 15, 16],
    ),
    "a signature that a person tagged lives": (
        [*IMAGE, (5, 9, [referrer_tag(99, ".sig"), "mine"])], {}, [],
    ),
    "another suffix is no referrer": ([*IMAGE, (5, 9, [referrer_tag(99, ".xyz")])], {}, []),
    "a package of signatures alone is left alone": (
        [(5, 9, [referrer_tag(98, ".sig")]), (6, 9, [referrer_tag(99, ".sig")])], {}, [],
    ),
    "the last version stays": ([(11, 20), (12, 30)], {}, [12]),
    "the last version stays whole": ([*OLD, (21, 30)], {}, [21]),
    "tags can be given up": (
        [(1, 50, ["v1"]), (2, 50, ["pr-1"], [3]), (3, 50)],
        {"tags_matching": ("pr-*",)}, [2, 3],
    ),
    "all its tags must match": (
        [(1, 50, ["v1"]), (2, 50, ["pr-1", "latest"])], {"tags_matching": ("pr-*",)}, [],
    ),
    "tags can be protected": (
        [(1, 50, ["v1"]), (2, 50, ["pr-1"]), (3, 50, ["pr-2"])],
        {"tags_matching": ("pr-*",), "keep_tags": ("*-2",)}, [2],
    ),
    "the last tagged version stays": (
        [(1, 50, ["pr-1"]), (2, 40, ["pr-2"])], {"tags_matching": ("*",)}, [1],
    ),
    "a manifest that could not be read stops all": (
        [*IMAGE, *OLD, (30, 40)], {"unreadable": [30]}, [],
    ),
    "a manifest that is certainly absent stops nothing": (
        [*IMAGE, *OLD, (30, 40)], {"gone": [30]}, [11, 30, 12, 13],
    ),
    "an image that somebody signs right now lives": (
        [*IMAGE, *OLD, (15, 0.1, [referrer_tag(11, ".sig")])], {}, [],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_documented_cases(name: str):
    """Each rule of docs/cleanup.md, on the smallest package that shows it."""
    rows, options, expected = CASES[name]
    options = dict(options)
    marks = {key: options.pop(key, ()) for key in ("unreadable", "gone")}
    updated = options.pop("updated", {})
    made = package(*rows, **marks)
    versions = dict(made.versions)
    for number, age in updated.items():
        versions[digest(number)] = replace(versions[digest(number)], updated=NOW - age * DAY)
    policy = Policy(**{"keep": 0, "now": NOW, **options})
    plan = make_plan(replace(made, versions=versions), policy)
    assert gone_by(plan) == expected
    assert set(plan.kept) | {d.digest for d in plan.to_delete} == set(versions)


def test_what_only_the_registry_knows_is_never_deleted():
    """A version that GitHub has not listed has no number to delete it by: it is a root."""
    made = package((1, 50, ["pr-1"], [2]), (2, 50), (3, 9, ["v1"]), (4, 50, [referrer_tag(99)]))
    versions = dict(made.versions)
    for number in (1, 4):
        versions[digest(number)] = replace(versions[digest(number)], id=0)
    policy = Policy(keep=0, now=NOW, tags_matching=("pr-*",))
    assert gone_by(make_plan(replace(made, versions=versions), policy)) == []


def test_an_unread_plain_part_is_kept_alone():
    """A part that is no index reaches nothing: it stays, and stops nothing else."""
    made = package(*IMAGE, *OLD, unreadable=[12])
    facts = dict(made.links)
    facts[digest(11)] = Links((digest(12), digest(13)))
    plan = make_plan(replace(made, links=facts), Policy(keep=0, now=NOW))
    assert gone_by(plan) == [11, 13]
    assert numbers(plan.undecided) == [12]


def test_broken_tags_are_told():
    """Tags whose parts are missing before anything was done, with what is missing."""
    plan = make_plan(
        package((1, 9, ["v1", "latest"], [2, 98]), (2, 9, [], [99]), (3, 9, ["v2"]), (4, 9, ["v3"]), gone=[4]),
        Policy(now=NOW),
    )  # fmt: skip
    missing = {tag: numbers(parts) for tag, parts in plan.broken.items()}
    assert missing == {"v1": [98, 99], "latest": [98, 99], "v3": [4]}


def test_reasons_are_told():
    """The table of a dry run says why, in words."""
    rows = [*IMAGE, *OLD, (15, 20, [referrer_tag(11, ".sig")]), (16, 20, [referrer_tag(99)])]
    plan = make_plan(package(*rows, (30, 5)), Policy(keep=1, now=NOW))
    why = {d.id: d.reason for d in plan.to_delete}
    assert why[11] == "untagged, not one of the newest 1"
    assert why[12] == "part of 000000000000, which goes"
    assert why[15] == "refers to 000000000000, which goes"
    assert why[16] == "refers to 000000000000, which is gone"
    kept = {
        made.id: plan.kept[made.digest] for made in package(*IMAGE, (30, 5)).versions.values()
    }
    assert kept[1] == "tagged v1"
    assert kept[2] == "part of 000000000000"
    assert kept[30] == "one of the newest 1"


# --- properties ---


NODE = 7  # bytes that decide one manifest


def decode(data: bytes) -> Package:
    """A package from random bytes: nesting, shared and missing parts, referrers of
    referrers, any ages and tags.

    A manifest holds digests, so it can only name what was made before it; tags can name
    anything. (One draw of bytes is much faster than many small ones, and shrinks well.)
    """
    count = max(1, len(data) // NODE)
    data = data.ljust(count * NODE, b"\0")
    versions, facts, taken = {}, {}, set()
    for number in range(1, count + 1):
        first, second, third, refers, tagging, named, age = data[(number - 1) * NODE :][:NODE]
        # 91 is a digest that the package doesn't have.
        earlier = [*range(1, number), 91]
        several = [byte for byte in (first, second, third) if byte >= 96]
        parts = tuple(dict.fromkeys(digest(earlier[byte % number]) for byte in several))
        subject = digest(earlier[refers % number]) if refers >= 192 else ""
        anything = [*range(1, count + 1), 91][named % (count + 1)]
        kinds = [(), ("v",), ("pr",), ("",), (".sig",), ("v", ".att"), ("pr", "v"), ()]
        tags = [
            f"{kind}-{number}" if kind in {"v", "pr"} else referrer_tag(anything, kind)
            for kind in kinds[tagging % 8]
        ]
        mine = tuple(tag for tag in tags if tag not in taken)
        taken |= set(mine)
        created = NOW - (age % 32) * DAY / 8
        updated = created + (NOW - created) * (age // 32) / 7 if age >= 192 else created
        versions[digest(number)] = PackageVersion(
            number, digest(number), mine, created, updated
        )
        facts[digest(number)] = Links(parts, parts, subject)
    return Package(versions, facts)


packages = st.binary(min_size=NODE, max_size=12 * NODE).map(decode)

policies = st.builds(
    Policy,
    keep=st.integers(0, 4),
    grace=st.sampled_from([0.0, DAY, 3 * DAY]),
    older_than=st.sampled_from([0.0, 0.0, 2 * DAY]),
    tags_matching=st.sampled_from([(), (), ("pr-*",), ("*",)]),
    keep_tags=st.sampled_from([(), ("v-*",)]),
    now=st.just(NOW),
)


def complete_tags(made: Package, there: Collection[str]) -> set[str]:
    """Tags that pull whole, walked independently of the planner."""

    def whole(one: str) -> bool:
        return one in there and all(whole(child) for child in made.links[one].children)

    return {tag for one in there for tag in made.versions[one].tags if whole(one)}


def without(made: Package, plan: CleanupPlan) -> Package:
    """The package after a plan was carried out."""
    gone = {deletion.digest for deletion in plan.to_delete}
    versions = {key: value for key, value in made.versions.items() if key not in gone}
    return Package(versions, {key: made.links[key] for key in versions})


def subjects_of(made: Package, one: str) -> set[str]:
    """What a version refers to, by tag or by field."""
    found = {subject_of_tag(tag) for tag in made.versions[one].tags} | {made.links[one].subject}
    return found - {"", one}


def closure(made: Package, roots: set[str], there: Collection[str]) -> set[str]:
    """What lives because of ``roots``: a naive reading of the rules."""
    living = set(roots)
    while True:
        more = set(living)
        for one in there:
            linked = subjects_of(made, one)
            if one in living:
                more |= set(made.links[one].children) | linked
            if linked & living:
                more.add(one)
        more &= set(there)
        if more == living:
            return living
        living = more


def check_every_moment(made: Package, plan: CleanupPlan) -> None:
    """No tag that was complete is ever broken, wherever a run is interrupted."""
    there = set(made.versions)
    before = complete_tags(made, there)
    for deletion in plan.to_delete:
        there.remove(deletion.digest)
        left = {tag for one in there for tag in made.versions[one].tags}
        assert before & left <= complete_tags(made, there)


def check_what_stays(made: Package, policy: Policy, plan: CleanupPlan) -> None:
    """Roots and all they reach stay; what nothing keeps alive goes."""
    there = set(made.versions) - {d.digest for d in plan.to_delete}
    roots = set()
    for one, version in made.versions.items():
        names = own_tags(version)
        if (names and not policy.may_lose(names)) or policy.is_young(version):
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


def check_refusals(made: Package, policy: Policy, plan: CleanupPlan, refused: set[int]) -> None:
    """What GitHub refuses to delete keeps its parts, no tag breaks, the next run ends it."""
    there = set(made.versions)
    before = complete_tags(made, there)
    failed: set[str] = set()
    for deletion in plan.to_delete:
        one = deletion.digest
        if deletion.id in refused or failed & set(deletion.after):
            failed.add(one)
        else:
            there.remove(one)
    for one in failed:
        assert set(made.links[one].children) & set(made.versions) <= there
    left = {tag for one in there for tag in made.versions[one].tags}
    assert before & left <= complete_tags(made, there)
    rest = Package({k: made.versions[k] for k in there}, {k: made.links[k] for k in there})
    again = without(rest, make_plan(rest, policy))
    assert make_plan(again, policy).to_delete == ()


@given(packages, policies, st.sets(st.integers(1, 12), max_size=3))
@settings(max_examples=1000 * LENGTH)
def test_the_promises_hold_for_any_package(made: Package, policy: Policy, refused: set[int]):
    """No complete tag breaks at any moment; what lives stays, all else goes, in one run."""
    plan = make_plan(made, policy)
    check_every_moment(made, plan)
    check_what_stays(made, policy, plan)
    left = without(made, plan)
    assert left.versions
    assert make_plan(left, policy).to_delete == ()
    check_refusals(made, policy, plan, refused)


@given(packages, policies)
@settings(max_examples=200 * LENGTH)
def test_keeps_no_fewer_than_asked(made: Package, policy: Policy):
    """``keep N`` never leaves fewer untagged versions than N (or than there were)."""
    untagged = [one for one, version in made.versions.items() if not version.tags]
    if any(version.tags and not own_tags(version) for version in made.versions.values()):
        return  # referrers' tags count as images of their own: see the case table
    if policy.tags_matching:
        return
    plan = make_plan(made, policy)
    gone = {deletion.digest for deletion in plan.to_delete}
    assert len([one for one in untagged if one not in gone]) >= min(policy.keep, len(untagged))


@given(packages, policies, st.sets(st.integers(1, 12), min_size=1))
@settings(max_examples=200 * LENGTH)
def test_nothing_goes_that_an_unread_manifest_could_reach(
    made: Package, policy: Policy, unreadable: set[int]
):
    """What can't be read might list anything: nothing goes, and the plan says so."""
    hidden = {digest(number) for number in unreadable} & set(made.versions)
    facts = {key: value for key, value in made.links.items() if key not in hidden}
    plan = make_plan(Package(made.versions, facts, dict.fromkeys(hidden, "500")), policy)
    assert hidden == set(plan.undecided)
    assert not hidden or plan.to_delete == ()
    if hidden:
        again = Package(made.versions, facts, dict.fromkeys(hidden, "500"))
        assert make_plan(again, policy, within=set(made.versions)).to_delete == ()


@given(packages, policies)
@settings(max_examples=200 * LENGTH)
def test_reading_only_what_matters_decides_the_same(made: Package, policy: Policy):
    """Parts of living images are not read: the plan must be the one of a full reading."""
    # Descriptors tell truly which parts have parts of their own.
    truth = {
        key: replace(value, nested=tuple(c for c in value.children if made.links.get(c, NO_LINKS).children))
        for key, value in made.links.items()
    }  # fmt: skip
    full = make_plan(replace(made, links=truth), policy)
    known: dict[str, Links] = {}
    while wanted := unread(replace(made, links=known), policy):
        assert not set(wanted) & set(known)
        known |= {one: truth[one] for one in wanted}
    partial = make_plan(replace(made, links=known), policy)
    skipped = set(truth) - set(known)
    assert skipped <= set(partial.kept)
    # A skipped part may have a subject of its own; that can only keep more alive.
    assert {d.digest for d in full.to_delete} <= {d.digest for d in partial.to_delete}
    for one in {d.digest for d in partial.to_delete} - {d.digest for d in full.to_delete}:
        assert any(subjects_of(made, s) for s in skipped), one


@given(packages, policies, st.sets(st.integers(1, 12)))
@settings(max_examples=200 * LENGTH)
def test_a_plan_that_is_looked_at_again_only_shrinks(
    made: Package, policy: Policy, allowed: set[int]
):
    """What was not in the first plan is never deleted by the second look, nor its parts."""
    names = {digest(number) for number in allowed}
    gone = {one.digest for one in make_plan(made, policy, within=names).to_delete}
    assert gone <= names & {d.digest for d in make_plan(made, policy).to_delete}
    there = set(made.versions) - gone
    before = complete_tags(made, made.versions)
    left = {tag for one in there for tag in made.versions[one].tags}
    assert before & left <= complete_tags(made, there)


@given(packages, policies)
@settings(max_examples=200 * LENGTH)
def test_a_second_look_at_the_same_decides_the_same(made: Package, policy: Policy):
    """Nothing has changed: all that was planned may go."""
    planned = {deletion.digest for deletion in make_plan(made, policy).to_delete}
    again = make_plan(made, policy, within=planned)
    assert {one.digest for one in again.to_delete} == planned


def test_the_graph_is_drawn_from_tags_and_manifests():
    """Both ways to refer to a subject make the same edge."""
    made = package((1, 9, ["v1"]), (2, 9, [referrer_tag(1, ".sig")]), (3, 9, [], [], 1))
    assert numbers(made.referrers[digest(1)]) == [2, 3]
