"""Summaries: runs from Actions and from here, tables and the page."""

from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.services import releases
from tests.services.actions import ROUTES, Actions
from tests.services.faults import Fault
from tests.services.github import GitHubServer
from tools.core.errors import UsageError
from tools.core.settings import load
from tools.images.record import ImageRecord
from tools.runs import __main__ as summary
from tools.runs import history
from tools.runs.page import clock, page, success_rate, timeline
from tools.runs.record import ArtifactRecord, JobRecord, MatrixJobRecord, RunRecord, write

TOKEN = "token-of-the-test"


def record(run="r1", result="success", scale=1.0, title="refs/heads/main", address=""):
    """A small run: one job, then one with three matrix jobs, one skipped."""
    tests = [
        MatrixJobRecord(label, "success", 10.0 * scale, n * scale, "", f"https://x/{label}")
        for label, n in (("basic", 5.0), ("import", 125.0), ("help", 3.0))
    ]
    tests[-1].result = result
    image = ("production", "x", "sha256:1", ("x:prod",), ("linux/amd64",), 80_000_000)
    lint = MatrixJobRecord("", "success", 0.0, 10.0 * scale, "", "x.log")
    return RunRecord(
        run=run,
        began="2026-11-23T10:00:00Z",
        event={"name": "push", "ref": title},
        seconds=135.0 * scale,
        result=result,
        parallel=2,
        jobs=(
            JobRecord("lint-and-format", (), "success", "it needs nothing", (lint,)),
            JobRecord("tests", ("lint-and-format",), result, "why", tuple(tests)),
            JobRecord("create-release", ("tests",), "skipped", "no tag"),
        ),
        artifacts=(ArtifactRecord("a.whl", 8000, "ab" * 32),),
        images=(ImageRecord(*image, "push", "1.0", "a" * 40),),
        address=address,
    )


def test_markdown():
    """The step summary has the jobs, the critical path and the artifacts."""
    text = summary.markdown(record())
    assert "| tests | success | 2:05 min | why |" in text
    assert "Critical path: lint-and-format → tests, 2:15 min." in text
    assert "| a.whl | 8.0 kB |" in text


def test_page_is_self_contained_and_well_formed():
    """One file, nothing fetched, light and dark, every bar with its text."""
    text = page([record("r0", "failure", 0.5), record("r1", scale=2.0)])
    root = ElementTree.fromstring(text)
    assert not [one for one in root.iter() if {"src", "href"} & set(one.attrib)]
    assert "prefers-color-scheme: dark" in text and "<script" not in text
    said = "".join(root.itertext())
    for expected in (
        "tests (import)",
        "4:10 min",
        "50 %",
        "a.whl",
        "sha256:1",
        "create-release",
    ):
        assert expected in said


@given(st.text(max_size=30))
def test_page_escapes(text):
    """Text from outside cannot become markup."""
    hostile = f"<script>alert(1)</script>{text}"
    shown = page([record(run=hostile, title=hostile)])
    assert "<script" not in shown


@given(st.floats(0.01, 1e6))
def test_bars_stay_within_the_time_line(scale):
    """Every bar begins and ends within the run, and is as long as its share of it."""
    bars = list(timeline(record(scale=scale)))
    assert all(bar.start + bar.length <= 100.001 for bar in bars)
    by_name = {bar.name: bar for bar in bars}
    assert by_name["tests (import)"].length == pytest.approx(125 / 135 * 100)
    assert by_name["create-release"].length == 0


def test_clock():
    """Times are shown as one reads them."""
    shown = [clock(seconds) for seconds in (0.04, 59.9, 60, 125, 3720)]
    assert shown == ["0.0 s", "59.9 s", "1:00 min", "2:05 min", "1:02 h"]


def test_success_rate_leaves_out_cancelled_runs():
    """A run that was cancelled is neither a success nor a failure."""
    runs = [record(result=r) for r in ("success", "failure", "cancelled", "success")]
    assert success_rate(runs) == pytest.approx(2 / 3)
    assert success_rate([]) == 0


TEN = "2026-11-23T10:"
# Display name, when it began and ended (minutes and seconds after ten o'clock), conclusion.
JOBS = [
    ("Lint and format", "00:05", "01:05", "success"),
    ("Build development image", "01:10", "03:20", "success"),
    ("Test development image (basic)", "03:25", "03:50", "success"),
    ("Test development image (import)", "03:26", "04:20", "failure"),
    ("Test development image (help)", "03:24", "03:40", "success"),
    ("Build wheels", "04:21", "04:21", "skipped"),
    ("Create release", "04:21", "04:21", "skipped"),
    ("Clean up", "04:22", None, None),
]


