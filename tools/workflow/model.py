"""The workflow file as data: triggers, jobs, needs, conditions, matrix, steps.

What is wrong in the file by GitHub's schema is said by check-jsonschema, with the place;
here everything that ``plan`` relies on is read into types, and the rest is refused.
"""

from __future__ import annotations

import graphlib
import itertools
import re
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from tools.core.errors import UsageError
from tools.core.settings import ROOT
from tools.workflow import expressions
from tools.workflow.syntax import STATUS_FUNCTIONS, ExpressionError
from tools.workflow.triggers import Trigger
from tools.workflow.values import Refused, Value, parse_number, to_string

try:  # libyaml, which is fast
    from yaml import CSafeLoader as _Yaml
except ImportError:
    from yaml import SafeLoader as _Yaml  # type: ignore[assignment]

WORKFLOW = Path(".github/workflows/ci-cd.yml")

# "Context availability", jobs.<job_id>.if; vars and secrets are not known here.
JOB_NAMES = ("github", "needs", "inputs")
STEP_NAMES = JOB_NAMES + (
    "env",
    "job",
    "matrix",
    "runner",
    "secrets",
    "steps",
    "strategy",
    "vars",
)

Row = dict[str, Value]


class WorkflowError(UsageError):
    """The workflow file is wrong, or says what is not understood here."""


@dataclass(frozen=True)
class Step:
    """One step of a job.

    Attributes:
        name: Its name, else the first line of what it runs.
        condition: Its ``if`` without ``${{ }}``; empty for none.
        run: What it runs in a shell.
        uses: The action it uses.
        ident: Its id; empty for none.
        env: Its variables, and those of its job, with ``${{ }}`` as it stands there.
    """

    name: str
    condition: str = ""
    run: str = ""
    uses: str = ""
    ident: str = ""
    env: Mapping[str, str] = field(default_factory=dict)

    @property
    def session(self) -> str:
        """The nox session that it runs, as it stands there; empty for none."""
        match = re.search(r"(?:^|\s)nox -s (\"[^\"]+\"|'[^']+'|\S+)", self.run)
        return match.group(1).strip("\"'") if match else ""


@dataclass(frozen=True)
class Job:
    """One job.

    Attributes:
        name: Its key in the file.
        title: Its display name.
        needs: Jobs that must have ended before.
        condition: Its ``if`` without ``${{ }}``; empty for none.
        matrix: The combinations of its matrix; empty for a job without one.
        runs_on: The runner's label, as it stands there.
        steps: Its steps.
    """

    name: str
    title: str
    needs: tuple[str, ...]
    condition: str
    matrix: tuple[Row, ...]
    runs_on: str
    steps: tuple[Step, ...]

    @property
    def sessions(self) -> tuple[str, ...]:
        """Names of the nox sessions that it runs, each once, without parameters."""
        names = (step.session.partition("(")[0] for step in self.steps if step.session)
        return tuple(dict.fromkeys(names))


@dataclass(frozen=True)
class Workflow:
    """A workflow file.

    Attributes:
        path: Relative to the repository's root.
        triggers: What starts it.
        jobs: By name, in the file's order.
    """

    path: Path
    triggers: tuple[Trigger, ...]
    jobs: Mapping[str, Job]

    def order(self) -> list[str]:
        """The jobs so that each comes after those it needs."""
        needs = {job.name: job.needs for job in self.jobs.values()}
        return list(graphlib.TopologicalSorter(needs).static_order())

    def ancestors(self, name: str) -> set[str]:
        """All jobs that a job needs, directly or not."""
        needs = self.jobs[name].needs
        return set(needs).union(*(self.ancestors(other) for other in needs))


