"""``plan``: what runs for which event, as the reference's table has it."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tools.core import cli
from tools.core.errors import UsageError
from tools.core.settings import load
from tools.repo.event import Event
from tools.workflow import decisions
from tools.workflow import model as workflow
from tools.workflow import plan

GRAPH = workflow.load()
SETTINGS = load({"IMAGE_NAME": "Owner/Name"})
SHA = "0123456789abcdef0123456789abcdef01234567"

# L lint-and-format, B build-docker-image, T test-docker-image, W build-wheels,
# R create-release, P build-production-image, C cleanup
LETTERS = dict(zip("LBTWRPC", GRAPH.jobs, strict=True))


def event(text):
    """An event from a short description: 'push main', 'pr main fork', 'run v1.0 force'."""
    kind, name, *more = text.split()
    is_tag = name.startswith("v") and name[1:2].isdigit() or name == "nightly"
    ref = f"refs/tags/{name}" if is_tag and "branch" not in more else f"refs/heads/{name}"
    if kind == "pr":
        ref = "refs/pull/7/merge"
        fork = "fork" in more
        return Event("pull_request", ref, SHA, pull_request=7, base_ref=name, fork=fork)
    if kind == "run":
        return Event("workflow_dispatch", ref, SHA, force_build="force" in more)
    return Event("push", ref, SHA)


# Written from the reference's table "Job Dependencies", by hand, not with the evaluator:
# for each event, which jobs run when which jobs fail.
NO_DEPLOYMENT = {"": "LBTWC", "L": "LC", "B": "LBC", "T": "LBTC", "W": "LBTWC", "C": "LBTWC"}
MAIN = {
    "": "LBTWPC", "L": "LC", "B": "LBC", "T": "LBTC", "W": "LBTWC", "P": "LBTWPC", "C": "LBTWPC",
}  # fmt: skip
TAG = {
    "": "LBTWRPC", "L": "LC", "B": "LBC", "T": "LBTC", "W": "LBTWC", "R": "LBTWRPC",
    "P": "LBTWRPC", "RP": "LBTWRPC", "C": "LBTWRPC",
}  # fmt: skip
# force_build: the image is built after a failed lint, wheels after anything; the image's
# tests need an image, the production image needs wheels.
FORCED = {
    "": "LBTWPC", "L": "LBTWPC", "B": "LBWPC", "T": "LBTWPC", "LT": "LBTWPC", "LB": "LBWPC",
    "W": "LBTWC", "P": "LBTWPC", "TW": "LBTWC",
}  # fmt: skip
DEVELOP = {f: r.replace("P", "") for f, r in FORCED.items() if f != "P"}
OUTCOMES = {
    "push main, run main": MAIN,
    "push v1.0.0, push v1.0.0-rc1": TAG,
    "push v0.1.0, push v1.2.3-alpha.1, push v1.2.3.dev1": {"": "LBTWRPC"},
    "push develop, pr main, pr main fork": NO_DEPLOYMENT,
    "pr develop, pr develop fork, run develop": NO_DEPLOYMENT,
    # A manual run is not a tag push: an image, but no release.
    "run v1.0.0": {"": "LBTWPC", "L": "LC", "T": "LBTC", "W": "LBTWC"},
    "run main force, run v1.0.0 force": FORCED,
    "run develop force, run feature/a force": DEVELOP,
    "run feature/a": {"": "LBTWC"},
    # What the workflow is not triggered by runs nothing, cleanup included.
    "push nightly, push feature/a, push main2, push v1.0.0 branch": {"": ""},
    "push release/1.0, pr feature/a, pr v1.0.0 fork": {"": ""},
}
TABLE = [
    (trigger, failing, runs)
    for triggers, rows in OUTCOMES.items()
    for trigger in triggers.split(", ")
    for failing, runs in rows.items()
]


@pytest.mark.parametrize(("trigger", "failing", "runs"), TABLE)
def test_conditions_give_what_the_reference_says(trigger, failing, runs):
    """The conditions that stand in the workflow run the jobs that the reference's table runs."""
    failed = [LETTERS[letter] for letter in failing]
    found = decisions.decide(GRAPH, event(trigger), failed)
    ran = "".join(letter for letter, name in LETTERS.items() if found[name].run)
    assert ran == runs
    for name, decision in found.items():
        assert decision.reason
        ended = "failure" if name in failed else "success"
        assert decision.result == (ended if decision.run else "skipped")


