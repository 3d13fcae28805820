"""The software bill of materials of the wheels: CycloneDX, the same for the same wheels."""

import datetime
import hashlib
import re
import uuid
import warnings
import zipfile
from collections.abc import Sequence

from cyclonedx.model import HashAlgorithm, HashType
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL
from packaging.metadata import parse_email

from tools.wheels.archive import Wheel


def sbom(wheels: Sequence[Wheel], created: int) -> str:
    """A CycloneDX 1.6 document (JSON): each wheel with the shared libraries that auditwheel
    and delvewheel put into ``NAME.libs/``, the package, and what it requires; which versions
    is decided when they are installed. ``created`` is in seconds since the epoch.
    """
    digests = " ".join(sorted(wheel.sha256 for wheel in wheels))
    bom = Bom(serial_number=uuid.uuid5(uuid.NAMESPACE_OID, digests))
    bom.metadata.timestamp = datetime.datetime.fromtimestamp(created, datetime.UTC)
    package = bom.metadata.component = _library(wheels[0].project, wheels[0].version)
    required: dict[str, Component] = {}
    for wheel in wheels:
        with zipfile.ZipFile(wheel.path) as archive:
            names = archive.namelist()
            metadata = archive.read(next(n for n in names if n.endswith(".dist-info/METADATA")))
            inside = [n for n in names if ".libs/" in n and not n.endswith("/")]
            libraries = [_file(n, hashlib.sha256(archive.read(n)).hexdigest()) for n in inside]
        for text in parse_email(metadata)[0].get("requires_dist", []):
            if name := re.match(r"[\w.-]+", text):
                required[text] = _library(name[0], requirement=text)
        file = _file(wheel.name, wheel.sha256)
        bom.register_dependency(file, [package, *libraries])
        bom.components.update([file, *libraries])
    bom.register_dependency(package, required.values())
    bom.components.update(required.values())
    with warnings.catch_warnings():
        # The library takes a package that requires nothing for an incomplete graph.
        warnings.filterwarnings("ignore", "The Component this BOM is describing")
        return str(JsonV1Dot6(bom).output_as_string(indent=2)) + "\n"


def _file(name: str, sha256: str) -> Component:
    ref, kind = f"file:{name}:{sha256}", ComponentType.FILE
    hashes = [HashType(alg=HashAlgorithm.SHA_256, content=sha256)]
    return Component(type=kind, name=name, bom_ref=ref, hashes=hashes)


def _library(
    name: str, version: str | None = None, requirement: str | None = None
) -> Component:
    url = PackageURL("pypi", None, name, version)  # which normalizes the name
    return Component(
        type=ComponentType.LIBRARY,
        name=url.name,
        version=version,
        bom_ref=requirement or str(url),
        purl=url,
        description=requirement,
    )