def expand_matrix(
    axes: Mapping[str, Sequence[Value]],
    include: Sequence[Row] = (),
    exclude: Sequence[Row] = (),
) -> list[Row]:
    """All combinations of a matrix, in GitHub's order.

    An entry of ``include`` is added to every combination whose original values it does
    not overwrite; if there is none, it is a combination of its own.

    Source: "Workflow syntax for GitHub Actions", ``jobs.<job_id>.strategy.matrix``.
    """

    def fits(row: Row, part: Row) -> bool:
        return all(key in row and row[key] == part[key] for key in part)

    rows = [dict(zip(axes, row, strict=True)) for row in itertools.product(*axes.values())]
    rows = [row for row in rows if axes and not any(fits(row, out) for out in exclude)]
    originals = [dict(row) for row in rows]
    for extra in include:
        own = {key: extra[key] for key in extra if key in axes}
        takers = [row for row, first in zip(rows, originals, strict=False) if fits(first, own)]
        for row in takers:
            row.update(extra)
        if not takers:
            rows.append(dict(extra))
    return rows


# -- YAML -------------------------------------------------------------------------------


class _Loader(_Yaml):
    """YAML 1.2's core schema, as GitHub reads it: ``on`` and dates are text."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}

    def construct_mapping(
        self, node: yaml.MappingNode, deep: bool = False
    ) -> dict[Hashable, object]:
        keys: list[object] = []
        for key, _ in node.value:
            if key.value in keys:
                raise Refused(f"Line {key.start_mark.line + 1}: {key.value!r} stands twice")
            keys.append(key.value)
        return super().construct_mapping(node, deep)


def _construct_number(_: _Loader, node: yaml.ScalarNode) -> float:
    number = parse_number(str(node.value))
    return int(number) if number.is_integer() else number


_TAG = "tag:yaml.org,2002:"
_PLAIN = {
    "null": r"null|Null|NULL|~|",
    "bool": r"true|True|TRUE|false|False|FALSE",
    "float": r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|0[xo][0-9a-fA-F]+",
}
for _name, _form in _PLAIN.items():
    _Loader.add_implicit_resolver(_TAG + _name, re.compile(rf"(?:{_form})\Z"), None)
# Whatever else has a tag (!!binary, !!timestamp ...) is refused.
_KNOWN = (None, *(_TAG + name for name in ("null", "bool", "str", "seq", "map")))
_Loader.yaml_constructors = {tag: _Yaml.yaml_constructors[tag] for tag in _KNOWN}
_Loader.add_constructor(_TAG + "float", _construct_number)


# -- reading: each takes a value and what it is, and refuses any other form ----------------


def _object(value: Value, what: str, known: str = "") -> dict[str, Value]:
    if not isinstance(value, dict):
        raise Refused(f"{what} is not a mapping")
    for key in value:
        if known and key not in known.split():
            raise Refused(f"{what} has {key!r}, which is not understood here")
    return value


def _list(value: Value, what: str) -> list[Value]:
    if not isinstance(value, list):
        raise Refused(f"{what} is not a list")
    return value


def _text(value: Value, what: str) -> str:
    if isinstance(value, list | dict):
        raise Refused(f"{what} is not text")
    return to_string(value)


def _texts(value: Value, what: str) -> tuple[str, ...]:
    return tuple(_text(one, what) for one in (value if isinstance(value, list) else [value]))


def _env(value: Value, what: str) -> dict[str, str]:
    return {key: _text(one, what) for key, one in _object(value or {}, what).items()}


def _condition(value: Value, names: Sequence[str], what: str) -> str:
    """The text of an ``if``, without ``${{ }}``, checked."""
    text = _text(value, what).strip()
    if text.startswith("${{") and text.endswith("}}") and text.count("${{") == 1:
        text = text[3:-2].strip()
    elif "${{" in text:
        raise Refused(f"{what} mixes text and ${{{{ }}}}, so that it is always true")
    try:
        if text:
            expressions.check(expressions.parse(text), names, STATUS_FUNCTIONS)
    except ExpressionError as error:
        raise Refused(f"{what}: {error.message.rstrip('.')}: {text}") from None
    return text


def _triggers(value: Value) -> tuple[Trigger, ...]:
    if not value:
        raise Refused("The workflow has no 'on'")
    if not isinstance(value, dict):
        return tuple(Trigger(name, {}) for name in _texts(value, "on"))
    triggers = []
    for name, content in value.items():
        filters = {
            key: _texts(patterns, f"on.{name}.{key}")
            for key, patterns in (content if isinstance(content, dict) else {}).items()
            if key.startswith(("branches", "tags"))
        }
        triggers.append(Trigger(name, filters))
    return tuple(triggers)


def _matrix(value: Value, what: str) -> tuple[Row, ...]:
    axes = {
        key: _list(axis, f"{what} has {key!r}, which")
        for key, axis in _object(value or {}, what).items()
    }
    include, exclude = (
        [_object(row, f"{what}, {key},") for row in axes.pop(key, [])]
        for key in ("include", "exclude")
    )
    return tuple(expand_matrix(axes, include, exclude))


def _step(value: Value, job: str, env: Mapping[str, str]) -> Step:
    parts = _object(value, f"A step of {job}")
    run, uses = (_text(parts.get(key), f"{key} of a step of {job}") for key in ("run", "uses"))
    if bool(run) == bool(uses):
        raise Refused(f"A step of {job} has neither run nor uses, or both")
    name = _text(parts.get("name"), f"A name in {job}") or (run or uses).splitlines()[0]
    what = f"the step {name!r} of {job}"
    condition = _condition(parts.get("if"), STEP_NAMES, f"The condition of {what}")
    ident = _text(parts.get("id"), f"The id of {what}")
    return Step(name, condition, run, uses, ident, {**env, **_env(parts.get("env"), what)})


_JOB = """name needs if runs-on permissions environment concurrency outputs env defaults steps
timeout-minutes strategy container services"""


def _job(name: str, value: Value, known: Mapping[str, Value]) -> Job:
    parts = _object(value, f"The job {name}", _JOB)
    needs = _texts(parts.get("needs", []), f"needs of {name}")
    for other in needs:
        if other not in known:
            raise Refused(f"The job {name} needs {other!r}, which is not a job")
    strategy = _object(parts.get("strategy") or {}, f"strategy of {name}")
    env = _env(parts.get("env"), f"env of {name}")
    steps = _list(parts.get("steps"), f"steps of {name}")
    runner = parts.get("runs-on")
    return Job(
        name=name,
        title=_text(parts.get("name"), f"The name of {name}") or name,
        needs=needs,
        condition=_condition(parts.get("if"), JOB_NAMES, f"The condition of {name}"),
        matrix=_matrix(strategy.get("matrix"), f"The matrix of {name}"),
        runs_on=runner if isinstance(runner, str) else "",
        steps=tuple(_step(step, name, env) for step in steps),
    )


def parse(text: str, path: Path = WORKFLOW) -> Workflow:
    """The workflow that a text describes; ``path`` names it in errors.

    Raises:
        WorkflowError: It is not YAML, an unknown job is needed, jobs need each other in a
            circle, or something is not understood here.
    """
    try:
        data = yaml.load(text, Loader=_Loader)  # nosec B506: it is a SafeLoader
        root = _object(data, "The workflow")
        jobs = _object(root.get("jobs"), "jobs")
        workflow = Workflow(
            path,
            _triggers(root.get("on")),
            {name: _job(name, job, jobs) for name, job in jobs.items()},
        )
        workflow.order()
    except graphlib.CycleError as error:
        circle = " -> ".join(reversed(error.args[1]))
        reason = f"The jobs need each other in a circle: {circle}"
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        reason = f"Line {line} is not YAML: {error.problem}"
    except (yaml.YAMLError, RecursionError) as error:
        reason = f"It is not YAML: {error}"
    except Refused as error:
        reason = str(error)
    else:
        return workflow
    raise WorkflowError(
        f"{path.as_posix()}: {reason}.", "nox -s lint shows what is wrong, with the line."
    )


def load(root: Path = ROOT, path: Path = WORKFLOW) -> Workflow:
    """The workflow file of a checkout.

    Raises:
        WorkflowError: See :func:`parse`.
        UsageError: The file cannot be read.
    """
    try:
        text = (root / path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"The workflow {path.as_posix()} cannot be read: {error}.", "Check it out again."
        ) from error
    return parse(text, path)