@pytest.mark.parametrize(
    ("trigger", "failing", "job", "says"),
    [
        ("push main", "", "L", "it needs nothing"),
        ("push main", "L", "B", "needs.lint-and-format.result is 'failure'"),
        ("run main force", "L", "B", "inputs.force_build is true"),
        ("push main", "B", "T", "needs.build-docker-image.result == 'success' is false"),
        ("push main", "", "R", "startsWith(github.ref, 'refs/tags/v') is false"),
        ("pr main", "", "P", "github.event_name != 'pull_request' is false"),
        ("push develop", "", "P", "github.ref is 'refs/heads/develop'"),
        ("push feature/x", "", "L", "feature/x is none of branches main, develop"),
        ("push nightly", "", "L", "nightly is none of tags v"),
    ],
)
def test_reasons_are_in_the_terms_of_the_condition(trigger, failing, job, says):
    """The reason names the part of the condition that decided, and its values."""
    found = decisions.decide(GRAPH, event(trigger), [LETTERS[letter] for letter in failing])
    assert says in found[LETTERS[job]].reason


@given(st.sampled_from(sorted({row[0] for row in TABLE})), st.sets(st.sampled_from("LBTWRPC")))
def test_laws(trigger, failing):
    """Whatever fails: nothing is deployed from pull requests or develop, cleanup always
    runs where anything does, and a job runs only after one it needs has ended."""
    failed = [LETTERS[letter] for letter in failing]
    found = decisions.decide(GRAPH, event(trigger), failed)
    if trigger.startswith("pr") or " develop" in trigger:
        assert not found["create-release"].run and not found["build-production-image"].run
    assert found["cleanup"].run == any(d.run for d in found.values())
    if found["create-release"].run:
        assert found["build-wheels"].result == found["build-docker-image"].result == "success"
    if "force" not in trigger and found["build-production-image"].run:
        assert all(found[name].result == "success" for name in GRAPH.ancestors("build-wheels"))


def jobs(**written):
    """A workflow of jobs, each the job that it needs, and its condition."""
    text = "on: push\njobs:\n"
    for name, (needs, condition) in written.items():
        what = f"needs: [{needs}], if: {json.dumps(condition)}"
        text += f"  {name}: {{runs-on: x, {what}, steps: [{{run: a}}]}}\n"
    return workflow.parse(text)


def test_implied_success_looks_at_all_ancestors():
    """Without a status function, a skipped or failed ancestor skips a job, however far."""
    graph = jobs(
        a=("", "true"), b=("a", "always()"), c=("b", "true"), d=("b", "github.ref != 'x'"),
        e=("b", "failure()"), f=("b", "!cancelled()"),
    )  # fmt: skip
    for failed, ran in (["a"], "abef"), ([], "abcdf"):
        found = decisions.decide(graph, event("push main"), failed)
        assert "".join(name for name, one in found.items() if one.run) == ran
        assert "a, which it needs, ended with failure" in found["c"].reason or not failed


@pytest.mark.parametrize(
    "condition",
    ["always() && needs['a'].OUTPUTS.x", "contains(needs.*.outputs.x, '1')",
     "contains(toJSON(needs), 'x')"],
)  # fmt: skip
def test_outputs_are_not_guessed(condition):
    """A condition on outputs is an error of the plan; in a run they are there."""
    graph, push, success = (
        jobs(a=("", ""), b=("a", condition)),
        event("push x"),
        {"a": "success"},
    )
    with pytest.raises(decisions.ExpressionError, match="known only when jobs ran"):
        decisions.decide(graph, push)
    for outputs, runs in (({"a": {"x": "1"}}, True), ({"a": {}}, False)):
        found = decisions.decide_job(graph, graph.jobs["b"], push, success, outputs=outputs)
        assert found[0] is runs


def planned(trigger, **options):
    """The plan as JSON data."""
    whole = plan.make_plan(GRAPH, event(trigger), SETTINGS, **options)
    return json.loads(json.dumps(whole.to_json()))


@pytest.mark.parametrize(
    ("trigger", "development", "production", "release"),
    [
        ("push main", "main main-0123456 latest", "main-prod prod", None),
        ("push develop", "develop develop-0123456", "", None),
        ("pr main", "pr-7", "", None),
        ("push v1.2.3", "v1.2.3 1.2 1", "v1.2.3-prod", ("v1.2.3", False)),
        ("push v1.2.3-rc1", "v1.2.3-rc1", "v1.2.3-rc1-prod", ("v1.2.3-rc1", True)),
        ("push v0.2.0", "v0.2.0 0.2", "v0.2.0-prod", ("v0.2.0", False)),
        # A patch of an old series takes 1.0 with it, but leaves 1 where it is.
        ("push v1.0.5 after v1.1.0", "v1.0.5 1.0", "v1.0.5-prod", ("v1.0.5", False)),
        # Nothing is tagged where its job does not run.
        ("push feature/a", "", "", None),
        ("push v1.2.3 failing lint-and-format", "", "", None),
        ("push v1.2.3 failing build-wheels", "v1.2.3 1.2 1", "", None),
    ],
)
def test_contract(trigger, development, production, release):
    """Tags, labels and release as promised to whoever reads the JSON."""
    trigger, _, failing = trigger.partition(" failing ")
    trigger, _, before = trigger.partition(" after ")
    found = planned(trigger, failed=failing.split(), existing=before.split())
    assert set(found) == {"event", "jobs", "images", "labels", "release"}
    assert found["images"] == {
        "development": [f"ghcr.io/owner/name:{tag}" for tag in development.split()],
        "production": [f"ghcr.io/owner/name:{tag}" for tag in production.split()],
    }
    assert found["release"] == (release and dict(zip(("tag", "prerelease"), release)))
    assert found["labels"]["org.opencontainers.image.revision"] == SHA
    assert all({"run", "reason", "needs"} <= set(job) for job in found["jobs"].values())


