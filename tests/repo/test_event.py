"""What triggered us: from Actions variables."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tools.core.errors import UsageError
from tools.repo.event import NO_COMMIT, Event, from_actions

SHA = "abcdef1234567890abcdef1234567890abcdef12"
Read = Callable[..., Event]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """The event of a payload, if any, and of variables over those of a push of main."""

    def event(payload: object = None, **variables: str) -> Event:
        env = {"event_name": "push", "ref": "refs/heads/main", "sha": SHA} | variables
        if payload is not None:
            env["event_path"] = str(tmp_path / "event.json")
            Path(env["event_path"]).write_text(json.dumps(payload), encoding="utf-8")
        return from_actions({f"GITHUB_{name.upper()}": value for name, value in env.items()})

    return event


def test_pushes(read: Read) -> None:
    """A branch, a tag (which is not on the default branch), and a default branch that is not
    main, which the payload names.
    """
    event = read(repository="Owner/Name")
    assert (event.branch, event.tag, event.pull_request) == ("main", None, None)
    assert event.on_default_branch and event.short_sha == "abcdef1"
    assert event.repository == "Owner/Name"
    event = read(ref="refs/tags/v1.0.0")
    assert (event.branch, event.tag, event.on_default_branch) == (None, "v1.0.0", False)
    assert event.ref_name == "v1.0.0"
    trunk = {"repository": {"default_branch": "trunk"}}
    assert read(trunk, ref="refs/heads/trunk").on_default_branch


def pull_request(head: object) -> dict[str, object]:
    """A pull request's payload, cut down to what is read."""
    base = {"repo": {"full_name": "owner/name"}}
    return {"number": 7, "pull_request": {"head": {"repo": head}, "base": base}}


@pytest.mark.parametrize("head", [{"full_name": "owner/name"}, {"full_name": "a/b"}, None, {}])
def test_pull_request(read: Read, head: object) -> None:
    """Its number comes from the reference; a fork, deleted ones included, is known, and who
    does not tell where it comes from gets no rights.
    """
    event = read(
        pull_request(head),
        event_name="pull_request",
        ref="refs/pull/123/merge",
        head_ref="topic",
        base_ref="main",
    )
    fork = head != {"full_name": "owner/name"}
    assert (event.pull_request, event.fork, event.branch) == (123, fork, None)
    assert (event.head_ref, event.base_ref) == ("topic", "main")


def test_pull_request_is_never_taken_for_a_push(read: Read) -> None:
    """With a branch as its reference the payload's number counts; without one, an error.

    Taken for a push, a pull request would move the tags of the branch, latest included.
    """
    event = read(pull_request({"full_name": "a/b"}), event_name="pull_request")
    assert (event.pull_request, event.branch, event.on_default_branch) == (7, None, False)
    with pytest.raises(UsageError, match="names none"):
        read(event_name="pull_request")


@pytest.mark.parametrize(("value", "forced"), [("true", True), (True, True), ("false", False)])
def test_force_build(read: Read, value: object, forced: bool) -> None:
    """Actions gives the input as text in some events and as a boolean in others."""
    payload = {"inputs": {"force_build": value}}
    assert read(payload, event_name="workflow_dispatch").force_build is forced


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("event_name", "relese", "'relese' is not an event"),
        ("ref", "main", "not a full git reference"),
        ("ref", "", "not a full git reference"),
        ("ref", "refs/heads/", "not a full git reference"),
        ("ref", "refs/heads/\udce9", "not a full git reference"),
        ("sha", "abc", "not a full hash"),
        ("sha", SHA + "; rm -rf", "not a full hash"),
        ("event_path", "/no/such/file", "cannot be read"),
    ],
)
def test_bad_variables(read: Read, variable: str, value: str, said: str) -> None:
    """Each wrong variable gives one sentence and a remedy, with exit code 2."""
    with pytest.raises(UsageError, match=said) as caught:
        read(**{variable: value})
    assert caught.value.remedy and caught.value.exit_code == 2


def test_bad_payload(read: Read, tmp_path: Path) -> None:
    """A payload that is no JSON object, or one nested to break the parser, is refused."""
    path = tmp_path / "event.json"
    for content in (b"", b"[", b"[1]", b"null", b"[" * 200_000, b"\xff"):
        path.write_bytes(content)
        with pytest.raises(UsageError, match="event.json"):
            read(event_path=str(path))


def test_a_merge_queue_only_proposes(read: Read) -> None:
    """Its branch is nobody's: nothing is published for it, and filters look at what it is to
    change, which the payload names, else the reference.
    """
    ref = f"refs/heads/gh-readonly-queue/release/1.0/pr-7-{SHA}"
    event = read(event_name="merge_group", ref=ref)
    assert (event.branch, event.target, event.publishes) == (None, "release/1.0", False)
    group = {"merge_group": {"base_ref": "refs/heads/main"}}
    assert read(group, event_name="merge_group", ref=ref).target == "main"


@pytest.mark.parametrize(
    ("name", "ref", "payload", "publishes"),
    [
        *(("push", "refs/heads/x", {}, True), ("push", "refs/tags/v1.0.0", {}, True)),
        ("push", "refs/heads/x", {"deleted": True}, False),
        *(
            ("workflow_dispatch", "refs/heads/x", {}, True),
            ("schedule", "refs/heads/x", {}, True),
        ),
        ("pull_request", "refs/pull/7/merge", {}, False),
        # It runs on the base branch, for code that only asks to get there.
        ("pull_request_target", "refs/heads/main", {"number": 7}, False),
        ("issue_comment", "refs/heads/main", {}, False),
    ],
)
def test_publishes(
    read: Read, name: str, ref: str, payload: dict[str, object], publishes: bool
) -> None:
    """What somebody with push rights asked for is published, for a branch or a tag."""
    assert read(payload, event_name=name, ref=ref).publishes is publishes


def test_deletion_and_repository(read: Read) -> None:
    """A push of no commit is a deletion; the payload names the repository where no variable
    does.
    """
    assert read(sha=NO_COMMIT).deleted and not read({"deleted": 1}).deleted
    assert read({"repository": {"full_name": "a/b"}}).repository == "a/b"
    assert read({"repository": {"full_name": 3}}).repository == ""


names = st.sampled_from(
    ["push", "pull_request", "pull_request_target", "merge_group", "schedule", ""]
)
refs = st.text(max_size=60) | st.from_regex(r"refs/(heads|tags|pull)/.*", fullmatch=True)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.sampled_from(["head", "base", "repo", "full_name"]), inner),
    max_leaves=8,
)
keys = st.sampled_from(["number", "pull_request", "inputs", "repository"])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(names, refs, st.text(max_size=42) | st.just(SHA), st.dictionaries(keys, values))
def test_any_environment_is_read_or_refused(
    read: Read, name: str, ref: str, sha: str, payload: dict[str, object]
) -> None:
    """Whatever the variables hold: an event with sound parts, or a UsageError."""
    try:
        event = read(payload, event_name=name, ref=ref, sha=sha)
    except UsageError:
        return
    assert event.ref == ref and ref.startswith(("refs/heads/", "refs/tags/", "refs/pull/"))
    assert event.sha in (sha, NO_COMMIT)
    assert isinstance(event.default_branch, str)
    assert not (event.name == "pull_request" and event.branch)
    assert json.dumps(event.to_json()) and "payload" not in event.to_json()
