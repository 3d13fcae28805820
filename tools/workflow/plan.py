"""``plan``: what an event would run, and why; which tags, labels and release it gives.

Nothing is run, and nothing is asked but git. The conditions are those that stand in the
workflow file.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools.core import cli, console
from tools.core.errors import UsageError
from tools.core.settings import ROOT, Settings, load
from tools.images import names as tags
from tools.repo import git
from tools.repo.context import checkout_event
from tools.repo.event import (
    NO_COMMIT,
    Event,
    check_event_name,
    dig,
    forces_build,
    from_actions,
    full_ref,
    is_fork,
    read_payload,
)
from tools.repo.versions import parse_tag
from tools.workflow import decisions
from tools.workflow import model as workflow
from tools.workflow.decisions import Decision

DEVELOPMENT, PRODUCTION, RELEASE = "docker_dev", "prod_image", "release"


@dataclass(frozen=True)
class Plan:
    """The whole answer; ``decisions`` has the jobs in the file's order."""

    event: Event
    decisions: Mapping[str, Decision]
    images: Mapping[str, list[str]]
    labels: Mapping[str, str]
    release: Mapping[str, Any] | None

    def to_json(self) -> dict[str, Any]:
        """The contract that other programs rely on."""
        return {
            "event": self.event.to_json(),
            "jobs": {
                name: {
                    "run": found.run,
                    "reason": found.reason,
                    "needs": list(found.job.needs),
                    "result": found.result,
                    "matrix": found.job.matrix.expand(),
                    "sessions": list(found.job.sessions),
                }
                for name, found in self.decisions.items()
            },
            "images": dict(self.images),
            "labels": dict(self.labels),
            "release": self.release,
        }


# -- the event --------------------------------------------------------------------------


def add_event_options(parser: argparse.ArgumentParser) -> None:
    """The options that describe an event, for ``plan`` and ``pipeline``."""
    group = parser.add_argument_group("the event (default: that of Actions, or the checkout)")
    group.add_argument("--event", metavar="NAME", help="push, pull_request, workflow_dispatch")
    group.add_argument("--ref", help="full git reference, such as refs/tags/v1.0.0")
    group.add_argument("--sha", help="full commit hash")
    group.add_argument("--pr", type=int, metavar="N", help="a pull request's number")
    group.add_argument("--base", help="the branch that a pull request wants to change")
    group.add_argument("--fork", action="store_true", help="the pull request is from a fork")
    group.add_argument("--force-build", action="store_true", help="input of a manual run")
    group.add_argument("--default-branch", help="the repository's default branch")
    group.add_argument("--event-file", metavar="FILE", help="an Actions event file (JSON)")
    parser.add_argument(
        "--failed", metavar="JOB", action="append", default=[], help="suppose that it fails"
    )


def is_described(given: argparse.Namespace) -> bool:
    """Whether options describe an event, at least in part."""
    return any(
        (given.event, given.ref, given.pr is not None, given.event_file, given.force_build)
    )


def _name_of(given: argparse.Namespace) -> str:
    """The event's name: given, or the only one that the other options leave."""
    if given.event:
        return check_event_name(given.event)
    if given.pr is not None or (given.ref or "").startswith("refs/pull/"):
        return "pull_request"
    if given.force_build:
        return "workflow_dispatch"
    if given.event_file:
        payload = read_payload(given.event_file)
        if "pull_request" in payload:
            return "pull_request"
        return "workflow_dispatch" if "inputs" in payload else "push"
    return "push"


def _number(given: argparse.Namespace, payload: Mapping[str, Any]) -> int:
    """The number of a pull request, from the options or its event file."""
    ref = given.ref or ""
    number = 0
    if given.pr is not None:
        number = int(given.pr)
    elif ref.startswith("refs/pull/") and ref.split("/")[2].isdecimal():
        number = int(ref.split("/")[2])
    else:
        number = int(payload.get("number") or 0)
    if number < 1:
        raise UsageError("The pull request has no number.", "Give it with --pr 123.")
    return number


