"""The workflow file: read, checked, and the same as the noxfile says."""

import contextlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from tools.core.errors import UsageError
from tools.core.settings import ROOT
from tools.repo import versions
from tools.repo.event import Event
from tools.workflow import model as workflow
from tools.workflow import triggers

GRAPH = workflow.load()
CI = (ROOT / workflow.WORKFLOW).read_text(encoding="utf-8")
PLAIN = yaml.load(CI, Loader=yaml.BaseLoader)
STEPS = {name: job["steps"] for name, job in PLAIN["jobs"].items()}
EVERY_WORKFLOW = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
SETUP = ROOT / ".github" / "actions" / "setup" / "action.yml"
SETUP_STEPS = yaml.load(SETUP.read_text("utf-8"), yaml.BaseLoader)["runs"]["steps"]


# -- what the reference asks of the file -------------------------------------------------


def test_jobs_and_needs():
    """The seven jobs of the reference, with its dependencies."""
    assert {name: set(job.needs) for name, job in GRAPH.jobs.items()} == {
        "lint-and-format": set(),
        "build-docker-image": {"lint-and-format"},
        "test-docker-image": {"build-docker-image"},
        "build-wheels": {"lint-and-format", "test-docker-image"},
        "create-release": {"build-wheels", "build-docker-image"},
        "build-production-image": {"build-wheels", "test-docker-image"},
        "cleanup": {"create-release", "build-production-image"},
    }
    assert GRAPH.ancestors("cleanup") == set(GRAPH.jobs) - {"cleanup"}
    order = GRAPH.order()
    for name in GRAPH.jobs:
        assert all(order.index(other) < order.index(name) for other in GRAPH.ancestors(name))


def test_matrices():
    """Test types and wheel platforms are those of the reference."""
    tests = GRAPH.jobs["test-docker-image"].matrix
    assert [row["test-type"] for row in tests] == ["basic", "import", "help"]
    rows = [tuple(row.values())[:3] for row in GRAPH.jobs["build-wheels"].matrix]
    assert ("ubuntu-latest", "linux", "x64") in rows
    assert ("windows-latest", "windows", "x64") in rows


def test_every_job_is_least_privileged_and_bounded():
    """No rights by default, the least per job, a time limit, no fail-fast."""
    assert PLAIN["permissions"] == {}
    allowed = {
        "lint-and-format": {"contents": "read"},
        "build-docker-image": {"contents": "read", "packages": "write"},
        "test-docker-image": {"contents": "read", "packages": "read"},
        "build-wheels": {"contents": "read"},
        "create-release": {"attestations": "write", "contents": "write", "id-token": "write"},
        "build-production-image": {"contents": "read", "packages": "write"},
        "cleanup": {"actions": "read", "contents": "read", "packages": "write"},
    }
    for name, job in PLAIN["jobs"].items():
        assert job["permissions"] == allowed[name], name
        assert int(job["timeout-minutes"]) > 0
        assert "strategy" not in job or job["strategy"]["fail-fast"] == "false"


def test_every_action_is_pinned_by_commit():
    """Actions are pinned by a full commit hash, the same everywhere, the version as a comment."""
    text = "".join(path.read_text("utf-8") for path in [*EVERY_WORKFLOW, SETUP])
    uses = set(re.findall(r"^\s*(?:- )?uses: ([^.@\n][^@\n]+)(.*)", text, re.MULTILINE))
    assert len(uses) == len({action for action, _ in uses}) > 5
    for action, pin in uses:
        assert re.fullmatch(r"@[0-9a-f]{40} # v\d+\.\d+\.\d+", pin), action


def test_dependabot_renews_every_pin():
    """Workflows and each composite action are among the folders that Dependabot looks at."""
    text = (ROOT / ".github" / "dependabot.yml").read_text("utf-8")
    updates = yaml.load(text, yaml.BaseLoader)["updates"]
    [actions] = [one for one in updates if one["package-ecosystem"] == "github-actions"]
    composite = {
        f"/{p.parent.relative_to(ROOT).as_posix()}" for p in SETUP.parents[1].glob("*/*.yml")
    }
    assert set(actions["directories"]) == {"/", *composite}


