"""Image tags and labels of an event."""

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tools.core.errors import UsageError
from tools.images import names
from tools.images.names import OCI_TAG, development_tags, production_tags
from tools.repo.event import Event
from tools.repo.versions import known_versions, parse_tag

SHA = "abcdef1234567890abcdef1234567890abcdef12"
NOBODY = "no such branch\0"


def push(ref: str, default: str = "main") -> Event:
    return Event("push", ref, SHA, "owner/name", default)


PULL = Event("pull_request", "refs/pull/123/merge", SHA, pull_request=123)
MANUAL = Event("workflow_dispatch", "refs/heads/main", SHA)


@pytest.mark.parametrize(
    ("event", "development", "production"),
    [
        (push("refs/heads/main"), "main main-abcdef1 latest", "main-prod prod"),
        (MANUAL, "main main-abcdef1 latest", "main-prod prod"),
        (push("refs/heads/trunk", "trunk"), "trunk trunk-abcdef1 latest", "trunk-prod prod"),
        (push("refs/heads/main", "trunk"), "main main-abcdef1", "main-prod"),
        (push("refs/heads/develop"), "develop develop-abcdef1", "develop-prod"),
        (PULL, "pr-123", "pr-123-prod"),
        (push("refs/tags/v1.2.3"), "v1.2.3 1.2 1", "v1.2.3-prod"),
        (push("refs/tags/v0.4.1"), "v0.4.1 0.4", "v0.4.1-prod"),
        (push("refs/tags/v1.2.3.post1"), "v1.2.3.post1 1.2 1", "v1.2.3.post1-prod"),
        *(
            (push(f"refs/tags/v1.2.3{suffix}"), f"v1.2.3{suffix}", f"v1.2.3{suffix}-prod")
            for suffix in ("-rc1", "-alpha.1", "-beta2", "rc1", "a1", "b2", ".dev1")
        ),
    ],
)
def test_documented_tags(event, development, production):
    """Each documented event yields just the tags that are documented for it."""
    assert development_tags(event) == development.split()
    assert production_tags(event) == production.split()


@pytest.mark.parametrize(
    ("tag", "existing", "floating"),
    [
        ("v1.0.5", ["v1.1.0"], ["1.0"]), ("v1.0.5", ["v1.0.4", "v1.0.5"], ["1.0", "1"]),
        ("v1.0.5", ["v1.0.6"], []), ("v1.0.5", ["v2.0.0"], ["1.0", "1"]),
        ("v1.0.5", ["v1.1.0-rc1"], ["1.0", "1"]),
        ("v1.0.5", ["v1.1.0", "nightly", ""], ["1.0"]),
        ("v1.10.0", ["v1.9.0"], ["1.10", "1"]), ("v1.9.0", ["v1.10.0"], ["1.9"]),
        ("v0.2.0", ["v0.10.0"], ["0.2"]), ("v1.1.0-rc1", ["v1.0.0"], []),
    ],
)  # fmt: skip
def test_floating_tags_never_move_backwards(tag, existing, floating):
    """What a higher stable version holds stays with it; versions count, not text."""
    assert names.floating_tags(parse_tag(tag), known_versions(existing)) == floating
    assert development_tags(push(f"refs/tags/{tag}"), existing) == [tag, *floating]


versions = st.builds(
    lambda a, b, c, suffix: f"v{a}.{b}.{c}{suffix}",
    st.integers(0, 3), st.integers(0, 3), st.integers(0, 3),
    st.sampled_from(["", "", "", "rc1", "-beta2", ".dev1", ".post1"]),
)  # fmt: skip


@given(st.lists(versions, unique=True, min_size=1, max_size=12))
def test_published_in_any_order_a_floating_tag_ends_on_the_highest(order):
    """Simulates publishing one after another: the end does not depend on the order."""
    holds: dict[str, str] = {}
    for count, tag in enumerate(order):
        for floating in names.floating_tags(parse_tag(tag), known_versions(order[:count])):
            before = holds.get(floating)
            assert before is None or parse_tag(before).version <= parse_tag(tag).version
            holds[floating] = tag
    stable = [found for found in known_versions(order) if not found.is_prerelease]
    for found in stable:
        for floating in {found.minor, found.major} - {"0"}:
            of_it = [o for o in stable if floating in (o.minor, o.major)]
            assert parse_tag(holds[floating]).version == max(of_it).version
    assert "0" not in holds


