"""``pipeline``: the workflow's jobs on this machine, with real processes."""

import json
import os
import shlex
import signal
import subprocess
import sys
import threading
import time

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tools.core.secrets import forget, remember
from tools.core.settings import ROOT
from tools.images import record as images
from tools.repo.event import Event
from tools.runs import record as runs
from tools.workflow import contexts, jobs, local, model, runner
from tools.workflow.jobs import Policy
from tools.workflow.runner import NOT_RUN, Runner, parse_outputs

GRAPH = model.load()
MAIN = Event("push", "refs/heads/main", "a" * 40, repository="o/n")
TAG = Event("push", "refs/tags/v1.2.3", "a" * 40, repository="o/n")
PULL = Event("pull_request", "refs/pull/3/merge", "a" * 40, pull_request=3, base_ref="main")
QUEUE = Event("merge_group", "refs/heads/gh-readonly-queue/main/pr-3-abc", "a" * 40)
FORCED = Event("workflow_dispatch", "refs/heads/main", "a" * 40, force_build=True)
LOOPBACK = Policy(push=True)
DIGEST = "sha256:" + "1" * 64


def lines(event, policy, job, digest=DIGEST, graph=GRAPH, results=None):
    """The commands of a job's first matrix job, each step having left ``digest``."""
    job = graph.jobs[job]
    results = results or dict.fromkeys(graph.jobs, "success")
    outputs = {need: {"digest": digest} for need in job.needs}
    names = contexts.of_job(graph, job, event, results, outputs)
    one = next(jobs.matrix_jobs(job, policy, names))
    found = []
    for command in jobs.job_commands(graph, one, names, policy):
        one.note(command, {"digest": digest}, 0)
        found.append(shlex.join(command.words))
    return found


ARCHIVE = f"-- --archive dist/images/development.oci.tar --digest {DIGEST}"
RELEASE = "nox -s release -- v1.2.3"
PRODUCTION = ["nox -s prod_image -- --no-push", "nox -s docker_test -- --image production"]
PUSHED = ["nox -s prod_image", f"nox -s docker_test -- --image production --digest {DIGEST}"]


@pytest.mark.parametrize(
    ("event", "policy", "job", "expected"),
    [
        (MAIN, LOOPBACK, "lint-and-format", ["nox -s plan", "nox -s lint"]),
        (MAIN, LOOPBACK, "build-docker-image", ["nox -s docker_dev"]),
        (MAIN, Policy(), "build-docker-image", ["nox -s docker_dev -- --no-push"]),
        (PULL, LOOPBACK, "build-docker-image", ["nox -s docker_dev -- --output oci"]),
        (PULL, Policy(), "build-docker-image", ["nox -s docker_dev -- --output oci"]),
        (QUEUE, LOOPBACK, "build-docker-image", ["nox -s docker_dev -- --output oci"]),
        (QUEUE, LOOPBACK, "test-docker-image", [f"nox -s 'docker_test(basic)' {ARCHIVE}"]),
        (QUEUE, LOOPBACK, "cleanup", []),
        (MAIN, LOOPBACK, "test-docker-image", [f"nox -s 'docker_test(basic)' -- --digest {DIGEST}"]),
        (MAIN, Policy(), "test-docker-image", ["nox -s 'docker_test(basic)'"]),
        (PULL, Policy(), "test-docker-image", [f"nox -s 'docker_test(basic)' {ARCHIVE}"]),
        (MAIN, LOOPBACK, "build-production-image", [*PRODUCTION, *PUSHED]),
        (MAIN, Policy(), "build-production-image", PRODUCTION),
        (TAG, LOOPBACK, "create-release", [f"{RELEASE} --dry-run"]),
        (TAG, Policy(publish=True), "create-release", [f"{RELEASE} --dry-run", RELEASE]),
        (MAIN, LOOPBACK, "cleanup", ["nox -s cleanup -- --dry-run"]),
        (MAIN, Policy(publish=True), "cleanup", ["nox -s cleanup"]),
        (PULL, LOOPBACK, "cleanup", []),
    ],
)  # fmt: skip
def test_commands(event, policy, job, expected):
    """The workflow's own commands, with what publishes withheld unless it is asked for."""
    assert lines(event, policy, job) == expected