def test_every_job_checks_out_and_sets_up():
    """Checkout takes submodules, and leaves no token behind; where images and versions come
    from tags, it takes all of them. Only builds of images have a builder.
    """
    whole = {name for name, steps in STEPS.items() if "fetch-depth" in steps[0]["with"]}
    assert whole == set(STEPS) - {"test-docker-image", "cleanup"}
    for name, (checkout, setup, *_) in STEPS.items():
        assert checkout["uses"].startswith("actions/checkout@")
        assert checkout["with"]["persist-credentials"] == "false"
        assert checkout["with"]["submodules"] == "recursive"
        assert checkout["with"].get("fetch-depth", "0") == "0"
        assert setup["uses"] == "./.github/actions/setup"
        builds = name in ("build-docker-image", "build-production-image")
        assert setup["with"].get("buildx", "false") == ("true" if builds else "false")


def test_tags_are_made_of_no_cache():
    """What another run has cached is not read where a tag publishes."""
    steps = [*SETUP_STEPS, *(step for steps in STEPS.values() for step in steps)]
    caches = [s["with"] for s in steps if s.get("uses", "").startswith("actions/cache@")]
    tags = "${{ startsWith(github.ref, 'refs/tags/') }}"
    assert [cache["lookup-only"] for cache in caches] == [tags, tags, tags]
    [layers] = [s for s in SETUP_STEPS if "github-runtime@" in s.get("uses", "")]
    assert "!startsWith(github.ref, 'refs/tags/')" in layers["if"]


def test_no_secret_enters_the_setup():
    """The action that prepares a job sees no secret and no token."""
    assert not re.search(r"secrets|token", SETUP.read_text("utf-8"), re.IGNORECASE)


def test_assets_are_attested_before_they_are_visible():
    """Prepared, attested, and only then published: never a release without its provenance."""
    steps = STEPS["create-release"]
    assert [step.get("run") or step["uses"].partition("@")[0] for step in steps][-3:] == [
        'nox -s release -- "$TAG" --dry-run',
        "actions/attest",
        'nox -s release -- "$TAG"',
    ]


def test_secrets_stay_in_their_step_and_out_of_pull_requests():
    """A secret is in the environment of one step, which no pull request reaches; the shell
    never sees text from an expression.
    """
    found = [yaml.load(path.read_text("utf-8"), yaml.BaseLoader) for path in EVERY_WORKFLOW]
    assert "secrets." not in json.dumps([one.get("env", {}) for one in found])
    for job in [job for one in found for job in one["jobs"].values()]:
        assert "secrets." not in json.dumps({**job, "steps": []})
        assert not any("${{" in step.get("run", "") for step in job.get("steps", []))
        for step in [step for step in job.get("steps", []) if "secrets." in json.dumps(step)]:
            both = f"{job.get('if', '')} {step.get('if', '')}"
            assert "github.event_name != 'pull_request'" in both or "== 'push'" in both
            assert "pull_request'" not in both or "!= 'pull_request'" in both


@given(st.from_regex(r"v[0-9.]{0,9}[-+a-z.]{0,4}[0-9]?") | st.text(max_size=9))
def test_tags_that_start_a_run(tag):
    """The doctor says the same as the workflow's filter: every version starts it."""
    [push] = [trigger for trigger in GRAPH.triggers if trigger.name == "push"]
    starts = triggers.matches(tag, push.filters["tags"])
    assert versions.starts_a_run(tag) == starts
    assert starts or not versions.known_versions([tag])


def test_concurrency_never_ends_a_tag():
    """A newer run ends the older one in pull requests alone."""
    found = PLAIN["concurrency"]
    assert found["cancel-in-progress"] == "${{ github.event_name == 'pull_request' }}"
    assert "github.run_id" in found["group"]


def test_artifacts():
    """Wheels are kept as wheels-<platform>-<arch>[-<flavour>] for 30 days."""
    uploads = [s for s in STEPS["build-wheels"] if "upload-artifact@" in s.get("uses", "")]
    assert [(s["with"]["name"], s["with"]["retention-days"]) for s in uploads] == [
        (
            "wheels-${{ matrix.platform }}-${{ matrix.arch }}"
            "${{ matrix.flavour != 'cpu' && format('-{0}', matrix.flavour) || '' }}",
            "30",
        )
    ]


