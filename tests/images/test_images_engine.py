"""Images for real: built by a real engine, pushed to real registries, run."""

import contextlib
import gzip
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from tests.images.conftest import (
    NAME,
    build,
    docker,
    ended,
    make_small,
    put_wheel,
    put_wheel_that_requires,
)
from tests.services import project as projects
from tests.services.gate import Fault, Gate, Seen
from tests.services.project import Project
from tests.services.registry import Registry
from tools.images import login, record
from tools.images.engine import find_driver
from tools.images.record import ImageRecord
from tools.images.test import TESTS

pytestmark = pytest.mark.engine
SIGNALS = [signal.SIGKILL, signal.SIGINT]
if int(os.environ.get("CAMPAIGN", "1")) > 1:
    SIGNALS.append(signal.SIGTERM)  # which ends as Ctrl-C does


def wait_until(true: Callable[[], bool], limit: float = 30.0) -> None:
    """Poll until something that another process does has come about."""
    until = time.monotonic() + limit
    while not true():
        assert time.monotonic() < until, "it did not come about in time"
        time.sleep(0.05)


def left_logins(project: Project) -> list[Path]:
    return list(Path(project.env["TMPDIR"]).glob(f"{login.PREFIX}*"))


def containers_of(child: subprocess.Popen[str]) -> str:
    return docker("ps", "--all", "--quiet", "--filter", f"name=mlc-test-{child.pid}-")


def image_manifests(registry: Registry, built: ImageRecord) -> list[tuple[str, str]]:
    """Platform and digest of the images in an index (not of attestations: they hold times)."""
    index = registry.repository(built.name.split("/", 1)[1]).get(built.digest)
    platforms = [(m["platform"]["architecture"], m["digest"]) for m in index["manifests"]]
    assert len(platforms) == 2 * len(built.platforms), "each has an attestation"
    return [pair for pair in platforms if pair[0] != "unknown"]


def test_pushed_image_is_recorded(project, development, registry):
    """Every tag in the registry is the digest that the record hands on; built again, the
    image's manifest has the same digest.
    """
    again = build(project, "development")
    assert image_manifests(registry, again) == image_manifests(registry, development)
    head = project.git("rev-parse", "--short=7", "HEAD")
    tags = dict.fromkeys(("main", f"main-{head}", "latest"), again.digest)
    assert registry.repository(NAME).tags().items() >= tags.items()
    assert development.size > 100_000_000


def test_images_pass_their_tests(project, development, production):
    """The images in the registry, pulled by digest, pass the three tests, all at once; a test
    that is not passed names what failed, and a digest that is not there is said. The SBOM
    has the wheel, and Debian's packages, of the very image.
    """
    runs = [("images.test", t, "--image", image) for image in record.IMAGES for t in TESTS]
    with ThreadPoolExecutor(3) as pool:
        for words, done in zip(runs, pool.map(lambda words: project.run(*words), runs)):
            assert record.read(words[3], project.root).digest[:19] in ended(done)
    words = ("images.test", "import", "--image", "production")
    error = ended(project.run(*words, env={"PYTHON_VERSION": "3.9"}), 1)
    assert "The production image failed the test import: Python." in error
    error = ended(project.run(*words, "--digest", "sha256:" + "0" * 64), 1)
    assert "cannot take the production image" in error
    ended(project.run("images.sbom"))
    data = json.loads((project.root / "dist/production.cdx.json").read_text())
    assert data["metadata"]["component"]["bom-ref"] == production.digest
    purls = " ".join(part["purl"] for part in data["components"])
    wheel = f"pkg:pypi/mlc-llm@{production.version}".split("+")[0]
    assert wheel in purls and "pkg:deb/debian/" in purls


def test_production_is_small_and_sealed(production):
    """At most 40 MB over its base, a numeric user that is not root, nothing setuid added;
    read-only, without capabilities and new privileges, mlc_llm works and is healthy.
    """
    docker("pull", "--quiet", production.reference)
    config = json.loads(docker("image", "inspect", production.reference))[0]["Config"]
    assert config["User"] == "10001:10001" and config["Healthcheck"]["Test"]

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
    sealed = ["run", "--rm", "--read-only", "--cap-drop", "ALL", "--network", "none"]
    sealed += ["--security-opt", "no-new-privileges", production.reference]
    assert production.version in docker(*sealed, "version")
    assert "nothing is served" in docker(*sealed, "healthcheck")
    script = "ls /var/lib/apt/lists /root/.cache ~/.cache 2>/dev/null; true"
    left = docker(*sealed, "shell", "-c", script).split()
    assert set(left) <= {"partial", "/var/lib/apt/lists:"}


