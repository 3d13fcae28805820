"""Which commands a job is on this machine, and what is withheld from them (pure).

The commands are the steps of the workflow that run nox: their conditions, variables and
arguments are read from there. What publishes is told not to, unless that was asked for.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tools.repo.event import Event
from tools.workflow import expressions
from tools.workflow.decisions import github_context, inputs_context
from tools.workflow.expressions import Scope
from tools.workflow.model import Job, Step
from tools.workflow.values import Value

IMAGE_SESSIONS = frozenset({"docker_dev", "docker_test", "prod_image"})
# These tell of a run on Actions, or only look: here the run tells of itself.
LEFT_TO_CI = frozenset({"summary", "notify", "coverage", "audit", "sbom"})
# These cannot even look without a token.
TOKEN_SESSIONS = frozenset({"cleanup"})
# Given to a session in place of what it would change outside of this machine.
WITHHELD = {
    "docker_dev": "--no-push",
    "prod_image": "--no-push",
    "release": "--dry-run",
    "cleanup": "--dry-run",
}
# Where nothing is published, secrets that publish are not even handed on.
PUBLISHING_SECRETS = (
    "DOCKER_HUB_USERNAME",
    "DOCKER_HUB_TOKEN",
    "SLACK_WEBHOOK_URL",
    "CODECOV_TOKEN",
)
_SYSTEMS = {"ubuntu": "Linux", "windows": "Windows", "macos": "Darwin"}


@dataclass(frozen=True)
class Policy:
    """What this machine can do, and what it may.

    Attributes:
        publish: Whether ``--publish`` was given.
        local_registry: Whether the registry is on the loopback range, so that a push
            leaves nothing outside of this machine.
        token: Whether there is a token for GitHub.
        engine: What is wrong with the Docker engine; empty if it answers.
        remedy: What to do about that.
        ci: Whether what cannot be run is a failure.
        system: ``Linux``, ``Windows`` or ``Darwin``.
    """

    publish: bool = False
    local_registry: bool = False
    token: bool = False
    engine: str = ""
    remedy: str = ""
    ci: bool = False
    system: str = "Linux"

    @property
    def may_push(self) -> bool:
        """Whether images may go to the registry."""
        return self.publish or self.local_registry

    def withholds(self, session: str) -> str:
        """The argument that keeps a session from publishing; empty if it may."""
        if session in IMAGE_SESSIONS:
            return "" if self.may_push else WITHHELD.get(session, "")
        return "" if self.publish and self.token else WITHHELD.get(session, "")


@dataclass(frozen=True)
class Leg:
    """One combination of a job's matrix.

    Attributes:
        job: The job.
        values: Its values; empty for a job without a matrix.
        not_run: Why it cannot be run here; empty if it can.
        remedy: What to do about that.
    """

    job: Job
    values: Mapping[str, Any] = field(default_factory=dict)
    not_run: str = ""
    remedy: str = ""

    @property
    def label(self) -> str:
        """``basic`` or ``linux-x64``: its values without the runner's name."""
        return "-".join(str(value) for key, value in self.values.items() if key != "os")

    @property
    def title(self) -> str:
        """``test-docker-image (basic)``."""
        return f"{self.job.name} ({self.label})" if self.label else self.job.name

    @property
    def file_name(self) -> str:
        """Name of its log, without suffix."""
        return f"{self.job.name}.{self.label}" if self.label else self.job.name


@dataclass(frozen=True)
class Command:
    """A session with its arguments."""

    session: str
    arguments: tuple[str, ...]
    ident: str = ""

    def line(self) -> str:
        """As one would type it."""
        given = ["--", *self.arguments] if self.arguments else []
        return shlex.join(["nox", "-s", self.session, *given])


def step_scope(
    leg: Leg,
    event: Event,
    outputs: Mapping[str, Mapping[str, str]],
    steps: Mapping[str, Mapping[str, str]],
) -> Scope:
    """What a step's condition and variables can refer to.

    Args:
        leg: Where the step is.
        event: What triggered the run.
        outputs: Outputs of the jobs before.
        steps: Outputs of the steps before, by id.
    """
    needs: dict[str, Value] = {
        n: {"result": "success", "outputs": dict(outputs.get(n, {}))} for n in leg.job.needs
    }
    contexts: dict[str, Value] = {
        "github": github_context(event),
        "inputs": inputs_context(event),
        "needs": needs,
        "matrix": dict(leg.values),
        "steps": {ident: {"outputs": dict(found)} for ident, found in steps.items()},
        # Not known here, so that text with them is empty; secrets come by environment.
        **{name: {} for name in ("env", "job", "runner", "strategy", "secrets", "vars")},
    }
    return Scope(contexts, expressions.job_status([]))


def runs_here(step: Step, scope: Scope) -> bool:
    """Whether a step is one of ours, and its condition holds."""
    session = step.session.partition("(")[0]
    if not session or session in LEFT_TO_CI:
        return False
    return not step.condition or expressions.truthy(expressions.evaluate(step.condition, scope))


def _words(step: Step, scope: Scope) -> list[str]:
    """The words of what a step runs, its variables put in."""

    def value(match: re.Match[str]) -> str:
        text = step.env.get(match.group(1), "")
        return expressions.to_string(expressions.evaluate_text(text, scope))

    return [re.sub(r"\$\{?(\w+)\}?", value, word) for word in shlex.split(step.run)]


def command_of(step: Step, scope: Scope, policy: Policy) -> Command:
    """What a step is on this machine.

    An empty digest is left out: the image was not pushed, and is found by its record.
    """
    words = _words(step, scope)
    session = words[words.index("-s") + 1]
    given = words[words.index("--") + 1 :] if "--" in words else []
    if "--digest" in given and (not policy.may_push or not given[given.index("--digest") + 1]):
        at = given.index("--digest")
        if "--archive" not in given or not given[at + 1]:
            del given[at : at + 2]
    withheld = policy.withholds(session.partition("(")[0])
    if withheld and withheld not in given and "--output" not in given:
        given.append(withheld)
    return Command(session, tuple(given), step.ident)


def is_repeated(command: Command, before: Sequence[Command]) -> bool:
    """Whether a command was given before, with nothing different built since.

    The workflow builds, tests, pushes and tests again; where nothing is pushed, the
    second half is the first once more.
    """
    same = [index for index, old in enumerate(before) if old.line() == command.line()]
    if not same:
        return False
    since = before[same[-1] + 1 :]
    return not any(old.session in WITHHELD and old.line() != command.line() for old in since)


def _refusal(job: Job, values: Mapping[str, Any], policy: Policy) -> tuple[str, str]:
    """Why a leg cannot be run here, and the remedy; empty if it can."""
    runner = re.sub(r"\$\{\{.*\}\}", str(values.get("os", "")), job.runs_on)
    wanted = next((system for name, system in _SYSTEMS.items() if runner.startswith(name)), "")
    if values.get("os") and wanted and wanted != policy.system:
        return f"it runs on {wanted}, this is {policy.system}", "CI does."
    if policy.engine and IMAGE_SESSIONS & set(job.sessions):
        return policy.engine, policy.remedy
    if TOKEN_SESSIONS & set(job.sessions) and not policy.token and not policy.ci:
        return "there is no token for GitHub", "Set GH_TOKEN to see what it would do."
    return "", ""


def legs_of(job: Job, policy: Policy) -> list[Leg]:
    """The legs of a job, those that cannot be run here with the reason."""
    found = []
    for values in job.matrix or [{}]:
        reason, remedy = _refusal(job, values, policy)
        found.append(Leg(job, values, reason, remedy))
    return found
