"""Which environment and which command: each job of CI is a session here.

``nox --list`` shows them; ``nox -s NAME -- --help`` shows a session's own options. The
logic is in ``tools/``; nothing is imported here but nox and the standard library.
"""

from __future__ import annotations

import atexit
import hashlib
import os
import sys
from pathlib import Path

import nox
from nox.command import CommandFailed

nox.needs_version = ">=2026.10.20"
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.reuse_venv = "yes"
nox.options.error_on_missing_interpreters = True
nox.options.sessions = ["lint", "tests", "wheels"]

PYPROJECT = nox.project.load_toml("pyproject.toml")
# As tools/core/settings.py reads it: official Python images export the patch version, too.
PYTHON = ".".join(
    (
        os.environ.get("MLC_PYTHON_VERSION")
        or os.environ.get("PYTHON_VERSION")
        or str(PYPROJECT["tool"]["mlc-pipeline"]["python-version"])
    ).split(".")[:2]
)
IMAGE_TESTS = ("basic", "import", "help")
TESTED = [f"docker_test({name})" for name in IMAGE_TESTS]
CONSTRAINTS = Path("constraints.txt")
# Percent of lines and branches of what the tests run in their own processes; 94 were
# measured. Measuring children too took half as long again, for one percent more.
LEAST_COVERAGE = 92
# A package that cannot be looked up is not clean (--strict).
AUDITS = (
    "pip-audit --requirement constraints.txt --no-deps --disable-pip --strict",
    "bandit --quiet --recursive --configfile pyproject.toml --severity-level medium"
    " tools .ci docker noxfile.py",
    "zizmor --offline --no-progress --persona pedantic .github",
    "hadolint Dockerfile",
)
FAILURES: list[int | None] = []
# nox hands one set of arguments to every session of a run: with requires=, the tag of
# `nox -s release -- v1.0.0` would reach lint too. So CI's order applies where it is asked
# for: `MLC_IN_ORDER=1 nox -j 2 -s wheels`. A test compares it with the workflow's needs.
IN_ORDER = os.environ.get("MLC_IN_ORDER") == "1"


def after(*sessions: str) -> list[str]:
    """The sessions that CI runs before, where the order is asked for."""
    return list(sessions) if IN_ORDER else []


def prepare(session: nox.Session, group: str) -> None:
    """Install a dependency group at the versions of constraints.txt, unless it is there."""
    required = nox.project.dependency_groups(PYPROJECT, group)
    text = "\n".join([*required, CONSTRAINTS.read_text(encoding="utf-8")])
    stamp = Path(session.virtualenv.location) / "installed-group.txt"
    digest = hashlib.sha256(text.encode()).hexdigest()
    if stamp.exists() and stamp.read_text(encoding="utf-8") == digest:
        return
    # uv compiles only when told to; a start without compiled modules takes twice as long.
    compiled = {"UV_COMPILE_BYTECODE": "1"}
    session.install(*required, "--constraint", str(CONSTRAINTS), env=compiled)
    stamp.write_text(digest, encoding="utf-8")


def tool(session: nox.Session, group: str, name: str, *args: str) -> None:
    """Run ``python -m tools.<name>`` in an environment with a dependency group."""
    prepare(session, group)
    command = ["python", "-m", f"tools.{name}", *args, *session.posargs]
    try:
        # After Ctrl-C containers, logins and jobs are ended first, which takes its time.
        # nox joins the two streams unless told: --json has stdout for itself.
        session.run(*command, stderr=sys.stderr, interrupt_timeout=90.0, terminate_timeout=90.0)
    except CommandFailed as error:
        FAILURES.append(error.return_code)
        raise


@atexit.register
def exit_with_usage_error() -> None:
    """Exit with 2 if all that failed was usage or settings: nox itself knows only 1."""
    if FAILURES and set(FAILURES) == {2}:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(2)


@nox.session(python=PYTHON, allow_parallel=True)
def lint(session: nox.Session) -> None:
    """black, isort, flake8, mypy, import-linter, hadolint, zizmor, ...; --fix, --all."""
    tool(session, "lint", "lint")


@nox.session(python=PYTHON, allow_parallel=True)
def tests(session: nox.Session) -> None:
    """The test suite on all processors, with coverage; what follows -- goes to pytest."""
    prepare(session, "tests")
    # One more than there are processors: tests wait for builds, servers and the engine.
    workers = (os.cpu_count() or 1) + 1
    whole = [f"--numprocesses={workers}", "--dist=loadgroup", "--cov", "--cov-report=term"]
    whole.append("--cov-report=xml")
    if os.environ.get("CI"):
        # Only there nothing is skipped, so only there the floor means something.
        whole.append(f"--cov-fail-under={LEAST_COVERAGE}")
    session.run("python", "-m", "pytest", *(session.posargs or whole))


@nox.session(python=PYTHON, allow_parallel=True, requires=after("lint", *TESTED))
def wheels(session: nox.Session) -> None:
    """Build, repair, check and install-test the wheels into dist/."""
    tool(session, "wheels", "wheels")


