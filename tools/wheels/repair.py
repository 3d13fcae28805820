"""Repairing built wheels, the same way on every platform, and holding them to a glibc.

auditwheel (Linux), delocate (macOS) and delvewheel (Windows) put the libraries that a wheel
needs into it. Only auditwheel's failures and results can be seen on Linux; the other two
are run by the same code, with the command lines that their documentation gives.
"""

import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from tools.core import console, process
from tools.core.errors import PipelineError
from tools.core.failures import Failure, explain
from tools.wheels.archive import Wheel

TOOLS = {"linux": "auditwheel", "darwin": "delocate", "win32": "delvewheel"}
# PEP 600: what the older names stand for.
_LEGACY = {"manylinux1": "2.5", "manylinux2010": "2.12", "manylinux2014": "2.17"}
FAILURES = (
    Failure(
        r'required library "(?P<library>[^"]+)" could not be located'
        r"|Unable to find library: (?P<dll>\S+)|(?P<dylib>\S+) not found:\s+Needed by",
        "{tool} does not find {library}{dll}{dylib}.",
        "Install it where the loader looks, or leave it to the user: name it in WHEEL_EXCLUDE.",
    ),
)


def command(out: Path, exclude: Iterable[str], platform: str = sys.platform) -> list[str]:
    """The program that repairs wheels of ``platform`` and its arguments, but for the wheel;
    names in ``exclude`` may hold ``*``.

    Source: each tool's ``--help``. delocate takes a part of a name, and asks that also what
    is left out be found unless it is told that something may be missing.
    """
    names = list(exclude)
    if platform == "darwin":
        parts = [f"--exclude={name.partition('*')[0]}" for name in names]
        allowed = ["--ignore-missing-dependencies"] if names else []
        return ["delocate.cmd.delocate_wheel", f"--wheel-dir={out}", *parts, *allowed]
    program = TOOLS[platform]
    return [program, "repair", f"--wheel-dir={out}", *(f"--exclude={n}" for n in names)]


def repair(
    wheel: Wheel,
    work: Path,
    env: Mapping[str, str],
    exclude: Iterable[str],
    run: Sequence[str] = (sys.executable, "-m"),
    platform: str = sys.platform,
) -> Path:
    """Put the libraries that a compiled wheel needs into it, but for ``exclude`` (file names),
    and give it the tag that it fits; a pure wheel is returned as it is. ``run`` stands before
    the program: Python's ``-m`` here, or what runs it in a container.

    Source: PEP 600; auditwheel, "Limitations".
    """
    if wheel.pure or platform not in TOOLS:
        console.say("nothing to repair")
        return wheel.path
    out, tool = work / "repaired", TOOLS[platform]
    # Not shown as it comes: failures are tracebacks, with the reason last.
    out.mkdir(parents=True)
    words = [*run, *command(out, exclude, platform), str(wheel.path)]
    done = process.run(words, env=env, check=False)
    repaired = next(out.glob("*.whl"), None)
    if done.code or repaired is None:
        unknown = PipelineError(
            f"{tool} cannot repair {wheel.name}.",
            "It must hold a library, and fit a policy of the system that it was built on.",
        )
        error = explain(done.output, FAILURES, unknown, tool=tool)
        raise PipelineError(error.message, error.remedy, done.tail(1))
    return repaired


def glibc(wheel: Wheel) -> str:
    """The least glibc that a wheel's tags ask for (``2.28``); empty without a manylinux tag."""
    found = []
    for tag in wheel.tags:
        if match := re.search(r"-manylinux_(\d+)_(\d+)_", tag):
            found.append(f"{match[1]}.{match[2]}")
        found += [old for name, old in _LEGACY.items() if f"-{name}_" in tag]
    return min(found, key=_numbers, default="")


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", version)))


def check_promise(wheel: Wheel, manylinux: str, production_glibc: str) -> None:
    """Refuse a wheel that asks for a newer glibc than promised (``manylinux_2_28``; empty for
    no promise), or than the production image has (``2.36``): pip would not install it there.
    """
    needs = glibc(wheel)
    promised = _LEGACY.get(manylinux) or ".".join(map(str, _numbers(manylinux)))
    if promised and _numbers(needs) > _numbers(promised):
        raise PipelineError(
            f"{wheel.name} needs glibc {needs}, newer than the {promised} that is promised "
            f"({manylinux}).",
            f"Build it in an image with glibc {promised} (WHEEL_IMAGE), or promise what it "
            f"is: MANYLINUX=manylinux_{needs.replace('.', '_')}.",
        )
    if _numbers(needs) > _numbers(production_glibc):
        raise PipelineError(
            f"{wheel.name} needs glibc {needs}, but the production image has "
            f"{production_glibc}: it could not be installed there.",
            "Build it in a container (WHEEL_CONTAINER=auto, a Docker engine), whose glibc is "
            "not newer; for another base image set PRODUCTION_GLIBC.",
        )
