"""Events of all kinds, and what of a workflow they start: as GitHub does, or refused."""

import dataclasses
import json
import subprocess

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.services.project import Project
from tools.core.errors import UsageError
from tools.core.settings import ROOT, load
from tools.repo.event import EVENT_NAMES, Event, from_actions
from tools.workflow import changes, contexts, decisions, local, model, plan
from tools.workflow.triggers import not_triggered

GRAPH = model.load()
SHA = "a" * 40
MAIN = Event("push", "refs/heads/main", SHA, repository="Some/Fork")
PULL = Event("pull_request", "refs/pull/3/merge", SHA, pull_request=3, base_ref="main")
QUEUE = Event("merge_group", "refs/heads/gh-readonly-queue/main/pr-3-abc", SHA)


def graph(on="push", **jobs):
    """A workflow, and jobs with what is written of them."""
    text = f"on: {on}\njobs:\n"
    for name, written in (jobs or {"a": ""}).items():
        steps = "" if "uses:" in written else ", steps: [{run: nox -s a}]"
        text += f"  {name}: {{runs-on: x{steps}{written and ', '}{written}}}\n"
    return model.parse(text)


def ran(workflow, event=MAIN, failed=()):
    """The jobs that run, in capitals where they end with a failure."""
    found = decisions.decide(workflow, event, failed)
    return "".join(
        name.upper() if one.result == "failure" else name
        for name, one in found.items()
        if one.run
    )


def changed(event, **fields):
    """The event with other fields."""
    return dataclasses.replace(event, **fields)


SCHEDULE = "{schedule: [{cron: '1 1 * * 1'}]}"


@pytest.mark.parametrize(
    ("on", "event", "reason"),
    [
        # An event that is no trigger starts nothing, whatever push would do.
        *(("push", changed(MAIN, name="schedule"), "not triggered by schedule"),),
        *((SCHEDULE, changed(MAIN, name="schedule"), ""), (SCHEDULE, MAIN, "not triggered by push")),
        ("{release: {types: [published]}}", changed(MAIN, name="release", action="published"), ""),
        ("{release: {types: [published]}}", changed(MAIN, name="release", action="edited"), "none of types"),
        ("release", changed(MAIN, name="release", action="edited"), ""),
        # Activities of pull requests: three by default.
        *(("pull_request", changed(PULL, action="labeled"), "labeled is none of types opened"),),
        *(("pull_request", changed(PULL, action="reopened"), ""), ("pull_request", PULL, "")),
        ("{pull_request: {types: [labeled]}}", changed(PULL, action="labeled"), ""),
        ("{pull_request: {types: labeled}}", changed(PULL, action="opened"), "none of types labeled"),
        # What is deleted starts nothing.
        ("push", changed(MAIN, deleted=True), "is deleted"),
        # A merge queue is filtered by what it is to change.
        *(("{merge_group: {branches: [main]}}", QUEUE, ""), ("merge_group", QUEUE, "")),
        ("{merge_group: {branches: [develop]}}", QUEUE, "main is none of branches develop"),
        ("{merge_group: {branches-ignore: [main]}}", QUEUE, "main is one of branches-ignore"),
        ("{pull_request: {branches-ignore: [ma*]}}", PULL, "main is one of branches-ignore"),
        ("{push: {branches-ignore: [main]}}", MAIN, "main is one of branches-ignore"),
        ("{push: {tags-ignore: ['v*']}}", changed(MAIN, ref="refs/tags/v1"), "one of tags-ignore"),
        ("{push: {tags-ignore: ['v*']}}", changed(MAIN, ref="refs/tags/w1"), ""),
        # Files: any is enough for paths, all must be ignored; of tags they are not looked at.
        ("{push: {paths: ['docs/**']}}", changed(MAIN, changed=("x", "docs/a/b")), ""),
        ("{push: {paths: ['docs/**', '!docs/a/*']}}", changed(MAIN, changed=("docs/a/b",)), "no changed file"),
        ("{push: {paths-ignore: ['docs/**']}}", changed(MAIN, changed=("docs/a", "b")), ""),
        ("{push: {paths-ignore: ['docs/**']}}", changed(MAIN, changed=("docs/a",)), "all changed files"),
        ("{push: {paths: [x]}}", changed(MAIN, ref="refs/tags/v1", changed=()), ""),
        ("{push: {paths: [x], branches: [y]}}", changed(MAIN, changed=None), "main is none of branches"),
    ],
)  # fmt: skip
def test_what_an_event_starts(on, event, reason):
    """The trigger of the event's own name decides, by all of its filters."""
    found = not_triggered(event, graph(on).triggers)
    assert reason in found and bool(found) == bool(reason)
    assert (ran(graph(on), event) == "a") is not bool(reason)