def test_production_installs_what_the_wheel_requires(project, production, tmp_path):
    """By hash, less what is left out, and what only that requires; of that the build says it
    is meant. A package of another hash is refused, and so is one that is missing otherwise.
    """
    docker("pull", "--quiet", production.reference)
    code = "import importlib.metadata as m; print(*(d.name for d in m.distributions()))"
    run = ("run", "--rm", "--network", "none", production.reference, "python", "-c")
    assert set(docker(*run, code).split()) == {"mlc_llm", "test_companion"}
    env = {"PIP_FIND_LINKS": str(tmp_path), "IMAGE_WITHOUT": "test-heavy"}
    other = projects.make(tmp_path / "other", project.env)
    put_wheel_that_requires(other, tmp_path)
    beside = other.root / "dist/requirements.txt"
    text = beside.read_text()
    beside.write_text(re.sub("sha256:.", "sha256:", text).replace("sha256:", "sha256:0"))
    error = ended(other.run("images", "production", "--no-push", env=env), 1)
    assert "THESE PACKAGES DO NOT MATCH THE HASHES" in error
    beside.write_text("")
    error = ended(other.run("images", "production", "--no-push", env=env), 1)
    assert "1 of these are meant: IMAGE_WITHOUT is test-heavy" in error
    assert "do not fit together: mlc-llm" in error and "requires test-companion" in error


def test_production_serves(project, production, tmp_path):
    """A model that is named is served by the sealed image, which its health check finds out;
    one that cannot be is a failure with the container's own words. Nothing is left running.
    """
    words = ("images.test", "basic", "--image", "production", "--model", str(tmp_path))
    tmp_path.chmod(0o755)
    (tmp_path / "mlc-chat-config.json").write_text("{}")
    error = ended(project.run(*words), 1)
    assert "is exited" in error and "has no compiled library (*.so)" in error
    (tmp_path / "a.so").touch()
    assert "/v1/chat/completions" in ended(project.run(*words))
    assert not docker("ps", "--all", "--quiet", "--filter", f"volume={tmp_path}")


def test_signals_reach_the_program(production):
    """docker stop ends the program itself: its own handler runs, long before the kill."""
    code = (
        "import signal, sys; signal.signal(signal.SIGTERM, lambda *_: sys.exit(7)); "
        "print('ready', flush=True); signal.pause()"
    )
    name = f"mlc-test-signals-{os.getpid()}"
    docker("run", "--detach", "--name", name, production.reference, "python", "-c", code)
    try:
        wait_until(lambda: "ready" in docker("logs", name))
        docker("stop", "--time", "60", name)
        assert json.loads(docker("inspect", name))[0]["State"]["ExitCode"] == 7
    finally:
        docker("rm", "--force", name)


def test_python_change_rebuilds_no_system_layer(other, development):
    """After a change of a Python file every apt and pip step comes from the cache."""
    path = other.root / "docker" / "entrypoint.py"
    path.write_text(path.read_text() + "# changed\n")
    lines = ended(other.run("images", "development", "--no-push")).splitlines()
    steps = {line.split()[0] for line in lines if "] RUN" in line}
    assert len(steps) >= 3
    assert steps <= {line.split()[0] for line in lines if line.endswith(" CACHED")}


def test_several_platforms_make_an_index(other, registry):
    """With two platforms one tag is an index of two images, each with its attestation. A
    registry that answers 500 for a moment (Debian's does, while it writes a tag) has it all
    the same, after a second attempt, which is announced where it is ours.
    """
    make_small(other, "scratch")  # this machine need not emulate the other platform
    asked: list[str] = []

    def while_a_tag_is_written(seen: Seen) -> Fault | None:
        if not seen.path.endswith("/manifests/main") or "HEAD after PUT" in asked:
            return None
        asked.append("HEAD after PUT" if "PUT" in asked else seen.method)
        return Fault(500) if asked[-1] == "HEAD after PUT" else None

    with Gate(registry.url) as gate:
        gate.fault = while_a_tag_is_written
        other.env |= {"REGISTRY": gate.address, "IMAGE_NAME": "tester/platforms"}
        other.env["PLATFORMS"] = "linux/amd64,linux/arm64"
        said = ended(other.run("images", "development"))
    # The driver docker pushes with the engine, any other with BuildKit, which tries again
    # without a word.
    announced = find_driver(other.env["BUILDX_BUILDER"]) == "docker"
    assert said.count("500 Internal Server Error; trying again in 2 s") == announced
    built = record.read("development", other.root)
    assert registry.repository("tester/platforms").tags()["main"] == built.digest
    assert [name for name, _ in image_manifests(registry, built)] == ["amd64", "arm64"]


