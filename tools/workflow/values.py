"""Values of Actions expressions: coercion, comparison, functions. Pure.

The rules are those of GitHub's runner (actions/runner, ``src/Sdk/Expressions``). Where
.NET's text handling decides, or the runner and GitHub's published evaluator (npm
``@actions/expressions``) differ, a ValueError refuses it: no answer is better than a wrong
one.
"""

import json
import math
import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import NoReturn, TypeAlias, cast

Value: TypeAlias = "None | bool | float | str | list[Value] | dict[str, Value]"
Test: TypeAlias = Callable[[str, str], bool]


class Filtered(list["Value"]):
    """The result of ``.*``: an index applied to it applies to each of its items."""


class Closed(dict[str, "Value"]):
    """An object that has more members than are known here: to look at another is refused, and
    so is what looks at all of them.
    """

    def __init__(self, why: str, members: Mapping[str, "Value"]) -> None:
        super().__init__({"": None, **members})  # json does not look into an empty one
        self.why = why

    def items(self) -> NoReturn:
        """What ``.*`` and ``toJSON`` ask for."""
        raise ValueError(self.why)


def truthy(value: Value) -> bool:
    """False for null, false, 0, NaN and the empty string; true for all else."""
    return isinstance(value, list | dict) or bool(value) and value == value


_DECIMAL = re.compile(r"(?=.{,18}\Z)[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,2})?")
_BITS = re.compile(r"0x[0-9a-fA-F]{1,7}|0o[0-7]{1,10}")  # larger ones wrap, or do not
_NO_NUMBER = re.compile(r"(?![-+.0-9]|infinity)([!-~]|[^\W\d])", re.IGNORECASE)


def to_number(value: Value) -> float:
    """Coerce to a number: null is 0, true is 1, arrays, objects and words are NaN; what not
    every reader takes for the same number is refused (``ExpressionUtility.ParseNumber``).
    """
    if not isinstance(value, str):
        return math.nan if isinstance(value, list | dict) else value or 0
    text = value.strip(" \t\r\n")
    if text in {"", "Infinity", "-Infinity"}:
        return float(text or 0)
    if _NO_NUMBER.match(text):
        return math.nan
    if _BITS.fullmatch(text):
        return int(text, 0)
    if not _DECIMAL.fullmatch(text):
        raise ValueError(f"{text!r} may be read as different numbers")
    number = float(text)
    to_string(number)  # refuses what is not written in one way alone
    return int(number) if number.is_integer() else number


def to_string(value: Value) -> str:
    """Coerce to a string: null is empty, ``Array`` and ``Object`` stand for themselves; a
    number that .NET's format G15 and JavaScript write differently is refused.
    """
    if value is None or isinstance(value, str):
        return value or ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list | dict):
        return "Array" if isinstance(value, list) else "Object"
    if not math.isfinite(value):
        return str(float(value)).replace("inf", "Infinity").replace("nan", "NaN")
    text = f"{value:.15g}" if value else "0"
    if "e" in text or float(text) != value:
        raise ValueError(f"The number {value!r} may be written in different ways")
    return text


_UPPER = {letter: letter - 32 for letter in b"abcdefghijklmnopqrstuvwxyz"}


def _ignoring_case(test: Test, left: str, right: str) -> bool:
    """A test of two strings without regard to case; refused if letters not ASCII decide."""
    if test(left.translate(_UPPER), right.translate(_UPPER)):
        return True
    if test(left.casefold(), right.casefold()) or test(left.upper(), right.upper()):
        raise ValueError("Letters outside ASCII are not compared without regard to case")
    return False


def _equal(left: Value, right: Value) -> bool:
    """``==``: without regard to case; NaN equals nothing, collections only themselves."""
    if type(left) is not type(right):
        return to_number(left) == to_number(right)
    if isinstance(left, str):
        return _ignoring_case(str.__eq__, left, cast(str, right))
    return left is right if isinstance(left, list | dict) else left == right


def _greater(left: Value, right: Value) -> bool:
    """``>``: strings by their upper-case letters; false where there is no order."""
    if type(left) is not type(right):
        return to_number(left) > to_number(right)
    if isinstance(left, str):
        if not (left + cast(str, right)).isascii():
            raise ValueError("Letters outside ASCII have no order here")
        return left.upper() > cast(str, right).upper()
    return isinstance(left, int | float) and left > cast(float, right)


