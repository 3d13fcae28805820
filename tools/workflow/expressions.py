"""GitHub Actions expressions: parse, check, evaluate. Stands on its own.

    python -m tools.workflow.expressions 'EXPRESSION' [--context FILE.json]

prints the value as JSON. The context file holds one object whose keys are the names
that the expression may use (``github``, ``needs``, ``matrix`` ...).

The rules are GitHub's, documented in "Evaluate expressions in workflows and actions";
where the document is silent, those of the runner (actions/runner, ``src/Sdk/Expressions``).
The main ones: values are null, booleans, double numbers, strings, arrays and objects;
``==`` coerces different kinds to numbers; strings compare and keys are found without
regard to case; arrays and objects are equal only to themselves; ``&&`` and ``||`` return
one of their operands; what is not there is null. What cannot be evaluated is an error
that shows the place.
"""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, cast

from lark import Lark, Token, Transformer, UnexpectedInput
from lark.exceptions import VisitError

from tools.core.errors import UsageError
from tools.workflow.values import (
    COMPARISONS,
    FUNCTIONS,
    MISSING,
    STATUS_FUNCTIONS,
    Argument,
    Failure,
    Filtered,
    fold,
    is_primitive,
    item,
    items,
    kind,
    member,
    parse_number,
    to_json,
    to_string,
    truthy,
)

__all__ = [
    "STATUS_FUNCTIONS",
    "Scope",
    "check",
    "embedded",
    "evaluate",
    "evaluate_text",
    "is_primitive",
    "job_status",
    "kind",
    "parse",
    "to_json",
    "to_string",
    "truthy",
    "uses_status",
    "walk",
]

MAX_LENGTH = 21_000  # characters of an expression; ExpressionConstants.cs
MAX_DEPTH = 50  # levels of its tree; ExpressionConstants.cs

# Precedence, from loose to tight: || && equality relational ! index (Token.cs). Only a
# name, a call, a group or another index can be indexed (LexicalAnalyzer.cs).
GRAMMAR = r"""
?start: or
?or: and ("||" and)*
?and: equality ("&&" equality)*
?equality: relational | equality EQUALITY relational -> binary
?relational: unary | relational RELATION unary -> binary
?unary: NOT unary -> negation
      | KEYWORD -> keyword
      | NUMBER -> number
      | STRING -> string
      | postfix
?postfix: NAME -> name
        | NAME "(" [or ("," or)*] ")" -> call
        | "(" or ")"
        | postfix "." PROPERTY -> member
        | postfix "." STAR -> wildcard
        | postfix "[" STAR "]" -> wildcard
        | postfix "[" or "]" -> index
EQUALITY: "==" | "!="
RELATION: ">=" | "<=" | ">" | "<"
NOT: "!"
STAR: "*"
KEYWORD.2: /(null|true|false|NaN|Infinity)(?![A-Za-z0-9_-])/
NAME: /[A-Za-z_][A-Za-z0-9_-]*/
PROPERTY: /[A-Za-z_][A-Za-z0-9_-]*/
NUMBER: /[-+.0-9][^()\[\],!<>=&|\s]*/
STRING: /'(?:[^']|'')*'/
%ignore /\s+/
"""


class ExpressionError(UsageError):
    """An expression that cannot be read or evaluated.

    Attributes:
        reason: What is wrong, without the place.
        expression: The whole expression.
        position: Where, in characters from 1.
    """

    def __init__(self, reason: str, expression: str, position: int) -> None:
        marker = " " * (position - 1) + "^"
        shown = expression if len(expression) <= 200 and "\n" not in expression else ""
        super().__init__(
            f"{reason} at position {position} of the expression.",
            detail=f"  {shown}\n  {marker}" if shown else "",
        )
        self.reason = reason
        self.expression = expression
        self.position = position


# -- the tree ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Scope:
    """What an expression can refer to.

    Attributes:
        contexts: ``github``, ``needs`` and the like, by name.
        status: The values of ``success()``, ``failure()``, ``always()``, ``cancelled()``;
            a function that is not among them is unknown here.
    """

    contexts: Mapping[str, Any] = field(default_factory=dict)
    status: Mapping[str, bool] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Node:
    """A part of an expression; ``position`` counts characters from 1."""

    position: int

    @property
    def parts(self) -> tuple[Node, ...]:
        """The parts it is made of."""
        return ()

    def value(self, scope: Scope) -> Any:
        """Its value."""
        raise NotImplementedError


@dataclass(frozen=True, eq=False)
class Literal(Node):
    """A value that stands in the text."""

    constant: Any

    def value(self, scope: Scope) -> Any:
        return self.constant


