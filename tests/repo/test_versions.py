"""Versions and version tags."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.version import Version

from tools.core.errors import UsageError
from tools.repo.versions import ACCEPTED, development_version, known_versions, parse_tag

FINAL = {"v1.2.3": "1.2.3", "v1.2.3.4": "1.2.3.4", "v1.2.3.post1": "1.2.3.post1"}
BEFORE = {
    "v1.2.3-rc1": "1.2.3rc1", "v1.2.3-alpha.1": "1.2.3a1", "v1.2.3-beta2": "1.2.3b2",
    "v1.2.3rc1": "1.2.3rc1", "v1.2.3a1": "1.2.3a1", "v1.2.3b2": "1.2.3b2",
    "v1.2.3.dev1": "1.2.3.dev1", "v1.2.3-rc.1.dev2": "1.2.3rc1.dev2",
}  # fmt: skip
REFUSED = [
    "", "v", "v1", "1.2.3", "V1.2.3", "vnext", "v1.2.3-prod", "v1.2.3+build5", "v1.2-rc1", "v1!2.3.0",
    "v1.2", "v10", "v1.2.3-", "v1.2.3-rc1-", "v1.2.3 ", "v1.2.3\n", "v1.2.3-1", "v1.2.x", "release",
    "v١.٢.٣", "v" + "9" * 5000 + ".0.0", "v1.2." + "0" * 130,
]  # fmt: skip


def test_tags() -> None:
    """Every documented spelling is read as PEP 440 reads it; whatever is not a version is
    refused with a sentence that shows the accepted forms.
    """
    for tag, version in (FINAL | BEFORE).items():
        found = parse_tag(tag)
        assert (str(found.version), found.tag) == (version, tag)
        assert found.is_prerelease == (tag in BEFORE)
    assert set(ACCEPTED.replace(" or ", ", ").split(", ")) <= {*FINAL, *BEFORE}
    for tag in REFUSED:
        with pytest.raises(UsageError) as caught:
            parse_tag(tag)
        assert ACCEPTED in caught.value.remedy and len(caught.value.message) < 300


@given(st.text(max_size=200) | st.from_regex(r"v[0-9.]*[a-z.\-_0-9]{0,150}"))
def test_any_text_is_a_version_or_refused(text: str) -> None:
    """No tag ends in anything but a version or our own error."""
    try:
        found = parse_tag(text)
    except UsageError:
        return
    assert Version(text) == found.version


def test_no_tag_takes_long() -> None:
    """A hostile tag does not send the pattern into exponential backtracking."""
    begun = time.process_time()
    for tail in ("a" * 110, "a." * 55, "1a" * 55):
        with pytest.raises(UsageError):
            parse_tag(f"v1.2.3{tail}!")
    assert time.process_time() - begun < 5


def test_known_versions_pass_over_other_tags() -> None:
    """Tags that are not versions are ignored, the others are ordered as versions."""
    tags = ["v1.10.0", "nightly", "v1.9.0", "v1.10.0-rc1"]
    assert [found.tag for found in known_versions(tags)] == ["v1.9.0", "v1.10.0-rc1", "v1.10.0"]


# --- development versions ---

numbers = st.integers(0, 50)
releases = st.lists(numbers, min_size=3, max_size=4).map(lambda n: "v" + ".".join(map(str, n)))
suffixes = st.sampled_from(["", "a1", "-beta2", "rc3", ".dev4", ".post1"])
tags = st.builds(lambda release, suffix: release + suffix, releases, suffixes)


def develop(tag: str, distance: int, dirty: bool = False) -> Version:
    return Version(development_version(parse_tag(tag).version, distance, "abcdef1234", dirty))


@given(tags, st.integers(1, 10_000), st.booleans())
def test_development_version_is_after_its_tag(tag: str, distance: int, dirty: bool) -> None:
    """It sorts after the tag it grew from and before that of the commit that comes next, is
    a prerelease, and names the commit.
    """
    version = develop(tag, distance, dirty)
    assert version > parse_tag(tag).version
    assert version.is_prerelease
    assert (version.local or "").startswith("gabcdef1")
    assert Version(version.public) < Version(develop(tag, distance + 1).public)


@given(releases, st.integers(1, 10_000))
def test_development_version_is_before_the_next_release(tag: str, distance: int) -> None:
    """It sorts before the next release, even before that one's first prerelease."""
    release = list(parse_tag(tag).version.release)
    release[-1] += 1
    following = ".".join(map(str, release))
    assert Version(develop(tag, distance).public) < Version(f"{following}a0")


def test_development_version_without_any_tag() -> None:
    """A repository without tags has development releases of 0.0.1."""
    assert development_version(None, 7, "abcdef1234", False) == "0.0.1.dev7+gabcdef1"
