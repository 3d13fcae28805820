"""Images for real: built by a real engine, pushed to real registries, run."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.services import project as projects
from tests.services.gate import Fault, Gate, Seen
from tests.services.project import Project
from tests.services.registry import Registry
from tools.core.files import read_json
from tools.images import login, record
from tools.images.record import ImageRecord

pytestmark = pytest.mark.engine
NAME = "tester/mlc"
Finished = subprocess.CompletedProcess[str]


def wait_until(true: Callable[[], bool], limit: float = 30.0) -> None:
    """Poll until something that another process does has come about."""
    until = time.monotonic() + limit
    while not true():
        assert time.monotonic() < until, "it did not come about in time"
        time.sleep(0.05)


def docker(*arguments: str) -> str:
    command = ["docker", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def left_logins() -> list[Path]:
    return list(Path(tempfile.gettempdir()).glob(f"{login.PREFIX}*"))


def containers_of_tests() -> set[str]:
    return set(docker("ps", "--all", "--quiet", "--filter", "name=mlc-test-").split())


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
    made.env |= dict.fromkeys(("BUILDX_BUILDER", "PLATFORMS", "GH_TOKEN", "GITHUB_TOKEN"), "")
    made.env |= {"REGISTRY": registry.address, "IMAGE_NAME": NAME, "SOURCE_DATE_EPOCH": ""}
    return made


def succeed(done: Finished) -> Finished:
    assert done.returncode == 0, done.stderr
    return done


def failure(done: Finished, code: int = 1) -> str:
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr


def build(project: Project, *arguments: str, **env: str) -> ImageRecord:
    """Build an image; its record, which is what ``--json`` prints."""
    image = "production" if "production" in arguments else "development"
    words = [word for word in arguments if word != image]
    done = succeed(project.run("images", image, "--json", *words, env=env))
    built = record.read(image, project.root)
    assert json.loads(done.stdout)["digest"] == built.digest
    return built


@pytest.fixture(scope="module")
def development(project: Project) -> ImageRecord:
    """The development image, built and pushed once for all tests here."""
    return build(project)


@pytest.fixture(scope="module")
def production(project: Project) -> ImageRecord:
    """The production image with a wheel of the same commit, built and pushed once."""
    succeed(project.run("wheels"))
    return build(project, "production")


def image_manifests(registry: Registry, built: ImageRecord) -> list[tuple[str, str]]:
    """Platform and digest of the images in an index (not of attestations: they hold times)."""
    index = registry.repository(built.name.split("/", 1)[1]).get(built.digest)
    platforms = [(m["platform"]["architecture"], m["digest"]) for m in index["manifests"]]
    return [pair for pair in platforms if pair[0] != "unknown"]


# --- what comes out ------------------------------------------------------------


def test_pushed_image_is_recorded(
    project: Project, development: ImageRecord, registry: Registry
) -> None:
    """Every tag in the registry is the digest that the record hands on; provenance is there."""
    repository = registry.repository(NAME)
    head = project.git("rev-parse", "--short=7", "HEAD")
    tags = dict.fromkeys(("main", f"main-{head}", "latest"), development.digest)
    assert repository.tags().items() >= tags.items()
    platforms = {m["platform"]["os"] for m in repository.get(development.digest)["manifests"]}
    assert platforms == {"linux", "unknown"}, "image and attestation"
    assert development.size > 100_000_000


def test_same_commit_gives_the_same_image(
    project: Project, development: ImageRecord, registry: Registry, tmp_path: Path
) -> None:
    """Built again, the image's manifest has the same digest (its attestation has a clock); on
    Actions digest and tags become step outputs, and the summary names them.
    """
    out, summary = tmp_path / "out", tmp_path / "summary"
    again = build(project, GITHUB_OUTPUT=str(out), GITHUB_STEP_SUMMARY=str(summary))
    assert image_manifests(registry, again) == image_manifests(registry, development)
    lines = out.read_text().splitlines()
    assert lines[:3] == ["digest<<EOF", again.digest, "EOF"]
    assert lines[3] == "tags<<EOF" and lines[4].endswith(f"/{NAME}:main")
    assert again.digest in summary.read_text()


@pytest.mark.parametrize("test_type", ["basic", "import", "help"])
@pytest.mark.parametrize("image", ["development", "production"])
def test_images_pass_their_tests(
    project: Project, development: ImageRecord, production: ImageRecord, image: str,
    test_type: str,
) -> None:  # fmt: skip
    """The image in the registry, pulled by digest, passes the three tests."""
    done = succeed(project.run("images.test", test_type, "--image", image))
    assert record.read(image, project.root).digest[:19] in done.stderr
    assert not left_containers()


def test_image_that_fails_its_test(project: Project, production: ImageRecord) -> None:
    """A test that does not pass names what failed, and a digest that is not there is said."""
    words = ("images.test", "import", "--image", "production")
    error = failure(project.run(*words, env={"PYTHON_VERSION": "3.9"}))
    assert "The production image failed the test import: Python." in error
    error = failure(project.run(*words, "--digest", "sha256:" + "0" * 64))
    assert "cannot take the production image" in error


def test_sbom_lists_the_image(project: Project, production: ImageRecord) -> None:
    """The SBOM has the wheel, and Debian's packages, of the very image."""
    succeed(project.run("images.sbom"))
    data = json.loads((project.root / "dist/production.cdx.json").read_text())
    assert data["metadata"]["component"]["bom-ref"] == production.digest
    purls = " ".join(part["purl"] for part in data["components"])
    assert f"pkg:pypi/mlc-llm@{production.version}".split("+")[0] in purls
    assert "pkg:deb/debian/" in purls


