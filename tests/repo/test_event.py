"""What triggered us: from Actions variables."""

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tools.core.errors import UsageError
from tools.repo.event import NO_COMMIT, from_actions

SHA = "abcdef1234567890abcdef1234567890abcdef12"
PUSH = {
    "GITHUB_EVENT_NAME": "push",
    "GITHUB_REF": "refs/heads/main",
    "GITHUB_SHA": SHA,
    "GITHUB_REPOSITORY": "Owner/Name",
}


def event_file(tmp_path: Path, payload: object) -> dict[str, str]:
    """The variable that names a payload."""
    path = tmp_path / "event.json"
    path.write_text(json.dumps(payload), encoding="utf-8")
    return {"GITHUB_EVENT_PATH": str(path)}


def test_pushes(tmp_path: Path) -> None:
    """A branch, a tag (which is not on the default branch), and a default branch that is not
    main, which the payload names.
    """
    event = from_actions(PUSH)
    assert (event.branch, event.tag, event.pull_request) == ("main", None, None)
    assert event.on_default_branch and event.short_sha == "abcdef1"
    assert event.repository == "Owner/Name"
    event = from_actions({**PUSH, "GITHUB_REF": "refs/tags/v1.0.0"})
    assert (event.branch, event.tag, event.on_default_branch) == (None, "v1.0.0", False)
    assert event.ref_name == "v1.0.0"
    payload = event_file(tmp_path, {"repository": {"default_branch": "trunk"}})
    assert from_actions({**PUSH, **payload, "GITHUB_REF": "refs/heads/trunk"}).on_default_branch


def pull_request(head: object) -> dict[str, object]:
    """A pull request's payload, cut down to what is read."""
    base = {"repo": {"full_name": "owner/name"}}
    return {"number": 7, "pull_request": {"head": {"repo": head}, "base": base}}


@pytest.mark.parametrize(
    ("head", "fork"),
    [
        ({"full_name": "owner/name"}, False),
        ({"full_name": "a/b"}, True),
        (None, True),
        ({}, True),
    ],
)
def test_pull_request(tmp_path: Path, head: object, fork: bool) -> None:
    """Its number comes from the reference; a fork, deleted ones included, is known, and who
    does not tell where it comes from gets no rights.
    """
    env = {
        "GITHUB_EVENT_NAME": "pull_request",
        "GITHUB_REF": "refs/pull/123/merge",
        "GITHUB_HEAD_REF": "topic",
        "GITHUB_BASE_REF": "main",
        **event_file(tmp_path, pull_request(head)),
    }
    event = from_actions(env)
    assert (event.pull_request, event.fork, event.branch) == (123, fork, None)
    assert (event.head_ref, event.base_ref) == ("topic", "main")


def test_pull_request_is_never_taken_for_a_push(tmp_path: Path) -> None:
    """With a branch as its reference the payload's number counts; without one, an error.

    Taken for a push, a pull request would move the tags of the branch, latest included.
    """
    env = PUSH | {"GITHUB_EVENT_NAME": "pull_request"}
    event = from_actions(env | event_file(tmp_path, pull_request({"full_name": "a/b"})))
    assert (event.pull_request, event.branch, event.on_default_branch) == (7, None, False)
    with pytest.raises(UsageError, match="names none"):
        from_actions(env)


@pytest.mark.parametrize(("value", "forced"), [("true", True), (True, True), ("false", False)])
def test_force_build(tmp_path: Path, value: object, forced: bool) -> None:
    """Actions gives the input as text in some events and as a boolean in others."""
    env = PUSH | {"GITHUB_EVENT_NAME": "workflow_dispatch"}
    env |= event_file(tmp_path, {"inputs": {"force_build": value}})
    assert from_actions(env).force_build is forced


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("EVENT_NAME", "schedule", "'schedule' does not trigger"),
        ("REF", "main", "not a full git reference"),
        ("REF", "", "not a full git reference"),
        ("REF", "refs/heads/", "not a full git reference"),
        ("SHA", "abc", "not a full hash"),
        ("SHA", SHA + "; rm -rf", "not a full hash"),
        ("EVENT_PATH", "/no/such/file", "cannot be read"),
    ],
)
def test_bad_variables(variable: str, value: str, said: str) -> None:
    """Each wrong variable gives one sentence and a remedy, with exit code 2."""
    with pytest.raises(UsageError, match=said) as caught:
        from_actions(PUSH | {f"GITHUB_{variable}": value})
    assert caught.value.remedy and caught.value.exit_code == 2


def test_bad_payload(tmp_path: Path) -> None:
    """A payload that is no JSON object, or one nested to break the parser, is refused."""
    path = tmp_path / "event.json"
    for content in (b"", b"[", b"[1]", b"null", b"[" * 200_000, b"\xff"):
        path.write_bytes(content)
        with pytest.raises(UsageError, match="event.json"):
            from_actions(PUSH | {"GITHUB_EVENT_PATH": str(path)})


names = st.sampled_from(["push", "pull_request", "workflow_dispatch", "schedule", ""])
refs = st.text(max_size=60) | st.from_regex(r"refs/(heads|tags|pull)/.*", fullmatch=True)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.sampled_from(["head", "base", "repo", "full_name"]), inner),
    max_leaves=8,
)
payloads = st.dictionaries(
    st.sampled_from(["number", "pull_request", "inputs", "repository"]), values
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(names, refs, st.text(max_size=42) | st.just(SHA), payloads)
def test_any_environment_is_read_or_refused(
    tmp_path: Path, name: str, ref: str, sha: str, payload: dict[str, object]
) -> None:
    """Whatever the variables hold: an event with sound parts, or a UsageError."""
    env = {"GITHUB_EVENT_NAME": name, "GITHUB_REF": ref, "GITHUB_SHA": sha}
    try:
        event = from_actions(env | event_file(tmp_path, payload))
    except UsageError:
        return
    assert event.ref == ref and ref.startswith(("refs/heads/", "refs/tags/", "refs/pull/"))
    assert event.sha in (sha, NO_COMMIT)
    assert isinstance(event.default_branch, str)
    assert not (event.name == "pull_request" and event.branch)
    assert json.dumps(event.to_json()) and "payload" not in event.to_json()
