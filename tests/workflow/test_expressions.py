"""The evaluator of Actions expressions, against GitHub's own and the documented rules."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, reject
from hypothesis import strategies as st

from tools.workflow import expressions, values
from tools.workflow.expressions import ExpressionError, Scope, evaluate

RECORDED = json.loads(
    (Path(__file__).parents[1] / "data" / "expressions.json").read_text("utf-8")
)
SCOPE = Scope(RECORDED["contexts"])


# What the recorded evaluator answers and we do not: letters outside ASCII without regard to
# case or in an order, and toJSON of what JSON cannot say.
REFUSED = {
    "'é' == 'É'",
    "'true' == 'é' > 'it''s'",
    "('true' && '0x1f') >= 'ß' < 'ß' >= 1e3",
    "TOJSON(Infinity) == z.list[empty.id]",
    "(s) && contains(TOJSON(Infinity), empty)",
    "arr[0].nested[TOJSON(NaN)]",
}


def outcome(text):
    """What the evaluator gives, in the form of the recorded table."""
    try:
        value = evaluate(text, SCOPE)
    except ExpressionError:
        return "error"
    kind = values.kind(value)
    if values.is_primitive(value):
        return [kind, values.to_string(value)]
    return [kind, json.loads(values.to_json(value))]


def test_agrees_with_githubs_own_evaluator():
    """Every recorded expression gives what GitHub's published evaluator gave, or no answer."""
    assert len(RECORDED["cases"]) > 700
    outcomes = {text: (outcome(text), recorded) for text, recorded in RECORDED["cases"]}
    differing = {text: pair for text, pair in outcomes.items() if pair[0] != pair[1]}
    assert differing.keys() == REFUSED
    assert {got for got, _ in differing.values()} == {"error"}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("case(true, 'a', fromJSON('not JSON'))", "a"),
        ("false && fromJSON('not JSON')", False),
        ("'Größe' == 'GRöße'", True),
        ("'é' == 'x'", False),
        ("'日本' == '日本'", True),
        ("contains('refs/heads/größe', 'HEADS')", True),
        ("'1.2.3' == 1", False),
        ("'2024-01-01' == 2024", False),
        ("toJSON(fromJSON('[1e2, -0, 0.5]'))", "[\n  100,\n  0,\n  0.5\n]"),
        ('fromJSON(\'{"a": {"b": [1]}}\').A.B[0]', 1),
    ],
)
def test_answers(text, value):
    """What is sure is answered, next to what is not."""
    assert evaluate(text) == value


# The runner and the published evaluator differ, .NET's text handling decides, or they read
# more leniently than JSON is defined.
@pytest.mark.parametrize(
    "text",
    [
        "format('{0}', 1e21)",
        "format('{0}', 0.00001)",
        "format('{0}', 123456789012345678)",
        "toJSON(NaN)",
        "0xffffffff",
        "'0xffffffff' == -1",
        "'0X1F' == 31",
        "'0b11' == 3",
        "'infinity' == Infinity",
        "'+Infinity' > 1",
        "'1\u00a0' == 1",
        "'1\0' == 1",
        "1e400",
        "'12345678901234567890' == 1",
        "'ß' == 'SS'",
        "'ſ' == 'S'",
        "'\u212a' == 'k'",
        "'ä' > 'b'",
        "startsWith('Äpfel', 'ä')",
        "toJSON('\u2028')",
        'fromJSON(\'{"a": 1, "A": 2}\')',
        "fromJSON('12345678901234567890')",
        "fromJSON('[NaN]')",
        "fromJSON('[1,]')",
        "fromJSON('\"\\ud83d\"')",
        "fromJSON('" + "[" * 60 + "]" * 60 + "')",
    ],
)
def test_refuses_what_is_not_sure(text):
    """No answer is better than a wrong one."""
    with pytest.raises(ExpressionError):
        evaluate(text)


