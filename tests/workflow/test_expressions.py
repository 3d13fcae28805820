"""The evaluator of Actions expressions, against GitHub's own and the documented rules."""

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, reject
from hypothesis import strategies as st

from tools.workflow import expressions, values
from tools.workflow.expressions import ExpressionError, evaluate

TABLE = Path(__file__).parents[1] / "data" / "expressions.json"
RECORDED = json.loads(TABLE.read_text("utf-8"))


def outcome(text):
    """What the evaluator gives."""
    try:
        return repr(evaluate(text, RECORDED["contexts"]))
    except ExpressionError:
        return "error"


def recorded(kind, shown):
    """What the recorded table says."""
    is_value = kind in {"string", "array", "object"}
    return repr(shown if is_value else json.loads(shown or "null"))


def test_agrees_with_githubs_own_evaluator():
    """Every recorded expression gives what GitHub's published evaluator gave, or no answer."""
    assert len(RECORDED["cases"]) > 700
    cases = {text: one if one == "error" else recorded(*one) for text, one in RECORDED["cases"]}
    refused = {text for text, expected in cases.items() if outcome(text) != expected}
    assert {outcome(text) for text in refused} == {"error"}
    # Letters outside ASCII without regard to case or in an order, toJSON of what JSON lacks.
    assert len(refused) == 6 and all(any(c in text for c in "éßIN") for text in refused)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *(("case(false, 'a', true, 'b', 'c')", "b"), ("false && fromJSON('not JSON')", False)),
        *(("'é' == 'x' || 'é' == 1", False), ("'日本' == '日本'", True)),
        *(("contains('größe', 'GR')", True), ("0xff == 255 && -2.99e-2 == '-0.0299'", True)),
        ("toJSON(fromJSON('[1e2, -0, 0.5]'))", "[\n  100,\n  0,\n  0.5\n]"),
        ('fromJSON(\'{"a": {"b": [1]}}\').A.B[0]', 1),
    ],
)
def test_answers(text, value):
    """What is sure is answered, next to what is not."""
    assert evaluate(text, {}) == value


# The runner and the published evaluator differ, .NET's text handling decides, or they read
# more leniently than JSON is defined.
@pytest.mark.parametrize(
    "text",
    [
        *("1e21", "0.00001", "123456789012345678", "0xffffffff", "1e400", "toJSON(NaN)"),
        *("'0xffffffff' == -1", "'0X1F' == 31", "'0b11' == 3", "'infinity' == Infinity"),
        *("'+Infinity' > 1", "'1\u00a0' == 1", "'1\0' == 1", "'12345678901234567890' == 1"),
        *("'ß' == 'SS'", "'ſ' == 'S'", "'\u212a' == 'k'", "'ä' > 'b'"),
        *("startsWith('Äpfel', 'ä')", "toJSON('\u2028')", "toJSON('\ud83d')"),
        *('fromJSON(\'{"a": 1, "A": 2}\')', "fromJSON('12345678901234567890')"),
        *("fromJSON('[NaN]')", "fromJSON('[1,]')", "fromJSON('\"\\ud83d\"')"),
        "fromJSON(format('{0}{0}{0}{0}{0}{0}', '[[[[[[[[[['))",
    ],
)
def test_refuses_what_is_not_sure(text):
    """No answer is better than a wrong one."""
    with pytest.raises(ExpressionError):
        evaluate(text, {})


@pytest.mark.parametrize(
    ("text", "position", "says"),
    [
        *(("", 1, "ends too early"), ("1 +", 3, "'+'"), ("1 == (2", 8, "ends too early")),
        *(("'abc", 1, '"\'"'), ("a & b", 3, "'&'"), ('a == "b"', 6, "'\"'")),
        *(("1.2.3", 1, "different numbers"), ("true && 1xZZ", 9, "different numbers")),
        *(("'a'.b", 4, "'.'"), ("x.1", 2, "'.1'"), ("f(1,)", 5, "')'")),
        *(("true && nothing(1)", 9, "no function nothing"), ("true || success(1)", 9, "of 1")),
        *(("contains('a')", 1, "contains of 1 arg"), ("join(1, 2, 3)", 1, "join of 3")),
        *(("case(true, 1, false, 2)", 1, "odd"), ("case(1, 2, 3)", 1, "not a boolean")),
        *(("false && y.x", 10, "'y' is not known"), ("!success()", 2, "'success()' is not")),
        *(("1 == hashFiles('x')", 6, "workspace"), ("x || fromJSON('{')", 6, "Expecting")),
        *(("format('{1}', 0)", 1, "{1}"), ("format('}', 0)", 1, "}")),
    ],
)
def test_errors_show_the_place(text, position, says):
    """What cannot be evaluated is an error at the right character, never a guess."""
    names = {"a": 1, "b": 2, "x": None}
    with pytest.raises(ExpressionError) as caught:
        evaluate(text, names)
    assert says in caught.value.message
    assert caught.value.position == position


