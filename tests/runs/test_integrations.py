"""Optional integration with Slack. Inert without its secret."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.runs.test_summary import record
from tools.core.secrets import Secret
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
    assert "Slack was notified" in out.err and "secretpart" not in out.err + out.out


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
    assert "warning: Slack was not notified" in said and "secretpart" not in said


def test_nonsense_for_a_hook(capsys):
    """A hook that is no address is a problem in words, not a traceback."""
    assert notify.send(Secret("not an address"), {"text": "x", "blocks": []})


def test_inert_without_secret(capsys, tmp_path, monkeypatch):
    """Without their secrets the sessions do nothing and say so."""
    assert notify.main([]) == 0
    assert "SLACK_WEBHOOK_URL is not set" in capsys.readouterr().err
