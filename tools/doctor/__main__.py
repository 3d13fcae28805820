"""The session ``doctor``: what is wrong, found before it costs a run.

Checks call the same functions as the sessions, so that a problem has the same sentence
and the same remedy in both places.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections import Counter
from collections.abc import Sequence

from tools.core import cli, console
from tools.core.errors import UsageError
from tools.core.settings import ROOT
from tools.doctor import docker as doctor_docker
from tools.doctor import github as doctor_github
from tools.doctor import machine as doctor_machine
from tools.doctor import registry as doctor_registry
from tools.doctor import workflow as doctor_workflow
from tools.doctor.base import Check, Result, Status, Subject, examine, select

# Those that others need come first.
CHECKS: tuple[Check, ...] = tuple(
    sorted(
        (
            *doctor_machine.CHECKS,
            *doctor_docker.CHECKS,
            *doctor_registry.CHECKS,
            *doctor_github.CHECKS,
            *doctor_workflow.CHECKS,
        ),
        key=lambda check: check.name not in {"git", "settings"},
    )
)
STYLES = {Status.PROBLEM: "bold red", Status.WARNING: "yellow"}


def known_sessions() -> list[str]:
    """Names of the sessions in the noxfile."""
    text = (ROOT / "noxfile.py").read_text(encoding="utf-8")
    return re.findall(r"^@nox\.session\((?:.|\n)*?^def (\w+)\(", text, re.MULTILINE)


def check_sessions(wanted: Sequence[str]) -> list[str]:
    """Sessions that ``--for`` names, parameters dropped (UsageError for an unknown one)."""
    known = [name for name in known_sessions() if name not in {"doctor", "lock"}]
    names = [name.partition("(")[0] for name in wanted]
    for name in names:
        if name not in known:
            raise UsageError(f"There is no session {name}.", f"Use one of: {', '.join(known)}.")
    return names


def report(results: Sequence[Result]) -> None:
    """Print the table, then each problem and warning with its remedy."""
    rows = [(r.name, r.status, r.sentence) for r in results]
    console.table(("check", "result", "what was found"), rows)
    levels = {Status.PROBLEM: "error", Status.WARNING: "warning"}
    for result in results:
        if result.status not in levels:
            continue
        console.say()
        level = levels[result.status]
        console.say(f"{result.status}: {result.name}: {result.sentence}", STYLES[result.status])
        if result.remedy:
            console.say(f"  what to do: {result.remedy}")
        for line in result.detail.splitlines():
            console.say(f"  | {line}")
        text = f"{result.sentence} {result.remedy}".strip()
        console.annotate(level, text, title=f"doctor: {result.name}")
    count = Counter(result.status for result in results)
    console.say()
    console.say(", ".join(f"{count[status]} {status}" for status in Status if count[status]))


def work(given: argparse.Namespace) -> int:
    """Examine and report; 1 if there is a problem."""
    sessions = check_sessions(given.sessions)
    subject = Subject(ROOT, os.environ, sessions)
    results = examine(select(CHECKS, sessions), subject)
    report(results)
    found = sum(result.status is Status.PROBLEM for result in results)
    if given.json:
        checks = [result.to_json() for result in results]
        console.emit_json({"problems": found, "checks": checks})
    return int(found > 0)


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line of the session."""
    made = cli.parser("doctor", "Find out what is wrong before it costs a run.")
    made.add_argument(
        "--for",
        dest="sessions",
        action="append",
        default=[],
        metavar="SESSION",
        help="check only what this session needs (repeatable)",
    )
    made.add_argument("--json", action="store_true", help="results as JSON on stdout")
    return cli.main(made, argparse.Namespace, work, arguments)


if __name__ == "__main__":
    sys.exit(main())
