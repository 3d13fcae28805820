"""tools.wheels.archive: what a wheel is, and the one form of its bytes."""

import base64
import hashlib
import random
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tools.core import files
from tools.core.errors import PipelineError
from tools.wheels.archive import canonicalize, compare, read_wheel, same_version

README = "Description-Content-Type: text/markdown\nSummary: x\n\n# mlc_llm\n"


def _recorded(member: str, text: str) -> str:
    """A file's line in a wheel's RECORD (PyPA, "Recording installed projects")."""
    if member.endswith("/RECORD"):
        return f"{member},,\n"
    digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return f"{member},sha256={digest.rstrip('=')},{len(text.encode())}\n"


def make_wheel(
    folder: Path, version: str = "1.2.3", *, tag: str = "py3-none-any", name: str = "mlc_llm",
    contents: Mapping[str, str] = {"mlc_llm/__init__.py": ""}, metadata: str = README,
) -> Path:  # fmt: skip
    """A small wheel, not built by any backend, with a command."""
    info = f"{name}-{version}.dist-info"
    path = folder / f"{name}-{version}-{tag}.whl"
    inside = {
        **contents,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{metadata}",
        f"{info}/WHEEL": f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {tag}\n",
        f"{info}/entry_points.txt": f"[console_scripts]\n{name} = {name}:main\n",
        f"{info}/RECORD": "",
    }
    inside[f"{info}/RECORD"] = "".join(_recorded(*member) for member in inside.items())
    with zipfile.ZipFile(path, "w") as archive:
        for member, text in inside.items():
            archive.writestr(zipfile.ZipInfo(member), text)  # the same bytes at any time
    return path


def test_read(tmp_path: Path) -> None:
    """Name, version, tags and digest are those of the file; versions compare by PEP 440."""
    wheel = read_wheel(make_wheel(tmp_path, "1.2.3rc1", tag="cp311-abi3-win_amd64.manylinux_2_28_x86_64"))  # fmt: skip
    assert (wheel.project, wheel.version, wheel.pure) == ("mlc-llm", "1.2.3rc1", False)
    assert wheel.tags == ("cp311-abi3-manylinux_2_28_x86_64", "cp311-abi3-win_amd64")
    assert wheel.sha256 == files.sha256(wheel.path)
    assert read_wheel(make_wheel(tmp_path)).pure
    assert same_version("1.2.3", "1.2.3.0")
    for other in ("1.2.4", "1.2.3rc1", "1.2.3+gabc", "nonsense"):
        assert not same_version("1.2.3", other)


def test_what_is_not_a_wheel(tmp_path: Path) -> None:
    """A cut-off file, a wrong name and metadata of another version are refused."""
    half = make_wheel(tmp_path)
    other = make_wheel(tmp_path, "9.9").rename(tmp_path / "mlc_llm-1.2.3-py2-none-any.whl")
    with pytest.raises(PipelineError, match="holds the metadata of mlc_llm 9.9"):
        read_wheel(other)
    half.write_bytes(half.read_bytes()[:-40])
    (tmp_path / "x.whl").touch()
    for path in (half, tmp_path / "x.whl", tmp_path / "gone-1-py3-none-any.whl"):
        with pytest.raises(PipelineError, match="is not a wheel"):
            read_wheel(path)


NAMES = st.sampled_from(["m/a.py", "m/b.so", "m/c/d.py", "m.libs/x.so", "m-1.dist-info/METADATA",
                         "m-1.dist-info/RECORD", "m-1.dist-info/licenses/L"])  # fmt: skip


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(st.dictionaries(NAMES, st.tuples(st.binary(max_size=50), st.booleans()), min_size=1),
       st.randoms(), st.sampled_from([0, 315532800, 1_700_000_000]))  # fmt: skip
def test_one_form(
    tmp_path: Path, contents: dict[str, tuple[bytes, bool]], dice: random.Random, created: int
) -> None:
    """Order, times, modes, folders and system of origin do not change the bytes; contents
    and executable bits are kept.
    """
    results = []
    for turn in range(2):
        source, target = tmp_path / f"{turn}.zip", tmp_path / f"{turn}.whl"
        with zipfile.ZipFile(source, "w") as archive:
            archive.mkdir(f"folder{turn}")
            for name in dice.sample(list(contents), len(contents)):
                info = zipfile.ZipInfo(name, (dice.randint(1980, 2100), 1, 1, 0, 0, 0))
                info.create_system = dice.choice([0, 3])
                modes = [0o755, 0o100700] if contents[name][1] else [0o644, 0o100600]
                info.external_attr = dice.choice(modes) << 16
                archive.writestr(info, contents[name][0])
        canonicalize(source, target, created)
        results.append(target.read_bytes())
    assert results[0] == results[1]
    with zipfile.ZipFile(target) as archive:
        kept = {m.filename: (archive.read(m), m.external_attr >> 16) for m in archive.filelist}
    modes = (0o100644, 0o100755)
    assert kept == {name: (data, modes[run]) for name, (data, run) in contents.items()}
    assert "m-1.dist-info/RECORD" not in list(kept)[:-1]


def test_builds_that_differ(tmp_path: Path) -> None:
    """The members that differ are named, missing ones included."""
    (tmp_path / "again").mkdir()
    first = read_wheel(make_wheel(tmp_path, contents={"m/same": "", "m/a": "1"}))
    contents = {"m/same": "", "m/a": "2", "m/b": ""}
    second = read_wheel(make_wheel(tmp_path / "again", contents=contents))
    compare(first, first)
    with pytest.raises(PipelineError, match="Two builds of .* differ") as caught:
        compare(first, second)
    named = ["differs: m/a", "differs: m/b", "differs: mlc_llm-1.2.3.dist-info/RECORD"]
    assert caught.value.detail.splitlines() == sorted(named)