@pytest.mark.parametrize(
    ("on", "event", "says"),
    [
        ("{push: {paths: [x]}}", MAIN, "which files the event changes is not known"),
        ("{issues: {types: [opened]}}", changed(MAIN, name="issues"), "activity of issues"),
        ("{workflow_run: {workflows: [CI]}}", changed(MAIN, name="workflow_run"), "workflows, by which"),
    ],
)  # fmt: skip
def test_what_is_not_known_of_an_event_is_said(on, event, says):
    """Where the start hangs on it, it is refused in a sentence with what to do."""
    with pytest.raises(UsageError, match=says):
        not_triggered(event, graph(on).triggers)


def test_changed_files(tmp_path):
    """A push changes what is not before it, a pull request what it has beside its base; where
    git lacks a commit, it is not known.
    """
    project = Project(tmp_path)
    subprocess.run(["git", "init", "-q", "-b", "main", str(tmp_path)], check=True)
    commits = []
    for name in ("a", "b", "ü\n"):
        (tmp_path / name).touch()
        commits.append(project.commit())
    first, second, last = commits
    on = graph("{push: {paths: [x]}, pull_request: {paths: [x]}}").triggers

    def files(event, **payload):
        event = changed(event, sha=last, payload=payload)
        return changes.find(event, on, tmp_path).changed

    assert files(MAIN, before=first) == ("b", "ü\n") and files(MAIN, before=second) == ("ü\n",)
    assert files(PULL, pull_request={"base": {"sha": second}}) == ("ü\n",)
    assert files(MAIN, before="b" * 40) is files(MAIN, before="0" * 40) is files(MAIN) is None
    assert files(MAIN, before="--output=x") is None and files(PULL, pull_request=5) is None
    project.git("update-ref", "refs/remotes/origin/main", second)
    assert files(MAIN) == files(PULL) == ("ü\n",)
    # Nobody asks git where no trigger has paths.
    assert changes.find(changed(MAIN, sha=last), graph().triggers, tmp_path).changed is None


@pytest.mark.parametrize(
    ("written", "event", "runs"),
    [
        *(("if: vars.X == ''", MAIN, True), ("if: vars.X", MAIN, False)),
        *(("if: ''", MAIN, True), ("if: ", MAIN, True), ("if: '  '", MAIN, True)),
        *(("if: github.triggering_actor == ''", MAIN, True), ("if: github.ref_protected", MAIN, False)),
        *(("if: github.event.pull_request == null", MAIN, True), ("if: inputs.force_build", MAIN, False)),
        *(("if: github.event.pull_request.head.repo.fork == false", PULL, True), ("if: github.event.action == 'opened'", changed(PULL, action="opened"), True)),
        *(("if: '!github.event.deleted && !github.event.head_commit'", PULL, True), ("if: github.event.action == null", MAIN, True)),
        *(("if: github.event.merge_group.base_ref == 'refs/heads/main'", QUEUE, True),),
        ("if: github.event.any.thing", changed(MAIN, payload={"any": {"thing": 1}}), True),
        ("if: github.event.other == null", changed(MAIN, payload={"any": 1}), True),
        ("uses: ./.github/workflows/other.yml", MAIN, True),
        ("strategy: {fail-fast: '${{ true }}', matrix: {x: [1]}}", MAIN, True),
        ("runs-on: '${{ vars.RUNNER }}'", MAIN, True),
    ],
)  # fmt: skip
def test_valid_workflows(written, event, runs):
    """What GitHub accepts is evaluated as GitHub does."""
    on = "[push, pull_request, merge_group]"
    assert (
        ran(graph(on, a=written.replace("runs-on: ", "env: {}, name: ")), event) == "a"
    ) is runs


