"""The doctor: each problem provoked for real, recognised as itself and as nothing else."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from email.utils import formatdate
from pathlib import Path

import pytest

from tests.services import project as projects
from tests.services import releases
from tests.services.faults import Fault
from tests.services.gate import Gate, TokenServer
from tests.services.github import Answer, Call, GitHubServer, Route, Token
from tests.services.project import Project
from tests.services.registry import Registry
from tools.core.errors import PipelineError, UsageError
from tools.core.settings import ROOT
from tools.doctor import __main__ as doctor
from tools.doctor.base import (
    Check,
    Result,
    Status,
    Subject,
    examine,
    not_applicable,
    ok,
    problem,
    select,
)
from tools.doctor.docker import split_reference
from tools.doctor.workflow import unpinned

TOKEN = "ghp_doctor0123456789abcdef"
DOCUMENT = ROOT / "docs" / "troubleshooting.md"
IS_ROOT = hasattr(os, "geteuid") and os.geteuid() == 0
needs_root = pytest.mark.skipif(not IS_ROOT, reason="mounts and other users need root")


# --- what the document says ----------------------------------------------------


def documented() -> list[tuple[str, str, str]]:
    """Check, sentence and remedy of every row of docs/troubleshooting.md."""
    text = DOCUMENT.read_text(encoding="utf-8")
    rows = re.findall(r"^\| (.+?) \| (.+?) \| (.+?) \|$", text, re.MULTILINE)
    return [row for row in rows if row[0] not in {"check", "---"}]


def fits(pattern: str, text: str) -> bool:
    """Whether a text is what the document says, ``…`` standing for anything."""
    regex = ".*".join(re.escape(part) for part in pattern.split("…"))
    return re.fullmatch(regex, text, re.DOTALL) is not None


def is_documented(result: Result) -> bool:
    """Whether the document has the sentence and the remedy under the check's name."""
    return any(
        (result.name in names.split(", ") or names == "any")
        and fits(sentence, result.sentence)
        and fits(remedy, result.remedy)
        for names, sentence, remedy in documented()
    )


# --- a healthy machine ---------------------------------------------------------


def get_repository(call: Call) -> Answer:
    """``GET /repos/{owner}/{repo}``, cut down: what the token may do."""
    allowed = {"pull": True, "push": bool(call.token and call.token.may("contents", "write"))}
    return Answer(200, {"full_name": "owner/name", "permissions": allowed})


ROUTES = [
    Route("GET", "/repos/{owner}/{repo}", "repos/get", get_repository),
    *releases.ROUTES,
]


@pytest.fixture
def github(tmp_path: Path) -> Iterator[GitHubServer]:
    """A simulated GitHub that knows the repository and one sound token."""
    with GitHubServer(tmp_path / "github", ROUTES) as server:
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
def env(github: GitHubServer, registry: Registry) -> dict[str, str]:
    """The environment of a machine where nothing is wrong."""
    kept = {k: v for k, v in os.environ.items() if k in {"PATH", "HOME", "DOCKER_HOST"}}
    return kept | {
        "GITHUB_API_URL": github.url,
        "GITHUB_REPOSITORY": "owner/name",
        "GH_TOKEN": TOKEN,
        "REGISTRY": registry.address,
        "BASE_IMAGE": os.environ.get("BASE_IMAGE", "python:3.11-slim-bookworm"),
        "DISK_NEEDED": "100 MB",
        "BUILD_MEMORY": "100 MB",
    }


def look(root: Path, env: Mapping[str, str], *sessions: str) -> dict[str, Result]:
    """All results by name, of a doctor that looks at what these sessions need (or all)."""
    subject = Subject(root, env, sessions)
    return {result.name: result for result in examine(select(doctor.CHECKS, sessions), subject)}


def bad(results: Mapping[str, Result]) -> dict[str, Status]:
    """The checks that are not content."""
    wrong = {Status.PROBLEM, Status.WARNING}
    return {name: r.status for name, r in results.items() if r.status in wrong}


def only(
    root: Path,
    env: Mapping[str, str],
    name: str,
    said: str,
    *sessions: str,
    status: Status = Status.PROBLEM,
) -> Result:
    """The result of the one check that is not content, and that the document describes."""
    results = look(root, env, *sessions)
    assert bad(results) == {name: status}, results
    found = results[name]
    assert re.search(said, found.sentence), found
    assert is_documented(found), f"docs/troubleshooting.md lacks: {found}"
    return found


@pytest.mark.engine
def test_a_healthy_machine(checkout: Project, env: dict[str, str]) -> None:
    """Nothing is wrong, all is looked at, and each check is within its limit."""
    results = look(checkout.root, env)
    assert bad(results) == {}
    assert list(results) == [check.name for check in doctor.CHECKS]
    done = {name for name, result in results.items() if result.status is Status.OK}
    assert {"docker engine", "dockerfile", "push right", "token rights", "workflow"} <= done
    for check in doctor.CHECKS:
        assert results[check.name].seconds < check.limit


# --- the machine ----------------------------------------------------------------


def programs(folder: Path, *names: str) -> str:
    """A PATH that has only these programs."""
    folder.mkdir()
    for name in names:
        text = f'#!/bin/sh\nPATH="{os.environ["PATH"]}" exec {name} "$@"\n'
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    return str(folder)


