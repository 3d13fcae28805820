"""``pipeline``: the workflow's jobs on this machine, with real processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tools.core.settings import ROOT
from tools.repo.event import Event
from tools.runs import record as run_record
from tools.runs.record import JobRecord, MatrixJobRecord, critical_path
from tools.workflow import local as pipeline
from tools.workflow import model as workflow
from tools.workflow import runner as pipeline_run
from tools.workflow.jobs import (
    Command,
    Policy,
    command_of,
    is_repeated,
    legs_of,
    runs_here,
    step_scope,
)
from tools.workflow.runner import NOT_RUN, Runner

GRAPH = workflow.load()
MAIN = Event("push", "refs/heads/main", "a" * 40, repository="o/n")
TAG = Event("push", "refs/tags/v1.2.3", "a" * 40, repository="o/n")
PULL = Event("pull_request", "refs/pull/3/merge", "a" * 40, pull_request=3, base_ref="main")
LOCAL = Policy(local_registry=True, token=True)
NOWHERE = Policy()
DIGEST = "sha256:" + "1" * 64


def lines(event, policy, job, digest=DIGEST):
    """The commands of a job's first leg, each step having left ``digest``."""
    leg = legs_of(GRAPH.jobs[job], policy)[0]
    outputs = {need: {"digest": digest} for need in leg.job.needs}
    before: list[Command] = []
    steps: dict[str, dict[str, str]] = {}
    for step in leg.job.steps:
        scope = step_scope(leg, event, outputs, steps)
        if runs_here(step, scope):
            command = command_of(step, scope, policy)
            steps[command.ident] = {"digest": digest}
            if not is_repeated(command, before):
                before.append(command)
    return [command.line() for command in before]


@pytest.mark.parametrize(
    ("event", "policy", "job", "wanted"),
    [
        (MAIN, LOCAL, "lint-and-format", ["nox -s lint"]),
        (MAIN, LOCAL, "build-docker-image", ["nox -s docker_dev"]),
        (MAIN, NOWHERE, "build-docker-image", ["nox -s docker_dev -- --no-push"]),
        (PULL, LOCAL, "build-docker-image", ["nox -s docker_dev -- --output oci"]),
        (PULL, NOWHERE, "build-docker-image", ["nox -s docker_dev -- --output oci"]),
        (
            MAIN,
            LOCAL,
            "test-docker-image",
            [f"nox -s 'docker_test(basic)' -- --digest {DIGEST}"],
        ),
        (MAIN, NOWHERE, "test-docker-image", ["nox -s 'docker_test(basic)'"]),
        (
            PULL,
            NOWHERE,
            "test-docker-image",
            [
                "nox -s 'docker_test(basic)' -- --archive dist/images/development.oci.tar "
                f"--digest {DIGEST}"
            ],
        ),
        (
            MAIN,
            LOCAL,
            "build-production-image",
            [
                "nox -s prod_image -- --no-push",
                "nox -s docker_test -- --image production",
                "nox -s prod_image",
                f"nox -s docker_test -- --image production --digest {DIGEST}",
            ],
        ),
        (
            MAIN,
            NOWHERE,
            "build-production-image",
            ["nox -s prod_image -- --no-push", "nox -s docker_test -- --image production"],
        ),
        (TAG, LOCAL, "create-release", ["nox -s release -- v1.2.3 --dry-run"]),
        (TAG, Policy(publish=True), "create-release", ["nox -s release -- v1.2.3 --dry-run"]),
        (
            TAG,
            Policy(publish=True, token=True),
            "create-release",
            ["nox -s release -- v1.2.3 --dry-run", "nox -s release -- v1.2.3"],
        ),
        (TAG, Policy(token=True), "create-release", ["nox -s release -- v1.2.3 --dry-run"]),
        (MAIN, LOCAL, "cleanup", ["nox -s cleanup -- --dry-run"]),
        (MAIN, Policy(publish=True, token=True), "cleanup", ["nox -s cleanup"]),
        (PULL, LOCAL, "cleanup", []),
    ],
)
def test_commands(event, policy, job, wanted):
    """The workflow's own commands, with what publishes withheld unless it is asked for."""
    assert lines(event, policy, job) == wanted


