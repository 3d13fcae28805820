"""The parts of a release that need no service: notes, checksums, platforms, progress."""

from __future__ import annotations

import threading
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.release.project import LINUX, write_wheel
from tools.core.errors import PipelineError, UsageError
from tools.release import progress as release_progress
from tools.release.checks import Problems, check_files, platform_pattern, serves
from tools.release.notes import LONGEST, changelog_section, compose, download_url
from tools.release.plan import Asset, ReleasePlan, checksums, is_latest
from tools.release.progress import Body, Meter
from tools.release.sbom import make_sbom
from tools.repo.versions import parse_tag
from tools.wheels.archive import Wheel, read_wheel

CHANGELOG = """# Changelog

## Unreleased

Not yet.

## [1.1.0] - 2026-05-01

### Added

- New.

```sh
## 1.0.0 in a fence is no heading
```

## v1.0.0 (2026-01-01)

First.

# 0.9

Old.

## 1.0.0rc1

Candidate.
"""


@pytest.mark.parametrize(
    ("version", "start", "absent"),
    [
        ("1.1.0", "### Added", "First."),
        ("1.0.0", "First.", "Old."),
        ("0.9", "Old.", "###"),
        ("1.0.0rc1", "Candidate.", "First."),
        ("2.0.0", "", "."),
    ],
)
def test_changelog_section(version: str, start: str, absent: str) -> None:
    """The section of exactly this version, whatever form its heading has."""
    section = changelog_section(CHANGELOG, version)
    assert section.startswith(start) and absent not in section


def test_changelog_section_keeps_fences_whole() -> None:
    """A line in fenced code that looks like a heading does not end the section."""
    assert changelog_section(CHANGELOG, "1.1.0").endswith("```")


@given(st.text(max_size=400))
def test_any_changelog_is_read(text: str) -> None:
    """No changelog, however odd, stops a release."""
    assert isinstance(changelog_section(text, "1.0.0"), str)