def test_production_is_small_and_sealed(production: ImageRecord) -> None:
    """At most 40 MB over its base, a numeric user that is not root, nothing setuid added."""
    docker("pull", "--quiet", production.reference)
    config = json.loads(docker("image", "inspect", production.reference))[0]["Config"]
    assert config["User"] == "10001:10001"
    assert config["Healthcheck"]["Test"]

    def measure(image: str) -> tuple[int, set[str]]:
        script = "du -xsk / 2>/dev/null | cut -f1; find / -xdev -perm /6000 -type f 2>/dev/null"
        command = ["run", "--rm", "--network", "none", "--user", "0", "--entrypoint", "sh"]
        lines = docker(*command, image, "-c", script).split()
        return int(lines[0]) * 1024, set(lines[1:])

    text = (projects.ROOT / "Dockerfile").read_text()
    [pinned] = [line.split()[1] for line in text.splitlines() if "AS pinned-base" in line]
    base, ours = measure(os.environ.get("BASE_IMAGE") or pinned), measure(production.reference)
    assert ours[0] - base[0] <= 40_000_000
    assert ours[1] <= base[1]


def test_production_runs_sealed(production: ImageRecord) -> None:
    """Read-only, without capabilities and new privileges, mlc_llm works and is healthy."""
    sealed = ["run", "--rm", "--read-only", "--cap-drop", "ALL", "--network", "none"]
    sealed += ["--security-opt", "no-new-privileges", production.reference]
    assert production.version in docker(*sealed, "mlc_llm", "--version")
    docker(*sealed, "healthcheck")
    script = "ls /var/lib/apt/lists /root/.cache ~/.cache 2>/dev/null; true"
    leftovers = docker(*sealed, "shell", "-c", script)
    assert set(leftovers.split()) <= {"partial", "/var/lib/apt/lists:"}


def test_signals_reach_the_program(production: ImageRecord) -> None:
    """docker stop ends the program itself: its own handler runs, long before the kill."""
    code = (
        "import signal, sys, time\n"
        "def stop(*_): print('stopped in order', flush=True); sys.exit(7)\n"
        "signal.signal(signal.SIGTERM, stop)\n"
        "print('ready', flush=True)\n"
        "signal.pause()\n"
    )
    name = f"mlc-test-signals-{os.getpid()}"
    docker("run", "--detach", "--name", name, production.reference, "python", "-c", code)
    try:
        wait_until(lambda: "ready" in docker("logs", name))
        docker("stop", "--time", "60", name)
        assert "stopped in order" in docker("logs", name)
        assert json.loads(docker("inspect", name))[0]["State"]["ExitCode"] == 7
    finally:
        docker("rm", "--force", name)