@given(
    st.sampled_from([MAIN, TAG, PULL]),
    st.builds(Policy, local_registry=st.booleans(), token=st.booleans()),
    st.sampled_from(sorted(GRAPH.jobs)),
)
def test_nothing_is_published_without_being_told(event, policy, job):
    """Without --publish no command can reach anything but a registry on this machine."""
    for line in lines(event, policy, job):
        if "docker_dev" in line or "prod_image" in line:
            assert policy.local_registry or "--no-push" in line or "--output oci" in line
        if "release" in line or "cleanup" in line:
            assert "--dry-run" in line


def test_legs_that_cannot_run_here():
    """Another system's leg and, without an engine, image jobs are left out, with why."""
    policy = Policy(engine="No Docker engine answers.", remedy="Start it.")
    linux, windows = legs_of(GRAPH.jobs["build-wheels"], policy)
    assert (linux.not_run, windows.not_run) == ("", "it runs on Windows, this is Linux")
    for job in ("build-docker-image", "test-docker-image", "build-production-image"):
        assert {leg.not_run for leg in legs_of(GRAPH.jobs[job], policy)} == {policy.engine}
    assert legs_of(GRAPH.jobs["lint-and-format"], policy)[0].not_run == ""


# -- running ----------------------------------------------------------------------------

# A nox for these tests: sessions that note when they ran, and do as they are told.
FAKE_NOX = """\
import json, os, pathlib, signal, sys, time
session = sys.argv[sys.argv.index("-s") + 1]
given = sys.argv[sys.argv.index("--") + 1 :] if "--" in sys.argv else []
orders = json.loads(os.environ["ORDERS"])
journal = pathlib.Path(os.environ["JOURNAL"])
def note(what):
    with open(journal, "a") as handle:
        handle.write(json.dumps([what, session, given, os.getpid()]) + "\\n")
note("begin")
print("this is", session, os.environ.get("SECRET_TO_HIDE", ""), flush=True)
order = orders.get(session, {})
if order.get("wait"):
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGTERM, signal.SIG_IGN) if order["wait"] == "stubborn" else None
        note("child")
        time.sleep(600)
    time.sleep(600)
if "together" in order:  # ends only if the others run at the same time
    until = time.monotonic() + 60
    while True:
        begun = {json.loads(l)[1] for l in journal.read_text().splitlines()}
        if set(order["together"]) <= begun:
            break
        if time.monotonic() > until:
            sys.exit(9)
        time.sleep(0.02)
with open(os.environ["GITHUB_OUTPUT"], "a") as handle:
    handle.write(f"digest<<EOF\\n{order.get('digest', '')}\\nEOF\\n")
with open(os.environ["GITHUB_STEP_SUMMARY"], "a") as handle:
    handle.write(f"summary of {session}\\n")
note("end")
sys.exit(order.get("code", 0))
"""


@pytest.fixture
def make(tmp_path, monkeypatch):
    """A runner whose nox is the one above, and what it noted."""
    (tmp_path / "fake" / "nox").mkdir(parents=True)
    (tmp_path / "fake" / "nox" / "__main__.py").write_text(FAKE_NOX)
    (tmp_path / "fake" / "nox" / "__init__.py").write_text("")
    journal = tmp_path / "journal"
    journal.write_text("")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "fake"))
    monkeypatch.setenv("JOURNAL", str(journal))

    def made(event=MAIN, policy=LOCAL, orders=None, **options):
        monkeypatch.setenv("ORDERS", json.dumps(orders or {}))
        return Runner(GRAPH, event, policy, "run", tmp_path, **options)

    def noted():
        return [json.loads(line) for line in journal.read_text().splitlines()]

    made.noted = noted
    return made


def sessions(made):
    """The sessions that were run, as they were typed."""
    return [Command(s, tuple(g)).line() for what, s, g, _ in made.noted() if what == "begin"]


