"""``notify``: the message to Slack. Inert without its secret."""

import contextlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.runs.test_summary import record
from tools.runs import notify
from tools.runs.record import write

OTHERS = (
    "http://127.0.0.1:9/services/secretpart",
    "http://[secretpart",
    "secretpart of nothing",
)


@contextlib.contextmanager
def serve(answer):
    """A server that answers as ``answer``, given the handler, says: status and body."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            status, body = answer(self)
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.address = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def hook(monkeypatch, tmp_path):
    """A webhook that answers as it is told, and a run to tell of."""

    def answer(handler):
        server.got.append(handler.rfile.read(int(handler.headers["Content-Length"])).decode())
        return server.answer

    write(record("20260101T000000Z-aaaaaa", "failure"), tmp_path)
    monkeypatch.setattr("tools.runs.history.ROOT", tmp_path)
    with serve(answer) as server:
        server.got, server.answer = [], (200, "ok")
        server.address += "/services/T0/B0/secretpart"
        yield server


def test_message():
    """Result, failed jobs and links."""
    found = notify.message(record(result="failure", address="https://x/run"))
    text = found["blocks"][0]["text"]["text"]
    assert ":x: *MLC-LLM pipeline failed: push of refs/heads/main (2:15 min)*" in text
    assert "\nFailed: <https://x/help|tests>\n" in text
    assert text.endswith("<https://x/run|Open the run>")
    assert found["text"].startswith("MLC-LLM pipeline failed")


@given(st.text(max_size=4000))
def test_nothing_becomes_markup(text):
    """Text from outside has no bracket, and a section stays within Slack's limit."""
    hostile = record(result="failure", title=f"<!channel>{text}")
    shown = notify.message(hostile)["blocks"][0]["text"]["text"]
    assert "<!" not in shown and len(shown) <= 3000


def test_slack_is_told(hook, monkeypatch, capsys):
    """The message arrives at the hook, and the hook's address is shown nowhere."""
    monkeypatch.setenv("SLACK_WEBHOOK_URL", hook.address)
    assert notify.main([]) == 0
    [got] = hook.got
    assert "Failed: " in got
    out = capsys.readouterr()
    assert "Slack was notified" in out.err and "secretpart" not in out.err + out.out


@pytest.mark.parametrize(
    "answer",
    [(500, "oops"), (404, "no /services/T0/B0/secretpart"), (200, "<html>"), *OTHERS],
)
def test_a_failing_hook_never_fails_the_pipeline(hook, monkeypatch, capsys, answer):
    """Whatever the hook does, the session ends well, with a warning without the address."""
    hook.answer = answer
    monkeypatch.setenv("SLACK_WEBHOOK_URL", answer if answer in OTHERS else hook.address)
    assert notify.main([]) == 0
    said = capsys.readouterr().err
    assert "warning: Slack was not notified" in said and "secretpart" not in said
    assert len(hook.got) == (answer not in OTHERS)  # a message is not sent twice


def test_inert_without_secret(capsys):
    """Without its secret the session does nothing and says so."""
    assert notify.main([]) == 0
    assert "SLACK_WEBHOOK_URL is not set" in capsys.readouterr().err
