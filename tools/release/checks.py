"""What must be true before a release touches anything; all that is not, at once."""

import re
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from github.Repository import Repository
from packaging.version import Version

from tools.core import files
from tools.core.errors import PipelineError
from tools.github.errors import GitHubError
from tools.images.record import ImageRecord, folder
from tools.release.publish import persist
from tools.repo import git
from tools.repo.versions import TagVersion, parse_tag
from tools.wheels.archive import RECORD, Wheel, WheelsRecord, read_wheel

T = TypeVar("T")
# Source: PyPA, "Platform compatibility tags".
PLATFORM_TAGS = {
    "linux-x64": r"(manylinux\w*|musllinux_\w*|linux)_x86_64",
    "linux-arm64": r"(manylinux\w*|musllinux_\w*|linux)_aarch64",
    "windows-x64": r"win_amd64",
    "windows-arm64": r"win_arm64",
    "macos-x64": r"macosx_\d+_\d+_(x86_64|universal2)",
    "macos-arm64": r"macosx_\d+_\d+_(arm64|universal2)",
}


@dataclass
class Candidate:
    """What a release would consist of, and what stands against it."""

    root: Path
    version: TagVersion
    commit: str  # that is checked out
    wheels: list[Wheel] = field(default_factory=list)  # by name
    images: list[ImageRecord] = field(default_factory=list)  # that were pushed
    generated: str = ""  # the notes that GitHub writes
    problems: list[PipelineError] = field(default_factory=list)

    def add(self, message: str, remedy: str) -> None:
        """A problem."""
        self.problems.append(PipelineError(message, remedy))

    def commit_of(self, name: str) -> str:
        """The commit that a name or hash, an annotated tag's too, stands for, or empty."""
        name = f"{name}^{{commit}}"
        return git.git(self.root, "rev-parse", "-q", "--verify", name, check=False)

    def check_tag(self) -> None:
        """The tag is here, and points at the commit that is checked out."""
        tag, commit = self.version.tag, self.commit_of(f"refs/tags/{self.version.tag}")
        if not commit:
            create = f"Create it (git tag -a {tag} -m {tag}) or fetch it (git fetch --tags)."
            self.add(f"The tag {tag} does not exist in this clone.", create)
        elif commit != self.commit:
            commits = f"{commit[:7]}, but {self.commit[:7]} is checked out"
            todo = f"Check the tag out: git checkout {tag}."
            self.add(f"The tag {tag} points at {commits}.", todo)

    def check_github(self, repository: Repository) -> None:
        """GitHub has the tag, and writes notes of it, for which a token must be allowed to
        write contents; nothing is changed.
        """
        tag = self.version.tag
        there = repository.get_commit(f"tags/{tag}")
        try:
            notes = persist("release notes", lambda: repository.generate_release_notes(tag))
            self.generated = notes.body
            commit = persist(f"the tag {tag}", lambda: there.complete().sha)
        except GitHubError as error:
            if error.status == 422:  # "No commit found for SHA: tags/..."
                self.add(f"The tag {tag} is not on GitHub.", f"Push it: git push origin {tag}.")
            else:
                self.problems.append(error)
            return
        if commit != self.commit:
            what = f"The tag {tag} on GitHub points at {commit[:7]}, here at {self.commit[:7]}."
            todo = "Fetch it (git fetch --tags --force), and never move a tag that was pushed."
            self.add(what, todo)

    def check_wheels(self, platforms: Sequence[str]) -> None:
        """The wheels in ``dist/`` and in the folders that downloaded artifacts make of it are
        sound, as built, of this version, and serve every platform.
        """
        dist, version = self.root / "dist", self.version.version
        paths = [p for p in dist.glob("[!.]*/*.whl") if p.parent.name != "release"]
        paths = sorted([*dist.glob("*.whl"), *paths])
        if not paths:
            self.add("There is no wheel in dist/.", "Build them first: nox -s wheels.")
            return
        sound = {path: wheel for path in paths if (wheel := self.read_sound(path))}
        self.compare_with_records(sound)
        wheels: dict[str, Wheel] = {}  # each job of the matrix hands over the same pure wheel
        for path, wheel in sound.items():
            other = wheels.setdefault(wheel.name, wheel)
            if other.sha256 != wheel.sha256:
                folders = f"{other.path.parent.name} and {path.parent.name}"
                what = f"There are two different files {wheel.name}, in {folders}."
                self.add(what, "Remove the wrong one; copies must be byte-identical.")
        self.wheels = sorted(wheels.values(), key=lambda wheel: wheel.name)
        for wheel in self.wheels:
            if Version(Version(wheel.version).public) != version:  # a flavour may be local
                what = f"{wheel.name} has version {wheel.version}, not {version}."
                todo = f"Remove it from dist/, and build with {self.version.tag} checked out."
                self.add(what, todo)
        for platform in platforms:
            if not any(serves(wheel, platform) for wheel in self.wheels):
                todo = "Build it there, or take the platform out of WHEEL_PLATFORMS."
                self.add(f"No wheel in dist/ serves {platform}.", todo)

    def read_sound(self, path: Path) -> Wheel | None:
        """The wheel in a file, or a problem."""
        try:
            with zipfile.ZipFile(path) as archive:
                if broken := archive.testzip():
                    raise ValueError(f"its member {broken} has a wrong checksum")
            return read_wheel(path)
        except (PipelineError, zipfile.BadZipFile, OSError, ValueError) as error:
            what = f"{path.parent.name}/{path.name} is damaged: {str(error).rstrip('.')}."
            self.add(what, "Build again: nox -s wheels.")
            return None

    def read_record(self, path: Path, kind: type[T], key: str) -> T | None:
        """The record (JSON) of a build; a problem if it cannot be read, or its ``key`` is not
        the commit that is checked out.
        """
        where, todo = path.relative_to(self.root).as_posix(), "Build again, or remove it."
        try:
            record = files.read_json(path, kind, todo)
        except PipelineError as error:
            self.problems.append(error)
            return None
        commit: str = getattr(record, key)
        if self.commit_of(commit) != self.commit:
            commits = f"{commit[:7]}, but {self.commit[:7]} is checked out"
            self.add(f"{where} is of {commits}.", todo)
        return record

    def compare_with_records(self, wheels: Mapping[Path, Wheel]) -> None:
        """The wheels are those of the ``wheels.json`` that the builds wrote beside them."""
        dist = self.root / "dist"
        for path in sorted([*dist.glob(RECORD), *dist.glob(f"*/{RECORD}")]):
            record = self.read_record(path, WheelsRecord, "commit")
            for built in record.wheels if record else ():
                wheel = wheels.get(path.parent / built.name)
                if not wheel or wheel.sha256 != built.sha256:
                    state = "is not the file that was built" if wheel else "is missing"
                    what = f"{built.name} {state} ({path.relative_to(self.root)})."
                    self.add(what, "Build again: nox -s wheels.")

    def check_images(self) -> None:
        """The images of which there are records; others may be built elsewhere, or later."""
        for path in sorted(folder(self.root).glob("*.json")):
            record = self.read_record(path, ImageRecord, "revision")
            if record and record.output == "push":
                self.images.append(record)


def serves(wheel: Wheel, platform: str) -> bool:
    """Whether a wheel can be installed on a platform (``linux-x64``): ``any`` serves all."""
    pattern = f"any|{PLATFORM_TAGS.get(platform)}"
    return any(re.fullmatch(pattern, tag.rpartition("-")[2]) for tag in wheel.tags)


def check(
    root: Path, tag: str, platforms: Sequence[str], repository: Repository | None
) -> Candidate:
    """Check everything, and raise all problems together. Each of ``platforms`` (``linux-x64``)
    must have a wheel; without ``repository`` GitHub is not asked.
    """
    candidate = Candidate(root, parse_tag(tag), git.head(root))
    candidate.check_tag()
    candidate.check_wheels(platforms)
    candidate.check_images()
    if repository:
        candidate.check_github(repository)
    if len(problems := candidate.problems) == 1:
        raise problems[0]
    if problems:
        raise PipelineError(
            f"{len(problems)} things stand against the release of {tag}; nothing was done.",
            "See the list above.",
            "\n".join(f"- {one.message}\n  what to do: {one.remedy}" for one in problems),
        )
    return candidate