def test_a_whole_run(make, tmp_path):
    """Jobs run in the graph's order and hand digests on; each has its log."""
    runner = make(orders={"docker_dev": {"digest": DIGEST}})
    runner.run(2)
    assert runner.results == {
        "lint-and-format": "success",
        "build-docker-image": "success",
        "test-docker-image": "success",
        "build-wheels": "success",
        "create-release": "skipped",
        "build-production-image": "success",
        "cleanup": "success",
    }
    ran = sessions(make)
    assert ran[:2] == ["nox -s lint", "nox -s docker_dev"]
    assert {
        f"nox -s 'docker_test({name})' -- --digest {DIGEST}"
        for name in ("basic", "import", "help")
    } == set(ran[2:5])
    assert ran[5] == "nox -s wheels" and ran[-1] == "nox -s cleanup -- --dry-run"
    folder = tmp_path / run_record.FOLDER / "run"
    for job in ("lint-and-format", "test-docker-image", "build-wheels", "cleanup"):
        assert "this is" in (folder / f"{job}.log").read_text()
    assert (folder / "test-docker-image.log").read_text().count("=== ") == 3
    assert "summary of lint" in pipeline.join_summaries(folder)


def test_legs_run_at_the_same_time(make):
    """Legs that do not need each other run in parallel, as many as allowed."""
    names = [f"docker_test({name})" for name in ("basic", "import", "help")]
    runner = make(orders={name: {"together": names} for name in names})
    runner.run(3)
    assert runner.results["test-docker-image"] == "success"


