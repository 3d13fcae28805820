"""State of a simulated service: tables on disk, every change kept in order.

The journal is the state: a restarted service reads it again, and a test replays it to
ask what was true after each single change.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

Tables = dict[str, dict[str, Any]]


class Store:
    """Tables of JSON values, each change appended to ``journal.jsonl`` before it counts.

    Hold ``lock`` over several calls that belong together.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.lock = threading.RLock()
        self.tables: Tables = {}
        self._path = folder / "journal.jsonl"
        for entry in read_journal(self._path):
            apply(self.tables, entry)
        self._journal = self._path.open("a", encoding="utf-8")

    def close(self) -> None:
        """Close the journal."""
        self._journal.close()

    def _change(self, entry: dict[str, Any]) -> None:
        with self.lock:
            self._journal.write(json.dumps(entry) + "\n")
            self._journal.flush()
            apply(self.tables, entry)

    def put(self, table: str, key: object, value: Any) -> None:
        """Set a value, all of it."""
        self._change({"t": time.time(), "table": table, "key": str(key), "value": value})

    def drop(self, table: str, key: object) -> None:
        """Remove a value."""
        self._change({"t": time.time(), "table": table, "key": str(key)})

    def get(self, table: str, key: object) -> Any:
        """A value, or None."""
        with self.lock:
            return self.tables.get(table, {}).get(str(key))

    def all(self, table: str) -> list[Any]:
        """All values of a table, in the order in which they first came."""
        with self.lock:
            return list(self.tables.get(table, {}).values())

    def next_id(self) -> int:
        """A number that was never given before, higher than all others."""
        with self.lock:
            number = int(self.get("meta", "id") or 1000) + 1
            self.put("meta", "id", number)
            return number

    def history(self) -> Iterator[Tables]:
        """The tables after each change, from the first on (one object, updated)."""
        with self.lock:
            entries = list(read_journal(self._path))
        tables: Tables = {}
        for entry in entries:
            apply(tables, entry)
            yield tables


def read_journal(path: Path) -> Iterator[dict[str, Any]]:
    """The changes in a journal, in order."""
    if path.exists():
        for line in path.read_text(encoding="utf-8").splitlines():
            yield json.loads(line)


def apply(tables: Tables, entry: dict[str, Any]) -> None:
    """Carry one change out."""
    table = tables.setdefault(entry["table"], {})
    if "value" in entry:
        table[entry["key"]] = entry["value"]
    else:
        table.pop(entry["key"], None)
