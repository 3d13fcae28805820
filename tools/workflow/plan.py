"""``plan``: what an event would run, and why; which tags, labels and release it gives.

Nothing is run, and nothing is asked but git. The conditions are those that stand in the
workflow file.
"""

import dataclasses
import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tools.core import cli, console
from tools.core.errors import UsageError
from tools.core.settings import ROOT, Settings, load
from tools.images import names
from tools.repo import event as events
from tools.repo import git
from tools.repo.context import current_event
from tools.repo.event import Event
from tools.repo.versions import TagVersion, parse_tag
from tools.workflow import changes, contexts, decisions, model
from tools.workflow.decisions import Decision

# The activity of an event of which no other is said.
ACTIONS = dict.fromkeys(("pull_request", "pull_request_target"), "synchronize")
ACTIONS |= {"merge_group": "checks_requested"}


@dataclass(frozen=True)
class Plan:
    """What an event gives; ``decisions`` has the jobs in the file's order."""

    event: Event
    decisions: Mapping[str, Decision]
    images: Mapping[str, list[str]]
    labels: Mapping[str, str]
    release: TagVersion | None

    def to_json(self) -> dict[str, object]:
        """The contract that other programs rely on."""
        jobs = {
            name: {
                "run": one.run,
                "reason": one.reason,
                "needs": one.job.needs,
                "result": one.result,
                "matrix": one.job.matrix,
                "sessions": one.job.sessions,
            }
            for name, one in self.decisions.items()
        }
        release = self.release
        return {
            "event": self.event.to_json(),
            "jobs": jobs,
            "images": self.images,
            "labels": self.labels,
            "release": release and {"tag": release.tag, "prerelease": release.is_prerelease},
        }


@dataclass(frozen=True)
class EventOptions:
    """The options that describe an event, and the jobs that are supposed to fail."""

    event: str | None = cli.option(
        None, "such as push, pull_request, merge_group, workflow_dispatch, schedule"
    )
    ref: str | None = cli.option(None, "full git reference, such as refs/tags/v1.0.0")
    sha: str | None = cli.option(None, "full commit hash")
    pr: int | None = cli.option(None, "a pull request's number", type=cli.count)
    fork: bool = cli.option(False, "the pull request is from a fork")
    action: str = cli.option("", "the event's activity (a pull request: synchronize)")
    force_build: bool = cli.option(False, "input of a manual run")
    default_branch: str | None = cli.option(
        None, "the repository's default branch, which a pull request is to change"
    )
    failed: tuple[str, ...] = cli.option((), "suppose that this job fails; repeatable")

    @property
    def describe_an_event(self) -> bool:
        """Whether they do, at least in part; else it is that of Actions or the checkout."""
        described = (self.event, self.ref, self.pr, self.action or None)
        return any(one is not None for one in described) or self.force_build


def find_event(options: EventOptions, env: Mapping[str, str]) -> Event:
    """The event that the options describe; without any, that of Actions or the checkout
    (UsageError if they do not make one, or there is none).
    """
    try:
        current = current_event(env)
    except UsageError:
        if not options.describe_an_event:
            raise
        # Where there is no commit.
        current = Event("push", "refs/heads/main", repository=env.get("GITHUB_REPOSITORY", ""))
    current = dataclasses.replace(
        current,
        sha=current.sha if options.sha is None else options.sha,
        default_branch=options.default_branch or current.default_branch,
    )
    return describe(options, current) if options.describe_an_event else current


def describe(options: EventOptions, current: Event) -> Event:
    """The event of the options, and of the current one what they leave open (UsageError if
    they contradict each other, or leave open what can be more than one thing).
    """
    of_pull = re.match(r"refs/pull/([0-9]{1,15})/", options.ref or "")
    number = options.pr or (int(of_pull[1]) if of_pull else None)
    manual = "workflow_dispatch" if options.force_build else "push"
    name = options.event or ("pull_request" if number else manual)
    is_pull = name.startswith("pull_request")
    if is_pull != bool(number) and name != "merge_group":
        what = "is not an event of a pull request" if number else "has no number"
        raise UsageError(f"{name} {what}.", "Give --pr 123 for a pull request alone.")
    if options.force_build and name != "workflow_dispatch":
        raise UsageError(
            f"--force-build is an input of a manual run, not of {name}.",
            "Give --event workflow_dispatch, or leave --event out.",
        )
    ref, branch = options.ref, current.default_branch
    if ref is None or of_pull:
        ref = default_ref(name, number, current)
    return dataclasses.replace(
        current,
        name=name,
        ref=ref,
        pull_request=number if is_pull else None,
        head_ref="",
        base_ref=branch if is_pull else "",
        fork=is_pull and options.fork,
        deleted=name == "push" and options.sha == events.NO_COMMIT,
        action=options.action or ACTIONS.get(name, ""),
        force_build=options.force_build,
        payload={},
    )


