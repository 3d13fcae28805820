"""Values of Actions expressions: coercion, comparison, functions. Pure.

The rules are those of GitHub's runner (actions/runner, ``src/Sdk/Expressions``). Where
.NET's text handling decides, or the runner and GitHub's published evaluator (npm
``@actions/expressions``) differ, the value is refused: no answer is better than a wrong one.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from functools import partial
from typing import NoReturn, TypeAlias, cast

Value: TypeAlias = "None | bool | float | str | list[Value] | dict[str, Value]"


class Refused(Exception):
    """Why something is not evaluated; who meets it adds the place."""


class Filtered(list["Value"]):
    """The result of ``.*``: an index applied to it applies to each of its items."""


def kind(value: Value) -> str:
    """``null``, ``boolean``, ``number``, ``string``, ``array`` or ``object``."""
    if isinstance(value, list | dict):
        return "array" if isinstance(value, list) else "object"
    names = {type(None): "null", bool: "boolean", str: "string"}
    return names.get(type(value), "number")


def is_primitive(value: Value) -> bool:
    """Whether ``value`` is neither an array nor an object."""
    return not isinstance(value, list | dict)


def truthy(value: Value) -> bool:
    """False for null, false, 0, NaN and the empty string; true for all else."""
    return not is_primitive(value) or bool(value) and value == value


_DECIMAL = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_BITS = re.compile(r"0x[0-9a-fA-F]{1,7}|0o[0-7]{1,10}")  # larger ones wrap, or do not
_UNSURE = re.compile(r"^[^ -~\w]|[^ -~\w]$|\0|^[+-]?(0[xob]|infinity)", re.IGNORECASE)
_LONGEST = 18  # characters; any whole number of so many fits into 64 bits


def parse_number(text: str) -> float:
    """The number that a string stands for; NaN if it is none, 0 if it is blank.

    Source: ``ExpressionUtility.ParseNumber``.

    Raises:
        Refused: Not every reader reads it as the same number.
    """
    text = text.strip(" \t\r\n")
    if text in {"", "Infinity", "-Infinity"}:
        return float(text or 0)
    if _BITS.fullmatch(text):
        return float(int(text, 0))
    decimal = _DECIMAL.fullmatch(text)
    number = float(text) if decimal else math.nan
    if _UNSURE.search(text) or decimal and (len(text) > _LONGEST or math.isinf(number)):
        raise Refused(f"{text!r} may be read as different numbers")
    return number


def to_number(value: Value) -> float:
    """Coerce to a number: null is 0, true is 1, arrays and objects are NaN."""
    if isinstance(value, str):
        return parse_number(value)
    return math.nan if isinstance(value, list | dict) else float(value or 0)


def to_string(value: Value) -> str:
    """Coerce to a string: null is empty, ``Array`` and ``Object`` stand for themselves.

    Raises:
        Refused: A number that .NET's format G15 and JavaScript write differently.
    """
    if value is None or isinstance(value, str):
        return value or ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list | dict):
        return kind(value).capitalize()
    if not math.isfinite(value):
        return str(float(value)).replace("inf", "Infinity").replace("nan", "NaN")
    text = f"{value:.15g}" if value else "0"
    if "e" in text or float(text) != value:
        raise Refused(f"The number {value!r} may be written in different ways")
    return text


_UPPER = {ord(c): ord(c.upper()) for c in "abcdefghijklmnopqrstuvwxyz"}


def ignoring_case(test: Callable[[str, str], bool], left: str, right: str) -> bool:
    """Whether a test of two strings holds without regard to case.

    Raises:
        Refused: It hangs on the case of letters outside ASCII.
    """
    if test(left.translate(_UPPER), right.translate(_UPPER)):
        return True
    if test(left.casefold(), right.casefold()) or test(left.upper(), right.upper()):
        raise Refused("Letters outside ASCII are not compared without regard to case")
    return False


def _coerced(left: Value, right: Value) -> tuple[Value, Value]:
    """Both sides as a comparison sees them: primitives of unlike kinds as numbers."""
    if kind(left) != kind(right) and is_primitive(left) and is_primitive(right):
        return to_number(left), to_number(right)
    return left, right


def equal(left: Value, right: Value) -> bool:
    """``==``: without regard to case; NaN equals nothing, collections only themselves."""
    left, right = _coerced(left, right)
    if isinstance(left, str) and isinstance(right, str):
        return ignoring_case(str.__eq__, left, right)
    return left == right if is_primitive(left) and is_primitive(right) else left is right


def greater(left: Value, right: Value) -> bool:
    """``>``: strings by their upper-case letters; false where there is no order."""
    left, right = _coerced(left, right)
    if isinstance(left, str) and isinstance(right, str):
        if not equal(left, right) and not (left + right).isascii():
            raise Refused("Letters outside ASCII have no order here")
        return left.upper() > right.upper()
    if left is None or not (is_primitive(left) and is_primitive(right)):
        return False
    return cast(float, left) > cast(float, right)


COMPARISONS: dict[str, Callable[[Value, Value], bool]] = {
    "==": equal,
    "!=": lambda left, right: not equal(left, right),
    ">": greater,
    "<": lambda left, right: greater(right, left),
    ">=": lambda left, right: equal(left, right) or greater(left, right),
    "<=": lambda left, right: equal(left, right) or greater(right, left),
}


def star(target: Value) -> Filtered:
    """``target.*``: the items of an array, the values of an object; else nothing."""
    found = Filtered()
    for parent in target if isinstance(target, Filtered) else [target]:
        if isinstance(parent, list | dict):
            found += parent.values() if isinstance(parent, dict) else parent
    return found


def _hits(target: Value, index: Value) -> list[Value]:
    """What an index leads to in one array or object: one value, or none."""
    if isinstance(target, dict) and is_primitive(index):
        key = to_string(index)
        if key in target:
            return [target[key]]
        return [value for name, value in target.items() if ignoring_case(str.__eq__, name, key)]
    if isinstance(target, list):
        number = to_number(index)
        return [target[math.floor(number)]] if 0 <= number < len(target) else []
    return []


def item(target: Value, index: Value) -> Value:
    """``target[index]``: null where it leads nowhere; of what ``.*`` gave, each item's."""
    if isinstance(target, Filtered):
        return Filtered(value for parent in target for value in _hits(parent, index))
    return next(iter(_hits(target, index)), None)


