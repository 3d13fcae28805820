"""The evaluator of Actions expressions, against GitHub's own and the documented rules."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tools.workflow import expressions
from tools.workflow.expressions import ExpressionError, Scope, evaluate

RECORDED = json.loads(
    (Path(__file__).parents[1] / "data" / "expressions.json").read_text("utf-8")
)
SCOPE = Scope(RECORDED["contexts"])


def outcome(text):
    """What the evaluator gives, in the form of the recorded table."""
    try:
        value = evaluate(text, SCOPE)
    except ExpressionError:
        return "error"
    kind = expressions.kind(value)
    if expressions.is_primitive(value):
        return [kind, expressions.to_string(value)]
    return [kind, json.loads(expressions.to_json(value))]


def test_agrees_with_githubs_own_evaluator():
    """Every recorded expression gives what GitHub's published evaluator gave."""
    assert len(RECORDED["cases"]) > 700
    wrong = [
        (text, want, outcome(text)) for text, want in RECORDED["cases"] if outcome(text) != want
    ]
    assert wrong == []


# Where the published TypeScript differs from the runner, the runner counts.
@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("format('{0}', 1e21)", "1E+21"),
        ("format('{0}', 0.00001)", "1E-05"),
        ("format('{0}', 123456789012345678)", "1.23456789012346E+17"),
        ("toJSON(NaN)", "NaN"),
        ("toJSON(-Infinity)", "-Infinity"),
        ("0xffffffff", -1),
        ("'ß' == 'SS'", False),
        ("'ſ' == 'S'", False),
        ("case(true, 'a', fromJSON('not JSON'))", "a"),
        ("toJSON(fromJSON('\"\\u2028\"'))", '"\\u2028"'),
        ("'infinity' == Infinity", True),
        ("'-INFINITY' == -Infinity", True),
        ("'+infinity' > 1", True),
    ],
)
def test_follows_the_runner(text, value):
    """Corners that the document leaves open are as in the runner's source."""
    assert evaluate(text) == value


@pytest.mark.parametrize(
    ("text", "position", "says"),
    [
        ("", 1, "empty"),
        ("   ", 1, "empty"),
        ("1 +", 3, "'+'"),
        ("1 ==", 5, "ends too early"),
        ("(1", 3, "ends too early"),
        ("1)", 2, "')'"),
        ("'abc", 1, "not closed"),
        ("github.ref == 'a", 15, "not closed"),
        ("a & b", 3, "'&'"),
        ("a = b", 3, "'='"),
        ("1.2.3", 1, "not a number"),
        ("true && 0xZZ", 9, "not a number"),
        ("'a'.b", 4, "'.'"),
        ("x.1", 3, "'1'"),
        ("true && nothing(1)", 9, "no function 'nothing'"),
        ("contains('a')", 1, "takes 2 arguments, not 1"),
        ("join(1, 2, 3)", 1, "takes 1 to 2 arguments, not 3"),
        ("format()", 1, "at least 1"),
        ("case(true, 1, false, 2)", 1, "odd number"),
        ("false && missing.x", 10, "no context 'missing'"),
        ("false && success()", 10, "not available"),
        ("true || success(1)", 9, "takes no arguments"),
        ("1 == hashFiles('x')", 6, "hashFiles"),
        ("true && fromJSON('{')", 9, "no JSON"),
        ("format('{1}', 0)", 1, "no argument {1}"),
        ("format('}', 0)", 1, "brace"),
        ("format('{0:x}', 0)", 1, "specifier"),
        ("case(1, 2, 3)", 1, "not a boolean"),
        ('a == "b"', 6, "'\"'"),
    ],
)
def test_errors_show_the_place(text, position, says):
    """What cannot be evaluated is an error at the right character, never a guess."""
    scope = Scope({"a": 1, "b": 2, "x": {}, "github": {}})
    with pytest.raises(ExpressionError) as caught:
        evaluate(text, scope)
    assert says in caught.value.reason
    assert caught.value.position == position


def test_limits():
    """As on GitHub, an expression has at most 21,000 characters and 50 levels."""
    assert evaluate("(" * 500 + "1" + ")" * 500) == 1
    assert evaluate("1 && " * 500 + "1") == 1
    assert evaluate("!" * 49 + "1") is False
    with pytest.raises(ExpressionError, match="deeper than 50"):
        evaluate("!" * 50 + "1")
    with pytest.raises(ExpressionError, match="longer than"):
        evaluate(" " * 21_000 + "1")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("plain", "plain"),
        ("${{ 1 }}", 1),
        (" ${{ true }} ", True),
        ("a ${{ 'b' }} c", "a b c"),
        ("${{ 1 }}${{ null }}", "1"),
        ("${{ '}}' }}", "}}"),
        ("x-${{ github.ref }}-${{ github.event.number || 'none' }}", "x-refs/heads/main-none"),
    ],
)
def test_text_with_expressions(text, value):
    """Alone, ``${{ }}`` gives the value itself; among text it is written into it."""
    scope = Scope({"github": {"ref": "refs/heads/main", "event": {}}})
    assert expressions.evaluate_text(text, scope) == value