@pytest.mark.parametrize(
    ("missing", "said"), [("nox", "not on the PATH"), ("uv", "made by virtualenv")]
)
def test_missing_helpers(
    checkout: Project, env: dict[str, str], tmp_path: Path, missing: str, said: str
) -> None:
    """Without nox or uv the work can be done, but not as one would like."""
    there = [name for name in ("nox", "uv", "git") if name != missing]
    env["PATH"] = programs(tmp_path / "bin", *there)
    only(checkout.root, env, missing, said, "lint", status=Status.WARNING)


def test_no_git(
    checkout: Project, env: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What needs git is not checked, instead of failing in its own way."""
    env["PATH"] = programs(tmp_path / "bin", "nox", "uv")
    monkeypatch.setenv("PATH", env["PATH"])
    only(checkout.root, env, "git", "git was not found", "lint")


@pytest.mark.parametrize(
    ("name", "value", "check", "said"),
    [
        ("PYTHON_VERSION", "3.99", "python", "PYTHON_VERSION is 3.99"),
        ("REGISTRY", "https://ghcr.io", "settings", "The setting REGISTRY"),
        ("PIP_CERT", "/no/such/bundle.pem", "certificates", "is not a file"),
        ("CA_CERTIFICATES", str(ROOT / "LICENSE"), "certificates", "no certificates in PEM"),
        ("HTTPS_PROXY", "proxy.example:3128", "proxy", "is no address such as"),
        ("HTTPS_PROXY", "http://user:pass@127.0.0.1:9/", "proxy", "does not answer"),
        ("ALL_PROXY", "http://127.0.0.1:99999", "proxy", "has no valid port"),
        ("SLACK_WEBHOOK_URL", "hooks.slack.com/x", "secrets", "no address of a webhook"),
        ("GITHUB_EVENT_NAME", "schedule", "event", "does not trigger"),
    ],
)
def test_bad_variables(
    checkout: Project, env: dict[str, str], name: str, value: str, check: str, said: str
) -> None:
    """Each wrong variable is one problem, with its name, and without a proxy's password."""
    env |= {name: value, "GITHUB_REF": "refs/heads/main"}
    found = only(checkout.root, env, check, said, "lint")
    assert "user:pass" not in str(found.to_json())


def test_two_proxies(checkout: Project, env: dict[str, str]) -> None:
    """Programs differ in which spelling they follow."""
    env |= {"HTTPS_PROXY": "http://127.0.0.1:1", "https_proxy": "http://127.0.0.1:2"}
    only(checkout.root, env, "proxy", "different proxies", "lint")


def test_old_nox(checkout: Project, env: dict[str, str]) -> None:
    """The noxfile says which nox it needs."""
    path = checkout.root / "noxfile.py"
    path.write_text(re.sub(r'(needs_version = ">=)[^"]+', r"\g<1>9999.1.1", path.read_text()))
    only(checkout.root, env, "nox", "needs 9999.1.1", "lint")


def test_old_git(checkout: Project, env: dict[str, str], tmp_path: Path) -> None:
    """A git from before what we rely on."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "git").write_text("#!/bin/sh\necho git version 2.11.0\n")
    (folder / "git").chmod(0o755)
    env["PATH"] = f"{folder}:{env['PATH']}"
    only(checkout.root, env, "git", "git 2.11.0 is too old", "lint")


@needs_root
def test_a_full_disk(checkout: Project, env: dict[str, str], tmp_path: Path) -> None:
    """A temporary folder on a tmpfs of one megabyte."""
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(small)], check=True)
    try:
        env["TMPDIR"] = str(small)
        only(checkout.root, env, "disk space", r"Only .* are free in .*small", "wheels")
    finally:
        subprocess.run(["umount", str(small)], check=True)


def test_little_memory(checkout: Project, env: dict[str, str]) -> None:
    """One compiler that would not fit is a warning: the stand-in needs none."""
    env["BUILD_MEMORY"] = "900 GB"
    only(checkout.root, env, "memory", "900.0 GB", "wheels", status=Status.WARNING)


def test_submodules(checkout: Project, env: dict[str, str], template: Path) -> None:
    """One that is not initialised, and one that is at another commit."""
    allow = ("-c", "protocol.file.allow=always")
    checkout.git(*allow, "submodule", "add", "--quiet", template.as_uri(), "3rdparty/tvm")
    checkout.commit("a submodule")
    checkout.git("submodule", "deinit", "--quiet", "--force", "--all")
    only(checkout.root, env, "submodules", "not initialised: 3rdparty/tvm", "wheels")
    checkout.git(*allow, "submodule", "update", "--quiet", "--init")
    assert bad(look(checkout.root, env, "wheels")) == {}
    inside = Project(checkout.root / "3rdparty" / "tvm")
    inside.commit("elsewhere")
    warned = Status.WARNING
    only(checkout.root, env, "submodules", "at other commits", "wheels", status=warned)


def test_shallow_clones(
    checkout: Project, env: dict[str, str], template: Path, tmp_path: Path
) -> None:
    """One that can ask its origin is a warning, one that cannot is a problem."""
    checkout.commit("a second commit")
    folder = tmp_path / "shallow"
    checkout.git("clone", "--quiet", "--depth=1", checkout.root.as_uri(), str(folder))
    warned = Status.WARNING
    only(folder, env, "clone", "counted wrongly", "plan", status=warned)
    Project(folder).git("remote", "set-url", "origin", (tmp_path / "gone").as_uri())
    only(folder, env, "clone", "origin could not be asked", "plan")


def test_workflow_files(checkout: Project, env: dict[str, str]) -> None:
    """An action at a tag instead of a commit; a condition that cannot be read."""
    path = checkout.root / ".github" / "workflows" / "ci-cd.yml"
    good = path.read_text()
    path.write_text(re.sub(r"(uses: actions/checkout)@\S+", r"\1@v4", good))
    found = only(checkout.root, env, "pinned actions", "actions/checkout@v4", "plan")
    assert re.search(r"ci-cd.yml:\d+: actions/checkout@v4", found.detail)
    job = "  extra:\n    needs: no-such-job\n    runs-on: ubuntu-latest\n    steps: []\n"
    path.write_text(f"{good}\n{job}")
    only(checkout.root, env, "workflow", r"ci-cd.yml:\d+:\d+", "plan")


def test_unpinned() -> None:
    """Local actions and images need no commit; quotes and comments do not confuse."""
    commit = "a" * 40
    text = f"""
      - uses: ./.github/actions/x
      - uses: docker://alpine:3
      - uses: "a/b@{commit}"  # v1
      - uses: a/b@v1  # {commit}
        uses: c/d@main
    """
    assert unpinned(text) == [(5, "a/b@v1"), (6, "c/d@main")]


# --- Docker ---------------------------------------------------------------------


@pytest.mark.engine
@pytest.mark.parametrize("socket_file", [False, True])
def test_engine_stopped(
    checkout: Project, env: dict[str, str], tmp_path: Path, socket_file: bool
) -> None:
    """No socket, and a socket that nobody listens on: what an ended engine leaves."""
    path = tmp_path / "dead.sock"
    if socket_file:
        with socket.socket(socket.AF_UNIX) as left:
            left.bind(str(path))
    env["DOCKER_HOST"] = f"unix://{path}"
    only(checkout.root, env, "docker engine", "No Docker engine answers")


def shim(folder: Path, script: str) -> str:
    """A PATH on which ``docker`` is a script around the real one (``$DOCKER``)."""
    folder.mkdir()
    real = shutil.which("docker")
    text = f"#!/bin/sh\nDOCKER={real}\n{script}\n"
    path = folder / "docker"
    path.write_text(text)
    path.chmod(0o755)
    return f"{folder}:{os.environ['PATH']}"


@needs_root
@pytest.mark.engine
def test_socket_without_permission(
    checkout: Project, env: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The docker client run as nobody, at a socket that listens, but only for root."""
    folder = Path(tempfile.mkdtemp(dir="/tmp"))
    folder.chmod(0o755)
    try:
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(str(folder / "docker.sock"))
            listening.listen()
            (folder / "docker.sock").chmod(0o600)
            as_nobody = "setpriv --reuid=65534 --regid=65534 --clear-groups --reset-env"
            host = f"unix://{folder / 'docker.sock'}"
            script = f'exec {as_nobody} env DOCKER_HOST={host} "$DOCKER" "$@"'
            env |= {"PATH": shim(tmp_path / "bin", script), "DOCKER_HOST": host}
            monkeypatch.setenv("PATH", env["PATH"])
            only(checkout.root, env, "docker engine", "refuses this user")
    finally:
        shutil.rmtree(folder)


def test_no_docker(
    checkout: Project, env: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the client there is no engine to ask."""
    env["PATH"] = programs(tmp_path / "bin", "nox", "uv", "git")
    monkeypatch.setenv("PATH", env["PATH"])
    only(checkout.root, env, "docker engine", "docker was not found", "docker_dev")


@needs_root
@pytest.mark.engine
def test_no_buildx(
    checkout: Project, env: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client sees empty folders where its plugins are (a mount of its own)."""
    folders = "/usr/libexec/docker /usr/lib/docker /usr/local/lib/docker"
    hide = f'for f in {folders}; do [ ! -d $f ] || mount -t tmpfs none $f; done; exec "$0" "$@"'
    empty = tmp_path / "config"
    empty.mkdir()
    env["PATH"] = shim(tmp_path / "bin", f'exec unshare -m sh -c \'{hide}\' "$DOCKER" "$@"')
    env["DOCKER_CONFIG"] = str(empty)
    monkeypatch.setenv("PATH", env["PATH"])
    only(checkout.root, env, "buildx", "no buildx plugin")


@pytest.mark.engine
def test_old_buildx(checkout: Project, env: dict[str, str], tmp_path: Path) -> None:
    """A plugin in the user's own folder, which the client prefers, says version 0.9."""
    path = tmp_path / "config" / "cli-plugins" / "docker-buildx"
    path.parent.mkdir(parents=True)
    metadata = {"SchemaVersion": "0.1.0", "Vendor": "Docker Inc.", "Version": "v0.9.1"}
    path.write_text(f"#!/bin/sh\necho '{json.dumps(metadata)}'\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    env["DOCKER_CONFIG"] = str(path.parents[1])
    only(checkout.root, env, "buildx", "buildx 0.9.1 is too old")


@contextlib.contextmanager
def classic_engine(folder: Path) -> Iterator[str]:
    """An engine of our own whose images are not in containerd's store; its address."""
    program = shutil.which("dockerd") or shutil.which("dockerd", path="/usr/sbin:/sbin")
    if program is None:
        pytest.skip("no dockerd program")
    config = folder / "daemon.json"
    config.write_text(json.dumps({"features": {"containerd-snapshotter": False}}))
    host = f"unix://{folder / 'docker.sock'}"
    # In a network of its own: with --bridge=none a dockerd deletes the docker0 that it finds.
    command = [
        "unshare", "--net", program, f"--config-file={config}", f"--data-root={folder / 'data'}",
        f"--exec-root={folder / 'exec'}", f"--pidfile={folder / 'pid'}", f"--host={host}",
        "--bridge=none", "--iptables=false", "--ip6tables=false",
    ]  # fmt: skip
    with (folder / "log").open("wb") as log:
        daemon = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    try:
        until = time.monotonic() + 60
        while subprocess.run(["docker", "-H", host, "version"], capture_output=True).returncode:
            assert daemon.poll() is None and time.monotonic() < until, (
                folder / "log"
            ).read_text()
        yield host
    finally:
        daemon.terminate()
        daemon.wait(60)


@needs_root
@pytest.mark.engine
def test_classic_image_store(checkout: Project, env: dict[str, str]) -> None:
    """An engine that cannot hold what is to be pushed: a warning, with two ways out."""
    # Sockets' paths must be short.
    with tempfile.TemporaryDirectory(prefix="engine-", dir="/tmp") as folder:
        with classic_engine(Path(folder)) as host:
            env["DOCKER_HOST"] = host
            env["BASE_IMAGE"] = f"{env['REGISTRY']}/none/such:1"
            results = look(checkout.root, env)
    assert bad(results) == {"image store": Status.WARNING, "base image": Status.PROBLEM}
    assert is_documented(results["image store"])


@pytest.mark.engine
def test_builder_that_is_not_there(checkout: Project, env: dict[str, str]) -> None:
    """BUILDX_BUILDER names nobody; the Dockerfile is not blamed for it."""
    env["BUILDX_BUILDER"] = "no-such-builder"
    only(checkout.root, env, "builder", "no-such-builder cannot be used")


@pytest.mark.engine
def test_dockerfile_syntax(checkout: Project, env: dict[str, str]) -> None:
    """The line of the error, as the build itself would say it."""
    path = checkout.root / "Dockerfile"
    lines = path.read_text().splitlines()
    number = next(n for n, line in enumerate(lines, 1) if line.startswith("WORKDIR"))
    lines[number - 1] = "WORKDIRR /workspace"
    path.write_text("\n".join(lines))
    only(checkout.root, env, "dockerfile", f"Dockerfile, line {number}: unknown instruction")


@pytest.mark.engine
def test_no_dockerfile(checkout: Project, env: dict[str, str]) -> None:
    """A folder that is not the project's."""
    (checkout.root / "Dockerfile").unlink()
    only(checkout.root, env, "dockerfile", "There is no Dockerfile")


@pytest.mark.engine
def test_base_image_that_is_not_there(checkout: Project, env: dict[str, str]) -> None:
    """Neither the engine nor a registry that answers has it."""
    env["BASE_IMAGE"] = f"{env['REGISTRY']}/none/such:1"
    found = only(checkout.root, env, "base image", "none/such:1 cannot be found")
    assert "does not have" in found.detail


@pytest.mark.engine
def test_context_too_large(checkout: Project, env: dict[str, str]) -> None:
    """The largest entries are named."""
    large = checkout.root / "package" / "large.bin"
    large.write_bytes(b"x" * 3_000_000)
    env["CONTEXT_LIMIT"] = "2 MB"
    found = only(checkout.root, env, "build context", "over the limit of 2.0 MB")
    assert "package/large.bin" in found.detail.splitlines()[0]


@pytest.mark.parametrize(
    ("reference", "parts"),
    [
        ("python", ("docker.io", "library/python", "latest")),
        ("python:3.11", ("docker.io", "library/python", "3.11")),
        ("owner/name:1", ("docker.io", "owner/name", "1")),
        ("ghcr.io/a/b", ("ghcr.io", "a/b", "latest")),
        ("127.0.0.1:5000/a:1", ("127.0.0.1:5000", "a", "1")),
        ("localhost/a:1", ("localhost", "a", "1")),
        ("python:3.11@sha256:ab", ("docker.io", "library/python", "sha256:ab")),
    ],
)
def test_split_reference(reference: str, parts: tuple[str, str, str]) -> None:
    """References are completed as Docker does it."""
    assert split_reference(reference) == parts


# --- registries -----------------------------------------------------------------


def closed_port() -> int:
    """A port on loopback that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.engine
def test_registry_down(checkout: Project, env: dict[str, str]) -> None:
    """Nothing answers at its address."""
    env["REGISTRY"] = f"127.0.0.1:{closed_port()}"
    only(checkout.root, env, "registry", "cannot be reached")


@pytest.mark.engine
def test_registry_refuses_the_login(
    checkout: Project, env: dict[str, str], login_registry: Registry
) -> None:
    """A registry with htpasswd, and a token that GitHub takes but the registry does not."""
    env["REGISTRY"] = login_registry.address
    only(checkout.root, env, "registry login", "refused the login")


def test_registry_without_login(
    checkout: Project, env: dict[str, str], login_registry: Registry
) -> None:
    """No token: images are kept here, which is no problem, but said."""
    env |= {"REGISTRY": login_registry.address, "GH_TOKEN": ""}
    results = look(checkout.root, env, "cleanup")
    assert results["registry login"].status is Status.WARNING
    assert is_documented(results["registry login"])
    assert results["push right"].status is Status.NOT_APPLICABLE
    assert results["github token"].status is Status.PROBLEM


@pytest.mark.engine
@pytest.mark.parametrize("jwt", [True, False])
def test_no_right_to_push(
    checkout: Project, env: dict[str, str], registry: Registry, jwt: bool
) -> None:
    """A token server that grants pull alone, with tokens that say so and opaque ones."""
    grants = frozenset({"pull"})
    with Gate(registry.url, TokenServer("owner", TOKEN, grants, jwt)) as gate:
        env |= {"REGISTRY": gate.address, "GITHUB_ACTOR": "owner"}
        only(checkout.root, env, "push right", "does not let this token write packages")


def test_nothing_is_pushed(checkout: Project, env: dict[str, str], registry: Registry) -> None:
    """Asking for the right to push leaves no blob, no upload and no tag behind."""

    def files() -> set[str]:
        # The registry itself keeps the state of a hash of nothing for a while.
        found = (path for path in registry.root.rglob("*") if path.is_file())
        return {str(path) for path in found if "hashstates" not in path.parts}

    before = files()
    assert look(checkout.root, env, "cleanup")["push right"].status is Status.OK
    assert files() == before


@pytest.mark.parametrize("half", ["DOCKER_HUB_USERNAME", "DOCKER_HUB_TOKEN"])
def test_half_a_docker_hub_login(checkout: Project, env: dict[str, str], half: str) -> None:
    """The half that is missing is named."""
    env[half] = "one-half"
    found = only(checkout.root, env, "docker hub", "one half of the login", "cleanup")
    missing = {"DOCKER_HUB_USERNAME", "DOCKER_HUB_TOKEN"} - {half}
    assert f"{missing.pop()} is missing" in found.sentence


def test_docker_hub_login(
    checkout: Project, env: dict[str, str], login_registry: Registry
) -> None:
    """A login that is refused, and one that is accepted."""
    env |= {
        "DOCKER_HUB_REGISTRY": login_registry.address,
        "DOCKER_HUB_USERNAME": login_registry.user,
        "DOCKER_HUB_TOKEN": "wrong-password",
    }
    only(checkout.root, env, "docker hub", "refused the login", "cleanup")
    env["DOCKER_HUB_TOKEN"] = login_registry.password
    assert bad(look(checkout.root, env, "cleanup")) == {}


# --- GitHub ---------------------------------------------------------------------


def test_api_down(checkout: Project, env: dict[str, str]) -> None:
    """Only the API's own check has a problem; the rest is not checked."""
    env["GITHUB_API_URL"] = f"http://127.0.0.1:{closed_port()}"
    only(checkout.root, env, "github api", "got no answer", "cleanup")


@pytest.mark.engine
def test_no_token(checkout: Project, env: dict[str, str]) -> None:
    """A problem for who wants to release, a warning for everybody else."""
    del env["GH_TOKEN"]
    only(checkout.root, env, "github token", "GH_TOKEN is not set", "cleanup")
    warned = Status.WARNING
    only(checkout.root, env, "github token", "is not set", "docker_dev", status=warned)


@pytest.mark.parametrize("kind", ["unknown", "expired"])
def test_token_that_github_refuses(
    checkout: Project, env: dict[str, str], github: GitHubServer, kind: str
) -> None:
    """Both are the same to GitHub: bad credentials."""
    env["GH_TOKEN"] = "ghp_another0123456789"
    if kind == "expired":
        github.add_token(env["GH_TOKEN"], Token(expires=time.time() - 60))
    only(checkout.root, env, "github token", "does not accept the token", "cleanup")


def test_token_about_to_expire(
    checkout: Project, env: dict[str, str], github: GitHubServer
) -> None:
    """GitHub sends the day with every answer; three days before, it is said."""
    scopes = ("repo", "write:packages", "delete:packages")
    github.add_token(TOKEN, Token(scopes=scopes, expires=time.time() + 3 * 86400))
    warned = Status.WARNING
    only(checkout.root, env, "token expiry", "in 3 days", "cleanup", status=warned)
    github.add_token(TOKEN, Token(scopes=scopes, expires=time.time() + 30 * 86400))
    assert bad(look(checkout.root, env, "cleanup")) == {}


@pytest.mark.engine
@pytest.mark.parametrize(
    ("scopes", "session", "missing"),
    [
        (("repo",), "docker_dev", "write:packages"),
        (("write:packages", "delete:packages"), "release", "public_repo or repo"),
        (("repo", "write:packages"), "cleanup", "delete:packages"),
        ((), "release", r"\(it has: none\)"),
    ],
)
def test_token_without_a_scope(
    checkout: Project, env: dict[str, str], github: GitHubServer,
    scopes: tuple[str, ...], session: str, missing: str,
) -> None:  # fmt: skip
    """Only what the session needs is missed, and what there is is named."""
    github.add_token(TOKEN, Token(scopes=scopes))
    results = look(checkout.root, env, session)
    assert bad(results).get("token rights") is Status.PROBLEM
    assert re.search(missing, results["token rights"].sentence)
    assert is_documented(results["token rights"])
    assert set(bad(results)) <= {"token rights", "wheels"}


@pytest.mark.parametrize("kind", ["fine-grained", "installation"])
def test_token_without_a_permission(
    checkout: Project, env: dict[str, str], github: GitHubServer, kind: str
) -> None:
    """Tokens that have permissions instead of scopes: the API tells of contents."""
    github.add_token(TOKEN, Token(kind=kind, permissions={"contents": "read"}))
    only(checkout.root, env, "token rights", "may not write to owner/name", "cleanup")
    github.add_token(TOKEN, Token(kind=kind, permissions={"contents": "write"}))
    assert bad(look(checkout.root, env, "cleanup")) == {}


def test_permissions_that_github_does_not_tell(
    checkout: Project, env: dict[str, str], github: GitHubServer
) -> None:
    """Not knowing is a warning, neither good nor bad news."""
    github.add_token(TOKEN, Token(kind="fine-grained", permissions={"contents": "write"}))
    silent = Fault("status", "repos/get", 0, status=200, data={"full_name": "owner/name"})
    github.faults.script.append(silent)
    warned = Status.WARNING
    only(checkout.root, env, "token rights", "does not tell", "cleanup", status=warned)


def test_limit_used_up(checkout: Project, env: dict[str, str], github: GitHubServer) -> None:
    """No request is left; asking for the limit itself costs none."""
    github.limit = 0
    only(checkout.root, env, "api limit", "Only 0 requests", "cleanup")


@pytest.mark.parametrize("seconds", [-7200, 7200])
def test_clock_skew(
    checkout: Project, env: dict[str, str], monkeypatch: pytest.MonkeyPatch, seconds: int
) -> None:
    """By the Date header of the server, in either direction."""
    monkeypatch.setattr(
        "tests.services.github.formatdate",
        lambda usegmt: formatdate(time.time() - seconds, usegmt=usegmt),
    )
    found = only(checkout.root, env, "clock", "tokens and certificates", "cleanup")
    assert ("ahead of" if seconds > 0 else "behind") in found.sentence


# --- releases -------------------------------------------------------------------


def test_tags(checkout: Project, env: dict[str, str]) -> None:
    """No version; not there; and another commit than the one that is checked out."""
    env |= {"GITHUB_EVENT_NAME": "push", "GITHUB_SHA": checkout.git("rev-parse", "HEAD")}
    for tag, said in (
        ("nightly", "is not a version"),
        ("v9.9.9", "does not exist in this clone"),
        ("v1.0.0", "points at"),
    ):
        if tag == "v1.0.0":
            checkout.git("tag", tag)
            checkout.commit("one more")
        env["GITHUB_REF"] = f"refs/tags/{tag}"
        results = look(checkout.root, env, "release")
        assert results["release tag"].status is Status.PROBLEM
        assert said in results["release tag"].sentence
        assert is_documented(results["release tag"])


def tagged(checkout: Project, env: dict[str, str], tag: str = "v1.2.3") -> dict[str, str]:
    """The environment of a push of a tag at the checked-out commit."""
    checkout.git("tag", tag)
    sha = checkout.git("rev-parse", "HEAD")
    ref = {"GITHUB_EVENT_NAME": "push", "GITHUB_REF": f"refs/tags/{tag}", "GITHUB_SHA": sha}
    return env | ref


def add_wheel(checkout: Project, version: str, tag: str = "py3-none-any") -> None:
    """A small, sound wheel in dist/."""
    from tests.wheels.test_wheels_archive import make_wheel

    dist = checkout.root / "dist"
    dist.mkdir(exist_ok=True)
    make_wheel(dist, version=version, tag=tag)


def test_wheels(checkout: Project, env: dict[str, str]) -> None:
    """None; of another version; for too few platforms; and then all is well."""
    env = tagged(checkout, env)
    only(checkout.root, env, "wheels", "There is no wheel in dist", "release")
    add_wheel(checkout, "1.2.2")
    only(checkout.root, env, "wheels", "has version 1.2.2, not 1.2.3", "release")
    shutil.rmtree(checkout.root / "dist")
    add_wheel(checkout, "1.2.3", "py3-none-manylinux_2_17_x86_64")
    only(checkout.root, env, "wheels", "serves windows-x64", "release")
    add_wheel(checkout, "1.2.3")
    assert bad(look(checkout.root, env, "release")) == {}


def test_release_that_exists(
    checkout: Project, env: dict[str, str], github: GitHubServer
) -> None:
    """A published one is said; a second run only compares."""
    env = tagged(checkout, env)
    add_wheel(checkout, "1.2.3")
    sha = env["GITHUB_SHA"]
    github.add_repository("owner/name", {"v1.2.3": sha})
    assert bad(look(checkout.root, env, "release")) == {}
    from tools.core.secrets import Secret
    from tools.github.old import GitHub

    with GitHub(github.url, Secret(TOKEN)) as client:
        client.request("POST", "/repos/owner/name/releases", json={"tag_name": "v1.2.3"})
    warned = Status.WARNING
    only(checkout.root, env, "release", "v1.2.3 exists already", "release", status=warned)


# --- the doctor itself ----------------------------------------------------------


def test_a_check_that_breaks_is_its_own_problem() -> None:
    """The others are not affected, and no traceback is shown."""

    def broken(_subject: Subject) -> Result:
        raise KeyError("surprise")

    checks = [Check("a", "", broken), Check("b", "", lambda _s: ok("fine"))]
    found = examine(checks, Subject(ROOT, {}))
    assert [r.status for r in found] == [Status.PROBLEM, Status.OK]
    assert found[0].sentence == "The check itself broke: KeyError: 'surprise'."
    assert is_documented(found[0])


def test_a_check_that_hangs_is_given_up() -> None:
    """After its limit, while the others end; what needs it is not checked."""
    release = threading.Event()

    def hanging(_subject: Subject) -> Result:
        release.wait()
        return ok("too late")

    checks = [
        Check("slow", "", hanging, limit=0.2),
        Check("after", "", lambda _s: ok("fine"), needs=("slow",)),
        Check("last", "", lambda _s: ok("fine"), needs=("after",)),
        Check("quick", "", lambda _s: ok("fine")),
    ]
    try:
        found = {result.name: result for result in examine(checks, Subject(ROOT, {}))}
    finally:
        release.set()
    assert found["slow"].status is Status.PROBLEM and found["slow"].seconds == 0.2
    assert is_documented(found["slow"])
    for name in ("after", "last"):
        assert found[name].status is Status.NOT_APPLICABLE
        assert "the problem with slow" in found[name].sentence
    assert found["quick"].status is Status.OK


def test_independent_checks_run_at_the_same_time() -> None:
    """Each waits for the other: one after another neither would end."""
    meeting = threading.Barrier(2, timeout=5)

    def meet(_subject: Subject) -> Result:
        meeting.wait()
        return ok("met")

    found = examine([Check("a", "", meet), Check("b", "", meet)], Subject(ROOT, {}))
    assert [result.status for result in found] == [Status.OK, Status.OK]


def test_an_error_has_the_sessions_own_words() -> None:
    """A PipelineError that a check raises is shown as the session would show it."""

    def failing(_subject: Subject) -> Result:
        raise UsageError("It is so.", "Do this.", "a line")

    (found,) = examine([Check("a", "", failing)], Subject(ROOT, {}))
    shown = (found.sentence, found.remedy, found.detail)
    assert shown == ("It is so.", "Do this.", "a line")


def test_shared_work_is_done_once() -> None:
    """However many checks ask, and also when it fails."""
    calls: list[int] = []

    def make() -> int:
        calls.append(1)
        raise PipelineError("no")

    subject = Subject(ROOT, {})
    for _ in range(3):
        with pytest.raises(PipelineError):
            subject.once("x", make)
    assert calls == [1]


@contextlib.contextmanager
def black_hole() -> Iterator[int]:
    """A port that takes connections and never answers."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(64)
        yield int(listening.getsockname()[1])


@pytest.mark.engine
def test_services_that_never_answer(
    checkout: Project, env: dict[str, str], github: GitHubServer
) -> None:
    """No check takes longer than its limit, whatever the others' servers do."""
    github.faults.script.append(Fault("stall-before", nth=0))
    with black_hole() as port:
        silent = f"127.0.0.1:{port}"
        env |= {
            "REGISTRY": silent, "DOCKER_HUB_REGISTRY": silent, "DOCKER_HUB_USERNAME": "someone",
            "DOCKER_HUB_TOKEN": "some-token", "BASE_IMAGE": f"{silent}/a:1",
        }  # fmt: skip
        begun = time.monotonic()
        results = look(checkout.root, env)
        seconds = time.monotonic() - begun
    assert set(bad(results)) == {"registry", "docker hub", "github api", "base image"}
    limits = {check.name: check.limit for check in doctor.CHECKS}
    for name, result in results.items():
        assert result.seconds <= limits[name] + 0.5, result
        assert result.status is not Status.PROBLEM or is_documented(result), result
    assert seconds < 2 * max(limits.values())


def run_doctor(*arguments: str, env: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """The real command."""
    command = [sys.executable, "-m", "tools.doctor.__main__", *arguments]
    return subprocess.run(command, env=dict(env), cwd=ROOT, capture_output=True, text=True)


@needs_root
def test_without_network(env: dict[str, str]) -> None:
    """In a network namespace with nothing in it: all checks end, within their limits."""
    env |= {"REGISTRY": "ghcr.io", "GITHUB_API_URL": "https://api.github.com"}
    command = ["unshare", "--net", sys.executable, "-m", "tools.doctor.__main__", "--json"]
    done = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1, done.stderr
    found = {item["name"]: item for item in json.loads(done.stdout)["checks"]}
    limits = {check.name: check.limit for check in doctor.CHECKS}
    assert set(found) == set(limits)
    assert all(item["seconds"] <= limits[name] for name, item in found.items())
    assert found["github api"]["status"] == found["registry"]["status"] == "problem"
    assert found["python"]["status"] == "ok"


def test_the_command(env: dict[str, str], github: GitHubServer) -> None:
    """JSON alone on stdout, the table on stderr, 0 without and 1 with a problem, no secret."""
    done = run_doctor("--for", "release", "--json", env=env)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["problems"] == 0
    assert {"name", "status", "sentence", "remedy", "looked_at", "seconds"} <= set(
        found["checks"][0]
    )
    assert "github token" in done.stderr and TOKEN not in done.stderr + done.stdout
    github.add_token(TOKEN, Token(scopes=()))
    env["GITHUB_ACTIONS"] = "true"
    done = run_doctor("--for", "release", "--json", "--debug", env=env)
    assert done.returncode == 1 and json.loads(done.stdout)["problems"] == 1
    assert "::error title=doctor%3A token rights::The token lacks" in done.stderr
    assert "what to do: Add it in GitHub's settings" in done.stderr
    assert TOKEN not in done.stderr + done.stdout


def test_an_unknown_session(env: dict[str, str]) -> None:
    """Exit code 2, and the sessions that there are."""
    done = run_doctor("--for", "nonsense", env=env)
    assert done.returncode == 2
    assert "There is no session nonsense" in done.stderr and "docker_dev" in done.stderr


def test_sessions_exist() -> None:
    """No check is kept for a session that the noxfile does not have."""
    known = set(doctor.known_sessions())
    named = {name for check in doctor.CHECKS for name in check.sessions}
    assert named <= known
    assert doctor.check_sessions(["docker_test(test_type='basic')"]) == ["docker_test"]


def test_a_session_gets_what_it_needs() -> None:
    """lint does not ask for an engine, cleanup not for a Dockerfile; needs come along."""

    def names(*sessions: str) -> set[str]:
        return {check.name for check in select(doctor.CHECKS, sessions)}

    assert "docker engine" not in names("lint") and "git" in names("lint")
    assert "dockerfile" not in names("cleanup") and "token rights" in names("cleanup")
    assert {"docker engine", "buildx", "dockerfile"} <= names("docker_dev")
    assert names("lint", "docker_dev") == names("docker_dev")
    assert names() == {check.name for check in doctor.CHECKS}


def test_needed_checks_come_first() -> None:
    """Every need exists, and stands before what needs it."""
    seen: set[str] = set()
    for check in doctor.CHECKS:
        assert set(check.needs) <= seen, check.name
        seen.add(check.name)


# --- the same words in both places ---------------------------------------------


def sessions_words(checkout: Project, env: Mapping[str, str], *command: str) -> str:
    """What a real session says on stderr when it fails."""
    given = {**os.environ, **env}
    done = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=checkout.root, env=given, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode in {1, 2}, done.stderr
    return done.stderr


def assert_same_words(
    checkout: Project, env: Mapping[str, str], check: str, session: str, *command: str
) -> None:
    """The session ends with the sentence and the remedy that the doctor has."""
    result = look(checkout.root, env, session)[check]
    assert result.status is Status.PROBLEM
    said = sessions_words(checkout, env, *command)
    assert result.sentence in said and result.remedy in said


DOCKER_DEV = ("docker_dev", "tools.images.__main__", "development", "--no-push")


@pytest.mark.engine
def test_same_words_engine(checkout: Project, env: dict[str, str], tmp_path: Path) -> None:
    """A stopped engine."""
    env["DOCKER_HOST"] = f"unix://{tmp_path / 'dead.sock'}"
    assert_same_words(checkout, env, "docker engine", *DOCKER_DEV)


@pytest.mark.engine
def test_same_words_dockerfile(checkout: Project, env: dict[str, str]) -> None:
    """A syntax error, found by BuildKit in both."""
    path = checkout.root / "Dockerfile"
    path.write_text(path.read_text().replace("WORKDIR", "WORKDIRR", 1))
    assert_same_words(checkout, env, "dockerfile", *DOCKER_DEV)


@pytest.mark.engine
def test_same_words_base_image(checkout: Project, env: dict[str, str]) -> None:
    """A base image that a registry does not have."""
    env["BASE_IMAGE"] = f"{env['REGISTRY']}/none/such:1"
    assert_same_words(checkout, env, "base image", *DOCKER_DEV)


@pytest.mark.engine
def test_same_words_context(checkout: Project, env: dict[str, str]) -> None:
    """A build context over its bound."""
    env["CONTEXT_LIMIT"] = "1 kB"
    assert_same_words(checkout, env, "build context", *DOCKER_DEV)


@pytest.mark.engine
def test_same_words_login(
    checkout: Project, env: dict[str, str], login_registry: Registry
) -> None:
    """A login that the registry refuses."""
    env |= {"REGISTRY": login_registry.address, "GITHUB_REF": "refs/heads/main"}
    env |= {"GITHUB_EVENT_NAME": "push", "GITHUB_SHA": checkout.git("rev-parse", "HEAD")}
    command = ("tools.images.__main__", "development")
    assert_same_words(checkout, env, "registry login", "docker_dev", *command)


def test_same_words_release(checkout: Project, env: dict[str, str]) -> None:
    """A tag that is no version, and a release without wheels."""
    tagged_env = tagged(checkout, env)
    command = ("release", "tools.release.__main__", "v1.2.3")
    assert_same_words(checkout, tagged_env, "wheels", *command)
    bad_env = tagged_env | {"GITHUB_REF": "refs/tags/nightly"}
    assert_same_words(
        checkout, bad_env, "release tag", "release", "tools.release.__main__", "nightly"
    )


# --- the document ----------------------------------------------------------------

# The troubleshooting chapter of the original workflow's documentation, entry by entry.
CHAPTER: dict[str, tuple[str, ...]] = {
    "Authentication: GH_TOKEN is set": ("github token",),
    "Authentication: write:packages": ("token rights", "push right"),
    "Authentication: expiration": ("token expiry", "github token"),
    "Build: Dockerfile syntax": ("dockerfile",),
    "Build: base image availability": ("base image",),
    "Build: build context size": ("build context",),
    "Build: logs": ("docker engine", "builder", "disk space"),
    "Tests: environment": ("python", "settings", "event"),
    "Tests: dependencies": ("uv", "certificates", "proxy"),
    "Release: tag exists": ("release", "release tag"),
    "Release: permissions": ("token rights",),
    "Release: tag format": ("release tag",),
    "Release: missing artifacts": ("wheels",),
}


@pytest.mark.parametrize("entry", CHAPTER)
def test_every_entry_of_the_chapter_has_a_check(entry: str) -> None:
    """The checks exist, and the document says what they say."""
    known = {check.name for check in doctor.CHECKS}
    described = {name for names, _, _ in documented() for name in names.split(", ")}
    assert set(CHAPTER[entry]) <= known & described


def test_the_document_names_no_check_that_is_not() -> None:
    """A check that was renamed or removed leaves no row behind."""
    known = {check.name for check in doctor.CHECKS} | {"any"}
    described = {name for names, _, _ in documented() for name in names.split(", ")}
    assert described <= known
    silent = known - described - {"any"}
    assert silent == set()


@pytest.mark.parametrize("make", [ok, not_applicable])
def test_good_news_needs_no_remedy(make: Callable[[str], Result]) -> None:
    """Only problems and warnings tell what to do."""
    assert make("fine").remedy == ""
    assert problem("bad", "do").to_json()["status"] == "problem"