@pytest.mark.parametrize(
    ("text", "position", "says"),
    [
        ("", 1, "empty"),
        ("1 +", 3, "'+'"),
        ("1 == (2", 8, "ends too early"),
        ("'abc", 1, "not closed"),
        ("a & b", 3, "'&'"),
        ("1.2.3", 1, "not a number"),
        ("true && 1xZZ", 9, "not a number"),
        ("'a'.b", 4, "'.'"),
        ("x.1", 2, "'.1'"),
        ("true && nothing(1)", 9, "no function 'nothing'"),
        ("contains('a')", 1, "takes 2 arguments, not 1"),
        ("join(1, 2, 3)", 1, "takes 1 to 2 arguments, not 3"),
        ("format()", 1, "1 to 255"),
        ("case(true, 1, false, 2)", 1, "odd number"),
        ("false && missing.x", 10, "no context 'missing'"),
        ("false && success()", 10, "not available"),
        ("true || success(1)", 9, "takes 0 arguments"),
        ("1 == hashFiles('x')", 6, "hashFiles"),
        ("true && fromJSON('{')", 9, "not JSON"),
        ("1 == format('{0}', 1e21)", 6, "different ways"),
        ("format('{1}', 0)", 1, "no argument {1}"),
        ("format('}', 0)", 1, "brace"),
        ("format('{0:x}', 0)", 1, "brace"),
        ("case(1, 2, 3)", 6, "not a boolean"),
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
    assert evaluate("(" * 49 + "1" + ")" * 49) == 1
    assert evaluate("1 && " * 500 + "1") == 1
    assert evaluate("!" * 49 + "1") is False
    for deep in ("!" * 50 + "1", "(" * 5000 + "1" + ")" * 5000, "1 == " * 60 + "1"):
        with pytest.raises(ExpressionError, match="deeper than 50"):
            evaluate(deep)
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
    ("results", "holding"),
    [
        ("", "success"),
        ("success success", "success"),
        ("success failure", "failure"),
        ("success skipped", ""),
        ("skipped failure", "failure"),
    ],
)
def test_job_status(results, holding):
    """success and failure of a job follow all its ancestors; always is true."""
    status = expressions.job_status(results.split())
    assert [name for name, holds in status.items() if holds] == [*holding.split(), "always"]
    cancelled = expressions.job_status(results.split(), cancelled=True)
    assert [name for name, holds in cancelled.items() if holds] == ["always", "cancelled"]


# -- properties -------------------------------------------------------------------------

texts = st.text("aAbZ_ 019-./+é", max_size=8)
primitives = st.none() | st.booleans() | st.floats() | texts
anything = st.recursive(
    primitives,
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


@given(anything, anything)
def test_comparison_laws(left, right):
    """== is symmetric, != its opposite, and < and > mirror each other."""
    scope = Scope({"a": left, "b": right})

    def ask(text):
        try:
            return evaluate(text, scope)
        except ExpressionError:
            reject()

    assert ask("a == b") == ask("b == a")
    assert ask("a != b") is not ask("a == b")
    assert ask("a < b") == ask("b > a")
    assert ask("a <= b") == ask("b >= a")
    assert ask("a <= b") == (ask("a < b") or ask("a == b"))
    assert not (ask("a < b") and ask("a > b"))


@given(anything)
def test_a_collection_equals_itself_alone(value):
    """Arrays and objects are equal by reference; NaN alone is unequal to itself."""
    scope = Scope({"a": value})
    is_nan = isinstance(value, float) and math.isnan(value)
    assert evaluate("a == a", scope) is not is_nan
    if not values.is_primitive(value):
        copied = json.loads(json.dumps(value))
        assert evaluate("a == b", Scope({"a": value, "b": copied})) is False


@given(anything, anything)
def test_logic_returns_an_operand(left, right):
    """&& and || return one of their operands unchanged, and ! the opposite of truth."""
    scope = Scope({"a": left, "b": right})
    truth = values.truthy(left)
    assert evaluate("a && b", scope) is (right if truth else left)
    assert evaluate("a || b", scope) is (left if truth else right)
    assert evaluate("!a", scope) is not truth


plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**9), 10**9).map(float) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.sampled_from("abcde"), inner, max_size=3),
    max_leaves=8,
)


@given(plain)
def test_json_round_trip(value):
    """fromJSON gives back what toJSON wrote."""
    try:
        text = evaluate("toJSON(a)", Scope({"a": value}))
    except ExpressionError:
        assert any(odd in json.dumps(value) for odd in ("\\u0085", "\\u2028", "\\u2029"))
        return
    assert json.loads(text) == value
    assert evaluate("fromJSON(toJSON(a))", Scope({"a": value})) == value


@given(st.text(max_size=10))
def test_literals_and_escapes_round_trip(text):
    """Any string can be written as a literal, and as a format string with doubled braces."""
    quoted = text.replace("'", "''")
    assert evaluate(f"'{quoted}'") == text
    doubled = text.replace("{", "{{").replace("}", "}}").replace("'", "''")
    assert evaluate(f"format('{doubled}')") == text


@given(st.decimals(-(10**9), 10**9, places=3).map(float))
def test_numbers_compare_with_their_text(number):
    """A number equals its own text."""
    text = values.to_string(number)
    assert float(text) == number and evaluate("a == b", Scope({"a": number, "b": text}))


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
    assert command("-1=='-1'").stdout == "true\n"
    assert command("-1 == '-1'").stdout == "true\n"


def test_command_errors(tmp_path):
    """A wrong expression or context file: exit code 2, the place, no traceback."""
    done = command("github.ref = 'x'", "--context", str(tmp_path / "none.json"))
    assert done.returncode == 2 and "cannot be read" in done.stderr
    done = command("1 = 1")
    assert done.returncode == 2 and done.stdout == ""
    assert "position 3" in done.stderr and "Traceback" not in done.stderr
    done = command("-Infinity")
    assert done.returncode == 2 and done.stdout == "" and "position 1" in done.stderr
