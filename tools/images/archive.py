"""The archive of an image that ``--output oci`` writes: an OCI image layout in a tar file.

An engine with the containerd image store reads its ``index.json``; one with the classic store
reads only ``manifest.json``, as ``docker save`` writes it, which BuildKit leaves out.
"""

import io
import json
import platform
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tools.core.errors import PipelineError, UsageError
from tools.registry.manifest import Manifest, Platform, check_digest, parse_manifest

# What an index calls processors, by Python's name where that is another.
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


@dataclass(frozen=True)
class Archive:
    """The image in an archive, of several platforms the one of this machine."""

    digest: str  # of its index or manifest: what was built, and its id in a containerd store
    config: str  # digest of its configuration: its id in a classic store
    layers: tuple[str, ...]


def blob(digest: str) -> str:
    """Where the content with a digest is in the layout."""
    return f"blobs/{digest.replace(':', '/')}"


def _file(layout: tarfile.TarFile, name: str) -> bytes:
    """A file of the layout (KeyError: it is not there); nothing of what is not a file."""
    member = layout.extractfile(name)
    return member.read() if member else b""


def _manifest(layout: tarfile.TarFile, digest: str) -> Manifest:
    """The manifest with a digest (KeyError: it is not there, ValueError: it has another)."""
    return parse_manifest(_file(layout, blob(digest)), digest=digest)


def _image(index: Manifest) -> str:
    """The manifest's digest of the image for this machine, else of the first; attestations
    (platform ``unknown``) are none (IndexError: there is no image).
    """
    machine = platform.machine().lower()
    ours = Platform(ARCHITECTURES.get(machine, machine))
    images = [one for one in index.children if one.platform != Platform("unknown")]
    return next((one for one in images if one.platform == ours), images[0]).digest


def read(path: Path, digest: str = "") -> Archive:
    """The image in an archive (UsageError: a part is missing or changed; PipelineError: it is
    not the one with a ``digest``).

    Source: OCI image layout specification. Layers are left to the engine, which compares
    them with what the manifest or the configuration says.
    """
    try:
        with tarfile.open(path) as layout:
            actual = parse_manifest(_file(layout, "index.json")).children[0].digest
            manifest = _manifest(layout, actual)
            if manifest.children:
                manifest = _manifest(layout, _image(manifest))
            if manifest.config is None:
                raise ValueError("its manifest names no configuration")
            config = manifest.config.digest
            check_digest(_file(layout, blob(config)), config)
    except (OSError, tarfile.TarError, KeyError, ValueError, IndexError) as error:
        raise UsageError(
            f"{path} is not a whole OCI archive: {error}.",
            "Give the file that nox -s docker_dev -- --output oci wrote.",
        ) from error
    if digest and actual != digest:
        raise PipelineError(
            f"{path} holds {actual}, not {digest}.",
            "Take the archive of the same run, or build it again.",
        )
    return Archive(actual, config, tuple(one.digest for one in manifest.layers))


def add_docker_manifest(path: Path, references: Sequence[str]) -> None:
    """Add ``manifest.json`` to an archive, so that an engine with the classic store loads it,
    too, under these references; no digest in it changes.

    Source: Docker image specification 1.2, "Combined Image JSON + Filesystem Changeset Format".
    """
    image = read(path)
    layers = [blob(layer) for layer in image.layers]
    entry = {"Config": blob(image.config), "RepoTags": list(references), "Layers": layers}
    data = json.dumps([entry]).encode()
    added = tarfile.TarInfo("manifest.json")
    added.size = len(data)
    with tarfile.open(path, "a:") as layout:
        layout.addfile(added, io.BytesIO(data))
