"""Which commands a job is on this machine, and what is withheld from them (pure).

The commands are the steps of the workflow that run nox: their conditions, variables and
arguments are read from there. What publishes is told not to, unless that was asked for.
"""

import platform
import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from tools.core.errors import PipelineError
from tools.repo.event import Event
from tools.runs.record import MatrixJobRecord
from tools.workflow import expressions
from tools.workflow.decisions import Outputs, event_contexts
from tools.workflow.expressions import Names
from tools.workflow.model import Job, Step
from tools.workflow.values import Value, to_string, truthy

WAITING = "waiting"
# These report on a run on Actions, or only look: here the run reports on itself.
LEFT_TO_CI = frozenset({"summary", "notify", "coverage", "audit", "sbom"})
# What a session gets instead of changing something outside of this machine.
NO_PUSH = {"docker_dev": "--no-push", "prod_image": "--no-push"}
NO_CHANGE = {"release": "--dry-run", "cleanup": "--dry-run"}
SYSTEMS = {"ubuntu": "Linux", "windows": "Windows", "macos": "Darwin"}


@dataclass(frozen=True)
class Policy:
    """What this machine may do, and which sessions it cannot run, and why."""

    publish: bool = False  # whether --publish was given
    push: bool = False  # whether images may go to the registry
    obstacles: Mapping[str, PipelineError] = field(default_factory=dict)


@dataclass
class MatrixJob:
    """One combination of a job's matrix, or a job without one, and what becomes of it."""

    job: Job
    values: Mapping[str, Value]
    obstacle: PipelineError | None
    record: MatrixJobRecord
    outputs: dict[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """``test-docker-image.basic``, which also names its files."""
        return ".".join(filter(None, (self.job.name, self.record.label)))


def matrix_jobs(job: Job, policy: Policy) -> Iterator[MatrixJob]:
    """All combinations of a job's matrix, each with what keeps it from running here."""
    obstacles = [policy.obstacles[name] for name in job.sessions if name in policy.obstacles]
    for row in job.matrix or ({},):
        here = platform.system()
        system = SYSTEMS.get(str(row.get("os", "")).partition("-")[0], here)
        elsewhere = PipelineError(f"It runs on {system}, this is {here}.", "CI runs it.")
        obstacle = next(iter(obstacles), None) if system == here else elsewhere
        # linux-x64: the runner's name would say it twice.
        label = "-".join(str(value) for key, value in row.items() if key != "os")
        record = MatrixJobRecord(re.sub(r"[^\w.-]", "-", label), WAITING)
        yield MatrixJob(job, row, obstacle, record)


def commands(
    matrix_job: MatrixJob, event: Event, policy: Policy, outputs: Outputs, steps: Outputs
) -> Iterator[tuple[str, list[str]]]:
    """The commands of a matrix job, each decided when those before it have run: the id of
    its step, and its words.

    ``outputs`` are of the jobs before, ``steps`` of its own steps: who runs the commands
    fills them in. The same command is not run twice: the workflow tests, publishes and
    tests again, and where nothing is published, that is the first test.
    """
    before: list[list[str]] = []
    for step in matrix_job.job.steps:
        if not step.session or step.session.partition("(")[0] in LEFT_TO_CI:
            continue
        names = _names(matrix_job, event, outputs, steps)
        if not truthy(expressions.evaluate(step.condition or "true", names)):
            continue
        words = _command(step, names, policy)
        if words not in before:
            before.append(words)
            yield step.ident, words


def _names(matrix_job: MatrixJob, event: Event, outputs: Outputs, steps: Outputs) -> Names:
    """What a step's condition and variables can refer to."""
    needs = matrix_job.job.needs
    contexts: dict[str, Value] = {
        **event_contexts(event),
        "needs": {n: {"result": "success", "outputs": {**outputs.get(n, {})}} for n in needs},
        "matrix": dict(matrix_job.values),
        "steps": {step: {"outputs": {**values}} for step, values in steps.items()},
        # Not known here, so that text with them is empty; secrets come by environment.
        **{name: {} for name in ("env", "job", "runner", "strategy", "secrets", "vars")},
    }
    return {**contexts, **expressions.job_status([])}


def _command(step: Step, names: Names, policy: Policy) -> list[str]:
    """What a step is on this machine: its words, its variables put in."""

    def value(match: re.Match[str]) -> str:
        text = step.env.get(match[1], "")
        return to_string(expressions.evaluate_text(text, names))

    words = [re.sub(r"\$\{?(\w+)\}?", value, word) for word in shlex.split(step.run)]
    session = words[words.index("-s") + 1]
    args = words[words.index("--") + 1 :] if "--" in words else []
    if "--digest" in args:
        at = args.index("--digest")
        # What was not pushed is known by its record instead.
        if not args[at + 1] or not (policy.push or "--archive" in args):
            del args[at : at + 2]
    withheld = ({} if policy.push else NO_PUSH) | ({} if policy.publish else NO_CHANGE)
    option = withheld.get(session)
    if option and option not in args and "--output" not in args:
        args.append(option)
    return ["nox", "-s", session, *(["--", *args] if args else [])]
