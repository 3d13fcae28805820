"""Summaries: runs from Actions and from here, the Gantt chart, the page."""

from __future__ import annotations

import html.parser
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tools.core import files
from tools.core.errors import UsageError
from tools.core.settings import load
from tools.github.client import connect
from tools.github.errors import GitHubError
from tools.images.record import ImageRecord
from tools.runs import __main__ as summary
from tools.runs.find import find_records
from tools.runs.gantt import clock, gantt, markdown
from tools.runs.history import fetch_history
from tools.runs.page import page, success_rate, timeline
from tools.runs.record import ArtifactRecord, JobRecord, MatrixJobRecord, RunRecord, write
from tools.workflow import model

GRAPH = model.load()


def record(run="r1", result="success", scale=1.0, name="lint-and-format"):
    """A small run: one job, then one with three matrix jobs, one skipped."""
    lint = MatrixJobRecord("", "success", 0.0, 10.0 * scale, "", "x.log")
    matrix_jobs = tuple(
        MatrixJobRecord(
            label, result if label == "help" else "success", 10.0 * scale, n * scale, "", "x"
        )
        for label, n in (("basic", 5.0), ("import", 125.0), ("help", 3.0))
    )
    return RunRecord(
        run=run,
        began="2026-11-23T10:00:00Z",
        event={"name": "push", "ref": "refs/heads/main"},
        seconds=135.0 * scale,
        result=result,
        parallel=2,
        jobs=(
            JobRecord(name, (), "success", "it needs nothing", (lint,)),
            JobRecord("tests", (name,), result, "why", matrix_jobs),
            JobRecord("create-release", ("tests",), "skipped", "no tag"),
        ),
        artifacts=(ArtifactRecord("a.whl", 8000, "ab" * 32),),
        images=(
            ImageRecord(
                "production",
                "x",
                "sha256:1",
                ("x:prod",),
                ("linux/amd64",),
                80_000_000,
                "push",
                "1.0",
                "a" * 40,
            ),
        ),
    )


# -- Mermaid ----------------------------------------------------------------------------


def test_gantt():
    """Every matrix job that ran has a bar from its beginning to its end; failures stand out."""
    text = gantt(record(result="failure"))
    assert text.startswith("gantt\n    dateFormat X\n")
    assert "    section tests\n" in text
    assert "    lint-and-format 10.0 s :done, 0, 10\n" in text
    assert "    import 2m05 :done, 10, 135\n" in text
    assert "    help 3.0 s :crit, 10, 13\n" in text
    assert "create-release" not in text


@given(st.text(max_size=20))
def test_gantt_cannot_be_broken_by_a_name(name):
    """A line of the chart has one colon, whatever a job is called."""
    name = re.sub(r"\s", " ", name) or "x"
    lines = gantt(record(name="".join(name.splitlines()) or "x")).splitlines()[3:]
    for line in lines:
        assert line.count(":") == (0 if line.startswith("    section") else 1)


def test_markdown():
    """The step summary has the chart, the jobs, the critical path and the artifacts."""
    text = markdown(record())
    assert "```mermaid\ngantt\n" in text
    assert "Critical path: lint-and-format → tests, 2:15 min of 2:15 min." in text
    assert "| a.whl | 8.0 kB |" in text


# -- the page ---------------------------------------------------------------------------


class Checker(html.parser.HTMLParser):
    """Tags that are opened and closed in order; addresses that a page would fetch."""

    VOID = {"meta", "br"}

    def __init__(self):
        super().__init__()
        self.open, self.fetched, self.text = [], [], []

    def handle_starttag(self, tag, attrs):
        if tag not in self.VOID and not tag.startswith(("rect", "line")) or tag == "rect":
            self.open.append(tag)
        self.fetched += [v for k, v in attrs if k in {"src", "href"}]

    def handle_startendtag(self, tag, attrs):
        pass

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def test_page_is_self_contained_and_well_formed():
    """One file, nothing fetched, light and dark, every bar with its text."""
    text = page([record("r0", "failure", 0.5), record("r1", scale=2.0)])
    checker = Checker()
    checker.feed(text)
    assert checker.open == [] and checker.fetched == []
    assert "prefers-color-scheme: dark" in text and "<script" not in text
    said = "".join(checker.text)
    for wanted in ("tests (import)", "4:10 min", "50 %", "a.whl", "sha256:1", "create-release"):
        assert wanted in said