@pytest.fixture
def api(tmp_path):
    """A GitHub with two runs that have ended and one that goes on, their jobs on two pages."""
    with GitHubServer(tmp_path / "github", [*releases.ROUTES, *ROUTES]) as server:
        server.add_token(TOKEN)
        server.add_repository("o/n")
        told = Actions(server, "o/n")
        for number, conclusion in ((1, "success"), (2, "failure"), (3, None)):
            status = "completed" if conclusion else "in_progress"
            told.run(
                number, status=status, conclusion=conclusion, run_started_at=f"{TEN}00:00Z"
            )
            told.artifact(number, "wheels-linux-x64", 9000)
            for other in range(25):  # the jobs that matter are on the first page and the next
                told.job(number, f"Other {other}", conclusion="success")
            for name, start, end, result in JOBS:
                times = {"started_at": f"{TEN}{start}Z", "completed_at": end and f"{TEN}{end}Z"}
                told.job(number, name, conclusion=result, **times)
        yield server


@pytest.fixture
def records(api, tmp_path):
    """The last runs that the API tells of."""
    settings = load({"GITHUB_API_URL": api.url, "GH_TOKEN": TOKEN}, tmp_path)
    return history.fetch_records(settings, "o/n", 20, current="3")


def test_history_from_the_api(records):
    """Past runs, the oldest first, the one that goes on last; every page of their jobs."""
    assert [r.run for r in records] == ["1", "2", "3"]
    assert [r.result for r in records] == ["success", "failure", "failure"]
    assert records[0].artifacts == (ArtifactRecord("wheels-linux-x64", 9000),)
    assert records[0].address.endswith("/o/n/actions/runs/1")
    assert len({job.name for job in records[0].jobs}) == 7
    page(records)


def test_a_run_of_the_api_as_a_record(records):
    """Jobs are found by their display names, matrix jobs together; times from the start."""
    jobs = {job.name: job for job in records[-1].jobs}
    assert jobs["lint-and-format"].matrix_jobs[0].started == 5
    assert jobs["lint-and-format"].seconds == 60
    tests = jobs["test-docker-image"]
    labels = [one.label for one in tests.matrix_jobs]
    assert (tests.result, labels) == ("failure", ["basic", "import", "help"])
    assert [one.started for one in tests.matrix_jobs] == [205, 206, 204]
    assert tests.seconds == 54
    assert jobs["build-wheels"].result == jobs["create-release"].result == "skipped"
    assert jobs["cleanup"].result == "running"


@pytest.fixture
def actions(monkeypatch, tmp_path):
    """The variables of a run on Actions."""
    variables = {
        "GITHUB_ACTIONS": "true", "GH_TOKEN": TOKEN, "GITHUB_RUN_ID": "3",
        "GITHUB_EVENT_NAME": "push", "GITHUB_REF": "refs/heads/main",
        "GITHUB_REPOSITORY": "o/n", "GITHUB_STEP_SUMMARY": str(tmp_path / "step.md"),
        "GITHUB_API_URL": "http://127.0.0.1:9", "GITHUB_TIME_LIMIT": "1s",
    }  # fmt: skip
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("tools.runs.history.ROOT", tmp_path)
    return variables


def test_summary_on_actions(api, actions, tmp_path, monkeypatch):
    """On Actions the API tells of the run, and the tables go to the step summary."""
    monkeypatch.setenv("GITHUB_API_URL", api.url)
    output = tmp_path / "page.html"
    assert summary.main(["--output", str(output)]) == 0
    assert "| test-docker-image | failure |" in (tmp_path / "step.md").read_text()
    assert "test-docker-image (import)" in output.read_text()


BROKEN = [
    Fault("status", "actions/list-workflow-runs", nth=0, status=404),
    Fault("status", "actions/list-jobs-for-workflow-run", nth=0, status=502),
    Fault("half-answer", "actions/list-workflow-run-artifacts", nth=0),
    Fault("reset-before", "actions/get-workflow-run", nth=0),
    None,  # nothing is there
]


@pytest.mark.parametrize("fault", BROKEN, ids=lambda fault: fault.kind if fault else "absent")
def test_summary_never_fails_a_run_on_actions(
    api, actions, tmp_path, capsys, monkeypatch, fault
):
    """A GitHub that does not answer is a warning there: the run itself went well."""
    if fault:
        api.faults.script.append(fault)
        monkeypatch.setenv("GITHUB_API_URL", api.url)
    assert summary.main(["--output", str(tmp_path / "page.html")]) == 0
    said = capsys.readouterr().err
    assert "cannot be read" in said and "No summary" in said


def test_local_history(actions, tmp_path):
    """Where the API is not asked, or does not answer, the records of local runs are drawn;
    what is not a record is passed over, and that there is none is said.
    """
    with pytest.raises(UsageError, match="no run to draw"):
        history.find_records({}, 5)
    saved = [record("20260101T000000Z-aaaaaa"), record("20260102T000000Z-aaaaaa")]
    for one in saved:
        write(one, tmp_path)
    (tmp_path / "dist" / "runs" / "broken").mkdir()
    (tmp_path / "dist" / "runs" / "broken" / "run.json").write_text("{")
    for env, local in (({}, False), (actions, False), (actions, True)):
        assert history.find_records(env, 5, local) == saved
