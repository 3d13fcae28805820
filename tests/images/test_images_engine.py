"""Images for real: built by a real engine, pushed to real registries, run."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.services import project as projects
from tests.services.gate import Fault, Seen, gate_before
from tests.services.project import Project
from tests.services.registry import Registry
from tools.images import login

pytestmark = pytest.mark.engine
NAME = "tester/mlc"


def wait_until(true: Callable[[], bool], limit: float = 30.0) -> None:
    """Poll until something that another process does has come about."""
    until = time.monotonic() + limit
    while not true():
        assert time.monotonic() < until, "it did not come about in time"
        time.sleep(0.05)


def left_logins() -> list[Path]:
    return list(Path(tempfile.gettempdir()).glob(f"{login.PREFIX}*"))


def containers_of_tests() -> set[str]:
    command = ["docker", "ps", "--all", "--quiet", "--filter", "name=mlc-test-"]
    return set(
        subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    )


# Somebody else's on a shared engine, or of a run that was ended with its engine.
OLD_CONTAINERS: set[str] = set()


@pytest.fixture(autouse=True, scope="module")
def note_old_containers() -> None:
    OLD_CONTAINERS.update(containers_of_tests())


def left_containers() -> set[str]:
    return containers_of_tests() - OLD_CONTAINERS


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, registry: Registry) -> Project:
    """A checkout whose images go to a registry without login."""
    made = projects.make(tmp_path_factory.mktemp("project"))
    made.env |= {"REGISTRY": registry.address, "IMAGE_NAME": NAME, "SOURCE_DATE_EPOCH": ""}
    for name in (
        "BUILDX_BUILDER",
        "PLATFORMS",
        "GH_TOKEN",
        "GITHUB_TOKEN",
        "GITHUB_EVENT_NAME",
    ):
        made.env[name] = ""
    return made


@pytest.fixture(scope="module")
def development(project: Project) -> dict[str, object]:
    """The development image, built and pushed once for all tests here."""
    done = project.run("images", "development", "--json")
    assert done.returncode == 0, done.stderr
    found: dict[str, object] = json.loads(done.stdout)
    return found


@pytest.fixture(scope="module")
def production(project: Project) -> dict[str, object]:
    """The production image with a wheel of the same commit, built and pushed once."""
    done = project.run("wheels")
    assert done.returncode == 0, done.stderr
    done = project.run("images", "production", "--json")
    assert done.returncode == 0, done.stderr
    found: dict[str, object] = json.loads(done.stdout)
    return found


def test_pushed_image_is_recorded(
    project: Project, development: dict[str, object], registry: Registry
) -> None:
    """Every tag in the registry is the digest that the record hands on; provenance is there."""
    repository = registry.repository(NAME)
    head = project.git("rev-parse", "--short=7", "HEAD")
    assert repository.tags().items() >= {
        "main": development["digest"], f"main-{head}": development["digest"],
        "latest": development["digest"],
    }.items()  # fmt: skip
    record = json.loads((project.root / "dist/images/development.json").read_text())
    assert record == development
    index = repository.get(str(development["digest"]))
    platforms = {m["platform"]["os"] for m in index["manifests"]}
    assert platforms == {"linux", "unknown"}, "image and attestation"
    assert isinstance(record["size"], int) and record["size"] > 100_000_000


@pytest.mark.parametrize("test_type", ["basic", "import", "help"])
@pytest.mark.parametrize("image", ["development", "production"])
def test_images_pass_their_tests(
    project: Project,
    development: dict[str, object],
    production: dict[str, object],
    image: str,
    test_type: str,
) -> None:
    """The image in the registry, pulled by digest, passes the three tests."""
    done = project.run("images.test", test_type, "--image", image)
    assert done.returncode == 0, done.stderr
    digest = str((development if image == "development" else production)["digest"])
    assert digest[:19] in done.stderr
    assert not left_containers()


def docker(*arguments: str) -> str:
    command = ["docker", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def reference(record: dict[str, object]) -> str:
    return f"{record['name']}@{record['digest']}"


def test_production_is_small_and_sealed(production: dict[str, object], base_image: str) -> None:
    """At most 40 MB over its base, a numeric user that is not root, nothing setuid added."""
    docker("pull", "--quiet", reference(production))
    config = json.loads(docker("image", "inspect", reference(production)))[0]["Config"]
    assert config["User"] == "10001:10001"
    assert config["Healthcheck"]["Test"]

    def measure(image: str) -> tuple[int, set[str]]:
        script = "du -xsk / 2>/dev/null | cut -f1; find / -xdev -perm /6000 -type f 2>/dev/null"
        command = ["run", "--rm", "--network", "none", "--user", "0", "--entrypoint", "sh"]
        lines = docker(*command, image, "-c", script).split()
        return int(lines[0]) * 1024, set(lines[1:])

    base, ours = measure(base_image), measure(reference(production))
    assert ours[0] - base[0] <= 40_000_000
    assert ours[1] <= base[1]


@pytest.fixture(scope="module")
def base_image() -> str:
    """The base that images are built on here: the setting, else the pinned one."""
    if os.environ.get("BASE_IMAGE"):
        return os.environ["BASE_IMAGE"]
    for line in (projects.ROOT / "Dockerfile").read_text().splitlines():
        if line.endswith("AS pinned-base"):
            return line.split()[1]
    raise AssertionError("the Dockerfile has no stage pinned-base")


def test_production_runs_sealed(production: dict[str, object]) -> None:
    """Read-only, without capabilities and new privileges, mlc_llm works and is healthy."""
    sealed = ["run", "--rm", "--read-only", "--cap-drop", "ALL", "--network", "none"]
    sealed += ["--security-opt", "no-new-privileges", reference(production)]
    assert str(production["version"]) in docker(*sealed, "mlc_llm", "--version")
    docker(*sealed, "healthcheck")
    leftovers = docker(
        *sealed, "shell", "-c", "ls /var/lib/apt/lists /root/.cache ~/.cache 2>/dev/null; true"
    )
    assert set(leftovers.split()) <= {"partial", "/var/lib/apt/lists:"}


def test_signals_reach_the_program(production: dict[str, object]) -> None:
    """docker stop ends the program itself: its own handler runs, long before the kill."""
    code = (
        "import signal, sys, time\n"
        "def stop(*_): print('stopped in order', flush=True); sys.exit(7)\n"
        "signal.signal(signal.SIGTERM, stop)\n"
        "print('ready', flush=True)\n"
        "signal.pause()\n"
    )
    name = f"mlc-test-signals-{os.getpid()}"
    docker("run", "--detach", "--name", name, reference(production), "python", "-c", code)
    try:
        wait_until(lambda: "ready" in docker("logs", name))
        docker("stop", "--time", "60", name)
        assert "stopped in order" in docker("logs", name)
        state = json.loads(docker("inspect", name))[0]["State"]
        assert state["ExitCode"] == 7
    finally:
        docker("rm", "--force", name)


def test_python_change_rebuilds_no_system_layer(
    project: Project, development: dict[str, object], tmp_path: Path
) -> None:
    """After a change of a Python file every apt and pip step comes from the cache."""
    other = projects.make(tmp_path / "other", project.env | {"IMAGE_NAME": "tester/change"})
    path = other.root / "docker" / "entrypoint.py"
    path.write_text(path.read_text() + "# changed\n")
    other.commit()
    done = other.run("images", "development", "--no-push")
    assert done.returncode == 0, done.stderr
    steps = [line for line in done.stderr.splitlines() if "] RUN" in line]
    names = {line.split()[0] for line in steps}
    cached = {line.split()[0] for line in done.stderr.splitlines() if line.endswith(" CACHED")}
    assert len(names) >= 3
    assert names <= cached


def test_same_commit_gives_the_same_image(
    project: Project, development: dict[str, object], registry: Registry
) -> None:
    """Built again, the image's manifest has the same digest (its attestation has a clock)."""
    first = subprocess.CompletedProcess([], 0, json.dumps(development), "")
    again = project.run("images", "development", "--json")
    assert image_manifests(registry, again) == image_manifests(registry, first)


