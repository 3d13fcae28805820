"""What a release consists of: the plan as plain data, and the files in ``dist/release/``."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tools.core import files
from tools.images.record import ImageRecord
from tools.release.sbom import sbom
from tools.repo.versions import TagVersion, known_versions
from tools.wheels.archive import Wheel

CHECKSUMS = "SHA256SUMS"
IMAGE_DIGESTS = "image-digests.json"


@dataclass(frozen=True)
class Asset:
    """A file of the release: its name, its bytes, its SHA-256 in hexadecimal digits."""

    name: str
    size: int
    sha256: str


@dataclass(frozen=True)
class ReleasePlan:
    """Everything that publishing has to know, decided before it begins.

    Attributes:
        tag: Git tag.
        version: PEP 440 version.
        repository: ``owner/name``.
        commit: The commit that the tag points at.
        prerelease: Whether it is an alpha, beta, release candidate or development release.
        assets: Files, in the order of their names.
        images: Images of this version that are in a registry, by digest.
        notes: Release notes, Markdown.
    """

    tag: str
    version: str
    repository: str
    commit: str
    prerelease: bool
    assets: tuple[Asset, ...]
    images: tuple[str, ...]
    notes: str


def checksums(assets: Iterable[Asset]) -> str:
    """``SHA256SUMS`` as ``sha256sum --check`` reads it, by name."""
    lines = sorted((asset.name, asset.sha256) for asset in assets)
    return "".join(f"{sha256}  {name}\n" for name, sha256 in lines)


def image_digests(version: str, images: Iterable[ImageRecord]) -> str:
    """``image-digests.json``: what to pull, by digest, and under which tags it was pushed."""
    keys = ("image", "reference", "digest", "tags", "platforms")
    entries = [{key: getattr(image, key) for key in keys} for image in images]
    return files.to_json({"version": version, "images": entries}) + "\n"


def fill_folder(
    folder: Path,
    version: str,
    wheels: Sequence[Wheel],
    images: Sequence[ImageRecord],
    created: int,
) -> tuple[Asset, ...]:
    """Put everything that is published into an emptied folder; the assets, by name.

    The same wheels (at least one), images and time of the commit (``created``, seconds
    since the epoch) give the same files, byte for byte.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for wheel in wheels:
        shutil.copyfile(wheel.path, folder / wheel.name)
    texts = {f"{wheels[0].project}-{version}.cdx.json": sbom(wheels, created)}
    if images:
        texts[IMAGE_DIGESTS] = image_digests(version, images)
    assets = [Asset(wheel.name, wheel.size, wheel.sha256) for wheel in wheels]
    assets += [_written(folder / name, text) for name, text in texts.items()]
    assets.append(_written(folder / CHECKSUMS, checksums(assets)))
    return tuple(sorted(assets, key=lambda asset: asset.name))


def _written(path: Path, text: str) -> Asset:
    """A new file of the release; bytes, so that Windows changes no line's end."""
    content = text.encode()
    path.write_bytes(content)
    return Asset(path.name, len(content), hashlib.sha256(content).hexdigest())


def is_latest(version: TagVersion, published: Iterable[str]) -> bool:
    """Whether a release gets the mark of the latest: the highest stable version has it.

    ``published`` are the tags of all published releases, versions or not.
    """
    stable = [other for other in known_versions(published) if not other.is_prerelease]
    return not version.is_prerelease and all(o.version <= version.version for o in stable)