def default_ref(name: str, number: int | None, current: Event) -> str:
    """The reference of an event of which nothing else is known; a UsageError if that can be
    any. Source: "Events that trigger workflows", the column GITHUB_REF.
    """
    branch = current.default_branch
    if name in {"release", "create"}:
        raise UsageError(f"{name} is of any tag.", "Give it: --ref refs/tags/v1.0.0.")
    if name == "merge_group":
        return f"refs/heads/gh-readonly-queue/{branch}/pr-{number or 1}-{current.sha}"
    if name.startswith("pull_request") and name != "pull_request_target":
        return f"refs/pull/{number}/merge"
    if name == "push" and (current.branch or current.tag):
        return current.ref
    return f"refs/heads/{branch}"


def make_plan(
    graph: model.Workflow,
    event: Event,
    settings: Settings,
    *,
    failed: Sequence[str] = (),
    existing: Sequence[str] = (),
    created: int = 0,
) -> Plan:
    """Decide everything, given the jobs that are supposed to fail, the repository's
    ``existing`` git tags and when the commit was ``created`` (seconds since the epoch).

    A UsageError: the tag is not a version, a failed job is unknown, or a condition cannot
    be evaluated.
    """
    decided = decisions.decide(graph, event, failed)
    run = {session for one in decided.values() if one.run for session in one.job.sessions}
    tags = {
        "development": names.development_tags(event, existing) if "docker_dev" in run else [],
        "production": names.production_tags(event) if "prod_image" in run else [],
    }
    images = {kind: [f"{settings.image}:{tag}" for tag in ones] for kind, ones in tags.items()}
    release = parse_tag(event.tag) if "release" in run and event.tag is not None else None
    # A tag that starts nothing need not be a version.
    labels = names.labels(event, created) if run or event.tag is None else {}
    return Plan(event, decided, images, labels, release)


def show(plan: Plan) -> None:
    """The plan as tables."""
    event = plan.event
    fork = " from a fork" if event.fork else ""
    forced = ", force_build" if event.force_build else ""
    console.say(f"{event.name} of {event.ref}{fork}{forced} at {event.short_sha}")
    states = {"success": "runs", "failure": "fails", "skipped": "-"}
    rows = [(name, states[one.result], one.reason) for name, one in plan.decisions.items()]
    console.table(("job", "plan", "why"), rows)
    for name, decision in plan.decisions.items():
        if decision.run and decision.job.matrix:
            values = [", ".join(map(str, row.values())) for row in decision.job.matrix]
            console.say(f"{name} runs for: {'; '.join(values)}")
    for kind, references in plan.images.items():
        console.say(f"{kind} image: {' '.join(references) or 'none'}")
    release = plan.release
    kind = " (prerelease)" if release and release.is_prerelease else ""
    console.say(f"release: {release.tag if release else 'none'}{kind}")
    for key, value in plan.labels.items():
        console.say(f"label {key}: {value}")


@dataclass(frozen=True)
class Options(EventOptions):
    """The event, and the form of the answer."""

    json: bool = cli.option(False, "one JSON object on stdout")


def work(options: Options) -> None:
    """Print the plan."""
    graph = model.load()
    event = changes.find(find_event(options, os.environ), graph.triggers, ROOT)
    plan = make_plan(
        graph,
        event,
        load(contexts.variables(graph, event, os.environ)),
        failed=options.failed,
        existing=git.every_tag(ROOT) if event.tag is not None else [],
        created=git.commit_time(ROOT),
    )
    if options.json:
        console.emit_json(plan.to_json())
    else:
        show(plan)


main = cli.command(
    "plan", "Tell which jobs an event would run, and why; nothing is run.", Options, work
)


if __name__ == "__main__":
    sys.exit(main())