def test_digest_is_handed_on():
    """What was built is what is tested: the digest goes from job to job as an output."""
    jobs = PLAIN["jobs"]
    assert "steps.push.outputs.digest" in jobs["build-docker-image"]["outputs"]["digest"]
    handed = "${{ needs.build-docker-image.outputs.digest }}"
    assert jobs["test-docker-image"]["env"]["DIGEST"] == handed
    tests = [s["run"] for s in STEPS["test-docker-image"] if "docker_test" in s.get("run", "")]
    assert tests and all('--digest "$DIGEST"' in run for run in tests)
    production = [step.get("run", "") for step in STEPS["build-production-image"]]
    assert any('--image production --digest "$DIGEST"' in run for run in production)


# -- the noxfile and the workflow say the same -------------------------------------------


@pytest.fixture(scope="module")
def sessions():
    """nox's sessions and what they require, as the noxfile declares them in CI's order."""
    program = (
        "import json\n"
        "from nox import _options\n"
        "from nox.tasks import load_nox_module, discover_manifest\n"
        "config = _options.options.parse_args(['-f', 'noxfile.py'])\n"
        "module = load_nox_module(config)\n"
        "manifest = discover_manifest(module, config)\n"
        "found = {s.signatures[0] if s.signatures else s.name: list(s.func.requires)\n"
        "         for s, _ in manifest.list_all_sessions()}\n"
        "print(json.dumps(found))\n"
    )
    pytest.importorskip("nox")
    env = {**os.environ, "MLC_IN_ORDER": "1"}
    printed = subprocess.check_output([sys.executable, "-c", program], cwd=ROOT, env=env)
    return json.loads(printed.splitlines()[-1])


@pytest.fixture(scope="module")
def called():
    """The sessions that workflows call, each with its job, for all of a matrix."""
    found = []
    for path in EVERY_WORKFLOW:
        for job in workflow.parse(path.read_text("utf-8"), path).jobs.values():
            for step in job.steps:
                for row in job.matrix or [{}]:
                    test = str(row.get("test-type", ""))
                    # checks.yml starts an engine and a registry around the tests.
                    step.run = re.sub(r".* run .*?-- (?=nox)", "", step.run)
                    for session in step.sessions:
                        found.append((job.name, session.replace("$TEST_TYPE", test)))
    return found


def base(session):
    """A session's name without its parameters."""
    return session.partition("(")[0]


def test_needs_equals_requires(sessions):
    """The order of the jobs and that of the sessions are the same statement."""
    jobs = reversed(GRAPH.jobs.values())  # a session is its first job's
    job_of = {session: job.name for job in jobs for session in job.sessions}
    for name, job in GRAPH.jobs.items():
        required = {
            job_of[base(r)]
            for s, rs in sessions.items()
            if job_of.get(base(s)) == name
            for r in rs
        }
        assert required == set(job.needs), name


def test_every_job_calls_sessions_that_exist(sessions, called):
    """Each job runs at least one session, and each that it names is in the noxfile."""
    assert GRAPH.jobs.keys() <= {job for job, _ in called}
    known = set(sessions) | {base(session) for session in sessions}
    assert [one for one in called if one[1] not in known] == []


def test_every_session_that_ci_needs_is_called(sessions, called):
    """A session is called by a workflow, or is one that only a person calls."""
    by_hand = {base(session) for session in sessions} - {base(name) for _, name in called}
    assert by_hand == {"bench", "lock", "pipeline", "doctor"}


# -- errors ------------------------------------------------------------------------------

