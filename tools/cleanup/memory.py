"""What a run remembers for the next: manifests, which never change, and what it deleted.

So a second run reads new manifests alone, and a part that a push needed after all can be
brought back later.
"""

import gzip
import os
import re
import sys
import time
import zlib
from collections.abc import Collection
from pathlib import Path

import msgspec

from tools.cleanup.package import NO_LINKS, Links
from tools.core import files
from tools.core.console import warn
from tools.core.settings import Settings

KEEP_DELETED = 30 * 86400.0  # seconds for which GitHub can restore


class Memory(msgspec.Struct):
    """What earlier runs know of a package."""

    image: str  # whose it is: the file of another package is not used
    links: dict[str, Links] = {}  # what manifests say of others, by digest
    deleted: dict[str, tuple[int, float]] = {}  # digest to GitHub's number and the time


def path_of(settings: Settings) -> Path:
    """Where a run remembers the settings' image."""
    caches = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(settings.manifest_cache or Path(caches) / "mlc-pipeline" / "manifests")
    return folder / (re.sub("[/:]", "_", settings.image) + ".json.gz")


def load(settings: Settings) -> Memory:
    """Read the file; empty if it is absent, damaged, or of another package."""
    path, memory = path_of(settings), Memory(settings.image)
    if not path.exists():
        return memory
    try:
        read = files.parse_json(gzip.decompress(path.read_bytes()), Memory)
    except (OSError, EOFError, zlib.error, ValueError):
        warn(f"{path} is damaged and is not used: all manifests are read again.")
        return memory
    if read.image == memory.image:
        memory.deleted = read.deleted
        # Most manifests name no other: one object for all of these.
        for digest, links in read.links.items():
            memory.links[sys.intern(digest)] = NO_LINKS if links == NO_LINKS else links
    return memory


def save(settings: Settings, memory: Memory, there: Collection[str]) -> None:
    """Write the file, without manifests that are not ``there`` any more."""
    path, since = path_of(settings), time.time() - KEEP_DELETED
    links = {digest: one for digest, one in memory.links.items() if digest in there}
    deleted = {digest: one for digest, one in memory.deleted.items() if one[1] > since}
    try:
        content = msgspec.json.encode(Memory(memory.image, links, deleted))
        files.write(path, gzip.compress(content, 1))
    except OSError as error:
        warn(f"The manifests that were read cannot be kept in {path}: {error}.")
