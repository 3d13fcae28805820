"""The doctor: each problem provoked for real, recognised as itself and as nothing else."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from tests.services import project as projects
from tests.services import releases
from tests.services.faults import Fault
from tests.services.gate import Gate, TokenServer
from tests.services.github import Answer, Call, GitHubServer, Route, Token
from tests.services.project import Project
from tests.services.registry import Registry
from tests.wheels.test_wheels_archive import make_wheel
from tools.core.errors import PipelineError, UsageError
from tools.core.settings import ROOT
from tools.doctor import __main__ as doctor
from tools.doctor.base import Check, DoctorCheck, Subject, examine

TOKEN = "ghp_doctor0123456789abcdef"
DOCUMENT = ROOT / "docs" / "troubleshooting.md"
IS_ROOT = hasattr(os, "geteuid") and os.geteuid() == 0
needs_root = pytest.mark.skipif(not IS_ROOT, reason="mounts and other users need root")
Env = dict[str, str]


# --- what the document says ----------------------------------------------------


def documented() -> list[tuple[str, str, str]]:
    """Check, sentence and remedy of every row of docs/troubleshooting.md."""
    text = DOCUMENT.read_text(encoding="utf-8")
    rows = re.findall(r"^\| (.+?) \| (.+?) \| (.+?) \|$", text, re.MULTILINE)
    return [row for row in rows if row[0] not in {"check", "---"}]


def is_documented(result: DoctorCheck) -> bool:
    """Whether the document has the sentence and the remedy under the check's name."""

    def fits(pattern: str, text: str) -> bool:
        regex = ".*".join(re.escape(part) for part in pattern.split("…"))
        return re.fullmatch(regex, text, re.DOTALL) is not None

    return any(
        (result.name in names.split(", ") or names == "any")
        and fits(sentence, result.sentence)
        and fits(remedy, result.remedy)
        for names, sentence, remedy in documented()
    )


def test_the_document_describes_every_check_and_no_other() -> None:
    """A check that is new has a row, one that was renamed or removed leaves none behind."""
    known = {check.name for check in doctor.CHECKS} | {"any"}
    described = {name for names, _, _ in documented() for name in names.split(", ")}
    assert described == known


# --- a healthy machine ---------------------------------------------------------


def get_repository(call: Call) -> Answer:
    """``GET /repos/{owner}/{repo}``, cut down: what the token may do."""
    allowed = {"pull": True, "push": bool(call.token and call.token.may("contents", "write"))}
    return Answer(200, {"full_name": "owner/name", "permissions": allowed})


