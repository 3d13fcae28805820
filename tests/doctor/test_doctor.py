"""The doctor: each problem provoked for real, recognised as itself and as nothing else."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time

import pytest

from tests.services import project as projects
from tests.services import releases
from tests.services.faults import Fault
from tests.services.gate import Gate, TokenServer
from tests.services.github import Answer, GitHubServer, Route, Token
from tests.services.project import Project
from tests.wheels.test_wheels_archive import make_wheel
from tools.core.errors import UsageError
from tools.core.settings import ROOT, load
from tools.doctor import __main__ as doctor
from tools.doctor.base import Check, DoctorCheck, Subject, examine

TOKEN = "ghp_doctor0123456789abcdef"
engine = pytest.mark.engine


def documented():
    """Check, sentence and remedy of every row of docs/troubleshooting.md."""
    text = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (.+?) \| (.+?) \| (.+?) \|$", text, re.MULTILINE)
    return [row for row in rows if row[0] not in {"check", "---"}]


def is_documented(result):
    """Whether the document has the sentence and the remedy under the check's name."""

    def fits(pattern, text):
        regex = ".*".join(re.escape(part) for part in pattern.split("…"))
        return re.fullmatch(regex, text, re.DOTALL) is not None

    return any(
        name in {result.name, "any"}
        and fits(sentence, result.sentence)
        and fits(remedy, result.remedy)
        for name, sentence, remedy in documented()
    )


def test_the_document_describes_every_check_and_no_other():
    """A check that is new has a row, one that was renamed or removed leaves none behind."""
    known = {check.name for check in doctor.CHECKS} | {"any"}
    assert {name for name, _, _ in documented()} == known


def get_repository(call):
    """``GET /repos/{owner}/{repo}``, cut down: what the token may do."""
    allowed = {"pull": True, "push": bool(call.token and call.token.may("contents", "write"))}
    return Answer(200, {"full_name": "owner/name", "permissions": allowed})


@pytest.fixture
def github(tmp_path):
    """A simulated GitHub that knows the repository and one sound token."""
    route = Route("GET", "/repos/{owner}/{repo}", "repos/get", get_repository)
    with GitHubServer(tmp_path / "github", [route, *releases.ROUTES]) as server:
        server.add_repository("owner/name")
        server.add_token(TOKEN)
        yield server
        assert server.errors == []


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    """A checkout of this project, copied for each test."""
    folder = tmp_path_factory.mktemp("template") / "project"
    folder.mkdir()
    projects.make(folder)
    return folder


class Patient:
    """A machine where nothing is wrong: a checkout, and an environment."""

    def __init__(self, root, env):
        self.root, self.env, self.project = root, env, Project(root)

    def look(self, *sessions):
        """All results by name, of a doctor that looks at what these sessions need (or all)."""
        subject = Subject(self.root, self.env, load(self.env, self.root), frozenset(sessions))
        return {result.name: result for result in examine(doctor.needed(sessions), subject)}

    def bad(self, *sessions):
        """The checks that are not content, each of them documented."""
        results = self.look(*sessions).values()
        found = [one for one in results if one.status in {"problem", "warning"}]
        assert all(map(is_documented, found)), f"docs/troubleshooting.md lacks one: {found}"
        return {one.name: one for one in found}

    def only(self, name, said, *sessions, status="problem"):
        """The result of the one check that is not content."""
        found = self.bad(*sessions)
        assert set(found) == {name} and found[name].status == status, found
        assert re.search(said, found[name].sentence), found
        return found[name]


@pytest.fixture
def patient(template, tmp_path, github, registry):
    """One of its own for a test."""
    shutil.copytree(template, tmp_path / "project", symlinks=True)
    kept = {"PATH", "HOME", "DOCKER_HOST", "DOCKER_CONFIG", "BUILDX_BUILDER", "BUILDX_CONFIG"}
    env = {name: value for name, value in os.environ.items() if name in kept}
    env |= {
        "GITHUB_API_URL": github.url, "GITHUB_REPOSITORY": "owner/name", "GH_TOKEN": TOKEN,
        "REGISTRY": registry.address, "DISK_NEEDED": "100 MB",
        "BASE_IMAGE": os.environ.get("BASE_IMAGE", "python:3.11-slim-bookworm"),
    }  # fmt: skip
    return Patient(tmp_path / "project", env)


@engine
def test_a_healthy_machine(patient):
    """Nothing is wrong, all is looked at, in the order of the list."""
    results = patient.look()
    assert list(results) == [check.name for check in doctor.CHECKS]
    skipped = {name for name, result in results.items() if result.status != "ok"}
    assert skipped == {"docker hub", "release"}


