"""What a release consists of: the plan as plain data, and the files in ``dist/release/``."""

import hashlib
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tools.core import files
from tools.images.record import ImageRecord
from tools.release.sbom import sbom
from tools.wheels.archive import Wheel


@dataclass(frozen=True)
class Asset:
    """A file of the release."""

    name: str
    size: int  # bytes
    sha256: str  # hexadecimal digits


@dataclass(frozen=True)
class ReleasePlan:
    """Everything that publishing has to know, decided before it begins."""

    tag: str
    commit: str  # that the tag points at
    prerelease: bool  # alpha, beta, release candidate or development release
    assets: tuple[Asset, ...]  # in the order of their names
    notes: str  # Markdown


def fill_folder(
    folder: Path, wheels: Sequence[Wheel], images: Sequence[ImageRecord], created: int
) -> tuple[Asset, ...]:
    """Put everything that is published into an emptied folder; the assets, by name.

    The same wheels (at least one), images and time of the commit (``created``, seconds
    since the epoch) give the same files, byte for byte.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    assets = [Asset(wheel.name, wheel.size, wheel.sha256) for wheel in wheels]

    def add(name: str, text: str) -> None:
        content = text.encode()  # bytes, so that Windows changes no line's end
        (folder / name).write_bytes(content)
        assets.append(Asset(name, len(content), hashlib.sha256(content).hexdigest()))

    for wheel in wheels:
        shutil.copyfile(wheel.path, folder / wheel.name)
    version = wheels[0].version
    add(f"{wheels[0].project}-{version}.cdx.json", sbom(wheels, created))
    if images:  # what to pull, by digest, and under which tags it was pushed
        keys = ("image", "reference", "digest", "tags", "platforms")
        entries = [{key: getattr(image, key) for key in keys} for image in images]
        json = files.to_json({"version": version, "images": entries})
        add("image-digests.json", f"{json}\n")
    assets.sort(key=lambda asset: asset.name)
    add("SHA256SUMS", "".join(f"{asset.sha256}  {asset.name}\n" for asset in assets))
    return tuple(sorted(assets, key=lambda asset: asset.name))
