"""Wheels as data: one file, the record of a build, and the one form of a wheel's bytes."""

import datetime
import email
import stat
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from packaging.utils import canonicalize_name, parse_wheel_filename
from packaging.version import InvalidVersion, Version

from tools.core import console, files
from tools.core.errors import PipelineError

RECORD = "wheels.json"
REQUIREMENTS = "requirements.txt"  # beside it: what a wheel requires, pinned with hashes
EARLIEST = 315_532_800  # 1980: a ZIP file cannot say an earlier time (APPNOTE.TXT 4.4.6)


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
    """A wheel in ``wheels.json``; the first fields are those of :class:`Wheel`."""

    name: str
    size: int
    sha256: str
    tags: tuple[str, ...]
    flavour: str = ""  # that it was built in; the stand-in has none
    companion: str = ""  # the requirement of its TVM, which it declares
    abi: Mapping[str, int] = field(default_factory=dict)  # symbols imported, by who has them


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
    """What a wheel file is; PipelineError if it is none, or its name and metadata differ.

    Source: PyPA, "Binary distribution format".
    """
    try:
        name, version, _, tags = parse_wheel_filename(path.name)
        with zipfile.ZipFile(path) as archive:
            inside = [n for n in archive.namelist() if n.endswith(".dist-info/METADATA")]
            metadata = email.message_from_bytes(archive.read(inside[0]))
    except (ValueError, zipfile.BadZipFile, IndexError, OSError) as error:
        raise PipelineError(f"{path.name} is not a wheel: {error}.") from error
    stated_name, stated = str(metadata["Name"]), str(metadata["Version"])
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
        names = (member.filename for member in old.infolist() if not member.is_dir())
        # Metadata at the end, its RECORD last ("Recommended archiver features").
        for name in sorted(names, key=lambda n: (".dist-info/" in n, n.endswith("/RECORD"), n)):
            executable = (old.getinfo(name).external_attr >> 16) & 0o111
            info = zipfile.ZipInfo(name, moment.timetuple()[:6])
            info.compress_type = zipfile.ZIP_DEFLATED
            info.create_system = 3  # Unix: the modes below are read as such
            info.external_attr = (stat.S_IFREG | (0o755 if executable else 0o644)) << 16
            new.writestr(info, old.read(name))


def compare(first: Wheel, second: Wheel) -> None:
    """Two builds must be the same byte for byte: else the PipelineError names the members."""
    if (second.name, second.sha256) == (first.name, first.sha256):
        console.say(f"{first.name}: two builds in different folders are byte-identical")
        return
    with zipfile.ZipFile(first.path) as one, zipfile.ZipFile(second.path) as other:
        members = [{(m.filename, m.CRC) for m in wheel.infolist()} for wheel in (one, other)]
    raise PipelineError(
        f"Two builds of {first.name} differ.",
        "Look for times, random names or absolute paths in the members named above.",
        "\n".join(sorted({f"differs: {name}" for name, _ in members[0] ^ members[1]})),
    )