@dataclass(frozen=True, eq=False)
class Name(Node):
    """A context, such as ``github``."""

    name: str

    def value(self, scope: Scope) -> Any:
        return member(scope.contexts, self.name)


@dataclass(frozen=True, eq=False)
class Index(Node):
    """``a.b``, ``a[b]``, or ``a.*`` where ``index`` is None."""

    target: Node
    index: Node | None

    @property
    def parts(self) -> tuple[Node, ...]:
        # A wildcard counts as a node of its own.
        return (self.target, self.index or Literal(self.position, None))

    def value(self, scope: Scope) -> Any:
        target = self.target.value(scope)
        if self.index is None:
            nested = isinstance(target, Filtered)
            return (
                Filtered(v for t in target for v in items(t))
                if nested
                else Filtered(items(target))
            )
        index = self.index.value(scope)
        if isinstance(target, Filtered):
            found = (item(each, index) for each in target)
            return Filtered(value for value in found if value is not MISSING)
        value = item(target, index)
        return None if value is MISSING else value


@dataclass(frozen=True, eq=False)
class Not(Node):
    """``!a``."""

    operand: Node

    @property
    def parts(self) -> tuple[Node, ...]:
        return (self.operand,)

    def value(self, scope: Scope) -> Any:
        return not truthy(self.operand.value(scope))


@dataclass(frozen=True, eq=False)
class Comparison(Node):
    """``a == b`` and the like."""

    operator: str
    left: Node
    right: Node

    @property
    def parts(self) -> tuple[Node, ...]:
        return (self.left, self.right)

    def value(self, scope: Scope) -> Any:
        return COMPARISONS[self.operator](self.left.value(scope), self.right.value(scope))


@dataclass(frozen=True, eq=False)
class Logic(Node):
    """``a && b && c``: the first operand that decides, else the last."""

    operator: str
    operands: tuple[Node, ...]

    @property
    def parts(self) -> tuple[Node, ...]:
        return self.operands

    def value(self, scope: Scope) -> Any:
        decides = self.operator == "||"
        value = None
        for operand in self.operands:
            value = operand.value(scope)
            if truthy(value) is decides:
                break
        return value


@dataclass(frozen=True, eq=False)
class Call(Node):
    """A function called with arguments."""

    name: str
    arguments: tuple[Node, ...]

    @property
    def parts(self) -> tuple[Node, ...]:
        return self.arguments

    def value(self, scope: Scope) -> Any:
        name = self.name.lower()
        if name in STATUS_FUNCTIONS:
            return scope.status[name]
        given = [self._argument(node, scope) for node in self.arguments]
        try:
            return FUNCTIONS[name].call(*given)
        except Failure as failure:
            raise _Placed(str(failure), self.position) from failure

    @staticmethod
    def _argument(node: Node, scope: Scope) -> Argument:
        return cache(lambda: node.value(scope))


class _Placed(Exception):
    """A reason and its position, before the expression is known."""

    def __init__(self, reason: str, position: int) -> None:
        super().__init__(reason)
        self.position = position


class _Build(Transformer[Token, Node]):
    """What the parser finds, as nodes."""

    @staticmethod
    def _at(token: Token) -> int:
        return (token.start_pos or 0) + 1

    def _logic(self, operator: str, found: list[Node]) -> Node:
        # Nested ones are one (ExpressionParser.cs), which matters to the depth alone.
        flat: list[Node] = []
        for node in found:
            same = isinstance(node, Logic) and node.operator == operator
            flat += cast(Logic, node).operands if same else (node,)
        return Logic(flat[0].position, operator, tuple(flat))

    def keyword(self, found: list[Token]) -> Node:
        values = {"null": None, "true": True, "false": False}
        text = str(found[0])
        value = values[text] if text in values else float(text.replace("Infinity", "inf"))
        return Literal(self._at(found[0]), value)

    def number(self, found: list[Token]) -> Node:
        value = parse_number(str(found[0]))
        if math.isnan(value):
            raise _Placed(f"{str(found[0])!r} is not a number", self._at(found[0]))
        return Literal(self._at(found[0]), value)

    def string(self, found: list[Token]) -> Node:
        return Literal(self._at(found[0]), str(found[0])[1:-1].replace("''", "'"))

    def name(self, found: list[Token]) -> Node:
        return Name(self._at(found[0]), str(found[0]))

    def call(self, found: list[Any]) -> Node:
        arguments = tuple(node for node in found[1:] if node is not None)
        return _checked(Call(self._at(found[0]), str(found[0]), arguments))

    def member(self, found: list[Any]) -> Node:
        return Index(found[0].position, found[0], Literal(self._at(found[1]), str(found[1])))

    def wildcard(self, found: list[Any]) -> Node:
        return Index(found[0].position, found[0], None)

    def index(self, found: list[Any]) -> Node:
        return Index(found[0].position, found[0], found[1])

    def negation(self, found: list[Any]) -> Node:
        return Not(self._at(found[0]), found[1])

    def binary(self, found: list[Any]) -> Node:
        return Comparison(found[0].position, str(found[1]), found[0], found[2])