@engine
@pytest.mark.parametrize(
    ("variable", "value", "check", "said"),
    [
        ("DISK_NEEDED", "999999 GB", "disk space", r"Only .* are free in /tmp"),
        ("BUILDX_BUILDER", "no-such-builder", "builder", "no-such-builder cannot be used"),
        ("REGISTRY", "127.0.0.1:9", "registry", "cannot be reached"),
        ("GITHUB_API_URL", "http://127.0.0.1:9", "github token", "did not respond"),
    ],
)
def test_one_thing_is_wrong(patient, variable, value, check, said):
    """Its check alone is not content."""
    patient.env |= {"TMPDIR": "/tmp", variable: value}
    patient.only(check, said)


def programs(folder, **scripts):
    """A PATH on which these programs are scripts."""
    folder.mkdir()
    for name, script in scripts.items():
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)
    return str(folder)


def test_no_checkout(patient, tmp_path, monkeypatch):
    """A folder without git's, and a machine without git."""
    Patient(tmp_path, patient.env).only("clone", "is not a git checkout", "plan")
    monkeypatch.setenv("PATH", programs(tmp_path / "bin"))
    patient.only("clone", "git was not found", "plan")


def test_tags_of_the_commit(patient):
    """What a push of each would give; a warning where its run would only fail."""
    for tag in ("v1.2.3", "v1.2", "v10", "vnext"):
        patient.project.git("tag", tag)
    found = patient.look("plan")["tags of the commit"]
    says = "v1.2.3 gives a release; v1.2 gives nothing; v10 gives nothing; vnext gives nothing"
    assert (found.status, sorted(found.sentence.split("; "))) == (
        "ok",
        sorted(says.split("; ")),
    )
    patient.project.git("tag", "v1.2.3+build5")
    said = re.escape("v1.2.3+build5 on this commit: not a version")
    patient.only("tags of the commit", said, "plan", status="warning")


def test_shallow_clones(patient, tmp_path):
    """One that can ask its origin is a warning, one that cannot is a problem."""
    patient.project.commit("a second commit")
    origin, folder = patient.root.as_uri(), tmp_path / "shallow"
    patient.project.git("clone", "--quiet", "--depth=1", origin, str(folder))
    shallow = Patient(folder, patient.env)
    shallow.only("clone", "counted wrongly", "plan", status="warning")
    shallow.project.git("remote", "set-url", "origin", (tmp_path / "gone").as_uri())
    shallow.only("clone", "origin could not be asked", "plan")


INFO = r"printf '29\nnull\n%s\n'"


@pytest.mark.parametrize(
    ("script", "check", "said", "status"),
    [
        (None, "docker engine", "docker was not found", "problem"),
        ("echo permission denied >&2", "docker engine", "refuses this user", "problem"),
        ("echo cannot connect >&2", "docker engine", "No Docker engine answers", "problem"),
        (INFO % "", "docker engine", "buildx plugin is missing", "problem"),
        (INFO % "0.9.1", "docker engine", "0.9.1, too old", "problem"),
        (
            f'[ "$2" = inspect ] && echo "Driver: docker" || {INFO % "0.13.1"}',
            "builder", "provenance is attested", "warning",
        ),
    ],
)  # fmt: skip
def test_engines(patient, tmp_path, script, check, said, status):
    """What docker says is understood as the images' session does; the rest is skipped."""
    scripts = {"docker": script} if script else {}
    patient.env["PATH"] = programs(tmp_path / "bin", **scripts)
    patient.only(check, said, "docker_dev", status=status)


