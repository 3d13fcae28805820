"""Checking a wheel: metadata, contents, and what a user does first: install and run it."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from tools.core import console, process
from tools.core.errors import PipelineError
from tools.wheels.archive import Wheel, members, same_version

MODULE = "mlc_llm"
_PROBE = f"import {MODULE}; print(); print(getattr({MODULE}, '__version__', ''))"


def _checked(command: Sequence[str], env: Mapping[str, str], message: str, remedy: str) -> str:
    """What a program that must succeed prints; ``message`` is the sentence if it does not."""
    done = process.run(command, env=env, check=False)
    if done.code:
        raise PipelineError(message, remedy, done.tail(30))
    return done.stdout


def check_file(wheel: Wheel, env: Mapping[str, str]) -> None:
    """``twine check --strict`` and ``check-wheel-contents``.

    Raises:
        PipelineError: One of them finds fault; its findings are the detail.
    """
    env = dict(env, NO_COLOR="1")
    _checked(
        [sys.executable, "-m", "twine", "check", "--strict", str(wheel.path)],
        env,
        f"twine finds fault with the metadata of {wheel.name}.",
        "Correct the [project] table: readme and description must render.",
    )
    # The folder of libraries that auditwheel adds is a second one at the top (W009),
    # and has no modules (W010).
    grafted = any(name.split("/")[0].endswith(".libs") for name in members(wheel.path))
    ignored = ["--ignore", "W009,W010"] if grafted else []
    _checked(
        [sys.executable, "-m", "check_wheel_contents", *ignored, str(wheel.path)],
        env,
        f"check-wheel-contents finds fault with {wheel.name}.",
        "Correct what the build packs, or ignore a code in [tool.check-wheel-contents].",
    )


def program(environment: Path, name: str) -> Path:
    """A program of a virtual environment."""
    if sys.platform == "win32":
        return environment / "Scripts" / f"{name}.exe"
    return environment / "bin" / name


def install(
    wheel: Wheel,
    environment: Path,
    installer: str,
    env: Mapping[str, str],
    beside: Sequence[str],
) -> None:
    """Install a wheel, its dependencies and what it needs ``beside`` without declaring it
    into a fresh virtual environment, with ``uv`` or ``pip``.

    Raises:
        PipelineError: It cannot be installed, or its dependencies do not fit together.
    """
    python = str(program(environment, "python"))
    if installer == "uv":
        create = ["uv", "venv", "-q", "--python", sys.executable, str(environment)]
        front, tail = ["uv", "pip"], ["--python", python]
    else:
        create = [sys.executable, "-m", "venv", str(environment)]
        front, tail = [python, "-m", "pip"], []
    process.run(create, env=env)
    command = [*front, "install", *tail, str(wheel.path), *beside]
    if process.stream(command, env=env, check=False).code:
        raise PipelineError(
            f"{wheel.name} cannot be installed into a fresh environment.",
            "See above which dependency is at fault; UV_FIND_LINKS or PIP_FIND_LINKS add "
            "places.",
        )
    _checked(
        [*front, "check", *tail],
        env,
        f"The dependencies of {wheel.name} do not fit together.",
        "Correct its dependencies.",
    )


def use(wheel: Wheel, environment: Path, env: Mapping[str, str], strict: bool) -> None:
    """Import the installed package, run its command, and compare the versions they say.

    A difference fails if ``strict`` (as the stand-in must), else it is a warning: upstream's
    sources hold another version.

    Raises:
        PipelineError: A step failed, or a version is another one.
    """
    printed = _checked(
        [str(program(environment, "python")), "-I", "-c", _PROBE],
        env,
        f"The module {MODULE} of {wheel.name} cannot be imported.",
        "See above what is missing; what a wheel needs without declaring it (as MLC LLM needs "
        "TVM) goes into WHEEL_TEST_REQUIRES.",
    )
    script = program(environment, MODULE)
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
    shown = process.run([str(script), "--version"], env=env, check=False)
    _compare(wheel, f"{MODULE}.__version__", printed.splitlines()[-1:], strict)
    said = [] if shown.code else shown.output.split()
    _compare(wheel, f"{MODULE} --version", said, strict)


def _compare(wheel: Wheel, what: str, said: Sequence[str], strict: bool) -> None:
    """One of the words that were said must be the wheel's version."""
    if any(same_version(word, wheel.version) for word in said):
        return
    message = f"{what} says {' '.join(said)[-80:] or 'nothing'}, not version {wheel.version}."
    remedy = "The source has the version written in a second place: take it from the metadata."
    if strict:
        raise PipelineError(message, remedy)
    console.warn(f"{message} {remedy}")
