"""The SBOM of the production image: CycloneDX, made of what the image itself says.

Python's packages by their metadata, Debian's by dpkg's status file.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import uuid
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tools.core.errors import PipelineError
from tools.core.janitor import Janitor
from tools.images import test as image_tests
from tools.repo.context import Context, load_context

OUTPUT = Path("dist/production.cdx.json")

# Runs in the image; standard library only.
PROBE = """
import importlib.metadata, json, os
packages = importlib.metadata.distributions()
found = {"python": sorted({(d.metadata["Name"], d.version) for d in packages})}
entries = []
if os.path.exists("/var/lib/dpkg/status"):
    for part in open("/var/lib/dpkg/status", encoding="utf-8").read().split("\\n\\n"):
        lines = dict(l.split(": ", 1) for l in part.splitlines() if ": " in l and l[0] != " ")
        if lines.get("Status", "").endswith(" installed"):
            entries.append((lines["Package"], lines["Version"], lines["Architecture"]))
found["debian"] = sorted(entries)
print(json.dumps(found))
"""


def probe(context: Context) -> tuple[dict[str, Any], str]:
    """What the production image contains, and its digest.

    Raises:
        PipelineError: No engine, no image, or the image gave no answer.
    """
    given = argparse.Namespace(image="production", digest="", archive="")
    with image_tests.connected() as client, Janitor() as janitor:
        reference, digest = image_tests.get_image(client, context, given)
        options = image_tests.container_options("production")
        limit = context.settings.test_timeout
        runner = image_tests.Runner(client, reference, options, limit, janitor)
        ran = runner.run("python", "-c", PROBE)
    try:
        return json.loads(ran.output.strip().splitlines()[-1]), digest
    except (ValueError, IndexError) as error:
        raise PipelineError(
            f"The image did not list its packages (exit code {ran.code}).",
            "",
            ran.output[-2000:],
        ) from error


def components(found: Mapping[str, Iterable[Iterable[str]]]) -> list[Any]:
    """The packages as components, with the package URLs that scanners look for.

    Source: Package URL specification, types ``pypi`` and ``deb``.
    """
    from cyclonedx.model.component import Component, ComponentType
    from packageurl import PackageURL
    from packaging.utils import canonicalize_name

    made = []
    for name, version in found["python"]:
        purl = PackageURL("pypi", None, canonicalize_name(name), version)
        made.append((name, version, purl))
    for name, version, architecture in found["debian"]:
        purl = PackageURL("deb", "debian", name, version, {"arch": architecture})
        made.append((name, version, purl))
    return [
        Component(
            type=ComponentType.LIBRARY, name=n, version=v, purl=p, bom_ref=p.to_string()
        )  # fmt: skip
        for n, v, p in made
    ]


def sbom(found: Mapping[str, Any], digest: str, version: str, created: int) -> str:
    """The document, the same for the same image.

    Args:
        found: What the image contains.
        digest: Of the image.
        version: Of what is built.
        created: Seconds since the epoch of the commit.
    """
    from cyclonedx.model.bom import Bom
    from cyclonedx.model.component import Component, ComponentType
    from cyclonedx.output.json import JsonV1Dot6

    main = Component(
        type=ComponentType.CONTAINER, name="mlc-llm", version=version, bom_ref=digest
    )
    parts = components(found)
    bom = Bom(components=parts, serial_number=uuid.uuid5(uuid.NAMESPACE_URL, digest))
    bom.metadata.component = main
    bom.metadata.timestamp = datetime.datetime.fromtimestamp(created, datetime.UTC)
    bom.register_dependency(main, parts)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about components without dependencies of their own
        return str(JsonV1Dot6(bom).output_as_string(indent=2)) + "\n"


def write_sbom(root: Path) -> tuple[Path, int]:
    """Write the SBOM of the production image; its path, and how many packages it lists.

    Raises:
        PipelineError: See :func:`probe`.
    """
    context = load_context()
    found, digest = probe(context)
    path = root / OUTPUT
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(sbom(found, digest, context.version, context.created), encoding="utf-8")
    os.replace(part, path)
    return path, len(found["python"]) + len(found["debian"])
