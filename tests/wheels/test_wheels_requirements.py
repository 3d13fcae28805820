"""tools.wheels.requirements: what a wheel requires, pinned with hashes, and installed from that."""

import os
from pathlib import Path

import pytest

from tests.wheels.test_wheels_archive import make_wheel
from tools.core.errors import PipelineError
from tools.wheels import check
from tools.wheels.archive import Wheel, read_wheel
from tools.wheels.build import clean
from tools.wheels.requirements import pin

USES_PEER = {
    "mlc_llm/__init__.py": "import companion\ndef main(): pass\n",
    "mlc_llm/__main__.py": "",
}


@pytest.fixture
def links(tmp_path: Path) -> Path:
    """A place that has a companion in two versions, and what one of them requires."""
    folder = tmp_path / "links"
    folder.mkdir()
    for version in ("0.26.0", "0.27.0"):
        make_wheel(
            folder, version, name="companion", contents={"companion.py": ""},
            metadata='Requires-Dist: deep; sys_platform != "win32"\n',
        )  # fmt: skip
    make_wheel(folder, "1.0", name="deep", contents={"deep.py": ""})
    return folder


@pytest.fixture
def env(links: Path) -> dict[str, str]:
    """An environment in which only that place has packages; pip's variable names it."""
    quiet = {key: value for key, value in clean(os.environ).items() if key[:3] != "UV_"}
    return quiet | {"PIP_FIND_LINKS": str(links), "PIP_NO_INDEX": "1", "UV_NO_CACHE": "1"}


def wheel_of(folder: Path, *requires: str) -> Wheel:
    lines = "".join(f"Requires-Dist: {one}\n" for one in requires)
    return read_wheel(make_wheel(folder, contents=USES_PEER, metadata=lines))


@pytest.mark.parametrize("installer", ["uv", "pip"])
def test_pinned_and_installed(
    tmp_path: Path, links: Path, env: dict[str, str], installer: str
) -> None:
    """The companion and what it requires stand in the file, for every platform, by hash, the
    wheel does not. It is installed from there; another file of the same name is refused.
    """
    wheel = wheel_of(tmp_path, "companion==0.26.0")
    pinned = pin(wheel, tmp_path, env)
    text = pinned.read_text()
    lines = [line.rstrip(" \\") for line in text.splitlines() if not line.startswith(" ")]
    assert lines == ["companion==0.26.0", "deep==1.0 ; sys_platform != 'win32'"]
    assert "# via companion" in text and text.count("--hash=sha256:") == 2
    check.install(wheel, tmp_path / "fresh", installer, env, pinned)
    check.use(wheel, tmp_path / "fresh", env, strict=False)
    name = "deep-1.0-py3-none-any.whl"
    make_wheel(links, "1.0", name="deep", contents={"deep.py": "changed = True"})
    with pytest.raises(PipelineError, match="cannot be installed into a fresh environment"):
        check.install(wheel, tmp_path / "again", installer, env, pinned)
    assert (links / name).exists()


def test_nothing_required(tmp_path: Path, env: dict[str, str]) -> None:
    """The file is there, and empty; an older one has no say."""
    (tmp_path / "requirements.txt").write_text("companion==0.27.0\n")
    assert pin(wheel_of(tmp_path), tmp_path, env).read_text() == ""
    (tmp_path / "requirements.txt").write_text("companion==0.26.0\n")
    assert "0.27.0" in pin(wheel_of(tmp_path, "companion"), tmp_path, env).read_text()


@pytest.mark.parametrize(
    ("requires", "more", "sentence"),
    [
        (["no-such-thing"], {}, "requires no-such-thing, which no package index has"),
        (["companion==9"], {}, "requires companion, which no package index has"),
        (["companion==0.26.0", "companion==0.27.0"], {}, "does not fit together"),
        (
            ["companion"],
            {"PIP_NO_INDEX": "", "UV_DEFAULT_INDEX": "http://127.0.0.1:9/simple"},
            "cannot be reached",
        ),
    ],
)
def test_failures(
    tmp_path: Path,
    env: dict[str, str],
    requires: list[str],
    more: dict[str, str],
    sentence: str,
) -> None:
    """One sentence, with what to do and uv's own words."""
    env |= {"UV_HTTP_RETRIES": "0", **more}
    with pytest.raises(PipelineError, match=sentence) as caught:
        pin(wheel_of(tmp_path, *requires), tmp_path, env)
    assert caught.value.remedy and caught.value.detail