def item(target: Value, *index: Value) -> Value:
    """``target[index]``, null where it leads nowhere; without an index ``target.*``.

    Of what ``.*`` gave, it leads to what each item gives.
    """
    hits = Filtered()
    keys = [to_string(key) for key in index if not isinstance(key, list | dict)]
    for parent in target if isinstance(target, Filtered) else [target]:
        if isinstance(parent, dict):
            found = dict.items(parent) if index else parent.items()
            named = [each for name, each in found if not index or keys and _equal(name, *keys)]
            if isinstance(parent, Closed) and not named:
                raise ValueError(parent.why)
            hits += named
        elif isinstance(parent, list) and not index:
            hits += parent
        elif isinstance(parent, list) and 0 <= (number := to_number(*index)) < len(parent):
            hits.append(parent[int(number)])
    if index and not isinstance(target, Filtered):
        return hits[0] if hits else None
    return hits


def to_json(value: Value) -> str:
    """``toJSON``; what not every reader and writer takes for the same is refused: NaN, odd
    characters, more than 50 levels.
    """
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    if re.search("[\u0085\u2028\u2029\ud800-\udfff]|^ {100}", text, re.MULTILINE):
        raise ValueError("JSON with odd characters or more than 50 levels is not relied on")
    return text


def _object(pairs: list[tuple[str, Value]]) -> dict[str, Value]:
    if len({key.casefold() for key, _ in pairs}) < len(pairs):
        raise ValueError("A key stands twice in an object of JSON")
    return dict(pairs)


def parse_json(text: str) -> Value:
    """The value of a JSON text; refused as in :func:`to_json`, and for a key twice."""
    value: Value = json.loads(
        text, object_pairs_hook=_object, parse_int=to_number, parse_float=to_number
    )
    to_json(value)
    return value


def _test(test: Test, where: Value, what: Value) -> bool:
    """A test of two primitives, taken as strings; false for anything else."""
    if isinstance(where, list | dict) or isinstance(what, list | dict):
        return False
    return _ignoring_case(test, to_string(where), to_string(what))


def _contains(where: Value, what: Value) -> bool:
    """In an array an item that is ``==``, else a part of a string."""
    if isinstance(where, list):
        return any(_equal(what, each) for each in where)
    return _test(str.__contains__, where, what)


def _format(template: Value, *arguments: Value) -> str:
    """Replace ``{0}``, ``{1}`` ...; ``{{`` and ``}}`` are braces."""

    def replaced(match: re.Match[str]) -> str:
        if match[0] in {"{{", "}}"}:
            return match[0][0]
        if match[1] is None or int(match[1]) >= len(arguments):
            raise ValueError(
                f"{match[0]!r} in a format is no argument's place, and not doubled"
            )
        return to_string(arguments[int(match[1])])

    return re.sub(r"\{\{|\}\}|\{([0-9]{1,3})\}|[{}]", replaced, to_string(template))


def _join(values: Value, separator: Value = ",") -> str:
    between = "," if isinstance(separator, list | dict) else to_string(separator)
    if isinstance(values, list):
        return between.join(map(to_string, values))
    return "" if isinstance(values, dict) else to_string(values)


def _case(*arguments: Value) -> Value:
    """The value after the first true predicate, else the last."""
    if len(arguments) % 2 == 0:
        raise ValueError("case takes an odd number of arguments")
    for holds, value in zip(arguments[::2], arguments[1::2], strict=False):
        if not isinstance(holds, bool):
            raise ValueError("A predicate of case is not a boolean")
        if holds:
            return value
    return arguments[-1]


def _hash_files(*_: Value) -> NoReturn:
    raise ValueError("hashFiles needs the workspace of a runner")


# Functions, by their name in small letters, and operators but && and ||, which do not always
# look at both sides: how many arguments at least and at most, and what it does.
FUNCTIONS: dict[str, tuple[int, int, Callable[..., Value]]] = {
    "case": (3, 255, _case),
    "contains": (2, 2, _contains),
    "endswith": (2, 2, partial(_test, str.endswith)),
    "format": (1, 255, _format),
    "fromjson": (1, 1, lambda text: parse_json(to_string(text))),
    "hashfiles": (1, 255, _hash_files),
    "join": (1, 2, _join),
    "startswith": (2, 2, partial(_test, str.startswith)),
    "tojson": (1, 1, to_json),
    "[]": (2, 2, item),
    ".*": (1, 1, item),
    "!": (1, 1, lambda value: not truthy(value)),
    "==": (2, 2, _equal),
    "!=": (2, 2, lambda left, right: not _equal(left, right)),
    ">": (2, 2, _greater),
    "<": (2, 2, lambda left, right: _greater(right, left)),
    ">=": (2, 2, lambda left, right: _equal(left, right) or _greater(left, right)),
    "<=": (2, 2, lambda left, right: _equal(left, right) or _greater(right, left)),
}
