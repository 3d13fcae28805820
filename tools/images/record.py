"""The record of a built image, ``dist/images/<image>.json``: handed from job to job."""

from dataclasses import dataclass
from pathlib import Path

from tools.core import files
from tools.core.errors import UsageError

SESSIONS = {"development": "docker_dev", "production": "prod_image"}
IMAGES = tuple(SESSIONS)


@dataclass(frozen=True)
class ImageRecord:
    """What was built."""

    image: str  # development or production
    name: str  # registry/owner/name
    digest: str  # of the index or manifest: sha256:...
    tags: tuple[str, ...]  # full references
    platforms: tuple[str, ...]  # linux/amd64, ...
    size: int  # bytes: compressed layers where pushed, else as the engine or the file says
    output: str  # push, load or oci
    version: str  # PEP 440 version of the commit it was built from
    revision: str  # the commit
    archive: str = ""  # the OCI archive, relative to the checkout, where that is the output
    loaded: str = ""  # the engine's own id of the image, where it was loaded

    @property
    def reference(self) -> str:
        """``registry/owner/name@sha256:...``: this very image."""
        return f"{self.name}@{self.digest}"


def folder(root: Path) -> Path:
    """Where records (and OCI archives) are."""
    return root / "dist" / "images"


def write(record: ImageRecord, root: Path) -> Path:
    """Write the record, whole or not at all; its path."""
    path = folder(root) / f"{record.image}.json"
    files.write_json(path, record)
    return path


def read(image: str, root: Path) -> ImageRecord:
    """The record of the image that was built last (UsageError: there is none)."""
    path, session = folder(root) / f"{image}.json", SESSIONS[image]
    try:
        return files.read_json(path, ImageRecord, f"Run nox -s {session} again.")
    except FileNotFoundError as error:
        raise UsageError(
            f"No {image} image has been built here: dist/images/{image}.json is missing.",
            f"Run nox -s {session} first, or name the image with --digest or --archive.",
        ) from error