def test_outputs_for_the_next_job(
    project: Project, development: dict[str, object], tmp_path: Path
) -> None:
    """On Actions digest and tags become step outputs, and the summary names them."""
    env = {"GITHUB_OUTPUT": str(tmp_path / "out"), "GITHUB_STEP_SUMMARY": str(tmp_path / "sum")}
    done = project.run("images", "development", "--json", env=env)
    assert done.returncode == 0, done.stderr
    digest = json.loads(done.stdout)["digest"]
    lines = (tmp_path / "out").read_text().splitlines()
    assert lines[:3] == ["digest<<EOF", digest, "EOF"]
    assert lines[3] == "tags<<EOF" and lines[4].endswith(f"/{NAME}:main")
    assert digest in (tmp_path / "sum").read_text()


def pull_request(project: Project, tmp_path: Path) -> dict[str, str]:
    """The variables of a pull request's run."""
    payload = tmp_path / "event.json"
    payload.write_text(json.dumps({"pull_request": {"number": 5}}))
    return {
        "GITHUB_EVENT_NAME": "pull_request", "GITHUB_REF": "refs/pull/5/merge",
        "GITHUB_SHA": project.git("rev-parse", "HEAD"), "GITHUB_REPOSITORY": NAME,
        "GITHUB_EVENT_PATH": str(payload),
    }  # fmt: skip


