"""Workflow + event + failures -> which jobs run, and why. Pure.

Evaluates the conditions that stand in the workflow file, as GitHub does: a condition
without a status function has ``success()`` implied, and a job's status functions look at
all jobs it needs, directly or not.
"""

import contextlib
from collections.abc import Collection, Mapping
from typing import TypeAlias

from msgspec import Struct
from msgspec.structs import replace

from tools.core.errors import UsageError
from tools.repo.event import Event
from tools.workflow import contexts, expressions
from tools.workflow.contexts import Outputs
from tools.workflow.expressions import ExpressionError, Names, Node, parse, value_of
from tools.workflow.model import Job, Workflow, expand_matrix
from tools.workflow.triggers import not_triggered
from tools.workflow.values import to_string, truthy

Results: TypeAlias = Mapping[str, str]
SUCCESS, FAILURE, SKIPPED, CANCELLED = "success", "failure", "skipped", "cancelled"


class Decision(Struct, frozen=True):
    """What becomes of a job."""

    job: Job
    run: bool
    reason: str  # in the terms of its condition
    result: str  # ``success``, ``failure`` or ``skipped``, as far as it was supposed


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
    workflow: Workflow, job: Job, event: Event, results: Results, outputs: Outputs | None = None
) -> tuple[bool, str]:
    """Whether a job runs, and why, given the results and outputs of all jobs before it.

    Outputs are None where nothing has run: a condition that looks at them is an error.
    """
    ancestors = sorted(workflow.ancestors(job.name))
    status = expressions.job_status(results[name] for name in ancestors)
    holds, reason = True, "all it needs succeeded" if job.needs else "it needs nothing"
    if job.condition:
        names = {**contexts.of_job(workflow, job, event, results, outputs), **status}
        node = parse(job.condition)
        holds = truthy(expressions.evaluate(job.condition, names))
        reason = explain(node, names)
        if expressions.uses_status(job.condition):
            return holds, reason
    for name in ancestors:
        if results[name] != SUCCESS:
            return False, f"{name}, which it needs, ended with {results[name]}"
    return holds, reason


def complete(workflow: Workflow, job: Job, event: Event, results: Results) -> Job:
    """A job with its matrix, where expressions make that (UsageError if they look at outputs
    of other jobs, or what they make is not a matrix).
    """
    if job.open_strategy is None:
        return job
    names = contexts.of_job(workflow, job, event, results)
    strategy = expressions.evaluate_tree(job.open_strategy, names)
    try:
        if not isinstance(strategy, dict):
            raise ValueError("it is not an object")
        rows = tuple(expand_matrix(strategy.get("matrix")))
    except ValueError as error:
        raise UsageError(f"The matrix of the job {job.name}: {error}.") from error
    return replace(job, matrix=rows, open_strategy=None)


def tolerates(text: str, names: Names) -> bool:
    """Whether a job (a combination of its matrix) or step may fail: ``continue-on-error``. A
    job's failure is then a success for those that need it (actions/runner issue 1161).
    """
    return to_string(expressions.evaluate_text(text, names)) == "true"


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
        with expressions.naming(f"The job {name}"):
            job = workflow.jobs[name]
            decision = Decision(job, False, refusal, SKIPPED)
            if not refusal:
                decision = _decide(workflow, job, event, results, name in failed)
        results[name], decisions[name] = decision.result, decision
    return {name: decisions[name] for name in workflow.jobs}


def _decide(
    workflow: Workflow, job: Job, event: Event, results: Results, fails: bool
) -> Decision:
    run, reason = decide_job(workflow, job, event, results)
    if not run:
        return Decision(job, run, reason, SKIPPED)
    job = complete(workflow, job, event, results)
    names = contexts.of_job(workflow, job, event, results)
    rows = [{**names, "matrix": dict(row)} for row in job.matrix or ({},)]
    if fails and all(tolerates(job.tolerated, row) for row in rows):
        return Decision(job, run, f"{reason}; it may fail (continue-on-error)", SUCCESS)
    return Decision(job, run, reason, FAILURE if fails else SUCCESS)
