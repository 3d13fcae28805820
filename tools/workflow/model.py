"""The workflow file as a graph: triggers, jobs, needs, conditions, matrix, sessions.

Reads the YAML as nodes, so that everything wrong is said with file, line and column, and
checks all that ``plan`` relies on before anything is evaluated.
"""

from __future__ import annotations

import contextlib
import graphlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tools.core.errors import UsageError
from tools.core.settings import ROOT
from tools.workflow import expressions
from tools.workflow.expressions import ExpressionError
from tools.workflow.triggers import Trigger, expand_matrix

WORKFLOW = Path(".github/workflows/ci-cd.yml")

# "Context availability", jobs.<job_id>.if; vars and secrets are not known here.
JOB_NAMES = ("github", "needs", "inputs")
STEP_NAMES = (
    *JOB_NAMES,
    "env",
    "matrix",
    "job",
    "runner",
    "steps",
    "strategy",
    "secrets",
    "vars",
)


class WorkflowError(UsageError):
    """The workflow file is wrong at a place."""

    def __init__(
        self, path: Path, line: int, column: int, message: str, remedy: str = ""
    ) -> None:
        super().__init__(f"{path.as_posix()}:{line}:{column}: {message}", remedy)
        self.line = line
        self.column = column


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
        found = re.search(r"(?:^|\s)nox -s (\"[^\"]+\"|'[^']+'|\S+)", self.run)
        return found.group(1).strip("\"'") if found else ""


@dataclass(frozen=True)
class Matrix:
    """A job's matrix as it stands in the file."""

    axes: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    include: tuple[Mapping[str, Any], ...] = ()
    exclude: tuple[Mapping[str, Any], ...] = ()

    def expand(self) -> list[dict[str, Any]]:
        """All combinations; none for a job without a matrix."""
        return expand_matrix(self.axes, self.include, self.exclude)


@dataclass(frozen=True)
class Job:
    """One job.

    Attributes:
        name: Its key in the file.
        title: Its display name.
        needs: Jobs that must have ended before.
        condition: Its ``if`` without ``${{ }}``; empty for none.
        matrix: Its matrix.
        runs_on: The runner's label, as it stands there.
        steps: Its steps.
        line: Where it stands.
    """

    name: str
    title: str
    needs: tuple[str, ...]
    condition: str
    matrix: Matrix
    runs_on: str
    steps: tuple[Step, ...]
    line: int

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
        """The jobs so that each comes after those it needs, else in the file's order."""
        sorter = graphlib.TopologicalSorter({job.name: job.needs for job in self.jobs.values()})
        sorter.prepare()
        found: list[str] = []
        place = {name: index for index, name in enumerate(self.jobs)}
        while sorter.is_active():
            ready = sorted(sorter.get_ready(), key=place.__getitem__)
            found += ready
            sorter.done(*ready)
        return found

    def ancestors(self, name: str) -> set[str]:
        """All jobs that a job needs, directly or not."""
        found: set[str] = set()
        waiting = list(self.jobs[name].needs)
        while waiting:
            other = waiting.pop()
            if other not in found:
                found.add(other)
                waiting += self.jobs[other].needs
        return found