def test_python_change_rebuilds_no_system_layer(
    project: Project, development: ImageRecord, tmp_path: Path
) -> None:
    """After a change of a Python file every apt and pip step comes from the cache."""
    other = projects.make(tmp_path / "other", project.env | {"IMAGE_NAME": "tester/change"})
    path = other.root / "docker" / "entrypoint.py"
    path.write_text(path.read_text() + "# changed\n")
    other.commit()
    lines = succeed(other.run("images", "development", "--no-push")).stderr.splitlines()
    steps = {line.split()[0] for line in lines if "] RUN" in line}
    assert len(steps) >= 3
    assert steps <= {line.split()[0] for line in lines if line.endswith(" CACHED")}


def test_several_platforms_make_an_index(broken: Project, registry: Registry) -> None:
    """With two platforms one tag is an index of two images, each with its attestation."""
    # Without a step that runs: this machine need not emulate the other platform.
    text = "FROM scratch AS development\nCOPY docker/entrypoint.py /\n"
    (broken.root / "Dockerfile").write_text(text)
    built = build(broken, PLATFORMS="linux/amd64,linux/arm64", IMAGE_NAME="tester/platforms")
    assert [name for name, _ in image_manifests(registry, built)] == ["amd64", "arm64"]
    assert len(registry.repository("tester/platforms").get("main")["manifests"]) == 4


# --- what is not pushed --------------------------------------------------------


def pull_request(project: Project, folder: Path, **env: str) -> Project:
    """A checkout in the run of a pull request, whose image is a small one."""
    payload = folder / "event.json"
    payload.write_text(json.dumps({"pull_request": {"number": 5}}))
    event = {
        "GITHUB_EVENT_NAME": "pull_request", "GITHUB_REF": "refs/pull/5/merge",
        "GITHUB_SHA": project.git("rev-parse", "HEAD"), "GITHUB_REPOSITORY": NAME,
        "GITHUB_EVENT_PATH": str(payload),
    }  # fmt: skip
    other = projects.make(folder / "other", project.env | event | env)
    base, _, _ = (other.root / "Dockerfile").read_text().partition("# --- development")
    small = "FROM base AS development\nCOPY docker/entrypoint.py /usr/local/lib/mlc/\n"
    (other.root / "Dockerfile").write_text(base + small)
    return other


def test_pull_request_hands_an_archive_on(
    project: Project, development: ImageRecord, registry: Registry, tmp_path: Path
) -> None:
    """A pull request pushes nothing; its OCI archive is what the test job then tests."""
    other = pull_request(project, tmp_path)
    built = build(other, "--output", "oci")
    assert built.tags == (f"{registry.address}/{NAME}:pr-5",)
    assert "pr-5" not in registry.repository(NAME).tags()
    words = ("images.test", "basic", "--archive", str(other.root / built.archive))
    succeed(other.run(*words, "--digest", built.digest))
    assert "not sha256:1." in failure(other.run(*words, "--digest", "sha256:1"))
    (other.root / built.archive).write_bytes(b"no archive")
    assert "is not an OCI archive" in failure(other.run("images.test", "basic"), 2)


def test_loaded_image_is_tested(
    project: Project, development: ImageRecord, tmp_path: Path
) -> None:
    """Without a push the engine's own image is tested; when it is gone, that is said."""
    other = pull_request(project, tmp_path, IMAGE_NAME="tester/loaded")
    built = build(other)
    assert built.output == "load"
    succeed(other.run("images.test", "basic"))
    docker("image", "rm", "--force", built.loaded)
    error = failure(other.run("images.test", "basic"))
    assert "cannot take the development image" in error and "Build it again" in error


# --- what goes wrong -----------------------------------------------------------


@pytest.fixture
def broken(project: Project, tmp_path: Path) -> Project:
    """A checkout of its own, to break."""
    return projects.make(tmp_path / "broken", project.env)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("FROM base AS dev", "FRMO x\nFROM base AS dev", "unknown instruction: FRMO"),
        ("AS development\n", "AS development\nRUN exit 3\n", "'/bin/sh -c exit 3' failed"),
        ("FROM ${BASE_IMAGE}", "FROM {registry}/no:1", "{registry}/no:1 cannot be found"),
    ],
)
def test_dockerfile_that_cannot_be_built(
    broken: Project, registry: Registry, old: str, new: str, message: str
) -> None:
    """A syntax error, a step that fails and a base that is not there are told apart."""
    path = broken.root / "Dockerfile"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new.replace("{registry}", registry.address), 1))
    error = failure(broken.run("images", "development"))
    assert message.replace("{registry}", registry.address) in error


