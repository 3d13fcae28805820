"""``sbom``: what the production image contains, in CycloneDX, as the image itself says."""

import sys
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL

from tools.core import cli, console, files
from tools.images import containers
from tools.repo.context import load_context

OUTPUT = "dist/production.cdx.json"


@dataclass(frozen=True)
class Options:
    """There is nothing to choose."""


def sbom(urls: Sequence[str], digest: str, version: str, created: int) -> str:
    """The document of an image with such packages, the same for the same image: its
    ``digest``, and of its commit the ``version`` and the time (seconds since the epoch).
    """
    packages = [
        Component(name=url.name, version=url.version, purl=url, bom_ref=str(url))
        for url in map(PackageURL.from_string, urls)
    ]
    image = Component(
        name="mlc-llm", type=ComponentType.CONTAINER, version=version, bom_ref=digest
    )
    bom = Bom(components=packages, serial_number=uuid.uuid5(uuid.NAMESPACE_URL, digest))
    bom.metadata.component = image
    bom.metadata.timestamp = datetime.fromtimestamp(created, UTC)
    bom.register_dependency(image, packages)
    return str(JsonV1Dot6(bom).output_as_string(indent=2)) + "\n"


def work(_options: Options) -> None:
    """Ask the image what is in it, and write that down."""
    context = load_context()
    with containers.runner(context, "production") as runner:
        urls = runner.probe("packages")["urls"].splitlines()
    text = sbom(urls, runner.digest, context.version, context.created)
    files.write(context.root / OUTPUT, text)
    console.say(f"{OUTPUT}: {len(urls)} packages")


main = cli.command("sbom", "List what is in the production image.", Options, work)


if __name__ == "__main__":
    sys.exit(main())