@given(st.integers(0, 200_000), st.integers(0, 3_000))
def test_notes_fit_github(generated: int, changelog: int) -> None:
    """However long GitHub's notes are, ours stay, and the whole is taken by GitHub."""
    long = "\n".join(["* a change"] * (generated // 11))
    notes = compose("c" * changelog, long, "## Installation\nhow")
    assert len(notes) <= LONGEST
    assert notes.startswith("c" * changelog) and "## Installation\nhow" in notes


def test_download_url_is_quoted() -> None:
    """A tag or a name with special characters gives a working address."""
    url = download_url("https://github.com", "o/n", "v1.0.0", "a b+c.whl")
    assert url == "https://github.com/o/n/releases/download/v1.0.0/a%20b%2Bc.whl"


def wheel(tag: str) -> Wheel:
    return Wheel(Path(f"x-1-{tag}.whl"), "x", "1", tuple(tag.split(" ")), 1, "0")


@pytest.mark.parametrize(
    ("tag", "platform", "fits"),
    [
        ("py3-none-any", "linux-x64", True),
        ("py3-none-any", "windows-x64", True),
        ("cp311-cp311-manylinux_2_28_x86_64", "linux-x64", True),
        ("cp311-cp311-manylinux2014_x86_64", "linux-x64", True),
        ("cp311-cp311-musllinux_1_2_x86_64", "linux-x64", True),
        ("cp311-cp311-linux_x86_64", "linux-x64", True),
        ("cp311-cp311-manylinux_2_28_aarch64", "linux-x64", False),
        ("cp311-cp311-manylinux_2_28_aarch64", "linux-arm64", True),
        ("cp311-cp311-win_amd64", "windows-x64", True),
        ("cp311-cp311-win_arm64", "windows-x64", False),
        ("cp311-cp311-win_amd64", "linux-x64", False),
        ("cp311-cp311-macosx_11_0_arm64", "macos-arm64", True),
        ("cp311-cp311-macosx_11_0_universal2", "macos-x64", True),
        (
            "cp311-cp311-manylinux_2_17_x86_64 cp311-cp311-manylinux2014_x86_64",
            "linux-x64",
            True,
        ),
    ],
)
def test_platforms(tag: str, platform: str, fits: bool) -> None:
    """Which wheel serves which platform (PyPA, "Platform compatibility tags")."""
    assert serves(wheel(tag), platform) is fits


def test_unknown_platform() -> None:
    """A platform that nobody knows is not silently never served."""
    assert platform_pattern("amiga-68k") is None


names = st.text("abc-_.0", min_size=1, max_size=8)


@given(st.dictionaries(names, st.binary(max_size=8), min_size=1, max_size=6))
def test_checksums_do_not_depend_on_order(files: dict[str, bytes]) -> None:
    """The same files in any order give the same SHA256SUMS and the same fingerprint."""
    assets = [Asset(Path("d") / name, len(c), c.hex()) for name, c in files.items()]
    assert checksums(assets) == checksums(assets[::-1])


def plan(*assets: Asset, tag: str = "v1.0.0") -> ReleasePlan:
    return ReleasePlan(tag, "1.0.0", "o/n", "c", False, assets, (), "notes")


def test_fingerprint_tells_other_content() -> None:
    """Drafts are shared only for the same tag, names and bytes."""
    one, other = Asset(Path("a"), 1, "aa"), Asset(Path("a"), 1, "bb")
    renamed = Asset(Path("b"), 1, "aa")
    prints = {
        p.fingerprint for p in (plan(one), plan(other), plan(renamed), plan(one, tag="v2.0"))
    }
    assert len(prints) == 4
    assert plan(one).fingerprint == plan(Asset(Path("elsewhere/a"), 1, "aa")).fingerprint


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


def test_files_that_github_does_not_take(tmp_path: Path) -> None:
    """Names that GitHub would change, and files that it refuses, are told before."""
    problems = Problems()
    sparse = tmp_path / "large.bin"
    with sparse.open("wb") as target:
        target.truncate(2 * 1024**3)
    odd = [tmp_path / name for name in ("a b.whl", ".hidden", "dot.", "a+b.whl")]
    for path in odd:
        path.write_text("x")
    fine = tmp_path / "fine-1.0_2.whl"
    fine.write_text("x")
    check_files([sparse, *odd, fine], problems)
    assert len(problems.found) == 5
    assert "takes less than 2 GiB" in problems.found[0].message


def test_problems_are_told_together() -> None:
    """One problem is itself; several are one error, of usage if one of them is."""
    problems = Problems()
    problems.report("v1.0.0")
    problems.add("First.", "Do this.")
    with pytest.raises(PipelineError, match="First"):
        problems.report("v1.0.0")
    problems.note(UsageError("Second.", "Do that."))
    with pytest.raises(UsageError, match="2 things stand against") as caught:
        problems.report("v1.0.0")
    assert caught.value.detail.splitlines() == [
        "- First.", "  what to do: Do this.", "- Second.", "  what to do: Do that.",
    ]  # fmt: skip


# --- progress -----------------------------------------------------------------


def test_plain_lines_now_and_then(capsys: pytest.CaptureFixture[str]) -> None:
    """Without a terminal: a line every ten seconds, with bytes, rate and time left."""
    times = iter([0.0, 1.0, 11.0, 12.0])
    meter = Meter(10_000_000, monotonic=lambda: next(times))
    for _ in range(3):
        meter.advance(2_000_000)
    said = capsys.readouterr().err.splitlines()
    assert said == ["uploaded 4.0 MB of 10.0 MB (40 %), 363.6 kB/s, 16 s left"]


def test_bar_on_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On a terminal: a bar with bytes, rate and time left."""
    monkeypatch.setattr(release_progress, "is_terminal", lambda: True)
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "120")
    with release_progress.progress(4_000_000, "uploading 2 assets") as meter:
        meter.advance(3_000_000)
        meter.advance(1_000_000)
    said = capsys.readouterr().err
    assert "uploading 2 assets" in said and "4.0/4.0 MB" in said and "/s" in said


def test_body_reads_and_counts(tmp_path: Path) -> None:
    """The file is read in pieces; what must be sent again is uncounted."""
    path = tmp_path / "file"
    path.write_bytes(b"0123456789")
    meter = Meter(10)
    body = Body(path, 10, meter, threading.Event())
    assert len(body) == 10
    assert body.read(4) == b"0123" and list(body) == [b"456789"] and body.read() == b""
    assert meter.done == 10
    body.take_back()
    body.close()
    assert meter.done == 0


def test_body_that_changes(tmp_path: Path) -> None:
    """A file that became shorter is an error, not a request that hangs."""
    path = tmp_path / "file"
    path.write_bytes(b"01234")
    body = Body(path, 10, Meter(10), threading.Event())
    body.read(5)
    with pytest.raises(PipelineError, match="file changed while it was uploaded"):
        body.read(5)
    body.close()


def test_body_is_given_up(tmp_path: Path) -> None:
    """When the work is given up, an upload ends at its next piece."""
    path, stop = tmp_path / "file", threading.Event()
    path.write_bytes(b"01234")
    body = Body(path, 5, Meter(5), stop)
    stop.set()
    with pytest.raises(PipelineError, match="given up"):
        body.read(1)
    body.close()


# --- SBOM ---------------------------------------------------------------------


def test_sbom_names_the_libraries_inside(tmp_path: Path) -> None:
    """Shared libraries that a repair put into the wheel are components with digests."""
    path = write_wheel(tmp_path, tag=LINUX)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("mlc_llm.libs/libtvm-1234.so.0", b"library")
    text = make_sbom([read_wheel(path)], 1_700_000_000)
    assert "mlc_llm.libs/libtvm-1234.so.0" in text
    assert '"timestamp": "2023-11-14T22:13:20+00:00"' in text
