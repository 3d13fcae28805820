"""What can be known of Windows on another system."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tools.core.settings import ROOT


def test_nothing_is_called_that_windows_lacks(tmp_path: Path) -> None:
    """mypy as on Windows: a POSIX-only call without a guard is an error there."""
    command = [sys.executable, "-m", "mypy", "--platform", "win32", "--no-warn-unreachable"]
    command += ["--cache-dir", str(tmp_path), "noxfile.py", "tools"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
