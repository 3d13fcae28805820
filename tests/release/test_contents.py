"""What a release consists of, without any service: notes, sums, SBOM, platforms."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from hypothesis import given
from hypothesis import strategies as st

from tests.release.project import LINUX, WINDOWS, write_wheel
from tools.core.errors import PipelineError, UsageError
from tools.release.checks import LARGEST, Problems, check_wheels, serves
from tools.release.contents import Asset, checksums, fill_folder, is_latest
from tools.release.notes import LONGEST, changelog_section, compose, installation
from tools.release.sbom import sbom
from tools.repo.versions import parse_tag
from tools.wheels.archive import Wheel, read_wheel

CHANGELOG = """# Changelog

## Unreleased

Not yet.

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


# --- notes --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("version", "start", "end"),
    [
        ("1.1.0", "### Added", "```"),
        ("1.0.0", "First.", "First."),
        ("0.9", "Old.", "Candidate."),
        ("1.0.0rc1", "Candidate.", "Candidate."),
        ("2.0.0", "", ""),
    ],
)
def test_changelog_section(version: str, start: str, end: str) -> None:
    """The section of exactly this version, whatever form its heading has."""
    section = changelog_section(CHANGELOG, version)
    assert section.startswith(start) and section.endswith(end)
    assert bool(section) is bool(start)


@given(st.text(max_size=400))
def test_any_changelog_is_read(text: str) -> None:
    """No changelog, however odd, stops a release."""
    assert isinstance(changelog_section(text, "1.0.0"), str)


@given(st.integers(0, 200_000), st.integers(0, 3_000))
def test_notes_fit_github(generated: int, changelog: int) -> None:
    """However long GitHub's notes are, ours stay, and GitHub takes the whole."""
    long = "\n".join(["* a change"] * (generated // 11))
    notes = compose("c" * changelog, long, "## Installation\nhow")
    assert len(notes) <= LONGEST
    assert notes.startswith("c" * changelog) and "## Installation\nhow" in notes


def wheel(tag: str, name: str = "", size: int = 1) -> Wheel:
    return Wheel(Path(name or f"x-1-{tag}.whl"), "x", "1", tuple(tag.split(" ")), size, "0")


def test_addresses_are_quoted() -> None:
    """A name with special characters gives a working address."""
    text = installation("https://host/downloads", [wheel("py3-none-any", "a b+c.whl")], [])
    assert 'pip install "https://host/downloads/a%20b%2Bc.whl#sha256=0"' in text
    assert "For any platform (py3):" in text


# --- files --------------------------------------------------------------------


@given(st.dictionaries(st.text("abc-_.0", min_size=1), st.binary(max_size=8), min_size=1))
def test_checksums_do_not_depend_on_order(contents: dict[str, bytes]) -> None:
    """The same files in any order give the same SHA256SUMS."""
    assets = [Asset(name, len(content), content.hex()) for name, content in contents.items()]
    assert checksums(assets) == checksums(assets[::-1])


def test_folder_holds_what_is_published_and_nothing_else(tmp_path: Path) -> None:
    """What an earlier run left goes; the same wheels give the same bytes again."""
    folder = tmp_path / "release"
    wheels = [read_wheel(write_wheel(tmp_path, tag=tag)) for tag in (LINUX, WINDOWS)]
    (folder / "old").mkdir(parents=True)
    first = fill_folder(folder, "1.0.0", wheels, [], 1)
    assert {asset.name for asset in first} == {path.name for path in folder.iterdir()}
    assert fill_folder(folder, "1.0.0", wheels, [], 1) == first


def test_sbom(tmp_path: Path) -> None:
    """It passes the schema, and names wheels, licence, requirements and libraries inside."""
    inside = {"mlc_llm.libs/libtvm-1234.so.0": b"library"}
    wheels = [read_wheel(write_wheel(tmp_path, tag=LINUX, **inside))]
    wheels.append(read_wheel(write_wheel(tmp_path, tag=WINDOWS)))
    text = sbom(wheels, 1_700_000_000)
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    assert sbom(wheels, 1_700_000_000) == text
    found = json.loads(text)
    names = {component["name"] for component in found["components"]}
    assert names == {wheels[0].name, wheels[1].name, "numpy", "tqdm", *inside}
    assert found["metadata"]["component"]["licenses"][0]["license"]["id"] == "Apache-2.0"
    assert found["metadata"]["timestamp"] == "2023-11-14T22:13:20+00:00"


@pytest.mark.parametrize(
    ("tag", "published", "latest"),
    [
        ("v1.0.0", [], True),
        ("v1.0.0", ["v0.9.0", "nightly"], True),
        ("v1.0.1", ["v1.1.0"], False),
        ("v1.10.0", ["v1.9.0"], True),
        ("v2.0.0", ["v2.0.0-rc1", "v1.0.0"], True),
        ("v1.0.0", ["v2.0.0-rc1"], True),
        ("v2.0.0-rc1", ["v1.0.0"], False),
        ("v1.0.0", ["v1.0.0"], True),
    ],
)
def test_latest(tag: str, published: list[str], latest: bool) -> None:
    """The mark of the latest goes to the highest stable version, by PEP 440's order."""
    assert is_latest(parse_tag(tag), published) is latest


# --- checks -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tag", "platforms"),
    [
        ("py3-none-any", "linux-x64 linux-arm64 windows-x64 windows-arm64 macos-x64"),
        ("cp311-cp311-manylinux_2_28_x86_64", "linux-x64"),
        ("cp311-cp311-musllinux_1_2_x86_64", "linux-x64"),
        ("cp311-cp311-linux_x86_64", "linux-x64"),
        ("cp311-cp311-manylinux_2_28_aarch64", "linux-arm64"),
        ("cp311-cp311-win_amd64", "windows-x64"),
        ("cp311-cp311-win_arm64", "windows-arm64"),
        ("cp311-cp311-macosx_11_0_arm64", ""),
        ("cp311-cp311-macosx_11_0_universal2", "macos-x64"),
        ("cp311-cp311-manylinux_2_17_x86_64 cp311-cp311-manylinux2014_x86_64", "linux-x64"),
    ],
)
def test_platforms(tag: str, platforms: str) -> None:
    """Which wheel serves which platforms (PyPA, "Platform compatibility tags")."""
    every = ("linux-x64", "linux-arm64", "windows-x64", "windows-arm64", "macos-x64")
    assert " ".join(p for p in every if serves(wheel(tag), p)) == platforms


def test_wheel_that_github_does_not_take(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two GiB are too much, and an unknown platform is not silently never served."""
    write_wheel(tmp_path)
    large = wheel("py3-none-any", size=LARGEST + 1)
    monkeypatch.setattr("tools.release.checks.read_wheel", lambda _: large)
    problems = Problems()
    check_wheels(tmp_path, "", parse_tag("v1.0"), ["amiga-68k"], problems)
    assert "takes less than 2 GiB" in str(problems[0])
    assert "amiga-68k, which is not a known platform" in str(problems[1])


def test_problems_are_reported_together() -> None:
    """One problem is itself; several are one error, of usage if one of them is."""
    problems = Problems()
    problems.report("v1.0.0")
    problems.add("First.", "Do this.")
    with pytest.raises(PipelineError, match="First"):
        problems.report("v1.0.0")
    problems.append(UsageError("Second.", "Do that."))
    with pytest.raises(UsageError, match="2 things stand against") as caught:
        problems.report("v1.0.0")
    assert "- First.\n  what to do: Do this.\n- Second." in caught.value.detail
