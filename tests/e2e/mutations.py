"""Single changes of the workflow, each of which some test must notice.

    python -m tests.e2e.mutations [PART OF A NAME]...

For each: the project with the change; the linters and tests that read the workflow run there;
where they notice nothing, the workflow itself runs for the event that should. A table says what
noticed each; the exit code is 1 if anything went unnoticed. A campaign does it every night.
"""

import re
import subprocess
import sys
import tempfile
import traceback
from dataclasses import dataclass
from pathlib import Path

from tests.e2e.test_e2e import check_event
from tests.services import project
from tests.workflow.events import CASES

CI, SETUP = ".github/workflows/ci-cd.yml", ".github/actions/setup/action.yml"
DRIFT = ("tests/workflow/test_handover.py", "tests/workflow/test_workflow.py")
DRIFT += ("tests/workflow/test_agreement.py", "tests/test_extending.py")
LINTERS = (
    f"actionlint {CI}",
    "zizmor --offline -q --persona pedantic .github",
    f"check-jsonschema --builtin-schema vendor.github-workflows {CI}",
)
PUSH, TAG, PULL, DEVELOP = "push to main", "tag", "pull request from a fork", "push to develop"
FORCE = "manual with force_build, lint fails"


@dataclass(frozen=True)
class Mutation:
    """One change: ``old``, which is there once in the job (or the file), becomes ``new``."""

    name: str
    job: str  # of ci-cd.yml; empty for the rest of it, setup for the action
    old: str
    new: str = ""
    event: str = PUSH  # that shows it on the runner

    def apply(self, root: Path) -> None:
        """Change the file below ``root``; a list that fits no more is an error."""
        path = root / (SETUP if self.job == "setup" else CI)
        text = path.read_text(encoding="utf-8")
        part = (
            rf"(?m)^  {self.job}:\n(?:    .*\n|\n)+"
            if self.job not in ("", "setup")
            else "(?s).+"
        )
        [found] = re.findall(part, text) or [""]
        assert (
            found.count(self.old) == 1
        ), f"{self.name}: {found.count(self.old)} times in {self.job}"
        path.write_text(
            text.replace(found, found.replace(self.old, self.new)), encoding="utf-8"
        )


LINT, BUILD, TEST, WHEELS = (
    "lint-and-format",
    "build-docker-image",
    "test-docker-image",
    "build-wheels",
)
RELEASE, PROD, CLEAN = "create-release", "build-production-image", "cleanup"
TOKEN = "          GH_TOKEN: ${{ secrets.GH_TOKEN || github.token }}\n"
OWN_TOKEN = "          GH_TOKEN: ${{ github.token }}\n"
DEPTH = "fetch-depth: 0, "
TAGS = "        lookup-only: ${{ startsWith(github.ref, 'refs/tags/') }}\n"


def step(name: str) -> str:
    """The line that begins a step."""
    return f"      - name: {name}\n"


def without_token(job: str, name: str, after: str, event: str, token: str = TOKEN) -> Mutation:
    """A step loses its token; ``after`` is what stands before it in the step."""
    old = f"{step(name)}{after}        env:\n{token}"
    new = f"{step(name)}{after}        env:\n          UNUSED: '1'\n"
    return Mutation(f"{job}: {name} has no token", job, old, new, event)


def needs(job: str, before: str, gone: str, event: str = PUSH) -> Mutation:
    """A job no longer needs another one."""
    after = ", ".join(name for name in before.split(", ") if name != gone)
    old, new = f"    needs: [{before}]\n", f"    needs: [{after}]\n" if after else ""
    return Mutation(f"{job} does not need {gone}", job, old, new, event)