@pytest.mark.parametrize(
    ("written", "event", "says"),
    [
        ("if: github.evnt_name == 'push'", MAIN, "github.evnt_name: github has no such member"),
        ("if: \"github['evnt']\"", MAIN, "github['evnt']: github has no such member"),
        ("if: toJSON(github) == ''", MAIN, "toJSON(github): github has no such"),
        ("if: github.event.head_commit.message", MAIN, "not known of an event without its file"),
        ("if: github.event.pull_request.draft", PULL, "not known of an event without its file"),
        ("if: inputs.other", changed(MAIN, name="workflow_dispatch"), "only force_build is known"),
    ],
)  # fmt: skip
def test_unknown_members_are_refused(written, event, says):
    """What is not known is never taken for null: a sentence names job, member and place."""
    with pytest.raises(UsageError) as caught:
        ran(graph("[push, pull_request, workflow_dispatch]", a=written), event)
    assert caught.value.message.startswith("The job a: ") and says in caught.value.message


def test_continue_on_error():
    """The failure of a job that may fail counts as success for those that need it."""
    for written, expected in (("true", "ab"), ("false", "A"), ("'${{ github.ref == ''x'' }}'", "A"),
                              ("'${{ matrix.x == 1 }}', strategy: {matrix: {x: [1]}}", "ab"),
                              ("'${{ matrix.x == 1 }}', strategy: {matrix: {x: [1, 2]}}", "A")):  # fmt: skip
        workflow = graph(a=f"continue-on-error: {written}", b="needs: a")
        assert ran(workflow, failed=["a"]) == expected


def test_a_matrix_from_an_expression():
    """It is evaluated where it hangs on the event; of outputs a sentence says that they are
    known only later.
    """

    def rows(matrix, event=MAIN):
        workflow = graph(z="", a=f"needs: z, strategy: {matrix}")
        return list(decisions.decide(workflow, event)["a"].job.matrix)

    two = """'{"x": [1, "two"]}'""".replace("'", "''")
    assert rows(f"{{matrix: '${{{{ fromJSON({two}) }}}}'}}") == [{"x": 1}, {"x": "two"}]
    assert rows("{matrix: {x: ['${{ github.ref_name }}']}}") == [{"x": "main"}]
    assert rows("'${{ fromJSON(''{\"matrix\": {\"x\": [1]}}'') }}'") == [{"x": 1}]
    assert (
        rows("{matrix: {x: '${{ fromJSON(needs.z.outputs.x) }}'}}", changed(MAIN, deleted=True))
        == []
    )
    for matrix, says in (
        ("{matrix: '${{ fromJSON(needs.z.outputs.x) }}'}", "outputs are known only when jobs ran"),
        ("{matrix: '${{ fromJSON(vars.X) }}'}", "The job a: fromJSON"),
        ("{matrix: '${{ github.ref }}'}", "The matrix of the job a: Expected `object`"),
        ("'${{ github.ref }}'", "The matrix of the job a: it is not an object"),
    ):  # fmt: skip
        with pytest.raises(UsageError) as caught:
            rows(matrix)
        assert says in caught.value.message


def test_anchors():
    """YAML's anchors, which GitHub reads since 2025."""
    text = """\
on: push
jobs:
  a: &job
    runs-on: x
    steps: &steps
      - &one {run: nox -s one}
      - run: nox -s two
  b: *job
  c: {runs-on: x, steps: [*one]}
"""
    workflow = model.parse(text)
    assert workflow.jobs["b"].sessions == ("one", "two")
    assert workflow.jobs["c"].sessions == ("one",)


