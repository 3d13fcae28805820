"""State of a simulated service: tables on disk, every change kept in order.

The journal is the state: a restarted service reads it again, and a test replays it to
ask what was true after each single change.
"""

import json
import threading
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
        self._path.touch()
        for self.tables in self.history():
            pass
        self._journal = self._path.open("a", encoding="utf-8")

    def close(self) -> None:
        """Close the journal."""
        self._journal.close()

    def put(self, table: str, key: object, value: Any) -> None:
        """Set a value, all of it; None removes it."""
        with self.lock:
            entry = [table, str(key), value]
            self._journal.write(json.dumps(entry) + "\n")
            self._journal.flush()
            _apply(self.tables, *entry)

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
            lines = self._path.read_text(encoding="utf-8").splitlines()
        tables: Tables = {}
        for line in lines:
            _apply(tables, *json.loads(line))
            yield tables


def _apply(tables: Tables, table: str, key: str, value: Any) -> None:
    values = tables.setdefault(table, {})
    if value is None:
        values.pop(key, None)
    else:
        values[key] = value
