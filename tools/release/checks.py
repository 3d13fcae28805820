"""What must be true before a release touches anything; all that is not, at once."""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from packaging.version import Version

from tools.core.errors import PipelineError, UsageError
from tools.images.record import IMAGES, ImageRecord, folder, read
from tools.repo import git
from tools.repo.versions import TagVersion, parse_tag
from tools.wheels.archive import Wheel, read_wheel, sha256_of

# "Each file included in a release must be under 2 GiB" (GitHub, "About releases").
LARGEST = 2 * 1024**3 - 1
# GitHub renames other characters away ("Upload a release asset").
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")
_OS_TAGS = {
    "linux": r"(manylinux\w*|musllinux_\w*|linux)_{arch}",
    "windows": r"win_{arch}|win32",
    "macos": r"macosx_\d+_\d+_({arch}|universal2)",
}
_ARCHITECTURES = {
    ("linux", "x64"): "x86_64",
    ("linux", "arm64"): "aarch64",
    ("windows", "x64"): "amd64",
    ("windows", "arm64"): "arm64",
    ("macos", "x64"): "x86_64",
    ("macos", "arm64"): "arm64",
}


@dataclass
class Problems:
    """What is wrong, with what to do about each; collected, then reported together."""

    found: list[PipelineError] = field(default_factory=list)

    def add(self, what: str, remedy: str = "") -> None:
        """Note a failure of the work (exit code 1)."""
        self.found.append(PipelineError(what, remedy))

    def note(self, error: PipelineError) -> None:
        """Note an error as it is."""
        self.found.append(error)

    def report(self, tag: str) -> None:
        """Raise all that was found as one error; nothing if nothing was.

        Raises:
            UsageError: One of them is a matter of usage or settings.
            PipelineError: All of them are failures of the work.
        """
        if not self.found:
            return
        if len(self.found) == 1:
            raise self.found[0]
        lines = []
        for error in self.found:
            lines.append(f"- {error.message}")
            lines += [f"  what to do: {error.remedy}"] if error.remedy else []
        usage = any(error.exit_code == UsageError.exit_code for error in self.found)
        raise (UsageError if usage else PipelineError)(
            f"{len(self.found)} things stand against the release of {tag}; nothing was done.",
            "See the list above.",
            "\n".join(lines),
        )


# --- tag and commit -----------------------------------------------------------


def check_tag(root: Path, tag: str, problems: Problems) -> tuple[TagVersion | None, str]:
    """The version of a tag that points at the checked-out commit, and that commit."""
    head = git.git(root, "rev-parse", "--verify", "HEAD", check=False)
    if not head:
        problems.note(UsageError(f"{root} is not a git checkout.", "Release from a clone."))
    try:
        version = parse_tag(tag)
    except UsageError as error:
        problems.note(error)
        return None, head
    commit = git.git(
        root, "rev-parse", "--verify", "--quiet", f"refs/tags/{tag}^{{commit}}", check=False
    )
    if not commit:
        problems.add(
            f"The tag {tag} does not exist in this clone.",
            f"Make it (git tag -a {tag} -m {tag}) or fetch it (git fetch --tags).",
        )
    elif commit != head:
        problems.add(
            f"The tag {tag} points at {commit[:7]}, but {head[:7]} is checked out.",
            f"Check the tag out: git checkout {tag}.",
        )
    return version, head


def commit_of(root: Path, name: str) -> str:
    """The commit that a hash stands for, which may be that of an annotated tag."""
    return (
        git.git(root, "rev-parse", "-q", "--verify", f"{name}^{{commit}}", check=False) or name
    )


# --- wheels -------------------------------------------------------------------


def platform_pattern(platform: str) -> re.Pattern[str] | None:
    """The platform tags of wheels that serve ``linux-x64`` and the like; None if unknown."""
    system, _, arch = platform.partition("-")
    found = _ARCHITECTURES.get((system, arch))
    if found is None:
        return None
    return re.compile(_OS_TAGS[system].replace("{arch}", found))


def serves(wheel: Wheel, platform: str) -> bool:
    """Whether a wheel can be installed on a platform: ``any`` serves all of them.

    Source: PyPA, "Platform compatibility tags".
    """
    pattern = platform_pattern(platform)
    tags = [tag.rpartition("-")[2] for tag in wheel.tags]
    return any(tag == "any" or (pattern and pattern.fullmatch(tag)) for tag in tags)


def wheel_files(dist: Path) -> list[Path]:
    """Wheels in ``dist/`` and in the folders that downloaded artifacts make of it."""
    inside = [
        path
        for path in dist.glob("*/*.whl")
        if path.parent.name != "release" and not path.parent.name.startswith(".")
    ]
    return sorted([*dist.glob("*.whl"), *inside])


def _sound(path: Path, problems: Problems) -> Wheel | None:
    """The wheel in a file, or a problem noted."""
    name = f"{path.parent.name}/{path.name}"
    again = "Build it again: nox -s wheels."
    if path.stat().st_size == 0:
        problems.add(f"{name} is empty.", again)
        return None
    try:
        wheel = read_wheel(path)
        with zipfile.ZipFile(path) as archive:
            broken = archive.testzip()
    except (PipelineError, zipfile.BadZipFile, OSError, ValueError) as error:
        problems.add(f"{name} is damaged: {error}", again)
        return None
    if broken:
        problems.add(f"{name} is damaged: its member {broken} has a wrong checksum.", again)
        return None
    return wheel


