"""The command of the session ``doctor``."""

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from tools.core import cli, console
from tools.core.errors import PipelineError
from tools.core.settings import ROOT, load
from tools.doctor import docker, github, machine, registry
from tools.doctor.base import PROBLEM, WARNING, Check, Subject, examine

# The first that ends with an error that several share is the one that has the problem.
CHECKS: tuple[Check, ...] = (
    *machine.CHECKS, *docker.CHECKS, *registry.CHECKS, *github.CHECKS,
)  # fmt: skip
SESSIONS = sorted({session for check in CHECKS for session in check.sessions})


@dataclass(frozen=True)
class Options:
    """What the command line asks for."""

    sessions: tuple[str, ...] = cli.option(
        (), "check only what this session needs; repeatable", "--for", choices=SESSIONS
    )
    json: bool = cli.option(False, "results as JSON on stdout")


def needed(sessions: Sequence[str]) -> list[Check]:
    """The checks that these sessions need; all of them for none."""
    return [check for check in CHECKS if not sessions or check.sessions & set(sessions)]


def work(options: Options) -> int:
    """Examine, print the table, then each warning and problem with what to do."""
    subject = Subject(ROOT, os.environ, load(), frozenset(options.sessions))
    results = examine(needed(options.sessions), subject)
    console.table(("check", "result", ""), [(r.name, r.status, r.sentence) for r in results])
    for result in results:
        sentence = f"{result.name}: {result.sentence}"
        if result.status == WARNING:
            console.warn(f"{sentence} {result.remedy}")
        elif result.status == PROBLEM:
            console.fail(PipelineError(sentence, result.remedy, result.detail))
    problems = sum(result.status == PROBLEM for result in results)
    if options.json:
        console.emit_json({"problems": problems, "checks": results})
    return int(problems > 0)


main = cli.command("doctor", "Find out what is wrong before it costs a run.", Options, work)


if __name__ == "__main__":
    sys.exit(main())
