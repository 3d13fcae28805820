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


def install(wheel: Wheel, environment: Path, *beside: str) -> None:
    """Install a wheel as the session does."""
    env = clean(os.environ)
    check.install(wheel, environment, choose_installer(env), env, beside)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Wheel, Path]:
    """A sound wheel, and the environment in which it is installed."""
    folder = tmp_path_factory.mktemp("sound")
    wheel = wheel_of(folder)
    install(wheel, folder / "fresh")
    return wheel, folder / "fresh"


def use(installed: tuple[Wheel, Path], code: str, strict: bool = True) -> None:
    """Use the installed wheel with other code in its module."""
    wheel, environment = installed
    [module] = environment.rglob("mlc_llm/__init__.py")
    module.unlink()  # it may be a link into uv's cache
    module.write_text(code)
    check.use(wheel, environment, clean(os.environ), strict)


def test_sound(installed: tuple[Wheel, Path], capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing is said of a sound wheel."""
    check.check_file(installed[0], clean(os.environ))
    use(installed, SOUND)
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
    ("code", "sentence"),
    [
        ("import no_such_module", "cannot be imported"),
        (SOUND.replace("1.2.3", "7"), "__version__ says 7, not version 1.2.3"),
        (SOUND.replace("__version__ if", "'8' if"), "--version says 8, not version 1.2.3"),
        (SOUND.replace("print", "sys.exit"), "does not end with 0"),
    ],
)
def test_faulty_code(installed: tuple[Wheel, Path], code: str, sentence: str) -> None:
    """Each fault is one sentence with a remedy."""
    with pytest.raises(PipelineError, match=sentence) as caught:
        use(installed, code)
    assert caught.value.remedy


def test_a_version_in_a_second_place(
    installed: tuple[Wheel, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """Upstream writes its version in a second place: that is a warning."""
    use(installed, SOUND.replace("1.2.3", "7"), strict=False)
    assert capsys.readouterr().err.count("says 7, not version 1.2.3") == 2


def test_dependencies(tmp_path: Path) -> None:
    """One that cannot be installed is a sentence; one that is not declared is there when
    WHEEL_TEST_REQUIRES names it. A wheel without its command is refused.
    """
    metadata = f"Requires-Dist: no-such-distribution-of-ours>=9\n{README}"
    with pytest.raises(PipelineError, match="cannot be installed"):
        install(wheel_of(tmp_path, metadata=metadata), tmp_path / "one")
    wheel = wheel_of(tmp_path, f"import iniconfig\n{SOUND}", scripts="other = mlc_llm:main")
    install(wheel, tmp_path / "two", "iniconfig>=2")
    with pytest.raises(PipelineError, match="installs no command mlc_llm"):
        check.use(wheel, tmp_path / "two", clean(os.environ), strict=True)
