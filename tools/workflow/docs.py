"""``docs``: the parts of docs/workflow.md that the workflow file itself tells.

They stand between ``<!-- begin NAME -->`` and ``<!-- end NAME -->`` and are written anew
from the file; a test fails when they are not current.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tools.core import cli, console
from tools.core.errors import PipelineError
from tools.core.settings import ROOT, load
from tools.repo.event import Event
from tools.workflow import model as workflow
from tools.workflow import plan
from tools.workflow.model import Job, Workflow

DOCUMENT = Path("docs/workflow.md")


def graph(found: Workflow) -> str:
    """The jobs and what they need, as Mermaid draws it."""
    lines = ["```mermaid", "graph TB"]
    for job in found.jobs.values():
        lines += [f"    {other} --> {job.name}" for other in job.needs]
    return "\n".join([*lines, "```"]) + "\n"


def _code(texts: Sequence[str]) -> str:
    return ", ".join(f"`{text}`" for text in texts) or "none"


def jobs(found: Workflow) -> str:
    """Jobs, what they need, the sessions they run, their condition."""
    rows = [
        (
            f"`{job.name}`",
            _code(job.needs),
            _code(job.sessions),
            f"`{job.condition}`" if job.condition else "none: all it needs must succeed",
        )
        for job in found.jobs.values()
    ]
    return console.markdown_table(("job", "needs", "sessions", "condition (`if`)"), rows)


def triggers(found: Workflow) -> str:
    """What starts the workflow."""
    rows = []
    for trigger in found.triggers:
        filters = [f"{kind}: {_code(names)}" for kind, names in trigger.filters.items()]
        rows.append((f"`{trigger.name}`", "; ".join(filters) or "any branch or tag"))
    return console.markdown_table(("event", "for"), rows)


def _values(job: Job) -> str:
    return "; ".join(
        ", ".join(f"{key} `{value}`" for key, value in row.items())
        for row in job.matrix.expand()
    )


def matrices(found: Workflow) -> str:
    """What the matrices expand to."""
    rows = [(f"`{j.name}`", _values(j)) for j in found.jobs.values() if j.matrix.expand()]
    return console.markdown_table(("job", "runs for"), rows)


# What the document shows as examples: events, and jobs that fail.
EXAMPLES: tuple[tuple[str, Event, tuple[str, ...]], ...] = (
    ("push to `main`", Event("push", "refs/heads/main"), ()),
    ("push to `develop`", Event("push", "refs/heads/develop"), ()),
    ("tag `v1.2.3`", Event("push", "refs/tags/v1.2.3"), ()),
    (
        "pull request, also from a fork",
        Event("pull_request", "refs/pull/1/merge", pull_request=1, base_ref="main", fork=True),
        (),
    ),
    ("push to `main`, tests fail", Event("push", "refs/heads/main"), ("test-docker-image",)),
    (
        "manual on `main` with force_build, tests fail",
        Event("workflow_dispatch", "refs/heads/main", force_build=True),
        ("test-docker-image",),
    ),
    ("push to another branch", Event("push", "refs/heads/feature/x"), ()),
)


def outcomes(found: Workflow) -> str:
    """What runs for some events, as ``plan`` tells."""
    rows = []
    for title, event, failed in EXAMPLES:
        made = plan.make_plan(found, event, load({}), failed=failed)
        ran = {"success": "runs", "failure": "fails", "skipped": "-"}
        rows.append((title, *(ran[decision.result] for decision in made.decisions.values())))
    return console.markdown_table(("event", *(f"`{name}`" for name in found.jobs)), rows)


PARTS: Mapping[str, Callable[[Workflow], str]] = {
    "graph": graph,
    "triggers": triggers,
    "jobs": jobs,
    "matrices": matrices,
    "outcomes": outcomes,
}


def renewed(text: str, found: Workflow) -> str:
    """The document with all its generated parts written anew.

    Raises:
        PipelineError: A part has no place in the document.
    """
    for name, make in PARTS.items():
        pattern = f"<!-- begin {name} -->\n.*?<!-- end {name} -->"
        if len(re.findall(pattern, text, re.DOTALL)) != 1:
            raise PipelineError(
                f"{DOCUMENT.as_posix()} has no single place for the part {name!r}.",
                f"Put <!-- begin {name} --> and <!-- end {name} --> where it belongs.",
            )
        before, _, rest = text.partition(f"<!-- begin {name} -->\n")
        after = rest[rest.index(f"<!-- end {name} -->") :]
        text = f"{before}<!-- begin {name} -->\n{make(found)}{after}"
    return text


def work(given: argparse.Namespace) -> int:
    """Write the document, or say that it is not current."""
    path = ROOT / DOCUMENT
    text = path.read_text(encoding="utf-8")
    new = renewed(text, workflow.load())
    if new == text:
        console.say(f"{DOCUMENT.as_posix()} is current")
        return 0
    if given.check:
        raise PipelineError(f"{DOCUMENT.as_posix()} is not current.", "Run nox -s docs.")
    path.write_text(new, encoding="utf-8")
    console.say(f"{DOCUMENT.as_posix()} was written anew")
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """``python -m tools.workflow.docs``."""
    made = cli.parser("docs", "Write the generated parts of docs/workflow.md anew.")
    made.add_argument("--check", action="store_true", help="write nothing; 1 if not current")
    return cli.main(made, argparse.Namespace, work, arguments)


if __name__ == "__main__":
    sys.exit(main())
