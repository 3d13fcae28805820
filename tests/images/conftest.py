"""Checkouts, and the images that are built in them with a real engine."""

import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.conftest import skip_except_in_ci
from tests.services import project as projects
from tests.services.project import Project
from tests.services.registry import Registry
from tests.wheels.test_wheels_archive import README, make_wheel
from tools.images import record
from tools.images.record import ImageRecord
from tools.repo.git import describe_version
from tools.wheels import requirements
from tools.wheels.archive import read_wheel
from tools.wheels.build import clean

NAME = "tester/mlc"


def docker(*arguments: str) -> str:
    command = ["docker", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.fixture(scope="session")
def builder() -> dict[str, str]:
    """Variables that name the buildx builder in use: which one that is depends on DOCKER_HOST
    and DOCKER_CONFIG, and buildx forgets it when it is asked with another DOCKER_HOST.
    """
    config = Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker")
    return {
        "BUILDX_BUILDER": docker("buildx", "inspect").split()[1],
        "BUILDX_CONFIG": os.environ.get("BUILDX_CONFIG") or str(config / "buildx"),
    }


@pytest.fixture(scope="session")
def project(
    tmp_path_factory: pytest.TempPathFactory, registry: Registry, builder: dict[str, str]
) -> Project:
    """A checkout whose images go to a registry without login."""
    unset = ("PLATFORMS", "GH_TOKEN", "GITHUB_TOKEN", "SOURCE_DATE_EPOCH")
    env = {"REGISTRY": registry.address, "IMAGE_NAME": NAME, **dict.fromkeys(unset, "")}
    env["TMPDIR"] = str(tmp_path_factory.mktemp("temporary"))
    return projects.make(tmp_path_factory.mktemp("project"), env | builder)


def engine_with(store: str) -> dict[str, str]:
    """Variables that lead to an engine with this image store, and to its own builder."""
    host = os.environ.get(f"{store.upper()}_DOCKER_HOST")
    if not host:
        skip_except_in_ci(f"there is no engine with the {store} image store")
    return {"DOCKER_HOST": str(host), "BUILDX_BUILDER": "default"}


@pytest.fixture
def classic() -> dict[str, str]:
    """Variables that lead to an engine with the classic image store."""
    return engine_with("classic")


@pytest.fixture(params=["classic", "containerd"])
def engine(request: pytest.FixtureRequest) -> dict[str, str]:
    """Variables that lead to an engine: one with each image store."""
    return engine_with(request.param)


@pytest.fixture
def other(project: Project, tmp_path: Path) -> Project:
    """A checkout of its own, to change or to break."""
    return projects.make(tmp_path / "other", project.env)


def ended(done: subprocess.CompletedProcess[str], code: int = 0) -> str:
    """What it said; it must have ended with this code, and by a sentence where it failed."""
    assert done.returncode == code and "Traceback" not in done.stderr, done.stderr
    return done.stderr


def build(
    project: Project, image: str, *options: str, env: Mapping[str, str] | None = None
) -> ImageRecord:
    """Build an image; its record, which is what ``--json`` prints."""
    done = project.run("images", image, "--json", *options, env=env)
    ended(done)
    built = record.read(image, project.root)
    assert json.loads(done.stdout)["digest"] == built.digest
    return built


def put_wheel(project: Project, metadata: str = README, more: str = "") -> Path:
    """A wheel of the commit, as ``nox -s wheels`` leaves it, with its requirements."""
    dist, sources = project.root / "dist", (project.root / "package/src/mlc_llm").iterdir()
    dist.mkdir(exist_ok=True)
    contents = {f"mlc_llm/{path.name}": path.read_text() for path in sources if path.is_file()}
    contents["mlc_llm/__init__.py"] += more
    (dist / "requirements.txt").touch()
    return make_wheel(
        dist, describe_version(project.root), contents=contents, metadata=metadata
    )


def put_wheel_that_requires(project: Project, folder: Path) -> None:
    """A wheel with a companion, which no index has, and a heavy package that images leave out."""
    make_wheel(folder, "0.26.0", name="test_companion", contents={"companion.py": ""})
    make_wheel(
        folder, name="test_heavy", metadata="Requires-Dist: test-deep\n",
        contents={"heavy.py": "import deep"},
    )  # fmt: skip
    make_wheel(folder, name="test_deep", contents={"deep.py": ""})
    requires = "Requires-Dist: test-companion==0.26.0\nRequires-Dist: test_heavy\n"
    wheel = read_wheel(put_wheel(project, requires + README, "import companion\n"))
    env = clean(os.environ) | {"PIP_FIND_LINKS": str(folder), "UV_NO_INDEX": "1"}
    requirements.pin(wheel, project.root / "dist", env)


def make_small(project: Project, base: str, *lines: str) -> None:
    """Make the development image a small one: the stage ``base``, or scratch, and lines."""
    path = project.root / "Dockerfile"
    above = path.read_text().partition("# --- development")[0]
    entry = f"FROM {base} AS development\nCOPY docker/entrypoint.py /usr/local/lib/mlc/"
    path.write_text("\n".join([above, entry, *lines, ""]))


@pytest.fixture(scope="session")
def development(project: Project) -> ImageRecord:
    """The development image, built and pushed once for all tests here."""
    return build(project, "development")


@pytest.fixture(scope="session")
def production(project: Project, tmp_path_factory: pytest.TempPathFactory) -> ImageRecord:
    """The production image with a wheel of the same commit, built and pushed once: what the
    wheel requires comes from a folder, less what is left out.
    """
    links = tmp_path_factory.mktemp("links")
    put_wheel_that_requires(project, links)
    env = {"PIP_FIND_LINKS": str(links), "IMAGE_WITHOUT": "Test.Heavy"}
    return build(project, "production", env=env)
