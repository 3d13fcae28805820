"""tools.wheels.archive: what a wheel is, and the one form of its bytes."""

from __future__ import annotations

import random
import zipfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tools.core.errors import PipelineError
from tools.wheels.archive import (
    canonicalize,
    check_version,
    differences,
    members,
    read_wheel,
    sha256_of,
)

METADATA = "Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
CREATED = 1_700_000_000


def make_wheel(
    folder: Path,
    version: str = "1.2.3",
    *,
    tag: str = "py3-none-any",
    name: str = "mlc_llm",
    stated: str = "",
    text: str = "",
) -> Path:
    """A small wheel, not built by any backend."""
    info = f"{name}-{version}.dist-info"
    path = folder / f"{name}-{version}-{tag}.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{name}/__init__.py", text)
        archive.writestr(
            f"{info}/METADATA", METADATA.format(name=name, version=stated or version)
        )
        archive.writestr(f"{info}/RECORD", "")
    return path


def test_read(tmp_path: Path) -> None:
    """Name, version, tags and digest come out as they are in file and metadata."""
    wheel = read_wheel(make_wheel(tmp_path, "1.2.3rc1", tag="cp311-abi3-win_amd64.manylinux_2_28_x86_64"))  # fmt: skip
    assert (wheel.project, wheel.version, wheel.pure) == ("mlc-llm", "1.2.3rc1", False)
    assert wheel.tags == ("cp311-abi3-manylinux_2_28_x86_64", "cp311-abi3-win_amd64")
    assert wheel.to_json()["sha256"] == sha256_of(wheel.path)
    assert read_wheel(make_wheel(tmp_path)).pure


def test_no_wheels(tmp_path: Path) -> None:
    """A cut-off file, a wrong name and metadata of another version are refused."""
    with pytest.raises(PipelineError, match="holds the metadata of mlc_llm 9.9"):
        read_wheel(make_wheel(tmp_path, stated="9.9"))
    half = make_wheel(tmp_path)
    half.write_bytes(half.read_bytes()[:-40])
    with pytest.raises(PipelineError, match="is not a wheel"):
        read_wheel(half)
    (tmp_path / "x.whl").write_bytes(b"")
    with pytest.raises(PipelineError, match="is not a wheel"):
        read_wheel(tmp_path / "x.whl")


@pytest.mark.parametrize(
    ("built", "wanted", "good"),
    [("1.2.3", "1.2.3", True), ("1.2.3", "1.2.3.0", True), ("1.2.3", "1.2.4", False),
     ("1.2.3rc1", "1.2.3", False), ("1.2.3+gabc", "1.2.3", False)],
)  # fmt: skip
def test_version(tmp_path: Path, built: str, wanted: str, good: bool) -> None:
    """A tag never gives a wheel of another version."""
    wheel = read_wheel(make_wheel(tmp_path, built))
    if good:
        check_version(wheel, wanted)
        return
    with pytest.raises(PipelineError, match="is being built"):
        check_version(wheel, wanted)


NAMES = st.sampled_from(["m/a.py", "m/b.so", "m/c/d.py", "m.libs/x.so", "m-1.dist-info/METADATA",
                         "m-1.dist-info/RECORD", "m-1.dist-info/licenses/L"])  # fmt: skip


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(st.dictionaries(NAMES, st.tuples(st.binary(max_size=50), st.booleans()), min_size=1),
       st.randoms(), st.sampled_from([0, 315532800, CREATED]))  # fmt: skip
def test_one_form(
    tmp_path: Path, files: dict[str, tuple[bytes, bool]], dice: random.Random, created: int
) -> None:
    """Order, times, modes, folders and system of origin do not change the bytes; contents
    and executable bits are kept.
    """
    results = []
    for turn in range(2):
        source, target = tmp_path / f"{turn}.zip", tmp_path / f"{turn}.whl"
        names = list(files)
        dice.shuffle(names)
        with zipfile.ZipFile(source, "w") as archive:
            archive.mkdir(f"folder{turn}")
            for name in names:
                info = zipfile.ZipInfo(name, (dice.randint(1980, 2100), 1, 1, 0, 0, 0))
                info.create_system = dice.choice([0, 3])
                mode = dice.choice([0o755, 0o775, 0o700] if files[name][1] else [0o644, 0o600])
                info.external_attr = (mode | dice.choice([0, 0o100000])) << 16
                archive.writestr(info, files[name][0])
        canonicalize(source, target, created)
        results.append(target.read_bytes())
    assert results[0] == results[1]
    with zipfile.ZipFile(target) as archive:
        for member in archive.infolist():
            data, executable = files[member.filename]
            assert archive.read(member) == data
            assert (member.external_attr >> 16) & 0o777 == (0o755 if executable else 0o644)
    order = members(target)
    assert set(order) == set(files)
    assert "m-1.dist-info/RECORD" not in order or order[-1] == "m-1.dist-info/RECORD"


def test_differences(tmp_path: Path) -> None:
    """The members that differ are named, missing ones included."""
    (tmp_path / "a").mkdir()
    one, other = make_wheel(tmp_path, text="1"), make_wheel(tmp_path / "a", text="2")
    with zipfile.ZipFile(other, "a") as archive:
        archive.writestr("extra", "")
    assert differences(one, other) == ["extra", "mlc_llm/__init__.py"]
    assert differences(one, one) == []
