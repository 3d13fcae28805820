"""What is in the image, as a document."""

from __future__ import annotations

import json

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from tools.images import probe, sbom

DIGEST = "sha256:" + "1" * 64


def test_sbom() -> None:
    """Valid CycloneDX with package URLs, the same for the same image."""
    found = {"python": "mlc_llm 1.2.3\nNumPy 2.0", "debian": "libc6 2.36-9+deb12u9 amd64"}
    texts = {sbom.sbom(sbom.components(found), DIGEST, "1.2.3", 0) for _ in range(2)}
    [text] = texts
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    data = json.loads(text)
    assert {part["purl"] for part in data["components"]} == {
        "pkg:pypi/mlc-llm@1.2.3",
        "pkg:pypi/numpy@2.0",
        "pkg:deb/debian/libc6@2.36-9%2Bdeb12u9?arch=amd64",
    }
    assert data["metadata"]["component"]["type"] == "container"


STATUS = """Package: libc6
Status: install ok installed
Architecture: amd64
Version: 2.36-9
Description: GNU C Library
 Status: not a field

Package: gone
Status: deinstall ok config-files
Architecture: amd64
Version: 1
"""


def test_packages(monkeypatch, tmp_path) -> None:
    """Python's packages by their metadata, Debian's that are installed by dpkg's status."""
    monkeypatch.setattr(probe, "STATUS", tmp_path / "status")
    assert probe.packages([])["debian"] == ""
    (tmp_path / "status").write_text(STATUS)
    found = probe.packages([])
    assert found["debian"] == "libc6 2.36-9 amd64"
    assert any(line.startswith("pytest ") for line in found["python"].splitlines())
    assert len(sbom.components(found)) > 2