def test_pull_request_hands_an_archive_on(
    project: Project, development: dict[str, object], registry: Registry, tmp_path: Path
) -> None:
    """A pull request pushes nothing; its OCI archive is what the test job then tests."""
    env = pull_request(project, tmp_path)
    other = projects.make(tmp_path / "other", project.env | env)
    done = other.run("images", "development", "--output", "oci", "--json")
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)
    assert record["tags"] == [f"{registry.address}/{NAME}:pr-5"]
    assert "pr-5" not in registry.repository(NAME).tags()
    archive = other.root / record["archive"]
    done = other.run(
        "images.test", "basic", "--archive", str(archive), "--digest", record["digest"]
    )
    assert done.returncode == 0, done.stderr
    done = other.run("images.test", "basic", "--archive", str(archive), "--digest", "sha256:1")
    assert done.returncode == 1
    assert "not sha256:1." in done.stderr


def test_loaded_image_is_tested(
    project: Project, development: dict[str, object], tmp_path: Path
) -> None:
    """Without a push the engine's own image is tested; when it is gone, that is said."""
    env = project.env | pull_request(project, tmp_path) | {"IMAGE_NAME": "tester/loaded"}
    other = projects.make(tmp_path / "other", env)
    done = other.run("images", "development")
    assert done.returncode == 0, done.stderr
    assert "load, for the development image is not published from a pull request" in done.stderr
    assert other.run("images.test", "basic").returncode == 0
    record = json.loads((other.root / "dist/images/development.json").read_text())
    docker("image", "rm", "--force", record["tags"][0])
    path = other.root / "dist/images/development.json"
    record["digest"] = "sha256:" + "1" * 64
    path.write_text(json.dumps(record))
    done = other.run("images.test", "basic")
    assert done.returncode == 1
    assert "no longer has" in done.stderr and "Traceback" not in done.stderr


# --- what goes wrong -----------------------------------------------------------


@pytest.fixture
def broken(project: Project, tmp_path: Path) -> Project:
    """A checkout of its own, to break."""
    return projects.make(tmp_path / "broken", project.env)


def failure(done: subprocess.CompletedProcess[str], code: int = 1) -> str:
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr


def test_dockerfile_syntax_error(broken: Project) -> None:
    """A syntax error is reported with its line."""
    path = broken.root / "Dockerfile"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:20], "FRMO nowhere", *lines[20:]]))
    error = failure(broken.run("images", "development"))
    assert "error: Dockerfile, line 21: unknown instruction: FRMO" in error


def test_failing_step(broken: Project) -> None:
    """A step that fails is named, with its own output above."""
    path = broken.root / "Dockerfile"
    text = path.read_text().replace(
        "FROM base AS development", "FROM base AS development\nRUN exit 3"
    )
    path.write_text(text)
    error = failure(broken.run("images", "development"))
    assert "The build step '/bin/sh -c exit 3' failed (exit code: 3)." in error