@given(
    st.sampled_from([MAIN, TAG, PULL, QUEUE, FORCED]),
    st.builds(Policy, push=st.booleans()),
    st.sampled_from(sorted(GRAPH.jobs)),
    st.sampled_from([DIGEST, ""]),
)
def test_nothing_is_published_unless_asked_for(event, policy, job, digest):
    """Without --publish no command can reach anything but a registry on this machine."""
    for line in lines(event, policy, job, digest):
        if "docker_dev" in line or "prod_image" in line:
            assert policy.push or "--no-push" in line or "--output oci" in line
        if "release" in line or "cleanup" in line:
            assert "--dry-run" in line
        assert not line.endswith("--digest ''")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", {}),
        ("a=1\n", {"a": "1"}),
        ("a=x=y\nb<<EOF\n1\n2\nEOF\nc=3\n", {"a": "x=y", "b": "1\n2", "c": "3"}),
        ("a<<E\nb=2\nEE\nE\nc<<E\n\nE\nd=\ne=f<<g\n", {"a": "b=2\nEE", "c": "", "d": "", "e": "f<<g"}),
    ],
)  # fmt: skip
def test_outputs(text, expected):
    """Outputs are read in both of the forms that Actions knows."""
    assert parse_outputs(text) == expected


# A nox for these tests: its sessions note when they ran, and do as ORDERS say.
FAKE_NOX = """\
import json, os, pathlib, signal, sys, time
session = sys.argv[sys.argv.index("-s") + 1]
args = sys.argv[sys.argv.index("--") + 1 :] if "--" in sys.argv else []
order = json.loads(os.environ["ORDERS"]).get(session, {})
journal = pathlib.Path(os.environ["JOURNAL"])
def note(what):
    with open(journal, "a") as handle:
        handle.write(json.dumps([what, session, args, os.getpid()]) + "\\n")
note("begin")
print("this is", session, os.environ.get("SECRET_TO_HIDE", ""), flush=True)
if "wait" in order:
    if os.fork() == 0:
        signal.signal(signal.SIGTERM, signal.SIG_IGN) if order["wait"] == "stubborn" else None
        note("child")
    time.sleep(600)
while not set(order.get("together", ())) <= {json.loads(l)[1] for l in open(journal)}:
    time.sleep(0.02)  # ends only if the others run at the same time
with open(os.environ["GITHUB_OUTPUT"], "a") as handle:
    handle.write(f"digest<<EOF\\n{order.get('digest', '')}\\nEOF\\n")
note("end")
sys.exit(order.get("code", 0))
"""


@pytest.fixture
def create(tmp_path, monkeypatch):
    """Creates runners whose nox is the one above; ``noted`` is what that wrote."""
    package = tmp_path / "fake" / "nox"
    package.mkdir(parents=True)
    (package / "__main__.py").write_text(FAKE_NOX)
    (package / "__init__.py").touch()
    journal = tmp_path / "journal"
    journal.touch()
    monkeypatch.setenv("PYTHONPATH", str(package.parent))
    monkeypatch.setenv("JOURNAL", str(journal))

    def create(event=MAIN, policy=LOOPBACK, orders=None, **options):
        monkeypatch.setenv("ORDERS", json.dumps(orders or {}))
        return Runner(GRAPH, event, policy, tmp_path, "run", **options)

    create.noted = lambda: [json.loads(line) for line in journal.read_text().splitlines()]
    return create


def ran(create):
    """The sessions that were run, with their arguments."""
    return [" ".join([s, *args]) for what, s, args, _ in create.noted() if what == "begin"]


def results(record):
    """The result of each job."""
    return {job.name: job.result for job in record.jobs}


def test_a_whole_run(create, tmp_path):
    """Jobs run in the graph's order, those of a matrix together, and hand digests on; each
    has its log, all a record.
    """
    (tmp_path / "dist").mkdir()
    (tmp_path / "dist" / "old.whl").touch()
    os.utime(tmp_path / "dist" / "old.whl", (1, 1))
    (tmp_path / "dist" / "new.whl").write_text("wheel")
    tests = [f"docker_test({kind})" for kind in ("basic", "import", "help")]
    orders = {name: {"together": tests} for name in tests}
    record = local.carry_out(create(orders=orders | {"docker_dev": {"digest": DIGEST}}), 3)
    succeeded = dict.fromkeys(GRAPH.jobs, "success")
    assert results(record) == succeeded | {"create-release": "skipped"}
    commands = ran(create)
    assert commands[:3] == ["plan", "lint", "docker_dev"]
    assert set(commands[3:6]) == {f"{name} --digest {DIGEST}" for name in tests}
    assert commands[6] == "wheels --flavour cpu" and commands[-1] == "cleanup --dry-run"
    for job in ("test-docker-image.basic", "build-wheels.linux-x64-cpu", "cleanup"):
        assert "this is" in (tmp_path / runs.FOLDER / "run" / f"{job}.log").read_text()
    assert [one.name for one in record.artifacts] == ["new.whl"]
    assert runs.history(tmp_path) == [record]


