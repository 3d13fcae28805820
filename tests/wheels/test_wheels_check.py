"""tools.wheels.check: each check refuses what it is there for, and lets a sound wheel pass."""

import os
import shutil
from pathlib import Path

import pytest

from tests.wheels.test_wheels_archive import make_wheel
from tools.core.errors import PipelineError, UsageError
from tools.core.settings import load
from tools.wheels import check
from tools.wheels.archive import Wheel, read_wheel
from tools.wheels.build import clean

pytestmark = pytest.mark.xdist_group("wheel-check")  # one worker, as it is installed once
RUN = "import mlc_llm; mlc_llm.main()"
SOUND = """
import undeclared
__version__ = "1.2.3"
def main():
    print("usage")
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Wheel, Path]:
    """A sound wheel, installed beside what it needs without declaring it, and where."""
    folder = tmp_path_factory.mktemp("sound")
    contents = {"mlc_llm/__init__.py": SOUND, "mlc_llm/__main__.py": RUN}
    wheel = read_wheel(make_wheel(folder, contents=contents))
    beside = make_wheel(folder, name="undeclared", contents={"undeclared.py": ""})
    installer = "uv" if shutil.which("uv") else "pip"
    (pinned := folder / "requirements.txt").touch()
    check.install(wheel, folder / "fresh", installer, clean(os.environ), pinned, [str(beside)])
    return wheel, folder / "fresh"


def use(installed: tuple[Wheel, Path], code: str, strict: bool = True) -> None:
    """Use the installed wheel with other code in its module."""
    wheel, environment = installed
    [module] = environment.rglob("mlc_llm/__init__.py")
    module.unlink()  # it may be a link into uv's cache
    module.write_text(code)
    shutil.rmtree(module.parent / "__pycache__", ignore_errors=True)  # of the same second
    check.use(wheel, environment, clean(os.environ), strict)


def test_sound(installed: tuple[Wheel, Path], capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing is said of a sound wheel. Upstream's version in a second place is a warning, and
    so is that it has no command.
    """
    check.check_file(installed[0], clean(os.environ))
    use(installed, SOUND)
    assert "warning" not in capsys.readouterr().err
    script = check.program(installed[1], "mlc_llm")
    script = script.rename(f"{script}.away")
    use(installed, SOUND.replace("1.2.3", "7"), strict=False)
    warned = capsys.readouterr().err
    assert "mlc_llm.__version__ is 7, not 1.2.3" in warned
    assert "installs no command mlc_llm; python -m mlc_llm is used" in warned
    script.rename(script.with_suffix(""))


@pytest.mark.parametrize(
    ("code", "sentence"),
    [
        ("import no_such_module", "cannot be imported"),
        (SOUND.replace("1.2.3", "7"), "__version__ is 7, not 1.2.3"),
        (SOUND.replace("__version__ =", "version ="), "__version__ is missing"),
        (SOUND.replace("print", "raise SystemExit"), "does not end with 0"),
    ],
)
def test_faulty_code(installed: tuple[Wheel, Path], code: str, sentence: str) -> None:
    """Each fault is one sentence with a remedy."""
    with pytest.raises(PipelineError, match=sentence) as caught:
        use(installed, code)
    assert caught.value.remedy


def test_contents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a repair adds, and what upstream packs twice, pass by name; any other finding of
    the same codes does not, unless the project's own settings say so, which hold besides.
    """
    monkeypatch.chdir(tmp_path)
    env, settings = clean(os.environ), tmp_path / "pyproject.toml"
    upstream = {
        "mlc_llm/__init__.py": "", "mlc_llm/libmlc_llm.so": "1", "mlc_llm/lib/libmlc_llm.so": "1",
        "mlc_llm/LICENSE": "2", "mlc_llm-1.2.3.dist-info/licenses/LICENSE": "2",
        "mlc_llm.libs/libgomp-1234.so.1.0.0": "3",
    }  # fmt: skip
    check.check_file(read_wheel(make_wheel(tmp_path, contents=upstream)), env)
    for strange, code in (
        ({"mlc_llm/lib/engine.so": "1"}, "W002"),
        ({"stray/x.py": "4"}, "W009"),
        ({"mlc_llm/build.pyc": "5"}, "W001"),
    ):
        wheel = read_wheel(make_wheel(tmp_path, contents=upstream | strange))
        settings.write_text("")
        with pytest.raises(PipelineError, match="finds fault") as caught:
            check.check_file(wheel, env)
        assert [line for line in caught.value.detail.splitlines() if line.startswith(code)]
        assert len(caught.value.detail.split("W0")) == 2
        settings.write_text(f"[tool.check-wheel-contents]\nignore = ['{code}']\n")
        check.check_file(wheel, env)
    settings.write_text("[tool.check-wheel-contents]\nignore = 'W9x'\n")
    with pytest.raises(PipelineError, match="cannot check mlc_llm-1.2.3") as caught:
        check.check_file(wheel, env)
    assert "W9x" in caught.value.detail


def test_test_requirements_are_not_options() -> None:
    """WHEEL_TEST_REQUIRES cannot smuggle options to the installer."""
    for value in ("--index-url=x", "numpy --pre", "./local", "a; b"):
        with pytest.raises(UsageError, match="WHEEL_TEST_REQUIRES"):
            load({"WHEEL_TEST_REQUIRES": value})
    good = load({"WHEEL_TEST_REQUIRES": "numpy>=2,mlc-ai-nightly-cpu a[b]==1.0"})
    assert good.wheel_test_requires == ("numpy>=2", "mlc-ai-nightly-cpu", "a[b]==1.0")