@pytest.fixture
def github(tmp_path: Path) -> Iterator[GitHubServer]:
    """A simulated GitHub that knows the repository and one sound token."""
    route = Route("GET", "/repos/{owner}/{repo}", "repos/get", get_repository)
    with GitHubServer(tmp_path / "github", [route, *releases.ROUTES]) as server:
        server.add_repository("owner/name")
        server.add_token(TOKEN)
        yield server
        assert server.errors == []


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout of this project, copied for each test."""
    folder = tmp_path_factory.mktemp("template") / "project"
    folder.mkdir()
    projects.make(folder)
    return folder


@pytest.fixture
def checkout(template: Path, tmp_path: Path) -> Project:
    """A checkout of its own for a test."""
    folder = tmp_path / "project"
    shutil.copytree(template, folder, symlinks=True)
    return Project(folder)


@pytest.fixture
def env(github: GitHubServer, registry: Registry) -> Env:
    """The environment of a machine where nothing is wrong."""
    kept = {k: v for k, v in os.environ.items() if k in {"PATH", "HOME", "DOCKER_HOST"}}
    return kept | {
        "GITHUB_API_URL": github.url,
        "GITHUB_REPOSITORY": "owner/name",
        "GH_TOKEN": TOKEN,
        "REGISTRY": registry.address,
        "BASE_IMAGE": os.environ.get("BASE_IMAGE", "python:3.11-slim-bookworm"),
        "DISK_NEEDED": "100 MB",
    }


def look(root: Path, env: Mapping[str, str], *sessions: str) -> dict[str, DoctorCheck]:
    """All results by name, of a doctor that looks at what these sessions need (or all)."""
    names, checks = doctor.select(sessions)
    return {r.name: r for r in examine(checks, Subject(root, env, names))}


def bad(results: Mapping[str, DoctorCheck]) -> dict[str, str]:
    """The checks that are not content."""
    wrong = {"problem", "warning"}
    return {name: r.status for name, r in results.items() if r.status in wrong}


def only(
    root: Path, env: Mapping[str, str], name: str, said: str, *sessions: str,
    status: str = "problem",
) -> DoctorCheck:  # fmt: skip
    """The result of the one check that is not content, and that the document describes."""
    results = look(root, env, *sessions)
    assert bad(results) == {name: status}, results
    found = results[name]
    assert re.search(said, found.sentence), found
    assert is_documented(found), f"docs/troubleshooting.md lacks: {found}"
    return found


@pytest.mark.engine
def test_a_healthy_machine(checkout: Project, env: Env) -> None:
    """Nothing is wrong, all is looked at, in the order of the list."""
    results = look(checkout.root, env)
    assert bad(results) == {}
    assert list(results) == [check.name for check in doctor.CHECKS]
    skipped = {name for name, result in results.items() if result.status == "skipped"}
    assert skipped == {"docker hub", "release"}


# --- the machine ----------------------------------------------------------------


def programs(folder: Path, **scripts: str) -> str:
    """A PATH on which these programs are scripts."""
    folder.mkdir()
    for name, script in scripts.items():
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)
    return str(folder)


def test_no_git(
    checkout: Project, env: Env, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What needs it is not checked, instead of failing in its own way."""
    monkeypatch.setenv("PATH", programs(tmp_path / "bin"))
    only(checkout.root, env, "git", "git was not found", "lint")
    result = look(checkout.root, env, "lint")["event"]
    assert result.sentence == "Not checked, because of the problem with git."


@pytest.mark.parametrize(
    ("name", "value", "check", "said"),
    [
        ("REGISTRY", "https://ghcr.io", "settings", "The setting REGISTRY"),
        ("GITHUB_EVENT_NAME", "schedule", "event", "does not trigger"),
    ],
)
def test_bad_variables(
    checkout: Project, env: Env, name: str, value: str, check: str, said: str
) -> None:
    """Each wrong variable is one problem, of the first check that needs it."""
    only(
        checkout.root, env | {name: value, "GITHUB_REF": "refs/heads/main"}, check, said, "lint"
    )


@needs_root
def test_a_full_disk(checkout: Project, env: Env, tmp_path: Path) -> None:
    """A temporary folder on a tmpfs of one megabyte."""
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(small)], check=True)
    try:
        env["TMPDIR"] = str(small)
        only(checkout.root, env, "disk space", r"Only .* are free in .*small", "wheels")
    finally:
        subprocess.run(["umount", str(small)], check=True)


def test_shallow_clones(checkout: Project, env: Env, tmp_path: Path) -> None:
    """One that can ask its origin is a warning, one that cannot is a problem."""
    checkout.commit("a second commit")
    folder = tmp_path / "shallow"
    checkout.git("clone", "--quiet", "--depth=1", checkout.root.as_uri(), str(folder))
    only(folder, env, "clone", "counted wrongly", "plan", status="warning")
    Project(folder).git("remote", "set-url", "origin", (tmp_path / "gone").as_uri())
    only(folder, env, "clone", "origin could not be asked", "plan")


def test_workflow(checkout: Project, env: Env) -> None:
    """A job that needs one that is not there, with its place."""
    path = checkout.root / ".github" / "workflows" / "ci-cd.yml"
    job = "  extra:\n    needs: no-such-job\n    runs-on: ubuntu-latest\n    steps: []\n"
    path.write_text(f"{path.read_text()}\n{job}")
    only(checkout.root, env, "workflow", r"ci-cd.yml:.*no-such-job", "plan")


# --- Docker ---------------------------------------------------------------------


INFO = r"printf '29\nnull\n%s\n'"


