"""OCI values: media types, descriptors, manifests. Nothing here talks to anything.

Source: OCI image specification 1.1 (descriptor, manifest, image-index) and its Docker
predecessors, "Image Manifest Version 2, Schema 2".
"""

import hashlib
import re
from dataclasses import dataclass
from typing import Annotated

from msgspec import Meta, Struct

from tools.core.files import parse_json

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
# Never part of the final specification 1.1, but ORAS pushed them while it was drafted.
ARTIFACT_MANIFEST = "application/vnd.oci.artifact.manifest.v1+json"

INDEX_TYPES = (OCI_INDEX, DOCKER_LIST)
MANIFEST_TYPES = (OCI_INDEX, OCI_MANIFEST, DOCKER_LIST, DOCKER_MANIFEST, ARTIFACT_MANIFEST)

# Source: OCI image specification, descriptor, "Digests".
_DIGEST = r"^[a-z0-9]+(?:[+._-][a-z0-9]+)*:[a-zA-Z0-9=_-]+\Z"


def is_digest(text: str) -> bool:
    """Whether ``text`` is a digest (``sha256:...``) rather than a tag."""
    return re.match(_DIGEST, text) is not None


def is_loopback(host: str) -> bool:
    """Whether a registry's ``host[:port]`` is on this machine, where plain HTTP is spoken."""
    local = r"(localhost|127(\.[0-9]{1,3}){3}|\[::1\])(:[0-9]+)?"
    return re.fullmatch(local, host) is not None


class Platform(Struct, frozen=True):
    """What an image runs on; BuildKit calls that of an attestation ``unknown``."""

    architecture: str = ""


class Descriptor(Struct, frozen=True, rename="camel"):
    """Points at content by digest."""

    digest: Annotated[str, Meta(pattern=_DIGEST)]  # algorithm:hex
    media_type: str = ""
    size: Annotated[int, Meta(ge=0)] = 0  # bytes of the content
    artifact_type: str | None = None
    annotations: dict[str, str] | None = None
    platform: Platform | None = None  # of an image in an index

    @property
    def is_attestation(self) -> bool:
        """Whether this is BuildKit's attestation of another manifest of the same index
        (moby/buildkit, docs/attestations/attestation-storage.md).
        """
        kind = (self.annotations or {}).get("vnd.docker.reference.type")
        return kind == "attestation-manifest"


class _Content(Struct, rename="camel"):
    """The JSON of a manifest or an index; Go writes ``null`` for an empty list."""

    media_type: str | None = None
    manifests: tuple[Descriptor, ...] | None = None
    subject: Descriptor | None = None
    config: Descriptor | None = None
    layers: tuple[Descriptor, ...] | None = None


@dataclass(frozen=True)
class Manifest:
    """A manifest or index that was read."""

    descriptor: Descriptor  # its own digest, media type and size
    children: tuple[Descriptor, ...] = ()  # the manifests of an index
    subject: Descriptor | None = None  # the manifest that this one refers to (OCI 1.1)
    config: Descriptor | None = None
    layers: tuple[Descriptor, ...] = ()  # in their order, one as often as it is applied

    @property
    def blobs(self) -> tuple[Descriptor, ...]:
        """Configuration and layers, each digest once."""
        config = (self.config,) if self.config else ()
        return tuple({blob.digest: blob for blob in (*config, *self.layers)}.values())

    @property
    def is_index(self) -> bool:
        """Whether it lists other manifests (an index, or Docker's manifest list)."""
        return self.descriptor.media_type in INDEX_TYPES

    @property
    def size(self) -> int:
        """Bytes that pulling a manifest moves: configuration and layers, compressed."""
        return sum(blob.size for blob in self.blobs)


def check_digest(content: bytes, digest: str) -> None:
    """Return if content has a digest (ValueError: it has another, or of an unknown kind)."""
    algorithm = digest.partition(":")[0]
    if algorithm not in {"sha256", "sha512"}:  # the two that the specification registers
        raise ValueError(f"the digest algorithm {algorithm!r} is not known")
    actual = f"{algorithm}:{hashlib.new(algorithm, content).hexdigest()}"
    if actual != digest:
        raise ValueError(f"the content has the digest {actual}, not {digest}")


def parse_manifest(body: bytes, content_type: str = "", digest: str = "") -> Manifest:
    """A manifest from the bytes that a registry sent, with their content type; ValueError if
    they are not one, or hash to another ``digest`` than was asked for.

    Source: image-index and manifest: ``mediaType`` SHOULD be used and MUST match the
    content type; without either, the shape decides.
    """
    digest = digest or f"sha256:{hashlib.sha256(body).hexdigest()}"
    check_digest(body, digest)
    content = parse_json(body, _Content)
    sent_as = content_type.partition(";")[0].strip()
    shape = OCI_MANIFEST if content.manifests is None else OCI_INDEX
    kind = content.media_type or (sent_as if sent_as in MANIFEST_TYPES else shape)
    own = Descriptor(digest, kind, len(body))
    children, layers = content.manifests or (), content.layers or ()
    return Manifest(own, children, content.subject, content.config, layers)
