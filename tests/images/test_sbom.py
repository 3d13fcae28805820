"""What is in the image, as a document."""

import json
from importlib.metadata import version

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from tools.images import probe, sbom

DIGEST = "sha256:" + "1" * 64
URLS = [
    "pkg:deb/debian/libc6@2.36-9%2Bdeb12u9?arch=amd64",
    "pkg:deb/debian/libstdc%2B%2B6@12.2.0-14?arch=amd64",
    "pkg:pypi/mlc-llm@1.2.3",
]


def test_sbom():
    """Valid CycloneDX with package URLs, the same for the same image."""
    texts = {sbom.sbom(URLS, DIGEST, "1.2.3", 0) for _ in range(2)}
    [text] = texts
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    data = json.loads(text)
    assert sorted(part["purl"] for part in data["components"]) == URLS
    assert data["metadata"]["component"]["type"] == "container"


STATUS = """Package: libstdc++6
Status: install ok installed
Architecture: amd64
Version: 12.2.0-14
Description: GNU C++ Library
 Status: not a field

Package: gone
Status: deinstall ok config-files
"""


def test_packages(monkeypatch, tmp_path):
    """Python's packages by their metadata, Debian's that are installed by dpkg's status."""
    monkeypatch.setattr(probe, "STATUS", tmp_path / "status")
    assert "pkg:deb" not in probe.packages([])["urls"]
    (tmp_path / "status").write_text(STATUS)
    urls = probe.packages([])["urls"].splitlines()
    assert [url for url in urls if "pkg:deb" in url] == [URLS[1]]
    assert any(url.startswith("pkg:pypi/pytest@") for url in urls)
    assert f"pkg:pypi/typing-extensions@{version('typing_extensions')}" in urls
