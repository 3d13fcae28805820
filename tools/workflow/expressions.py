"""GitHub Actions expressions, evaluated.

    python -m tools.workflow.expressions 'EXPRESSION' [--context FILE.json]

prints the value as JSON. The context file holds one object whose keys are the names
that the expression may use (``github``, ``needs``, ``matrix`` ...). What cannot be
evaluated exactly as on GitHub is refused with its place.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tools.core import cli, console
from tools.core.errors import UsageError
from tools.workflow import values
from tools.workflow.syntax import ExpressionError, Node, parse
from tools.workflow.values import Refused, Value, to_string, truthy

__all__ = ["ExpressionError", "Scope", "check", "evaluate", "evaluate_text", "job_status"]
__all__ += ["parse", "to_string", "truthy", "uses_status", "value_of"]


@dataclass(frozen=True)
class Scope:
    """What an expression can refer to.

    Attributes:
        contexts: ``github``, ``needs`` and the like, by name.
        status: The values of ``success()``, ``failure()``, ``always()``, ``cancelled()``;
            a function that is not among them is unknown here.
    """

    contexts: dict[str, Value] = field(default_factory=dict)
    status: Mapping[str, bool] = field(default_factory=dict)


# What becomes of the values of a part's parts.
_ACTIONS: dict[str, Callable[..., Value]] = {
    **values.COMPARISONS,
    "!": lambda value: not truthy(value),
    "index": values.item,
    "star": values.star,
}


def value_of(node: Node, scope: Scope) -> Value:
    """The value of a part of an expression.

    Raises:
        ExpressionError: It cannot be evaluated exactly as on GitHub.
    """
    if node.form == "literal":
        return node.constant
    if node.form == "name":
        return values.item(scope.contexts, node.name)
    if node.form in {"&&", "||"}:
        return _first(node, scope)
    if node.is_status:
        return scope.status[node.name]
    if node.name == "case":
        return _case(node, scope)
    action = values.FUNCTIONS[node.name] if node.form == "call" else _ACTIONS[node.form]
    parts = [value_of(part, scope) for part in node.parts]
    try:
        return action(*parts)
    except Refused as error:
        raise node.error(str(error)) from error


def _first(node: Node, scope: Scope) -> Value:
    """``a && b && c``: the first operand that decides, else the last."""
    value: Value = None
    for part in node.parts:
        value = value_of(part, scope)
        if truthy(value) is (node.form == "||"):
            break
    return value


def _case(node: Node, scope: Scope) -> Value:
    """The value after the first true predicate, else the last; no other is evaluated."""
    for predicate, value in zip(node.parts[:-1:2], node.parts[1::2], strict=True):
        holds = value_of(predicate, scope)
        if not isinstance(holds, bool):
            kind = values.kind(holds)
            raise predicate.error(f"A predicate of case is not a boolean but {kind}")
        if holds:
            return value_of(value, scope)
    return value_of(node.parts[-1], scope)


def check(node: Node, names: Iterable[str], functions: Collection[str]) -> None:
    """Refuse names and status functions that are not available.

    GitHub refuses them when it reads the workflow, even where they'd never be reached.

    Raises:
        ExpressionError: A name or function is not available here.
    """
    allowed = {name.lower() for name in names}
    for part in node.walk():
        if part.form == "name" and part.name not in allowed:
            raise part.error(f"There is no context {part.constant!r} here")
        if part.is_status and part.name not in functions:
            raise part.error(f"The function {part.constant} is not available here")


def uses_status(text: str) -> bool:
    """Whether a condition looks at the status, so that ``success()`` is not implied."""
    return any(part.is_status for part in parse(text).walk())


def evaluate(text: str, scope: Scope = Scope()) -> Value:
    """The value of an expression (without ``${{ }}``).

    Raises:
        ExpressionError: It cannot be read, or not be evaluated.
    """
    node = parse(text)
    check(node, scope.contexts, scope.status)
    return value_of(node, scope)


_BRACES = re.compile(r"\$\{\{((?:[^'}]|'(?:[^']|'')*'|\}(?!\}))*)\}\}")


def embedded(text: str) -> list[str]:
    """The expressions of ``${{ }}`` in a text.

    Raises:
        ExpressionError: A ``${{`` is not closed.
    """
    rest = _BRACES.sub(lambda match: " " * len(match.group()), text)
    if "${{" in rest:
        raise ExpressionError("The ${{ is not closed by }}", text, rest.index("${{") + 1)
    return _BRACES.findall(text)


def evaluate_text(text: str, scope: Scope = Scope()) -> Value:
    """The value of a text with ``${{ }}``: alone, the value itself; among text, a string.

    Raises:
        ExpressionError: An expression cannot be read or evaluated.
    """
    found = embedded(text)
    if len(found) == 1 and _BRACES.fullmatch(text.strip()):
        return evaluate(found[0], scope)
    return _BRACES.sub(lambda match: to_string(evaluate(match.group(1), scope)), text)


def job_status(results: Iterable[str], cancelled: bool = False) -> dict[str, bool]:
    """The status functions of a job, of the results of all jobs it needs, directly or not.

    A skipped ancestor makes ``success()`` false (actions/runner issue 491).
    """
    ended = list(results)
    return {
        "success": not cancelled and all(result == "success" for result in ended),
        "failure": not cancelled and any(result == "failure" for result in ended),
        "always": True,
        "cancelled": cancelled,
    }


@dataclass(frozen=True)
class Options:
    """What the command line asks for."""

    expression: str = cli.option("", "with or without ${{ }}", "expression")
    context: Path | None = cli.option(None, "JSON object of contexts", type=Path)


def _scope(path: Path | None) -> Scope:
    """The contexts of a file; the status functions follow ``needs`` and ``job.status``."""
    if path is None:
        return Scope({}, job_status([]))
    try:
        contexts = values.parse_json(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, Refused) as error:
        raise UsageError(f"The context file {path} cannot be read: {error}.") from error
    if not isinstance(contexts, dict):
        raise UsageError(f"The context file {path} is not a JSON object.")
    results = [values.item(need, "result") for need in values.star(contexts.get("needs"))]
    own = values.item(contexts.get("job"), "status")
    if own in {"success", "failure"}:
        results.append(own)
    return Scope(contexts, job_status(map(to_string, results), cancelled=own == "cancelled"))


def work(options: Options) -> None:
    """Print the value."""
    text = options.expression
    scope = _scope(options.context)
    value = evaluate_text(text, scope) if "${{" in text else evaluate(text, scope)
    try:
        console.emit_json(values.plain(value))
    except Refused as error:
        raise ExpressionError(str(error), text, 1) from error


def main(arguments: Sequence[str] | None = None) -> int:
    """``python -m tools.workflow.expressions``."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    # An expression may begin with a minus, which is not an option.
    negative = [word for word in words if re.match(r"-[\d.I]", word)]
    words = [word for word in words if word not in negative]
    words += ["--", *negative] if negative else []
    about = "Print the value of an Actions expression as JSON."
    return cli.main("python -m tools.workflow.expressions", about, Options, work, words)


if __name__ == "__main__":
    sys.exit(main())
