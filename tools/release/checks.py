"""What must be true before a release touches anything; all that is not, at once."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from github.Repository import Repository
from packaging.version import Version

from tools.core import files
from tools.core.errors import PipelineError, UsageError
from tools.github.errors import GitHubError
from tools.images.record import IMAGES, ImageRecord, folder, read
from tools.release.publish import persist
from tools.repo import git
from tools.repo.versions import TagVersion, parse_tag
from tools.wheels.archive import RECORD, Wheel, WheelsRecord, read_wheel


class Problems(list[PipelineError]):
    """What stands against a release, as the checks find it."""

    def add(self, message: str, remedy: str) -> None:
        """A failure of the work (exit code 1)."""
        self.append(PipelineError(message, remedy))

    def report(self, tag: str) -> None:
        """Raise all problems as one error, of usage if one is; nothing if there are none."""
        if len(self) == 1:
            raise self[0]
        if self:
            kind = UsageError if any(isinstance(p, UsageError) for p in self) else PipelineError
            lines = [(f"- {p.message}", f"  what to do: {p.remedy}") for p in self]
            raise kind(
                f"{len(self)} things stand against the release of {tag}; nothing was done.",
                "See the list above.",
                "\n".join(line for pair in lines for line in pair),
            )


# "Each file included in a release must be under 2 GiB" (GitHub, "About releases").
LARGEST = 2 * 1024**3 - 1
# Source: PyPA, "Platform compatibility tags".
_PLATFORM_TAGS = {
    "linux-x64": r"(manylinux\w*|musllinux_\w*|linux)_x86_64",
    "linux-arm64": r"(manylinux\w*|musllinux_\w*|linux)_aarch64",
    "windows-x64": r"win_amd64",
    "windows-arm64": r"win_arm64",
    "macos-x64": r"macosx_\d+_\d+_(x86_64|universal2)",
    "macos-arm64": r"macosx_\d+_\d+_(arm64|universal2)",
}
_AGAIN = "Build again: nox -s wheels."


@dataclass(frozen=True)
class Checked:
    """What the checks read, all in order; ``generated`` are the notes that GitHub writes."""

    version: TagVersion
    commit: str
    repository: str
    wheels: list[Wheel]
    images: list[ImageRecord]
    generated: str


def check(
    root: Path,
    tag: str,
    platforms: Sequence[str],
    name: str,
    repository: Repository | None,
) -> Checked:
    """Check everything, and raise all problems together.

    Args:
        root: The checkout.
        tag: The tag to release.
        platforms: Platforms that must have a wheel, such as ``linux-x64``.
        name: The repository's ``owner/name``; empty if it is not known.
        repository: It on GitHub, where there is a token.
    """
    problems = Problems()
    version, head = check_tag(root, tag, problems)
    wheels = check_wheels(root / "dist", head, version, platforms, problems)
    images = check_images(root, head, version, problems)
    generated = check_github(repository, tag, head, problems) if repository else ""
    if not name:
        what = "It is not known which GitHub repository this is."
        todo = "Set GITHUB_REPOSITORY=owner/name, or the remote origin."
        problems.append(UsageError(what, todo))
    problems.report(tag)
    return Checked(version, head, name, wheels, images, generated)


def check_tag(root: Path, tag: str, problems: Problems) -> tuple[TagVersion, str]:
    """The version of a tag that points at the checked-out commit, and that commit.

    Raises:
        UsageError: It is not a version: there is nothing else to check.
    """
    version, head = parse_tag(tag), git.head(root)
    commit = _commit_of(root, f"refs/tags/{tag}")
    if not commit:
        create = f"Create it (git tag -a {tag} -m {tag}) or fetch it (git fetch --tags)."
        problems.add(f"The tag {tag} does not exist in this clone.", create)
    elif commit != head:
        what = f"The tag {tag} points at {commit[:7]}, but {head[:7]} is checked out."
        problems.add(what, f"Check the tag out: git checkout {tag}.")
    return version, head


def _commit_of(root: Path, name: str) -> str:
    """The commit that a name or hash stands for (it may be an annotated tag's), or empty."""
    return git.git(root, "rev-parse", "-q", "--verify", f"{name}^{{commit}}", check=False)


def check_github(repository: Repository, tag: str, head: str, problems: Problems) -> str:
    """The notes that GitHub generates; whether it has the tag, and the token may write.

    Generating notes needs the right to write contents, and changes nothing.
    """
    generated = commit = ""
    try:
        generated = persist(
            "release notes", lambda: repository.generate_release_notes(tag).body
        )
        there = repository.get_commit(f"tags/{tag}")
        commit = persist(f"the tag {tag}", lambda: there.complete().sha)
    except GitHubError as error:
        if error.status != 422:  # "No commit found for SHA: tags/..."
            problems.append(error)
            return ""
    if not commit:
        problems.add(f"The tag {tag} is not on GitHub.", f"Push it: git push origin {tag}.")
    elif commit != head:
        what = f"The tag {tag} on GitHub points at {commit[:7]}, here at {head[:7]}."
        todo = "Fetch it (git fetch --tags --force), and never move a tag that was pushed."
        problems.add(what, todo)
    return generated


# --- wheels -------------------------------------------------------------------


def wheel_files(dist: Path) -> list[Path]:
    """Wheels in ``dist/`` and in the folders that downloaded artifacts make of it."""
    inside = [p for p in dist.glob("*/*.whl") if not re.match(r"release$|\.", p.parent.name)]
    return sorted([*dist.glob("*.whl"), *inside])


def check_wheels(
    dist: Path,
    head: str,
    version: TagVersion,
    platforms: Sequence[str],
    problems: Problems,
) -> list[Wheel]:
    """The wheels to release: sound, as built, of this version, one for every platform."""
    paths = wheel_files(dist)
    if not paths:
        problems.add("There is no wheel in dist/.", "Build them first: nox -s wheels.")
        return []
    sound = [wheel for path in paths if (wheel := _sound(path, problems))]
    _check_records(dist, head, sound, problems)
    wheels = _one_of_each(sound, problems)
    for wheel in wheels:
        if Version(wheel.version) != version.version:
            what = f"{wheel.name} has version {wheel.version}, not {version.version}."
            todo = f"Remove it from dist/, and build with {version.tag} checked out."
            problems.add(what, todo)
        if wheel.size > LARGEST:
            what = f"{wheel.name} has {wheel.size} bytes; GitHub takes less than 2 GiB."
            problems.add(what, "Split it, or publish it elsewhere.")
    projects = sorted({wheel.project for wheel in wheels})
    if len(projects) > 1:
        what = f"The wheels are of several projects: {', '.join(projects)}."
        problems.add(what, "Keep one of them.")
    if len(sound) == len(paths):
        _check_platforms(wheels, platforms, problems)
    return wheels


def _sound(path: Path, problems: Problems) -> Wheel | None:
    """The wheel in a file, or a problem."""
    try:
        wheel = read_wheel(path)
        with zipfile.ZipFile(path) as archive:
            if broken := archive.testzip():
                raise PipelineError(f"Its member {broken} has a wrong checksum.")
        return wheel
    except (PipelineError, zipfile.BadZipFile, OSError, ValueError) as error:
        what = f"{path.parent.name}/{path.name} is damaged: {str(error).rstrip('.')}."
        problems.add(what, _AGAIN)
        return None


def _check_records(dist: Path, head: str, wheels: Iterable[Wheel], problems: Problems) -> None:
    """Compare with the ``wheels.json`` that the builds wrote beside their wheels."""
    digests = {wheel.path: wheel.sha256 for wheel in wheels}
    for path in sorted([*dist.glob(RECORD), *dist.glob(f"*/{RECORD}")]):
        where = path.relative_to(dist.parent).as_posix()
        try:
            record = files.read_json(path, WheelsRecord, _AGAIN)
        except PipelineError as error:
            problems.append(error)
            continue
        if (_commit_of(dist.parent, record.commit) or record.commit) != head:
            other = record.commit[:7]
            problems.add(f"{where} is of {other}, but {head[:7]} is checked out.", _AGAIN)
        for built in record.wheels:
            sha256 = digests.get(path.parent / built.name)
            if sha256 != built.sha256:
                state = "is not the file that was built" if sha256 else "is missing"
                problems.add(f"{built.name} {state} ({where}).", _AGAIN)


def _one_of_each(wheels: Iterable[Wheel], problems: Problems) -> list[Wheel]:
    """One wheel for each name: the jobs of a matrix each hand over the same pure wheel.

    Names that differ in case alone are one name on some file systems.
    """
    kept: dict[str, Wheel] = {}
    for wheel in wheels:
        other = kept.setdefault(wheel.name.lower(), wheel)
        if (other.name, other.sha256) != (wheel.name, wheel.sha256):
            folders = f"{other.path.parent.name} and {wheel.path.parent.name}"
            what = f"There are two different files {wheel.name}, in {folders}."
            problems.add(what, "Remove the wrong one; copies must be byte-identical.")
    return sorted(kept.values(), key=lambda wheel: wheel.name)


def serves(wheel: Wheel, platform: str) -> bool:
    """Whether a wheel can be installed on a platform (``linux-x64``): ``any`` serves all."""
    pattern = f"any|{_PLATFORM_TAGS[platform]}"
    return any(re.fullmatch(pattern, tag.rpartition("-")[2]) for tag in wheel.tags)


def _check_platforms(
    wheels: Sequence[Wheel], platforms: Iterable[str], problems: Problems
) -> None:
    """Every required platform is known, and served."""
    for platform in platforms:
        if platform not in _PLATFORM_TAGS:
            what = f"WHEEL_PLATFORMS names {platform}, which is not a known platform."
            problems.append(UsageError(what, f"Use {', '.join(_PLATFORM_TAGS)}."))
        elif not any(serves(wheel, platform) for wheel in wheels):
            what = f"No wheel in dist/ serves {platform}."
            todo = "Build it there, or take the platform out of WHEEL_PLATFORMS."
            problems.add(what, todo)


# --- images -------------------------------------------------------------------


def check_images(
    root: Path, head: str, version: TagVersion, problems: Problems
) -> list[ImageRecord]:
    """Images of this version that were pushed; a record of another one is a problem.

    No record is not a problem: images may be built elsewhere, or later than the release.
    """
    pushed = []
    for image in IMAGES:
        if not (folder(root) / f"{image}.json").exists():
            continue
        try:
            record = read(image, root)
        except PipelineError as error:
            problems.append(error)
            continue
        commit = _commit_of(root, record.revision) or record.revision
        if commit != head or Version(record.version) != version.version:
            version_here = f"{record.version} ({record.revision[:7]})"
            what = f"dist/images/{image}.json is of {version_here}."
            problems.add(what, f"Remove it, or build the image of {head[:7]}.")
        elif record.output == "push":
            pushed.append(record)
    return pushed
