"""Workflow + event + failures -> which jobs run, and why (pure).

Evaluates the conditions that stand in the workflow file, as GitHub does: a condition
without a status function has ``success()`` implied, and a job's status functions look at
all jobs it needs, directly or not.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tools.core.errors import UsageError
from tools.repo.event import Event
from tools.workflow import expressions
from tools.workflow.expressions import (
    Call,
    Comparison,
    ExpressionError,
    Index,
    Literal,
    Logic,
    Name,
    Node,
    Not,
    Scope,
)
from tools.workflow.model import Job, Workflow
from tools.workflow.triggers import not_triggered

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


# -- contexts ---------------------------------------------------------------------------


def _payload(event: Event) -> dict[str, Any]:
    """The raw event, with what the workflow looks at where there is no event file."""
    repository = {"full_name": event.repository, "default_branch": event.default_branch}
    made: dict[str, Any] = {"repository": repository}
    if event.name == "workflow_dispatch":
        made["inputs"] = {"force_build": "true" if event.force_build else "false"}
    if event.pull_request is not None:
        head = "somebody/fork" if event.fork else event.repository
        made["number"] = event.pull_request
        made["pull_request"] = {
            "number": event.pull_request,
            "head": {"ref": event.head_ref, "repo": {"full_name": head, "fork": event.fork}},
            "base": {"ref": event.base_ref, "repo": {"full_name": event.repository}},
        }
    return {**made, **event.payload}


def github_context(event: Event) -> dict[str, Any]:
    """The ``github`` context of an event.

    Source: "Contexts reference", github context.
    """
    ref_type = "tag" if event.ref.startswith("refs/tags/") else "branch"
    return {
        "event_name": event.name,
        "event": _payload(event),
        "ref": event.ref,
        "ref_name": event.ref_name,
        "ref_type": ref_type,
        "sha": event.sha,
        "repository": event.repository,
        "repository_owner": event.repository.partition("/")[0],
        "head_ref": event.head_ref,
        "base_ref": event.base_ref,
        "actor": event.actor,
        "workflow": "CI/CD",
    }


def inputs_context(event: Event) -> dict[str, Any]:
    """The ``inputs`` context: of a manual run alone."""
    return {"force_build": event.force_build} if event.name == "workflow_dispatch" else {}


def job_scope(
    workflow: Workflow,
    job: Job,
    event: Event,
    results: Mapping[str, str],
    cancelled: bool = False,
    outputs: Outputs | None = None,
) -> Scope:
    """What the condition of a job can refer to, once all it needs has ended."""
    left = outputs or {}
    needs = {
        name: {"result": results[name], "outputs": left.get(name, {})} for name in job.needs
    }
    contexts = {
        "github": github_context(event),
        "needs": needs,
        "inputs": inputs_context(event),
    }
    before = [results[name] for name in workflow.ancestors(job.name)]
    return Scope(contexts, expressions.job_status(before, cancelled))


# -- reasons ----------------------------------------------------------------------------


def unparse(node: Node) -> str:
    """An expression's tree as text."""
    if isinstance(node, Literal):
        constant = node.constant
        if isinstance(constant, str):
            return "'" + constant.replace("'", "''") + "'"
        return "null" if constant is None else expressions.to_string(constant)
    if isinstance(node, Name):
        return node.name
    if isinstance(node, Index):
        if node.index is None:
            return f"{unparse(node.target)}.*"
        constant = node.index.constant if isinstance(node.index, Literal) else None
        is_name = isinstance(constant, str) and constant.replace("-", "_").isidentifier()
        return f"{unparse(node.target)}" + (
            f".{constant}" if is_name else f"[{unparse(node.index)}]"
        )
    if isinstance(node, Call):
        return f"{node.name}({', '.join(map(unparse, node.arguments))})"
    if isinstance(node, Not):
        inner = unparse(node.operand)
        return f"!({inner})" if isinstance(node.operand, Logic | Comparison) else f"!{inner}"
    return _unparse_binary(node)


def _unparse_binary(node: Node) -> str:
    if isinstance(node, Comparison):
        sides = (node.left, node.right)
        texts = [
            f"({unparse(s)})" if isinstance(s, Logic | Comparison) else unparse(s)
            for s in sides
        ]
        return f" {node.operator} ".join(texts)
    assert isinstance(node, Logic)
    texts = [f"({unparse(o)})" if isinstance(o, Logic) else unparse(o) for o in node.operands]
    return f" {node.operator} ".join(texts)


def _deciding(node: Node, scope: Scope) -> Node:
    """The part that made a condition what it is: into ``&&`` where one failed."""
    while isinstance(node, Logic) and node.operator == "&&":
        failed = [part for part in node.operands if not expressions.truthy(part.value(scope))]
        if not failed:
            return node
        node = failed[0]
    return node