def test_missing_base_image(broken: Project, registry: Registry) -> None:
    """A base image that cannot be found is named, with the setting that replaces it."""
    base = f"{registry.address}/no/such-base:1"
    error = failure(broken.run("images", "development", env={"BASE_IMAGE": base}))
    assert f"The base image {base} cannot be found." in error
    assert "BASE_IMAGE" in error


def test_context_over_the_bound(broken: Project) -> None:
    """A context that grew is refused before it is sent, naming the largest entry."""
    (broken.root / "package" / "weights.bin").write_bytes(b"x" * 300_000)
    error = failure(broken.run("images", "development", env={"CONTEXT_LIMIT": "200 kB"}), 2)
    assert "package/weights.bin" in error and "over the limit of 200.0 kB" in error


def test_no_engine(broken: Project) -> None:
    """Without an engine the message says so and how to start one."""
    env = {"DOCKER_HOST": "unix:///nonexistent/docker.sock"}
    error = failure(broken.run("images", "development", env=env))
    assert "No Docker engine answers" in error and "what to do: Start it" in error


def test_unknown_builder(broken: Project) -> None:
    """A builder that does not exist is named, with where to look."""
    error = failure(broken.run("images", "development", env={"BUILDX_BUILDER": "no-such"}))
    assert "no-such" in error and "docker buildx ls" in error


def test_no_wheel_for_production(broken: Project) -> None:
    """Production installs the wheel that was built: without one it says which session to run."""
    error = failure(broken.run("images", "production"), 2)
    assert "dist/ holds no wheel" in error and "nox -s wheels" in error


# --- logins --------------------------------------------------------------------


def with_login(project: Project, where: Registry) -> dict[str, str]:
    return {
        "REGISTRY": where.address, "GH_TOKEN": where.password, "REGISTRY_USERNAME": where.user,
        "IMAGE_NAME": "tester/login",
    }  # fmt: skip


def test_push_with_login(
    project: Project, development: dict[str, object], login_registry: Registry, tmp_path: Path
) -> None:
    """With a token the image is pushed; the user's own configuration is left as it was."""
    home = tmp_path / "docker"
    home.mkdir()
    config = home / "config.json"
    config.write_text('{"auths": {"other.example": {}}}')
    env = with_login(project, login_registry) | {"DOCKER_CONFIG": str(home)}
    done = project.run("images", "development", "--json", env=env)
    assert done.returncode == 0, done.stderr
    digest = json.loads(done.stdout)["digest"]
    assert login_registry.repository("tester/login").tags()["main"] == digest
    assert config.read_text() == '{"auths": {"other.example": {}}}'
    assert not left_logins()
    assert login_registry.password not in done.stdout + done.stderr
    done = project.run("images.test", "basic", "--digest", digest, env=env)
    assert done.returncode == 0, done.stderr


def test_refused_login(project: Project, login_registry: Registry) -> None:
    """A wrong token is a refused login, not a failed build; nothing of it is left."""
    env = with_login(project, login_registry) | {"GH_TOKEN": "expired-token-value"}
    error = failure(project.run("images", "development", env=env))
    assert f"The registry {login_registry.address} refused the login." in error
    assert "has not expired and has write:packages" in error
    assert "expired-token-value" not in error
    assert not left_logins()


def test_push_without_the_login_it_takes(project: Project, login_registry: Registry) -> None:
    """--push without a token to a registry that wants one is the same refused login."""
    env = {"REGISTRY": login_registry.address, "IMAGE_NAME": "tester/login"}
    error = failure(project.run("images", "development", "--push", env=env))
    assert "refused the login" in error


def test_docker_hub_gets_the_same_digest(
    project: Project, development: dict[str, object], login_registry: Registry
) -> None:
    """With Docker Hub's secrets the very same manifests are there too."""
    env = {
        "DOCKER_HUB_REGISTRY": login_registry.address,
        "DOCKER_HUB_USERNAME": login_registry.user,
        "DOCKER_HUB_TOKEN": login_registry.password,
    }
    done = project.run("images", "development", "--json", env=env)
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)
    hub = login_registry.repository(f"{login_registry.user}/mlc")
    assert hub.tags()["main"] == hub.tags()["latest"] == record["digest"]
    assert not left_logins()


