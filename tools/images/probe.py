"""What is looked at inside a container: this file's own text runs there.

Standard library only, and any Python 3.9: ``python -c <this file> PROBE [names]`` prints
one line of JSON. On our side the same file holds what is expected.
"""

from __future__ import annotations

import importlib
import json
import os
import re
import shutil
import subprocess
import sys

# Python packages that each image is for.
MODULES = {
    "development": (
        "auditwheel",
        "build",
        "pytest",
        "scikit_build_core",
        "setuptools",
        "twine",
    ),
    "production": ("mlc_llm",),
}
# Minimum versions of the development image's tools; those of Python and CMake are settings.
# Rust: what MLC-LLM's tokenizers compile with; the others: what Debian 12 has, rounded down.
MINIMUMS = {
    "git": "2.30",
    "git-lfs": "3.0",
    "ninja": "1.10",
    "cargo": "1.78",
    "rustc": "1.78",
    "ccache": "4.0",
    "g++": "11",
}
# What a production image must not have.
ABSENT = ("gcc", "g++", "cc", "make", "cmake", "cargo", "git")


def numbers(version: str) -> tuple[int, ...]:
    """The first dotted number in a text, as numbers: ``cmake version 3.25.1`` -> 3, 25, 1."""
    match = re.search(r"\d+(?:\.\d+)*", version)
    return tuple(int(part) for part in match.group().split(".")) if match else ()


def import_modules(names: list[str]) -> dict[str, object]:
    """Python's version, what does not import, and packages that do not fit together."""
    problems = {}
    for name in names:
        try:
            importlib.import_module(name)
            problems[name] = ""
        except Exception as error:
            problems[name] = f"{type(error).__name__}: {error}"
    version = ".".join(map(str, sys.version_info[:3]))
    return {"python": version, "modules": problems, "conflicts": conflicts()}


def conflicts() -> list[str]:
    """What ``pip check`` finds; nothing where there is no pip (it ran at the build)."""
    command = [sys.executable, "-m", "pip", "check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == 0 or "No module named pip" in done.stderr:
        return []
    return done.stdout.strip().splitlines() or [done.stderr.strip()]


def tool_versions(names: list[str]) -> dict[str, str]:
    """The version that each tool tells; empty where it is missing or does not run."""
    found = {}
    for name in names:
        found[name] = ""
        if shutil.which(name):
            done = subprocess.run(
                [name, "--version"], capture_output=True, text=True, check=False
            )
            if done.returncode == 0:
                found[name] = ".".join(map(str, numbers(done.stdout)))
    return found


def present(names: list[str]) -> dict[str, object]:
    """Where each program is that should be absent, and the user that we run as."""
    places = {name: shutil.which(name) or "" for name in names}
    found: dict[str, object] = {"present": {k: v for k, v in places.items() if v}}
    if sys.platform != "win32":
        found["uid"] = os.getuid()
    return found


if __name__ == "__main__":
    probes = {"import": import_modules, "tools": tool_versions, "absent": present}
    print(json.dumps(probes[sys.argv[1]](sys.argv[2:])))
