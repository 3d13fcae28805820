#!/usr/bin/env python3
"""Entry point of the images: one subcommand each for what a user wants of them.

Standard library only, and any Python 3: it runs in every image. The subcommand replaces
this process (``exec``), so that signals, which tini forwards, reach it directly.
"""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence

IMAGE = os.environ.get("MLC_IMAGE", "development")
USAGE_ERROR = 2


def fail(message: str, code: int = USAGE_ERROR) -> int:
    """Say what is wrong on stderr; the exit code."""
    print(f"error: {message}", file=sys.stderr)
    return code


def replace_by(program: str, arguments: Sequence[str], hint: str = "") -> int:
    """Become ``program``; returns only if that is impossible."""
    found = shutil.which(program)
    if found is None:
        return fail(
            f"{program} is not in this image ({IMAGE}).{' ' + hint if hint else ''}", 127
        )
    sys.stdout.flush()
    os.execv(found, [program, *arguments])


def show_help(_arguments: Sequence[str]) -> int:
    """List the subcommands."""
    print(f"MLC-LLM, {IMAGE} image\n\nusage: docker run [options] IMAGE COMMAND [arguments]\n")
    print("commands:")
    for name, (_, about) in commands().items():
        print(f"  {name:<12} {about}")
    return 0


def show_version(_arguments: Sequence[str]) -> int:
    """Versions of mlc_llm and of Python."""
    try:
        version = importlib.metadata.version("mlc_llm")
    except importlib.metadata.PackageNotFoundError:
        version = "not installed"
    print(f"mlc_llm {version}\nPython {sys.version.split()[0]}\nimage {IMAGE}")
    return 0


def python(arguments: Sequence[str]) -> int:
    """Become Python."""
    return replace_by("python3", arguments)


def shell(arguments: Sequence[str]) -> int:
    """Become a shell: bash where there is one."""
    return replace_by("bash" if shutil.which("bash") else "sh", arguments)


def mlc_llm(arguments: Sequence[str]) -> int:
    """Become mlc_llm."""
    return replace_by(
        "mlc_llm", arguments, "Build it with the command build, then pip install the wheel."
    )


def build(arguments: Sequence[str]) -> int:
    """Become the wheel session of the pipeline's checkout in the working folder."""
    if not os.path.exists("tools/wheels/__main__.py"):
        return fail(
            f"{os.getcwd()} is not a checkout of the pipeline. Mount one, and the sources:\n"
            "docker run -v $PWD:/workspace -v SOURCES:/sources -e MLC_LLM_SOURCE=/sources "
            "IMAGE build"
        )
    return replace_by("python3", ["-m", "tools.wheels", *arguments])


def healthcheck(_arguments: Sequence[str]) -> int:
    """Healthy: mlc_llm imports; with MLC_HEALTHCHECK_URL set, that address answers too."""
    try:
        __import__("mlc_llm")
    except ImportError as error:
        return fail(f"mlc_llm cannot be imported: {error}", 1)
    address = os.environ.get("MLC_HEALTHCHECK_URL", "")
    if not address:
        return 0
    try:
        with urllib.request.urlopen(address, timeout=8):  # nosec B310
            return 0
    except (urllib.error.URLError, OSError, ValueError) as error:
        return fail(f"{address} does not answer: {error}", 1)


def commands() -> dict[str, tuple[Callable[[Sequence[str]], int], str]]:
    """Subcommands of this image: what runs them and one line about each."""
    found: dict[str, tuple[Callable[[Sequence[str]], int], str]] = {
        "help": (show_help, "show this list"),
        "version": (show_version, "show the versions of mlc_llm, Python and the image"),
        "python": (python, "run Python with the arguments that follow"),
        "shell": (shell, "run a shell with the arguments that follow"),
        "mlc_llm": (mlc_llm, "run mlc_llm with the arguments that follow"),
    }
    if IMAGE == "development":
        found["build"] = (build, "what nox -s wheels does, in the checkout at /workspace")
    if IMAGE == "production":
        found["healthcheck"] = (healthcheck, "exit with 0 if mlc_llm works")
    return found


def main(arguments: Sequence[str]) -> int:
    """Run the subcommand that the first argument names."""
    name = arguments[0] if arguments else "help"
    name = {"--help": "help", "-h": "help", "--version": "version"}.get(name, name)
    if os.path.isabs(name):  # as whoever starts a container for work of its own does
        return replace_by(name, arguments[1:])
    known = commands()
    if name not in known:
        return fail(f"unknown command {name!r}; use one of: {', '.join(known)}.")
    return known[name][0](arguments[1:])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
