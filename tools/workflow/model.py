"""The workflow file as data: triggers, jobs, needs, conditions, matrix, steps.

What is wrong in the file by GitHub's schema is said by check-jsonschema, with the place;
here what ``plan`` relies on is read into types, and what is not understood is refused.
"""

import graphlib
import itertools
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import yaml
from msgspec import Struct, convert

from tools.core.errors import UsageError
from tools.core.settings import ROOT
from tools.workflow import commands, expressions
from tools.workflow.triggers import FILTERS, UNKNOWN, Trigger, pattern_regex
from tools.workflow.values import Value, to_number, to_string

WORKFLOW = Path(".github/workflows/ci-cd.yml")
STATUS = "success() failure() always() cancelled()"
# "Context availability": jobs.<job_id>.if, jobs.<job_id>.steps.if.
JOB_NAMES = f"github needs vars inputs {STATUS}".split()
STEP_NAMES = f"github needs strategy matrix job runner env vars steps inputs {STATUS}".split()
Row: TypeAlias = dict[str, Value]


# Our names of the keys that are words of Python, or say less than they mean.
_KEYS = {"ident": "id", "condition": "if", "tolerated": "continue-on-error"}
_KEYS |= {"folder": "working-directory", "runs_on": "runs-on"}
_JOB_KEYS = _KEYS | {"name": "key", "title": "name", "matrix": "rows"}


class Step(Struct, rename=_KEYS.get):
    """One step of a job; what is not given is empty, ``${{ }}`` is as it stands there."""

    name: str = ""
    ident: str = ""
    condition: str = ""  # without ``${{ }}``
    run: str = ""
    shell: str = ""
    folder: str = ""  # in which it runs
    uses: str = ""
    env: dict[str, str] = {}
    tolerated: str = ""  # whether it may fail

    def __post_init__(self) -> None:
        self.condition = _condition(self.condition, STEP_NAMES)

    @property
    def title(self) -> str:
        """What a person finds it by."""
        return self.name or self.ident or self.run or self.uses

    @property
    def sessions(self) -> tuple[str, ...]:
        """The nox sessions that it runs, as they stand there; none if that is not all it
        does, or not known before it runs.
        """
        try:
            return commands.parse(self.run).sessions
        except ValueError:
            return ()


class Job(Struct, rename=_JOB_KEYS.get):
    """One job; what is not given is empty."""

    name: str  # its key in the file
    needs: tuple[str, ...]
    matrix: tuple[dict[str, Any], ...]  # its combinations
    steps: tuple[Step, ...] = ()
    open_strategy: Any = None  # where expressions make the matrix
    uses: str = ""  # the workflow that it calls
    title: str = ""  # its name in the file, else its key
    condition: str = ""  # without ``${{ }}``
    runs_on: Any = ""
    defaults: Any = None  # of its steps, or all of the workflow's
    env: dict[str, str] = {}
    tolerated: str = ""  # whether it may fail

    def __post_init__(self) -> None:
        self.condition = _condition(self.condition, JOB_NAMES)
        self.title = self.title or self.name

    @property
    def sessions(self) -> tuple[str, ...]:
        """Names of the nox sessions that it runs, each once, without parameters."""
        named = [commands.base_name(one) for step in self.steps for one in step.sessions]
        return tuple(dict.fromkeys(named))


@dataclass(frozen=True)
class Workflow:
    """A workflow file."""

    path: Path  # relative to the repository's root
    title: str  # its name in the file, else its path
    triggers: tuple[Trigger, ...]
    jobs: Mapping[str, Job]  # in the file's order
    env: Mapping[str, str]

    def order(self) -> list[str]:
        """The jobs so that each comes after those it needs."""
        needs = {job.name: job.needs for job in self.jobs.values()}
        return list(graphlib.TopologicalSorter(needs).static_order())

    def ancestors(self, name: str) -> set[str]:
        """All jobs that a job needs, directly or not."""
        needs = self.jobs[name].needs
        return set(needs).union(*(self.ancestors(other) for other in needs))


def expand_matrix(matrix: object) -> list[Row]:
    """All combinations of a matrix, in GitHub's order.

    An entry of ``include`` is added to every combination whose original values it does
    not overwrite; if there is none, it is a combination of its own.

    Source: "Workflow syntax for GitHub Actions", ``jobs.<job_id>.strategy.matrix``.
    """

    axes = convert(matrix or {}, dict[str, list[Any]])
    include = convert(axes.pop("include", []), list[dict[str, Any]])
    exclude = convert(axes.pop("exclude", []), list[dict[str, Any]])
    rows = [dict(zip(axes, row, strict=True)) for row in itertools.product(*axes.values())]
    rows = [
        row for row in rows if axes and not any(out.items() <= row.items() for out in exclude)
    ]
    originals = list(rows)
    for extra in include:
        own = {key: extra[key] for key in extra if key in axes}
        takers = [row for row in originals if own.items() <= row.items()]
        for row in takers:
            row.update(extra)
        if not takers:
            rows.append(extra)
    return rows


# -- reading ----------------------------------------------------------------------------

