"""What a step is to ``pipeline``: one call of nox, left out by name, or an error."""

import json
import platform
import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tools.core.errors import UsageError
from tools.repo.event import Event
from tools.workflow import commands, contexts, jobs, local, model
from tools.workflow.jobs import Policy
from tools.workflow.runner import Runner

MAIN = Event("push", "refs/heads/main", "a" * 40, repository="o/n")
SYSTEM = {"Linux": "Linux", "Windows": "Windows", "Darwin": "macOS"}[platform.system()]


def lines(*steps, event=MAIN, job="", top="", code=0, policy=Policy(push=True, publish=True)):
    """The commands of a job with these steps, which end with a code."""
    listed = "\n".join(f"      - {step}" for step in steps)
    text = (
        f"on: push\nname: W\n{top}\njobs:\n  a:\n    runs-on: x\n{job}\n    steps:\n{listed}\n"
    )
    graph = model.parse(text)
    names = contexts.of_job(graph, graph.jobs["a"], event, {}, {})
    one = next(jobs.matrix_jobs(graph.jobs["a"], policy, names))
    found = []
    for command in jobs.job_commands(graph, one, names, policy):
        found.append(shlex.join(command.words))
        one.note(command, {}, code)
    return found


@pytest.mark.parametrize(
    ("run", "expected"),
    [
        *(("nox -s lint", "lint"), ("nox --session lint", "lint"), ("nox -sl", "l")),
        *(("nox -R -s lint", "lint"), ("nox -rs lint", "lint"), ("nox --sessions=a", "a")),
        *(("python -m nox -x -s lint", "lint"), ("nox -s 'a' -v", "a"), ("nox -e a b", "a b")),
        ("nox --reuse-venv=yes -s lint", "lint"),
        ("# first\n\n  nox -s lint \\\n    -- --fix", "lint -- --fix"),
        ('nox -s "t(x)" -- "a b" \'c;d\' "\\"q\\""', "t(x) -- a b c;d \"q\""),
        ("nox -s a -- -s b -- c", "a -- -s b -- c"),
    ],
)  # fmt: skip
def test_calls_of_nox(run, expected):
    """All spellings of nox's options that change nothing about what its sessions do."""
    sessions, _, args = expected.partition(" -- ")
    call = commands.parse(run)
    assert " ".join(call.sessions) == sessions and " ".join(call.args) == args
    assert tuple(shlex.split(shlex.join(call.args))) == call.args


@pytest.mark.parametrize(
    ("run", "says"),
    [
        *(("nox -s a && nox -s b", "&& is"), ("nox -s a; true", "; is"), ("nox -s a | tee x", "| is")),
        *(("nox -s a || true", "|| is"), ("nox -s a > log", "> is"), ("nox -s a &", "& is")),
        *(("nox -s a\nnox -s b", "2 lines"), ("# nothing", "0 lines"), ("nox -s a -- *.py", "* is")),
        *(("nox -s a -s b", "-s stands twice"), ("nox", "no session"), ("nox -s", "no session")),
        *(("nox -k 'not a'", "arguments: -k"), ("nox -t all", "arguments: -t"), ("nox -f x.py -s a", "-f")),
        *(("nox --install-only -s a", "--install-only"), ("nox lint", "arguments: lint"), ("nox --sess a", "--sess")),
        *(("nox --reuse-venv=so -s a", "invalid choice"), ("nox -s 'a", "No closing quotation")),
        *(("echo nox -s a", "'echo' is not"), ("A=1 nox -s a", "'A=1' is not"), ("sudo nox -s a", "'sudo' is not")),
        *(("uvx nox -s a", "'uvx' is not"), ("python x.py", "'python' is not"), ("nox -s $A", "outside of double")),
        *(("nox -s '$A'", "$ in '$A'"), ('nox -s "$(id)"', "$ in"), ('nox -s "`id`"', "` in")),
        *(('nox -s "\\$A"', "\\$ in"), ("nox -s a\\ b", "\\  in"), ('nox -s "${A:-b}"', "$ in")),
        *(("nox -s t(x)", "( is"), ("nox -s a # b", "# is"), ("nox -s a <<X", "< is"), ("(nox -s a)", "( is")),
    ],
)  # fmt: skip
def test_what_is_not_understood_is_an_error(run, says):
    """A step that is more, or something else, is an error that names job and step, never a
    success without anything run; plan names no session for it.
    """
    with pytest.raises(ValueError, match=r"\S") as caught:
        commands.parse(run)
    assert says in str(caught.value)
    with pytest.raises(UsageError) as refused:
        lines(f"{{name: Some step, run: {json.dumps(run)}}}")
    assert "The job a, step 'Some step', is not understood here: " in refused.value.message
    assert refused.value.exit_code == 2 and "\n" not in refused.value.message