def assert_same_words(patient, check, session, *command):
    """The check alone has a problem, whose sentence and remedy end the real session, too."""
    found = patient.only(check, "", session)
    done = subprocess.run(
        [sys.executable, "-m", *command], cwd=patient.root, env={**os.environ, **patient.env},
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode in {1, 2}, done.stderr
    assert found.sentence in done.stderr and found.remedy in done.stderr
    return found


DOCKER_DEV = ("docker_dev", "tools.images", "development")


@engine
def test_what_cannot_be_built(patient):
    """A base image that neither the engine nor a registry has, and too large a context."""
    base = f"{patient.env['REGISTRY']}/none/such:1"
    missing = Patient(patient.root, patient.env | {"BASE_IMAGE": base})
    found = assert_same_words(missing, "base image", *DOCKER_DEV, "--no-push")
    assert "none/such:1" in found.sentence and "not found" in found.detail
    (patient.root / "package" / "large.bin").write_bytes(b"x" * 3_000_000)
    patient.env["CONTEXT_LIMIT"] = "2 MB"
    found = assert_same_words(patient, "build context", *DOCKER_DEV, "--no-push")
    assert "package/large.bin" in found.detail.splitlines()[0]


def push(patient, ref, sha):
    """Make it the machine of a push."""
    patient.env |= {"GITHUB_EVENT_NAME": "push", "GITHUB_REF": ref, "GITHUB_SHA": sha}


@engine
def test_registry_refuses_the_login(patient, login_registry):
    """A token that GitHub takes but the registry does not."""
    push(patient, "refs/heads/main", patient.project.git("rev-parse", "HEAD"))
    patient.env["REGISTRY"] = login_registry.address
    assert_same_words(patient, "registry", *DOCKER_DEV)


def test_release(patient, github):
    """No version; not there; another commit; no wheel; and what is wrong with those there."""
    patient.project.git("tag", "v1.0.0")
    sha, dist = patient.project.commit("one more"), patient.root / "dist"
    patient.project.git("tag", "v1.2.3")
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
        push(patient, f"refs/tags/{tag}", sha)
        if said:
            patient.only("release", said, "release")
        else:
            assert patient.bad("release") == {}
        next(dist.glob("*.whl")).unlink()
    assert_same_words(patient, "release", "release", "tools.release", "v1.2.3")


def test_no_token(patient, login_registry):
    """A problem for who wants to release; else images are kept here, which is said."""
    patient.env |= {"REGISTRY": login_registry.address, "GH_TOKEN": ""}
    for session, status in (("cleanup", "problem"), ("docker_dev", "warning")):
        found = patient.bad(session)
        assert found["github token"].status == status
        assert "GH_TOKEN is not set" in found["github token"].sentence
        assert found["registry"].status == "warning"


@pytest.mark.parametrize("jwt", [True, False])
def test_no_right_to_push(patient, registry, jwt):
    """A token server that grants pull alone, with tokens that say so and opaque ones."""
    with Gate(registry.url, TokenServer("owner", TOKEN, frozenset({"pull"}), jwt)) as gate:
        patient.env |= {"REGISTRY": gate.address, "GITHUB_ACTOR": "owner"}
        patient.only("registry", "does not let this token write packages", "cleanup")


def test_docker_hub(patient, login_registry):
    """Half a login, one that is accepted, and one that is refused."""
    for name, value in (
        ("DOCKER_HUB_USERNAME", login_registry.user),
        ("DOCKER_HUB_TOKEN", login_registry.password),
    ):
        half = Patient(patient.root, patient.env | {name: value})
        half.only("docker hub", "is missing", "cleanup")
    patient.env |= half.env | {"DOCKER_HUB_USERNAME": login_registry.user}
    patient.env["DOCKER_HUB_REGISTRY"] = login_registry.address
    assert patient.bad("cleanup") == {}
    patient.env["DOCKER_HUB_TOKEN"] = "wrong-password"
    patient.only("docker hub", "refused the login", "cleanup")


def test_tokens(patient, github):
    """Unknown, expired, about to expire, and good for a month."""
    said, scopes = "does not accept the token", ("repo", "write:packages", "delete:packages")
    other = Patient(patient.root, patient.env | {"GH_TOKEN": "ghp_another0123456789"})
    other.only("github token", said, "cleanup")
    for days, text, status in ((-1, said, "problem"), (3, "in 3 days", "warning")):
        github.add_token(TOKEN, Token(scopes=scopes, expires=time.time() + days * 86400 + 60))
        patient.only("github token", text, "cleanup", status=status)
    github.add_token(TOKEN, Token(scopes=scopes, expires=time.time() + 30 * 86400))
    assert patient.bad("cleanup") == {}


CLASSIC = ("repo", "write:packages", "delete:packages")
READS, WRITES = {"contents": "read"}, {"contents": "write"}


@pytest.mark.parametrize(
    ("token", "session", "said"),
    [
        # Only what the session needs is missed, and what there is is named.
        (Token(scopes=CLASSIC[:1]), "pipeline", "write:packages"),
        (Token(scopes=CLASSIC[1:]), "release", "public_repo or repo"),
        (Token(scopes=CLASSIC[:2]), "cleanup", "delete:packages"),
        (Token(scopes=()), "release", r"\(it has: none\)"),
        (Token(scopes=CLASSIC), "cleanup", ""),
        # Tokens that have permissions instead of scopes: GitHub tells of contents.
        (
            Token(kind="fine-grained", permissions=READS),
            "cleanup",
            "may not write to owner/name",
        ),
        (
            Token(kind="installation", permissions=READS),
            "cleanup",
            "may not write to owner/name",
        ),
        (Token(kind="fine-grained", permissions=WRITES), "cleanup", ""),
        (Token(kind="installation", permissions=WRITES), "cleanup", ""),
    ],
)
def test_rights(patient, github, token, session, said):
    """A token may do what the session needs, or it is said what it lacks."""
    github.add_token(TOKEN, token)
    found = patient.bad(session)
    assert re.search(said, found["github token"].sentence) if said else found == {}


def test_what_becomes_of_a_check():
    """A session's error keeps its words, and is one problem however many checks meet it; a
    check that breaks, or hangs, is its own. All run at the same time.
    """
    meeting, release = threading.Barrier(2, timeout=5), threading.Event()

    def refused(_subject):
        raise UsageError("It is so.", "Do this.", "a line")

    def broken(_subject):
        raise KeyError("surprise")

    def met(_subject):
        return f"met {meeting.wait() >= 0}"

    def hanging(_subject):
        return f"too late {release.wait()}"

    work = (refused, refused, broken, met, met, hanging)
    checks = [Check(f"{n}", check, frozenset()) for n, check in enumerate(work)]
    try:
        found = examine(checks, Subject(ROOT, {}, load({})), seconds=0.2)
    finally:
        release.set()
    assert found[0] == DoctorCheck("0", "problem", "It is so.", "Do this.", "a line")
    assert found[1].sentence == "Not checked, because of the problem with 0."
    assert found[2].sentence == "The check itself broke: KeyError: 'surprise'."
    assert found[3:5] == [DoctorCheck(n, "ok", "met True") for n in "34"]
    assert found[5].status == "problem" and all(map(is_documented, (found[2], found[5])))


@engine
def test_services_that_never_answer(patient, github):
    """The whole takes seconds, whatever the servers do."""
    github.faults.script.append(Fault("stall-before", nth=0))
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(64)
        silent = f"127.0.0.1:{listening.getsockname()[1]}"
        env = patient.env | {
            "REGISTRY": silent, "DOCKER_HUB_REGISTRY": silent, "DOCKER_HUB_USERNAME": "someone",
            "DOCKER_HUB_TOKEN": "some-token", "BASE_IMAGE": f"{silent}/a:1",
        }  # fmt: skip
        subject = Subject(patient.root, env, load(env), timeout=1)
        started = time.monotonic()
        results = {result.name: result for result in examine(doctor.CHECKS, subject, 2)}
        assert time.monotonic() - started < 6
    silent_ones = {one.name for one in results.values() if one.status == "problem"}
    assert silent_ones == {"registry", "github token", "base image"}
    assert all(is_documented(results[name]) for name in silent_ones)
    assert results["docker hub"].sentence.endswith("the problem with registry.")


def run_doctor(*arguments, env):
    """The real command."""
    command = [sys.executable, "-m", "tools.doctor", *arguments]
    return subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True)