PUSHED = "        if: ${{ github.event_name == 'push' || github.event_name == 'workflow_dispatch' }}\n"
PULLED = "        if: ${{ github.event_name == 'pull_request' || github.event_name == 'merge_group' }}\n"
MUTATIONS = (
    needs(BUILD, LINT, LINT),
    needs(TEST, BUILD, BUILD),
    needs(WHEELS, f"{LINT}, {TEST}", LINT),
    needs(WHEELS, f"{LINT}, {TEST}", TEST),
    needs(RELEASE, f"{WHEELS}, {BUILD}", WHEELS, TAG),
    needs(RELEASE, f"{WHEELS}, {BUILD}", BUILD, TAG),
    needs(PROD, f"{WHEELS}, {TEST}", WHEELS),
    needs(PROD, f"{WHEELS}, {TEST}", TEST),
    needs(CLEAN, f"{RELEASE}, {PROD}", RELEASE, TAG),
    needs(CLEAN, f"{RELEASE}, {PROD}", PROD),
    Mutation("wheels are handed on by another name", WHEELS, "name: wheels-$", "name: wheel-$"),
    Mutation("wheels are fetched by another pattern", RELEASE, "wheels-*", "wheel-*", TAG),
    Mutation("the wheel is fetched by another name", PROD, "name: wheels-linux-x64", "name: wheels-linux"),
    Mutation("the record is handed on by another name", BUILD, "image-record-development", "image-record", TAG),
    Mutation("the record is fetched by another name", RELEASE, "image-record-development", "image-record", TAG),
    Mutation("the image is handed on by another name", BUILD, "name: image-development", "name: image", PULL),
    Mutation("the image is fetched by another name", TEST, "name: image-development", "name: image", PULL),
    Mutation("the list is kept by another name", PROD, "name: sbom-production", "name: sbom"),
    Mutation("the picture is kept by another name", CLEAN, "name: summary,", "name: picture,"),
    Mutation("wheels.json is not handed on", WHEELS, "            dist/wheels.json\n", event=TAG),
    Mutation("the digest is no output", BUILD, "    outputs:\n      digest: ${{ steps.push.outputs.digest || steps.archive.outputs.digest }}\n"),
    Mutation("the digest of an archive is no output", BUILD, " || steps.archive.outputs.digest", event=PULL),
    Mutation("the digest of a push is no output", BUILD, "steps.push.outputs.digest || "),
    Mutation("the push of production has no id", PROD, "        id: push\n"),
    *(
        Mutation(f"{job} checks out one commit", job, DEPTH, "", event)
        for job, event in ((LINT, TAG), (BUILD, TAG), (WHEELS, PUSH), (RELEASE, TAG), (PROD, PUSH))
    ),
    without_token(BUILD, "Build and push", f"        id: push\n{PUSHED}", PUSH),
    without_token(TEST, "Test what was pushed", PUSHED, PUSH),
    without_token(RELEASE, "Release", "", TAG),
    without_token(PROD, "Push", "        id: push\n", PUSH),
    without_token(PROD, "Test what was pushed", "", PUSH),
    without_token(PROD, "List what is in it", "", PUSH),
    without_token(CLEAN, "Delete old untagged versions", PUSHED, PUSH),
    without_token(CLEAN, "Draw the run", "        if: ${{ !cancelled() }}\n", PUSH, OWN_TOKEN),
    Mutation("the release is checked without a token", RELEASE,
             f"{step('Check and prepare the release')}        env:\n{TOKEN}",
             f"{step('Check and prepare the release')}        env:\n", TAG),
    Mutation("notify has no token", CLEAN, f"{OWN_TOKEN}          SLACK", "          SLACK"),
    Mutation("notify has no hook", CLEAN, "          SLACK_WEBHOOK_URL: ${{ secrets.SLACK_WEBHOOK_URL }}\n"),
    Mutation("a token stays in the clone", RELEASE, "persist-credentials: false, "),
    Mutation("submodules are left out", WHEELS, ", submodules: recursive"),
    Mutation("a branch is released", RELEASE, " && startsWith(github.ref, 'refs/tags/v')"),
    Mutation("a release without its wheels", RELEASE, " && needs.build-wheels.result == 'success'", event=TAG),
    Mutation("production from pull requests", PROD, "github.event_name != 'pull_request' && "),
    Mutation("production from every branch", PROD, "(github.ref == 'refs/heads/main' || startsWith(github.ref, 'refs/tags/v')) && ", event=DEVELOP),
    Mutation("production of an image that fails", PROD, " && (needs.test-docker-image.result == 'success' || inputs.force_build)"),
    Mutation("force_build does not build", BUILD, " || inputs.force_build", event=FORCE),
    Mutation("cleanup only after a success", CLEAN, "    if: ${{ !cancelled() || github.event_name != 'pull_request' }}\n", event=DEVELOP),
    Mutation("cleanup in pull requests", CLEAN, f"{step('Delete old untagged versions')}{PUSHED}", step("Delete old untagged versions"), PULL),
    Mutation("another image may be tested", TEST, 'nox -s "docker_test($TEST_TYPE)" -- --digest "$DIGEST"\n', 'nox -s "docker_test($TEST_TYPE)"\n'),
    Mutation("an archive of another digest may be tested", TEST, 'development.oci.tar --digest "$DIGEST"', "development.oci.tar", PULL),
    Mutation("the archive is not what is tested", TEST, "--archive dist/images/development.oci.tar ", "", PULL),
    Mutation("production is tested by its tag", PROD, ' --digest "$DIGEST"'),
    Mutation("no archive in pull requests", BUILD, " -- --output oci", event=PULL),
    Mutation("pull requests push", BUILD, f"        id: push\n{PUSHED}", "        id: push\n", PULL),
    Mutation("production is pushed before it is tested", PROD,
             f"{step('Test before its tags move')}        run: nox -s docker_test -- --image production\n"),
    Mutation("production is built only once it is pushed", PROD, " -- --no-push"),
    Mutation("assets are attested after they are seen", RELEASE, "        run: nox -s release -- \"$TAG\" --dry-run\n", "        run: nox -s release -- \"$TAG\"\n", TAG),
    Mutation("half of the assets are attested", RELEASE, "dist/release/*", "dist/release/*.whl", TAG),
    Mutation("a platform is missing", WHEELS, "          - { os: windows-latest, platform: windows, arch: x64, flavour: cpu }\n", event=TAG),
    Mutation("a test is missing", TEST, "[basic, import, help]", "[basic, import]"),
    Mutation("a tag reads caches of packages", "setup", TAGS, event=TAG),
    Mutation("a tag reads the cache of manifests", CLEAN, f"  {TAGS}", event=TAG),
    Mutation("a tag reads what was compiled", WHEELS, f"  {TAGS}", event=TAG),
    Mutation("the flavour is another", WHEELS, "FLAVOUR: ${{ matrix.flavour }}", "FLAVOUR: vulcan"),
    Mutation("settings of the repository are lost", "", "MLC_VARIABLES: ${{ toJSON(vars) }}", "MLC_VARIABLES: '[]'"),
    Mutation("a tag reads the cache of layers", "setup", " && !startsWith(github.ref, 'refs/tags/')", event=TAG),
    Mutation("no cache of layers is set up", "setup", "inputs.buildx == 'true' && ", "inputs.buildx == '1' && "),
    Mutation("images have no builder", PROD, ', buildx: "true"'),
    Mutation("a missing wheel is no error", WHEELS, "          if-no-files-found: error\n"),
    Mutation("more rights than a job needs", TEST, "packages: read", "packages: write"),
    Mutation("fewer rights than a job needs", CLEAN, "      packages: write # delete old untagged versions\n"),
    Mutation("every v starts a run", "", 'tags: ["v[0-9]+.[0-9]+.[0-9]+*"]', 'tags: ["v*"]', TAG),
    Mutation("a newer push ends the run of an older one", "",
             "cancel-in-progress: ${{ github.event_name == 'pull_request' }}", "cancel-in-progress: true"),
    Mutation("forks push to somebody else", "", "${{ github.repository }}", "afzaal0007/mlc-llm-pipeline"),
    Mutation("force_build is on by default", "", "default: false", "default: true", "manual"),
    Mutation("the plan is not tried first", LINT,
             f"{step('Plan, or refuse a tag that is not a version')}        run: nox -s plan\n"),
    Mutation("lint is not run", LINT, f"{step('Lint')}        run: nox -s lint\n", event=FORCE),
    Mutation("an action is not pinned by its commit", RELEASE, "actions/attest@1e69f48acb82d1966a394da916b4c1698aa569d6", "actions/attest@v4", TAG),
)  # fmt: skip


