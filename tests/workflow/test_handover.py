"""What each step is given and hands on: artifacts, secrets, history. One table each."""

import fnmatch
import re
from collections.abc import Iterator

import yaml

from tools.core.settings import ROOT
from tools.workflow import model
from tools.workflow.expressions import evaluate_text

GRAPH = model.load()
PLAIN = yaml.load((ROOT / model.WORKFLOW).read_text("utf-8"), yaml.BaseLoader)
JOBS = PLAIN["jobs"]
SETUP = yaml.load(
    (ROOT / ".github/actions/setup/action.yml").read_text("utf-8"), yaml.BaseLoader
)
SECRET, OWN, HUB = "secrets.GH_TOKEN || github.token", "github.token", "secrets.DOCKER_HUB_"
LOGINS = (
    f"GH_TOKEN={SECRET}",
    f"DOCKER_HUB_USERNAME={HUB}USERNAME",
    f"DOCKER_HUB_TOKEN={HUB}TOKEN",
)
# Commits of a clone, 0 for all and the tags: who needs versions, or the last release.
DEPTHS = {
    "lint-and-format": "0",
    "build-docker-image": "0",
    "test-docker-image": "1",
    "build-wheels": "0",
    "create-release": "0",
    "build-production-image": "0",
    "cleanup": "1",
}
# What leads to a secret, by step; all other steps have none.
SECRETS = {
    "build-docker-image": {"Build and push": LOGINS},
    "test-docker-image": {"Test what was pushed": LOGINS[:1]},
    "create-release": {
        "Check and prepare the release": LOGINS[:1],
        "Release": LOGINS[:1],
    },
    "build-production-image": {
        "Push": LOGINS,
        "Test what was pushed": LOGINS[:1],
        "List what is in it": LOGINS[:1],
    },
    "cleanup": {
        "Delete old untagged versions": LOGINS[:1],
        "Draw the run": (f"GH_TOKEN={OWN}",),
        "Tell Slack": (f"GH_TOKEN={OWN}", "SLACK_WEBHOOK_URL=secrets.SLACK_WEBHOOK_URL"),
    },
}
# Artifacts: who fetches them (nobody: they are for people).
ARTIFACTS = {
    "wheels-linux-x64": {"create-release", "build-production-image"},
    "wheels-linux-arm64": {"create-release"},
    "wheels-windows-x64": {"create-release"},
    "wheels-macos-arm64-metal": {"create-release"},
    "image-record-development": {"create-release"},
    "image-development": {"test-docker-image"},
    "sbom-production": set(),
    "summary": set(),
}


def using(job: str, action: str) -> Iterator[dict[str, str]]:
    """The inputs of a job's steps that use an action."""
    for step in JOBS[job]["steps"]:
        if step.get("uses", "").startswith(f"{action}@"):
            yield step["with"]


def test_depth_of_each_clone() -> None:
    """Who needs all tags has them; nobody else waits for them."""
    for job, depth in DEPTHS.items():
        [inputs] = using(job, "actions/checkout")
        assert inputs.get("fetch-depth", "1") == depth, job
    assert DEPTHS.keys() == JOBS.keys()


def test_secrets_of_each_step() -> None:
    """The steps that need a token have it, and no other step has."""
    found: dict[str, dict[str, tuple[str, ...]]] = {}
    for job, spec in JOBS.items():
        for step in spec["steps"]:
            pairs = [f"{k}={v[4:-3]}" for k, v in step.get("env", {}).items() if "${{" in v]
            if secrets := tuple(one for one in pairs if re.search("secrets|github.token", one)):
                found.setdefault(job, {})[step["name"]] = secrets
    assert found == SECRETS


def test_what_is_handed_on_is_fetched() -> None:
    """Each artifact has one maker, and is fetched by its name by jobs that come after it."""
    makers: dict[str, str] = {}
    for job in JOBS:
        for inputs in using(job, "actions/upload-artifact"):
            for row in GRAPH.jobs[job].matrix or [{}]:
                name = str(evaluate_text(inputs["name"], {"matrix": dict(row)}))
                assert makers.setdefault(name, job) == job or not row
    fetched: dict[str, set[str]] = {name: set() for name in makers}
    for job in JOBS:
        for inputs in using(job, "actions/download-artifact"):
            names = fnmatch.filter(makers, inputs.get("name") or inputs["pattern"])
            assert names, f"{job} fetches what nobody hands on: {inputs}"
            for name in names:
                assert makers[name] in GRAPH.ancestors(job), f"{job} may come before {name}"
                fetched[name].add(job)
    assert fetched == ARTIFACTS


def test_production_is_tested_before_its_tags_move() -> None:
    """Built and tested here, pushed, tested by digest, and only then listed."""
    runs = [step["run"] for step in JOBS["build-production-image"]["steps"] if "run" in step]
    assert runs == [
        "nox -s prod_image -- --no-push",
        "nox -s docker_test -- --image production",
        "nox -s prod_image",
        'nox -s docker_test -- --image production --digest "$DIGEST"',
        "nox -s sbom",
    ]


def test_what_is_promised_must_be_there() -> None:
    """An artifact without its files fails the job; the picture of a run alone may be missing."""
    for job in JOBS:
        for inputs in using(job, "actions/upload-artifact"):
            missing = inputs.get("if-no-files-found", "warn")
            assert missing == ("warn" if inputs["name"] == "summary" else "error"), inputs


def test_only_builders_of_images_have_a_builder() -> None:
    """A builder where it is asked for; the cache of Actions for it, but never for a tag."""
    conditions = {
        re.split("[/@]", step["uses"])[1]: step["if"][4:-3]
        for step in SETUP["runs"]["steps"]
        if "if" in step
    }
    asked = "inputs.buildx == 'true'"
    tags = "!startsWith(github.ref, 'refs/tags/')"
    assert conditions == {
        "setup-buildx-action": asked,
        "ghaction-github-runtime": f"{asked} && {tags}",
    }
    assert SETUP["inputs"]["buildx"]["default"] == "false"


def test_failures_are_passed_over_only_where_that_is_asked_for() -> None:
    """A manual run builds in spite of failures if its input says so, not by itself."""
    assert PLAIN["on"]["workflow_dispatch"]["inputs"]["force_build"]["default"] == "false"


def test_a_fork_has_a_package_of_its_own() -> None:
    """Images are named after the repository that runs, not after this one."""
    assert PLAIN["env"]["IMAGE_NAME"] == "${{ github.repository }}"