@pytest.mark.parametrize(
    ("env", "code", "message"),
    [
        ({"CONTEXT_LIMIT": "200 kB"}, 2, "package/weights.bin"),
        ({"DOCKER_HOST": "unix:///nonexistent/docker.sock"}, 1, "No Docker engine answers"),
        ({"BUILDX_BUILDER": "no-such"}, 1, "The buildx builder no-such cannot be used"),
    ],
)
def test_builds_that_do_not_begin(
    broken: Project, env: dict[str, str], code: int, message: str
) -> None:
    """A context that grew, no engine and no builder are said before anything is sent."""
    (broken.root / "package" / "weights.bin").write_bytes(b"x" * 300_000)
    assert message in failure(broken.run("images", "development", env=env), code)


def test_no_wheel_for_production(broken: Project) -> None:
    """Production installs the wheel that was built: without one it says which session to run."""
    error = failure(broken.run("images", "production"), 2)
    assert "dist/ holds no wheel" in error and "nox -s wheels" in error


def test_passing_trouble_of_the_registry(
    broken: Project, development: ImageRecord, registry: Registry
) -> None:
    """A registry that answers 500 for a moment (Debian's does, while it writes a tag) has the
    image all the same, after a second attempt that is announced.
    """
    asked: list[str] = []

    def while_a_tag_is_written(seen: Seen) -> Fault | None:
        if not seen.path.endswith("/manifests/main") or "HEAD after PUT" in asked:
            return None
        asked.append("HEAD after PUT" if "PUT" in asked else seen.method)
        return Fault(500) if asked[-1] == "HEAD after PUT" else None

    with Gate(registry.url) as gate:
        gate.fault = while_a_tag_is_written
        env = {"REGISTRY": gate.address, "IMAGE_NAME": "tester/trouble"}
        done = succeed(broken.run("images", "development", env=env))
    assert done.stderr.count("500 Internal Server Error; trying again in 2 s") == 1
    digest = record.read("development", broken.root).digest
    assert registry.repository("tester/trouble").tags()["main"] == digest


# --- logins and secrets --------------------------------------------------------


def with_login(where: Registry) -> dict[str, str]:
    return {
        "REGISTRY": where.address, "GH_TOKEN": where.password, "REGISTRY_USERNAME": where.user,
        "IMAGE_NAME": "tester/login",
    }  # fmt: skip


def test_refused_login(project: Project, login_registry: Registry) -> None:
    """A wrong token is a refused login, not a failed build, and so is --push without one;
    nothing of it is left.
    """
    env = with_login(login_registry) | {"GH_TOKEN": "expired-token-value"}
    error = failure(project.run("images", "development", env=env))
    assert f"The registry {login_registry.address} refused the login." in error
    assert "has not expired and has write:packages" in error
    assert "expired-token-value" not in error
    assert not left_logins()
    error = failure(project.run("images", "development", "--push", env=env | {"GH_TOKEN": ""}))
    assert "refused the login" in error


SPY = """#!/bin/sh
printf '%s\\n' "$*" >> "$SPY_LOG"
exec "{docker}" "$@"
"""


