"""Values of Actions expressions: kinds, coercions, comparisons, functions (pure).

Null, booleans, double numbers, strings, arrays and objects, as Python's own types. The
rules are those of GitHub's runner (actions/runner, ``src/Sdk/Expressions``).
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast


class Failure(Exception):
    """A reason without a place yet; the call that meets it adds its own."""


class Filtered(list[Any]):
    """The result of ``.*``: an index applied to it applies to each of its items."""


def kind(value: object) -> str:
    """``null``, ``boolean``, ``number``, ``string``, ``array`` or ``object``."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int | float):
        return "number"
    if isinstance(value, str):
        return "string"
    if isinstance(value, Mapping):
        return "object"
    if isinstance(value, Sequence):
        return "array"
    raise TypeError(f"{type(value).__name__} is no value of an expression")


def is_primitive(value: object) -> bool:
    """Whether ``value`` is neither an array nor an object."""
    return kind(value) not in {"array", "object"}


def truthy(value: object) -> bool:
    """False for null, false, 0, NaN and the empty string; true for all else."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value != 0 and not math.isnan(value)
    return bool(value) if is_primitive(value) else True


_DECIMAL = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_INFINITY = re.compile(r"([+-]?)infinity", re.IGNORECASE)


def _as_int32(digits: str, base: int) -> float:
    """Hexadecimal and octal are read as 32 bits in two's complement, as the runner does."""
    number = int(digits, base)
    if number > 0xFFFFFFFF:
        return math.nan
    return float(number - (1 << 32) if number > 0x7FFFFFFF else number)


def parse_number(text: str) -> float:
    """The number a string stands for; NaN if it is none, 0 if it is blank.

    Source: ``ExpressionUtility.ParseNumber`` of actions/runner.
    """
    text = text.strip()
    if not text:
        return 0.0
    if _DECIMAL.fullmatch(text):
        return float(text)
    if re.fullmatch(r"0x[0-9a-fA-F]+", text):
        return _as_int32(text[2:], 16)
    if re.fullmatch(r"0o[0-7]+", text):
        return _as_int32(text[2:], 8)
    infinity = _INFINITY.fullmatch(text)
    if infinity:
        return -math.inf if infinity.group(1) == "-" else math.inf
    return math.nan


def to_number(value: object) -> float:
    """Coerce to a number: null is 0, true is 1, arrays and objects are NaN."""
    if value is None:
        return 0.0
    if isinstance(value, int | float):  # a bool is an int
        return float(value)
    return parse_number(value) if isinstance(value, str) else math.nan


def _number_text(number: float) -> str:
    """15 significant digits, as .NET's format G15 writes them."""
    if math.isnan(number):
        return "NaN"
    if math.isinf(number):
        return "Infinity" if number > 0 else "-Infinity"
    return f"{number:.15G}" if number else "0"