GOOD = """\
name: x
on:
  push:
    branches: [main]
jobs:
  one:
    runs-on: ubuntu-latest
    steps:
      - run: nox -s one
  two:
    needs: [one]
    if: ${{ always() }}
    runs-on: ubuntu-latest
    strategy:
      matrix:
        a: [1, 2]
    steps:
      - run: nox -s two
"""
CONDITION = "${{ always() }}"


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("branches: [main]", "branches: [main", "Line 5 is not YAML"),
        ("name: x", "name: x\nname: y", "Line 2 is not YAML: 'name' stands twice"),
        ("needs: [one]", "needs: [zero]", "'zero', which is needed, is not a job"),
        ("needs: [one]", "needs: {one: 1}", "The job two: Expected `str`"),
        (
            "branches: [main]",
            "branches: ['[z-a]']",
            "the filter pattern '[z-a]' is not understood",
        ),
        ("a: [1, 2]", "a: 3", "Expected `array`"),
        ("a: [1, 2]", "include: [3]", "Expected `object`"),
        ("a: [1, 2]", "a: [0xfffffffff]", "'0xfffffffff' may be read"),
        ("matrix:", "matrix: [1]\n      y:", "Expected `object`"),
        (CONDITION, "${{ always( }}", "too early at position 8 of the expression: always("),
        (CONDITION, "${{ needs.one.result = 'a' }}", "Unexpected '=' at position 18"),
        (CONDITION, '"always() && nothing.x"', "'nothing' is not known"),
        (
            CONDITION,
            "${{ secrets.T }}",
            "'secrets' is not known here, but github, needs, vars, inputs",
        ),
        (
            "      - run: nox -s one",
            "      - {if: secrets.T, run: x}",
            "'secrets' is not known here, but",
        ),
        ("a: [1, 2]", "<<: {a: [1]}", "GitHub has anchors, but no <<"),
        (CONDITION, "${{ 1 }} && true", "always true"),
        ("    steps:\n      - run: nox -s one\n", "", "one: it has neither steps nor uses"),
        ("      - run: nox -s one", "      - if: fail()", "- at `$.steps[0]`"),
        ("on:\n  push:\n    branches: [main]\n", "", "missing required field `on`"),
        (GOOD, "", "Expected `object`, got `null`"),
        ("jobs:", "jobs: 3\nother:", "Expected `object`, got `str` - at `$.jobs`"),
        ("  one:\n", "  one:\n    needs: two\n", "in a circle: "),
    ],
)
def test_errors(old, new, says):
    """What is not understood is one sentence that names the file; exit code 2."""
    assert old in GOOD
    with pytest.raises(UsageError) as caught:
        workflow.parse(GOOD.replace(old, new, 1), Path("ci.yml"))
    message = caught.value.message
    assert says in message and message.startswith("ci.yml: ") and "\n" not in message
    assert caught.value.exit_code == 2


def test_missing_file(tmp_path):
    """A missing file is a usage error too."""
    with pytest.raises(UsageError, match="cannot be read"):
        workflow.load(tmp_path)


def test_steps_as_they_stand():
    """A step has its texts as they stand, numbers as GitHub writes them, its job's variables."""
    text = GOOD.replace(
        "steps:\n      - run: nox -s two",
        "env: {A: 3.10, B: '3.10'}\n    steps:\n      - {id: x, if: false, uses: a/b@v1,"
        " with: {c: true}, env: {B: '${{ 1 }}', D: }}",
    )
    [step] = workflow.parse(text).jobs["two"].steps
    assert (step.ident, step.condition, step.uses, step.sessions) == (
        "x",
        "false",
        "a/b@v1",
        (),
    )
    assert step.env == {"B": "${{ 1 }}", "D": ""}
    assert workflow.parse(text).jobs["two"].env == {"A": "3.1", "B": "3.10"}


def test_scalars_are_githubs():
    """YAML 1.2, as GitHub reads it, not PyYAML's 1.1: dates, on and 010 differ."""
    axis = "[on, 2024-01-01, 010, 3.10, '3.10', true, ~, 1e2, 0x1F]"
    job = workflow.parse(GOOD.replace("a: [1, 2]", f"a: {axis}")).jobs["two"]
    expected = ["on", "2024-01-01", 10, 3.1, "3.10", True, None, 100, 31]
    assert [row["a"] for row in job.matrix] == expected


typos = st.tuples(st.integers(0, len(CI) - 1), st.sampled_from("{}[]:,'\"#&*!|>%@`-\n\t x0"))


