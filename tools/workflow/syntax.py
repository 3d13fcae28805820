"""The syntax of Actions expressions: a text becomes a tree, or an error with its place. Pure.

Sources: "Evaluate expressions in workflows and actions"; actions/runner,
``src/Sdk/Expressions`` (``LexicalAnalyzer.cs``, ``Token.cs``, ``ExpressionConstants.cs``).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

from tools.core.errors import UsageError
from tools.workflow.values import Refused, Value, parse_number

MAX_LENGTH = 21_000  # characters
MAX_DEPTH = 50  # levels of the tree
MAX_ARGUMENTS = 255
STATUS_FUNCTIONS = ("success", "failure", "always", "cancelled")
# How many arguments a function takes, by its name in small letters.
ARGUMENTS = {
    **dict.fromkeys(STATUS_FUNCTIONS, (0, 0)),
    **dict.fromkeys(("contains", "startswith", "endswith"), (2, 2)),
    **dict.fromkeys(("format", "hashfiles"), (1, MAX_ARGUMENTS)),
    **{"case": (3, MAX_ARGUMENTS), "join": (1, 2), "tojson": (1, 1), "fromjson": (1, 1)},
}


class ExpressionError(UsageError):
    """An expression that cannot be read or evaluated.

    Attributes:
        reason: What is wrong, without the place.
        position: Where, in characters from 1.
    """

    def __init__(self, reason: str, expression: str, position: int) -> None:
        shown = len(expression) <= 200 and "\n" not in expression
        detail = f"  {expression}\n  {' ' * (position - 1)}^" if shown else ""
        super().__init__(f"{reason} at position {position} of the expression.", detail=detail)
        self.reason = reason
        self.position = position


@dataclass(frozen=True, eq=False)
class Node:
    """A part of an expression.

    Attributes:
        form: ``literal``, ``name``, ``call``, ``index``, ``star``, or its operator.
        text: The whole expression; the part is ``text[start:end]``.
        parts: What it is made of.
        constant: The value of a literal; the name of a name or call.
        depth: Levels of its tree.
    """

    form: str
    text: str
    start: int
    end: int
    parts: tuple[Node, ...] = ()
    constant: Value = None
    depth: int = 1

    @property
    def source(self) -> str:
        """The part as it is written."""
        return self.text[self.start : self.end]

    @property
    def name(self) -> str:
        """The name of a name or call, in small letters; else empty."""
        return str(self.constant).lower() if self.form in {"name", "call"} else ""

    @property
    def is_status(self) -> bool:
        """Whether it calls a status function."""
        return self.form == "call" and self.name in STATUS_FUNCTIONS

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
    r"""[ \t\n\v\f\r]*(?:
    (?P<string>'(?:[^']|'')*')
    | (?P<number>(?:[-+]|\.?[0-9])[^()\[\],!<>=&|\s]*)
    | (?P<word>[A-Za-z_][A-Za-z0-9_-]*)
    | (?P<mark>&&|\|\||[=!]=|[<>]=?|[!()\[\],.*])
    | (?P<other>[\w-]+|[=&|]+|.|\Z))""",
    re.VERBOSE | re.DOTALL,
)


class _Parser:
    """Reads from left to right, what binds tighter before what surrounds it."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.depth = self.end = 0
        self.advance()

    def advance(self) -> None:
        """Go on to the next token."""
        token = _TOKEN.match(self.text, self.end)
        assert token is not None  # any character is at least an "other"
        self.kind = token.lastgroup or ""
        self.token, self.start, self.next = token[self.kind], *token.span(self.kind)

    def take(self, *accepted: str) -> str:
        """The next token if its kind, or the mark itself, is accepted; else empty."""
        text = self.token
        if self.kind not in accepted and (self.kind != "mark" or text not in accepted):
            return ""
        self.end = self.next
        self.advance()
        return text

    def expect(self, accepted: str) -> str:
        if text := self.take(accepted):
            return text
        raise self.unexpected()

    def unexpected(self) -> ExpressionError:
        if not self.token:
            return self.error("The expression ends too early", len(self.text.rstrip()))
        if self.token == "'":
            return self.error("The string is not closed", self.start)
        return self.error(f"Unexpected {self.token!r}", self.start)

    def error(self, reason: str, start: int) -> ExpressionError:
        return ExpressionError(reason, self.text, start + 1)

    def checked(self, depth: int) -> int:
        if depth > MAX_DEPTH:
            raise self.error(f"The expression is nested deeper than {MAX_DEPTH}", self.start)
        return depth

    def node(
        self, form: str, start: int, parts: Sequence[Node] = (), constant: Value = None
    ) -> Node:
        depth = self.checked(1 + max((part.depth for part in parts), default=0))
        return Node(form, self.text, start, self.end, tuple(parts), constant, depth)

    def expression(self, least: int = 1) -> Node:
        """An operand, and what follows as long as it binds at least so tight."""
        start = self.start
        self.depth = self.checked(self.depth + 1)
        left = self.operand(start)
        while _PRECEDENCE.get(self.token, 0) >= least:
            operator = self.take("mark")
            right = self.expression(_PRECEDENCE[operator] + 1)
            chained = operator in {"&&", "||"} and left.form == operator
            left = self.node(operator, start, [*(left.parts if chained else [left]), right])
        self.depth -= 1
        return left

    def operand(self, start: int) -> Node:
        """``!``, a literal, or what can be indexed: a name, a call, a group."""
        if self.take("!"):
            return self.node("!", start, [self.expression(least=5)])
        if text := self.take("string"):
            return self.node("literal", start, constant=text[1:-1].replace("''", "'"))
        if text := self.take("number"):
            return self.node("literal", start, constant=self.number(text, start))
        word = self.take("word")
        if word in _KEYWORDS:
            return self.node("literal", start, constant=_KEYWORDS[word])
        if word and self.take("("):
            target = self.call(word, start)
        elif word:
            target = self.node("name", start, constant=word)
        else:
            self.expect("(")
            target = self.expression()
            self.expect(")")
        return self.indexed(target, start)

    def number(self, text: str, start: int) -> float:
        try:
            value = parse_number(text)
        except Refused as error:
            raise self.error(str(error), start) from error
        if math.isnan(value):
            raise self.error(f"{text!r} is not a number", start)
        return value

    def indexed(self, target: Node, start: int) -> Node:
        """What can be indexed, with ``.name``, ``[index]``, ``.*`` and ``[*]`` after it."""
        while mark := self.take(".", "["):
            parts = [target]
            if mark == "[" and not self.take("*"):
                parts.append(self.expression())
            elif mark == "." and not self.take("*"):
                at, name = self.start, self.expect("word")
                parts.append(self.node("literal", at, constant=name))
            if mark == "[":
                self.expect("]")
            target = self.node("index" if parts[1:] else "star", start, parts)
        return target

    def call(self, name: str, start: int) -> Node:
        """A call whose name and ``(`` have been read."""
        parts: list[Node] = []
        if not self.take(")"):
            parts.append(self.expression())
            while self.take(","):
                parts.append(self.expression())
            self.expect(")")
        if problem := _wrong_call(name, len(parts)):
            raise self.error(problem, start)
        return self.node("call", start, parts, name)