_YAML = getattr(yaml, "CBaseLoader", yaml.BaseLoader)  # libyaml's is fast
_KEYWORDS: dict[str, Value] = dict.fromkeys(("", "~", "null", "Null", "NULL"))
_KEYWORDS |= dict.fromkeys(("true", "True", "TRUE"), True)
_KEYWORDS |= dict.fromkeys(("false", "False", "FALSE"), False)
_NUMBER = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|0[xo][0-9a-fA-F]+")


def _plain(node: yaml.Node, typed: bool = False) -> Value:
    """A node by YAML 1.2, as GitHub reads it (``on`` and dates are text), and then all
    scalars as text but those of a matrix.
    """
    if isinstance(node, yaml.ScalarNode):
        text: str = node.value
        scalar: Value = text
        if not node.style:  # without quotes
            scalar = to_number(text) if _NUMBER.fullmatch(text) else _KEYWORDS.get(text, text)
        return scalar if typed else to_string(scalar)
    if isinstance(node, yaml.SequenceNode):
        return [_plain(each, typed) for each in node.value]
    mapping: dict[str, Value] = {}
    for key, value in node.value:
        if str(key.value) in mapping or key.value == "<<":
            twice = f"{key.value!r} stands twice"
            wrong = "GitHub has anchors, but no <<" if key.value == "<<" else twice
            raise yaml.MarkedYAMLError(problem=wrong, problem_mark=key.start_mark)
        mapping[str(key.value)] = _plain(value, typed or key.value == "matrix")
    return mapping


def _condition(text: str, names: Collection[str]) -> str:
    """The text of an ``if`` without ``${{ }}``, checked."""
    whole = expressions.BRACES.fullmatch(text.strip())
    text = (whole[1] if whole else text).strip()
    if "${{" in text:
        raise ValueError("A condition that mixes text and ${{ }} is always true")
    try:
        if text:
            expressions.check(expressions.parse(text), names)
    except expressions.ExpressionError as error:
        raise ValueError(f"{error.message.rstrip('.')}: {text}") from None
    return text


def has_expression(value: object) -> bool:
    """Whether ``${{`` stands anywhere in it."""
    if isinstance(value, list | dict):
        return any(map(has_expression, value.values() if isinstance(value, dict) else value))
    return isinstance(value, str) and "${{" in value


def _texts(value: object) -> list[str]:
    """One text, or a list of them."""
    return convert(value if isinstance(value, list) else [value], list[str])


def _job(name: str, content: dict[str, object]) -> Job:
    try:
        if not {"steps", "uses"} & content.keys():
            raise ValueError("it has neither steps nor uses")
        strategy: object = content.get("strategy") or {}
        matrix = strategy.get("matrix") if isinstance(strategy, dict) else strategy
        read: dict[str, object] = {
            "key": name,
            "needs": _texts(content.get("needs") or []),
            "rows": [] if has_expression(matrix) else expand_matrix(matrix),
            "open_strategy": strategy if has_expression(matrix) else None,
        }
        return convert({**content, **read}, Job)
    except ValueError as error:
        raise ValueError(f"The job {name}: {error}") from error


def _trigger(name: str, content: object) -> Trigger:
    filters = content.items() if isinstance(content, dict) else ()
    known = FILTERS + UNKNOWN
    texts = {key: tuple(_texts(found)) for key, found in filters if key in known}
    for pattern in itertools.chain(*texts.values()):
        pattern_regex(pattern)
    return Trigger(name, texts)


class _File(Struct):
    on: object
    jobs: dict[str, dict[str, object]]
    name: str = ""
    env: dict[str, str] = {}
    defaults: object = None


def parse(text: str, path: Path = WORKFLOW) -> Workflow:
    """The workflow that a text describes; ``path`` names it in UsageErrors."""
    try:
        node = yaml.compose(text, Loader=_YAML)
        file = convert(_plain(node) if node else None, _File)
        on = file.on if isinstance(file.on, dict) else dict.fromkeys(_texts(file.on))
        above = {"defaults": file.defaults}
        jobs = {name: _job(name, above | content) for name, content in file.jobs.items()}
        triggers = tuple(_trigger(*entry) for entry in on.items())
        workflow = Workflow(path, file.name or path.as_posix(), triggers, jobs, file.env)
        if unknown := set(workflow.order()) - jobs.keys():
            raise ValueError(f"{min(unknown)!r}, which is needed, is not a job")
        return workflow
    except graphlib.CycleError as error:
        reason = f"The jobs need each other in a circle: {' -> '.join(error.args[1][::-1])}"
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        reason = f"Line {line} is not YAML: {error.problem}"
    except (yaml.YAMLError, RecursionError) as error:
        reason = f"It is not YAML: {error}"
    except ValueError as error:
        reason = str(error)
    remedy = "nox -s lint shows what is wrong, with the line."
    raise UsageError(f"{path.as_posix()}: {reason}.", remedy)


def load(root: Path = ROOT, path: Path = WORKFLOW) -> Workflow:
    """The workflow file of a checkout; see :func:`parse`."""
    try:
        return parse((root / path).read_text(encoding="utf-8"), path)
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"The workflow {path.as_posix()} cannot be read: {error}.") from error
