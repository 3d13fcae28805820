"""The software bill of materials of the wheels: CycloneDX, the same for the same wheels."""

from __future__ import annotations

import datetime
import email.parser
import hashlib
import uuid
import warnings
import zipfile
from collections.abc import Sequence
from email.message import Message
from importlib.metadata import version as version_of

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model import HashAlgorithm, HashType, Property
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.model.license import LicenseAcknowledgement
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from tools.wheels.archive import Wheel


def metadata_of(wheel: Wheel) -> Message:
    """The ``METADATA`` of a wheel (PyPA, "Core metadata specifications")."""
    with zipfile.ZipFile(wheel.path) as archive:
        name = next(n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
        return email.parser.HeaderParser().parsestr(archive.read(name).decode("utf-8"))


def requirements_of(metadata: Message) -> list[Requirement]:
    """``Requires-Dist``, by name; what cannot be parsed is left out."""
    found = []
    for text in metadata.get_all("Requires-Dist") or []:
        try:
            found.append(Requirement(text))
        except InvalidRequirement:
            continue
    return sorted(found, key=str)


def vendored(wheel: Wheel) -> list[Component]:
    """Shared libraries that auditwheel or delvewheel put into the wheel."""
    found = []
    with zipfile.ZipFile(wheel.path) as archive:
        for name in sorted(archive.namelist()):
            if name.partition("/")[0].endswith(".libs") and not name.endswith("/"):
                digest = hashlib.sha256()
                with archive.open(name) as source:  # piece by piece: it may be large
                    while piece := source.read(1 << 20):
                        digest.update(piece)
                found.append(_file(name, digest.hexdigest()))
    return found


def _file(name: str, sha256: str) -> Component:
    return Component(
        type=ComponentType.FILE,
        name=name,
        bom_ref=f"file:{name}:{sha256[:16]}",
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=sha256)],
    )


def _package(metadata: Message) -> Component:
    """The package itself, with its licence as it states it."""
    name, version = canonicalize_name(metadata["Name"]), str(metadata["Version"])
    stated = metadata.get("License-Expression") or metadata.get("License") or ""
    licenses = []
    if stated and "\n" not in stated:
        made = LicenseFactory().make_from_string(
            stated, license_acknowledgement=LicenseAcknowledgement.DECLARED
        )
        licenses.append(made)
    return Component(
        type=ComponentType.LIBRARY,
        name=name,
        version=version,
        bom_ref=f"package:{name}",
        purl=PackageURL("pypi", None, name, version),
        licenses=licenses,
        description=metadata.get("Summary"),
    )


def _requirement(name: str, requirements: Sequence[Requirement]) -> Component:
    """A package that ours requires; which version is chosen when it is installed."""
    return Component(
        type=ComponentType.LIBRARY,
        name=name,
        bom_ref=f"requirement:{name}",
        purl=PackageURL("pypi", None, name),
        properties=[
            Property(name="python:requires-dist", value=str(requirement))
            for requirement in requirements
        ],
    )


def make_sbom(wheels: Sequence[Wheel], created: int) -> str:
    """A CycloneDX 1.6 document (JSON) of the wheels' packages.

    It lists each wheel with its digest, the libraries inside, the package, and what the
    package requires.
    Time and serial number come from commit and contents, so that it is reproducible.

    Args:
        wheels: Wheels of one project.
        created: Seconds since the epoch, of the commit.
    """
    bom = Bom()
    bom.metadata.timestamp = datetime.datetime.fromtimestamp(created, datetime.UTC)
    digests = " ".join(sorted(wheel.sha256 for wheel in wheels))
    bom.serial_number = uuid.uuid5(uuid.NAMESPACE_OID, digests)
    library = "cyclonedx-python-lib"
    tool = Component(type=ComponentType.LIBRARY, name=library, version=version_of(library))
    bom.metadata.tools.components.add(tool)
    package = _package(metadata_of(wheels[0]))
    bom.metadata.component = package
    files = [_file(wheel.name, wheel.sha256) for wheel in wheels]
    by_name: dict[str, list[Requirement]] = {}
    for wheel in wheels:
        for requirement in requirements_of(metadata_of(wheel)):
            known = by_name.setdefault(canonicalize_name(requirement.name), [])
            if requirement not in known:
                known.append(requirement)
    required = [_requirement(name, found) for name, found in sorted(by_name.items())]
    for wheel, file in zip(wheels, files, strict=True):
        inside = vendored(wheel)
        bom.register_dependency(file, [package, *inside])
        for component in (file, *inside):
            bom.components.add(component)
    for component in required:
        bom.components.add(component)
    bom.register_dependency(package, required)
    with warnings.catch_warnings():
        # The library takes a package that requires nothing for an incomplete graph.
        warnings.filterwarnings("ignore", "The Component this BOM is describing")
        return str(JsonV1Dot6(bom).output_as_string(indent=2)) + "\n"
