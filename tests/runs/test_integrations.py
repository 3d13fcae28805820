"""Optional integrations: Slack, Codecov, the audit. Inert without their secret."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.runs.test_summary import record
from tools import audit, coverage_upload
from tools.audit import CLEAN, FINDINGS, NOT_RUN, Check, Outcome
from tools.core.secrets import Secret
from tools.repo.event import Event
from tools.runs import notify
from tools.runs.record import write

# -- Slack ------------------------------------------------------------------------------


@pytest.fixture
def hook():
    """A webhook that notes what it gets and answers as it is told."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            server.got.append(json.loads(body))
            answer = server.answer[1].encode()
            self.send_response(server.answer[0])
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.got, server.answer = [], (200, "ok")
    server.address = f"http://127.0.0.1:{server.server_port}/services/T0/B0/secretpart"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def test_message():
    """Result, failed jobs and links; nothing in it can become markup."""
    found = notify.message(record(result="failure", name="a<b>&c"), "https://x/run|1>")
    text = found["blocks"][0]["text"]["text"]
    assert ":x: *MLC-LLM pipeline failed: push of refs/heads/main (2:15 min)*" in text
    assert "\nFailed: tests\n" in text
    assert "<https://x/run%7C1%3E|Open the run>" in text
    assert found["text"].startswith("MLC-LLM pipeline failed")


@given(st.text(max_size=4000))
def test_escaping(text):
    """Escaped text has no bracket, and a section stays within Slack's limit."""
    assert "<" not in notify.escape(text) and ">" not in notify.escape(text)
    hostile = record(result="failure", name=text or "x")
    assert len(notify.message(hostile)["blocks"][0]["text"]["text"]) <= 3000


def test_slack_is_told(hook, tmp_path, monkeypatch, capsys):
    """The message arrives at the hook, and the hook's address is shown nowhere."""
    write(record("20260101T000000Z-aaaaaa", "failure"), tmp_path)
    monkeypatch.setattr("tools.runs.find.ROOT", tmp_path)
    monkeypatch.setenv("SLACK_WEBHOOK_URL", hook.address)
    assert notify.main([]) == 0
    [got] = hook.got
    assert "Failed: tests" in got["blocks"][0]["text"]["text"]
    out = capsys.readouterr()
    assert "Slack was told" in out.err and "secretpart" not in out.err + out.out


@pytest.mark.parametrize("answer", [(500, "oops"), (404, "no_service"), (200, "<html>"), None])
def test_a_failing_hook_never_fails_the_pipeline(hook, tmp_path, monkeypatch, capsys, answer):
    """Whatever the hook does, the session ends well, with a warning without the address."""
    write(record("20260101T000000Z-aaaaaa"), tmp_path)
    monkeypatch.setattr("tools.runs.find.ROOT", tmp_path)
    address = hook.address if answer else "http://127.0.0.1:9/services/secretpart"
    if answer:
        hook.answer = answer
    monkeypatch.setenv("SLACK_WEBHOOK_URL", address)
    assert notify.main([]) == 0
    said = capsys.readouterr().err
    assert "warning: Slack was not told" in said and "secretpart" not in said


def test_nonsense_for_a_hook(capsys):
    """A hook that is no address is a problem in words, not a traceback."""
    assert notify.send(Secret("not an address"), {"text": "x", "blocks": []})


def test_inert_without_secret(capsys, tmp_path, monkeypatch):
    """Without their secrets the sessions do nothing and say so."""
    assert notify.main([]) == 0
    assert "SLACK_WEBHOOK_URL is not set" in capsys.readouterr().err
    assert coverage_upload.main([]) == 0
    assert "CODECOV_TOKEN is not set" in capsys.readouterr().err


# -- Codecov ----------------------------------------------------------------------------


def test_codecov_command(tmp_path):
    """The uploader is told the very commit and report; the token is not in its arguments."""
    event = Event("push", "refs/heads/main", "a" * 40, repository="o/n")
    command = coverage_upload.upload_command(event, coverage_upload.REPORT)
    assert command[:2] == ["codecovcli", "upload-process"]
    assert command[command.index("--sha") + 1] == "a" * 40
    assert command[command.index("--branch") + 1] == "main"
    pull = Event("pull_request", "refs/pull/3/merge", pull_request=3, head_ref="fix")
    command = coverage_upload.upload_command(pull, coverage_upload.REPORT)
    assert command[command.index("--pr") + 1] == "3"
    assert not any("token" in word for word in command)
    assert coverage_upload.environment({}, "t")["CODECOV_TOKEN"] == "t"


def test_codecov_without_a_report(tmp_path, monkeypatch, capsys):
    """With a token but without a report, the remedy is named."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CODECOV_TOKEN", "token-of-the-test")
    assert coverage_upload.main([]) == 2
    assert "Run nox -s tests first" in capsys.readouterr().err


def test_the_uploader_gets_the_token_by_environment(tmp_path, monkeypatch, capsys):
    """A stand-in uploader sees the token in its environment; nobody sees it in the output."""
    program = tmp_path / "codecovcli"
    program.write_text('#!/bin/sh\necho "token: $CODECOV_TOKEN, arguments: $@"\n')
    program.chmod(0o755)
    (tmp_path / "coverage.xml").write_text("<coverage/>")
    monkeypatch.setattr(coverage_upload, "REPORT", tmp_path / "coverage.xml")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setenv("CODECOV_TOKEN", "token-of-the-test")
    assert coverage_upload.main([]) == 0
    said = capsys.readouterr().err
    assert "token: ***, arguments: upload-process" in said and "token-of-the-test" not in said


# -- audit ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("listed", "state", "says"),
    [
        ([{"name": "a", "version": "1", "vulns": []}], CLEAN, ""),
        (
            [
                {
                    "name": "a",
                    "version": "1",
                    "vulns": [{"id": "PYSEC-1", "fix_versions": ["2"]}],
                }
            ],
            FINDINGS,
            "a 1: PYSEC-1, fixed in 2",
        ),
        ([{"name": "a", "skip_reason": "x"}], NOT_RUN, "no advisories"),
        (
            [{"name": "a", "skip_reason": "x"}, {"name": "b", "version": "1", "vulns": []}],
            CLEAN,
            "not looked up: a",
        ),
    ],
)
def test_advisories(listed, state, says):
    """Packages that could not be looked up never pass for clean ones."""
    found = audit.judge_advisories(json.dumps({"dependencies": listed}))
    assert found.state == state and says in found.text


@pytest.mark.parametrize(
    ("state", "only", "ci", "failure"),
    [
        (CLEAN, [], True, False),
        (FINDINGS, [], False, True),
        (NOT_RUN, [], False, False),
        (NOT_RUN, [], True, True),
        (NOT_RUN, ["x"], False, True),
    ],
)
def test_what_fails_the_audit(state, only, ci, failure):
    """Findings fail it; what could not be looked at fails it in CI, or when asked for."""
    check = Check("x", "", lambda root: Outcome(state))
    assert audit.is_failure(check, Outcome(state), only, ci) is failure


def test_all_findings_are_shown(monkeypatch, capsys):
    """One check's findings do not hide another's."""
    checks = [Check(n, n, lambda root, n=n: Outcome(FINDINGS, f"found by {n}")) for n in "ab"]
    monkeypatch.setattr(audit, "CHECKS", checks)
    monkeypatch.setattr(audit, "chosen", lambda only: checks)
    assert audit.main([]) == 1
    said = capsys.readouterr().err
    assert "found by a" in said and "found by b" in said and "not clean: a, b" in said
