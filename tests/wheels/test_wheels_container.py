"""tools.wheels.container: builds in a container, with a real engine and the development image."""

import json
import os
import re
import signal
import subprocess
import sys
import tomllib
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.services import project as projects
from tests.services.project import Project
from tests.wheels.test_wheels_build import PLAN
from tools.core import process
from tools.core.errors import PipelineError
from tools.core.failures import explain
from tools.core.settings import ROOT, load
from tools.repo.git import describe_version
from tools.wheels import __main__ as wheels
from tools.wheels import build, container, place
from tools.wheels.archive import Wheel
from tools.wheels.flavours import PLAIN
from tools.wheels.repair import check_promise, glibc
from tools.wheels.source import Source, open_tree

NATIVE = ROOT / "tests" / "data" / "native"
TO_BE_KILLED = """import sys
from pathlib import Path
from tests.wheels import test_wheels_container as tests
from tools.core import process
watched, (image, root, work, pipe) = process.watched, sys.argv[1:]
process.watched = lambda: watched([int(pipe)])  # the pipe closes when the janitor is done
tests.compile_in(image, Path(root), Path(work))
"""
NOWHERE = "127.0.0.1:1/pypa/manylinux_2_28_x86_64:none"


def config(env: dict[str, str], **options: bool) -> dict[str, object]:
    """cibuildwheel's settings for a build in this environment."""
    plan = replace(PLAN, compiler_cache="ccache")
    whole = build.build_environment(plan, container.PROJECT, {}, container.variables(env))
    choice = {"rust": False, "certificates": False} | options
    return container.make_config(
        "image", whole, "l=1", Path("/l"), ["sccache==9 ; x"], **choice
    )


def test_what_is_handed_in() -> None:
    """Flags, caches and indexes reach the build, with the container's paths and no secret; a
    file of this system does not. An index on this machine is reachable.
    """
    env = {"GH_TOKEN": "t", "HOME": "/h", "PATH": "/b", "PIP_CERT": "/c.pem", "CXX": "/b/g++",
           "CARGO_HOME": "/h/.cargo", "PIP_INDEX_URL": "https://index.test/", "LDFLAGS": "-s",
           "XDG_CACHE_HOME": "/x", "https_proxy": "http://p:1", "AWS_SECRET_ACCESS_KEY": "k"}  # fmt: skip
    table = config(env)
    assert set(table["environment-pass"]) == {  # type: ignore[call-overload]
        "CARGO_BUILD_JOBS", "CARGO_ENCODED_RUSTFLAGS", "CARGO_HOME", "CCACHE_DIR", "CFLAGS",
        "CMAKE_ARGS", "CMAKE_BUILD_PARALLEL_LEVEL", "CMAKE_GENERATOR", "CXXFLAGS", "LDFLAGS", "PIP_INDEX_URL", "PYTHONHASHSEED", "RUSTC_WRAPPER",
        "SCCACHE_DIR", "SCCACHE_SERVER_UDS", "SOURCE_DATE_EPOCH", "https_proxy",
    }  # fmt: skip
    engine = {"name": "docker", "disable-host-mount": True}
    create = ["--label=l=1", "--volume=/x/mlc-pipeline/build:/cache"]
    assert table["container-engine"] == engine | {"create-args": create}
    assert "cargo" not in str(table["before-all"]) and table["environment"] == {}
    assert "cargo" in str(config(env, rust=True)["before-all"])
    assert "sccache==9 ;;" in str(config(env, rust=True)["before-all"])
    for local in ("http://127.0.0.1:8/simple", "https://u@localhost/s", "http://[::1]:8"):
        assert "--network=host" in str(config({"PIP_INDEX_URL": local})["container-engine"])
    bucket = {"SCCACHE_BUCKET": "b", "AWS_SECRET_ACCESS_KEY": "k"}
    assert bucket.keys() <= set(config(bucket)["environment-pass"])  # type: ignore[call-overload]
    trusted = config(env, certificates=True)["environment"]
    assert trusted["CARGO_HTTP_CAINFO"] == container.CERTIFICATES  # type: ignore[index]
    assert container.promise(container._default()) == "manylinux_2_28"
    assert container.promise("tester/x:main") == ""


