"""``plan``: what an event would run, and why; which tags, labels and release it gives.

Nothing is run, and nothing is asked but git. The conditions are those that stand in the
workflow file.
"""

from __future__ import annotations

import dataclasses
import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from tools.core import cli, console
from tools.core.errors import UsageError
from tools.core.settings import ROOT, Settings, load
from tools.images import names
from tools.repo import event as events
from tools.repo import git
from tools.repo.context import checkout_event
from tools.repo.event import Event, dig
from tools.repo.versions import parse_tag
from tools.workflow import decisions
from tools.workflow import model as workflow
from tools.workflow.decisions import Decision

DEVELOPMENT, PRODUCTION, RELEASE = "docker_dev", "prod_image", "release"


class Release(NamedTuple):
    """The release that a tag gives."""

    tag: str
    prerelease: bool


@dataclass(frozen=True)
class Plan:
    """What an event gives; ``decisions`` has the jobs in the file's order."""

    event: Event
    decisions: Mapping[str, Decision]
    images: Mapping[str, list[str]]
    labels: Mapping[str, str]
    release: Release | None

    def to_json(self) -> dict[str, object]:
        """The contract that other programs rely on."""
        jobs = {
            name: {
                "run": decision.run,
                "reason": decision.reason,
                "needs": decision.job.needs,
                "result": decision.result,
                "matrix": decision.job.matrix,
                "sessions": decision.job.sessions,
            }
            for name, decision in self.decisions.items()
        }
        return {
            "event": self.event.to_json(),
            "jobs": jobs,
            "images": self.images,
            "labels": self.labels,
            "release": self.release and self.release._asdict(),
        }


# -- the event --------------------------------------------------------------------------


@dataclass(frozen=True)
class EventOptions:
    """The options that describe an event, and the jobs that are supposed to fail."""

    event: str | None = cli.option(None, f"one of {', '.join(events.EVENT_NAMES)}")
    ref: str | None = cli.option(None, "full git reference, such as refs/tags/v1.0.0")
    sha: str | None = cli.option(None, "full commit hash")
    pr: int | None = cli.option(None, "a pull request's number", type=cli.count)
    base: str | None = cli.option(None, "the branch that a pull request is to change")
    fork: bool = cli.option(False, "the pull request is from a fork")
    force_build: bool = cli.option(False, "input of a manual run")
    default_branch: str | None = cli.option(None, "the repository's default branch")
    event_file: str | None = cli.option(None, "an Actions event file (JSON)")
    failed: tuple[str, ...] = cli.option((), "suppose that this job fails; repeatable")


def is_described(options: EventOptions) -> bool:
    """Whether options describe an event, at least in part."""
    parts = (options.event, options.ref, options.event_file, options.force_build)
    return any(parts) or options.pr is not None


def _name(options: EventOptions, payload: events.Payload) -> str:
    """The event's name: the option, or the only one that the others leave."""
    if options.event:
        return events.check("event", options.event)
    is_pull = options.pr is not None or (options.ref or "").startswith("refs/pull/")
    if is_pull or "pull_request" in payload and not options.force_build:
        return "pull_request"
    return "workflow_dispatch" if options.force_build or "inputs" in payload else "push"


def _pull_request(event: Event, options: EventOptions) -> Event:
    """The event with what makes it a pull request."""
    of_ref = re.match(r"refs/pull/([0-9]+)/", options.ref or "")
    number: object = of_ref.group(1) if of_ref else event.payload.get("number")
    number = int(str(number or 0)) if options.pr is None else options.pr
    if number < 1:
        raise UsageError("The pull request has no number.", "Give it with --pr 123.")

    def branch(side: str) -> str:
        return str(dig(event.payload, "pull_request", side, "ref") or "")

    return dataclasses.replace(
        event,
        ref=f"refs/pull/{number}/merge",
        pull_request=number,
        head_ref=branch("head"),
        base_ref=options.base or branch("base") or event.default_branch,
        fork=options.fork or events.is_fork(event.payload),
    )


def _current_event(env: Mapping[str, str], root: Path, default_branch: str | None) -> Event:
    """The event of Actions, else of the checkout, else an empty one."""
    if env.get("GITHUB_EVENT_NAME"):
        event = events.from_actions(env, default_branch or "main")
    elif git.git(root, "rev-parse", "--verify", "HEAD", check=False):
        event = checkout_event(root)
    else:
        event = Event("push", "")
    repository = env.get("GITHUB_REPOSITORY") or event.repository
    branch = default_branch or event.default_branch
    return dataclasses.replace(event, default_branch=branch, repository=repository)