def plain(value: Value, depth: int = 0) -> Value:
    """A value as JSON is to show it: whole numbers without a fraction.

    Raises:
        Refused: A number that JSON cannot say, or not in one way alone; nested too deeply.
    """
    if depth > 50:  # the runner's readers allow 64 or 100
        raise Refused("The value is nested too deeply")
    if isinstance(value, list):
        return [plain(each, depth + 1) for each in value]
    if isinstance(value, dict):
        return {key: plain(each, depth + 1) for key, each in value.items()}
    if kind(value) != "number":
        return value
    number = float(to_string(value))
    if not math.isfinite(number):
        raise Refused(f"{to_string(value)} is not JSON")
    return int(number) if number.is_integer() else number


def to_json(value: Value) -> str:
    """``toJSON``: indented by two spaces.

    Raises:
        Refused: A number or character that may be written in different ways.
    """
    text = json.dumps(plain(value), indent=2, ensure_ascii=False)
    if re.search("[\u0085\u2028\u2029\ud800-\udfff]", text):
        raise Refused("The text has a character that may be written in different ways")
    return text


def _object(pairs: list[tuple[str, Value]]) -> dict[str, Value]:
    if len({key.casefold() for key, _ in pairs}) < len(pairs):
        raise Refused("a key stands twice in an object")
    return dict(pairs)


_DECODER = json.JSONDecoder(
    object_pairs_hook=_object,
    parse_int=parse_number,
    parse_float=parse_number,
    parse_constant=parse_number,
)


def parse_json(text: str) -> Value:
    """The value of a JSON text.

    Raises:
        Refused: It is not JSON, or readers differ on it: a key twice, odd numbers.
    """
    try:
        value: Value = _DECODER.decode(text)
        to_json(value)  # refuses what cannot be written for sure
    except (ValueError, RecursionError, Refused) as error:
        raise Refused(f"This is not JSON to rely on ({error})") from error
    return value


def _compare(test: Callable[[str, str], bool], where: Value, what: Value) -> bool:
    """A test of two primitives, taken as strings; false for anything else."""
    both = is_primitive(where) and is_primitive(what)
    return both and ignoring_case(test, to_string(where), to_string(what))


def _contains(where: Value, what: Value) -> bool:
    """In an array an item that is ``==``, else a part of a string."""
    if isinstance(where, list):
        return any(equal(what, each) for each in where)
    return _compare(str.__contains__, where, what)


def _format(template: Value, *arguments: Value) -> str:
    """Replace ``{0}``, ``{1}`` ...; ``{{`` and ``}}`` are braces."""
    text = to_string(template)

    def replaced(match: re.Match[str]) -> str:
        if match.group() in {"{{", "}}"}:
            return match.group()[0]
        if match.group(1) is None:
            raise Refused(f"The format {text!r} has a brace that is not {{N}} and not doubled")
        if int(match.group(1)) >= len(arguments):
            raise Refused(f"The format {text!r} has no argument {match.group()}")
        return to_string(arguments[int(match.group(1))])

    return re.sub(r"\{\{|\}\}|\{([0-9]{1,3})\}|[{}]", replaced, text)


def _join(values: Value, separator: Value = ",") -> str:
    between = to_string(separator) if is_primitive(separator) else ","
    if isinstance(values, list):
        return between.join(map(to_string, values))
    return to_string(values) if is_primitive(values) else ""


def _hash_files(*_: Value) -> NoReturn:
    raise Refused("hashFiles needs the workspace of a runner")


# By name in small letters. ``case`` chooses before it evaluates, and the status functions
# are the job's: they are the evaluator's.
FUNCTIONS: dict[str, Callable[..., Value]] = {
    "contains": _contains,
    "endswith": partial(_compare, str.endswith),
    "format": _format,
    "fromjson": lambda text: parse_json(to_string(text)),
    "hashfiles": _hash_files,
    "join": _join,
    "startswith": partial(_compare, str.startswith),
    "tojson": to_json,
}