def found_event(*options, env=None):
    """The event that command line options describe."""
    parsed = vars(cli.parser("plan", "", plan.EventOptions).parse_args(options))
    del parsed["debug"]
    return plan.find_event(plan.EventOptions(**parsed), env or {})


@pytest.mark.parametrize(
    ("options", "result"),
    [
        ("--event push --ref refs/tags/v1.0.0", "push of refs/tags/v1.0.0 to "),
        ("--ref refs/heads/develop", "push of refs/heads/develop to "),
        ("--pr 5", "pull_request of refs/pull/5/merge to main"),
        ("--event pull_request --pr 5", "pull_request of refs/pull/5/merge to main"),
        ("--ref refs/pull/9/merge", "pull_request of refs/pull/9/merge to main"),
        ("--force-build", "workflow_dispatch of refs/heads/main to "),
        ("--event workflow_dispatch", "workflow_dispatch of refs/heads/main to "),
        ("--event schedule", "schedule of refs/heads/main to "),
        ("--event release --ref refs/tags/v1.0.0", "release of refs/tags/v1.0.0 to "),
        ("--event release", "release is of any tag"),
        ("--event relese", "'relese' is not an event of GitHub's"),
        (
            "--event pull_request_target --pr 5",
            "pull_request_target of refs/heads/main to main",
        ),
        (
            "--event merge_group --pr 5",
            "merge_group of refs/heads/gh-readonly-queue/main/pr-5-",
        ),
        ("--event push --ref=", "'' is not a full git reference"),
        ("--ref=", "'' is not a full git reference"),
        ("--sha=", "'' is not a full hash"),
        ("--event push --ref v1.0.0", "not a full git reference"),
        ("--event push --sha ZZZ", "not a full hash"),
        ("--event push --force-build", "input of a manual run"),
        ("--event push --pr 3", "not an event of a pull request"),
        ("--event push --ref refs/pull/3/merge", "not an event of a pull request"),
        ("--event pull_request --ref refs/heads/main", "has no number"),
        ("--pr 0", "whole number of at least 1"),
    ],
)
def test_event_options(options, result):
    """Options describe any event; what they leave open is the only thing it can be. Those
    that do not make one are refused in a sentence.
    """
    try:
        found = found_event("--default-branch", "main", *options.split())
        said = f"{found.name} of {found.ref} to {found.base_ref}"
    except UsageError as error:
        said = error.message
    assert result in said


def test_event_of_the_surroundings(tmp_path, monkeypatch):
    """The run's within Actions; without a commit any that is described, and only that."""
    env = {"GITHUB_EVENT_NAME": "push", "GITHUB_REF": "refs/heads/x", "GITHUB_SHA": SHA}
    found = found_event(env={**env, "GITHUB_REPOSITORY": "o/n"})
    parts = (found.name, found.ref, found.sha, found.repository)
    assert parts == ("push", "refs/heads/x", SHA, "o/n")
    monkeypatch.setenv("GIT_DIR", str(tmp_path))
    assert found_event("--ref", "refs/heads/x").ref == "refs/heads/x"
    with pytest.raises(UsageError, match="not a git checkout"):
        found_event()


def test_command(capsys):
    """--json is one object on stdout and nothing else; the table goes to stderr; bad usage is
    a sentence and exit code 2.
    """

    def command(*arguments):
        code, shown = plan.main(arguments), capsys.readouterr()
        return code, shown.out, shown.err

    code, out, err = command("--event", "push", "--ref", "refs/tags/v1.0.0", "--json")
    assert (code, err) == (0, "")
    assert json.loads(out)["release"] == {"tag": "v1.0.0", "prerelease": False}
    code, out, err = command("--ref", "refs/heads/main", "--default-branch", "main")
    assert (code, out) == (0, "")
    for part in ("basic; import; help", "label org.opencontainers.image.revision", ":latest"):
        assert part in err
    for arguments, says in (
        (
            ["--ref", "refs/tags/v1.2.3+build5"],
            "The tag 'v1.2.3+build5' is not a version.\n  what to do: Use a tag such as v1.2.3, ",
        ),
        (["--failed", "lint"], "There is no job 'lint' to fail."),
    ):
        code, out, err = command(*arguments)
        assert (code, out) == (2, "") and err.startswith(f"error: {says}")
