"""Checking a wheel: metadata, contents, and what a user does first: install and run it."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from check_wheel_contents.checker import WheelChecker
from check_wheel_contents.checks import Check, FailedCheck
from check_wheel_contents.contents import WheelContents
from check_wheel_contents.errors import UserInputError, WheelValidationError

from tools.core import console, process
from tools.core.errors import PipelineError
from tools.wheels import requirements
from tools.wheels.archive import Wheel, same_version

MODULE = "mlc_llm"
# What upstream packs twice, and one may (check-wheel-contents' W002).
KNOWN_DUPLICATES = {"LICENSE", "NOTICE"} | {
    library.format(module)
    for module in ("mlc_llm", "mlc_llm_module")
    for library in ("lib{}.so", "lib{}.dylib", "{}.dll")
}
_PROBE = f"import {MODULE}; print(); print(getattr({MODULE}, '__version__', ''))"


def _checked(command: Sequence[str], env: Mapping[str, str], message: str, remedy: str) -> str:
    """What a program that must succeed prints; ``message`` is the sentence if it does not."""
    done = process.run(command, env=env, check=False)
    if done.code:
        raise PipelineError(message, remedy, done.tail(30))
    return done.stdout


def check_file(wheel: Wheel, env: Mapping[str, str]) -> None:
    """``twine check --strict`` and ``check-wheel-contents``; what they find is the detail."""
    env = dict(env, NO_COLOR="1")
    _checked(
        [sys.executable, "-m", "twine", "check", "--strict", str(wheel.path)],
        env,
        f"twine finds fault with the metadata of {wheel.name}.",
        "Correct the [project] table: readme and description must render.",
    )
    checker = WheelChecker()
    try:
        checker.configure_options(configpath=None)  # the pyproject.toml of our checkout
        contents = WheelContents.from_wheel(wheel.path)
    except (UserInputError, WheelValidationError) as error:
        raise PipelineError(
            f"check-wheel-contents cannot check {wheel.name}.",
            "See [tool.check-wheel-contents] in pyproject.toml.",
            str(error),
        ) from error
    if faults := list(filter(_is_fault, checker.check_contents(contents))):
        raise PipelineError(
            f"check-wheel-contents finds fault with {wheel.name}.",
            "Correct what the build packs, or ignore a code in [tool.check-wheel-contents].",
            "\n".join(fault.show() for fault in faults),
        )


def _is_fault(failed: FailedCheck) -> bool:
    """Whether a finding stays one without what repair adds (a folder of libraries at the top,
    without modules), and without upstream's duplicates.
    """
    paths = [PurePosixPath(path) for path in failed.args]
    strange = [path for path in paths if path.suffix != ".libs"]
    if failed.check is Check.W002:
        return not KNOWN_DUPLICATES.issuperset(path.name for path in paths)
    if failed.check is Check.W009:
        return len(strange) > 1
    return failed.check is not Check.W010 or bool(strange)


def program(venv: Path, name: str) -> Path:
    """A program of a virtual environment."""
    windows = sys.platform == "win32"
    return venv / f"Scripts/{name}.exe" if windows else venv / "bin" / name


def site_packages(venv: Path) -> Path:
    """Where a virtual environment has its packages."""
    return next(iter(venv.glob("lib/python*/site-packages")), venv / "Lib" / "site-packages")


def install(
    wheel: Wheel,
    venv: Path,
    installer: str,
    env: Mapping[str, str],
    pinned: Path,
    beside: Sequence[str] = (),
) -> None:
    """Install into a fresh virtual environment, with ``uv`` or ``pip``: what a wheel requires,
    as ``pinned`` with hashes, the wheel itself, and what it needs ``beside`` without declaring
    it.
    """
    python = str(program(venv, "python"))
    if installer == "uv":
        env = requirements.uv_environment(env)
        uv = [sys.executable, "-m", "uv"]
        create = [*uv, "venv", "-q", "--python", sys.executable]
        command = [*uv, "pip", "install", "--python", python]
    else:
        create = [sys.executable, "-m", "venv"]
        command = [python, "-m", "pip", "install"]
    process.run([*create, str(venv)], env=env)
    parts = [["--no-deps", str(wheel.path)], list(beside)]
    if pinned.read_text(encoding="utf-8").strip():
        parts.insert(0, ["--require-hashes", f"--requirement={pinned}"])
    for arguments in filter(None, parts):
        if process.stream([*command, *arguments], env=env, check=False).code:
            raise PipelineError(
                f"{wheel.name} cannot be installed into a fresh environment.",
                "See above which dependency is at fault; UV_FIND_LINKS or PIP_FIND_LINKS add "
                "places.",
            )


def use(wheel: Wheel, venv: Path, env: Mapping[str, str], strict: bool) -> None:
    """Import the installed package, and run it as a module and as a command, where it has one:
    upstream has none, which is a warning.

    Another version in it fails if ``strict`` (as the stand-in must), else it is a warning:
    upstream's sources hold another one.
    """
    python, script = program(venv, "python"), program(venv, MODULE)
    printed = _checked(
        [str(python), "-I", "-c", _PROBE],
        env,
        f"The module {MODULE} of {wheel.name} cannot be imported.",
        "See above what is missing; what a wheel needs without declaring it (as MLC LLM needs "
        "TVM) goes into WHEEL_REQUIRES, or is the companion of a flavour.",
    )
    commands = {f"python -m {MODULE}": [str(python), "-m", MODULE], MODULE: [str(script)]}
    if not script.exists():
        del commands[MODULE]
        console.warn(f"{wheel.name} installs no command {MODULE}; python -m {MODULE} is used.")
    for name, command in commands.items():
        message = f"{name} --help of {wheel.name} does not end with 0."
        _checked([*command, "--help"], env, message, "See the lines above.")
    said = printed.splitlines()[-1]
    if not same_version(said, wheel.version):
        message = f"{MODULE}.__version__ is {said or 'missing'}, not {wheel.version}."
        remedy = "The source has its version in a second place: take it from the metadata."
        if strict:
            raise PipelineError(message, remedy)
        console.warn(f"{message} {remedy}")
