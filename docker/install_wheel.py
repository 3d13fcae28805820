#!/usr/bin/env python3
"""install-wheel WHEELS PACKAGE VENV: install mlc_llm, and what it requires, into VENV.

The folder WHEELS holds wheels, beside each the requirements.txt that it was tested with, and
perhaps left-out.txt (names of packages that are not to be there) and links/ (packages that
no index has). Where there is no wheel, the stand-in PACKAGE is built.
"""

import re
import shutil
import subprocess
import sys
from pathlib import Path


def pip(*arguments: str, check: bool = True) -> str:
    """Run pip, its output shown and returned; a failure ends us, pip has said why."""
    command = [sys.executable, "-m", "pip", *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    print(done.stdout, end="", flush=True)
    if done.returncode and check:
        sys.exit(done.returncode)
    return done.stdout


def choose(wheels: Path, chosen: Path) -> list[str]:
    """Put the wheel of this platform into ``chosen``; the options that install the rest."""
    found = {path.name: path for path in wheels.rglob("mlc_llm*.whl")}
    project = min(found).split("-")[0]
    # Only from the folder: a name that the public index has too must not be taken there.
    links = [f"--find-links={folder}" for folder in {path.parent for path in found.values()}]
    pip("download", "--no-index", "--no-deps", "--pre", "--quiet", *links,
        f"--dest={chosen}", project)  # fmt: skip
    [wheel] = chosen.iterdir()
    requirements = found[wheel.name].with_name("requirements.txt")
    if not requirements.exists():
        sys.exit(
            f"error: requirements.txt is missing beside {wheel.name}; nox -s wheels writes it"
        )
    if not re.search("^[^#\n]", requirements.read_text(encoding="utf-8"), re.MULTILINE):
        return []
    return ["--require-hashes", f"--requirement={requirements}", f"--find-links={wheels}/links"]


def conflicts(output: str, left_out: set[str]) -> tuple[list[str], list[str]]:
    """The lines of ``pip check``: those on packages that were left out, and all others."""
    missing = re.compile(r" requires ([\w.-]+), which is not installed\.$")
    parts: tuple[list[str], list[str]] = ([], [])
    for line in output.splitlines():
        match = missing.search(line)
        name = re.sub(r"[-_.]+", "-", match[1]).lower() if match else ""
        parts[name not in left_out].append(line)
    return parts


def main(wheels: Path, package: Path, venv: Path) -> None:
    """Choose, install, check, compile."""
    into = [f"--python={venv}"]
    install = [*into, "install", "--cache-dir=/var/cache/pip", "--no-compile", "--no-deps"]
    left_out = wheels / "left-out.txt"
    names = set(left_out.read_text(encoding="utf-8").split()) if left_out.exists() else set()
    chosen = Path("/tmp/chosen")  # nosec B108: pip records it, so it has the same name always
    chosen.mkdir()
    if any(wheels.rglob("mlc_llm*.whl")):
        if requirements := choose(wheels, chosen):
            pip(*install, *requirements)
    else:
        print("no built wheel was handed in: building the stand-in package")
        pip("wheel", "--cache-dir=/var/cache/pip", "--no-deps", f"--wheel-dir={chosen}",
            str(package))  # fmt: skip
    pip(*install, *map(str, chosen.iterdir()))
    shutil.rmtree(chosen)
    expected, others = conflicts(pip(*into, "check", check=False), names)
    if expected:
        print(f"{len(expected)} of these are meant: IMAGE_WITHOUT is {' '.join(sorted(names))}")
    others = [line for line in others if line != "No broken requirements found."]
    if others:
        sys.exit("error: the packages do not fit together: " + " ".join(others))
    # Compiled here, with hashes in place of times: the file system is read-only later, and
    # the same wheel gives the same files.
    python = str(venv / "bin/python")
    compiled = ["-m", "compileall", "-q", "--invalidation-mode=unchecked-hash"]
    subprocess.run([python, *compiled, str(venv / "lib")], check=False)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:4]))
