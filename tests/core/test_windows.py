"""What can be known of Windows on another system."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tools.core import files
from tools.core.settings import ROOT


def test_nothing_is_called_that_windows_lacks(tmp_path: Path) -> None:
    """mypy as on Windows: a POSIX-only call without a guard is an error there."""
    command = [sys.executable, "-m", "mypy", "--platform", "win32", "--no-warn-unreachable"]
    command += ["--cache-dir", str(tmp_path), "noxfile.py", "tools"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


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