@given(
    st.text(max_size=60) | typos.map(lambda typo: CI[: typo[0]] + typo[1] + CI[typo[0] + 1 :])
)
def test_any_text_is_a_graph_or_an_error(text):
    """No text in the workflow's place, and no typo in it, ends in a traceback."""
    with contextlib.suppress(UsageError):
        workflow.parse(text)


# -- triggers and matrix -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("patterns", "passing", "others"),
    [
        # GitHub's "Filter pattern cheat sheet"
        ("feature/*", "feature/my-branch", "feature/a/b"),
        ("feature/**", "feature/beta-a/my-branch feature/x", "features"),
        *(("*", "main releases", "all/the/branches"), ("**", "all/the/branches", "")),
        ("*feature", "mona-feature feature ver-10-feature", "a/feature features"),
        ("v[12].[0-9]+.[0-9]+", "v1.10.1 v2.0.0", "v3.0.0 v1.10"),
        ("releases/**-alpha", "releases/10/x-alpha", "releases/10"),
        *(
            ("colou?r", "color colour", "colouur"),
            ("a\\*b", "a*b", "axb"),
            ("a.b", "a.b", "axb"),
        ),
        ("releases/** !releases/**-alpha", "releases/10", "releases/10-alpha"),
        ("r*/** !r*/**-alpha r*/1**", "releases/1-alpha", "releases/2-alpha"),
    ],
)
def test_filter_patterns(patterns, passing, others):
    """Patterns of branches and tags match as GitHub's cheat sheet says; ! takes out."""
    for name in passing.split():
        assert triggers.matches(name, patterns.split()), name
    for name in others.split():
        assert not triggers.matches(name, patterns.split()), name


@given(st.text("ab[]-!*?+\\/.^(", max_size=8), st.text("ab[]*?+/", max_size=5))
def test_any_pattern_matches_or_is_refused(pattern, name):
    """No pattern ends in anything but a match, none, or an error; what has no signs of its
    own matches itself alone.
    """
    with contextlib.suppress(ValueError):
        matched = triggers.matches(name, [pattern])
        assert set(pattern) & set("[]!*?+\\") or matched is (pattern == name)


@pytest.mark.parametrize(
    ("filters", "ref", "reason"),
    [
        *(({}, "refs/heads/x", ""), ({"branches-ignore": ("x*",)}, "refs/heads/y", "")),
        ({"branches-ignore": ("x*",)}, "refs/heads/x1", "one of branches-ignore"),
        ({"branches": ("main",)}, "refs/tags/v1", "not what branches are for"),
        ({"tags-ignore": ("v*",)}, "refs/heads/main", "not what tags-ignore are for"),
    ],
)
def test_filters_of_push(filters, ref, reason):
    """What is left out, and that a filter for tags alone keeps branches out, or the reverse."""
    said = triggers.not_triggered(Event("push", ref), [triggers.Trigger("push", filters)])
    assert reason in said and bool(said) == bool(reason)
    assert "not triggered by push" in triggers.not_triggered(Event("push", ref), [])


def test_matrix_as_documented():
    """GitHub's own example of include: what is added, and what becomes a new combination;
    exclude takes out every combination that has its values.
    """
    include = [
        *({"color": "green"}, {"color": "pink", "animal": "cat"}),
        *({"fruit": "apple", "shape": "circle"}, {"fruit": "banana"}),
        {"fruit": "banana", "animal": "cat"},
    ]
    axes = {"fruit": ["apple", "pear"], "animal": ["cat", "dog"]}
    assert workflow.expand_matrix({**axes, "include": include}) == [
        {"fruit": "apple", "animal": "cat", "color": "pink", "shape": "circle"},
        {"fruit": "apple", "animal": "dog", "color": "green", "shape": "circle"},
        {"fruit": "pear", "animal": "cat", "color": "pink"},
        {"fruit": "pear", "animal": "dog", "color": "green"},
        {"fruit": "banana"},
        {"fruit": "banana", "animal": "cat"},
    ]
    exclude = [{"fruit": "apple", "animal": "cat"}, {"animal": "dog"}]
    found = workflow.expand_matrix({**axes, "exclude": exclude})
    assert found == [{"fruit": "pear", "animal": "cat"}]
