"""Versions and version tags: PEP 440 and the semver spellings of prereleases (pure)."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from packaging.version import InvalidVersion, Version

from tools.core.errors import UsageError

ACCEPTED = (
    "v1.2.3, v1.2.3-rc1, v1.2.3-alpha.1, v1.2.3-beta2, v1.2.3rc1, v1.2.3a1, "
    "v1.2.3b2, v1.2.3.dev1 or v1.2.3.post1"
)

# Narrower than PEP 440: at least three numbers (v1 and v1.2 are names of tags that move), no
# epoch and no local part (neither "!" nor "+" can stand in an OCI tag). Possessive, so
# that no tag, however long, takes more than one pass.
_TAG = re.compile(r"v[0-9]+(?:\.[0-9]+){2,}+(?:[-_.]?[a-zA-Z]++(?:[-_.]?[0-9]++)?)*")
# Tags that start the workflow, as its filter ``v[0-9]+.[0-9]+.[0-9]+*`` has it.
_STARTS = re.compile(r"v[0-9]+\.[0-9]+\.[0-9]+[^/]*")
# An OCI tag has at most 128 characters, and "-prod" is to follow.
_LONGEST = 123


@dataclass(frozen=True, order=True)
class TagVersion:
    """A git tag that is a version, ordered as PEP 440 orders versions."""

    version: Version
    tag: str

    @property
    def is_prerelease(self) -> bool:
        """Alpha, beta, release candidate or development release (PEP 440)."""
        return self.version.is_prerelease

    @property
    def major(self) -> str:
        """``1`` of ``v1.2.3``."""
        return str(self.version.major)

    @property
    def minor(self) -> str:
        """``1.2`` of ``v1.2.3``."""
        return f"{self.version.major}.{self.version.minor}"


def parse_tag(tag: str) -> TagVersion:
    """The version that a git tag (``v1.2.3-rc1``) names; UsageError if it is not one."""
    try:
        if len(tag) > _LONGEST or not _TAG.fullmatch(tag):
            raise InvalidVersion(tag)
        return TagVersion(Version(tag), tag)
    except InvalidVersion as error:
        raise UsageError(
            f"The tag {tag[:200]!r} is not a version.", f"Use a tag such as {ACCEPTED}."
        ) from error


def starts_a_run(tag: str) -> bool:
    """Whether a push of the tag starts the workflow, be it a version or not."""
    return bool(_STARTS.fullmatch(tag))


def known_versions(tags: Iterable[str]) -> list[TagVersion]:
    """The versions among ``tags``, lowest first; other tags are passed over."""
    versions = []
    for tag in tags:
        try:
            versions.append(parse_tag(tag))
        except UsageError:
            continue
    return sorted(versions)


def development_version(last: Version | None, distance: int, sha: str, dirty: bool) -> str:
    """The PEP 440 version of a commit that bears no version tag.

    A development release of the version that comes next after the last tag, so that it
    sorts between the two: 1.2.4.dev5 after 1.2.3, 1.2.3rc2.dev5 after 1.2.3rc1. Without
    any tag (``last``), one of 0.0.1. ``distance`` are the commits since that tag or the
    beginning; the commit stands in the local part.
    """
    base = "0.0.1"
    if last is not None:
        release = list(last.release)
        if not last.is_prerelease:
            release[-1] += 1
        elif last.pre is None:
            distance += last.dev or 0  # after 1.2.3.dev4 comes 1.2.3.dev5
        base = ".".join(map(str, release))
        if last.pre is not None:
            base += f"{last.pre[0]}{last.pre[1] + 1}"
    local = f"g{sha[:7]}" + (".dirty" if dirty else "")
    return str(Version(f"{base}.dev{distance}+{local}"))
