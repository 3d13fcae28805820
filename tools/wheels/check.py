"""Checking a wheel: metadata, contents, and what a user does first: install and run it."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from packaging.version import InvalidVersion, Version

from tools.core import console, process
from tools.core.errors import PipelineError
from tools.wheels.archive import Wheel, members

MODULE = "mlc_llm"

_PROBE = """
import importlib, importlib.metadata, json, sys
module = importlib.import_module(sys.argv[1])
print(json.dumps({
    "installed": importlib.metadata.version(sys.argv[2]),
    "file": str(module.__file__),
    "attribute": getattr(module, "__version__", None),
}))
"""


def _checked(
    command: list[str], env: Mapping[str, str], message: str, remedy: str, show: bool = False
) -> str:
    """Output of a program that must succeed; ``message`` is the sentence if it does not.

    With ``show`` its lines appear as they come, for what may take long.
    """
    if show:
        done = process.stream(command, env=env, check=False)
    else:
        done = process.run(command, env=env, check=False)
    if done.code:
        tail = "" if show else "\n".join(done.output.splitlines()[-30:])
        raise PipelineError(message, remedy, tail)
    return done.stdout


def check_file(wheel: Wheel, env: Mapping[str, str]) -> None:
    """``twine check --strict`` and ``check-wheel-contents``.

    Raises:
        PipelineError: One of them finds fault; its findings are the detail.
    """
    python = [sys.executable, "-m"]
    env = dict(env, NO_COLOR="1")
    _checked(
        [*python, "twine", "check", "--strict", str(wheel.path)],
        env,
        f"twine finds fault with the metadata of {wheel.name}.",
        "Correct the [project] table: readme and description must render.",
    )
    # The folder of libraries that auditwheel adds is a second one at the top (W009),
    # and has no modules (W010).
    grafted = any(name.split("/")[0].endswith(".libs") for name in members(wheel.path))
    ignored = ["--ignore", "W009,W010"] if grafted else []
    _checked(
        [*python, "check_wheel_contents", *ignored, str(wheel.path)],
        env,
        f"check-wheel-contents finds fault with {wheel.name}.",
        "Correct what the build packs, or ignore a code in [tool.check-wheel-contents].",
    )


def scripts(environment: Path) -> Path:
    """Folder of the programs of a virtual environment."""
    return environment / ("Scripts" if sys.platform == "win32" else "bin")


def _clean(env: Mapping[str, str]) -> dict[str, str]:
    """``env`` without what would lead another Python into our environment."""
    ours = {"PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV"}
    return {key: value for key, value in env.items() if key not in ours}


def python_of(environment: Path) -> str:
    """The Python of a virtual environment."""
    return str(scripts(environment) / ("python.exe" if sys.platform == "win32" else "python"))


def install(
    wheel: Wheel,
    environment: Path,
    installer: str,
    env: Mapping[str, str],
    beside: Sequence[str],
) -> None:
    """Install a wheel with its dependencies into a fresh environment.

    Args:
        wheel: The wheel.
        environment: The folder to make the environment in.
        installer: ``uv`` or ``pip``.
        env: The environment variables, without secrets.
        beside: Requirements that are installed with it, which it does not declare.

    Raises:
        PipelineError: It cannot be installed, or its dependencies do not fit together.
    """
    env = _clean(env)
    python = python_of(environment)
    if installer == "uv":
        process.run(["uv", "venv", "-q", "--python", sys.executable, str(environment)], env=env)
        front, tail = ["uv", "pip"], ["--python", python]
    else:
        process.run([sys.executable, "-m", "venv", str(environment)], env=env)
        front, tail = [python, "-m", "pip"], []
    _checked(
        [*front, "install", *tail, str(wheel.path), *beside],
        env,
        f"{wheel.name} cannot be installed into a fresh environment.",
        "See above which dependency is at fault; UV_FIND_LINKS or PIP_FIND_LINKS add places.",
        show=True,
    )
    _checked(
        [*front, "check", *tail],
        env,
        f"The dependencies of {wheel.name} do not fit together.",
        "Correct its dependencies.",
    )


def use_test(wheel: Wheel, environment: Path, env: Mapping[str, str], strict: bool) -> None:
    """Import the installed package, compare versions, and run its command.

    Args:
        wheel: The wheel that is installed.
        environment: The folder of the environment.
        env: The environment variables, without secrets.
        strict: Whether the package must tell its version itself (the stand-in does;
            upstream's sources hold another one, and get a warning).

    Raises:
        PipelineError: A step failed, or a version is another one.
    """
    env = _clean(env)
    probed = _checked(
        [python_of(environment), "-I", "-c", _PROBE, MODULE, wheel.project],
        env,
        f"The module {MODULE} of {wheel.name} cannot be imported.",
        "See above what is missing; what a wheel needs without declaring it (as MLC LLM needs "
        "TVM) goes into WHEEL_TEST_REQUIRES.",
    )
    found = json.loads(probed.splitlines()[-1])
    _compare(wheel, "the installed distribution", found["installed"])
    _compare_own(wheel, found["attribute"], strict)
    _run_script(wheel, environment, env, strict)


def _same(one: object, other: str) -> bool:
    try:
        return Version(str(one)) == Version(other)
    except InvalidVersion:
        return False


def _compare(wheel: Wheel, what: str, found: object) -> None:
    if not _same(found, wheel.version):
        raise PipelineError(f"{what} says version {found}, but the wheel is {wheel.version}.")


def _compare_own(wheel: Wheel, attribute: str | None, strict: bool) -> None:
    if strict:
        _compare(wheel, f"{MODULE}.__version__", attribute)
    elif attribute is not None and not _same(attribute, wheel.version):
        console.warn(
            f"{MODULE}.__version__ is {attribute}, but the wheel is {wheel.version}: the "
            "source has the version written in a second place."
        )


def _run_script(wheel: Wheel, folder: Path, env: Mapping[str, str], strict: bool) -> None:
    """The console script must show its help; and its version, where it has that option."""
    name = MODULE + (".exe" if sys.platform == "win32" else "")
    script = scripts(folder) / name
    if not script.exists():
        raise PipelineError(
            f"{wheel.name} installs no command {MODULE}.",
            f"Declare it in [project.scripts], as {MODULE} = '{MODULE}.__main__:main'.",
        )
    _checked(
        [str(script), "--help"],
        env,
        f"{MODULE} --help of {wheel.name} does not end with 0.",
        "See the lines above.",
    )
    done = process.run([str(script), "--version"], env=env, check=False)
    if done.code == 0 and wheel.version in done.output.split():
        return
    if strict:
        raise PipelineError(
            f"{MODULE} --version does not say {wheel.version}.", detail=done.output
        )
    console.warn(f"{MODULE} --version of the source does not say the wheel's version")
