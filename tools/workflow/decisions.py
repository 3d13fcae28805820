"""Workflow + event + failures -> which jobs run, and why. Pure.

Evaluates the conditions that stand in the workflow file, as GitHub does: a condition
without a status function has ``success()`` implied, and a job's status functions look at
all jobs it needs, directly or not.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import cast

from tools.core.errors import UsageError
from tools.repo.event import Event
from tools.workflow import expressions
from tools.workflow.expressions import ExpressionError, Scope, truthy, value_of
from tools.workflow.model import Job, Workflow
from tools.workflow.syntax import Node
from tools.workflow.triggers import not_triggered
from tools.workflow.values import Value, is_primitive, kind

Outputs = Mapping[str, Mapping[str, str]]
SUCCESS, FAILURE, SKIPPED, CANCELLED = "success", "failure", "skipped", "cancelled"


@dataclass(frozen=True)
class Decision:
    """What becomes of a job.

    Attributes:
        job: The job.
        run: Whether it would run.
        reason: Why, in the terms of its condition.
        result: ``success``, ``failure`` or ``skipped``, as far as it was supposed.
    """

    job: Job
    run: bool
    reason: str
    result: str


def _payload(event: Event) -> dict[str, Value]:
    """The raw event, with what the workflow looks at where there is no event file."""
    repository: Value = {"full_name": event.repository, "default_branch": event.default_branch}
    payload: dict[str, Value] = {"repository": repository}
    if event.name == "workflow_dispatch":
        payload["inputs"] = {"force_build": "true" if event.force_build else "false"}
    if event.pull_request is not None:
        head = "somebody/fork" if event.fork else event.repository
        payload["number"] = event.pull_request
        payload["pull_request"] = {
            "number": event.pull_request,
            "head": {"ref": event.head_ref, "repo": {"full_name": head, "fork": event.fork}},
            "base": {"ref": event.base_ref, "repo": {"full_name": event.repository}},
        }
    return {**payload, **cast(dict[str, Value], event.payload)}


def github_context(event: Event) -> dict[str, Value]:
    """The ``github`` context of an event.

    Source: "Contexts reference", github context.
    """
    return {
        "event_name": event.name,
        "event": _payload(event),
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


def inputs_context(event: Event) -> dict[str, Value]:
    """The ``inputs`` context: of a manual run alone."""
    return {"force_build": event.force_build} if event.name == "workflow_dispatch" else {}


def _leaves(node: Node) -> Iterator[Node]:
    """What a part hangs on: contexts and status functions."""
    if node.form in {"name", "index", "star"} or node.is_status:
        yield node
    else:
        for part in node.parts:
            yield from _leaves(part)


def explain(condition: str, scope: Scope) -> str:
    """Why a condition is what it is, in its own words, with the values it hangs on."""
    node = expressions.parse(condition)
    holds = truthy(value_of(node, scope))
    while node.form == "&&" and not holds:  # down to the part that failed
        node = next(part for part in node.parts if not truthy(value_of(part, scope)))
    leaves = {leaf.source: leaf for leaf in _leaves(node)}
    if holds:
        leaves.pop("cancelled()", None)  # that nothing was cancelled goes without saying
    values = [f"{source} is {_shown(leaf, scope)}" for source, leaf in leaves.items()]
    if holds and values:
        return ", ".join(values)
    detail = f": {', '.join(values)}" if values and node not in leaves.values() else ""
    return f"{node.source} is {json.dumps(holds)}{detail}"


def _shown(node: Node, scope: Scope) -> str:
    """A part's value as one would write it; it need not have been reached before."""
    try:
        value = value_of(node, scope)
    except ExpressionError:
        return "unknown"
    if isinstance(value, str):
        return "'" + value.replace("'", "''") + "'"
    return json.dumps(value) if is_primitive(value) else kind(value)


def refuse_outputs(job: Job) -> None:
    """Refuse a condition that looks at outputs, where no job has run to leave any.

    Raises:
        ExpressionError: Its condition looks at outputs of the jobs it needs.
    """
    nodes = list(expressions.parse(job.condition).walk()) if job.condition else []
    indexed = {id(node.parts[0]) for node in nodes if node.form in {"index", "star"}}
    for node in nodes:
        whole = node.form == "name" and node.name == "needs" and id(node) not in indexed
        if whole or node.form == "literal" and str(node.constant).lower() == "outputs":
            reason = f"The condition of {job.name} looks at outputs, known only when jobs ran,"
            raise ExpressionError(reason, job.condition, node.start + 1)


def _contexts(
    job: Job, event: Event, results: Mapping[str, str], outputs: Outputs
) -> dict[str, Value]:
    """What the condition of a job can refer to, once all it needs has ended."""
    needs: dict[str, Value] = {
        name: {"result": results[name], "outputs": dict(outputs.get(name, {}))}
        for name in job.needs
    }
    github, inputs = github_context(event), inputs_context(event)
    return {"github": github, "needs": needs, "inputs": inputs}


def decide_job(
    workflow: Workflow,
    job: Job,
    event: Event,
    results: Mapping[str, str],
    cancelled: bool = False,
    outputs: Outputs | None = None,
) -> tuple[bool, str]:
    """Whether a job runs, and why, given what became of all jobs before it.

    Args:
        workflow: The graph.
        job: The job.
        event: What triggered the run.
        results: Results of the jobs before.
        cancelled: Whether the run was cancelled.
        outputs: Outputs of the jobs before; None where nothing has run.

    Raises:
        ExpressionError: Its condition cannot be evaluated.
    """
    if outputs is None:
        refuse_outputs(job)
    ancestors = sorted(workflow.ancestors(job.name))
    status = expressions.job_status([results[name] for name in ancestors], cancelled)
    scope = Scope(_contexts(job, event, results, outputs or {}), status)
    holds = not job.condition or truthy(expressions.evaluate(job.condition, scope))
    if job.condition and expressions.uses_status(job.condition):
        return holds, explain(job.condition, scope)
    for name in ancestors:
        if results[name] != SUCCESS:
            return False, f"{name}, which it needs, ended with {results[name]}"
    if cancelled:
        return False, "the run was cancelled"
    if job.condition:
        return holds, explain(job.condition, scope)
    return True, "all it needs succeeded" if job.needs else "it needs nothing"


def decide(
    workflow: Workflow, event: Event, failed: Collection[str] = ()
) -> dict[str, Decision]:
    """What becomes of every job, supposing that those in ``failed`` fail if they run.

    Raises:
        UsageError: ``failed`` has a name that is not a job.
        ExpressionError: A condition cannot be evaluated.
    """
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
