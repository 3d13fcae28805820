"""Checks of the machine and the checkout: the clone, space."""

import shutil
import tempfile
from pathlib import Path

from tools.core.console import human_size
from tools.core.errors import PipelineError
from tools.doctor.base import Caution, Check, Subject
from tools.repo import git
from tools.repo.versions import ACCEPTED, known_versions, starts_a_run

BUILDS = frozenset({"wheels", "docker_dev", "prod_image", "pipeline"})


def check_clone(subject: Subject) -> str:
    """The clone has, or can ask for, all tags: floating tags and versions need them."""
    git.git(subject.root, "--version")  # says so if git itself is missing
    git.head(subject.root)
    tags = git.every_tag(subject.root)
    if git.is_shallow(subject.root):
        raise Caution(
            "The clone is shallow: versions between two tags are counted wrongly.",
            "Fetch the rest with git fetch --unshallow --tags (on Actions: fetch-depth: 0).",
        )
    return f"The clone is complete and has {len(tags)} tags."


def check_tags(subject: Subject) -> str:
    """What the commit's tags give when they are pushed."""
    tags = git.git(subject.root, "tag", "--points-at", "HEAD", check=False).splitlines()
    gives = {version.tag: "a release" for version in known_versions(tags)}
    gives |= {tag: "nothing" for tag in tags if not starts_a_run(tag)}
    if refused := [tag for tag in tags if tag not in gives]:
        raise Caution(
            f"{', '.join(refused)} on this commit: not a version, so that its run would fail "
            "in the first minute.",
            f"Use a tag such as {ACCEPTED}.",
        )
    return "; ".join(f"{tag} gives {what}" for tag, what in gives.items()) or "None is here."


def check_disk(subject: Subject) -> str:
    """Room for a build in the checkout and in the folder for temporary files."""
    required = subject.settings.disk_needed
    for path in (Path(subject.env.get("TMPDIR") or tempfile.gettempdir()), subject.root):
        free = shutil.disk_usage(path).free
        if free < required:
            raise PipelineError(
                f"Only {human_size(free)} are free in {path}; "
                f"a build takes {human_size(required)}.",
                "Free some (docker buildx prune, docker image prune, rm -r .nox), or lower "
                "DISK_NEEDED.",
            )
    return f"{human_size(free)} are free in {path}."


CHECKS = (
    Check("clone", check_clone, BUILDS | {"release", "plan"}),
    Check("tags of the commit", check_tags, frozenset({"release", "plan"})),
    Check("disk space", check_disk, BUILDS),
)