def _wrong_call(name: str, count: int) -> str:
    """What is wrong with a call of so many arguments; empty if nothing is."""
    if name.lower() not in ARGUMENTS:
        return f"There is no function {name!r}"
    least, most = ARGUMENTS[name.lower()]
    if not least <= count <= most:
        bounds = f"{least}" if least == most else f"{least} to {most}"
        return f"The function {name} takes {bounds} arguments, not {count}"
    even_case = name.lower() == "case" and count % 2 == 0
    return "The function case takes an odd number of arguments" if even_case else ""


@lru_cache(maxsize=256)
def parse(text: str) -> Node:
    """The tree of an expression (without ``${{ }}``).

    Raises:
        ExpressionError: It is not an expression: an unexpected symbol or end, an unknown
            function, a wrong number of arguments, too long or nested too deeply.
    """
    if not text.strip():
        raise ExpressionError("The expression is empty", text, 1)
    if len(text) > MAX_LENGTH:
        raise ExpressionError(f"The expression is longer than {MAX_LENGTH} characters", text, 1)
    if half := re.search("[\ud800-\udfff]", text):
        raise ExpressionError("Half of a character", text, half.start() + 1)
    parser = _Parser(text)
    node = parser.expression()
    if parser.token:
        raise parser.unexpected()
    return node