@given(st.text(max_size=30))
def test_page_escapes(text):
    """Text from outside cannot become markup."""
    hostile = f"<script>alert(1)</script>{text}"
    shown = page([record(run=hostile, name=hostile)])
    assert "<script" not in shown


@given(st.floats(0.01, 1e6))
def test_bars_stay_within_the_time_line(scale):
    """Every bar begins and ends within the run, and is as long as its share of it."""
    bars = list(timeline(record(scale=scale)))
    assert all(bar.start + bar.length <= 100.001 for bar in bars)
    by_name = {bar.name: bar for bar in bars}
    assert by_name["tests (import)"].length == pytest.approx(125 / 135 * 100)
    assert by_name["create-release"].length == 0


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.0 s"), (59.9, "59.9 s"), (60, "1:00 min"), (125, "2:05 min"), (3720, "1:02 h")],
)
def test_clock(seconds, text):
    """Times are shown as one reads them."""
    assert clock(seconds) == text


def test_success_rate_leaves_out_cancelled_runs():
    """A run that was cancelled is neither a success nor a failure."""
    runs = [record(result=r) for r in ("success", "failure", "cancelled", "success")]
    assert success_rate(runs) == pytest.approx(2 / 3)
    assert success_rate([]) == 0


# -- runs on Actions --------------------------------------------------------------------


def run_data(number, conclusion="success"):
    """A run as the API lists it."""
    address = f"{{base}}/repos/o/n/actions/runs/{number}"
    return {
        "id": number, "conclusion": conclusion, "event": "push", "head_branch": "main",
        "created_at": "2026-11-23T10:00:00Z", "run_started_at": "2026-11-23T10:00:00Z",
        "url": address, "jobs_url": f"{address}/jobs", "artifacts_url": f"{address}/artifacts",
    }  # fmt: skip


def job_data(name, start, end, conclusion="success"):
    """A job as the API lists it, seconds after ten o'clock."""
    times = [
        f"2026-11-23T10:{s // 60:02d}:{s % 60:02d}Z" if s is not None else None
        for s in (start, end)
    ]
    return {
        "name": name, "conclusion": conclusion, "started_at": times[0], "completed_at": times[1],
        "html_url": f"https://github.com/o/n/job/{name.split()[0]}",
    }  # fmt: skip


JOBS = [
    job_data("Lint and format", 5, 65),
    job_data("Build development image", 70, 200),
    job_data("Test development image (basic)", 205, 230),
    job_data("Test development image (import)", 206, 260, "failure"),
    job_data("Test development image (help)", 204, 220),
    job_data("Build wheels", None, None, "skipped"),
    job_data("Create release", None, None, "skipped"),
    job_data("Clean up", 262, None, None),
]


