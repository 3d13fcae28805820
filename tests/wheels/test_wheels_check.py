"""tools.wheels.check: each check refuses what it is there for, and lets a sound wheel pass."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.wheels.test_wheels_archive import make_wheel
from tools.core.errors import PipelineError
from tools.wheels import check
from tools.wheels.archive import Wheel, read_wheel
from tools.wheels.build import choose_installer, clean

SOUND = """
import sys
__version__ = "1.2.3"
def main():
    print(__version__ if "--version" in sys.argv else "usage")
"""
README = "Description-Content-Type: text/markdown\nSummary: x\n\n# mlc_llm\n"


def wheel_of(
    folder: Path,
    code: str = SOUND,
    *,
    metadata: str = README,
    scripts: str = "mlc_llm = mlc_llm:main",
    extra: str = "",
) -> Wheel:
    """A wheel, sound but for what is changed."""
    contents = {"mlc_llm/__init__.py": code} | ({extra: ""} if extra else {})
    path = make_wheel(folder, contents=contents, metadata=metadata, scripts=scripts)
    return read_wheel(path)


def try_it(wheel: Wheel, strict: bool = True, *beside: str) -> None:
    """Install and use, as the session does."""
    env = clean(os.environ)
    environment = wheel.path.parent / "fresh"
    check.install(wheel, environment, choose_installer(env), env, beside)
    check.use(wheel, environment, env, strict)


def test_sound(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing is said of a sound wheel."""
    wheel = wheel_of(tmp_path)
    check.check_file(wheel, clean(os.environ))
    try_it(wheel)
    assert "warning" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "sentence"),
    [({"metadata": ""}, "twine finds fault"),
     ({"extra": "mlc_llm/build.pyc"}, "check-wheel-contents finds fault")],
)  # fmt: skip
def test_faulty_files(tmp_path: Path, change: dict[str, str], sentence: str) -> None:
    """What the tools find is the detail."""
    with pytest.raises(PipelineError, match=sentence) as caught:
        check.check_file(wheel_of(tmp_path, **change), clean(os.environ))
    assert caught.value.remedy and caught.value.detail


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"metadata": f"Requires-Dist: no-such-distribution-of-ours>=9\n{README}"}, "cannot be installed"),
        ({"code": "import no_such_module"}, "cannot be imported"),
        ({"code": SOUND.replace("1.2.3", "7")}, "__version__ says 7, not version 1.2.3"),
        ({"code": SOUND.replace("__version__ if", "'8' if")}, "--version says 8, not version 1.2.3"),
        ({"scripts": "mlc_llm = mlc_llm:nothing"}, "does not end with 0"),
        ({"scripts": "other = mlc_llm:main"}, "installs no command mlc_llm"),
    ],
)  # fmt: skip
def test_faults(tmp_path: Path, change: dict[str, str], sentence: str) -> None:
    """Each fault is one sentence with a remedy."""
    with pytest.raises(PipelineError, match=sentence) as caught:
        try_it(wheel_of(tmp_path, **change))
    assert caught.value.remedy


def test_the_version_of_a_source_of_ones_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Upstream writes its version in a second place: that is a warning."""
    try_it(wheel_of(tmp_path, SOUND.replace("1.2.3", "7")), strict=False)
    assert capsys.readouterr().err.count("says 7, not version 1.2.3") == 2


def test_undeclared_needs(tmp_path: Path) -> None:
    """WHEEL_TEST_REQUIRES makes a wheel testable that needs what it does not declare."""
    wheel = wheel_of(tmp_path, f"import iniconfig\n{SOUND}")
    with pytest.raises(PipelineError, match="cannot be imported") as caught:
        try_it(wheel)
    assert "WHEEL_TEST_REQUIRES" in caught.value.remedy
    (tmp_path / "fresh").rename(tmp_path / "old")
    try_it(wheel, True, "iniconfig>=2")