def test_the_image_has_what_the_session_has() -> None:
    """The development image's packages are those of the group, at the lock's versions."""
    pins = (ROOT / "docker" / "requirements-development.txt").read_text().split("\n")
    there = dict(line.split("==") for line in pins if "==" in line)
    lock = (ROOT / "constraints.txt").read_text()
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]
    required = [
        Requirement(one) for one in [*groups["core"], *groups["wheels"]] if isinstance(one, str)
    ]
    linux = [
        one
        for one in required
        if not one.marker or one.marker.evaluate({"sys_platform": "linux"})
    ]
    for name in {one.name for one in linux} - {"cibuildwheel"} | {"sccache"}:
        assert re.search(rf"^{name}=={re.escape(there[name])}( |$)", lock, re.MULTILINE), name


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A checkout in which the development image was built last, for the engine alone."""
    unset = dict.fromkeys(("GH_TOKEN", "GITHUB_TOKEN", "PLATFORMS"), "")
    env = {"IMAGE_NAME": "tester/wheels", "REGISTRY": "registry.invalid", **unset}
    project = projects.make(tmp_path_factory.mktemp("checkout"), env)
    done = project.run("images", "development", "--no-push")
    assert done.returncode == 0, done.stderr
    return project


def compile_in(image: str, root: Path, work: Path) -> Wheel:
    """The compiled project's wheel, built, repaired and in its one form, as a session of the
    checkout ``root`` has it.
    """
    plan = replace(
        PLAN, source=Source("folder", str(NATIVE)), root=str(root), container=True, image=image,
        certificates=load(os.environ).ca_certificates, source_date_epoch=1_700_000_000,
    )  # fmt: skip
    tree = open_tree(plan.source, root)
    site = place.choose(plan, PLAIN, tree)
    assert site.has("python3") and not site.has("nvcc") and site.image
    with process.watched():
        return wheels.build_one(plan, PLAIN, tree, work, site, again=True)


def containers() -> list[str]:
    """The containers of builds, by what the engine says of each."""
    command = ["docker", "ps", "--all", "--filter=label=mlc-build", "--format={{.Labels}}"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()


@pytest.mark.engine
def test_build_in_the_development_image(
    checkout: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """Where cibuildwheel's image cannot be pulled, the development image serves: its wheel fits
    the production image, a second build takes objects from the cache and gives the same
    bytes, the cache is its owner's, and no container is left.
    """
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(container, "_default", lambda: NOWHERE)
    cache = container.cache_folder(os.environ)
    cache.mkdir(parents=True)
    owner = 4321 if os.getuid() == 0 else os.getuid()
    os.chown(cache, owner, -1)
    first = compile_in("", checkout.root, tmp_path / "first")
    shown = capsys.readouterr().err
    assert "connection refused): building in the development image" in shown
    assert re.search(r"Hits: +0 ", shown) and ", ccache)" in shown
    check_promise(first, "", "2.36")
    assert glibc(first) and first.tags[0].startswith("py3-none-manylinux_2_")
    second = compile_in("", checkout.root, tmp_path / "a second, longer name")
    assert re.search(r"Hits: +[2-9] ", capsys.readouterr().err)
    assert (second.name, second.sha256) == (first.name, first.sha256)
    assert {path.stat().st_uid for path in cache.rglob("*")} == {owner}
    owners = {path.stat().st_uid for path in (tmp_path / "first").rglob("*.whl")}
    assert owners == {os.getuid()}
    assert not [one for one in containers() if f"mlc-build={os.getpid()}-" in one]


@pytest.mark.engine
def test_build_command(checkout: Project) -> None:
    """The image's own command is the session of the checkout that is mounted, git and all; its
    CMake is one that the real tree takes. Without a checkout it says what to mount.
    """
    image, plain = container.choose("", checkout.root), ["docker", "run", "--rm"]
    mounted = [*plain, f"--volume={checkout.root}:/workspace", image]
    run = partial(subprocess.run, capture_output=True, text=True, check=False)
    plan = json.loads(run([*mounted, "build", "--dry-run", "--json"]).stdout)
    assert plan["version"] == describe_version(checkout.root)
    assert (plan["source"]["kind"], plan["compiler_cache"]) == ("stand-in", "ccache")
    version = run([*plain, image, "/opt/dev/bin/cmake", "--version"]).stdout.split()[2]
    assert (3, 26) <= tuple(map(int, version.split(".")[:2])) < (4, 0)
    alone = run([*plain, image, "build"])
    assert alone.returncode == 2 and "MLC_LLM_SOURCE=/sources" in alone.stderr


def test_failures_of_containers() -> None:
    """What sccache says of its server, and cibuildwheel of a container, is the reason."""
    for said, message in (
        ("sccache: error: Timed out waiting for server startup", "cannot be used: Timed out"),
        ("RuntimeError: the container shell has exited", "container of x ended"),
    ):
        error = explain(said, container.FAILURES, PipelineError("?"), image="x")
        assert re.search(message, error.message) and error.remedy


@pytest.mark.engine
def test_no_container_is_left(checkout: Project, tmp_path: Path) -> None:
    """Killed in the middle of a build, with what it had started in its own session: the
    container is removed all the same.
    """
    image = container.choose("", checkout.root)
    read, write = os.pipe()
    args = [image, str(checkout.root), str(tmp_path / "w"), str(write)]
    child = subprocess.Popen(
        [sys.executable, "-c", TO_BE_KILLED, *args], cwd=ROOT, stderr=subprocess.PIPE,
        text=True, pass_fds=[write], start_new_session=True,
    )  # fmt: skip
    os.close(write)
    assert child.stderr is not None
    with child, child.stderr:
        while "Building wheel..." not in (line := child.stderr.readline()):
            assert line, "it ended before it built"
        started = [one for one in containers() if f"mlc-build={child.pid}-" in one]
        os.killpg(child.pid, signal.SIGKILL)
    assert len(started) == 1
    assert os.read(read, 1) == b""  # when the janitor is done, too
    os.close(read)
    assert not set(started) & set(containers())


@pytest.mark.engine
def test_images_that_do_not_serve(
    checkout: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """An image that cannot be pulled, none at all, and one that has no Python for wheels."""
    with pytest.raises(PipelineError, match=f"{NOWHERE} .* cannot be pulled: .*refused") as no:
        container.choose(NOWHERE, checkout.root)
    assert "WHEEL_IMAGE" in no.value.remedy
    monkeypatch.setattr(container, "_default", lambda: NOWHERE)
    assert container.choose("", tmp_path) == ""
    said = capsys.readouterr().err
    assert "no development image (nox -s docker_dev): building on this system" in said
    base = os.environ.get("BASE_IMAGE", "python:3.11-slim-bookworm")
    with pytest.raises(PipelineError, match="it has no /opt/python/cp3"):
        compile_in(base, checkout.root, tmp_path / "w")
