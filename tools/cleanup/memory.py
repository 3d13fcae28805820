"""What a run remembers for the next: manifests, which never change, and what it deleted.

So a second run reads new manifests alone, and a part that a push needed after all can be
brought back later.
"""

from __future__ import annotations

import gzip
import sys
import zlib
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

from tools.cleanup.package import NO_LINKS, Links
from tools.core import files
from tools.core.console import warn

KEEP_DELETED = 30 * 86400.0  # seconds for which GitHub can restore


@dataclass
class Memory:
    """What earlier runs know of a package.

    Attributes:
        package: What it belongs to: a file of another package is not used.
        links: What manifests say of others, by digest.
        deleted: Digest to GitHub's number and the time (seconds since the epoch).
    """

    package: str
    links: dict[str, Links] = field(default_factory=dict)
    deleted: dict[str, tuple[int, float]] = field(default_factory=dict)


@dataclass
class _File:
    """The file's content: the many manifests that name no other are a list of digests."""

    package: str
    links: dict[str, Links]
    plain: list[str]
    deleted: dict[str, tuple[int, float]]


def load(path: Path | None, package: str) -> Memory:
    """Read the file; empty if it is absent, damaged, or of another package."""
    if path is None or not path.exists():
        return Memory(package)
    try:
        content = files.parse_json(gzip.decompress(path.read_bytes()), _File)
    except (OSError, EOFError, zlib.error, ValueError):
        warn(f"{path} is damaged and is not used: all manifests are read again.")
        return Memory(package)
    if content.package != package:
        return Memory(package)
    links = {sys.intern(digest): one for digest, one in content.links.items()}
    links |= {sys.intern(digest): NO_LINKS for digest in content.plain}
    return Memory(package, links, content.deleted)


def save(path: Path | None, memory: Memory, there: Collection[str], now: float) -> None:
    """Write the file, without what is gone (``there`` is what the package has)."""
    if path is None:
        return
    import msgspec

    links = {digest: one for digest, one in memory.links.items() if digest in there}
    content = _File(
        memory.package,
        {digest: one for digest, one in links.items() if one != NO_LINKS},
        [digest for digest, one in links.items() if one == NO_LINKS],
        {
            digest: (number, when)
            for digest, (number, when) in memory.deleted.items()
            if when > now - KEEP_DELETED and digest not in there
        },
    )
    try:
        files.write(path, gzip.compress(msgspec.json.encode(content), 1))
    except OSError as error:
        warn(f"The manifests that were read cannot be kept in {path}: {error}.")