def drift(root: Path) -> str:
    """The linter or the test that notices what differs in a checkout, or empty."""
    for line in LINTERS:
        words = [str(Path(sys.executable).parent / line.split()[0]), *line.split()[1:]]
        if subprocess.run(words, cwd=root, capture_output=True, check=False).returncode:
            return words[0].rpartition("/")[2]
    words = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *DRIFT]
    done = subprocess.run(words, cwd=root, capture_output=True, text=True, check=False)
    failed = re.findall(r"^(?:FAILED|ERROR) (\S+)", done.stdout, re.MULTILINE)
    return failed[0] if failed else "" if done.returncode == 0 else "the tests do not start"


def on_the_runner(mutation: Mutation, folder: Path) -> str:
    """What the run of the workflow itself comes to notice, or empty."""
    case = next(one for one in CASES if one.title == mutation.event)
    try:
        check_event(case, folder, mutation.apply)
    except Exception as error:  # whatever it is: the test fails
        *_, last = traceback.extract_tb(error.__traceback__)
        return f"the run for {case.title}: {last.name}: {last.line or error}"
    return ""


def caught_by(mutation: Mutation, always_run: bool = False) -> str:
    """What notices a change first: linters, tests that read the workflow, the run of it."""
    with tempfile.TemporaryDirectory(prefix="mutation-") as name:
        copy = project.make(Path(name, "drift"))
        mutation.apply(copy.root)
        found = drift(copy.root)
        if found and not always_run:
            return found
        ran = on_the_runner(mutation, Path(name, "run"))
        return " + ".join(filter(None, [found, ran]))


def main() -> int:
    """Try all, or those whose names have one of the words; print the table."""
    words = [word for word in sys.argv[1:] if word != "--run"]
    chosen = [one for one in MUTATIONS if not words or any(word in one.name for word in words)]
    survived = 0
    for number, one in enumerate(chosen, 1):
        found = caught_by(one, "--run" in sys.argv)
        survived += not found
        print(f"| {number} | {one.name} | {found or 'NOTHING'} |", flush=True)
    print(f"{len(chosen) - survived} of {len(chosen)} were noticed")
    return int(survived > 0)


if __name__ == "__main__":
    sys.exit(main())