def test_no_secret_anywhere(
    project: Project,
    development: ImageRecord,
    production: ImageRecord,
    login_registry: Registry,
    tmp_path: Path,
) -> None:
    """With logins the image is at the registry, and the very same at Docker Hub; the user's
    own configuration is as it was; and recognisable secrets are in no output, argument,
    record, history or layer.
    """
    spy = tmp_path / "bin" / "docker"
    spy.parent.mkdir()
    spy.write_text(SPY.format(docker=shutil.which("docker")))
    spy.chmod(0o755)
    home = tmp_path / "docker"
    home.mkdir()
    theirs = '{"auths": {"other.example": {}}, "credsStore": "of-the-user"}'
    (home / "config.json").write_text(theirs)
    others = {
        "CODECOV_TOKEN": "codecov-recognisable-91", "DOCKER_HUB_TOKEN": login_registry.password,
        "SLACK_WEBHOOK_URL": "https://hooks.example/recognisable-92",
    }  # fmt: skip
    files = {"GITHUB_OUTPUT": "out", "GITHUB_STEP_SUMMARY": "summary", "SPY_LOG": "argv"}
    env = with_login(login_registry) | others
    env |= {name: str(tmp_path / file) for name, file in files.items()}
    env |= {"PATH": f"{spy.parent}{os.pathsep}{os.environ['PATH']}", "RUNNER_DEBUG": "1"}
    env |= {"DOCKER_HUB_USERNAME": login_registry.user, "DOCKER_CONFIG": str(home)}
    env["DOCKER_HUB_REGISTRY"] = login_registry.address
    output = ""
    for command in (
        ("images", "development"), ("images", "production"),
        ("images.test", "import", "--image", "production"),
    ):  # fmt: skip
        done = succeed(project.run(*command, env=env))
        output += done.stdout + done.stderr
    assert "buildx build" in (tmp_path / "argv").read_text(), "the spy saw nothing"
    for file in files.values():
        output += (tmp_path / file).read_text()
    ours = login_registry.repository("tester/login").tags()
    hub = login_registry.repository(f"{login_registry.user}/login").tags()
    assert (home / "config.json").read_text() == theirs
    for image, tag in (("development", "main"), ("production", "main-prod")):
        path = project.root / f"dist/images/{image}.json"
        built = read_json(path, ImageRecord)
        assert ours[tag] == hub[tag] == built.digest
        output += path.read_text() + docker("history", "--no-trunc", built.tags[0])
    archive = tmp_path / "image.tar"
    docker("save", "--output", str(archive), built.tags[0])
    content = archive.read_bytes()
    for secret in (login_registry.password, *others.values()):
        assert secret not in output
        assert secret.encode() not in content
    assert not left_logins()


# --- interruptions -------------------------------------------------------------


@contextlib.contextmanager
def started(
    project: Project, command: list[str], **env: str
) -> Iterator[subprocess.Popen[str]]:
    """A command in its own group; what it has left running at the end is ended."""
    child = subprocess.Popen(
        command, cwd=project.root, env=project.environment(env), text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
    )  # fmt: skip
    try:
        yield child
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.communicate()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_killed_build(
    broken: Project, development: ImageRecord, login_registry: Registry, number: signal.Signals
) -> None:
    """A build killed in the middle leaves no login and no half record; again, it works."""
    path = broken.root / "Dockerfile"
    # The last step, so that all before it comes from the cache.
    end = "COPY docker/entrypoint.py /usr/local/lib/mlc/\n\n# --- wheels"
    slow = end.replace("\n\n", f"\nRUN echo {number} && sleep 1\n\n")
    assert end in path.read_text()
    path.write_text(path.read_text().replace(end, slow))
    env = with_login(login_registry) | {"IMAGE_NAME": f"tester/killed-{int(number)}"}
    with started(broken, broken.command("images", "development"), **env) as child:
        assert child.stdout is not None
        assert any("build the development image" in line for line in child.stdout)
        assert left_logins()
        os.kill(child.pid, number)
        child.wait()
        wait_until(lambda: not left_logins())
    assert not list((broken.root / "dist").glob("images/*.json"))
    built = build(broken, **env)
    assert not list((broken.root / "dist/images").glob(".*"))
    tags = login_registry.repository(env["IMAGE_NAME"]).tags()
    assert tags["main"] == built.digest


RUN = """
import sys
from tools.core import process
from tools.images.containers import Runner
command = "import time; print('still here', flush=True); time.sleep(1000)"
with process.watched() as janitor:
    runner = Runner(janitor, sys.argv[1], "", float(sys.argv[2]))
    try:
        runner.run("python", "-c", command)
    except Exception as error:
        print(error, error.detail)
"""


def test_hanging_container_is_stopped(project: Project, development: ImageRecord) -> None:
    """A container that hangs is stopped after the limit, and its last output shown."""
    command = [sys.executable, "-c", RUN, development.tags[0], "2"]
    with started(project, command) as child:
        output, _ = child.communicate(timeout=60)
    assert "did not end within 2 s" in output and "still here" in output
    assert not left_containers()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_killed_test_leaves_no_container(
    project: Project, development: ImageRecord, number: signal.Signals
) -> None:
    """Ctrl-C, and even kill -9, of a running test leave no container behind."""
    command = [sys.executable, "-c", RUN, development.tags[0], "1000"]
    with started(project, command) as child:
        wait_until(lambda: bool(left_containers()))
        os.kill(child.pid, number)
        child.wait()
        wait_until(lambda: not left_containers())
