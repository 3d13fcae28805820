"""tools.wheels.archive: what a wheel is, and the one form of its bytes."""

from __future__ import annotations

import random
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tools.core import files
from tools.core.errors import PipelineError
from tools.wheels.archive import canonicalize, differences, members, read_wheel, same_version

CREATED = 1_700_000_000


def make_wheel(
    folder: Path,
    version: str = "1.2.3",
    *,
    tag: str = "py3-none-any",
    name: str = "mlc_llm",
    stated: str = "",
    contents: Mapping[str, str] = {"mlc_llm/__init__.py": ""},
    metadata: str = "",
    scripts: str = "",
) -> Path:
    """A small wheel, not built by any backend."""
    info = f"{name}-{version}.dist-info"
    path = folder / f"{name}-{version}-{tag}.whl"
    inside = {
        **contents,
        f"{info}/METADATA": "Metadata-Version: 2.1\n"
        f"Name: {name}\nVersion: {stated or version}\n{metadata}",
        f"{info}/WHEEL": f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {tag}\n",
        f"{info}/entry_points.txt": f"[console_scripts]\n{scripts}\n",
        f"{info}/RECORD": "",
    }
    inside[f"{info}/RECORD"] = "".join(f"{member},,\n" for member in inside)
    with zipfile.ZipFile(path, "w") as archive:
        for member, text in inside.items():
            archive.writestr(member, text)
    return path


def test_read(tmp_path: Path) -> None:
    """Name, version, tags and digest come out as they are in file and metadata."""
    wheel = read_wheel(make_wheel(tmp_path, "1.2.3rc1", tag="cp311-abi3-win_amd64.manylinux_2_28_x86_64"))  # fmt: skip
    assert (wheel.project, wheel.version, wheel.pure) == ("mlc-llm", "1.2.3rc1", False)
    assert wheel.tags == ("cp311-abi3-manylinux_2_28_x86_64", "cp311-abi3-win_amd64")
    assert wheel.sha256 == files.sha256(wheel.path)
    assert read_wheel(make_wheel(tmp_path)).pure


def test_what_is_not_a_wheel(tmp_path: Path) -> None:
    """A cut-off file, a wrong name and metadata of another version are refused."""
    for stated in ("9.9", "nonsense"):
        with pytest.raises(PipelineError, match=f"holds the metadata of mlc_llm {stated}"):
            read_wheel(make_wheel(tmp_path, stated=stated))
    half = make_wheel(tmp_path)
    half.write_bytes(half.read_bytes()[:-40])
    (tmp_path / "x.whl").touch()
    for path in (half, tmp_path / "x.whl", tmp_path / "gone-1-py3-none-any.whl"):
        with pytest.raises(PipelineError, match="is not a wheel"):
            read_wheel(path)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [("1.2.3", "1.2.3.0", True), ("1.2.3", "1.2.4", False), ("1.2.3rc1", "1.2.3", False),
     ("1.2.3+gabc", "1.2.3", False), ("1", "nonsense", False)],
)  # fmt: skip
def test_same_version(one: str, other: str, same: bool) -> None:
    """Versions are compared as PEP 440 does."""
    assert same_version(one, other) is same


NAMES = st.sampled_from(["m/a.py", "m/b.so", "m/c/d.py", "m.libs/x.so", "m-1.dist-info/METADATA",
                         "m-1.dist-info/RECORD", "m-1.dist-info/licenses/L"])  # fmt: skip


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(st.dictionaries(NAMES, st.tuples(st.binary(max_size=50), st.booleans()), min_size=1),
       st.randoms(), st.sampled_from([0, 315532800, CREATED]))  # fmt: skip
def test_one_form(
    tmp_path: Path, contents: dict[str, tuple[bytes, bool]], dice: random.Random, created: int
) -> None:
    """Order, times, modes, folders and system of origin do not change the bytes; contents
    and executable bits are kept.
    """
    results = []
    for turn in range(2):
        source, target = tmp_path / f"{turn}.zip", tmp_path / f"{turn}.whl"
        names = list(contents)
        dice.shuffle(names)
        with zipfile.ZipFile(source, "w") as archive:
            archive.mkdir(f"folder{turn}")
            for name in names:
                info = zipfile.ZipInfo(name, (dice.randint(1980, 2100), 1, 1, 0, 0, 0))
                info.create_system = dice.choice([0, 3])
                modes = [0o755, 0o775, 0o700] if contents[name][1] else [0o644, 0o600]
                info.external_attr = (dice.choice(modes) | dice.choice([0, 0o100000])) << 16
                archive.writestr(info, contents[name][0])
        canonicalize(source, target, created)
        results.append(target.read_bytes())
    assert results[0] == results[1]
    with zipfile.ZipFile(target) as archive:
        for member in archive.infolist():
            data, executable = contents[member.filename]
            assert archive.read(member) == data
            assert (member.external_attr >> 16) & 0o777 == (0o755 if executable else 0o644)
    order = members(target)
    assert set(order) == set(contents)
    assert "m-1.dist-info/RECORD" not in order or order[-1] == "m-1.dist-info/RECORD"


def test_differences(tmp_path: Path) -> None:
    """The members that differ are named, missing ones included."""
    one, other = tmp_path / "one.zip", tmp_path / "other.zip"
    for path, contents in (
        (one, {"same": "", "a": "1"}),
        (other, {"same": "", "a": "2", "b": ""}),
    ):
        with zipfile.ZipFile(path, "w") as archive:
            for name, text in contents.items():
                archive.writestr(name, text)
    assert differences(one, other) == ["a", "b"]
    assert differences(one, one) == []
