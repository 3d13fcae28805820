"""Talking to the person: streams, masks, annotations, outputs."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tools.core import console
from tools.core.errors import PipelineError
from tools.core.secrets import Secret

TOKEN = "console-test-token"


@pytest.fixture
def actions(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if we were a step of Actions."""
    monkeypatch.setenv("GITHUB_ACTIONS", "true")


def test_talk_goes_to_stderr_and_json_to_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    """`--json` can be piped: nothing else is ever on stdout."""
    console.say("hello")
    console.warn("careful")
    console.table(("a",), [("b",)])
    console.fail(PipelineError("wrong", "do this", "log"))
    with console.step("step"):
        pass
    console.emit_json({"a": 1})
    out, err = capsys.readouterr()
    assert json.loads(out) == {"a": 1}
    for text in ("hello", "warning: careful", "error: wrong", "what to do: do this", "log"):
        assert text in err


def test_everything_is_masked(
    actions: None, capsys: pytest.CaptureFixture[str], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """No way of printing shows a secret."""
    Secret(TOKEN)
    summary = tmp_path / "summary.md"
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    console.say(TOKEN)
    console.warn(TOKEN)
    console.fail(PipelineError(TOKEN, TOKEN, TOKEN))
    console.annotate("error", TOKEN, title=TOKEN)
    console.table((TOKEN,), [(TOKEN,)], title=TOKEN)
    console.emit_json({TOKEN: TOKEN})
    with console.step(TOKEN):
        pass
    console.step_summary(TOKEN)
    out, err = capsys.readouterr()
    assert TOKEN not in out + err + summary.read_text()


def test_annotations_are_escaped(actions: None, capsys: pytest.CaptureFixture[str]) -> None:
    """A message cannot end the command, or start another."""
    console.annotate("error", "50% \r\n::x::", title="a,b:c")
    written = capsys.readouterr().err
    assert written == "::error title=a%2Cb%3Ac::50%25 %0D%0A::x::\n"


def test_no_annotations_elsewhere(capsys: pytest.CaptureFixture[str]) -> None:
    """On a laptop the commands would only be noise."""
    console.annotate("error", "x")
    assert capsys.readouterr().err == ""


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.text("EOF_<\nab", max_size=12), min_size=1, max_size=4))
def test_outputs_survive_any_value(tmp_path: Path, given_values: list[str]) -> None:
    """Read back by the runner's own rule, each output is what was set."""
    path = tmp_path / "output"
    path.unlink(missing_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GITHUB_OUTPUT", str(path))
        for number, value in enumerate(given_values):
            console.set_output(f"name{number}", value)
    lines = path.read_text().split("\n")
    found = {}
    while lines and (match := re.fullmatch(r"(\w+)<<(.+)", lines[0])):
        end = lines.index(match[2], 1)
        found[match[1]] = "\n".join(lines[1:end])
        lines = lines[end + 1 :]
    assert found == {f"name{n}": value for n, value in enumerate(given_values)}


def test_plain_table_is_aligned(capsys: pytest.CaptureFixture[str]) -> None:
    """Columns line up in a log, too."""
    console.table(("name", "n"), [("a", 1), ("longer", 22)])
    assert capsys.readouterr().err == "name    n\na       1\nlonger  22\n"


def test_markdown_table_escapes() -> None:
    """A cell cannot break the table."""
    text = console.markdown_table(("a",), [("x|y\nz",)])
    assert text == "| a |\n| --- |\n| x\\|y z |\n"


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (999_949, "999.9 kB"), (999_960, "1.0 MB"),
     (12_345_678, "12.3 MB"), (5e12, "5000.0 GB")],
)  # fmt: skip
def test_human_size(size: float, text: str) -> None:
    """Decimal units, one digit."""
    assert console.human_size(size) == text


@pytest.mark.parametrize(
    ("value", "ci"), [("true", True), ("1", True), ("false", False), ("", False)]
)
def test_on_ci(monkeypatch: pytest.MonkeyPatch, value: str, ci: bool) -> None:
    """CI=false, as some tools set it, is not CI."""
    monkeypatch.setenv("CI", value)
    assert console.on_ci() is ci