class _Reader:
    """Reads one file; its methods take the YAML nodes they are about."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def error(self, node: yaml.Node, message: str, remedy: str = "") -> WorkflowError:
        mark = node.start_mark
        return WorkflowError(self.path, mark.line + 1, mark.column + 1, message, remedy)

    def pairs(self, node: yaml.Node, what: str) -> dict[str, yaml.Node]:
        """A mapping's nodes by key."""
        if not isinstance(node, yaml.MappingNode):
            raise self.error(node, f"{what} is no mapping.", "Write it as key: value lines.")
        found: dict[str, yaml.Node] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise self.error(key, f"{what} has a key that is no text.")
            if key.value in found:
                raise self.error(key, f"{what} has {key.value!r} twice.", "Remove one.")
            found[key.value] = value
        return found

    def text(self, node: yaml.Node, what: str) -> str:
        """A scalar's text."""
        if not isinstance(node, yaml.ScalarNode):
            raise self.error(node, f"{what} is no text.")
        return str(node.value)

    def texts(self, node: yaml.Node, what: str) -> dict[str, yaml.Node]:
        """The entries of a list of texts, or of a single text, with their nodes."""
        if isinstance(node, yaml.ScalarNode):
            return {node.value: node}
        if not isinstance(node, yaml.SequenceNode):
            raise self.error(node, f"{what} is neither a name nor a list of names.")
        return {self.text(entry, what): entry for entry in node.value}

    def value(self, node: yaml.Node) -> Any:
        """The plain value of a node, as YAML reads it."""
        # A fresh constructor: construct_object wants to be asked with the root node.
        return yaml.SafeLoader("").construct_document(node)

    # -- expressions --

    def expression(self, node: yaml.Node, names: tuple[str, ...], what: str) -> str:
        """The text of an ``if``, without ``${{ }}``, checked."""
        text = self.text(node, what)
        try:
            found = expressions.embedded(text)
            whole = len(found) == 1 and text.strip().startswith("${{")
            if found and not (whole and text.strip().endswith("}}")):
                message = f"{what} mixes text and ${{{{ }}}}, so that it is always true."
                raise self.error(node, message, "Put all of it into one ${{ }}, or none.")
            offset, inner = found[0] if found else (0, text)
            self._check(inner, offset, names)
        except ExpressionError as error:
            raise self._placed(node, text, error, what) from None
        return inner.strip()

    @staticmethod
    def _check(inner: str, offset: int, names: tuple[str, ...]) -> None:
        try:
            tree = expressions.parse(inner)
            expressions.check(tree, inner, names, expressions.STATUS_FUNCTIONS)
        except ExpressionError as error:
            error.position += offset
            raise

    def _placed(
        self, node: yaml.Node, text: str, error: ExpressionError, what: str
    ) -> WorkflowError:
        """The error at its place in the file, as near as YAML's folding allows."""
        mark = node.start_mark
        line, column = mark.line + 1, mark.column + 1
        if node.end_mark.line == mark.line and isinstance(node, yaml.ScalarNode):
            quoted = node.style in {"'", '"'}
            column += error.position - 1 + quoted
        return WorkflowError(
            self.path, line, column, f"{error.reason} in {what}.", "Correct the expression."
        )

    # -- parts --

    def triggers(self, node: yaml.Node) -> tuple[Trigger, ...]:
        if not isinstance(node, yaml.MappingNode):
            return tuple(Trigger(name, {}) for name in self.texts(node, "on"))
        found = []
        for name, content in self.pairs(node, "on").items():
            filters: dict[str, tuple[str, ...]] = {}
            if isinstance(content, yaml.MappingNode):
                for key, entry in self.pairs(content, f"on.{name}").items():
                    if key.startswith(("branches", "tags")):
                        filters[key] = tuple(self.texts(entry, f"on.{name}.{key}"))
            found.append(Trigger(name, filters))
        return tuple(found)

    def matrix(self, node: yaml.Node, job: str) -> Matrix:
        axes: dict[str, tuple[Any, ...]] = {}
        extras: dict[str, tuple[Mapping[str, Any], ...]] = {"include": (), "exclude": ()}
        for key, entry in self.pairs(node, f"The matrix of {job}").items():
            if not isinstance(entry, yaml.SequenceNode):
                message = f"The matrix of {job} has {key!r}, which is no list."
                raise self.error(entry, message, "Write its values as a list: [a, b].")
            if key in extras:
                for part in entry.value:
                    self.pairs(part, f"An entry of {key} in the matrix of {job}")
                extras[key] = tuple(self.value(part) for part in entry.value)
            else:
                axes[key] = tuple(self.value(part) for part in entry.value)
        return Matrix(axes, extras["include"], extras["exclude"])

    def env(self, parts: Mapping[str, yaml.Node], what: str) -> dict[str, str]:
        if "env" not in parts:
            return {}
        found = self.pairs(parts["env"], f"env of {what}")
        return {
            key: self.text(value, f"{key} in env of {what}") for key, value in found.items()
        }

    def step(self, node: yaml.Node, job: str, env: Mapping[str, str]) -> Step:
        parts = self.pairs(node, f"A step of {job}")

        def text(key: str) -> str:
            return self.text(parts[key], f"{key} of a step of {job}") if key in parts else ""

        run, uses = text("run"), text("uses")
        if bool(run) == bool(uses):
            raise self.error(node, f"A step of {job} has neither run nor uses, or both.")
        name = text("name") or (run or uses).splitlines()[0]
        what = f"the condition of the step {name!r} of {job}"
        condition = self.expression(parts["if"], STEP_NAMES, what) if "if" in parts else ""
        own = self.env(parts, f"the step {name!r} of {job}")
        return Step(name, condition, run, uses, text("id"), {**env, **own})

    def job(self, name: str, node: yaml.Node, known: set[str]) -> Job:
        parts = self.pairs(node, f"The job {name}")
        needs = self.texts(parts["needs"], f"needs of {name}") if "needs" in parts else {}
        for other, place in needs.items():
            if other not in known:
                message = f"The job {name} needs {other!r}, which is no job."
                raise self.error(place, message, f"Use one of: {', '.join(sorted(known))}.")
        condition = ""
        if "if" in parts:
            condition = self.expression(parts["if"], JOB_NAMES, f"the condition of {name}")
        matrix = Matrix()
        if "strategy" in parts:
            strategy = self.pairs(parts["strategy"], f"strategy of {name}")
            if "matrix" in strategy:
                matrix = self.matrix(strategy["matrix"], name)
        steps = parts.get("steps")
        if not isinstance(steps, yaml.SequenceNode):
            raise self.error(steps or node, f"The job {name} has no list of steps.")
        title = self.text(parts["name"], f"name of {name}") if "name" in parts else name
        runner = parts.get("runs-on")
        return Job(
            name=name,
            title=title,
            needs=tuple(needs),
            condition=condition,
            matrix=matrix,
            runs_on=str(runner.value) if isinstance(runner, yaml.ScalarNode) else "",
            steps=tuple(self.step(step, name, self.env(parts, name)) for step in steps.value),
            line=node.start_mark.line,
        )

    def workflow(self, root: yaml.Node) -> Workflow:
        parts = self.pairs(root, "The workflow")
        for key in ("on", "jobs"):
            if key not in parts:
                raise self.error(root, f"The workflow has no {key!r}.")
        nodes = self.pairs(parts["jobs"], "jobs")
        known = set(nodes)
        jobs = {name: self.job(name, node, known) for name, node in nodes.items()}
        found = Workflow(self.path, self.triggers(parts["on"]), jobs)
        try:
            found.order()
        except graphlib.CycleError as error:
            cycle = list(reversed(error.args[1]))
            place = self.pairs(nodes[cycle[0]], cycle[0])["needs"]
            circle = " -> ".join(cycle)
            raise self.error(
                place, f"The jobs need each other in a circle: {circle}.", "Break it."
            ) from None
        return found


