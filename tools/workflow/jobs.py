"""Which commands a job is on this machine, and what is withheld from them (pure).

The commands are the steps of the workflow that run nox: their conditions, variables and
arguments are read from there. What publishes is told not to, unless that was asked for. A
step that is anything else is refused by name: what was not run is no success.
"""

import os
import platform
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from msgspec import Struct

from tools.core.errors import PipelineError, UsageError
from tools.runs.record import MatrixJobRecord
from tools.workflow import commands, contexts, expressions
from tools.workflow.decisions import FAILURE, SUCCESS, tolerates
from tools.workflow.expressions import ExpressionError, Names
from tools.workflow.model import Job, Step, Workflow
from tools.workflow.values import Closed, Value, to_string, truthy

WAITING = "waiting"
# These report on a run on Actions, or only look: here the run reports on itself.
LEFT_TO_CI = frozenset({"summary", "notify", "coverage", "audit", "sbom"})
# Actions that prepare a runner, or hand on what is here already. Add one to it if the
# sessions after it need nothing of what it does.
LEFT_OUT = re.compile(
    r"actions/(checkout|setup-python|cache|upload-artifact|download-artifact|attest)@.*"
    r"|docker/setup-buildx-action@.*|crazy-max/ghaction-github-runtime@.*"
    r"|\./\.github/actions/setup"
)
SHELLS = ("", "bash", "sh", "pwsh")  # which split such a line alike
# What a session gets instead of changing something outside of this machine.
NO_PUSH = {"docker_dev": "--no-push", "prod_image": "--no-push"}
NO_CHANGE = {"release": "--dry-run", "cleanup": "--dry-run"}
# The first part of a label of runners, for platform.system().
SYSTEMS = {"ubuntu": "Linux", "linux": "Linux", "windows": "Windows", "macos": "Darwin"}


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
    steps: dict[str, Value] = field(default_factory=dict)  # the context of that name
    failed: bool = False  # whether a step failed that may not

    def note(self, command: "Command", outputs: Mapping[str, str], code: int) -> None:
        """Remember what a command left."""
        self.outputs |= outputs
        ended = FAILURE if code else SUCCESS
        self.failed = self.failed or bool(code) and not command.tolerated
        conclusion = SUCCESS if command.tolerated else ended
        step: Value = {"outputs": {**outputs}, "outcome": ended, "conclusion": conclusion}
        self.steps[command.step.ident] = step

    @property
    def name(self) -> str:
        """``test-docker-image.basic``, which also names its files."""
        return ".".join(filter(None, (self.job.name, self.record.label)))


class Command(Struct, frozen=True):
    """One call of nox for one session."""

    step: Step
    words: list[str]
    tolerated: bool  # whether it may fail


def matrix_jobs(job: Job, policy: Policy, names: Names) -> Iterator[MatrixJob]:
    """All combinations of a job's matrix, each with what keeps it from running here; ``names``
    are those of the job.
    """
    obstacles = [policy.obstacles[name] for name in job.sessions if name in policy.obstacles]
    for row in job.matrix or ({},):
        here = f"{platform.system()} {platform.machine()}"
        system = _system(job, {**names, "matrix": dict(row)})
        elsewhere = PipelineError(f"It runs on {system}, this is {here}.", "CI runs it.")
        obstacle = next(iter(obstacles), None) if here.startswith(system) else elsewhere
        # linux-x64: the runner's name would say it twice.
        label = "-".join(str(value) for key, value in row.items() if key != "os")
        record = MatrixJobRecord(re.sub(r"[^\w.-]", "-", label), WAITING)
        yield MatrixJob(job, row, obstacle, record)


def _system(job: Job, names: Names) -> str:
    """The system of the runners that a job asks for, and the machine where their labels name
    that (``ubuntu-24.04-arm``); empty if they name neither.
    """
    with expressions.naming(f"The job {job.name}, runs-on"):
        labels = expressions.evaluate_tree(job.runs_on, names)
    labels = labels.get("labels") if isinstance(labels, dict) else labels
    listed = labels if isinstance(labels, list) else [labels]
    words = [str(one).lower().split("-") for one in listed]
    known = [one for one in words if one[0] in SYSTEMS]
    return SYSTEMS[known[0][0]] + " aarch64" * ("arm" in known[0]) if known else ""