def test_pull_request_hands_its_image_on(other, registry, tmp_path):
    """A pull request pushes nothing. Its OCI archive is what the test job then tests; without
    one the engine's own image is tested, and if that is not there, this is said.
    """
    payload = tmp_path / "event.json"
    payload.write_text(json.dumps({"pull_request": {"number": 5}}))
    other.env |= {
        "GITHUB_EVENT_NAME": "pull_request", "GITHUB_REF": "refs/pull/5/merge",
        "GITHUB_SHA": other.git("rev-parse", "HEAD"), "GITHUB_REPOSITORY": NAME,
        "GITHUB_EVENT_PATH": str(payload), "IMAGE_NAME": "tester/pull",
    }  # fmt: skip
    make_small(other, "base")
    built = build(other, "development", "--output", "oci")
    assert built.tags == (f"{registry.address}/tester/pull:pr-5",)
    words = ("images.test", "basic", "--archive", str(other.root / built.archive))
    ended(other.run(*words, "--digest", built.digest))
    assert "not sha256:1." in ended(other.run(*words, "--digest", "sha256:1"), 1)
    (other.root / built.archive).write_bytes(b"no archive")
    assert "is not a whole OCI archive" in ended(other.run("images.test", "basic"), 2)
    loaded = build(other, "development")
    assert loaded.output == "load"
    ended(other.run("images.test", "basic"))
    record.write(replace(loaded, loaded=f"sha256:{'0' * 64}"), other.root)
    error = ended(other.run("images.test", "basic"), 1)
    assert "cannot take the development image" in error and "Build it again" in error
    assert registry.request("GET", "/v2/tester/pull/tags/list").status == 404


def test_builds_that_fail(other):
    """What is wrong with the machine is said before anything is sent; what is wrong with the
    Dockerfile is told apart.
    """
    for image, env, code, message in (
        ("development", {"DOCKER_HOST": "unix:///no.sock"}, 1, "No Docker engine answers"),
        ("development", {"BUILDX_BUILDER": "no"}, 1, "The buildx builder no cannot be used"),
        ("production", {}, 2, "dist/ holds no wheel"),
    ):
        assert message in ended(other.run("images", image, env=env), code)
    path, start = other.root / "Dockerfile", "FROM base AS development\n"
    text = path.read_text()
    for line, message in (("FRMO x", "instruction: FRMO"), ("RUN exit 3", "exit 3' failed")):
        path.write_text(text.replace(start, f"{start}{line}\n"))
        assert message in ended(other.run("images", "development"), 1)


@pytest.fixture
def closed(other: Project, login_registry: Registry) -> Project:
    """A checkout whose images go to a registry with a login."""
    other.env |= {"REGISTRY": login_registry.address, "IMAGE_NAME": "tester/login"}
    other.env |= {"GH_TOKEN": login_registry.password, "REGISTRY_USERNAME": login_registry.user}
    return other


def test_refused_login(closed):
    """A wrong token is a refused login, not a failed build, and so is --push without one;
    nothing of it is left.
    """
    make_small(closed, "scratch")
    refusal = f"The registry {closed.env['REGISTRY']} refused the login."
    wrong, none = {"GH_TOKEN": "expired-token-value"}, {"GH_TOKEN": ""}
    error = ended(closed.run("images", "development", env=wrong), 1)
    assert refusal in error and "has not expired and has write:packages" in error
    assert "expired-token-value" not in error and not left_logins(closed)
    assert refusal in ended(closed.run("images", "development", "--push", env=none), 1)


