"""What a release consists of, without any service: notes, files, SBOM, platforms."""

import json
from pathlib import Path

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from hypothesis import given
from hypothesis import strategies as st
from packaging.version import Version

from tests.release.project import LINUX, WINDOWS, write_wheel
from tools.release.checks import serves
from tools.release.notes import LONGEST, changelog_section, compose
from tools.release.publish import is_latest
from tools.release.sbom import sbom
from tools.repo.versions import parse_tag
from tools.wheels.archive import Wheel, read_wheel

CHANGELOG = """# Changelog

## 1.x, some day

## [1.1.0] - 2026-05-01

### Added

- New.

```sh
## 1.0.0 in a fence is not a heading
```

## v1.0.0 (2026-01-01)

First.

# 0.9

Old.

## 1.0.0rc1

Candidate.
"""
SECTIONS = {"1.1.0": "### Added ```", "1.0.0": "First.", "0.9": "Old. Candidate.",
            "1.0.0rc1": "Candidate.", "2.0.0": ""}  # fmt: skip


@pytest.mark.parametrize("version", SECTIONS)
def test_changelog_section(version: str) -> None:
    """The section of exactly this version, whatever form its heading has."""
    lines = changelog_section(CHANGELOG, Version(version)).splitlines()
    assert " ".join(dict.fromkeys(lines[:1] + lines[-1:])) == SECTIONS[version]


@given(st.text(max_size=400))
def test_any_changelog_is_read(text: str) -> None:
    """No changelog, however odd, stops a release."""
    assert isinstance(changelog_section(text, Version("1.0.0")), str)


@given(st.integers(0, 200_000), st.integers(0, 3_000))
def test_notes_fit_github(generated: int, changelog: int) -> None:
    """However long GitHub's notes are, ours stay, and GitHub takes the whole."""
    long = "\n".join(["* a change"] * (generated // 11))
    notes = compose("c" * changelog, long, "## Installation\nhow")
    assert len(notes) <= LONGEST
    assert notes.startswith("c" * changelog) and "## Installation\nhow" in notes


def test_sbom(tmp_path: Path) -> None:
    """It passes the schema, and names wheels, requirements and libraries inside."""
    inside = {"mlc_llm.libs/libtvm-1234.so.0": b"library"}
    wheels = [read_wheel(write_wheel(tmp_path, tag=LINUX, **inside))]
    wheels.append(read_wheel(write_wheel(tmp_path, tag=WINDOWS)))
    text = sbom(wheels, 1_700_000_000)
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    assert sbom(wheels, 1_700_000_000) == text
    found = json.loads(text)
    names = {component["name"] for component in found["components"]}
    assert names == {wheels[0].name, wheels[1].name, "numpy", "tqdm", *inside}
    assert found["metadata"]["component"]["purl"] == "pkg:pypi/mlc-llm@1.0.0"
    assert found["metadata"]["timestamp"] == "2023-11-14T22:13:20+00:00"


LATEST = [
    ("v1.0.0", "", True),
    ("v1.0.0", "v0.9.0 nightly v1.0.0", True),
    ("v1.0.1", "v1.1.0", False),
    ("v1.10.0", "v1.9.0", True),
    ("v1.0.0", "v2.0.0-rc1", True),
    ("v2.0.0-rc1", "v1.0.0", False),
]


@pytest.mark.parametrize(("tag", "published", "latest"), LATEST)
def test_latest(tag: str, published: str, latest: bool) -> None:
    """The mark of the latest goes to the highest stable version, by PEP 440's order."""
    assert is_latest(parse_tag(tag), published.split()) is latest


SERVED = {
    "py3-none-any": "linux-x64 linux-arm64 windows-x64 windows-arm64 macos-x64",
    "cp311-cp311-manylinux_2_28_x86_64": "linux-x64",
    "cp311-cp311-musllinux_1_2_x86_64": "linux-x64",
    "cp311-cp311-linux_x86_64": "linux-x64",
    "cp311-cp311-manylinux_2_28_aarch64": "linux-arm64",
    "cp311-cp311-win_amd64": "windows-x64",
    "cp311-cp311-win_arm64": "windows-arm64",
    "cp311-cp311-macosx_11_0_arm64": "",
    "cp311-cp311-macosx_11_0_universal2": "macos-x64",
    "cp311-cp311-manylinux_2_17_x86_64 cp311-cp311-manylinux2014_x86_64": "linux-x64",
}


@pytest.mark.parametrize("tags", SERVED)
def test_platforms(tags: str) -> None:
    """Which wheel serves which platforms (PyPA, "Platform compatibility tags"); an unknown
    platform is served by pure wheels alone.
    """
    wheel = Wheel(Path("x.whl"), "x", "1", tuple(tags.split(" ")), 1, "0")
    every = "linux-x64 linux-arm64 windows-x64 windows-arm64 macos-x64".split()
    assert " ".join(p for p in every if serves(wheel, p)) == SERVED[tags]
    assert serves(wheel, "amiga-68k") is wheel.pure