def test_passing_trouble_of_the_registry(
    broken: Project, development: dict[str, object], registry: Registry
) -> None:
    """A registry that answers 500 for a moment (Debian's does, while it writes a tag) has the
    image all the same, after a second attempt that is told.
    """
    asked: list[str] = []

    def while_a_tag_is_written(seen: Seen) -> Fault | None:
        if not seen.path.endswith("/manifests/main") or "HEAD after PUT" in asked:
            return None
        asked.append("HEAD after PUT" if "PUT" in asked else seen.method)
        return Fault(500) if asked[-1] == "HEAD after PUT" else None

    with gate_before(registry.url) as gate:
        gate.fault = while_a_tag_is_written
        env = {"REGISTRY": gate.address, "IMAGE_NAME": "tester/trouble"}
        done = broken.run("images", "development", "--json", env=env)
    assert done.returncode == 0, done.stderr
    assert "HEAD after PUT" in asked
    assert done.stderr.count("500 Internal Server Error; trying again in 2 s") == 1
    assert (
        registry.repository("tester/trouble").tags()["main"]
        == json.loads(done.stdout)["digest"]
    )


# --- interruptions -------------------------------------------------------------


@contextlib.contextmanager
def started(
    project: Project, module: str, *arguments: str, **env: str
) -> Iterator[subprocess.Popen[str]]:
    """A command in its own group; what it has left running at the end is ended."""
    child = subprocess.Popen(
        project.command(module, *arguments), cwd=project.root, env=project.environment(env),
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )  # fmt: skip
    try:
        yield child
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()
        if child.stdout:
            child.stdout.close()


def read_until(child: subprocess.Popen[str], words: str) -> None:
    assert child.stdout is not None
    for line in child.stdout:
        if words in line:
            return
    raise AssertionError(f"it ended before it said {words!r}")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_killed_build(
    broken: Project, login_registry: Registry, number: signal.Signals
) -> None:
    """A build killed in the middle leaves no login and no half record; again, it works."""
    path = broken.root / "Dockerfile"
    # The last step, so that all before it comes from the cache.
    end = "COPY docker/entrypoint.py /usr/local/lib/mlc/\n\n# --- wheels"
    slow = end.replace("\n\n", f"\nRUN echo {number} && sleep 5\n\n")
    assert end in path.read_text()
    path.write_text(path.read_text().replace(end, slow))
    broken.commit()
    env = with_login(broken, login_registry) | {"IMAGE_NAME": f"tester/killed-{int(number)}"}
    with started(broken, "images", "development", **env) as child:
        read_until(child, "build the development image")
        assert left_logins()
        os.kill(child.pid, number)
        child.wait()
        wait_until(lambda: not left_logins())
    assert not list((broken.root / "dist").glob("images/*.json"))
    again = broken.run("images", "development", "--json", env=env)
    assert again.returncode == 0, again.stderr
    undisturbed = broken.run(
        "images", "development", "--json", env=env | {"IMAGE_NAME": "tester/undisturbed"}
    )
    assert undisturbed.returncode == 0, undisturbed.stderr
    assert image_manifests(login_registry, again) == image_manifests(
        login_registry, undisturbed
    )


def image_manifests(
    registry: Registry, done: subprocess.CompletedProcess[str]
) -> list[tuple[str, str]]:
    """Platform and digest of the images in an index (not of attestations: they hold times)."""
    record = json.loads(done.stdout)
    index = registry.repository(record["name"].split("/", 1)[1]).get(record["digest"])
    platforms = [(m["platform"]["architecture"], m["digest"]) for m in index["manifests"]]
    return [pair for pair in platforms if pair[0] != "unknown"]


def test_several_platforms_make_an_index(broken: Project, registry: Registry) -> None:
    """With two platforms one tag is an index of two images, each with its attestation."""
    # Without a step that runs: this machine need not emulate the other platform.
    text = "FROM scratch AS development\nCOPY docker/entrypoint.py /\n"
    (broken.root / "Dockerfile").write_text(text)
    env = {"PLATFORMS": "linux/amd64,linux/arm64", "IMAGE_NAME": "tester/platforms"}
    done = broken.run("images", "development", "--json", env=env)
    assert done.returncode == 0, done.stderr
    found = image_manifests(registry, done)
    assert [name for name, _ in found] == ["amd64", "arm64"]
    index = registry.repository("tester/platforms").get("main")
    assert len(index["manifests"]) == 4


