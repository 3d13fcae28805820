"""Versions and version tags."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.version import Version

from tools.core.errors import UsageError
from tools.repo.versions import ACCEPTED, development_version, known_versions, parse_tag


@pytest.mark.parametrize(
    ("tag", "version", "prerelease"),
    [
        ("v1.2.3", "1.2.3", False),
        ("v1.2", "1.2", False),
        ("v0.1.0", "0.1.0", False),
        ("v1.2.3-rc1", "1.2.3rc1", True),
        ("v1.2.3-alpha.1", "1.2.3a1", True),
        ("v1.2.3-beta2", "1.2.3b2", True),
        ("v1.2.3rc1", "1.2.3rc1", True),
        ("v1.2.3a1", "1.2.3a1", True),
        ("v1.2.3b2", "1.2.3b2", True),
        ("v1.2.3.dev1", "1.2.3.dev1", True),
        ("v1.2.3.post1", "1.2.3.post1", False),
        ("v1.2.3-rc.1.dev2", "1.2.3rc1.dev2", True),
    ],
)
def test_accepted_tags(tag: str, version: str, prerelease: bool) -> None:
    """Every documented spelling is read as PEP 440 reads it."""
    found = parse_tag(tag)
    assert (str(found.version), found.is_prerelease, found.tag) == (version, prerelease, tag)


@pytest.mark.parametrize(
    "tag",
    [
        "", "v", "v1", "1.2.3", "V1.2.3", "vnext", "v1.2.3-prod", "v1.2.3+local", "v1!2.3.0",
        "v1.2.3-", "v1.2.3-rc1-", "v1.2.3 ", "v1.2.3\n", "v1.2.3-1", "v1.2.x", "release",
        "v١.٢.٣", "v" + "9" * 5000 + ".0", "v1.2." + "0" * 130,
    ],
)  # fmt: skip
def test_refused_tags(tag: str) -> None:
    """Whatever is not a version is refused with a sentence that shows the accepted forms."""
    with pytest.raises(UsageError) as caught:
        parse_tag(tag)
    assert ACCEPTED in caught.value.remedy
    assert len(caught.value.message) < 300


def test_every_accepted_example_is_accepted() -> None:
    """The sentence does not advertise a form that is then refused."""
    for example in ACCEPTED.replace(" or ", ", ").split(", "):
        parse_tag(example)


@given(st.text(max_size=200) | st.from_regex(r"v[0-9.]*[a-z.\-_0-9]{0,150}"))
def test_any_text_is_a_version_or_refused(text: str) -> None:
    """No tag ends in anything but a version or our own error."""
    try:
        found = parse_tag(text)
    except UsageError:
        return
    assert Version(text) == found.version


@pytest.mark.parametrize("tail", ["a" * 110 + "!", "a." * 55 + "!", "1a" * 55 + "!"])
def test_no_tag_takes_long(tail: str) -> None:
    """A hostile tag does not send the pattern into exponential backtracking."""
    begun = time.process_time()
    with pytest.raises(UsageError):
        parse_tag("v1.2" + tail)
    assert time.process_time() - begun < 5


def test_known_versions_pass_over_other_tags() -> None:
    """Tags that are not versions are ignored, the others are ordered as versions."""
    tags = ["v1.10.0", "nightly", "v1.9.0", "v1.10.0-rc1"]
    assert [found.tag for found in known_versions(tags)] == ["v1.9.0", "v1.10.0-rc1", "v1.10.0"]


numbers = st.integers(0, 50)
releases = st.lists(numbers, min_size=2, max_size=4).map(lambda n: "v" + ".".join(map(str, n)))
suffixes = st.sampled_from(["", "a1", "-beta2", "rc3", ".dev4", ".post1"])
tags = st.builds(lambda release, suffix: release + suffix, releases, suffixes)


@given(tags, st.integers(1, 10_000), st.booleans())
def test_development_version_is_after_its_tag(tag: str, distance: int, dirty: bool) -> None:
    """It sorts after the tag it grew from, is a prerelease, and names the commit."""
    made = Version(development_version(parse_tag(tag).version, distance, "abcdef1234", dirty))
    assert made > parse_tag(tag).version
    assert made.is_prerelease
    assert (made.local or "").startswith("gabcdef1")


@given(releases, st.integers(1, 10_000))
def test_development_version_is_before_the_next_release(tag: str, distance: int) -> None:
    """It sorts before the next release, even before that one's first prerelease."""
    release = list(parse_tag(tag).version.release)
    release += [0] * (3 - len(release))
    release[-1] += 1
    following = ".".join(map(str, release))
    made = Version(development_version(parse_tag(tag).version, distance, "abcdef1234", False))
    assert Version(made.public) < Version(f"{following}a0")


@given(tags, st.integers(0, 1000))
def test_development_versions_grow(tag: str, distance: int) -> None:
    """The commit after sorts after, so that an upgrade is one."""
    one = Version(
        Version(development_version(parse_tag(tag).version, distance, "a" * 40, False)).public
    )
    two = Version(
        Version(
            development_version(parse_tag(tag).version, distance + 1, "b" * 40, False)
        ).public
    )
    assert one < two


def test_development_version_without_any_tag() -> None:
    """A repository without tags has development releases of 0.0.1."""
    assert development_version(None, 7, "abcdef1234", False) == "0.0.1.dev7+gabcdef1"
