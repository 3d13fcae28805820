"""Wheels as data: one file, the record of a build, and the one form of a wheel's bytes."""

from __future__ import annotations

import datetime
import email.parser
import stat
import zipfile
from dataclasses import dataclass
from pathlib import Path

from packaging.utils import canonicalize_name, parse_wheel_filename
from packaging.version import InvalidVersion, Version

from tools.core import files
from tools.core.errors import PipelineError

RECORD = "wheels.json"
# A ZIP file cannot say an earlier time (APPNOTE.TXT 4.4.6, "date and time fields").
EARLIEST = int(datetime.datetime(1980, 1, 1, tzinfo=datetime.UTC).timestamp())


@dataclass(frozen=True)
class Wheel:
    """One wheel file."""

    path: Path
    project: str  # normalized name of the distribution
    version: str  # as its metadata says
    tags: tuple[str, ...]  # compatibility tags, sorted
    size: int  # bytes
    sha256: str  # hexadecimal

    @property
    def name(self) -> str:
        """The file's name."""
        return self.path.name

    @property
    def pure(self) -> bool:
        """Whether it fits every platform."""
        return all(tag.endswith("-any") for tag in self.tags)


@dataclass(frozen=True)
class RecordedWheel:
    """A wheel in ``wheels.json``; the fields are those of :class:`Wheel`."""

    name: str
    size: int
    sha256: str
    tags: tuple[str, ...]


@dataclass(frozen=True)
class RecordedSource:
    """What the wheels of a ``wheels.json`` were built from."""

    kind: str  # stand-in, folder or git
    commit: str | None  # None where git does not know the source
    modified: bool  # whether it had changes that were not committed


@dataclass(frozen=True)
class WheelsRecord:
    """The contents of ``wheels.json``."""

    version: str
    commit: str  # of the pipeline
    source: RecordedSource
    wheels: tuple[RecordedWheel, ...]


def read_wheel(path: Path) -> Wheel:
    """What a wheel file is.

    Raises:
        PipelineError: It is not a wheel, or its name and its metadata differ.

    Source: PyPA, "Binary distribution format".
    """
    try:
        name, version, _, tags = parse_wheel_filename(path.name)
        with zipfile.ZipFile(path) as archive:
            inside = [n for n in archive.namelist() if n.endswith(".dist-info/METADATA")]
            metadata = archive.read(inside[0]).decode("utf-8")
    except (ValueError, zipfile.BadZipFile, IndexError, OSError) as error:
        raise PipelineError(f"{path.name} is not a wheel: {error}.") from error
    headers = email.parser.HeaderParser().parsestr(metadata)
    stated_name, stated = str(headers["Name"]), str(headers["Version"])
    if canonicalize_name(stated_name) != name or not same_version(stated, str(version)):
        raise PipelineError(
            f"{path.name} holds the metadata of {stated_name} {stated}.",
            "Its build backend is at fault: name and metadata of a wheel must agree.",
        )
    size, sha256 = path.stat().st_size, files.sha256(path)
    return Wheel(path, name, stated, tuple(sorted(map(str, tags))), size, sha256)


def same_version(one: str, other: str) -> bool:
    """Whether two texts are the same version (``1.0`` and ``1.0.0`` are)."""
    try:
        return Version(one) == Version(other)
    except InvalidVersion:
        return False


def members(path: Path) -> list[str]:
    """Names of the files in a wheel."""
    with zipfile.ZipFile(path) as archive:
        return [member.filename for member in archive.infolist() if not member.is_dir()]


def canonicalize(source: Path, target: Path, created: int) -> None:
    """Write a wheel's one form: the same contents always give the same bytes.

    Backends and auditwheel differ in what they take over from the file system; in
    ``target`` the order is by name, times are ``created`` (seconds since the epoch), modes
    644 or 755, and folders have no entries. Contents stay as they are, and so RECORD true.
    """
    moment = datetime.datetime.fromtimestamp(max(created, EARLIEST), datetime.UTC)
    with (
        zipfile.ZipFile(source) as old,
        zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as new,
    ):
        for name in sorted(members(source), key=_rank):
            executable = (old.getinfo(name).external_attr >> 16) & 0o111
            info = zipfile.ZipInfo(name, moment.timetuple()[:6])
            info.compress_type = zipfile.ZIP_DEFLATED
            info.create_system = 3  # Unix: the modes below are read as such
            info.external_attr = (stat.S_IFREG | (0o755 if executable else 0o644)) << 16
            new.writestr(info, old.read(name))


def _rank(name: str) -> tuple[bool, bool, str]:
    """Order in the archive: metadata at the end, its RECORD last of all.

    Source: PyPA, "Binary distribution format", "Recommended archiver features".
    """
    return ".dist-info/" in name, name.endswith(".dist-info/RECORD"), name


def differences(one: Path, other: Path) -> list[str]:
    """Names of the members in which two wheels differ, sorted."""
    contents = []
    for path in (one, other):
        with zipfile.ZipFile(path) as archive:
            contents.append({(member.filename, member.CRC) for member in archive.infolist()})
    return sorted({name for name, _ in contents[0] ^ contents[1]})
