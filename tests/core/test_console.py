"""Talking to the person: streams, masks, annotations, outputs."""

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
Output = pytest.CaptureFixture[str]


def say_all(text: str) -> None:
    """Say ``text`` in all ways."""
    console.say(text)
    console.warn(text)
    console.table((text,), [(text,)], title=text)
    console.fail(PipelineError(text, text, text))
    with console.step(text):
        pass
    console.step_summary(text)


def test_talk_goes_to_stderr_and_json_to_stdout(capsys: Output) -> None:
    """`--json` can be piped: nothing else is ever on stdout, and no annotation on stderr."""
    say_all("hello")
    console.emit_json({"a": 1})
    out, err = capsys.readouterr()
    assert json.loads(out) == {"a": 1}
    assert "warning: hello" in err and "error: hello\n  what to do: hello" in err
    assert "::" not in err


def test_on_actions(capsys: Output, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No way of printing shows a secret; a message cannot end its annotation's command."""
    Secret(TOKEN)
    summary = tmp_path / "summary.md"
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    say_all(TOKEN)
    console.emit_json({TOKEN: TOKEN})
    console.warn("50% \r\n::x::")
    out, err = capsys.readouterr()
    assert TOKEN not in out + err + summary.read_text() and "***" in summary.read_text()
    assert err.endswith("\n::warning::50%25 %0D%0A::x::\n")


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


def test_tables(capsys: Output, monkeypatch: pytest.MonkeyPatch) -> None:
    """Columns line up in a log, are drawn on a terminal, and no cell breaks Markdown."""
    rows = [("a", 1), ("longer", 22)]
    console.table(("name", "n"), rows)
    assert capsys.readouterr().err == "name    n\na       1\nlonger  22\n"
    monkeypatch.setattr(console, "is_terminal", lambda: True)
    console.table(("name", "n"), rows)
    assert re.search(r"longer +│ +22", capsys.readouterr().err)
    assert console.markdown_table(("a",), [("x|y\nz",)]) == "| a |\n| --- |\n| x\\|y z |\n"


def test_human_size() -> None:
    """Decimal units, one digit."""
    sizes = {999: "999 bytes", 1000: "1.0 kB", 12_345_678: "12.3 MB", 5e9: "5.0 GB"}
    assert {size: console.human_size(size) for size in sizes} == sizes


def test_on_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    """CI=false, as some tools set it, is not CI."""
    for value, ci in {"true": True, "1": True, "false": False, "": False}.items():
        monkeypatch.setenv("CI", value)
        assert console.on_ci() is ci