def _one_of_each(wheels: Iterable[Wheel], problems: Problems) -> list[Wheel]:
    """One wheel for each name: equal copies are one file, different ones are refused.

    The jobs of a build matrix that make a pure wheel each hand over the same file.
    Names that differ in case alone are one name on some file systems.
    """
    kept: dict[str, Wheel] = {}
    for wheel in wheels:
        other = kept.setdefault(wheel.name.lower(), wheel)
        if (other.name, other.sha256) != (wheel.name, wheel.sha256):
            problems.add(
                f"There are two different files {wheel.name}, in"
                f" {other.path.parent.name} and {wheel.path.parent.name}.",
                "Remove the wrong one; builds of one name must be byte-identical.",
            )
    return sorted(kept.values(), key=lambda wheel: wheel.name)


def _indexed(dist: Path, head: str, wheels: Sequence[Wheel], problems: Problems) -> None:
    """Compare with the ``wheels.json`` that the builds wrote beside their wheels."""
    digests = {(wheel.path.parent, wheel.name): wheel.sha256 for wheel in wheels}
    for path in sorted([*dist.glob("wheels.json"), *dist.glob("*/wheels.json")]):
        where = path.relative_to(dist.parent).as_posix()
        try:
            index = json.loads(path.read_text(encoding="utf-8"))
            commit = commit_of(dist.parent, str(index["commit"]))
            listed = [(str(entry["name"]), str(entry["sha256"])) for entry in index["wheels"]]
        except (OSError, ValueError, KeyError, TypeError) as error:
            problems.add(f"{where} cannot be read: {error}.", "Build again: nox -s wheels.")
            continue
        if commit != head:
            problems.add(
                f"{where} was built for {commit[:7]}, but {head[:7]} is checked out.",
                "Build again: nox -s wheels.",
            )
        for name, digest in listed:
            found = digests.get((path.parent, name))
            if found != digest:
                state = "is missing" if found is None else "is not the file that was built"
                problems.add(f"{name} {state} ({where}).", "Build again: nox -s wheels.")


def check_wheels(
    dist: Path,
    head: str,
    version: TagVersion | None,
    platforms: Sequence[str],
    problems: Problems,
) -> list[Wheel]:
    """The wheels to release: sound, of this version, one for every platform."""
    files = wheel_files(dist)
    if not files:
        problems.add("There is no wheel in dist/.", "Build them first: nox -s wheels.")
        return []
    sound = [wheel for wheel in (_sound(path, problems) for path in files) if wheel]
    _indexed(dist, head, sound, problems)
    wheels = _one_of_each(sound, problems)
    for wheel in wheels:
        if version and Version(wheel.version) != version.version:
            problems.add(
                f"{wheel.name} has version {wheel.version}, not {version.version}.",
                f"Remove it from dist/, and build with {version.tag} checked out.",
            )
    if len({wheel.project for wheel in wheels}) > 1:
        names = ", ".join(sorted({wheel.project for wheel in wheels}))
        problems.add(f"The wheels are of several projects: {names}.", "Keep one of them.")
    for platform in platforms:
        if platform_pattern(platform) is None:
            problems.note(
                UsageError(
                    f"WHEEL_PLATFORMS names {platform}, which is no known platform.",
                    "Use " + ", ".join("-".join(pair) for pair in _ARCHITECTURES) + ".",
                )
            )
        elif len(sound) == len(files) and not any(serves(wheel, platform) for wheel in wheels):
            problems.add(
                f"No wheel in dist/ serves {platform}.",
                "Build it there, or take the platform out of WHEEL_PLATFORMS.",
            )
    return wheels


# --- images and files ---------------------------------------------------------


def check_images(
    root: Path, head: str, version: TagVersion | None, problems: Problems
) -> list[ImageRecord]:
    """Images of this version that were pushed; a record of another one is a problem.

    No record is none: images may be built elsewhere, or later than the release. The
    notes then say that no digest is recorded.
    """
    found = []
    for image in IMAGES:
        if not (folder(root) / f"{image}.json").exists():
            continue
        try:
            record = read(image, root)
        except PipelineError as error:
            problems.note(error)
            continue
        same = commit_of(root, record.revision) == head
        if not same or (version and Version(record.version) != version.version):
            problems.add(
                f"dist/images/{image}.json is of {record.version} ({record.revision[:7]}).",
                f"Remove it, or build the image of {head[:7]}.",
            )
        elif record.output == "push":
            found.append(record)
    return found


def check_files(paths: Iterable[Path], problems: Problems) -> None:
    """What GitHub takes as an asset: the name as it is, and not too large."""
    for path in paths:
        if not _NAME.fullmatch(path.name) or path.name.endswith("."):
            problems.add(
                f"GitHub would rename {path.name}.",
                "Use letters, digits, '.', '_' and '-' alone, not '.' at an end.",
            )
        if path.stat().st_size > LARGEST:
            problems.add(
                f"{path.name} has {path.stat().st_size} bytes; GitHub takes less than 2 GiB.",
                "Split it, or publish it elsewhere.",
            )


def same_file(path: Path, size: int, sha256: str) -> bool:
    """Whether there is a file with this content."""
    return path.is_file() and path.stat().st_size == size and sha256_of(path) == sha256