def job_commands(
    workflow: Workflow, one: MatrixJob, names: Names, policy: Policy
) -> Iterator[Command]:
    """The commands of a matrix job, each decided when those before it have run; a UsageError
    names the step that is not understood.

    ``names`` are those of the job; what its steps left, who runs the commands fills in. The
    same command is not run twice: the workflow tests, publishes and tests again, and where
    nothing is published, that is the first test.
    """
    job, before = one.job, list[list[str]]()
    if job.uses or job.defaults or job.open_strategy is not None:
        why = f"it calls the workflow {job.uses}" if job.uses else "its defaults or matrix"
        raise UsageError(f"The job {job.name} is not understood here: {why}.")
    for step in job.steps:
        try:
            found = list(_step_commands(workflow, one, step, names, policy))
        except (ValueError, ExpressionError) as error:
            why = error.message if isinstance(error, ExpressionError) else f"{error}."
            raise UsageError(
                f"The job {job.name}, step {step.title!r}, is not understood here: {why}",
                'A step is one "nox -s SESSION"; docs/workflow.md has what else is.',
            ) from error
        for command in found:
            if command.words not in before:
                before.append(command.words)
                yield command


def _step_commands(
    workflow: Workflow, one: MatrixJob, step: Step, names: Names, policy: Policy
) -> Iterator[Command]:
    """What a step is on this machine: nothing if its condition does not hold."""
    if LEFT_OUT.fullmatch(step.uses) or step.sessions and LEFT_TO_CI.issuperset(step.sessions):
        one.steps[step.ident] = Closed("its step is left out here", {"outcome": SUCCESS})
        return
    names, env = _step_names(workflow, one, step, names)
    status = expressions.uses_status(step.condition) or names["success()"]
    if not status or not truthy(expressions.evaluate(step.condition or "true", names)):
        return
    if step.uses:
        raise ValueError(f"the action {step.uses} has no counterpart (LEFT_OUT in jobs.py)")
    if step.shell not in SHELLS or step.folder not in ("", "."):
        raise ValueError(f"it runs in {step.folder or step.shell}")

    def value(name: str) -> str:
        if name not in env:
            raise ValueError(f"the workflow sets no variable {name}")
        return to_string(env[name])

    call = commands.parse(to_string(expressions.evaluate_text(step.run, names)), value)
    for session in call.sessions:
        if commands.base_name(session) not in LEFT_TO_CI:
            words = _words(session, list(call.args), policy)
            yield Command(step, words, tolerates(step.tolerated, names))


def _step_names(
    workflow: Workflow, one: MatrixJob, step: Step, names: Names
) -> tuple[Names, dict[str, Value]]:
    """What a step can refer to, and its variables."""
    result = FAILURE if one.failed else SUCCESS
    names = {
        **names,
        **contexts.of_runner(os.environ),
        **expressions.job_status([result]),
        "matrix": dict(one.values),
        "steps": one.steps,
        "strategy": Closed("it is known on GitHub alone", {}),
        "job": Closed("it is known on GitHub alone", {"status": result}),
    }
    env: dict[str, Value] = {}
    for level in (workflow.env, one.job.env, step.env):
        names["env"] = Closed("the workflow sets no such variable", env)
        env |= {k: expressions.evaluate_text(text, names) for k, text in level.items()}
    names["env"] = Closed("the workflow sets no such variable", env)
    return names, env


def _words(session: str, args: list[str], policy: Policy) -> list[str]:
    """The command of a session, with what publishes withheld."""
    if "--digest" in args[:-1]:
        at = args.index("--digest")
        # What was not pushed is known by its record instead.
        if not args[at + 1] or not (policy.push or "--archive" in args):
            del args[at : at + 2]
    withheld = ({} if policy.push else NO_PUSH) | ({} if policy.publish else NO_CHANGE)
    option = withheld.get(commands.base_name(session))
    # The last counts; an archive is written, whatever else is said.
    if option and args[-1:] != [option] and "--output" not in args:
        args.append(option)
    return ["nox", "-s", session, *(["--", *args] if args else [])]