@pytest.fixture
def api():
    """A server with the API's answers about two runs, jobs on two pages."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            parts = urlsplit(self.path)
            query = parse_qs(parts.query)
            asked.append(parts.path)
            headers, body = {}, None
            if parts.path == "/repos/o/n/actions/workflows/ci-cd.yml/runs":
                body = {
                    "total_count": 2,
                    "workflow_runs": [run_data(2, "failure"), run_data(1)],
                }
            elif parts.path.endswith("/jobs"):
                page = query.get("page", ["1"])[0]
                if page == "1":
                    here = f"http://{self.headers['Host']}{parts.path}"
                    headers["Link"] = f'<{here}?page=2>; rel="next"'
                body = {"total_count": len(JOBS), "jobs": JOBS[:4] if page == "1" else JOBS[4:]}
            elif parts.path.endswith("/artifacts"):
                body = {
                    "total_count": 1,
                    "artifacts": [{"name": "wheels-linux-x64", "size_in_bytes": 9000}],
                }
            elif parts.path == "/repos/o/n/actions/runs/3":
                body = run_data(3, None)
            base = f"http://{self.headers['Host']}"
            content = json.dumps(body).replace("{base}", base).encode()
            self.send_response(200 if body is not None else 404)
            for name, value in {"Content-Type": "application/json", **headers}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    server.asked = asked
    server.address = f"http://127.0.0.1:{server.server_port}"
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def history(api, tmp_path):
    """The last runs that the API tells of."""
    settings = load({"GITHUB_API_URL": api.address, "GH_TOKEN": "token-of-the-test"}, tmp_path)
    return fetch_history(connect(settings).get_repo("o/n"), GRAPH, 20, current="3")


def test_history_from_the_api(history):
    """Past runs, the oldest first, the one that goes on last; every page of their jobs."""
    assert [r.run for r in history] == ["1", "2", "3"]
    assert [r.result for r in history] == ["success", "failure", "failure"]
    assert history[0].artifacts == (ArtifactRecord("wheels-linux-x64", 9000),)
    assert len({job.name for job in history[0].jobs}) == 7
    page(history)


def test_a_run_of_the_api_as_a_record(history):
    """Jobs are found by their display names, matrix jobs together; times from the start."""
    jobs = {job.name: job for job in history[-1].jobs}
    assert jobs["lint-and-format"].matrix_jobs[0].started == 5
    assert jobs["lint-and-format"].seconds == 60
    tests = jobs["test-docker-image"]
    labels = [one.label for one in tests.matrix_jobs]
    assert (tests.result, labels) == ("failure", ["basic", "import", "help"])
    assert (tests.started, tests.seconds) == (204, 54)
    assert jobs["build-wheels"].result == jobs["create-release"].result == "skipped"
    assert jobs["cleanup"].result == "running"


def test_summary_on_actions(api, tmp_path, monkeypatch):
    """On Actions the API tells of the run, and the chart goes to the step summary."""
    for name, value in {
        "GITHUB_API_URL": api.address, "GH_TOKEN": "token-of-the-test", "GITHUB_RUN_ID": "3",
        "GITHUB_EVENT_NAME": "push", "GITHUB_REF": "refs/heads/main",
        "GITHUB_REPOSITORY": "o/n", "GITHUB_STEP_SUMMARY": str(tmp_path / "step.md"),
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    output = tmp_path / "page.html"
    assert summary.main(["--output", str(output)]) == 0
    assert "section test-docker-image" in (tmp_path / "step.md").read_text()
    assert "test-docker-image (import)" in output.read_text()


def test_summary_never_fails_a_run_on_actions(monkeypatch, tmp_path, capsys):
    """A GitHub that does not answer is a warning there: the run itself went well."""
    for name, value in {
        "GITHUB_ACTIONS": "true", "GITHUB_API_URL": "http://127.0.0.1:9", "GH_TOKEN": "abcdefgh",
        "GITHUB_RUN_ID": "3", "GITHUB_EVENT_NAME": "push", "GITHUB_REF": "refs/heads/main",
        "GITHUB_REPOSITORY": "o/n", "GITHUB_TIME_LIMIT": "1s",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("tools.runs.find.ROOT", tmp_path)
    assert summary.main(["--output", str(tmp_path / "page.html")]) == 0
    said = capsys.readouterr().err
    assert "cannot be read" in said and "No summary" in said


def test_local_history(tmp_path):
    """Without a token the records of local runs are drawn; without any, it is said."""
    with pytest.raises(UsageError, match="no run to draw"):
        find_records({}, "local", 5, tmp_path)
    saved = record("20260101T000000Z-aaaaaa")
    assert files.read_json(write(saved, tmp_path), RunRecord) == saved
    (tmp_path / "dist" / "runs" / "broken").mkdir()
    (tmp_path / "dist" / "runs" / "broken" / "run.json").write_text("{")
    write(record("20260102T000000Z-aaaaaa"), tmp_path)
    assert [r.run[:8] for r in find_records({}, "local", 5, tmp_path)] == [
        "20260101",
        "20260102",
    ]
    offline = {"GH_TOKEN": "abcdefgh", "GITHUB_API_URL": "http://127.0.0.1:9",
               "GITHUB_REPOSITORY": "o/n", "GITHUB_EVENT_NAME": "push",
               "GITHUB_REF": "refs/heads/main", "GITHUB_TIME_LIMIT": "1s"}  # fmt: skip
    assert len(find_records(offline, "auto", 5, tmp_path)) == 2
    with pytest.raises(GitHubError):
        find_records(offline, "actions", 5)
    with pytest.raises(UsageError, match="without a token"):
        find_records({}, "actions", 5)
