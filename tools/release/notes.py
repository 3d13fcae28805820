"""Release notes: the changelog's section, GitHub's own notes, how to install (pure)."""

from __future__ import annotations

import re
import urllib.parse
from collections.abc import Sequence

from packaging.utils import parse_wheel_filename
from packaging.version import InvalidVersion, Version

from tools.images.record import ImageRecord
from tools.release.plan import Asset

# GitHub refuses a longer body ("body is too long (maximum is 125000 characters)").
LONGEST = 125_000
_HEADING = re.compile(r"^(#{1,3})\s+(.*)$")
_FENCE = re.compile(r"^\s*(```|~~~)")


def _version_of(title: str) -> Version | None:
    """The version that a heading names: ``1.0.0``, ``[1.0.0] - 2026-01-01``, ``v1.0.0``."""
    match = re.match(r"\[?\s*([vV]?\d[^\s\])(]*)", title.strip())
    try:
        return Version(match.group(1)) if match else None
    except InvalidVersion:
        return None


def changelog_section(text: str, version: str) -> str:
    """The section of a version in a changelog, without its heading; empty if none.

    The section ends at the next heading of the same or a higher level. Headings in
    fenced code are none.

    Args:
        text: The changelog, Markdown (Keep a Changelog and its like).
        version: PEP 440 version.
    """
    found: list[str] = []
    level, fenced = 0, False
    for line in text.splitlines():
        fenced ^= bool(_FENCE.match(line))
        heading = None if fenced else _HEADING.match(line)
        if heading and level and len(heading.group(1)) <= level:
            break
        if heading and not level:
            level = (
                len(heading.group(1))
                if _version_of(heading.group(2)) == Version(version)
                else 0
            )
        elif level:
            found.append(line)
    return "\n".join(found).strip()


def download_url(server: str, repository: str, tag: str, name: str) -> str:
    """Where a published asset is downloaded from."""
    parts = (urllib.parse.quote(part, safe="") for part in (tag, name))
    return f"{server}/{repository}/releases/download/" + "/".join(parts)


def _platform(name: str) -> str:
    """A heading for a wheel: the platforms and the Python that it is for."""
    tags = parse_wheel_filename(name)[3]
    platforms = sorted({tag.platform for tag in tags})
    interpreters = sorted({tag.interpreter for tag in tags})
    where = "any platform" if platforms == ["any"] else ", ".join(platforms)
    return f"{where} ({', '.join(interpreters)})"


def installation(
    server: str,
    repository: str,
    tag: str,
    assets: Sequence[Asset],
    images: Sequence[ImageRecord],
) -> str:
    """How to install: each wheel by its address and hash, each image by its digest."""
    lines = ["## Installation", ""]
    for asset in assets:
        if asset.path.suffix == ".whl":
            url = download_url(server, repository, tag, asset.name)
            lines += [f"For {_platform(asset.name)}:", "", "```sh"]
            lines += [f'pip install "{url}#sha256={asset.sha256}"', "```", ""]
    if images:
        lines += ["As a container image:", "", "```sh"]
        lines += [f"docker pull {image.reference}  # {image.image}" for image in images]
        lines += ["```", ""]
    else:
        lines += ["No image digest was recorded for this release.", ""]
    lines += ["`SHA256SUMS` lists all files: `sha256sum --check --ignore-missing SHA256SUMS`."]
    return "\n".join(lines)


def compose(changelog: str, generated: str, install: str) -> str:
    """The notes: what was written by hand first, then GitHub's, then how to install.

    What is too long for GitHub is taken from GitHub's own part, at a line's end.
    """
    room = LONGEST - len(changelog) - len(install) - 100
    if len(generated) > room:
        kept = generated[: max(0, room)].rpartition("\n")[0]
        generated = f"{kept}\n\n(The list goes on; see the comparison on GitHub.)"
    parts = [part.strip() for part in (changelog, generated, install) if part.strip()]
    return "\n\n".join(parts)[:LONGEST] + "\n"
