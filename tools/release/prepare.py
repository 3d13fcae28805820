"""From wheels and records to the files of a release, in ``dist/release/``."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from filelock import FileLock

from tools.images.record import ImageRecord
from tools.release.checks import same_file
from tools.release.plan import CHECKSUMS, IMAGE_DIGESTS, Asset, checksums, image_digests
from tools.release.sbom import make_sbom
from tools.wheels.archive import Wheel, sha256_of


def release_folder(root: Path) -> Path:
    """Where the files of the release are put."""
    return root / "dist" / "release"


def _written(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8", newline="\n")
    return path


def _place(source: Path, target: Path) -> None:
    """The file under another name, without a copy where the file system can do that."""
    part = target.with_name(f".{target.name}.part")
    part.unlink(missing_ok=True)
    try:
        os.link(source, part)
    except OSError:
        shutil.copyfile(source, part)
    os.replace(part, target)


def prepare(
    root: Path,
    version: str,
    wheels: Sequence[Wheel],
    images: Sequence[ImageRecord],
    created: int,
) -> tuple[Asset, ...]:
    """Put everything that is published into ``dist/release/``, and nothing else.

    The same wheels and images give the same files, byte for byte. What is there
    already is left as it is, so that two runs in one checkout do not disturb each other.

    Args:
        root: The checkout.
        version: PEP 440 version.
        wheels: What to publish.
        images: Images that were pushed.
        created: Seconds since the epoch, of the commit.

    Returns:
        The assets, by name.
    """
    folder, staging = release_folder(root), root / "dist" / ".release"
    folder.mkdir(parents=True, exist_ok=True)
    (root / ".nox").mkdir(exist_ok=True)
    with FileLock(root / ".nox" / "release-files.lock"):
        staging.mkdir(exist_ok=True)
        files = [wheel.path for wheel in wheels]
        sbom = f"{wheels[0].project}-{version}.cdx.json"
        files.append(_written(staging / sbom, make_sbom(wheels, created)))
        if images:
            files.append(_written(staging / IMAGE_DIGESTS, image_digests(version, images)))
        made = [Asset(path, path.stat().st_size, sha256_of(path)) for path in files]
        sums = _written(staging / CHECKSUMS, checksums(made))
        made.append(Asset(sums, sums.stat().st_size, sha256_of(sums)))
        for asset in made:
            target = folder / asset.name
            if not same_file(target, asset.size, asset.sha256):
                _place(asset.path, target)
        wanted = {asset.name for asset in made}
        for other in folder.iterdir():
            if other.name not in wanted:
                shutil.rmtree(other) if other.is_dir() else other.unlink()
        shutil.rmtree(staging)
    return tuple(
        Asset(folder / asset.name, asset.size, asset.sha256)
        for asset in sorted(made, key=lambda asset: asset.name)
    )
