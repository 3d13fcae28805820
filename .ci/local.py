#!/usr/bin/env python3
"""Run sessions on a machine that has Python 3.11 and pip, and nothing else.

    python3 .ci/local.py pipeline            # the main job
    python3 .ci/local.py tests               # the tests
    python3 .ci/local.py release -- v1.0.0 --dry-run

Puts nox (and uv) into an environment of its own under ``.nox/``, starts what of engine,
registry and base image is missing and can be had (see ``services.py``), runs the
sessions, and stops what it started. Where no engine can be had the sessions say what
they could not do; in CI that is a failure.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import venv
from collections.abc import Sequence
from pathlib import Path

import machine
import services

ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENT = ROOT / ".nox" / "bootstrap"
NOX = "nox[uv]==2026.10.20"


def python_of(environment: Path) -> Path:
    """The interpreter of a virtual environment."""
    windows = environment / "Scripts" / "python.exe"
    return windows if os.name == "nt" else environment / "bin" / "python"


def pip(python: Path | str, *arguments: str) -> None:
    """Run pip with an interpreter; its own message if it fails."""
    command = [str(python), "-m", "pip", "--disable-pip-version-check", *arguments]
    machine.run(*command)


def make_environment() -> None:
    """A virtual environment with pip, also where Debian left the means to make one out."""
    try:
        venv.create(ENVIRONMENT, with_pip=True, clear=True)
        return
    except subprocess.CalledProcessError:
        # No ensurepip (python3-venv is a package of its own): virtualenv brings pip along.
        pass
    with tempfile.TemporaryDirectory() as folder:
        pip(sys.executable, "install", "--quiet", "--target", folder, "virtualenv")
        env = {**os.environ, "PYTHONPATH": folder}
        command = [sys.executable, "-m", "virtualenv", "--quiet", "--clear", str(ENVIRONMENT)]
        subprocess.run(command, env=env, check=True)


def have_nox() -> Path:
    """The interpreter of an environment that has nox; made on the first run."""
    stamp = ENVIRONMENT / "installed.txt"
    if not stamp.exists() or stamp.read_text(encoding="utf-8") != NOX:
        machine.say("installing nox into .nox/bootstrap")
        make_environment()
        pip(python_of(ENVIRONMENT), "install", "--quiet", NOX)
        stamp.write_text(NOX, encoding="utf-8")
    return python_of(ENVIRONMENT)


def with_services(user: str, both: bool) -> dict[str, str]:
    """Start what is missing, with ``both`` an engine for each image store; nothing where that
    is impossible, except in CI.
    """
    try:
        return services.start(user, both=both)
    except (machine.ServicesError, OSError, subprocess.SubprocessError) as error:
        if os.environ.get("CI"):
            raise
        machine.say(f"going on without images: {error}")
        return {}


def run(sessions: Sequence[str], rest: Sequence[str]) -> int:
    """Run nox sessions with the services; nox's exit code."""
    if sys.version_info < (3, 11):
        machine.say("Python 3.11 or newer is needed; run this script with it")
        return 2
    python = have_nox()
    user = str(os.getpid())
    command = [str(python), "-m", "nox", "--sessions", *sessions]
    try:
        env = services.environment(with_services(user, both="tests" in sessions))
        env["PATH"] = f"{python.parent}{os.pathsep}{env['PATH']}"
        child = subprocess.Popen(
            [*command, *(["--", *rest] if rest else [])], cwd=ROOT, env=env
        )
        # Ctrl-C reaches nox by itself: it is in the same foreground group.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, lambda number, _frame: child.send_signal(number))
        return child.wait()
    finally:
        if os.name != "nt":
            services.stop(user)


def main() -> int:
    """Command line; see the module's text."""
    parser = argparse.ArgumentParser(
        description="Run nox sessions on a bare machine.", usage="%(prog)s SESSION... [-- ARGS]"
    )
    parser.add_argument("sessions", nargs="+", metavar="SESSION")
    arguments = sys.argv[1:]
    cut = arguments.index("--") if "--" in arguments else len(arguments)
    given = parser.parse_args(arguments[:cut])
    try:
        return run(given.sessions, arguments[cut + 1 :])
    except (machine.ServicesError, OSError, subprocess.SubprocessError) as error:
        machine.say(str(error))
        return 1


if __name__ == "__main__":
    sys.exit(main())