def test_a_fork_has_images_of_its_own(monkeypatch):
    """The workflow's env is evaluated for the event's repository; the user's own wins."""

    def image(event, **env):
        found = contexts.variables(GRAPH, event, env)
        return load(found).image

    assert GRAPH.env["IMAGE_NAME"] == "${{ github.repository }}"
    assert image(MAIN) == "ghcr.io/some/fork"
    assert image(MAIN, IMAGE_NAME="A/b", MLC_REGISTRY="r.example") == "r.example/a/b"
    assert image(MAIN, MLC_IMAGE_NAME="c/d", IMAGE_NAME="a/b") == "ghcr.io/c/d"
    assert image(MAIN, IMAGE_NAME="") == "ghcr.io/some/fork"
    # Where nothing names the repository, the default is left.
    assert image(changed(MAIN, repository="")) == "ghcr.io/afzaal0007/mlc-llm-pipeline"
    payload = {"repository": {"full_name": "Who/Ever"}}
    event = changed(MAIN, repository="Who/Ever", payload=payload)
    found = plan.make_plan(GRAPH, event, load(contexts.variables(GRAPH, event, {})))
    assert found.images["development"][0] == "ghcr.io/who/ever:main"
    monkeypatch.setenv("GITHUB_REPOSITORY", "Some/Fork")
    runner = local.create_runner(local.Options(ref="refs/heads/main"))
    env = runner.environment({"REGISTRY": "127.0.0.1:5000"})
    assert (env["IMAGE_NAME"], env["REGISTRY"]) == ("Some/Fork", "127.0.0.1:5000")


@pytest.mark.parametrize("tag", ["v1", "v10", "v1.2", "vnext", "nightly"])
def test_tags_that_start_nothing(tag):
    """plan says which pattern a tag does not match, and fails of nothing."""
    found = plan.make_plan(GRAPH, changed(MAIN, ref=f"refs/tags/{tag}"), load({}))
    accepted = next(one for one in GRAPH.triggers if one.name == "push").filters["tags"]
    for decision in found.decisions.values():
        assert not decision.run and f"{tag} is none of tags {accepted[0]}" in decision.reason
    assert found.release is None and not any(found.images.values())


# -- whatever it is told ------------------------------------------------------------------

scalars = st.none() | st.booleans() | st.integers(-(10**400), 10**400) | st.text(max_size=6)
keys = st.sampled_from(
    ["number", "action", "inputs", "force_build", "repository", "full_name", "default_branch",
     "pull_request", "head", "base", "repo", "sha", "before", "deleted", "merge_group", "base_ref"]
)  # fmt: skip
values = st.recursive(
    scalars | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(keys, inner, max_size=5),
    max_leaves=12,
)
odd_texts = st.sampled_from(
    ["", "ZZZ", "main", "v1", "refs/heads/", "0" * 40, SHA, "\udce9", "\0", "9" * 5000]
)
refs = odd_texts | st.sampled_from(
    ["refs/heads/main", "refs/tags/v1.0.0", "refs/tags/v1.2.3+b", "refs/pull/7/merge",
     f"refs/pull/{'9' * 5000}/merge", "refs/heads/gh-readonly-queue/main/pr-1-a"]
)  # fmt: skip


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(["push", "pull_request", "merge_group", "workflow_dispatch", *EVENT_NAMES, "x"]),
       refs, odd_texts, odd_texts, st.dictionaries(keys, values, max_size=6) | values)  # fmt: skip