def test_no_more_than_allowed_at_the_same_time(create):
    """With one at a time, no session begins before the one before it has ended."""
    create().run(1)
    kinds = [what for what, *_ in create.noted()]
    assert kinds == ["begin", "end"] * (len(kinds) // 2)


@pytest.mark.parametrize(
    ("event", "failing", "expected"),
    [
        (MAIN, ["lint"], "plan lint cleanup"),
        (MAIN, ["docker_test(import)"], "plan lint docker_dev docker_test cleanup"),
        (MAIN, ["wheels"], "plan lint docker_dev docker_test wheels cleanup"),
        # With force_build wheels and the production image are built after failed tests.
        (
            FORCED, ["lint", "docker_test(help)"],
            "plan lint docker_dev docker_test wheels prod_image cleanup",
        ),
    ],
)  # fmt: skip
def test_a_failure_skips_what_needs_it_and_nothing_else(
    create, event, failing, expected, capsys
):
    """After a failure the rest goes on as on Actions; it is shown with the end of its log."""
    subject = create(event, orders={name: {"code": 3} for name in failing})
    record = local.carry_out(subject, 2)
    local.show_result(subject, record)
    sessions = [session.partition("(")[0] for _, session, *_ in create.noted()]
    assert list(dict.fromkeys(sessions)) == expected.split()
    assert record.result == "failure"
    shown = capsys.readouterr().err
    assert "ended with exit code 3" in shown and "critical path" in shown
    assert all(f"\n  this is {name}" in shown for name in failing)


def test_supposed_failures_are_not_run(create, tmp_path):
    """--failed shows what CI would do after a failure, without breaking anything. As on
    Actions, a release finds no record of an earlier production image.
    """
    for image in images.IMAGES:
        record = images.ImageRecord(image, "n", DIGEST, (), (), 1, "push", "1.0.0", "a" * 40)
        images.write(record, tmp_path)
    for event, left in ((MAIN, 2), (TAG, 1)):
        record = local.carry_out(create(event, failed=["build-docker-image"]), 2)
        assert results(record)["build-docker-image"] == "failure"
        assert len(list(images.folder(tmp_path).iterdir())) == left
    assert ran(create) == ["plan", "lint", "cleanup --dry-run"] * 2


def test_what_this_machine_cannot_run(create, capsys, monkeypatch):
    """It is not run, with the remedy, and the rest is the result; in CI nothing is left out."""
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere")
    monkeypatch.setenv("CI", "")
    subject = create(policy=Policy(obstacles=local.find_obstacles(local.load())))
    record = local.carry_out(subject, 2)
    local.show_result(subject, record)
    not_run = {job for job, result in results(record).items() if result == NOT_RUN}
    images_jobs = {"build-docker-image", "test-docker-image", "build-production-image"}
    assert not_run == {*images_jobs, "cleanup"} and record.result == "success"
    for row, system in enumerate(("Linux aarch64", "Windows", "Darwin"), start=1):
        elsewhere = subject.matrix_jobs["build-wheels"][row].record
        assert elsewhere.result == NOT_RUN and f"runs on {system}," in elsewhere.reason
    shown = capsys.readouterr().err
    assert "No Docker engine answers at unix:///nowhere. Start it" in shown
    assert "Set GH_TOKEN to see" in shown
    monkeypatch.setenv("CI", "true")
    assert local.create_runner(local.Options()).policy.obstacles == {}


def test_an_error_of_ours_is_no_success(create, monkeypatch):
    """What goes wrong in a thread is the job's failure, with the reason."""
    monkeypatch.setenv("PIPELINE_PYTHON", "/nowhere/python")
    record = local.carry_out(create(), 2)
    assert record.jobs[0].result == "failure" and "was not found" in record.jobs[0].reason


@pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX")
@pytest.mark.parametrize("kind", ["polite", "stubborn"])
def test_interrupt_ends_all_children(create, monkeypatch, kind):
    """Ctrl-C ends every child and what it started, also one that ignores the request."""
    monkeypatch.setattr(runner, "GRACE", 1.0)
    subject = create(orders={"lint": {"wait": kind}})

    def interrupt():
        while not any(what == "child" for what, *_ in create.noted()):
            time.sleep(0.02)
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    record = local.carry_out(subject, 2)
    thread.join()
    for _, _, _, pid in create.noted():
        alive = psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
        assert not alive
    assert record.result == "cancelled" and local.EXIT_CODES[record.result] == 130
    assert set(results(record).values()) == {"cancelled"}


def test_secrets_are_masked_in_logs(create, tmp_path, monkeypatch):
    """What a session prints of a secret is not in any file of the run."""
    monkeypatch.setenv("SECRET_TO_HIDE", "hunter2-very-secret")
    remember("hunter2-very-secret")
    try:
        create().run(2)
    finally:
        forget("hunter2-very-secret")
    texts = [path.read_text() for path in (tmp_path / runs.FOLDER).rglob("*") if path.is_file()]
    assert any("this is lint ***" in text for text in texts)
    assert not any("hunter2" in text for text in texts)


def test_what_children_get(create):
    """The event that was asked for; secrets that publish only where something is published."""
    path = os.pathsep.join(["/v/bin", "/bin"])
    secrets = {"DOCKER_HUB_TOKEN", "MLC_DOCKER_HUB_TOKEN"}
    ours = {**dict.fromkeys(secrets, "hub-secret"), "VIRTUAL_ENV": "/v", "PATH": path}
    env = create(PULL).environment(ours)
    assert (env["GITHUB_EVENT_NAME"], env["GITHUB_REF"]) == ("pull_request", PULL.ref)
    assert (env["GITHUB_BASE_REF"], env["PATH"]) == ("main", "/bin")
    assert not {"VIRTUAL_ENV", *secrets} & set(env)
    assert secrets < set(create(policy=Policy(publish=True)).environment(ours))


@given(st.lists(st.tuples(st.floats(0.1, 100), st.sets(st.integers(0, 6))), min_size=1))
def test_critical_path(drawn):
    """A chain of jobs that need each other, and none takes longer."""
    recorded, longest = [], {}
    for index, (seconds, numbers) in enumerate(drawn):
        needs = tuple(str(number) for number in sorted(numbers) if number < index)
        one = runs.MatrixJobRecord("", "success", 0.0, seconds, "", "x.log")
        recorded.append(runs.JobRecord(str(index), needs, "success", matrix_jobs=(one,)))
        longest[str(index)] = seconds + max((longest[n] for n in needs), default=0)
    chain = runs.critical_path(recorded)
    assert sum(job.seconds for job in chain) == pytest.approx(max(longest.values()))
    assert all(one.name in two.needs for one, two in zip(chain, chain[1:], strict=False))


def test_dry_run(capsys, monkeypatch):
    """--dry-run shows the commands of every matrix job and runs nothing; an event that does
    not trigger the workflow is reported as one.
    """
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere")
    monkeypatch.setenv("CI", "")
    tag = ["--event", "push", "--ref", "refs/tags/v1.0.0"]
    assert local.main(["--dry-run", "--json", *tag]) == 0
    found = json.loads(capsys.readouterr().out)["commands"]
    assert found["lint-and-format"] == ["nox -s plan", "nox -s lint"]
    assert found["create-release"] == ["nox -s release -- v1.0.0 --dry-run"]
    assert found["build-docker-image"] == []
    assert local.main(["--ref", "refs/heads/nobodys"]) == 2
    assert "error: Nothing to run" in capsys.readouterr().err


def test_json_through_nox():
    """Through nox too, --json has stdout for itself: talk goes to stderr."""
    pytest.importorskip("nox")
    failed = [word for name in GRAPH.jobs for word in ("--failed", name)]  # so that none is run
    line = [sys.executable, "-m", "nox", "-s", "pipeline", "--", "--json", "--ref", MAIN.ref]
    done = subprocess.run([*line, *failed], capture_output=True, text=True, cwd=ROOT)
    assert json.loads(done.stdout)["result"] == "failure", done.stderr
    assert "supposed to fail" in done.stderr and done.returncode == 1