@pytest.mark.parametrize(
    ("script", "check", "said", "status"),
    [
        ("echo permission denied >&2", "docker engine", "refuses this user", "problem"),
        ("echo cannot connect >&2", "docker engine", "No Docker engine answers", "problem"),
        (INFO % "", "docker engine", "buildx plugin is missing", "problem"),
        (INFO % "0.9.1", "docker engine", "0.9.1, too old", "problem"),
        (
            f'[ $1 = info ] && {INFO % "0.13.1"} || echo "Driver: docker"',
            "builder", "cannot attest provenance", "warning",
        ),
    ],
)  # fmt: skip
def test_engines(
    checkout: Project, env: Env, tmp_path: Path, script: str, check: str, said: str, status: str
) -> None:
    """What docker says is understood as the images' session does; the rest is skipped."""
    env["PATH"] = f"{programs(tmp_path / 'bin', docker=script)}:{env['PATH']}"
    results = look(checkout.root, env, "docker_dev")
    assert results[check].status == status and said in results[check].sentence
    assert is_documented(results[check])
    if check == "docker engine":
        assert bad(results) == {check: status}
        assert results["dockerfile"].status == "skipped"


def test_no_docker(
    checkout: Project, env: Env, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the client there is no engine to ask."""
    git = f'exec {shutil.which("git")} "$@"'
    monkeypatch.setenv("PATH", programs(tmp_path / "bin", git=git))
    env["PATH"] = os.environ["PATH"]
    only(checkout.root, env, "docker engine", "docker was not found", "docker_dev")


@pytest.mark.engine
def test_builder_that_is_not_there(checkout: Project, env: Env) -> None:
    """BUILDX_BUILDER names nobody; the Dockerfile is not blamed for it."""
    env["BUILDX_BUILDER"] = "no-such-builder"
    only(checkout.root, env, "builder", "no-such-builder cannot be used")


@pytest.mark.engine
def test_no_dockerfile(checkout: Project, env: Env) -> None:
    """A folder that is not the project's."""
    (checkout.root / "Dockerfile").unlink()
    only(checkout.root, env, "dockerfile", "There is no Dockerfile")


# --- the same words in both places ---------------------------------------------


def assert_same_words(
    checkout: Project, env: Env, check: str, session: str, *command: str
) -> DoctorCheck:
    """The check alone has a problem, whose sentence and remedy end the real session, too."""
    found = only(checkout.root, env, check, "", session)
    done = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=checkout.root, env={**os.environ, **env}, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode in {1, 2}, done.stderr
    assert found.sentence in done.stderr and found.remedy in done.stderr
    return found


DOCKER_DEV = ("docker_dev", "tools.images", "development", "--no-push")


@pytest.mark.engine
def test_dockerfile_syntax(checkout: Project, env: Env) -> None:
    """A syntax error, found by BuildKit in both, with its line."""
    path = checkout.root / "Dockerfile"
    path.write_text(path.read_text().replace("WORKDIR", "WORKDIRR", 1))
    found = assert_same_words(checkout, env, "dockerfile", *DOCKER_DEV)
    assert re.match(r"Dockerfile, line \d+: unknown instruction", found.sentence)


@pytest.mark.engine
def test_base_image_that_is_not_there(checkout: Project, env: Env) -> None:
    """Neither the engine nor a registry that answers has it."""
    env["BASE_IMAGE"] = f"{env['REGISTRY']}/none/such:1"
    found = assert_same_words(checkout, env, "base image", *DOCKER_DEV)
    assert "none/such:1" in found.sentence and "not found" in found.detail


@pytest.mark.engine
def test_context_too_large(checkout: Project, env: Env) -> None:
    """The largest entries are named."""
    (checkout.root / "package" / "large.bin").write_bytes(b"x" * 3_000_000)
    env["CONTEXT_LIMIT"] = "2 MB"
    found = assert_same_words(checkout, env, "build context", *DOCKER_DEV)
    assert "package/large.bin" in found.detail.splitlines()[0]


@pytest.mark.engine
def test_registry_refuses_the_login(
    checkout: Project, env: Env, login_registry: Registry
) -> None:
    """A token that GitHub takes but the registry does not."""
    env |= {"REGISTRY": login_registry.address, "GITHUB_REF": "refs/heads/main"}
    env |= {"GITHUB_EVENT_NAME": "push", "GITHUB_SHA": checkout.git("rev-parse", "HEAD")}
    command = ("tools.images", "development")
    assert_same_words(checkout, env, "registry login", "docker_dev", *command)


def tagged(checkout: Project, env: Env, tag: str) -> Env:
    """The environment of a push of a tag at the checked-out commit."""
    sha = checkout.git("rev-parse", "HEAD")
    return env | {
        "GITHUB_EVENT_NAME": "push", "GITHUB_REF": f"refs/tags/{tag}", "GITHUB_SHA": sha
    }  # fmt: skip


def test_release(checkout: Project, env: Env, github: GitHubServer) -> None:
    """No version; not there; another commit; no wheel; and what is wrong with those there."""
    checkout.git("tag", "v1.0.0")
    checkout.commit("one more")
    checkout.git("tag", "v1.2.3")
    dist, sha = checkout.root / "dist", checkout.git("rev-parse", "HEAD")
    dist.mkdir()
    github.add_repository("owner/name", {"v9.9.9": sha, "v1.0.0": sha, "v1.2.3": sha})
    for tag, version, platform, said in (
        ("nightly", "1.2.3", "any", "is not a version"),
        ("v9.9.9", "9.9.9", "any", "does not exist in this clone"),
        ("v1.0.0", "1.0.0", "any", "points at"),
        ("v1.2.3", "1.2.2", "any", "has version 1.2.2, not 1.2.3"),
        ("v1.2.3", "1.2.3", "manylinux_2_17_x86_64", "serves windows-x64"),
        ("v1.2.3", "1.2.3", "any", ""),
    ):
        make_wheel(dist, version=version, tag=f"py3-none-{platform}")
        env |= {
            "GITHUB_EVENT_NAME": "push",
            "GITHUB_REF": f"refs/tags/{tag}",
            "GITHUB_SHA": sha,
        }
        if said:
            only(checkout.root, env, "release", said, "release")
        else:
            assert bad(look(checkout.root, env, "release")) == {}
        next(dist.glob("*.whl")).unlink()
    assert_same_words(checkout, env, "release", "release", "tools.release", "v1.2.3")


# --- registries -----------------------------------------------------------------


def closed_port() -> int:
    """A port on loopback that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.engine
def test_registry_down(checkout: Project, env: Env) -> None:
    """Nothing answers at its address."""
    env["REGISTRY"] = f"127.0.0.1:{closed_port()}"
    only(checkout.root, env, "registry login", "cannot be reached")


def test_registry_without_login(checkout: Project, env: Env, login_registry: Registry) -> None:
    """No token: images are kept here, which is no problem, but said."""
    env |= {"REGISTRY": login_registry.address, "GH_TOKEN": ""}
    results = look(checkout.root, env, "cleanup")
    assert bad(results) == {"registry login": "warning", "github token": "problem"}
    assert all(is_documented(results[name]) for name in bad(results))
    assert results["push right"].status == "skipped"


@pytest.mark.parametrize("jwt", [True, False])
def test_no_right_to_push(checkout: Project, env: Env, registry: Registry, jwt: bool) -> None:
    """A token server that grants pull alone, with tokens that say so and opaque ones."""
    grants = frozenset({"pull"})
    with Gate(registry.url, TokenServer("owner", TOKEN, grants, jwt)) as gate:
        env |= {"REGISTRY": gate.address, "GITHUB_ACTOR": "owner"}
        said = "does not let this token write packages"
        only(checkout.root, env, "push right", said, "cleanup")


def test_docker_hub(checkout: Project, env: Env, login_registry: Registry) -> None:
    """Half a login, one that is refused, and one that is accepted."""
    halves = {
        "DOCKER_HUB_USERNAME": login_registry.user, "DOCKER_HUB_TOKEN": login_registry.password
    }  # fmt: skip
    for missing in halves:
        half = {name: value for name, value in halves.items() if name != missing}
        said = f"{missing} is missing"
        only(checkout.root, env | half, "docker hub", said, "cleanup")
    env |= {"DOCKER_HUB_REGISTRY": login_registry.address, **halves}
    assert bad(look(checkout.root, env, "cleanup")) == {}
    env["DOCKER_HUB_TOKEN"] = "wrong-password"
    only(checkout.root, env, "docker hub", "refused the login", "cleanup")


# --- GitHub ---------------------------------------------------------------------


@pytest.mark.engine
def test_no_token(checkout: Project, env: Env) -> None:
    """A problem for who wants to release, a warning for everybody else."""
    del env["GH_TOKEN"]
    only(checkout.root, env, "github token", "GH_TOKEN is not set", "cleanup")
    only(checkout.root, env, "github token", "is not set", "docker_dev", status="warning")


def test_tokens(checkout: Project, env: Env, github: GitHubServer) -> None:
    """Unknown, expired, about to expire, and good for a month; the API down."""
    scopes = ("repo", "write:packages", "delete:packages")
    other, said = env | {"GH_TOKEN": "ghp_another0123456789"}, "does not accept the token"
    only(checkout.root, other, "github token", said, "cleanup")
    for days, text in ((-1, said), (3, "in 3 days"), (30, "")):
        github.add_token(TOKEN, Token(scopes=scopes, expires=time.time() + days * 86400 + 60))
        if text:
            status = "problem" if days < 0 else "warning"
            only(checkout.root, env, "github token", text, "cleanup", status=status)
    assert bad(look(checkout.root, env, "cleanup")) == {}
    env["GITHUB_API_URL"] = f"http://127.0.0.1:{closed_port()}"
    only(checkout.root, env, "github token", "did not respond", "cleanup")


@pytest.mark.parametrize(
    ("scopes", "session", "missing"),
    [
        (("repo",), "pipeline", "write:packages"),
        (("write:packages", "delete:packages"), "release", "public_repo or repo"),
        (("repo", "write:packages"), "cleanup", "delete:packages"),
        ((), "release", r"\(it has: none\)"),
    ],
)
def test_token_without_a_scope(
    checkout: Project, env: Env, github: GitHubServer,
    scopes: tuple[str, ...], session: str, missing: str,
) -> None:  # fmt: skip
    """Only what the session needs is missed, and what there is is named."""
    github.add_token(TOKEN, Token(scopes=scopes))
    found = look(checkout.root, env, session)["token rights"]
    assert found.status == "problem" and re.search(missing, found.sentence)
    assert is_documented(found)


@pytest.mark.parametrize("kind", ["fine-grained", "installation"])
def test_token_without_a_permission(
    checkout: Project, env: Env, github: GitHubServer, kind: str
) -> None:
    """Tokens that have permissions instead of scopes: GitHub tells of contents."""
    github.add_token(TOKEN, Token(kind=kind, permissions={"contents": "read"}))
    only(checkout.root, env, "token rights", "may not write to owner/name", "cleanup")
    github.add_token(TOKEN, Token(kind=kind, permissions={"contents": "write"}))
    assert bad(look(checkout.root, env, "cleanup")) == {}


# --- the doctor itself ----------------------------------------------------------


def run(*checks: Callable[[Subject], str], seconds: float = 15) -> list[DoctorCheck]:
    """The results of some functions as checks, named as they are."""
    named = [Check(check.__name__, check) for check in checks]
    return examine(named, Subject(ROOT, {}, seconds=seconds))


def test_errors() -> None:
    """A session's error keeps its words; a check that breaks is its own problem."""

    def refused(_subject: Subject) -> str:
        raise UsageError("It is so.", "Do this.", "a line")

    def broken(_subject: Subject) -> str:
        raise KeyError("surprise")

    def fine(_subject: Subject) -> str:
        return "All is well."

    found = run(refused, broken, fine)
    assert found[0] == DoctorCheck("refused", "problem", "It is so.", "Do this.", "a line")
    assert found[1].sentence == "The check itself broke: KeyError: 'surprise'."
    assert is_documented(found[1])
    assert found[2] == DoctorCheck("fine", "ok", "All is well.")


def test_a_shared_fact_is_found_out_once_and_has_one_problem() -> None:
    """However many checks ask for it; two facts that fail alike are two problems."""
    asked: list[str] = []

    def fact(_subject: Subject) -> str:
        asked.append("once")
        raise PipelineError("It is so.")

    def first(subject: Subject) -> str:
        return subject.get(fact)

    def second(subject: Subject) -> str:
        return subject.get(fact)

    def alone(_subject: Subject) -> str:
        raise PipelineError("It is so.")

    found = run(first, second, alone)
    assert [result.status for result in found] == ["problem", "skipped", "problem"]
    assert found[1].sentence == "Not checked, because of the problem with first."
    assert asked == ["once"]


def test_checks_run_at_the_same_time_until_the_deadline() -> None:
    """Two that wait for each other both end; one that hangs is given up, and what waits for
    the same fact is skipped.
    """
    meeting, release = threading.Barrier(2, timeout=5), threading.Event()

    def met(_subject: Subject) -> str:
        return f"met {meeting.wait()}"

    def also_met(subject: Subject) -> str:
        return met(subject)

    def hanging(_subject: Subject) -> str:
        return f"too late {release.wait()}"

    def fact(_subject: Subject) -> str:
        return f"too late {release.wait()}"

    def asks(subject: Subject) -> str:
        return subject.get(fact)

    def asks_too(subject: Subject) -> str:
        return subject.get(fact)

    try:
        found = run(met, also_met, hanging, asks, asks_too, seconds=0.2)
    finally:
        release.set()
    statuses = [result.status for result in found]
    assert statuses == ["ok", "ok", "problem", "problem", "skipped"]
    assert is_documented(found[2]) and is_documented(found[3])
    assert found[4].sentence == "Not checked, because of the problem with asks."


@pytest.mark.engine
def test_services_that_never_answer(checkout: Project, env: Env, github: GitHubServer) -> None:
    """The whole takes seconds, whatever the servers do."""
    github.faults.script.append(Fault("stall-before", nth=0))
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(64)
        silent = f"127.0.0.1:{listening.getsockname()[1]}"
        env |= {
            "REGISTRY": silent, "DOCKER_HUB_REGISTRY": silent, "DOCKER_HUB_USERNAME": "someone",
            "DOCKER_HUB_TOKEN": "some-token", "BASE_IMAGE": f"{silent}/a:1",
        }  # fmt: skip
        names, checks = doctor.select([])
        started = time.monotonic()
        found = examine(checks, Subject(checkout.root, env, names, seconds=4))
        assert time.monotonic() - started < 8
    results = {result.name: result for result in found}
    silent_ones = {"registry login", "docker hub", "github token", "base image"}
    assert set(bad(results)) == silent_ones
    assert all(is_documented(results[name]) for name in silent_ones)


def run_doctor(*arguments: str, env: Env) -> subprocess.CompletedProcess[str]:
    """The real command."""
    command = [sys.executable, "-m", "tools.doctor", *arguments]
    return subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True)


