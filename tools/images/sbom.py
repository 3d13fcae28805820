"""``sbom``: what the production image contains, in CycloneDX, as the image itself says."""

from __future__ import annotations

import datetime
import sys
import uuid
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tools.core import cli, console, files
from tools.images import containers
from tools.repo.context import load_context

if TYPE_CHECKING:
    from cyclonedx.model.component import Component

OUTPUT = "dist/production.cdx.json"


@dataclass(frozen=True)
class Options:
    """There is nothing to choose."""


def components(found: Mapping[str, str]) -> list[Component]:
    """The packages that the probe ``packages`` found, with the URLs that scanners look for.

    Source: Package URL specification, types ``pypi`` and ``deb``.
    """
    from cyclonedx.model.component import Component, ComponentType
    from packageurl import PackageURL
    from packaging.utils import canonicalize_name

    urls = {}
    for line in found["python"].splitlines():
        name, version = line.split(" ")
        urls[PackageURL("pypi", None, canonicalize_name(name), version)] = name
    for line in found["debian"].splitlines():
        name, version, architecture = line.split(" ")
        urls[PackageURL("deb", "debian", name, version, {"arch": architecture})] = name
    kind = ComponentType.LIBRARY
    return [
        Component(type=kind, name=name, version=url.version, purl=url, bom_ref=str(url))
        for url, name in urls.items()
    ]


def sbom(packages: Sequence[Component], digest: str, version: str, created: int) -> str:
    """The document, the same for the same image.

    Args:
        packages: What the image contains.
        digest: Of the image.
        version: Of what is built.
        created: Seconds since the epoch of the commit.
    """
    from cyclonedx.model.bom import Bom
    from cyclonedx.model.component import Component, ComponentType
    from cyclonedx.output.json import JsonV1Dot6

    image = Component(
        type=ComponentType.CONTAINER, name="mlc-llm", version=version, bom_ref=digest
    )
    bom = Bom(components=packages, serial_number=uuid.uuid5(uuid.NAMESPACE_URL, digest))
    bom.metadata.component = image
    bom.metadata.timestamp = datetime.datetime.fromtimestamp(created, datetime.UTC)
    bom.register_dependency(image, packages)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about components without dependencies of their own
        return str(JsonV1Dot6(bom).output_as_string(indent=2)) + "\n"


def work(_options: Options) -> None:
    """Ask the image what is in it, and write that down."""
    context = load_context()
    with containers.runner(context, "production") as runner:
        found = runner.probe("packages")
    packages = components(found)
    text = sbom(packages, runner.digest, context.version, context.created)
    files.write(context.root / OUTPUT, text)
    console.say(f"{OUTPUT}: {len(packages)} packages")


main = cli.command("sbom", "List what is in the production image.", Options, work)


if __name__ == "__main__":
    sys.exit(main())