def _compose(text: str) -> yaml.Node | None:
    """The YAML nodes: by libyaml, which is fast; what it refuses by PyYAML's own parser,
    which says better what is wrong and where."""
    with contextlib.suppress(AttributeError, yaml.YAMLError):
        return yaml.compose(text, Loader=yaml.CSafeLoader)
    return yaml.compose(text, Loader=yaml.SafeLoader)


def parse(text: str, path: Path = WORKFLOW) -> Workflow:
    """The workflow that a text describes; ``path`` names it in errors.

    Raises:
        WorkflowError: It is no YAML, an unknown job is needed, jobs need each other in a
            circle, a matrix is no list, an expression cannot be read.
    """
    try:
        root = _compose(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        raise WorkflowError(
            path, line, column, f"This is no YAML: {error.problem}.", "Correct the line."
        ) from None
    except yaml.YAMLError as error:
        raise WorkflowError(path, 1, 1, f"This is no YAML: {error}.") from None
    if root is None:
        raise WorkflowError(path, 1, 1, "The workflow is empty.")
    return _Reader(path).workflow(root)


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


def session_steps(workflow: Workflow) -> Iterator[tuple[Job, Step]]:
    """All steps that run a nox session, with their jobs."""
    for job in workflow.jobs.values():
        for step in job.steps:
            if step.session:
                yield job, step