def test_the_command(env: Env, github: GitHubServer) -> None:
    """JSON alone on stdout, the table on stderr, 0 without and 1 with a problem, no secret."""
    done = run_doctor("--for", "release", "--json", env=env)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["problems"] == 0
    assert {"name", "status", "sentence", "remedy"} <= set(found["checks"][0])
    assert "github token" in done.stderr and TOKEN not in done.stderr + done.stdout
    github.add_token(TOKEN, Token(scopes=()))
    env["GITHUB_ACTIONS"] = "true"
    done = run_doctor("--for", "release", "--json", "--debug", env=env)
    assert done.returncode == 1 and json.loads(done.stdout)["problems"] == 1
    assert "::error::token rights: The token lacks" in done.stderr
    assert "what to do: Add it in GitHub's settings" in done.stderr
    assert TOKEN not in done.stderr + done.stdout


def test_an_unknown_session(env: Env) -> None:
    """Exit code 2, and the sessions that there are."""
    done = run_doctor("--for", "nonsense", env=env)
    assert done.returncode == 2
    assert "There is no session nonsense" in done.stderr and "docker_dev" in done.stderr


def test_a_session_gets_what_it_needs() -> None:
    """lint does not ask for an engine, cleanup not for a Dockerfile; sessions exist."""

    def names(*sessions: str) -> set[str]:
        return {check.name for check in doctor.select(sessions)[1]}

    assert "docker engine" not in names("lint") and "git" in names("lint")
    assert "dockerfile" not in names("cleanup") and "token rights" in names("cleanup")
    assert {"docker engine", "dockerfile"} <= names("docker_dev")
    assert names("lint", "docker_dev") == names("docker_dev")
    assert names() == {check.name for check in doctor.CHECKS}
    every = {session for check in doctor.CHECKS for session in check.sessions}
    assert doctor.select([*sorted(every), "docker_test(test_type='basic')"])