def test_any_event_is_planned_or_refused(tmp_path, name, ref, sha, repository, payload):
    """Whatever variables and event file hold: a plan that can be shown, or a sentence."""
    path = tmp_path / "event.json"
    path.write_text(json.dumps(payload), encoding="utf-8")
    env = {"GITHUB_EVENT_NAME": name, "GITHUB_REF": ref, "GITHUB_SHA": sha,
           "GITHUB_REPOSITORY": repository, "GITHUB_EVENT_PATH": str(path)}  # fmt: skip
    try:
        event = from_actions(env)
        found = plan.make_plan(GRAPH, event, load(contexts.variables(GRAPH, event, {})))
    except UsageError as error:
        assert error.exit_code == 2 and str(error)
        return
    plan.show(found)
    assert json.dumps(found.to_json())


options = st.lists(
    st.one_of(
        refs.map(lambda ref: f"--ref={ref}"),
        odd_texts.map(lambda sha: f"--sha={sha}"),
        st.sampled_from([*EVENT_NAMES, "", "x"]).map(lambda name: f"--event={name}"),
        st.sampled_from(["--pr=3", f"--pr={'9' * 5000}", "--pr=x", "--fork", "--force-build"]),
        st.sampled_from(["--default-branch=", "--default-branch=\udce9", "--failed=x", "--action=x"]),
    ),
    max_size=4,
)  # fmt: skip


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(options)
def test_any_options_are_planned_or_refused(capsys, words):
    """Whatever the command line says: a plan, or a sentence and exit code 2."""
    code = plan.main([*words, "--json"])
    shown = capsys.readouterr()
    assert (
        code in (0, 2)
        and bool(json.loads(shown.out))
        and ("error: " in shown.err) == bool(code)
    )


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b"5", b"null", b'"x"', b"{", b"\xff\xfe", b'{"a": "\xe9"}', b"[" * 100_000,
     b'{"a":' * 100_000, b'{"repository": null}', b'{"pull_request": 5, "number": "x"}', b'{"a": NaN}'],
    ids=range(13),
)  # fmt: skip
@pytest.mark.parametrize("command", [plan.main, local.main], ids=["plan", "pipeline"])
def test_odd_event_files(content, command, tmp_path, monkeypatch, capsys):
    """An event file that is none is a sentence and exit code 2."""
    path = tmp_path / "event.json"
    path.write_bytes(content)
    for name, value in (("NAME", "pull_request"), ("PATH", str(path))):
        monkeypatch.setenv(f"GITHUB_EVENT_{name}", value)
    monkeypatch.setenv("GITHUB_REF", "refs/heads/x")
    assert command(["--json"]) == 2
    assert json.loads(capsys.readouterr().out)["error"]["message"]


CI = (ROOT / model.WORKFLOW).read_text(encoding="utf-8")
LINES = CI.splitlines()
pieces = st.sampled_from(
    ["${{ fromJSON('[1]') }}", "${{ github.x }}", "[]", "{}", "5", "null", "'x'", "${{ ", "&a x",
     "*a", "- x", "matrix", "uses: x", "continue-on-error: ${{ matrix.x }}", "if: secrets.X",
     "strategy: ${{ 1 }}", "env: {A: '${{ env.B }}'}", "runs-on: {labels: [a]}", "types: [x]"]
)  # fmt: skip


@given(
    st.lists(
        st.tuples(st.integers(0, len(LINES) - 1), pieces, st.booleans()), min_size=1, max_size=3
    ),
    st.sampled_from([MAIN, PULL, QUEUE]),
)
def test_any_change_of_the_workflow_is_planned_or_refused(changes, event):
    """Lines changed in value, or whole: a plan and commands, or a sentence."""
    lines = list(LINES)
    for number, piece, whole in changes:
        line = lines[number]
        before = (
            line[: len(line) - len(line.lstrip())] if whole else line.partition(":")[0] + ": "
        )
        lines[number] = before + piece
    try:
        workflow = model.parse("\n".join(lines))
        found = decisions.decide(workflow, event)
        workflow = dataclasses.replace(workflow, jobs={n: one.job for n, one in found.items()})
        runner = local.Runner(workflow, event, local.jobs.Policy(), ROOT, "none")
        local.planned_commands(runner)
    except UsageError as error:
        assert str(error)
