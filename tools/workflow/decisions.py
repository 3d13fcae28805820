"""Workflow + event + failures -> which jobs run, and why. Pure.

Evaluates the conditions that stand in the workflow file, as GitHub does: a condition
without a status function has ``success()`` implied, and a job's status functions look at
all jobs it needs, directly or not.
"""

import contextlib
from collections.abc import Collection, Mapping
from typing import NoReturn, TypeAlias, cast

from msgspec import Struct

from tools.core.errors import UsageError
from tools.repo.event import Event
from tools.workflow import expressions
from tools.workflow.expressions import ExpressionError, Names, Node, parse, value_of
from tools.workflow.model import Job, Workflow
from tools.workflow.triggers import not_triggered
from tools.workflow.values import Value, to_string, truthy

Outputs: TypeAlias = Mapping[str, Mapping[str, str]]
SUCCESS, FAILURE, SKIPPED, CANCELLED = "success", "failure", "skipped", "cancelled"


class Decision(Struct, frozen=True):
    """What becomes of a job."""

    job: Job
    run: bool
    reason: str  # in the terms of its condition
    result: str  # ``success``, ``failure`` or ``skipped``, as far as it was supposed


class _Unknown(dict[str, Value]):
    """The outputs of a job that has not run: to look into them is refused, not null."""

    def items(self) -> NoReturn:
        """What an index, ``.*`` and ``toJSON`` ask for."""
        raise ValueError("Outputs, known only when jobs ran, are used")


def payload(event: Event) -> dict[str, Value]:
    """The raw event, with what the workflow looks at where there is no event file."""
    repository: Value = {"full_name": event.repository, "default_branch": event.default_branch}
    described: dict[str, Value] = {"repository": repository}
    if event.name == "workflow_dispatch":
        described["inputs"] = {"force_build": "true" if event.force_build else "false"}
    if event.pull_request is not None:
        head = "somebody/fork" if event.fork else event.repository
        described["number"] = event.pull_request
        described["pull_request"] = {
            "number": event.pull_request,
            "head": {"ref": event.head_ref, "repo": {"full_name": head, "fork": event.fork}},
            "base": {"ref": event.base_ref, "repo": {"full_name": event.repository}},
        }
    return {**described, **cast(dict[str, Value], event.payload)}


def event_contexts(event: Event) -> dict[str, Value]:
    """The contexts ``github`` and ``inputs``. Source: "Contexts reference"."""
    github: Value = {
        "event_name": event.name,
        "event": payload(event),
        "ref": event.ref,
        "ref_name": event.ref_name,
        "ref_type": "tag" if event.ref.startswith("refs/tags/") else "branch",
        "sha": event.sha,
        "repository": event.repository,
        "repository_owner": event.repository.partition("/")[0],
        "head_ref": event.head_ref,
        "base_ref": event.base_ref,
        "actor": event.actor,
        "workflow": "CI/CD",
    }
    is_manual = event.name == "workflow_dispatch"
    return {"github": github, "inputs": {"force_build": event.force_build} if is_manual else {}}


def explain(node: Node, names: Names) -> str:
    """Why a condition is what it is: the part that failed, and the values it hangs on."""
    holds = truthy(value_of(node, names))
    while node.form == "&&" and not holds:
        left, right = node.parts
        node = right if truthy(value_of(left, names)) else left
    shown, end = dict[str, str](), 0
    for part in node.walk():
        if part.start >= end and part.form in {"name", "[]", ".*"}:
            end = part.end
            with contextlib.suppress(ExpressionError, ValueError):  # it was not looked at
                value = value_of(part, names)
                text = to_string(value) or "null"
                shown[part.source] = f"'{value}'" if isinstance(value, str) else text
    shown.pop("cancelled()", None)  # that nothing was cancelled goes without saying
    values = ", ".join(f"{source} is {text}" for source, text in shown.items())
    if values and (holds or node.source in shown):
        return values
    return f"{node.source} is {to_string(holds)}" + (f": {values}" if values else "")


def decide_job(
    workflow: Workflow,
    job: Job,
    event: Event,
    results: Mapping[str, str],
    outputs: Outputs | None = None,
) -> tuple[bool, str]:
    """Whether a job runs, and why, given the results and outputs of all jobs before it.

    Outputs are None where nothing has run: a condition that looks at them is an error.
    """
    needs: dict[str, Value] = {
        name: {
            "result": results[name],
            # json does not look into an empty one
            "outputs": _Unknown(x=None) if outputs is None else {**outputs.get(name, {})},
        }
        for name in job.needs
    }
    ancestors = sorted(workflow.ancestors(job.name))
    status = expressions.job_status(results[name] for name in ancestors)
    holds, reason = True, "all it needs succeeded" if job.needs else "it needs nothing"
    if job.condition:
        names = {**event_contexts(event), "needs": needs, **status}
        node = parse(job.condition)
        holds = truthy(expressions.evaluate(job.condition, names))
        reason = explain(node, names)
        if any(part.name in status for part in node.walk()):
            return holds, reason
    for name in ancestors:
        if results[name] != SUCCESS:
            return False, f"{name}, which it needs, ended with {results[name]}"
    return holds, reason


def decide(
    workflow: Workflow, event: Event, failed: Collection[str] = ()
) -> dict[str, Decision]:
    """What becomes of every job, supposing that those in ``failed`` fail if they run."""
    for name in failed:
        if name not in workflow.jobs:
            remedy = f"Use one of: {', '.join(workflow.jobs)}."
            raise UsageError(f"There is no job {name!r} to fail.", remedy)
    refusal = not_triggered(event, workflow.triggers)
    results: dict[str, str] = {}
    decisions: dict[str, Decision] = {}
    for name in workflow.order():
        job = workflow.jobs[name]
        run, reason = (False, refusal) if refusal else decide_job(workflow, job, event, results)
        results[name] = (FAILURE if name in failed else SUCCESS) if run else SKIPPED
        decisions[name] = Decision(job, run, reason, results[name])
    return {name: decisions[name] for name in workflow.jobs}
