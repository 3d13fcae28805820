"""OCI values: media types, descriptors, manifests. Nothing here talks to anything.

Source: OCI image specification 1.1 (descriptor, manifest, image-index) and its Docker
predecessors, "Image Manifest Version 2, Schema 2".
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
# Never part of the final specification 1.1, but ORAS pushed them while it was drafted.
ARTIFACT_MANIFEST = "application/vnd.oci.artifact.manifest.v1+json"

INDEX_TYPES = (OCI_INDEX, DOCKER_LIST)
MANIFEST_TYPES = (OCI_INDEX, OCI_MANIFEST, DOCKER_LIST, DOCKER_MANIFEST, ARTIFACT_MANIFEST)

_DIGEST = re.compile(r"[a-z0-9]+(?:[+._-][a-z0-9]+)*:[a-zA-Z0-9=_-]+")


class InvalidManifest(ValueError):
    """What should be a manifest or a descriptor is none; the message says why."""


def is_digest(text: str) -> bool:
    """Whether ``text`` is a digest (``sha256:...``) rather than a tag."""
    return _DIGEST.fullmatch(text) is not None


def digest_of(body: bytes, like: str = "sha256:") -> str:
    """The digest of ``body``, with the algorithm that ``like`` names.

    Raises:
        InvalidManifest: The algorithm is neither sha256 nor sha512, the two that the
            specification registers.
    """
    algorithm = like.partition(":")[0]
    if algorithm not in {"sha256", "sha512"}:
        raise InvalidManifest(f"the digest algorithm {algorithm!r} is not known")
    return f"{algorithm}:{hashlib.new(algorithm, body).hexdigest()}"


def is_loopback(host: str) -> bool:
    """Whether a registry's ``host[:port]`` is on this machine, where plain HTTP is spoken."""
    name = re.sub(r":\d+$", "", host).strip("[]")
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


@dataclass(frozen=True)
class Descriptor:
    """Points at content by digest.

    Attributes:
        media_type: What the content is.
        digest: ``algorithm:hex``.
        size: Bytes of the content.
        platform: ``os/architecture[/variant]``; empty if none is given.
        artifact_type: Kind of artifact, where the descriptor says it.
        annotations: Free text by name.
    """

    media_type: str
    digest: str
    size: int
    platform: str = ""
    artifact_type: str = ""
    annotations: Mapping[str, str] = field(default_factory=dict, compare=False)

    @property
    def is_attestation(self) -> bool:
        """Whether this is BuildKit's attestation of another manifest of the same index.

        Source: moby/buildkit, docs/attestations/attestation-storage.md.
        """
        return self.annotations.get("vnd.docker.reference.type") == "attestation-manifest"


def _platform(value: object) -> str:
    if not isinstance(value, Mapping):
        return ""
    parts = (value.get("os"), value.get("architecture"), value.get("variant"))
    return "/".join(str(part) for part in parts if part)


def parse_descriptor(value: object) -> Descriptor:
    """A descriptor from JSON.

    Raises:
        InvalidManifest: A field that the specification requires is missing or wrong.
    """
    if not isinstance(value, Mapping):
        raise InvalidManifest("a descriptor is no JSON object")
    digest = value.get("digest")
    if not isinstance(digest, str) or not is_digest(digest):
        raise InvalidManifest(f"a descriptor has the digest {digest!r}")
    size = value.get("size")
    annotations = value.get("annotations")
    return Descriptor(
        media_type=str(value.get("mediaType") or ""),
        digest=digest,
        size=size if isinstance(size, int) else 0,
        platform=_platform(value.get("platform")),
        artifact_type=str(value.get("artifactType") or ""),
        annotations=annotations if isinstance(annotations, Mapping) else {},
    )


def _descriptors(content: Mapping[str, Any], key: str) -> Iterator[Descriptor]:
    listed = content.get(key) or ()
    if not isinstance(listed, list | tuple):
        raise InvalidManifest(f"{key} is no list")
    for value in listed:
        yield parse_descriptor(value)


@dataclass(frozen=True)
class Manifest:
    """A manifest or index that was read.

    Attributes:
        descriptor: Its own media type, digest and size.
        content: The JSON object.
    """

    descriptor: Descriptor
    content: Mapping[str, Any]

    @property
    def is_index(self) -> bool:
        """Whether it lists other manifests (an index, or Docker's manifest list)."""
        return self.descriptor.media_type in INDEX_TYPES

    @property
    def children(self) -> tuple[Descriptor, ...]:
        """The manifests of an index; empty for a manifest."""
        return tuple(_descriptors(self.content, "manifests")) if self.is_index else ()

    @property
    def subject(self) -> Descriptor | None:
        """The manifest that this one refers to (OCI 1.1), if any."""
        found = self.content.get("subject")
        return parse_descriptor(found) if found else None

    @property
    def blobs(self) -> tuple[Descriptor, ...]:
        """Configuration and layers of a manifest, each digest once; none of an index."""
        config = self.content.get("config")
        found = [parse_descriptor(config)] if config else []
        for key in ("layers", "blobs"):
            found += _descriptors(self.content, key)
        return tuple({blob.digest: blob for blob in found}.values())

    @property
    def size(self) -> int:
        """Bytes that pulling a manifest moves: configuration and layers, compressed."""
        return sum(blob.size for blob in self.blobs)


def media_type_of(content: Mapping[str, Any], told: str = "") -> str:
    """The media type of a manifest: what it says itself, else what the registry told.

    Source: OCI image specification, image-index and manifest: ``mediaType`` SHOULD be
    used and MUST match the content type; without either, the shape decides.
    """
    own = content.get("mediaType")
    if isinstance(own, str) and own:
        return own
    told = told.partition(";")[0].strip()
    if told in MANIFEST_TYPES:
        return told
    return OCI_INDEX if "manifests" in content else OCI_MANIFEST


def parse_manifest(body: bytes, told: str = "", digest: str = "") -> Manifest:
    """A manifest from the bytes that a registry sent.

    Args:
        body: The bytes.
        told: The content type that came with them.
        digest: What the bytes must hash to; unchecked if empty.

    Raises:
        InvalidManifest: They are no JSON object, or hash to another digest.
    """
    actual = digest_of(body, digest or "sha256:")
    if digest and actual != digest:
        raise InvalidManifest(f"the content has the digest {actual}, not {digest}")
    try:
        content = json.loads(body)
    except ValueError as error:
        raise InvalidManifest("the content is no JSON") from error
    if not isinstance(content, dict):
        raise InvalidManifest("the content is no JSON object")
    return Manifest(Descriptor(media_type_of(content, told), actual, len(body)), content)
