"""The software bill of materials of the wheels: CycloneDX, the same for the same wheels."""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import io
import uuid
import warnings
import zipfile
from collections.abc import Iterable, Sequence
from importlib.metadata import version as version_of
from typing import cast

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model import HashAlgorithm, HashType, Property
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.model.license import LicenseAcknowledgement
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL
from packaging.metadata import RawMetadata, parse_email
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from tools.wheels.archive import Wheel

LIBRARY = "cyclonedx-python-lib"


def sbom(wheels: Sequence[Wheel], created: int) -> str:
    """A CycloneDX 1.6 document (JSON) of the wheels of one project.

    It lists each wheel with its digest, the shared libraries inside (which auditwheel and
    delvewheel put there), the package, and what the package requires. Time (``created``,
    seconds since the epoch) and serial number come from commit and contents.
    """
    bom = Bom()
    bom.metadata.timestamp = datetime.datetime.fromtimestamp(created, datetime.UTC)
    digests = " ".join(sorted(wheel.sha256 for wheel in wheels))
    bom.serial_number = uuid.uuid5(uuid.NAMESPACE_OID, digests)
    tool = Component(type=ComponentType.LIBRARY, name=LIBRARY, version=version_of(LIBRARY))
    bom.metadata.tools.components.add(tool)
    contents = [_contents(wheel) for wheel in wheels]
    package = bom.metadata.component = _package(contents[0][0])
    required = _requirements(metadata for metadata, _ in contents)
    bom.register_dependency(package, required)
    bom.components.update(required)
    for wheel, (_, libraries) in zip(wheels, contents, strict=True):
        file = _file(wheel.name, wheel.sha256)
        bom.register_dependency(file, [package, *libraries])
        bom.components.update([file, *libraries])
    with warnings.catch_warnings():
        # The library takes a package that requires nothing for an incomplete graph.
        warnings.filterwarnings("ignore", "The Component this BOM is describing")
        return str(JsonV1Dot6(bom).output_as_string(indent=2)) + "\n"


def _contents(wheel: Wheel) -> tuple[RawMetadata, list[Component]]:
    """A wheel's ``METADATA``, and the libraries in ``NAME.libs/``, where repairs put them."""
    with zipfile.ZipFile(wheel.path) as archive:
        names = [info.filename for info in archive.infolist() if not info.is_dir()]
        metadata = next(name for name in names if name.endswith(".dist-info/METADATA"))
        libraries = []
        for name in (name for name in names if name.partition("/")[0].endswith(".libs")):
            with archive.open(name) as source:
                content = cast(io.BufferedIOBase, source)  # as zipfile's documentation says
                digest = hashlib.file_digest(content, "sha256").hexdigest()
            libraries.append(_file(name, digest))
        return parse_email(archive.read(metadata))[0], libraries


def _file(name: str, sha256: str) -> Component:
    return Component(
        type=ComponentType.FILE,
        name=name,
        bom_ref=f"file:{name}:{sha256[:16]}",
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=sha256)],
    )


def _package(metadata: RawMetadata) -> Component:
    """The package itself, with its licence as it states it."""
    name, version = canonicalize_name(metadata["name"]), metadata["version"]
    text = metadata.get("license_expression") or metadata.get("license") or "\n"
    stated = LicenseFactory().make_from_string(
        text, license_acknowledgement=LicenseAcknowledgement.DECLARED
    )
    return Component(
        type=ComponentType.LIBRARY,
        name=name,
        version=version,
        bom_ref=f"package:{name}",
        purl=PackageURL("pypi", None, name, version),
        licenses=[] if "\n" in text else [stated],  # some paste the whole text
        description=metadata.get("summary"),
    )


def _requirements(packages: Iterable[RawMetadata]) -> list[Component]:
    """What the packages require; which versions is decided when they are installed."""
    by_name: dict[str, set[str]] = {}
    for text in (text for metadata in packages for text in metadata.get("requires_dist", ())):
        with contextlib.suppress(InvalidRequirement):
            name = canonicalize_name(Requirement(text).name)
            by_name.setdefault(name, set()).add(str(Requirement(text)))
    return [
        Component(
            type=ComponentType.LIBRARY,
            name=name,
            bom_ref=f"requirement:{name}",
            purl=PackageURL("pypi", None, name),
            properties=[Property(name="python:requires-dist", value=text) for text in texts],
        )
        for name, texts in sorted(by_name.items())
    ]
