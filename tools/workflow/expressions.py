"""GitHub Actions expressions: a text becomes a tree, the tree a value.

    python -m tools.workflow.expressions 'EXPRESSION' [--context FILE.json]

prints the value as JSON. The context file holds one object whose keys are the names
that the expression may use (``github``, ``needs``, ``matrix`` ...). What is wrong, and what
cannot be evaluated exactly as on GitHub, is an ExpressionError with its place.

Sources: "Evaluate expressions in workflows and actions"; actions/runner,
``src/Sdk/Expressions`` (``LexicalAnalyzer.cs``, ``Token.cs``, ``ExpressionConstants.cs``).
"""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeAlias, cast

from msgspec import Struct, convert

from tools.core import cli, console
from tools.core.errors import UsageError
from tools.workflow import values
from tools.workflow.values import FUNCTIONS, Value, to_number, to_string, truthy

# What an expression can refer to: contexts, and status functions with their parentheses.
Names: TypeAlias = Mapping[str, Value]
MAX_DEPTH = 50  # levels; it and the length are GitHub's limits


class ExpressionError(UsageError):
    """An expression that cannot be read or evaluated; ``position`` counts from 1."""

    def __init__(self, reason: str, expression: str, position: int) -> None:
        shown = len(expression) <= 200 and "\n" not in expression
        detail = f"  {expression}\n  {' ' * (position - 1)}^" if shown else ""
        super().__init__(f"{reason} at position {position} of the expression.", detail=detail)
        self.position = position


@contextmanager
def naming(what: str) -> Iterator[None]:
    """What is wrong in an expression says where that stands."""
    try:
        yield
    except ExpressionError as error:
        error.message = f"{what}: {error.message}"
        raise


class Node(Struct, frozen=True, eq=False):
    """A part of an expression."""

    form: str  # ``literal``, ``name``, ``call``, or its operator, also [] and .*
    text: str  # the whole expression; the part is text[start:end]
    start: int
    end: int
    parts: tuple[Node, ...] = ()
    name: str = ""  # in small letters; a status function is the name ``success()``
    value: Value = None  # of a literal

    @property
    def source(self) -> str:
        """The part as it is written."""
        return self.text[self.start : self.end]

    def walk(self) -> Iterator[Node]:
        """The part, and all that it is made of."""
        yield self
        for part in self.parts:
            yield from part.walk()

    def error(self, reason: str) -> ExpressionError:
        """An error at its place."""
        return ExpressionError(reason, self.text, self.start + 1)


_PRECEDENCE = {"||": 1, "&&": 2, "==": 3, "!=": 3, ">": 4, ">=": 4, "<": 4, "<=": 4}
_KEYWORDS = {"null": None, "true": True, "false": False, "NaN": math.nan, "Infinity": math.inf}
_TOKEN = re.compile(
    r"""\s*(?:
    (?P<string>'(?:[^']|'')*')
    | (?P<number>(?:[-+]|\.?[0-9])[^()\[\],!<>=&|\s]*)
    | (?P<word>[A-Za-z_][\w-]*)
    | (?P<mark>&&|\|\||[=!]=|[<>]=?|[!()\[\],.*])
    | (?P<end>\Z)
    | (?P<other>.))""",
    re.VERBOSE | re.DOTALL | re.ASCII,
)