def test_no_more_than_allowed_at_the_same_time(make):
    """With one at a time, no session begins before the one before it has ended."""
    make().run(1)
    kinds = [what for what, *_ in make.noted()]
    assert kinds == ["begin", "end"] * (len(kinds) // 2)


@pytest.mark.parametrize(
    ("failing", "ran"),
    [
        ("lint", ["lint", "cleanup"]),
        ("docker_dev", ["lint", "docker_dev", "cleanup"]),
        ("docker_test(import)", ["lint", "docker_dev", "docker_test", "cleanup"]),
        ("wheels", ["lint", "docker_dev", "docker_test", "wheels", "cleanup"]),
    ],
)
def test_a_failure_skips_what_needs_it_and_nothing_else(make, failing, ran, capsys):
    """After a failure the rest goes on as on Actions: cleanup runs, dependents do not."""
    runner = make(orders={failing: {"code": 3}})
    runner.run(2)
    assert list(dict.fromkeys(s.partition("(")[0] for _, s, _, _ in make.noted())) == ran
    record = record_of(runner)
    assert record.result == "failure"
    pipeline.show_result(record)
    said = capsys.readouterr().err
    assert "ended with exit code 3" in said and "critical path" in said


def record_of(runner):
    """The record of a run."""
    result = "failure" if "failure" in runner.results.values() else "success"
    return run_record.RunRecord(
        "run", "2026-01-01T00:00:00Z", {}, runner.elapsed(), result, 2, runner.records()
    )


@pytest.fixture(autouse=True)
def logs_in_the_test_folder(tmp_path, monkeypatch):
    """Logs are shown from where the test's runner wrote them."""
    shown = pipeline.show_tail
    monkeypatch.setattr(pipeline, "show_tail", lambda log: shown(log, tmp_path))


def test_force_build_goes_on(make):
    """With force_build wheels and the production image are built after failed tests."""
    forced = Event("workflow_dispatch", "refs/heads/main", "a" * 40, force_build=True)
    runner = make(forced, orders={"lint": {"code": 1}, "docker_test(help)": {"code": 1}})
    runner.run(2)
    assert runner.results["build-wheels"] == "success"
    assert runner.results["build-production-image"] == "success"
    assert runner.results["lint-and-format"] == "failure"


def test_supposed_failures_are_not_run(make):
    """--failed shows what CI would do after a failure, without breaking anything."""
    runner = make(failed=("build-docker-image",))
    runner.run(2)
    assert sessions(make) == ["nox -s lint", "nox -s cleanup -- --dry-run"]
    assert runner.results["build-docker-image"] == "failure"


def test_without_an_engine(make, capsys):
    """On a laptop image jobs are not run, with remedy, and the rest is the result."""
    policy = Policy(engine="No Docker engine answers.", remedy="Start it.")
    runner = make(policy=policy)
    runner.run(2)
    assert runner.results["cleanup"] == NOT_RUN  # there is no token either
    assert (
        runner.results["build-docker-image"] == runner.results["test-docker-image"] == NOT_RUN
    )
    assert runner.results["build-wheels"] == "success"
    assert "failure" not in runner.results.values()
    pipeline.show_remedies(runner)
    assert "No Docker engine answers. Start it." in capsys.readouterr().err


def test_without_an_engine_in_ci(make):
    """With CI set, an engine that does not answer is a failure."""
    runner = make(
        policy=Policy(engine="No Docker engine answers.", remedy="Start it.", ci=True)
    )
    runner.run(2)
    assert runner.results["build-docker-image"] == "failure"
    assert runner.results["build-wheels"] == "skipped"


@pytest.mark.skipif(sys.platform == "win32", reason="process groups are POSIX")
@pytest.mark.parametrize("kind", ["polite", "stubborn"])
def test_interrupt_ends_all_children(make, monkeypatch, kind):
    """Ctrl-C ends every child and what it started, also one that ignores the request."""
    monkeypatch.setattr(pipeline_run, "GRACE", 2.0)
    runner = make(orders={"lint": {"wait": kind}})

    def interrupt():
        while not any(what == "child" for what, *_ in make.noted()):
            time.sleep(0.02)
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        runner.run(2)
    thread.join()
    for _, _, _, pid in make.noted():
        with pytest.raises(ProcessLookupError):
            _really_alive(pid)
    assert runner.results["lint-and-format"] == "cancelled"
    assert set(runner.results.values()) == {"cancelled"}


def _really_alive(pid):
    """Raise ProcessLookupError unless the process runs; a zombie does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError as error:
        raise ProcessLookupError from error
    if state == "Z":
        raise ProcessLookupError


def test_secrets_are_masked_in_logs_and_not_handed_on(make, tmp_path, monkeypatch):
    """No secret is in a log, and those that publish do not reach a job."""
    monkeypatch.setenv("SECRET_TO_HIDE", "hunter2-very-secret")
    monkeypatch.setenv("DOCKER_HUB_TOKEN", "hub-secret-value")
    from tools.core.secrets import remember

    remember("hunter2-very-secret")
    runner = make()
    assert "DOCKER_HUB_TOKEN" not in runner._environment(tmp_path, tmp_path)
    published = make(policy=Policy(publish=True))
    assert "DOCKER_HUB_TOKEN" in published._environment(tmp_path, tmp_path)
    runner.run(2)
    texts = [p.read_text() for p in (tmp_path / run_record.FOLDER).rglob("*") if p.is_file()]
    assert any("this is lint ***" in text for text in texts)
    assert not any("hunter2" in text for text in texts)


def test_children_see_the_event(make, tmp_path):
    """The sessions of a run see the event that it was asked for."""
    env = make(PULL)._environment(tmp_path, tmp_path)
    assert (env["GITHUB_EVENT_NAME"], env["GITHUB_REF"]) == ("pull_request", PULL.ref)
    assert env["GITHUB_BASE_REF"] == "main"


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("", {}),
        ("a=1\n", {"a": "1"}),
        ("a=x=y\nb<<EOF\n1\n2\nEOF\nc=3\n", {"a": "x=y", "b": "1\n2", "c": "3"}),
        ("a<<E\nb=2\nE\n", {"a": "b=2"}),
    ],
)
def test_outputs(text, wanted):
    """Outputs are read in both of the forms that Actions knows."""
    assert pipeline_run.parse_outputs(text) == wanted


# -- records ----------------------------------------------------------------------------


def job(name, seconds, needs=()):
    """A job that took that long."""
    leg = MatrixJobRecord("", "success", 0.0, seconds, "", "x.log")
    return JobRecord(name, needs, "success", matrix_jobs=(leg,))


def test_critical_path():
    """The longest chain of jobs that need each other."""
    jobs = [job("a", 1), job("b", 5, ("a",)), job("c", 2, ("a",)), job("d", 1, ("b", "c"))]
    assert [j.name for j in critical_path(jobs)] == ["a", "b", "d"]
    assert critical_path([]) == []


@given(
    st.lists(st.tuples(st.floats(0.1, 100), st.sets(st.integers(0, 6))), min_size=1, max_size=7)
)
def test_critical_path_laws(drawn):
    """It is a chain of needs, at least as long as any job, at most as all together."""
    jobs = []
    for index, (seconds, needs) in enumerate(drawn):
        jobs.append(job(str(index), seconds, tuple(str(n) for n in sorted(needs) if n < index)))
    chain = critical_path(jobs)
    length = sum(j.seconds for j in chain)
    assert max(j.seconds for j in jobs) <= length + 1e-9
    assert length <= sum(j.seconds for j in jobs) + 1e-9
    for before, after in zip(chain, chain[1:], strict=False):
        assert before.name in after.needs


def test_record_round_trip(make, tmp_path):
    """A record is read back as it was written; what is none is passed over."""
    runner = make()
    runner.run(2)
    record = record_of(runner)
    run_record.write(record, tmp_path)
    (tmp_path / run_record.FOLDER / "broken").mkdir()
    (tmp_path / run_record.FOLDER / "broken" / "run.json").write_text("{")
    [found] = run_record.history(tmp_path)
    assert found == record
    data = json.loads((tmp_path / run_record.FOLDER / "run" / "run.json").read_text())
    assert data["critical_path"]["jobs"][0] == "lint-and-format"


# -- the command ------------------------------------------------------------------------


def command(*arguments, **env):
    """Run ``python -m tools.workflow.local``."""
    return subprocess.run(
        [sys.executable, "-m", "tools.workflow.local", *arguments],
        capture_output=True, text=True, cwd=ROOT, env={**os.environ, **env},
    )  # fmt: skip


def test_dry_run():
    """--dry-run shows the commands of every leg and runs nothing."""
    done = command("--dry-run", "--json", "--event", "push", "--ref", "refs/tags/v1.0.0",
                   DOCKER_HOST="unix:///nowhere", GH_TOKEN="")  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)["commands"]
    assert found["lint-and-format"] == ["nox -s lint"]
    assert found["create-release"] == ["nox -s release -- v1.0.0 --dry-run"]
    assert found["build-docker-image"] == []


def test_records_of_other_versions_do_not_reach_a_release(tmp_path):
    """Before a release, records of images of other versions are removed, no others."""
    folder = tmp_path / "dist" / "images"
    folder.mkdir(parents=True)
    (folder / "production.json").write_text('{"version": "1.0.0"}')
    (folder / "development.json").write_text('{"version": "1.2.3"}')
    assert pipeline.drop_stale(tmp_path, MAIN) == []
    assert pipeline.drop_stale(tmp_path, TAG) == ["production.json"]
    assert [path.name for path in folder.iterdir()] == ["development.json"]


def test_nothing_to_run():
    """An event that does not trigger the workflow is said to be one: exit code 2."""
    done = command("--event", "push", "--ref", "refs/heads/nobodys")
    assert done.returncode == 2 and "Nothing to run" in done.stderr
    assert "Traceback" not in done.stderr


def test_json_through_nox():
    """Through nox too, --json has stdout for itself: talk goes to stderr."""
    pytest.importorskip("nox")
    arguments = ["--json", "--ref", "refs/heads/main", *_all_failed()]
    done = subprocess.run(
        [sys.executable, "-m", "nox", "-s", "pipeline", "--", *arguments],
        capture_output=True, text=True, cwd=ROOT,
        env={**os.environ, "DOCKER_HOST": "unix:///nowhere", "GH_TOKEN": "", "CI": ""},
    )  # fmt: skip
    assert json.loads(done.stdout)["result"] == "failure", done.stderr
    assert "supposed to fail" in done.stderr and done.returncode == 1


def _all_failed():
    """Every job is supposed to fail, so that none is run."""
    return [word for name in GRAPH.jobs for word in ("--failed", name)]
