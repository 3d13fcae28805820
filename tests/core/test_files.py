"""Files and JSON."""

import json
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tools.core import files
from tools.core.errors import PipelineError
from tools.core.secrets import Secret


def test_read_only_files_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows refuses to remove a file that is read-only, as git's objects are."""
    unlink = os.unlink

    def as_windows_does(path: str, **options: Any) -> None:
        if not os.stat(path, **options).st_mode & stat.S_IWRITE:
            raise PermissionError(path)
        unlink(path, **options)

    monkeypatch.setattr(os, "unlink", as_windows_does)
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "object").touch(mode=0o444)
    files.remove_tree(tmp_path / "a")
    files.remove_tree(tmp_path / "a")
    assert not (tmp_path / "a").exists()


@dataclass(frozen=True)
class Record:
    """Something that is kept as JSON."""

    name: str
    parts: tuple["Record", ...] = ()


def test_json_is_read_as_it_was_written(tmp_path: Path) -> None:
    """Nested dataclasses; what does not fit names file and field; a secret is not data."""
    record, path = Record("a", (Record("b"),)), tmp_path / "record.json"
    files.write_json(path, record)
    assert files.read_json(path, Record) == record
    with pytest.raises(TypeError):
        files.write_json(path, {"token": Secret("not-for-json")})
    assert json.loads(path.read_text())["parts"] == [{"name": "b", "parts": []}]
    files.write(path, '{"name": 1}')
    with pytest.raises(PipelineError, match=r"record\.json cannot be read: .*\$\.name"):
        files.read_json(path, Record)