def _pull_request(event: Event, given: argparse.Namespace, payload: dict[str, Any]) -> Event:
    number = _number(given, payload)
    details = payload.get("pull_request", {})
    return dataclasses.replace(
        event,
        ref=f"refs/pull/{number}/merge",
        pull_request=number,
        head_ref=details.get("head", {}).get("ref", "") or event.head_ref,
        base_ref=given.base
        or details.get("base", {}).get("ref", "")
        or event.base_ref
        or event.default_branch,
        fork=given.fork or is_fork(payload),
    )


def _base_event(env: Mapping[str, str], root: Path, default_branch: str | None) -> Event:
    """The event of Actions, else of the checkout, else an empty one."""
    if env.get("GITHUB_EVENT_NAME"):
        event = from_actions(env, default_branch or "main")
    elif git.git(root, "rev-parse", "--verify", "HEAD", check=False):
        event = checkout_event(root)
    else:
        event = Event("push", "")
    repository = env.get("GITHUB_REPOSITORY") or event.repository
    branch = default_branch or event.default_branch
    return dataclasses.replace(event, default_branch=branch, repository=repository)


def find_event(given: argparse.Namespace, env: Mapping[str, str], root: Path = ROOT) -> Event:
    """The event that the options describe; without any, that of Actions or the checkout.

    Raises:
        UsageError: The options do not make an event.
    """
    base = _base_event(env, root, given.default_branch)
    if not is_described(given):
        if not base.ref:
            git.head(root)  # says what is missing
        return dataclasses.replace(base, sha=given.sha or base.sha)
    payload = read_payload(given.event_file) if given.event_file else {}
    name = _name_of(given)
    force = given.force_build or forces_build(payload)
    named = dig(payload, "repository", "default_branch")
    event = Event(
        name=name,
        ref=given.ref or str(payload.get("ref") or ""),
        sha=given.sha or str(payload.get("after") or "") or base.sha or NO_COMMIT,
        repository=base.repository,
        default_branch=given.default_branch or str(named or base.default_branch),
        force_build=force and name == "workflow_dispatch",
        actor=base.actor,
        payload=payload,
    )
    if force and name != "workflow_dispatch":
        raise UsageError(
            f"--force-build is an input of a manual run, not of {name}.",
            "Give --event workflow_dispatch, or leave --event out.",
        )
    if name == "pull_request":
        return _pull_request(event, given, payload)
    ref = event.ref or (f"refs/heads/{event.default_branch}" if name != "push" else base.ref)
    if given.pr is not None or full_ref(ref).startswith("refs/pull/"):
        raise UsageError(f"{name} is no event of a pull request.", "Leave --pr out.")
    return dataclasses.replace(event, ref=ref)


# -- the plan ---------------------------------------------------------------------------


def job_of(found: Mapping[str, Decision], session: str) -> Decision | None:
    """The decision on the job whose first session is ``session``."""
    return next((d for d in found.values() if d.job.sessions[:1] == (session,)), None)


def make_plan(
    graph: workflow.Workflow,
    event: Event,
    settings: Settings,
    *,
    failed: Sequence[str] = (),
    existing: Sequence[str] = (),
    created: int = 0,
) -> Plan:
    """Decide everything.

    Args:
        graph: The workflow.
        event: What triggers it.
        settings: For the image's name.
        failed: Jobs that are supposed to fail.
        existing: The repository's git tags.
        created: Seconds since the epoch of the commit.

    Raises:
        UsageError: The tag is no version, a failed job is unknown.
        ExpressionError: A condition cannot be evaluated.
    """
    found = decisions.decide(graph, event, failed)

    def runs(session: str) -> bool:
        decision = job_of(found, session)
        return decision is not None and decision.run

    images = {
        "development": tags.development_tags(event, existing) if runs(DEVELOPMENT) else [],
        "production": tags.production_tags(event) if runs(PRODUCTION) else [],
    }
    release = None
    if runs(RELEASE) and event.tag is not None:
        version = parse_tag(event.tag)
        release = {"tag": version.tag, "prerelease": version.is_prerelease}
    return Plan(
        event=event,
        decisions=found,
        images={kind: tags.references(settings.image, names) for kind, names in images.items()},
        labels=tags.labels(event, created),
        release=release,
    )


