"""plan and pipeline agree with the table of events (the test on a runner has the same table);
a newer run supersedes an older one by the workflow's own expressions.
"""

import json
import shlex

import pytest
import yaml

from tests.workflow.events import CASES, JOBS, REPOSITORY, SHA
from tools.core import cli
from tools.core.errors import UsageError
from tools.core.settings import ROOT, load
from tools.repo.event import Event, from_actions
from tools.workflow import contexts, decisions, local, model, plan
from tools.workflow.expressions import evaluate_text
from tools.workflow.jobs import Policy
from tools.workflow.runner import Runner

GRAPH = model.load()
SETTINGS = load({"IMAGE_NAME": REPOSITORY})
STARTED_LATER = {
    "merge queue",
    "a tag that is not a version",
}  # by the next change of ci-cd.yml


def read(case, tmp_path):
    """The event as Actions tells it."""
    path = tmp_path / "event.json"
    path.write_text(json.dumps(case.payload()), encoding="utf-8")
    return from_actions({**case.env(), "GITHUB_EVENT_PATH": str(path)})


def described(case):
    """The event as the options describe it, outside of Actions."""
    parsed = vars(
        cli.parser("plan", "", plan.EventOptions).parse_args(shlex.split(case.options))
    )
    del parsed["debug"]
    parsed["default_branch"] = "main"
    return plan.find_event(plan.EventOptions(**parsed), {})


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.title)
@pytest.mark.parametrize("how", ["Actions", "options"])
def test_plan(case, how, tmp_path):
    """plan has each job's result, whether Actions tells of the event or options do."""
    event = read(case, tmp_path) if how == "Actions" else described(case)
    found = plan.make_plan(GRAPH, event, SETTINGS, failed=case.failing.split())
    assert tuple(found.decisions) == JOBS
    assert {name: one.result for name, one in found.decisions.items()} == case.expected()
    assert any(found.images.values()) == (case.starts and case.expected()[JOBS[1]] == "success")


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.title)
def test_pipeline(case, tmp_path, monkeypatch):
    """The runner of pipeline has each job's result, with commands that do nothing."""
    event = read(case, tmp_path)
    if not case.starts:
        monkeypatch.setattr(plan, "current_event", lambda env: event)
        monkeypatch.setenv("GITHUB_ACTIONS", "true")
        with pytest.raises(UsageError, match="Nothing to run"):
            local.create_runner(local.Options())
        return
    monkeypatch.setattr(Runner, "_run_command", lambda *_: (0, {}))
    monkeypatch.setattr("tools.workflow.jobs.SYSTEMS", {})  # all of a matrix run here
    runner = Runner(GRAPH, event, Policy(push=True), tmp_path, "run", case.failing.split())
    runner.run(2)
    assert {name: one.result for name, one in runner.records.items()} == case.expected()


# -- which run ends which ----------------------------------------------------------------

WHOLE = yaml.load((ROOT / model.WORKFLOW).read_text(encoding="utf-8"), yaml.BaseLoader)


def concurrency(written, event, run):
    """The group and whether a newer run of it ends the older, by the workflow's expressions."""
    names = contexts.of_event(GRAPH, event)
    names["github"] |= {"run_id": str(run)}
    cancel = evaluate_text(written.get("cancel-in-progress", "false"), names)
    return evaluate_text(written["group"], names), cancel in {True, "true"}


def between(written, older, newer):
    """What the newer of two runs does to the older."""
    (first, _), (second, cancels) = concurrency(written, older, 1), concurrency(
        written, newer, 2
    )
    return "independent" if first != second else "ends" if cancels else "waits"


def pull(number):
    """A pull request."""
    ref = f"refs/pull/{number}/merge"
    return Event("pull_request", ref, SHA, pull_request=number, base_ref="main")


PUSH, TAG = Event("push", "refs/heads/main", SHA), Event("push", "refs/tags/v1.0.0", SHA)
TAG_2 = Event("push", "refs/tags/v2.0.0", SHA)
QUEUE = Event("merge_group", f"refs/heads/gh-readonly-queue/main/pr-7-{SHA}", SHA)
MANUAL = Event("workflow_dispatch", "refs/heads/main", SHA, force_build=True)


@pytest.mark.parametrize(
    ("older", "newer", "expected"),
    [
        *((pull(7), pull(7), "ends"), (pull(7), pull(8), "independent")),
        *((PUSH, PUSH, "independent"), (PUSH, MANUAL, "independent")),
        *((MANUAL, MANUAL, "independent"), (pull(7), PUSH, "independent")),
        *((pull(7), TAG, "independent"), (TAG, TAG, "independent")),
        # The same pull request in the merge queue.
        *((pull(7), QUEUE, "independent"), (QUEUE, pull(7), "independent")),
        (QUEUE, QUEUE, "independent"),
    ],
)
def test_superseding(older, newer, expected):
    """Only a newer push to a pull request ends a run; no run waits for another."""
    assert between(WHOLE["concurrency"], older, newer) == expected


def test_releases_of_a_tag_wait_for_each_other():
    """Where a tag was moved, the second release begins when the first has ended."""
    written = WHOLE["jobs"]["create-release"]["concurrency"]
    assert between(written, TAG, TAG) == "waits"
    assert between(written, TAG, TAG_2) == "independent"


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.title)
def test_a_cancelled_run_ends(case, tmp_path):
    """A pull request's run that a newer one ends is not held up by its last job; any other
    run cleans up also after it was cancelled.
    """
    event = read(case, tmp_path)
    names = {**contexts.of_event(GRAPH, event), **decisions.expressions.job_status([], True)}
    holds = decisions.expressions.evaluate(GRAPH.jobs["cleanup"].condition, names)
    assert holds is (event.name != "pull_request")