def to_string(value: object) -> str:
    """Coerce to a string: null is empty, ``Array`` and ``Object`` stand for themselves."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return _number_text(float(value))
    return value if isinstance(value, str) else kind(value).capitalize()


def fold(text: str) -> str:
    """``text`` as .NET's OrdinalIgnoreCase sees it: upper case, one for one.

    Characters whose upper case is longer stay, and so do dotless i and long s.
    """
    if text.isascii():
        return text.upper()
    return "".join(c if c in "\u0131\u017f" or len(c.upper()) != 1 else c.upper() for c in text)


def _order_key(text: str) -> bytes:
    return fold(text).encode("utf-16-be", "surrogatepass")


def _coerced(left: Any, right: Any) -> tuple[Any, Any]:
    """Both sides as the comparison sees them: unlike kinds of primitives as numbers."""
    if kind(left) == kind(right):
        return left, right
    numeric = {"null", "boolean", "number"}
    if kind(left) in numeric or kind(right) in numeric:
        left = to_number(left) if is_primitive(left) else left
        right = to_number(right) if is_primitive(right) else right
    return left, right


def equal(left: object, right: object) -> bool:
    """``==``: case-insensitive, NaN equals nothing, collections equal only themselves."""
    left, right = _coerced(left, right)
    if kind(left) != kind(right):
        return False
    if isinstance(left, str) and isinstance(right, str):
        return fold(left) == fold(right)
    return bool(left == right) if is_primitive(left) else left is right


def _greater(left: object, right: object) -> bool:
    left, right = _coerced(left, right)
    if kind(left) != kind(right) or not is_primitive(left) or left is None:
        return False
    if isinstance(left, str) and isinstance(right, str):
        return _order_key(left) > _order_key(right)
    return bool(cast(float, left) > cast(float, right))


COMPARISONS: Mapping[str, Callable[[Any, Any], bool]] = {
    "==": equal,
    "!=": lambda left, right: not equal(left, right),
    ">": _greater,
    "<": lambda left, right: _greater(right, left),
    ">=": lambda left, right: equal(left, right) or _greater(left, right),
    "<=": lambda left, right: equal(left, right) or _greater(right, left),
}


MISSING = object()


def member(target: Mapping[str, Any], key: str) -> Any:
    """The value of a key, without regard to case; ``MISSING`` if there is none."""
    if key in target:
        return target[key]
    folded = fold(key)
    return next((v for k, v in target.items() if fold(k) == folded), MISSING)


def item(target: Any, index: object) -> Any:
    """One step of ``[...]`` into an object or array; ``MISSING`` if it leads nowhere."""
    if isinstance(target, Mapping):
        return member(target, to_string(index)) if is_primitive(index) else MISSING
    number = to_number(index)
    if kind(target) != "array" or not 0 <= number < len(target):  # NaN is not
        return MISSING
    return target[math.floor(number)]


def items(target: object) -> list[Any]:
    """What ``*`` selects: the items of an array, the values of an object, else nothing."""
    if isinstance(target, Mapping):
        return list(target.values())
    return list(cast(Sequence[Any], target)) if kind(target) == "array" else []


_ESCAPED = {"\u0085": "\\u0085", "\u2028": "\\u2028", "\u2029": "\\u2029"}


def _json_string(text: str) -> str:
    written = json.dumps(text, ensure_ascii=False)
    return re.sub("[\u0085\u2028\u2029]", lambda m: _ESCAPED[m.group()], written)


def to_json(value: Any, indent: int = 0) -> str:
    """``toJSON``: indented by two spaces, empty collections on one line."""
    if kind(value) == "string":
        return _json_string(value)
    if is_primitive(value):
        return "null" if value is None else to_string(value)
    inner, outer = "  " * (indent + 1), "  " * indent
    if isinstance(value, Mapping):
        lines = [f"{_json_string(k)}: {to_json(v, indent + 1)}" for k, v in value.items()]
        opened, closed = "{", "}"
    else:
        lines = [to_json(v, indent + 1) for v in value]
        opened, closed = "[", "]"
    if not lines:
        return opened + closed
    return f"{opened}\n{inner}" + f",\n{inner}".join(lines) + f"\n{outer}{closed}"


# -- functions --------------------------------------------------------------------------

Argument = Callable[[], Any]  # evaluated only if the function asks


def _contains(search: Argument, item: Argument) -> bool:
    """Without regard to case in a string; by ``==`` with any item of an array."""
    where, what = search(), item()
    if is_primitive(where):
        return is_primitive(what) and fold(to_string(what)) in fold(to_string(where))
    return kind(where) == "array" and any(equal(what, each) for each in where)


def _starts_with(text: Argument, part: Argument) -> bool:
    where, what = text(), part()
    both = is_primitive(where) and is_primitive(what)
    return both and fold(to_string(where)).startswith(fold(to_string(what)))


def _ends_with(text: Argument, part: Argument) -> bool:
    where, what = text(), part()
    both = is_primitive(where) and is_primitive(what)
    return both and fold(to_string(where)).endswith(fold(to_string(what)))


_PLACEHOLDER = re.compile(r"\{\{|\}\}|\{([0-9]+)(?::((?:[^}]|\}\})*))?\}|[{}]")


def _format(template: Argument, *arguments: Argument) -> str:
    """Replace ``{0}``, ``{1}`` ...; ``{{`` and ``}}`` are braces."""
    text = to_string(template())

    def replaced(match: re.Match[str]) -> str:
        if match.group() in {"{{", "}}"}:
            return match.group()[0]
        if match.group(1) is None:
            raise Failure(
                f"The format string {text!r} has a brace that is not closed or doubled"
            )
        if match.group(2):
            raise Failure(f"The format specifier {match.group(2)!r} is not supported")
        if int(match.group(1)) >= len(arguments):
            raise Failure(f"The format string {text!r} has no argument {match.group()}")
        return to_string(arguments[int(match.group(1))]())

    return _PLACEHOLDER.sub(replaced, text)


def _join(values: Argument, separator: Argument = lambda: ",") -> str:
    found, between = values(), separator()
    if is_primitive(found):
        return to_string(found)
    between = to_string(between) if is_primitive(between) else ","
    return between.join(map(to_string, found)) if kind(found) == "array" else ""


def _from_json(text: Argument) -> Any:
    def refused(constant: str) -> Any:
        raise ValueError(f"{constant} is not JSON")

    source = to_string(text())
    try:
        return json.loads(source, parse_int=float, parse_constant=refused)
    except (ValueError, RecursionError) as error:
        raise Failure(f"fromJSON was given no JSON ({error})") from error


def _case(*arguments: Argument) -> Any:
    """The value after the first true predicate, else the last argument."""
    for predicate, value in zip(arguments[:-1:2], arguments[1::2], strict=True):
        found = predicate()
        if not isinstance(found, bool):
            raise Failure(f"A predicate of case is not a boolean but {kind(found)}")
        if found:
            return value()
    return arguments[-1]()


def _hash_files(*_: Argument) -> Any:
    raise Failure("hashFiles cannot be evaluated here: it needs the workspace of a runner")


@dataclass(frozen=True)
class Function:
    """A function, and how many arguments it takes."""

    call: Callable[..., Any]
    least: int
    most: int


FUNCTIONS: Mapping[str, Function] = {
    "case": Function(_case, 3, 255),
    "contains": Function(_contains, 2, 2),
    "endswith": Function(_ends_with, 2, 2),
    "format": Function(_format, 1, 255),
    "fromjson": Function(_from_json, 1, 1),
    "hashfiles": Function(_hash_files, 1, 255),
    "join": Function(_join, 1, 2),
    "startswith": Function(_starts_with, 2, 2),
    "tojson": Function(lambda value: to_json(value()), 1, 1),
}
STATUS_FUNCTIONS = ("success", "failure", "always", "cancelled")