class _Parser:
    """Reads from left to right, what binds tighter before what surrounds it."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.token = self.kind = ""  # of a mark, its kind is itself
        self.start = self.next = self.depth = 0
        self.expect("")

    def expect(self, *accepted: str) -> str:
        """The next token, if its kind is accepted; else it is refused."""
        if self.kind not in accepted:
            ends = "The expression ends too early"
            raise ValueError(f"Unexpected {self.token!r}" if self.token else ends)
        passed, self.end = self.token, self.next
        found = _TOKEN.match(self.text, self.next)
        assert found is not None and found.lastgroup is not None
        self.token = found[found.lastgroup]
        self.kind = self.token if found["mark"] else found.lastgroup
        self.start, self.next = found.span(found.lastgroup)
        return passed

    def take(self, *accepted: str) -> str:
        """The next token, if its kind is accepted; else empty."""
        return self.expect(*accepted) if self.kind in accepted else ""

    def deeper(self) -> None:
        """Count one more level, of the tree or of parentheses: rather too many than too few."""
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise ValueError(f"The expression is nested deeper than {MAX_DEPTH}")

    def node(
        self, form: str, start: int, *parts: Node, name: str = "", value: Value = None
    ) -> Node:
        return Node(form, self.text, start, self.end, parts, name, value)

    def expression(self, least: int = 1) -> Node:
        """An operand, and what follows as long as it binds at least so tight."""
        start, depth = self.start, self.depth
        self.deeper()
        left = self.operand(start)
        while _PRECEDENCE.get(self.kind, 0) >= least:
            self.deeper()
            operator = self.expect(self.kind)
            right = self.expression(_PRECEDENCE[operator] + 1)
            left = self.node(operator, start, left, right)
        self.depth = depth
        return left

    def operand(self, start: int) -> Node:
        """``!``, a literal, or what can be indexed: a name, a call, a group."""
        if self.take("!"):
            return self.node("!", start, self.expression(least=5))
        if self.kind == "number":
            number = to_number(self.token)
            self.expect("number")
            return self.node("literal", start, value=number)
        text = self.expect("string", "word", "(")
        if text in _KEYWORDS:
            return self.node("literal", start, value=_KEYWORDS[text])
        if text[0] == "'":
            return self.node("literal", start, value=text[1:-1].replace("''", "'"))
        if text == "(":
            target = self.expression()
            self.expect(")")
        elif self.take("("):
            target = self.call(text, start)
        else:
            target = self.node("name", start, name=text.lower())
        return self.indexed(target, start)

    def call(self, name: str, start: int) -> Node:
        """A call whose name and ``(`` have been read."""
        parts: list[Node] = []
        while not self.take(")"):
            if parts:
                self.expect(",")
            parts.append(self.expression())
        if name.lower() in ("success", "failure", "always", "cancelled") and not parts:
            return self.node("name", start, name=f"{name.lower()}()")
        call = self.node("call", start, *parts, name=name.lower())
        least, most, _ = FUNCTIONS.get(call.name, (1, 0, None))
        if not least <= len(parts) <= most:
            raise call.error(f"There is no function {name} of {len(parts)} arguments")
        return call

    def indexed(self, target: Node, start: int) -> Node:
        """What can be indexed, with ``.name``, ``[index]``, ``.*`` and ``[*]`` after it."""
        while mark := self.take(".", "["):
            self.deeper()
            form, parts, at = ".*", [target], self.start
            if not self.take("*"):
                form, name = "[]", self.expect("word") if mark == "." else ""
                key = self.node("literal", at, value=name) if name else self.expression()
                parts.append(key)
            if mark == "[":
                self.expect("]")
            target = self.node(form, start, *parts)
        return target


@lru_cache(maxsize=256)
def parse(text: str) -> Node:
    """The tree of an expression (without ``${{ }}``)."""
    parser = _Parser(text)
    try:
        if len(text) > 21_000:
            raise ValueError("The expression is longer than 21,000 characters")
        node = parser.expression()
        parser.expect("end")
    except ValueError as error:
        raise ExpressionError(str(error), text, parser.start + 1) from error
    return node


def check(node: Node, names: Collection[str]) -> None:
    """Refuse other names, as GitHub does even where they would never be reached."""
    for part in node.walk():
        if part.form == "name" and part.name not in names:
            known = ", ".join(name for name in names if "(" not in name)
            others = f", but {known}" if known else ""
            raise part.error(f"{part.source!r} is not known here{others}")


def uses_status(text: str) -> bool:
    """Whether a condition has a status function; success() is implied where it has not."""
    return bool(text) and any(part.name.endswith("()") for part in parse(text).walk())


def value_of(node: Node, names: Names) -> Value:
    """The value of a part of an expression that has been checked."""
    if node.form in {"&&", "||"}:
        left = value_of(node.parts[0], names)
        return left if truthy(left) is (node.form == "||") else value_of(node.parts[1], names)
    if node.form in {"literal", "name"}:
        return names[node.name] if node.name else node.value
    parts = [value_of(part, names) for part in node.parts]
    try:
        return FUNCTIONS[node.name or node.form][2](*parts)
    except (ValueError, RecursionError) as error:
        raise node.error(f"{node.source}: {error}") from error


def evaluate(text: str, names: Names) -> Value:
    """The value of an expression (without ``${{ }}``)."""
    node = parse(text)
    check(node, names)
    return value_of(node, names)


BRACES = re.compile(r"\$\{\{((?:[^'}]|'(?:[^']|'')*'|\}(?!\}))*)\}\}")


def evaluate_text(text: str, names: Names) -> Value:
    """The value of a text with ``${{ }}``: alone, the value itself; among text, a string."""
    if whole := BRACES.fullmatch(text.strip()):
        return evaluate(whole[1], names)
    rest = BRACES.sub(lambda match: " " * len(match[0]), text)
    if "${{" in rest:
        raise ExpressionError("The ${{ is not closed by }}", text, rest.index("${{") + 1)
    return BRACES.sub(lambda match: to_string(evaluate(match[1], names)), text)


def evaluate_tree(value: Value, names: Names) -> Value:
    """Plain data with the values of all its texts."""
    if isinstance(value, dict):
        return {key: evaluate_tree(each, names) for key, each in value.items()}
    if isinstance(value, list):
        return [evaluate_tree(each, names) for each in value]
    return evaluate_text(value, names) if isinstance(value, str) else value


def job_status(results: Iterable[str], cancelled: bool = False) -> dict[str, bool]:
    """The status functions of a job, of the results of all jobs it needs, directly or not.

    A skipped ancestor makes ``success()`` false (actions/runner issue 491).
    """
    ended = set(results)
    return {
        "success()": not cancelled and ended <= {"success"},
        "failure()": not cancelled and "failure" in ended,
        "always()": True,
        "cancelled()": cancelled,
    }


@dataclass(frozen=True)
class Options:
    """What the command line asks for."""

    expression: str = cli.option("", "with or without ${{ }}", "expression")
    context: Path | None = cli.option(None, "JSON object of contexts", type=Path)


def work(options: Options) -> None:
    """Print the value; the status functions follow ``needs`` and ``job.status``."""
    text, contexts = options.expression, dict[str, Any]()
    try:
        if options.context:
            found = values.parse_json(options.context.read_text(encoding="utf-8"))
            contexts = convert(found, dict[str, Any])
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"{options.context} cannot be read: {error}.") from error
    own = to_string(values.item(contexts.get("job"), "status")) or "success"
    needs = cast(list[Value], values.item(values.item(contexts.get("needs")), "result"))
    names = contexts | job_status(map(to_string, [own, *needs]), own == "cancelled")
    value = evaluate_text(text, names) if "${{" in text else evaluate(text, names)
    try:
        console.emit_json(json.loads(values.to_json(value)))
    except ValueError as error:
        raise ExpressionError(str(error), text, 1) from error


main = cli.command(
    "python -m tools.workflow.expressions", "Print a value as JSON.", Options, work
)


if __name__ == "__main__":
    sys.exit(main())