# "and" and "or" are words of Python, so these two rules cannot be methods by name.
setattr(_Build, "and", lambda self, found: self._logic("&&", found))
setattr(_Build, "or", lambda self, found: self._logic("||", found))


def _checked(call: Call) -> Call:
    """The call, if there is such a function and it takes that many arguments."""
    name, count = call.name.lower(), len(call.arguments)
    if name in STATUS_FUNCTIONS:
        # At step level failure() and success() take none either; hashFiles does.
        if count:
            raise _Placed(f"The function {call.name} takes no arguments", call.position)
        return call
    if name not in FUNCTIONS:
        raise _Placed(f"There is no function {call.name!r}", call.position)
    wanted = FUNCTIONS[name]
    if not wanted.least <= count <= wanted.most:
        bounds = (
            str(wanted.least) if wanted.least == wanted.most else f"at least {wanted.least}"
        )
        if wanted.least != wanted.most < 255:
            bounds = f"{wanted.least} to {wanted.most}"
        reason = f"The function {call.name} takes {bounds} arguments, not {count}"
        raise _Placed(reason, call.position)
    if name == "case" and count % 2 == 0:
        raise _Placed("The function case takes an odd number of arguments", call.position)
    return call


@cache
def _parser() -> Lark:
    # LALR builds the nodes as it goes: no recursion, however deep the parentheses.
    return Lark(GRAMMAR, parser="lalr", transformer=_Build(), maybe_placeholders=True)


def walk(node: Node) -> Iterator[Node]:
    """The node and all its parts."""
    waiting = [node]
    while waiting:
        found = waiting.pop()
        yield found
        waiting += reversed(found.parts)


def _depth(node: Node) -> int:
    depth, level = 0, [node]
    while level and depth <= MAX_DEPTH:
        depth += 1
        level = [part for parent in level for part in parent.parts]
    return depth


@lru_cache(maxsize=256)
def parse(text: str) -> Node:
    """The tree of an expression (without ``${{ }}``).

    Raises:
        ExpressionError: It is no expression: an unexpected symbol or end, an unknown
            function, a wrong number of arguments, too long or nested too deeply.
    """
    if len(text) > MAX_LENGTH:
        raise ExpressionError(f"The expression is longer than {MAX_LENGTH} characters", text, 1)
    try:
        node = cast(Node, _parser().parse(text))
    except UnexpectedInput as error:
        raise ExpressionError(*_unexpected(text, error)) from None
    except _Placed as error:
        raise ExpressionError(str(error), text, error.position) from None
    except VisitError as error:
        placed = cast(_Placed, error.orig_exc)
        raise ExpressionError(str(placed), text, placed.position) from None
    if _depth(node) > MAX_DEPTH:
        raise ExpressionError(f"The expression is nested deeper than {MAX_DEPTH}", text, 1)
    return node


def _unexpected(text: str, error: UnexpectedInput) -> tuple[str, str, int]:
    if not text.strip():
        return "The expression is empty", text, 1
    token = getattr(error, "token", None)
    at = error.pos_in_stream if token is None or token.type != "$END" else len(text.rstrip())
    if at is None or at >= len(text.rstrip()):
        return "The expression ends too early", text, len(text.rstrip()) + 1
    if text[at] == "'":
        closed = re.match(r"'(?:[^']|'')*'", text[at:])
        if not closed:
            return "The string is not closed", text, at + 1
    word = re.match(r"[\w-]+|[=!<>&|]+|.", text[at:], re.DOTALL)
    return f"Unexpected {word.group() if word else text[at]!r}", text, at + 1


def check(node: Node, text: str, names: Iterable[str], functions: Iterable[str]) -> None:
    """Refuse names and status functions that are not available.

    GitHub refuses them when it reads the workflow, even where they'd never be reached.

    Raises:
        ExpressionError: A name or function is not available here.
    """
    allowed, callable_here = {fold(n) for n in names}, {f.lower() for f in functions}
    for part in walk(node):
        if isinstance(part, Name) and fold(part.name) not in allowed:
            raise ExpressionError(
                f"There is no context {part.name!r} here", text, part.position
            )
        if isinstance(part, Call) and part.name.lower() in STATUS_FUNCTIONS:
            if part.name.lower() not in callable_here:
                reason = f"The function {part.name} is not available here"
                raise ExpressionError(reason, text, part.position)