def find_event(options: EventOptions, env: Mapping[str, str], root: Path = ROOT) -> Event:
    """The event that the options describe; without any, that of Actions or the checkout.

    Raises:
        UsageError: The options do not make an event.
    """
    current = _current_event(env, root, options.default_branch)
    if not is_described(options):
        if not current.ref:
            git.head(root)  # says what is missing
        return dataclasses.replace(current, sha=options.sha or current.sha)
    payload = events.read_payload(options.event_file) if options.event_file else {}
    name = _name(options, payload)
    force = options.force_build or events.forces_build(payload)
    if force and name != "workflow_dispatch":
        raise UsageError(
            f"--force-build is an input of a manual run, not of {name}.",
            "Give --event workflow_dispatch, or leave --event out.",
        )
    of_payload = dig(payload, "repository", "default_branch")
    branch = options.default_branch or str(of_payload or current.default_branch)
    event = Event(
        name=name,
        ref=options.ref or str(payload.get("ref") or ""),
        sha=options.sha or str(payload.get("after") or "") or current.sha or events.NO_COMMIT,
        repository=current.repository,
        default_branch=branch,
        force_build=force,
        actor=current.actor,
        payload=payload,
    )
    if name == "pull_request":
        return _pull_request(event, options)
    ref = events.check(
        "reference", event.ref or (current.ref if name == "push" else f"refs/heads/{branch}")
    )
    if options.pr is not None or ref.startswith("refs/pull/"):
        raise UsageError(f"{name} is not an event of a pull request.", "Leave --pr out.")
    return dataclasses.replace(event, ref=ref)


# -- the plan ---------------------------------------------------------------------------


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
        UsageError: The tag is not a version, a failed job is unknown.
        ExpressionError: A condition cannot be evaluated.
    """
    decided = decisions.decide(graph, event, failed)
    # What a job is for shows in the session that it runs first.
    run = {decision.job.sessions[0] for decision in decided.values() if decision.run}
    tags = {
        "development": names.development_tags(event, existing) if DEVELOPMENT in run else [],
        "production": names.production_tags(event) if PRODUCTION in run else [],
    }
    images = {
        kind: [f"{settings.image}:{tag}" for tag in found] for kind, found in tags.items()
    }
    version = parse_tag(event.tag) if RELEASE in run and event.tag is not None else None
    release = Release(version.tag, version.is_prerelease) if version else None
    return Plan(event, decided, images, names.labels(event, created), release)


def plan_of(options: EventOptions, env: Mapping[str, str], root: Path = ROOT) -> Plan:
    """The plan that options and environment ask for; see :func:`make_plan`."""
    graph, event = workflow.load(root), find_event(options, env, root)
    existing = git.every_tag(root) if event.tag is not None else []
    settings, created = load(env, root), git.commit_time(root)
    return make_plan(
        graph, event, settings, failed=options.failed, existing=existing, created=created
    )


_COLOURS = {
    "success": "fill:#d4f5dd,stroke:#1a7f37,color:#0b3d1c",
    "failure": "fill:#ffdcd7,stroke:#cf222e,color:#4c0a0f",
    "skipped": "fill:#eaeef2,stroke:#8c959f,color:#424a53,stroke-dasharray:4 3",
}


def mermaid(plan: Plan) -> str:
    """The graph as a Mermaid flow chart, each job coloured by what becomes of it."""
    lines = ["graph TB"]
    for name, decision in plan.decisions.items():
        count = f" x {len(decision.job.matrix)}" if decision.job.matrix else ""
        lines.append(f'    {name}["{name}{count}"]:::{decision.result}')
    for name, decision in plan.decisions.items():
        lines += [f"    {other} --> {name}" for other in decision.job.needs]
    lines += [f"    classDef {result} {style}" for result, style in _COLOURS.items()]
    return "\n".join(lines) + "\n"


def show(plan: Plan) -> None:
    """The plan as tables."""
    event = plan.event
    fork = " from a fork" if event.fork else ""
    forced = ", force_build" if event.force_build else ""
    console.say(f"{event.name} of {event.ref}{fork}{forced} at {event.short_sha}")
    rows = []
    for name, decision in plan.decisions.items():
        state = {"success": "runs", "failure": "fails", "skipped": "-"}[decision.result]
        count = len(decision.job.matrix) if decision.run else 0
        rows.append((name, f"{state} x {count}" if count else state, decision.reason))
    console.table(("job", "plan", "why"), rows)
    for name, decision in plan.decisions.items():
        if decision.run and decision.job.matrix:
            values = [", ".join(map(str, row.values())) for row in decision.job.matrix]
            console.say(f"{name} runs for: {'; '.join(values)}")
    for kind, references in plan.images.items():
        console.say(f"{kind} image: {' '.join(references) or 'none'}")
    release = plan.release
    kind = " (prerelease)" if release and release.prerelease else ""
    console.say(f"release: {release.tag if release else 'none'}{kind}")
    for key, value in plan.labels.items():
        console.say(f"label {key}: {value}")


@dataclass(frozen=True)
class Options(EventOptions):
    """The event, and the form of the answer."""

    json: bool = cli.option(False, "one JSON object on stdout")
    mermaid: bool = cli.option(False, "the graph as Mermaid on stdout")


def work(options: Options) -> None:
    """Print the plan."""
    plan = plan_of(options, os.environ)
    if options.json:
        console.emit_json(plan.to_json())
    elif options.mermaid:
        print(mermaid(plan), end="")
    else:
        show(plan)


main = cli.command(
    "plan", "Tell which jobs an event would run, and why; nothing is run.", Options, work
)


if __name__ == "__main__":
    sys.exit(main())
