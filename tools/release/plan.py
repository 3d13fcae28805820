"""What a release consists of, as plain data (pure)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools.images.record import ImageRecord
from tools.repo.versions import TagVersion, known_versions

CHECKSUMS = "SHA256SUMS"
IMAGE_DIGESTS = "image-digests.json"
CONTENT_TYPES = {
    ".whl": "application/zip",
    ".json": "application/json",
    ".md": "text/markdown",
    "": "text/plain",
}


@dataclass(frozen=True)
class Asset:
    """A file of the release.

    Attributes:
        path: Where it is.
        size: Bytes.
        sha256: Digest, hexadecimal.
    """

    path: Path
    size: int
    sha256: str

    @property
    def name(self) -> str:
        """Its name, in the folder as in the release."""
        return self.path.name

    @property
    def digest(self) -> str:
        """The digest in the form in which GitHub reports it."""
        return f"sha256:{self.sha256}"

    @property
    def content_type(self) -> str:
        """Media type to upload it as."""
        return CONTENT_TYPES.get(self.path.suffix, "application/octet-stream")


@dataclass(frozen=True)
class ReleasePlan:
    """Everything that publishing needs to know, decided before it begins.

    Attributes:
        tag: Git tag.
        version: PEP 440 version.
        repository: ``owner/name``.
        commit: The commit that the tag points at.
        prerelease: Whether it is an alpha, beta, release candidate or development release.
        assets: Files, in the order of their names.
        images: Images of this version that are in a registry.
        notes: Release notes, Markdown.
    """

    tag: str
    version: str
    repository: str
    commit: str
    prerelease: bool
    assets: tuple[Asset, ...]
    images: tuple[ImageRecord, ...]
    notes: str

    @property
    def fingerprint(self) -> str:
        """Digest over tag and assets: two plans of one fingerprint publish the same files."""
        lines = [self.tag, *(f"{asset.sha256} {asset.name}" for asset in self.assets)]
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()

    @property
    def size(self) -> int:
        """Bytes of all assets."""
        return sum(asset.size for asset in self.assets)

    def to_json(self) -> dict[str, Any]:
        """The plan as plain data."""
        return {
            "tag": self.tag,
            "version": self.version,
            "repository": self.repository,
            "commit": self.commit,
            "prerelease": self.prerelease,
            "assets": [
                {"name": asset.name, "size": asset.size, "sha256": asset.sha256}
                for asset in self.assets
            ],
            "images": [image.reference for image in self.images],
            "notes": self.notes,
        }


def checksums(assets: Iterable[Asset]) -> str:
    """``SHA256SUMS`` as ``sha256sum -c`` reads it (two spaces: binary-safe text mode)."""
    return "".join(
        f"{asset.sha256}  {asset.name}\n" for asset in sorted(assets, key=lambda a: a.name)
    )


def image_digests(version: str, images: Iterable[ImageRecord]) -> str:
    """``image-digests.json``: what to pull, by digest, and under which tags it was pushed."""
    entries = [
        {
            "image": image.image,
            "reference": image.reference,
            "digest": image.digest,
            "tags": list(image.tags),
            "platforms": list(image.platforms),
        }
        for image in images
    ]
    return json.dumps({"version": version, "images": entries}, indent=2) + "\n"


def is_latest(version: TagVersion, published: Iterable[str]) -> bool:
    """Whether a release gets the mark of the latest: the highest stable version has it.

    Args:
        version: What is being published.
        published: Tags of the published releases; those that are no versions included.
    """
    if version.is_prerelease:
        return False
    others = [other for other in known_versions(published) if not other.is_prerelease]
    return all(other.version <= version.version for other in others)
