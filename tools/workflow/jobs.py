"""Which commands a job is on this machine, and what is withheld from them (pure).

The commands are the steps of the workflow that run nox: their conditions, variables and
arguments are read from there. What publishes is told not to, unless that was asked for.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from tools.repo.event import Event
from tools.workflow import expressions
from tools.workflow.decisions import github_context, inputs_context
from tools.workflow.expressions import Scope
from tools.workflow.model import Job, Step
from tools.workflow.values import Value

IMAGE_SESSIONS = frozenset({"docker_dev", "docker_test", "prod_image"})
# These report on a run on Actions, or only look: here the run reports on itself.
LEFT_TO_CI = frozenset({"summary", "notify", "coverage", "audit", "sbom"})
# What a session gets instead of changing something outside of this machine.
WITHHELD = {
    "docker_dev": "--no-push",
    "prod_image": "--no-push",
    "release": "--dry-run",
    "cleanup": "--dry-run",
}
SYSTEMS = {"ubuntu": "Linux", "windows": "Windows", "macos": "Darwin"}

Outputs = Mapping[str, Mapping[str, str]]  # of jobs by name, or of steps by id


@dataclass(frozen=True)
class Obstacle:
    """Why something cannot be run here, what to do, and whether that is a failure."""

    reason: str
    remedy: str
    fails: bool = False


@dataclass(frozen=True)
class Policy:
    """What this machine may do, and what it cannot.

    Attributes:
        publish: Whether ``--publish`` was given.
        push: Whether images may go to the registry.
        obstacles: Sessions that cannot be run here.
        system: ``Linux``, ``Windows`` or ``Darwin``.
    """

    publish: bool = False
    push: bool = False
    obstacles: Mapping[str, Obstacle] = field(default_factory=dict)
    system: str = "Linux"

    def allows(self, session: str) -> bool:
        """Whether a session may change something outside of the checkout."""
        return self.push if _name(session) in IMAGE_SESSIONS else self.publish


@dataclass(frozen=True)
class MatrixJob:
    """One combination of a job's matrix, or a job without one, whose values are empty."""

    job: Job
    values: Mapping[str, Value] = field(default_factory=dict)
    obstacle: Obstacle | None = None

    @property
    def label(self) -> str:
        """``basic`` or ``linux-x64``: its values without the runner's name."""
        values = (str(value) for key, value in self.values.items() if key != "os")
        return re.sub(r"[^\w.-]", "-", "-".join(values))

    @property
    def name(self) -> str:
        """``test-docker-image.basic``, which also names its files."""
        return f"{self.job.name}.{self.label}" if self.label else self.job.name


@dataclass(frozen=True)
class Command:
    """A session with its arguments; ``step`` is the id of the step that it was."""

    session: str
    args: tuple[str, ...] = ()
    step: str = field(default="", compare=False)

    @property
    def words(self) -> list[str]:
        """What follows the program."""
        return ["-s", self.session, *(["--", *self.args] if self.args else [])]

    def line(self) -> str:
        """As one would type it."""
        return shlex.join(["nox", *self.words])


def matrix_jobs(job: Job, policy: Policy) -> list[MatrixJob]:
    """All combinations of a job's matrix, each with what keeps it from running here."""
    return [MatrixJob(job, row, _obstacle(job, row, policy)) for row in job.matrix or ({},)]


def _obstacle(job: Job, values: Mapping[str, Value], policy: Policy) -> Obstacle | None:
    system = SYSTEMS.get(str(values.get("os", "")).partition("-")[0], policy.system)
    if system != policy.system:
        return Obstacle(f"It runs on {system}, this is {policy.system}.", "CI runs it.")
    return next((policy.obstacles[s] for s in job.sessions if s in policy.obstacles), None)


def commands(
    matrix_job: MatrixJob, event: Event, policy: Policy, outputs: Outputs, steps: Outputs
) -> Iterator[Command]:
    """The commands of a matrix job, each decided when those before it have run.

    Args:
        matrix_job: Which.
        event: What triggered the run.
        policy: What this machine may do, and what it cannot.
        outputs: Outputs of the jobs before.
        steps: Outputs of its steps by id, which who runs the commands fills in.
    """
    before: list[Command] = []
    for step in matrix_job.job.steps:
        scope = _scope(matrix_job, event, outputs, steps)
        if _runs_here(step, scope):
            command = _command(step, scope, policy)
            # The workflow tries, tests, publishes and tests again; where nothing is
            # published, the second half is the first once more.
            if command not in before or policy.allows(command.session):
                before.append(command)
                yield command


def _name(session: str) -> str:
    """A session's name without its parameters."""
    return session.partition("(")[0]


def _scope(matrix_job: MatrixJob, event: Event, outputs: Outputs, steps: Outputs) -> Scope:
    """What a step's condition and variables can refer to."""
    left = {name: outputs.get(name, {}) for name in matrix_job.job.needs}
    contexts: dict[str, Value] = {
        "github": github_context(event),
        "inputs": inputs_context(event),
        "needs": {name: {"result": "success", "outputs": {**left[name]}} for name in left},
        "matrix": dict(matrix_job.values),
        "steps": {step: {"outputs": {**values}} for step, values in steps.items()},
        # Not known here, so that text with them is empty; secrets come by environment.
        **{name: {} for name in ("env", "job", "runner", "strategy", "secrets", "vars")},
    }
    return Scope(contexts, expressions.job_status([]))


def _runs_here(step: Step, scope: Scope) -> bool:
    """Whether a step is one of ours, and its condition holds."""
    if not step.session or _name(step.session) in LEFT_TO_CI:
        return False
    return not step.condition or expressions.truthy(expressions.evaluate(step.condition, scope))


def _command(step: Step, scope: Scope, policy: Policy) -> Command:
    """What a step is on this machine: its words, its variables put in."""

    def value(match: re.Match[str]) -> str:
        text = step.env.get(match[1], "")
        return expressions.to_string(expressions.evaluate_text(text, scope))

    words = [re.sub(r"\$\{?(\w+)\}?", value, word) for word in shlex.split(step.run)]
    session = words[words.index("-s") + 1]
    args = words[words.index("--") + 1 :] if "--" in words else []
    if "--digest" in args:
        at = args.index("--digest")
        # What was not pushed is known by its record instead.
        if not args[at + 1] or not (policy.push or "--archive" in args):
            del args[at : at + 2]
    withheld = "" if policy.allows(session) else WITHHELD.get(_name(session), "")
    if withheld and withheld not in args and "--output" not in args:
        args.append(withheld)
    return Command(session, tuple(args), step.ident)