@given(st.text(max_size=30) | st.lists(st.sampled_from(
    ["nox", "-s", "a", "b", "--", "&&", ";", "-r", "'", '"', "$A", "\\", "\n", "|", "-rs", "python -m nox"]
), max_size=8).map(" ".join))  # fmt: skip
def test_any_text_is_a_call_or_refused(text):
    """No text of a step ends in anything but sessions to run or an error."""
    try:
        call = commands.parse(text)
    except ValueError:
        return
    assert call.sessions and "nox" in text


def test_several_sessions_run_one_after_another():
    """Each is a command of its own, with what publishes withheld from each."""
    run = "run: nox -s docker_dev lint cleanup -- --x"
    assert lines(run) == [f"nox -s {name} -- --x" for name in ("docker_dev", "lint", "cleanup")]
    assert lines(run, policy=Policy()) == [
        "nox -s docker_dev -- --x --no-push", "nox -s lint -- --x",
        "nox -s cleanup -- --x --dry-run",
    ]  # fmt: skip
    push = "run: nox -s prod_image -- --no-push --push"
    assert lines(push, policy=Policy()) == ["nox -s prod_image -- --no-push --push --no-push"]
    # A session with its Python is the same session.
    assert lines("run: nox -s release-3.11", policy=Policy()) == [
        "nox -s release-3.11 -- --dry-run"
    ]


@pytest.mark.parametrize(
    ("condition", "runs"),
    [
        *((f"runner.os == '{SYSTEM}'", True), ("runner.os == 'Plan 9'", False)),
        *(("env.TOP == 'w' && env.MID == 'j' && env.LOW == 'W/w/j'", True), ("env.TOP != 'w'", False)),
        *(("vars.UNSET == ''", True), ("github.workflow == 'W'", True), ("failure()", False)),
        *(("job.status == 'success'", True), ("github.run_attempt == '1'", True)),
        *(("steps.none.outputs.x", False), ("matrix.x == 3", True), ("", True)),
    ],
)  # fmt: skip
def test_conditions(condition, runs):
    """Conditions see this machine, and the variables of workflow, job and step, evaluated."""
    job = "    env: {MID: j}\n    strategy: {matrix: {x: [3]}}"
    low = "${{ github.workflow }}/${{ env.TOP }}/${{ env.MID }}"
    step = f'{{if: "{condition}", run: nox -s a, env: {{LOW: "{low}"}}}}'
    assert lines(step, job=job, top="env: {TOP: w}") == ["nox -s a"] * runs


@pytest.mark.parametrize(
    ("step", "says"),
    [
        *(("{if: runner.name, run: nox -s a}", "runner.name: it is known on a runner alone"),),
        *(("{if: env.NONE, run: nox -s a}", "env.NONE: the workflow sets no such variable"),),
        *(("{if: strategy.job-index, run: nox -s a}", "strategy.job-index: it is known on GitHub"),),
        *(("{if: github.none, run: nox -s a}", "github.none: github has no such member"),),
        ("{if: \"hashFiles('x')\", run: nox -s a}", "hashFiles needs the workspace"),
        ('{run: nox -s "$NONE"}', "the workflow sets no variable NONE"),
        ("{uses: some/action@v1}", "the action some/action@v1 has no counterpart"),
        *(("{run: nox -s a, shell: python}", "it runs in python"),),
        *(("{run: nox -s a, working-directory: x}", "it runs in x"),),
        ('{run: "nox -s a -- ${{ github.ref_name }};x"}', "; is for a shell"),
    ],
)  # fmt: skip
def test_what_is_not_known_is_an_error(step, says):
    """A condition, variable or action that is not known here is an error, not empty."""
    with pytest.raises(UsageError) as caught:
        lines(step)
    assert says in caught.value.message and caught.value.message.startswith("The job a, step '")


def test_actions_with_a_counterpart_are_left_out():
    """Whatever prepares a runner or hands on what is here is passed over; what such a step
    would have left is not guessed. An action that would not run needs no counterpart.
    """
    cache = "{id: cache, uses: actions/cache@abc, with: {key: x}}"
    setup = "{uses: ./.github/actions/setup, with: {cache: x}}"
    other = "{if: failure(), uses: some/action@v1}"
    assert lines("{uses: actions/checkout@abc}", setup, cache, other, "run: nox -s a") == [
        "nox -s a"
    ]
    with pytest.raises(UsageError, match="its step is left out here"):
        lines(cache, "{if: \"steps.cache.outputs.cache-hit == 'true'\", run: nox -s a}")


def test_after_a_failure():
    """The steps that follow a failure are those that ask for it; one that may fail is none."""
    steps = ["{id: x, run: nox -s a}", "run: nox -s b", "{if: failure(), run: nox -s c}",
             "{if: always(), run: nox -s d}"]  # fmt: skip
    assert lines(*steps, code=1) == ["nox -s a", "nox -s c", "nox -s d"]
    steps[0] = "{id: x, run: nox -s a, continue-on-error: true}"
    steps[1] = (
        "{if: steps.x.outcome == 'failure' && steps.x.conclusion == 'success', run: nox -s b}"
    )
    assert lines(*steps, code=1) == ["nox -s a", "nox -s b", "nox -s c", "nox -s d"]


