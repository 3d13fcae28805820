"""Release notes: the changelog's section, GitHub's own notes, how to install (pure)."""

import re
import urllib.parse
from collections.abc import Iterable, Sequence

from packaging.version import InvalidVersion, Version

from tools.images.record import ImageRecord
from tools.wheels.archive import Wheel

# GitHub refuses a longer body ("body is too long (maximum is 125000 characters)").
LONGEST = 125_000


def changelog_section(text: str, version: Version) -> str:
    """The section of a version in a changelog (Markdown); empty if there is none.

    It ends at the next heading of the same or a higher level; fenced code has no headings.
    """
    section: list[str] = []
    level, fenced = 0, False
    for line in text.splitlines():
        fenced ^= bool(re.match(r"\s*(```|~~~)", line))
        heading = None if fenced else re.match(r"(#{1,3})\s+(.*)", line)
        if heading and level and len(heading[1]) <= level:
            break
        if level:
            section.append(line)
        elif heading and _version_of(heading[2]) == version:
            level = len(heading[1])
    return "\n".join(section).strip()


def _version_of(title: str) -> Version | None:
    """The version that a heading names: ``1.0.0``, ``[1.0.0] - 2026-01-01``, ``v1.0.0``."""
    match = re.match(r"\[?\s*([vV]?\d[^\s\])(]*)", title)
    try:
        return Version(match[1]) if match else None
    except InvalidVersion:
        return None


def installation(downloads: str, wheels: Iterable[Wheel], images: Sequence[ImageRecord]) -> str:
    """How to install: each wheel by its address below ``downloads`` and its hash, each
    image by its digest.
    """
    lines = ["## Installation", ""]
    for wheel in wheels:
        url = f"{downloads}/{urllib.parse.quote(wheel.name, safe='')}#sha256={wheel.sha256}"
        tags = ", ".join(wheel.tags)  # cp311-cp311-win_amd64
        lines += [f"For {tags}:", "", "```sh", f'pip install "{url}"', "```", ""]
    if images:
        pulls = [f"docker pull {image.reference}  # {image.image}" for image in images]
        lines += ["As a container image:", "", "```sh", *pulls, "```", ""]
    else:
        lines += ["No image digest was recorded for this release.", ""]
    lines += ["`SHA256SUMS` lists all files: `sha256sum --check --ignore-missing SHA256SUMS`."]
    return "\n".join(lines)


def compose(changelog: str, generated: str, install: str) -> str:
    """The notes: what was written by hand first, then GitHub's, then how to install.

    What is too long for GitHub is taken from GitHub's own part, at a line's end.
    """
    room = max(0, LONGEST - len(changelog) - len(install) - 100)
    if len(generated) > room:
        generated = generated[:room].rpartition("\n")[0]
        generated += "\n\n(The list goes on; see the comparison on GitHub.)"
    parts = [part.strip() for part in (changelog, generated, install) if part.strip()]
    return "\n\n".join(parts)[:LONGEST] + "\n"