def test_the_command(patient, github):
    """JSON alone on stdout, the table on stderr, 0 without and 1 with a problem, no secret."""
    done = run_doctor("--for", "release", "--json", env=patient.env)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["problems"] == 0
    assert {"name", "status", "sentence", "remedy"} <= set(found["checks"][0])
    assert "github token" in done.stderr and TOKEN not in done.stderr + done.stdout
    github.add_token(TOKEN, Token(scopes=()))
    env = patient.env | {"GITHUB_ACTIONS": "true"}
    done = run_doctor("--for", "release", "--json", "--debug", env=env)
    assert done.returncode == 1 and json.loads(done.stdout)["problems"] == 1
    assert "::error::github token: The token lacks" in done.stderr
    assert "what to do: Add it in GitHub's settings" in done.stderr
    assert TOKEN not in done.stderr + done.stdout


def test_usage_errors(capsys, monkeypatch):
    """An unknown session and a wrong setting: exit code 2, in the words of every session."""
    assert doctor.main(["--for", "nonsense"]) == 2
    assert re.search(r"invalid choice: 'nonsense' .*docker_dev", capsys.readouterr().err)
    monkeypatch.setenv("REGISTRY", "https://ghcr.io")
    assert doctor.main([]) == 2
    assert "The setting REGISTRY" in capsys.readouterr().err


def test_a_session_gets_what_it_needs():
    """cleanup does not ask for an engine, and all sessions exist."""
    names = [check.name for check in doctor.needed(["cleanup", "docker_test"])]
    assert names == ["docker engine", "registry", "docker hub", "github token"]
    noxfile = (ROOT / "noxfile.py").read_text(encoding="utf-8")
    assert all(f"def {session}(session" in noxfile for session in doctor.SESSIONS)