def test_limits():
    """As on GitHub, an expression has at most 21,000 characters and 50 levels."""
    assert evaluate("(" * 49 + "1" + ")" * 49, {}) == 1
    assert evaluate("!" * 49 + "1", {}) is False
    for repeated in ("!", "(", "1 == ", "1 && ", "join("):
        for times in (60, 2000):
            with pytest.raises(ExpressionError, match="deeper than 50"):
                evaluate(repeated * times + "1" + ")" * times, {})
    with pytest.raises(ExpressionError, match="longer than"):
        evaluate(" " * 21_000 + "1", {})


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *(("plain", "plain"), (" ${{ true }} ", True), ("a ${{ 'b' }} c", "a b c")),
        *(("${{ 1 }}${{ null }}", "1"), ("${{ '}}' }}", "}}")),
        ("x-${{ github.ref }}-${{ github.event.number || 'none' }}", "x-refs/heads/main-none"),
    ],
)
def test_text_with_expressions(text, value):
    """Alone, ``${{ }}`` gives the value itself; among text it is written into it; a ``${{``
    without its end is refused at its place.
    """
    names = {"github": {"ref": "refs/heads/main", "event": {}}}
    assert expressions.evaluate_text(text, names) == value
    with pytest.raises(
        ExpressionError, match=f"not closed by }}}} at position {len(text) + 1}"
    ):
        expressions.evaluate_text(text + "${{ 1 }", names)


def test_job_status():
    """success and failure of a job follow all its ancestors; always is true."""

    def holding(results, cancelled=False):
        status = expressions.job_status(results.split(), cancelled)
        return " ".join(name for name, holds in status.items() if holds)

    assert holding("") == holding("success success") == "success() always()"
    assert holding("success failure") == holding("skipped failure") == "failure() always()"
    assert holding("success skipped") == "always()"
    assert holding("success failure", cancelled=True) == "always() cancelled()"


# -- properties -------------------------------------------------------------------------

texts = st.text("aAbZ_ 019-./+é", max_size=8)
leaves = st.none() | st.booleans() | st.integers(-(10**9), 10**9) | texts


def nested(leaves):
    """Leaves, and arrays and objects of them."""
    keys = st.sampled_from("abcde")
    return st.recursive(
        leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner)
    )


anything = nested(leaves | st.floats())


@given(anything, anything)
def test_comparison_laws(left, right):
    """== is symmetric, != its opposite, and < and > mirror each other; collections and NaN
    are equal to themselves alone, and not at all."""
    names = {"a": left, "b": right}

    def ask(text):
        try:
            return evaluate(text, names)
        except ExpressionError:
            reject()

    assert ask("a == a") is not (isinstance(left, float) and math.isnan(left))
    assert not isinstance(left, list | dict) or ask("a == b") is (left is right)
    assert ask("a == b") == ask("b == a")
    assert ask("a != b") is not ask("a == b")
    assert ask("a < b") == ask("b > a")
    assert ask("a <= b") == ask("b >= a")
    assert ask("a <= b") == (ask("a < b") or ask("a == b"))
    assert not (ask("a < b") and ask("a > b"))


@given(anything, anything)
def test_logic_returns_an_operand(left, right):
    """&& and || return one of their operands unchanged, and ! the opposite of truth."""
    names = {"a": left, "b": right}
    truth = values.truthy(left)
    assert evaluate("a && b", names) is (right if truth else left)
    assert evaluate("a || b", names) is (left if truth else right)
    assert evaluate("!a", names) is not truth


@given(nested(leaves))
def test_json_round_trip(value):
    """fromJSON gives back what toJSON wrote."""
    names = {"a": value}
    assert json.loads(evaluate("toJSON(a)", names)) == value
    assert evaluate("fromJSON(toJSON(a))", names) == value


@given(st.text(max_size=10))
def test_literals_and_escapes_round_trip(text):
    """Any string can be written as a literal, and as a format string with doubled braces."""
    quoted = text.replace("'", "''")
    assert evaluate(f"'{quoted}'", {}) == text
    doubled = quoted.replace("{", "{{").replace("}", "}}")
    assert evaluate(f"format('{doubled}')", {}) == text


@given(st.decimals(-(10**9), 10**9, places=3).map(float))
def test_numbers_compare_with_their_text(number):
    """A number equals its own text."""
    text = values.to_string(number)
    assert float(text) == number and evaluate("a == b", {"a": number, "b": text})


@given(st.text(max_size=30) | st.text("ab()[].*'!=<>&|,{}01e+-x ", max_size=30))
def test_any_text_is_a_value_or_a_placed_error(text):
    """No input ends in anything but a value or an error with a place inside the text."""
    try:
        evaluate(text, {"a": {"b": [1]}, "b": "x"})
    except ExpressionError as error:
        assert 1 <= error.position <= len(text) + 1


# -- the command ------------------------------------------------------------------------


def command(*arguments):
    """Run ``python -m tools.workflow.expressions``."""
    line = [sys.executable, "-m", "tools.workflow.expressions", *arguments]
    return subprocess.run(line, capture_output=True, text=True, encoding="utf-8")


def test_command(tmp_path):
    """Anybody can evaluate an expression from outside, with contexts from a file."""
    context = tmp_path / "context.json"
    contexts = {"github": {"ref": "refs/tags/v1"}, "needs": {"a": {"result": "failure"}}}
    context.write_text(json.dumps(contexts))
    condition = "startsWith(github.ref, 'refs/tags/v') && failure()"
    done = command(condition, "--context", str(context))
    assert (done.returncode, json.loads(done.stdout), done.stderr) == (0, True, "")
    assert command("${{ success() }}").stdout == "true\n"
    assert command("-1 == '-1'").stdout == "true\n"


def test_command_errors(tmp_path):
    """A wrong expression or context file: exit code 2, the place, no traceback."""
    done = command("github.ref = 'x'", "--context", str(tmp_path / "none.json"))
    assert done.returncode == 2 and "cannot be read" in done.stderr
    done = command("1 = 1")
    assert done.returncode == 2 and done.stdout == ""
    assert "position 3" in done.stderr and "Traceback" not in done.stderr
    done = command("1 && Infinity")
    assert done.returncode == 2 and done.stdout == "" and "position 1" in done.stderr