HANG = "import time; print('still here', flush=True); time.sleep(1000)"


def test_hanging_container_is_stopped(
    project: Project, development: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A container that hangs is stopped after the limit, and its last output shown."""
    import docker as sdk
    from tools.core.errors import PipelineError
    from tools.core.janitor import Janitor
    from tools.images.containers import Runner

    client = sdk.from_env()
    try:
        with Janitor() as janitor:
            runner = Runner(client, janitor, str(development["tags"][0]), "", 2.0)  # type: ignore[index]
            with pytest.raises(PipelineError, match="did not end within 2 s") as caught:
                runner.run("python", "-c", HANG)
    finally:
        client.close()
    assert "still here" in caught.value.detail
    assert not left_containers()


KILLED = """
import docker, sys
from tools.core.janitor import Janitor
from tools.images.containers import Runner
with Janitor() as janitor:
    Runner(docker.from_env(), janitor, sys.argv[1], "", 1000.0).run("python", "-c", sys.argv[2])
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_killed_test_leaves_no_container(
    project: Project, development: dict[str, object], number: signal.Signals
) -> None:
    """Ctrl-C, and even kill -9, of a running test leave no container behind."""
    import sys

    child = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(development["tags"][0]), HANG],  # type: ignore[index]
        cwd=project.root, env=project.environment(), start_new_session=True,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        wait_until(lambda: bool(left_containers()))
    finally:
        os.kill(child.pid, number)
        child.wait()
    wait_until(lambda: not left_containers())


# --- secrets -------------------------------------------------------------------

SPY = """#!/bin/sh
printf '%s\\n' "$*" >> "$SPY_LOG"
exec "{docker}" "$@"
"""


def test_no_secret_anywhere(
    project: Project,
    development: dict[str, object],
    production: dict[str, object],
    login_registry: Registry,
    tmp_path: Path,
) -> None:
    """Recognisable secrets are in no output, argument, record, history or layer."""
    import shutil

    spy = tmp_path / "bin" / "docker"
    spy.parent.mkdir()
    spy.write_text(SPY.format(docker=shutil.which("docker")))
    spy.chmod(0o755)
    others = {
        "CODECOV_TOKEN": "codecov-recognisable-91", "DOCKER_HUB_TOKEN": login_registry.password,
        "SLACK_WEBHOOK_URL": "https://hooks.example/recognisable-92",
    }  # fmt: skip
    files = {"GITHUB_OUTPUT": "out", "GITHUB_STEP_SUMMARY": "summary", "SPY_LOG": "argv"}
    env = with_login(project, login_registry) | others
    env |= {name: str(tmp_path / file) for name, file in files.items()}
    env |= {"PATH": f"{spy.parent}{os.pathsep}{os.environ['PATH']}", "RUNNER_DEBUG": "1"}
    env |= {"DOCKER_HUB_USERNAME": login_registry.user, "IMAGE_NAME": "tester/secrets"}
    env["DOCKER_HUB_REGISTRY"] = login_registry.address
    output = ""
    for command in (
        ("images", "development"), ("images", "production"), ("images.test", "basic"),
        ("images.test", "import", "--image", "production"),
    ):  # fmt: skip
        done = project.run(*command, env=env)
        assert done.returncode == 0, done.stderr
        output += done.stdout + done.stderr
    assert "login" in (tmp_path / "argv").read_text(), "the spy saw nothing"
    for file in files.values():
        output += (tmp_path / file).read_text()
    for record in ("development", "production"):
        text = (project.root / f"dist/images/{record}.json").read_text()
        output += text + docker("history", "--no-trunc", json.loads(text)["tags"][0])
    archive = tmp_path / "image.tar"
    docker("save", "--output", str(archive), json.loads(text)["tags"][0])
    found = archive.read_bytes()
    for secret in (login_registry.password, *others.values()):
        assert secret not in output
        assert secret.encode() not in found