def _leaves(node: Node, scope: Scope) -> Iterator[Node]:
    """What the outcome of a part hangs on: contexts and status functions."""
    if isinstance(node, Logic):
        result = expressions.truthy(node.value(scope))
        for part in node.operands:
            if expressions.truthy(part.value(scope)) is result:
                yield from _leaves(part, scope)
                if result is (node.operator == "||"):
                    return  # one was enough
    elif isinstance(node, Name | Index):
        yield node
    elif isinstance(node, Call) and node.name.lower() in expressions.STATUS_FUNCTIONS:
        yield node
    else:
        for part in node.parts:
            yield from _leaves(part, scope)


def explain(condition: str, scope: Scope) -> str:
    """Why a condition is what it is, in its own terms, with the values it hangs on."""
    node = expressions.parse(condition)
    part = _deciding(node, scope)
    holds = expressions.truthy(node.value(scope))
    values = {unparse(leaf): unparse_value(leaf.value(scope)) for leaf in _leaves(part, scope)}
    if holds:
        values.pop("cancelled()", None)  # that nothing was cancelled goes without saying
    said = ", ".join(f"{name} is {value}" for name, value in values.items())
    if holds:
        return said or f"{unparse(part)} is true"
    text = f"{unparse(part)} is false"
    return text if isinstance(part, Call | Name | Index) or not said else f"{text}: {said}"


def unparse_value(value: Any) -> str:
    """A value as one would write it."""
    if expressions.is_primitive(value):
        return unparse(Literal(1, value))
    return expressions.kind(value)


# -- deciding ---------------------------------------------------------------------------


def refuse_outputs(job: Job) -> None:
    """Refuse a condition that looks at outputs, where no job has run to leave any.

    Raises:
        ExpressionError: Its condition looks at outputs of the jobs it needs.
    """
    if not job.condition:
        return
    tree = expressions.parse(job.condition)
    whole = {id(part.target) for part in expressions.walk(tree) if isinstance(part, Index)}
    for part in expressions.walk(tree):
        if isinstance(part, Name) and part.name.lower() == "needs" and id(part) not in whole:
            break
        key = part.index if isinstance(part, Index) else None
        if isinstance(key, Literal) and str(key.constant).lower() == "outputs":
            break
    else:
        return
    reason = f"The condition of {job.name} looks at outputs, known only when jobs have run,"
    raise ExpressionError(reason, job.condition, part.position)


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
    scope = job_scope(workflow, job, event, results, cancelled, outputs)
    if job.condition:
        holds = expressions.truthy(expressions.evaluate(job.condition, scope))
        if expressions.uses_status(job.condition):
            return holds, explain(job.condition, scope)
    missing = [n for n in sorted(workflow.ancestors(job.name)) if results[n] != SUCCESS]
    if missing:
        return False, f"{missing[0]}, which it needs, ended with {results[missing[0]]}"
    if cancelled:
        return False, "the run was cancelled"
    if job.condition:
        return holds, explain(job.condition, scope)
    return True, "all it needs succeeded" if job.needs else "it needs nothing"


def check_failed(workflow: Workflow, failed: Collection[str]) -> None:
    """UsageError if a job that is to fail does not exist."""
    for name in failed:
        if name not in workflow.jobs:
            raise UsageError(
                f"There is no job {name!r} to fail.", f"Use one of: {', '.join(workflow.jobs)}."
            )


def decide(
    workflow: Workflow,
    event: Event,
    failed: Collection[str] = (),
    result_of: Callable[[Job], str] | None = None,
) -> dict[str, Decision]:
    """What becomes of every job, supposing that those in ``failed`` fail if they run.

    Args:
        workflow: The graph.
        event: What triggers it.
        failed: Jobs that fail.
        result_of: Instead of ``failed``, the result of a job that runs.

    Raises:
        UsageError: ``failed`` has a name that is no job.
        ExpressionError: A condition cannot be evaluated.
    """
    check_failed(workflow, failed)
    refusal = not_triggered(event, workflow.triggers)
    results: dict[str, str] = {}
    found: dict[str, Decision] = {}
    for name in workflow.order():
        job = workflow.jobs[name]
        run, reason = (False, refusal) if refusal else decide_job(workflow, job, event, results)
        results[name] = SKIPPED
        if run:
            supposed = FAILURE if name in failed else SUCCESS
            results[name] = result_of(job) if result_of else supposed
        found[name] = Decision(job, run, reason, results[name])
    return {name: found[name] for name in workflow.jobs}
