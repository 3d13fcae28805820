"""The command of the session ``doctor``."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from tools.core import cli, console
from tools.core.errors import PipelineError, UsageError
from tools.core.settings import ROOT
from tools.doctor import docker, github, machine, registry
from tools.doctor.base import PROBLEM, WARNING, Check, DoctorCheck, Subject, examine

# The first that ends with an error that several share is the one that has the problem.
CHECKS: tuple[Check, ...] = (
    *machine.CHECKS, *docker.CHECKS, *registry.CHECKS, *github.CHECKS,
)  # fmt: skip


@dataclass(frozen=True)
class Options:
    """What the command line asks for."""

    sessions: tuple[str, ...] = cli.option(
        (), "check only what this session needs; repeatable", "--for", metavar="SESSION"
    )
    json: bool = cli.option(False, "results as JSON on stdout")


def select(asked: Sequence[str]) -> tuple[list[str], list[Check]]:
    """The sessions that ``--for`` names, parameters dropped, and the checks that they need.

    Raises:
        UsageError: The noxfile has no such session.
    """
    text = (ROOT / "noxfile.py").read_text(encoding="utf-8")
    known = re.findall(r"^@nox\.session\((?:.|\n)*?^def (\w+)\(", text, re.MULTILINE)
    names = [name.partition("(")[0] for name in asked]
    for name in names:
        if name not in known:
            raise UsageError(f"There is no session {name}.", f"Use one of: {', '.join(known)}.")
    needed = [c for c in CHECKS if not (names and c.sessions) or c.sessions & set(names)]
    return names, needed


def report(results: Sequence[DoctorCheck]) -> None:
    """Print the table, then each warning and problem with what to do."""
    console.table(("check", "result", ""), [(r.name, r.status, r.sentence) for r in results])
    for result in results:
        sentence = f"{result.name}: {result.sentence}"
        if result.status == WARNING:
            console.warn(f"{sentence} {result.remedy}")
        elif result.status == PROBLEM:
            console.fail(PipelineError(sentence, result.remedy, result.detail))


def work(options: Options) -> int:
    """Examine and report; 1 if there is a problem."""
    sessions, checks = select(options.sessions)
    results = examine(checks, Subject(ROOT, os.environ, sessions))
    report(results)
    problems = sum(result.status == PROBLEM for result in results)
    if options.json:
        console.emit_json({"problems": problems, "checks": results})
    return int(problems > 0)


main = cli.command("doctor", "Find out what is wrong before it costs a run.", Options, work)


if __name__ == "__main__":
    sys.exit(main())