def test_unclosed_braces():
    """A ``${{`` without its end is refused at its place."""
    with pytest.raises(ExpressionError) as caught:
        expressions.evaluate_text("ab ${{ 1 }")
    assert caught.value.position == 4


@pytest.mark.parametrize(
    ("results", "cancelled", "wanted"),
    [
        ([], False, (True, False, False)),
        (["success", "success"], False, (True, False, False)),
        (["success", "failure"], False, (False, True, False)),
        (["success", "skipped"], False, (False, False, False)),
        (["skipped", "failure"], False, (False, True, False)),
        (["cancelled"], True, (False, False, True)),
    ],
)
def test_job_status(results, cancelled, wanted):
    """success, failure, cancelled of a job follow all its ancestors; always is true."""
    status = expressions.job_status(results, cancelled)
    assert (status["success"], status["failure"], status["cancelled"]) == wanted
    assert status["always"] is True


# -- properties -------------------------------------------------------------------------

primitives = st.none() | st.booleans() | st.floats() | st.text(max_size=8)
values = st.recursive(
    primitives,
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


@given(values, values)
def test_comparison_laws(left, right):
    """== is symmetric, != its opposite, and < and > mirror each other."""
    scope = Scope({"a": left, "b": right})

    def ask(text):
        return evaluate(text, scope)

    assert ask("a == b") == ask("b == a")
    assert ask("a != b") is not ask("a == b")
    assert ask("a < b") == ask("b > a")
    assert ask("a <= b") == ask("b >= a")
    assert ask("a <= b") == (ask("a < b") or ask("a == b"))
    assert not (ask("a < b") and ask("a > b"))


@given(values)
def test_a_collection_equals_itself_alone(value):
    """Arrays and objects are equal by reference; NaN alone is unequal to itself."""
    scope = Scope({"a": value})
    is_nan = isinstance(value, float) and math.isnan(value)
    assert evaluate("a == a", scope) is not is_nan
    if not expressions.is_primitive(value):
        copied = json.loads(json.dumps(value))
        assert evaluate("a == b", Scope({"a": value, "b": copied})) is False


@given(values, values)
def test_logic_returns_an_operand(left, right):
    """&& and || return one of their operands unchanged, and ! the opposite of truth."""
    scope = Scope({"a": left, "b": right})
    truth = expressions.truthy(left)
    assert evaluate("a && b", scope) is (right if truth else left)
    assert evaluate("a || b", scope) is (left if truth else right)
    assert evaluate("!a", scope) is not truth


finite = st.floats(allow_nan=False, allow_infinity=False, min_value=-1e9, max_value=1e9)
plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**9), 10**9).map(float) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


@given(plain)
def test_json_round_trip(value):
    """fromJSON gives back what toJSON wrote."""
    text = evaluate("toJSON(a)", Scope({"a": value}))
    assert json.loads(text) == value
    assert evaluate("fromJSON(toJSON(a))", Scope({"a": value})) == value


@given(st.text(max_size=10))
def test_literals_and_escapes_round_trip(text):
    """Any string can be written as a literal, and as a format string with doubled braces."""
    quoted = text.replace("'", "''")
    assert evaluate(f"'{quoted}'") == text
    doubled = text.replace("{", "{{").replace("}", "}}").replace("'", "''")
    assert evaluate(f"format('{doubled}')") == text


@given(finite)
def test_numbers_compare_with_their_text(number):
    """A number equals its own text to 15 digits."""
    text = expressions.to_string(number)
    assert evaluate("a == b", Scope({"a": float(text), "b": text}))
    assert math.isclose(float(text), number, rel_tol=1e-14, abs_tol=1e-300)


@given(st.text(max_size=30))
def test_any_text_is_a_value_or_a_placed_error(text):
    """No input ends in anything but a value or an error with a place inside the text."""
    try:
        evaluate(text)
    except ExpressionError as error:
        assert 1 <= error.position <= len(text) + 1


# -- the command ------------------------------------------------------------------------


def command(*arguments):
    """Run ``python -m tools.workflow.expressions``."""
    return subprocess.run(
        [sys.executable, "-m", "tools.workflow.expressions", *arguments],
        capture_output=True,
        text=True,
        encoding="utf-8",
    )


def test_command(tmp_path):
    """Anybody can evaluate an expression from outside, with contexts from a file."""
    context = tmp_path / "context.json"
    context.write_text(
        json.dumps({"github": {"ref": "refs/tags/v1"}, "needs": {"a": {"result": "failure"}}})
    )
    done = command(
        "startsWith(github.ref, 'refs/tags/v') && failure()", "--context", str(context)
    )
    assert (done.returncode, json.loads(done.stdout), done.stderr) == (0, True, "")
    assert command("${{ success() }}").stdout == "true\n"
    assert command("-Infinity").stdout == "-Infinity\n"
    assert command("-1 == '-1'").stdout == "true\n"


def test_command_errors(tmp_path):
    """A wrong expression or context file: exit code 2, the place, no traceback."""
    done = command("github.ref = 'x'", "--context", str(tmp_path / "none.json"))
    assert done.returncode == 2 and "cannot be read" in done.stderr
    done = command("1 = 1")
    assert done.returncode == 2 and done.stdout == ""
    assert "position 3" in done.stderr and "Traceback" not in done.stderr