@nox.session(python=PYTHON, default=False)
def bench(session: nox.Session) -> None:
    """Ratios against what one would run instead: all of bench/, or ``-- NAME ...``."""
    prepare(session, "bench")
    session.run("python", "-m", "bench", *session.posargs)


@nox.session(python=PYTHON, default=False, allow_parallel=True, requires=after("lint"))
def docker_dev(session: nox.Session) -> None:
    """Build the development image; push it where there is a login, else keep it here."""
    tool(session, "images", "images", "development")


@nox.session(python=PYTHON, default=False, allow_parallel=True, requires=after("docker_dev"))
@nox.parametrize("test_type", [nox.param(name, id=name) for name in IMAGE_TESTS])
def docker_test(session: nox.Session, test_type: str) -> None:
    """Test the image that was built: basic, import, help (-- --image production)."""
    tool(session, "images", "images.test", test_type)


@nox.session(
    python=PYTHON, default=False, allow_parallel=True, requires=after("wheels", *TESTED)
)
def prod_image(session: nox.Session) -> None:
    """Build the production image with the wheel of dist/; push it from main and tags."""
    tool(session, "images", "images", "production")


@nox.session(python=PYTHON, default=False)
def plan(session: nox.Session) -> None:
    """What an event would run, and why: --event, --ref, --pr, --failed, --json."""
    tool(session, "workflow", "workflow.plan")


@nox.session(python=PYTHON, default=False)
def pipeline(session: nox.Session) -> None:
    """Run the jobs that plan says run, as CI would; nothing is published, but --publish."""
    # The jobs are started with the nox that runs here, not with one of the session's.
    session.env["PIPELINE_PYTHON"] = sys.executable
    tool(session, "workflow", "workflow.local")


@nox.session(python=PYTHON, default=False, requires=after("wheels", "docker_dev"))
def release(session: nox.Session) -> None:
    """Publish a version: -- TAG [--dry-run]; checks, drafts, verifies."""
    tool(session, "release", "release")


@nox.session(python=PYTHON, default=False)
def doctor(session: nox.Session) -> None:
    """Find out what is wrong before it costs a run: --for SESSION, --json."""
    tool(session, "doctor", "doctor")


@nox.session(python=PYTHON, default=False)
def summary(session: nox.Session) -> None:
    """Draw the last run and the trends of past ones: step summary, dist/summary.html."""
    tool(session, "summary", "runs")


@nox.session(python=PYTHON, default=False)
def notify(session: nox.Session) -> None:
    """Tell Slack how the run went; does nothing without SLACK_WEBHOOK_URL."""
    tool(session, "summary", "runs.notify")


@nox.session(python=PYTHON, default=False)
def coverage(session: nox.Session) -> None:
    """Upload the coverage of the tests to Codecov; does nothing without CODECOV_TOKEN."""
    # The token and the commit it reads from the environment.
    command = ["codecovcli", "upload-process", "--disable-search", "--file=coverage.xml"]
    command += ["--flag=tests", "--fail-on-error"]
    if "--dry-run" in session.posargs:
        session.log(" ".join(command))
    elif not os.environ.get("CODECOV_TOKEN"):
        session.log("nothing to do: CODECOV_TOKEN is not set")
    else:
        prepare(session, "coverage")
        session.run(*command)


@nox.session(python=PYTHON, default=False)
def audit(session: nox.Session) -> None:
    """Known weaknesses: packages (pip-audit), code (bandit), workflows, Dockerfile."""
    prepare(session, "audit")
    failed = []
    for command in AUDITS:
        try:
            session.run(*command.split())
        except CommandFailed:
            failed.append(command.split()[0])
    if failed:
        session.error(f"not clean: {', '.join(failed)}")


@nox.session(python=PYTHON, default=False)
def sbom(session: nox.Session) -> None:
    """List what is in the production image: dist/production.cdx.json (CycloneDX)."""
    tool(session, "sbom", "images.sbom")


@nox.session(python=PYTHON, default=False)
def lock(session: nox.Session) -> None:
    """Add what is missing to constraints.txt, the one version of every package that all
    sessions use; ``-- --upgrade`` renews all.
    """
    session.install("uv")
    groups = [f"--group={name}" for name in PYPROJECT["dependency-groups"]]
    session.run(
        "uv", "pip", "compile", "--universal", "--quiet",
        f"--python-version={PYTHON}", "--no-emit-index-url", "--no-emit-find-links",
        "--no-annotate", "--no-header", *groups, "--output-file", str(CONSTRAINTS),
        *session.posargs,
    )  # fmt: skip


@nox.session(python=PYTHON, default=False, requires=after("release", "prod_image"))
def cleanup(session: nox.Session) -> None:
    """Delete old, untagged package versions; no tag loses a part (--dry-run shows which)."""
    tool(session, "cleanup", "cleanup")