@pytest.mark.parametrize("tag", ["vnext", "v1", "nightly", "1.0.0"])
def test_a_git_tag_that_is_no_version_is_refused(tag):
    """Nothing is tagged after it; the sentence shows accepted forms."""
    for tags in (development_tags, production_tags):
        with pytest.raises(UsageError, match="v1.2.3-rc1"):
            tags(push(f"refs/tags/{tag}"))


@pytest.mark.parametrize(
    ("kept", "branches"),
    [
        (True, "main develop feature-a Fix_2.x release.1"),
        (False, "latest prod main-prod pr-12 pr 1 1.2 v1.2.3 1.2.3-rc1 v2 2fast pr-1234567"),
        (False, "main-abcdef1 main-abcdef12 v1.2.3-prod"),
    ],
)
def test_branches_keep_their_names_but_for_what_means_something(kept, branches):
    """A branch called latest, or like a version, does not move that tag."""
    for branch in branches.split():
        assert (names.branch_tag(branch) == branch) == kept, branch


def may_be_a_branch(name):
    """Whether an event can be of a branch of this name."""
    try:
        return bool(push(f"refs/heads/{name}"))
    except UsageError:
        return False


letters = st.characters(codec="utf-8", exclude_characters="\0\n ~^:?*[\\")
branches = st.text(letters, min_size=1, max_size=300).filter(may_be_a_branch)
near = st.text("abAB01./-_#", min_size=1, max_size=12).filter(may_be_a_branch)


@given(branches | near)
def test_any_branch_becomes_a_valid_tag(branch):
    """Every tag of any branch satisfies the OCI grammar, 128 characters included."""
    event = push(f"refs/heads/{branch}")
    for tag in development_tags(event) + production_tags(event):
        assert OCI_TAG.fullmatch(tag), tag


@given(near, near | branches, versions, st.integers(1, 10**7))
def test_no_branch_takes_the_tags_of_anything_else(one, two, tag, number):
    """Not one tag of a branch is another's, a version's, a pull request's, latest or prod."""
    assume(one != two)
    pull = Event("pull_request", f"refs/pull/{number}/merge", SHA, pull_request=number)
    others = [push(f"refs/heads/{two}", NOBODY), push(f"refs/tags/{tag}"), pull]
    theirs = [development_tags(event) + production_tags(event) for event in others]
    event = push(f"refs/heads/{one}", NOBODY)
    ours = development_tags(event) + production_tags(event)
    assert {"latest", "prod"}.union(*theirs).isdisjoint(ours)


@pytest.mark.parametrize(
    ("event", "moving"),
    [
        (push("refs/heads/main"), "main latest main-prod prod"),
        (push("refs/heads/feature/a"), "feature-a-951d42dc feature-a-951d42dc-prod"),
        (push("refs/tags/v1.2.3"), "1.2 1"), (push("refs/tags/v1.2.3-rc1"), ""),
    ],
)  # fmt: skip
def test_tags_that_move(event, moving):
    """All but a commit's own tag and a version's own."""
    tags = development_tags(event) + production_tags(event)
    assert [tag for tag in tags if names.moves(tag, event)] == moving.split()


def test_labels():
    """All eight labels of the OCI image specification, the same for the same commit."""
    found = names.labels(push("refs/tags/v1.2.3-rc1"), 1_700_000_000)
    short = {key.removeprefix("org.opencontainers.image."): found[key] for key in found}
    assert short.pop("title") == "mlc-llm" and "LLM" in short.pop("description")
    assert short == {
        "url": "https://github.com/owner/name", "source": "https://github.com/owner/name",
        "version": "1.2.3rc1", "created": "2023-11-14T22:13:20Z", "revision": SHA,
        "licenses": "Apache-2.0",
    }  # fmt: skip
