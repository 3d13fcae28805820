"""Tags that move, with a real engine, registry and git: an older run ends after a newer one."""

import pytest

from tests.images.test_images_engine import build, ended, make_small, put_wheel
from tests.services import project as projects
from tests.services.project import Project
from tests.services.registry import Registry
from tools.images import record

pytestmark = pytest.mark.engine
NAME = "tester/moving"


@pytest.fixture
def checkout(tmp_path, registry: Registry) -> Project:
    """A small image's repository, whose images go to a registry without login."""
    env = {"REGISTRY": registry.address, "IMAGE_NAME": f"{NAME}-{tmp_path.name}"}
    new = projects.make(tmp_path / "project", env)
    make_small(new, "scratch", "FROM scratch AS production", "COPY docker/entrypoint.py /")
    for number in "12":
        (new.root / "docker/entrypoint.py").write_text(f"# {number}\n")
        new.git("tag", f"c{number}", new.commit())
    return new


def go_back(checkout: Project) -> str:
    """The older commit, as its run on main sees it; its hash."""
    checkout.git("checkout", "-q", "--detach", "c1")
    sha = checkout.git("rev-parse", "HEAD")
    checkout.env |= {"GITHUB_EVENT_NAME": "push", "GITHUB_REF": "refs/heads/main"}
    checkout.env["GITHUB_SHA"] = sha
    return sha


def tags(registry: Registry, project: Project) -> dict[str, str]:
    return registry.repository(project.env["IMAGE_NAME"]).tags()


def test_an_older_run_moves_nothing_back(checkout, registry):
    """What a newer commit's run has set stays; the commit's own tag is set. A branch that
    ends in the older commit again takes its tags back.
    """
    newer = build(checkout, "development").digest
    sha = go_back(checkout)
    older = build(checkout, "development").digest
    found = tags(registry, checkout)
    assert (found["main"], found["latest"]) == (newer, newer)
    assert found[f"main-{sha[:7]}"] == older != newer
    checkout.git("branch", "--force", "main", "c1")
    again = build(checkout, "development").digest
    assert tags(registry, checkout)["main"] == again


def test_nothing_is_left_to_push(checkout, registry):
    """All tags of a branch's production image move: where they stay, nothing is pushed, and
    what was built before is still what is tested.
    """
    put_wheel(checkout)
    newer = build(checkout, "production").digest
    go_back(checkout)
    put_wheel(checkout)
    loaded = build(checkout, "production", "--no-push")
    assert "nothing is left to push" in ended(checkout.run("images", "production"))
    assert record.read("production", checkout.root) == loaded
    found = tags(registry, checkout)
    assert (found["main-prod"], found["prod"]) == (newer, newer)


def test_on_actions_origin_says_where_the_branch_ends(checkout, registry, tmp_path):
    """An older run's clone does not have the newer commit: origin is asked, and only where
    the tag's commit is unknown here. Where it cannot be asked nothing is pushed.
    """
    checkout.git("clone", "--quiet", str(checkout.root), str(tmp_path / "older"))
    older = Project(tmp_path / "older", checkout.env | {"GITHUB_ACTIONS": "true"})
    older.git("reset", "--quiet", "--hard", "c1")
    older.git("tag", "--delete", "c2")
    older.git("reflog", "expire", "--expire=now", "--all")
    older.git("update-ref", "-d", "refs/remotes/origin/main")
    older.git("gc", "--quiet", "--prune=now")
    newer = build(checkout, "development").digest
    ended(older.run("images", "development"))
    assert tags(registry, older)["latest"] == newer
    older.git("remote", "set-url", "origin", "https://127.0.0.1:9/o/n.git")
    said = ended(older.run("images", "development"), 1)
    assert "refs/heads/main has moved on cannot be told" in said
    older.git("remote", "set-url", "origin", str(checkout.root))
    checkout.git("reset", "--hard", "c1")  # origin was rewritten
    ended(older.run("images", "development"))
    assert tags(registry, older)["latest"] != newer


def test_a_tag_that_is_not_ours(checkout, registry):
    """What has no such labels, or is no image, keeps no tag from moving."""
    repository = registry.repository(checkout.env["IMAGE_NAME"])
    repository.image_manifest("latest")
    repository.image_manifest("1")
    built = build(checkout, "development")
    checkout.git("checkout", "-q", "c1")
    checkout.git("tag", "v1.2.3")
    release = build(checkout, "development")
    found = tags(registry, checkout)
    assert (found["latest"], found["1"]) == (built.digest, release.digest)


def test_floating_tags_stay_with_the_higher_version(checkout, registry):
    """v1.2.3, whose clone did not know of v1.2.4, ends after it."""
    checkout.git("tag", "v1.2.4")
    checkout.git("checkout", "-q", "v1.2.4")
    higher = build(checkout, "development").digest
    checkout.git("tag", "--delete", "v1.2.4")
    checkout.git("checkout", "-q", "c1")
    checkout.git("tag", "v1.2.3")
    lower = build(checkout, "development").digest
    found = tags(registry, checkout)
    assert (found["1.2"], found["1"], found["v1.2.4"]) == (higher, higher, higher)
    assert found["v1.2.3"] == lower
