"""Wheel files as data: name, version, tags, digest; and the one form of their bytes."""

from __future__ import annotations

import datetime
import email.parser
import hashlib
import stat
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename
from packaging.version import Version

from tools.core.errors import PipelineError

# A ZIP file cannot say an earlier time (APPNOTE.TXT 4.4.6, "date and time fields").
EARLIEST = int(datetime.datetime(1980, 1, 1, tzinfo=datetime.UTC).timestamp())


@dataclass(frozen=True)
class Wheel:
    """One wheel file.

    Attributes:
        path: Where it is.
        project: Normalized name of the distribution.
        version: Version of its metadata, as written there.
        tags: Compatibility tags, sorted.
        size: Bytes.
        sha256: Digest of the file, hexadecimal.
    """

    path: Path
    project: str
    version: str
    tags: tuple[str, ...]
    size: int
    sha256: str

    @property
    def name(self) -> str:
        """The file's name."""
        return self.path.name

    @property
    def pure(self) -> bool:
        """Whether it fits every platform."""
        return all(tag.endswith("-any") for tag in self.tags)

    def to_json(self) -> dict[str, Any]:
        """Its entry in ``wheels.json``."""
        return {
            "name": self.name,
            "size": self.size,
            "sha256": self.sha256,
            "tags": list(self.tags),
        }


def sha256_of(path: Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def read_wheel(path: Path) -> Wheel:
    """What a wheel file is.

    Raises:
        PipelineError: It is no wheel, or its name and its metadata differ.

    Source: PyPA, "Binary distribution format".
    """
    try:
        name, version, _, tags = parse_wheel_filename(path.name)
        with zipfile.ZipFile(path) as archive:
            inside = [n for n in archive.namelist() if n.endswith(".dist-info/METADATA")]
            metadata = archive.read(inside[0]).decode("utf-8")
    except (InvalidWheelFilename, zipfile.BadZipFile, IndexError, OSError) as error:
        raise PipelineError(f"{path.name} is not a wheel: {error}.") from error
    headers = email.parser.HeaderParser().parsestr(metadata)
    stated_name, stated = str(headers["Name"]), str(headers["Version"])
    if canonicalize_name(stated_name) != name or Version(stated) != version:
        raise PipelineError(
            f"{path.name} holds the metadata of {stated_name} {stated}.",
            "Its build backend is at fault: name and metadata of a wheel must agree.",
        )
    return Wheel(
        path=path,
        project=name,
        version=stated,
        tags=tuple(sorted(map(str, tags))),
        size=path.stat().st_size,
        sha256=sha256_of(path),
    )


def members(path: Path) -> list[str]:
    """Names of the files in a wheel."""
    with zipfile.ZipFile(path) as archive:
        return [member.filename for member in archive.infolist() if not member.is_dir()]


def check_version(wheel: Wheel, version: str) -> None:
    """Refuse a wheel of another version than the one that is being built.

    Raises:
        PipelineError: The versions differ.
    """
    if Version(wheel.version) != Version(version):
        raise PipelineError(
            f"{wheel.name} has version {wheel.version}, but {version} is being built.",
            "Make project.version of the source static, or take it from setuptools-scm "
            "(with dist_name set for hatch-vcs), so that the pipeline can give it.",
        )


def _rank(name: str) -> tuple[bool, bool, str]:
    """Order in the archive: metadata at the end, its RECORD last of all."""
    inside = ".dist-info/" in name
    return inside, inside and name.endswith(".dist-info/RECORD"), name


def canonicalize(source: Path, target: Path, created: int) -> None:
    """Write a wheel's one form: the same contents always give the same bytes.

    Backends and auditwheel differ in what they take over from the file system; here
    the order is by name, times are ``created``, modes 644 or 755, and folders have no
    entries. Contents stay as they are, so RECORD stays true.

    Args:
        source: The wheel as built.
        target: The file to write; another one.
        created: Seconds since the epoch, the time of all members.

    Source: PyPA, "Binary distribution format" (metadata is best placed at the end).
    """
    moment = datetime.datetime.fromtimestamp(max(created, EARLIEST), datetime.UTC)
    with (
        zipfile.ZipFile(source) as old,
        zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as new,
    ):
        members = [member for member in old.infolist() if not member.is_dir()]
        for member in sorted(members, key=lambda m: _rank(m.filename)):
            executable = (member.external_attr >> 16) & 0o111
            info = zipfile.ZipInfo(member.filename, moment.timetuple()[:6])
            info.compress_type = zipfile.ZIP_DEFLATED
            info.create_system = 3  # Unix: the modes below are read as such
            info.external_attr = (stat.S_IFREG | (0o755 if executable else 0o644)) << 16
            new.writestr(info, old.read(member))


def differences(one: Path, other: Path) -> list[str]:
    """Names of the members in which two wheels differ, sorted; for an error's detail."""
    with zipfile.ZipFile(one) as left, zipfile.ZipFile(other) as right:
        names = set(left.namelist()) | set(right.namelist())
        shared = set(left.namelist()) & set(right.namelist())
        return sorted(n for n in names if n not in shared or left.read(n) != right.read(n))