def evaluate(text: str, scope: Scope = Scope()) -> Any:
    """The value of an expression (without ``${{ }}``).

    Raises:
        ExpressionError: It cannot be read, or not be evaluated.
    """
    node = parse(text)
    check(node, text, scope.contexts, scope.status)
    try:
        return node.value(scope)
    except _Placed as error:
        raise ExpressionError(str(error), text, error.position) from None


def uses_status(text: str) -> bool:
    """Whether an expression calls a status function, so that no ``success()`` is implied."""
    calls = (part for part in walk(parse(text)) if isinstance(part, Call))
    return any(call.name.lower() in STATUS_FUNCTIONS for call in calls)


# -- text with ${{ }} -------------------------------------------------------------------

# Strings inside the braces may hold "}}".
_BRACES = re.compile(r"\$\{\{((?:[^'}]|'(?:[^']|'')*'|\}(?!\}))*)\}\}")


def embedded(text: str) -> list[tuple[int, str]]:
    """The expressions of ``${{ }}`` in a text: (offset of the expression, expression).

    Raises:
        ExpressionError: A ``${{`` is not closed.
    """
    found = [(match.start(1), match.group(1)) for match in _BRACES.finditer(text)]
    rest = _BRACES.sub(lambda match: " " * len(match.group()), text)
    if "${{" in rest:
        raise ExpressionError("The ${{ is not closed by }}", text, rest.index("${{") + 1)
    return found


def evaluate_text(text: str, scope: Scope = Scope()) -> Any:
    """The value of a text with ``${{ }}``: alone, the value itself; among text, a string.

    Raises:
        ExpressionError: An expression cannot be read or evaluated.
    """
    found = embedded(text)
    whole = _BRACES.fullmatch(text.strip())
    if whole and len(found) == 1:
        return evaluate(whole.group(1), scope)
    values = iter([to_string(evaluate(part, scope)) for _, part in found])
    return _BRACES.sub(lambda _: next(values), text)


# -- the command ------------------------------------------------------------------------


def job_status(results: Iterable[str], cancelled: bool = False) -> dict[str, bool]:
    """The status functions of a job, of the results of all jobs it needs, directly or not.

    A skipped ancestor makes ``success()`` false (actions/runner issue 491).
    """
    found = list(results)
    return {
        "success": not cancelled and all(result == "success" for result in found),
        "failure": not cancelled and any(result == "failure" for result in found),
        "always": True,
        "cancelled": cancelled,
    }


def _scope_of(contexts: Mapping[str, Any]) -> Scope:
    """The status functions follow ``needs`` (a job) or ``job.status`` (a step)."""
    needs, job = contexts.get("needs"), contexts.get("job")
    results = [n.get("result", "") for n in needs.values()] if isinstance(needs, dict) else []
    own = str(job.get("status", "")) if isinstance(job, dict) else ""
    results += [own] if own in {"success", "failure"} else []
    return Scope(contexts, job_status(results, cancelled=own == "cancelled"))


def _read_context(path: str | None) -> dict[str, Any]:
    if path is None:
        return {}
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"The context file {path} cannot be read: {error}.") from error
    if not isinstance(found, dict):
        raise UsageError(f"The context file {path} holds no JSON object.")
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the value of the expression given on the command line."""
    import argparse

    parser = argparse.ArgumentParser(
        prog="python -m tools.workflow.expressions", description=__doc__
    )
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("expression", help="with or without ${{ }}")
    parser.add_argument("--context", metavar="FILE", help="JSON object of the contexts")
    words = list(sys.argv[1:] if arguments is None else arguments)
    # An expression may begin with a minus; a blank before it keeps it from being an option.
    minus = re.compile(r"-[\d.I]")
    given = parser.parse_args([f" {word}" if minus.match(word) else word for word in words])
    text = (
        given.expression.removeprefix(" ")
        if minus.match(given.expression[1:])
        else given.expression
    )
    try:
        scope = _scope_of(_read_context(given.context))
        value = (evaluate_text if "${{" in text else evaluate)(text, scope)
    except UsageError as error:
        print(f"error: {error.message}", error.detail, sep="\n", file=sys.stderr)
        return error.exit_code
    sys.stdout.reconfigure(encoding="utf-8")  # type: ignore[union-attr]
    print(to_json(value))
    return 0


if __name__ == "__main__":
    sys.exit(main())