_COLOURS = {
    "success": "fill:#d4f5dd,stroke:#1a7f37,color:#0b3d1c",
    "failure": "fill:#ffdcd7,stroke:#cf222e,color:#4c0a0f",
    "skipped": "fill:#eaeef2,stroke:#8c959f,color:#424a53,stroke-dasharray:4 3",
}


def mermaid(plan: Plan) -> str:
    """The graph as a Mermaid flow chart, each job coloured by what becomes of it."""
    lines = ["graph TB"]
    for name, found in plan.decisions.items():
        matrix = found.job.matrix.expand()
        count = f" x {len(matrix)}" if matrix else ""
        lines.append(f'    {name}["{name}{count}"]:::{found.result}')
    for name, found in plan.decisions.items():
        lines += [f"    {other} --> {name}" for other in found.job.needs]
    lines += [f"    classDef {result} {style}" for result, style in _COLOURS.items()]
    return "\n".join(lines) + "\n"


def show(plan: Plan) -> None:
    """The plan as tables."""
    event = plan.event
    fork = " from a fork" if event.fork else ""
    forced = ", force_build" if event.force_build else ""
    console.say(f"{event.name} of {event.ref}{fork}{forced} at {event.short_sha}")
    rows = []
    for name, found in plan.decisions.items():
        legs = len(found.job.matrix.expand())
        state = ("fails" if found.result == decisions.FAILURE else "runs") if found.run else "-"
        rows.append((name, f"{state} x {legs}" if found.run and legs else state, found.reason))
    console.table(("job", "plan", "why"), rows)
    for name, found in plan.decisions.items():
        if found.run and found.job.matrix.expand():
            values = [", ".join(map(str, row.values())) for row in found.job.matrix.expand()]
            console.say(f"{name} runs for: {'; '.join(values)}")
    for kind, references in plan.images.items():
        console.say(f"{kind} image: {' '.join(references) or 'none'}")
    if plan.release:
        kind = "prerelease" if plan.release["prerelease"] else "release"
        console.say(f"release: {plan.release['tag']} ({kind})")
    else:
        console.say("release: none")
    for key, value in plan.labels.items():
        console.say(f"label {key}: {value}")


def plan_of(given: argparse.Namespace, env: Mapping[str, str], root: Path = ROOT) -> Plan:
    """The plan that options and environment ask for; see :func:`make_plan`."""
    graph = workflow.load(root)
    event = find_event(given, env, root)
    existing = git.every_tag(root) if event.tag is not None else []
    created = git.commit_time(root)
    return make_plan(
        graph,
        event,
        load(env, root),
        failed=given.failed,
        existing=existing,
        created=created,
    )


def work(given: argparse.Namespace) -> int:
    """Print the plan."""
    plan = plan_of(given, os.environ)
    if given.json:
        console.emit_json(plan.to_json())
    elif given.mermaid:
        print(mermaid(plan), end="")
    else:
        show(plan)
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """``python -m tools.workflow.plan``."""
    made = cli.parser("plan", "Tell which jobs an event would run, and why; nothing is run.")
    add_event_options(made)
    form = made.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="one JSON object on stdout")
    form.add_argument("--mermaid", action="store_true", help="the graph as Mermaid on stdout")
    return cli.main(made, argparse.Namespace, work, arguments)


if __name__ == "__main__":
    sys.exit(main())