def everything_in(registry: Registry, name: str, digest: str) -> Iterator[bytes]:
    """Manifests, configurations, layers (unpacked) and attestations of an image."""
    repository = registry.repository(name)
    for listed in repository.get(digest)["manifests"]:
        manifest = repository.get(listed["digest"])
        yield json.dumps(manifest).encode()
        for blob in (manifest["config"], *manifest["layers"]):
            data = registry.request("GET", f"/v2/{name}/blobs/{blob['digest']}").data
            yield gzip.decompress(data) if data.startswith(b"\x1f\x8b") else data


def test_no_secret_anywhere(closed, production, login_registry, tmp_path):
    """With logins the image is at the registry, and the very same at Docker Hub; the user's
    own configuration is as it was; and recognisable secrets are in no output, record,
    history or layer.
    """
    put_wheel(closed)
    user = tmp_path / "config.json"
    theirs = '{"auths": {"other.example": {}}, "credsStore": "of-the-user"}'
    user.write_text(theirs)
    secrets = {
        "CODECOV_TOKEN": "codecov-recognisable-91", "DOCKER_HUB_TOKEN": login_registry.password,
        "SLACK_WEBHOOK_URL": "https://hooks.example/recognisable-92",
    }  # fmt: skip
    files = [
        tmp_path / "out",
        tmp_path / "summary",
        closed.root / "dist/images/production.json",
    ]
    closed.env |= secrets | {
        "GITHUB_OUTPUT": str(files[0]), "GITHUB_STEP_SUMMARY": str(files[1]),
        "RUNNER_DEBUG": "1", "DOCKER_CONFIG": str(tmp_path),
        "DOCKER_HUB_USERNAME": login_registry.user,
        "DOCKER_HUB_REGISTRY": login_registry.address,
    }  # fmt: skip
    output = ""
    for words in (("images", "production"), ("images.test", "import", "--image", "production")):
        done = closed.run(*words)
        output += ended(done) + done.stdout
    output += "".join(file.read_text() for file in files)
    assert "$ docker buildx build" in output
    assert user.read_text() == theirs and not left_logins(closed)
    built = record.read("production", closed.root)
    for name in ("tester/login", f"{login_registry.user}/login"):
        assert login_registry.repository(name).tags()["main-prod"] == built.digest
    output += docker("history", "--no-trunc", built.reference)
    places = [output.encode(), *everything_in(login_registry, "tester/login", built.digest)]
    for secret in secrets.values():
        assert not any(secret.encode() in place for place in places)


@contextlib.contextmanager
def started(project: Project, *command: str) -> Iterator[subprocess.Popen[str]]:
    """A command in its own group; what it has left running at the end is ended."""
    child = subprocess.Popen(
        command, cwd=project.root, env=project.environment(), text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
    )  # fmt: skip
    try:
        yield child
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.communicate()


@pytest.mark.parametrize("number", SIGNALS)
def test_killed_build(closed, login_registry, number):
    """A build killed in the middle leaves no login and no half record; again, it works."""
    make_small(closed, "base", f"RUN echo {number} && sleep 1")
    with started(closed, *closed.command("images", "development")) as child:
        assert any("build the development image" in line for line in child.stdout)
        assert left_logins(closed)
        os.kill(child.pid, number)
        child.wait()
        wait_until(lambda: not left_logins(closed))
    assert not list((closed.root / "dist").glob("images/*.json"))
    built = build(closed, "development")
    assert not list((closed.root / "dist/images").glob(".*"))
    assert login_registry.repository("tester/login").tags()["main"] == built.digest


RUN = """
import sys
from tools.core import process
from tools.images.containers import Runner
command = "import time; print('still here', flush=True); time.sleep(1000)"
with process.watched() as janitor:
    try:
        Runner(janitor, sys.argv[1], "", float(sys.argv[2])).run("python", "-c", command)
    except Exception as error:
        print(error, error.detail)
"""


@pytest.mark.parametrize("number", [None, *SIGNALS])
def test_no_container_is_left(project, production, number):
    """One that hangs is stopped after the limit, and its last output shown; Ctrl-C, and even
    kill -9, of a running test leave none behind.
    """
    limit = "1000" if number else "2"
    docker("pull", "--quiet", production.reference)  # not every builder leaves it here
    with started(project, sys.executable, "-c", RUN, production.reference, limit) as child:
        wait_until(lambda: bool(containers_of(child)))
        if number:
            os.kill(child.pid, number)
        output, _ = child.communicate(timeout=60)
        assert number or "did not end within 2 s" in output and "still here" in output
        wait_until(lambda: not containers_of(child))
