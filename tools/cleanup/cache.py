"""Manifests that were read, kept between runs: their content never changes.

A file of compressed lines of JSON: a head, then one line a manifest. It also remembers what
was deleted, so that a part that a push needed after all can be brought back by a later run.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import sys
import tempfile
import zlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tools.cleanup.plan import PLAIN, Facts
from tools.core.console import warn

FORMAT = 1
# GitHub can restore for 30 days.
KEEP_DELETED = 30 * 86400.0
# What reading JSON of another shape than ours raises.
WRONG_CONTENT = (ValueError, KeyError, TypeError, IndexError, AttributeError)


@dataclass
class Cache:
    """What earlier runs know of a package.

    Attributes:
        path: The file; None keeps nothing.
        package: What it belongs to: a file of another package is not used.
        facts: By digest.
        deleted: Digest to GitHub's number and the time (seconds since the epoch).
    """

    path: Path | None = None
    package: str = ""
    facts: dict[str, Facts] = field(default_factory=dict)
    deleted: dict[str, tuple[int, float]] = field(default_factory=dict)

    def save(self, there: Collection[str], now: float) -> None:
        """Write the file, without what is gone; in one step, so that it is never half."""
        if self.path is None:
            return
        deleted = {
            digest: [number, when]
            for digest, (number, when) in self.deleted.items()
            if when > now - KEEP_DELETED and digest not in there
        }
        head = {"format": FORMAT, "package": self.package, "deleted": deleted}
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(dir=self.path.parent, prefix=".manifests-")
            try:
                with os.fdopen(handle, "wb") as raw, gzip.open(raw, "wt", 1) as text:
                    # A line a manifest: the whole as one value would cost more memory
                    # than all else.
                    text.write(json.dumps(head) + "\n")
                    for digest, facts in self.facts.items():
                        if digest in there:
                            text.write(json.dumps([digest, _pack(facts)]) + "\n")
                os.replace(name, self.path)
            except BaseException:
                with contextlib.suppress(OSError):
                    os.unlink(name)
                raise
        except OSError as error:
            warn(f"The manifests that were read cannot be kept in {self.path}: {error}.")


def _pack(facts: Facts) -> Any:
    """Facts as small JSON: 0 for the many that name no other manifest."""
    if facts == PLAIN:
        return 0
    nested = [facts.children.index(child) for child in facts.nested]
    return [list(facts.children), nested, facts.subject]


def _unpack(value: Any) -> Facts:
    if value == 0:
        return PLAIN
    children, nested, subject = value
    kept = tuple(sys.intern(str(child)) for child in children)
    return Facts(kept, tuple(kept[int(at)] for at in nested), sys.intern(str(subject)))


def load(path: Path | None, package: str) -> Cache:
    """Read the file; an empty cache if it is absent, damaged, or of another package."""
    cache = Cache(path, package)
    if path is None or not path.exists():
        return cache
    try:
        with gzip.open(path, "rt", encoding="utf-8") as text:
            head: Mapping[str, Any] = json.loads(text.readline())
            if head["format"] != FORMAT or head["package"] != package:
                return cache
            deleted = {str(d): (int(n), float(t)) for d, (n, t) in head["deleted"].items()}
            facts = {}
            for line in text:
                digest, packed = json.loads(line)
                facts[sys.intern(str(digest))] = _unpack(packed)
    except (OSError, EOFError, zlib.error, *WRONG_CONTENT):
        warn(f"{path} is damaged and is not used: all manifests are read again.")
        return cache
    cache.facts, cache.deleted = facts, deleted
    return cache