def test_secrets_are_those_of_the_environment(monkeypatch):
    """An unset secret is empty, as on GitHub."""
    step = '{run: nox -s a -- "$A" "$B", env: {A: "${{ secrets.MINE || 1 }}", B: "${{ secrets.NO }}"}}'
    monkeypatch.setenv("MINE", "x")
    assert lines(step) == ["nox -s a -- x ''"]


@pytest.mark.parametrize(
    ("job", "says"),
    [
        ("    defaults: {run: {working-directory: x}}", "its defaults or matrix"),
        ("    strategy: {matrix: '${{ fromJSON(vars.M) }}'}", "its defaults or matrix"),
    ],
)
def test_jobs_that_are_not_understood(job, says):
    """What changes all steps of a job is not passed over."""
    with pytest.raises(UsageError, match=says):
        lines("run: nox -s a", job=job)


@pytest.mark.parametrize(
    ("runs_on", "here"),
    [
        *(
            ("ubuntu-latest", "Linux"),
            ("[self-hosted, linux, x64]", "Linux"),
            ("macos-15", "Darwin"),
        ),
        ("ubuntu-24.04-arm", "Linux on ARM"),
        *(("${{ matrix.on }}", "Windows"), ("{group: g, labels: windows-2025}", "Windows")),
        *(("${{ fromJSON('[\"ubuntu-24.04\"]') }}", "Linux"), ("self-hosted", "")),
    ],
)
def test_runners_of_another_system(runs_on, here, monkeypatch):
    """The labels of runs-on, evaluated, say on which system a job runs; others run here."""
    text = f"on: push\njobs:\n  a:\n    runs-on: {runs_on}\n    strategy: {{matrix: {{on: [windows-11]}}}}\n    steps: []"
    graph = model.parse(text)
    names = contexts.of_job(graph, graph.jobs["a"], MAIN, {}, {})
    for system in ("Linux", "Windows", "Darwin"):
        monkeypatch.setattr(platform, "system", lambda system=system: system)
        for machine, suffix in (("x86_64", ""), ("aarch64", " on ARM")):
            monkeypatch.setattr(platform, "machine", lambda machine=machine: machine)
            [one] = jobs.matrix_jobs(graph.jobs["a"], Policy(), names)
            assert (one.obstacle is None) == (here in ("", system, system + suffix))


# -- whole runs --------------------------------------------------------------------------


def whole(tmp_path, monkeypatch, text, codes):
    """The runner of a workflow, after its run; ``codes`` by session."""

    def run(_, words, one):
        return codes.get(words[2], 0), {"x": words[2]}

    monkeypatch.setattr(Runner, "_run_command", run)
    runner = Runner(model.parse(f"on: push\njobs:\n{text}"), MAIN, Policy(), tmp_path, "run")
    runner.run(2)
    return runner


def test_a_job_that_may_fail(tmp_path, monkeypatch):
    """Its failure is told, and counts as success for what needs it; of a matrix, for those
    combinations that may; what is not understood there is no permission.
    """
    text = """\
  a: {runs-on: x, continue-on-error: true, steps: [run: nox -s bad]}
  b:
    {needs: a, runs-on: x, continue-on-error: '${{ matrix.x == 1 }}', strategy: {matrix: {x: [1, 2]}},
     steps: [{run: nox -s "s$X", env: {X: '${{ matrix.x }}'}}]}
  c: {needs: b, if: failure(), runs-on: x, continue-on-error: '${{ github.evnt }}', steps: [run: nox -s bad]}
"""
    for failing, expected in (
        ("s1", ["success"] * 2 + ["skipped"]),
        ("s2", ["success", "failure", "failure"]),
    ):
        runner = whole(tmp_path, monkeypatch, text, {"bad": 1, failing: 1})
        assert [runner.records[name].result for name in "abc"] == expected
        assert "it may fail (continue-on-error)" in runner.matrix_jobs["a"][0].record.reason


def test_what_is_found_out_late_is_a_failure(tmp_path, monkeypatch):
    """Where a step that is not understood hangs on what one before it left, the job fails."""
    steps = "[{id: s, run: nox -s a}, {if: steps.s.outputs.x == 'a', run: echo}]"
    runner = whole(tmp_path, monkeypatch, f"  a: {{runs-on: x, steps: {steps}}}\n", {})
    record = runner.records["a"]
    assert record.result == "failure" and "step 'echo', is not understood" in record.reason
    before = Runner(runner.graph, MAIN, Policy(), tmp_path, "other")
    assert local.planned_commands(before) == {"a": ["nox -s a"]}


def test_a_reusable_workflow_is_refused_by_name(tmp_path):
    """pipeline says which job it cannot run, before anything runs."""
    graph = model.parse("on: push\njobs:\n  a: {uses: ./.github/workflows/other.yml}\n")
    with pytest.raises(
        UsageError, match="The job a .* calls the workflow ./.github/workflows/other"
    ):
        local.planned_commands(Runner(graph, MAIN, Policy(), tmp_path, "run"))
