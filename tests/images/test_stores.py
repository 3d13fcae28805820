"""What depends on the image store of the engine, on an engine with each: the classic one, which
hosted runners have had for long, and containerd's.
"""

import json
import uuid

import pytest

from tests.images.conftest import build, ended, make_small
from tests.images.test_archive import Layout
from tests.services import project as projects
from tests.services.project import Project
from tools.images import archive, record

pytestmark = pytest.mark.engine
ARCHIVE = "dist/images/development.oci.tar"
HANDED_ON = ("images.test", "basic", "--archive", ARCHIVE)


def make_smaller(project: Project, base: str, *lines: str) -> None:
    """Make the development image one in which nothing is run while it is built: an engine
    that was started beside another has no network for that.
    """
    entry = 'ENTRYPOINT ["python3", "/usr/local/lib/mlc/entrypoint.py"]'
    make_small(project, base, "ENV MLC_IMAGE=development", entry, *lines)


@pytest.fixture(scope="module")
def pull(project: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A checkout of a pull request, whose image the builder in use has put into an archive."""
    folder = tmp_path_factory.mktemp("pull")
    (folder / "event.json").write_text(json.dumps({"pull_request": {"number": 5}}))
    checkout = projects.make(folder / "project", project.env)
    checkout.env |= {
        "GITHUB_EVENT_NAME": "pull_request", "GITHUB_REF": "refs/pull/5/merge",
        "GITHUB_EVENT_PATH": str(folder / "event.json"), "GITHUB_REPOSITORY": "tester/stores",
        "GITHUB_SHA": checkout.git("rev-parse", "HEAD"), "IMAGE_NAME": "tester/stores",
    }  # fmt: skip
    make_smaller(checkout, "${BASE_IMAGE}")
    build(checkout, "development", "--output", "oci")
    return checkout


def test_archive_of_a_pull_request(pull, engine):
    """The archive is taken, and passes its test by the digest that was built."""
    built = record.read("development", pull.root)
    assert built.digest[:19] in ended(
        pull.run(*HANDED_ON, "--digest", built.digest, env=engine)
    )


def test_archive_with_a_damaged_layer(pull, engine, tmp_path):
    """An engine that refuses an archive is quoted, in one sentence."""
    layout, path = Layout(), tmp_path / "image.tar"
    digest = layout.image("amd64", uuid.uuid4().bytes)  # no engine has this layer already
    layer = next(name for name, data in layout.files.items() if len(data) == 16)
    layout.files[layer] = bytes(16)
    layout.write(path, digest, "manifest")
    archive.add_docker_manifest(path, [])
    error = ended(pull.run("images.test", "basic", "--archive", str(path), env=engine), 1)
    assert "The engine cannot take the development image: " in error


def test_archive_of_two_images(pull, classic, tmp_path):
    """What an engine with the classic store loads is compared with the digest: it reads
    manifest.json, which may name another image than index.json does.
    """
    layout, path = Layout(), tmp_path / "image.tar"
    for architecture in ("amd64", "riscv64"):
        digest = layout.image(architecture)
        layout.write(path, digest, "manifest")
        entry = {"Config": archive.blob(archive.read(path).config), "Layers": []}
        layout.files.setdefault("manifest.json", json.dumps([entry]).encode())
    error = ended(pull.run("images.test", "basic", "--archive", str(path), env=classic), 1)
    assert f"took another image than {digest}" in error


def test_build_that_is_kept(other, engine):
    """An engine builds, keeps and tests an image itself."""
    make_smaller(other, "${BASE_IMAGE}")
    other.env |= engine
    assert build(other, "development", "--no-push").output == "load"
    ended(other.run("images.test", "basic"))


def test_pushed_production_image(project, production, engine):
    """The image in the registry passes a test, sealed, and says what is in it."""
    words = ("images.test", "import", "--image", "production", "--digest", production.digest)
    ended(project.run(*words, env=engine))
    ended(project.run("images.sbom", env=engine))
    text = (project.root / "dist/production.cdx.json").read_text()
    assert json.loads(text)["metadata"]["component"]["bom-ref"] == production.digest


@pytest.mark.parametrize("option", ["--push", "--output=oci"])
def test_what_a_classic_engine_cannot_build(project, classic, option):
    """Its own builder is refused before it starts, and it is said which one can."""
    error = ended(project.run("images", "development", option, env=classic), 2)
    assert "docker buildx create" in error and "containerd image store" in error
