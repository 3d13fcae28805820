"""The test suite's own machinery."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

GROUPED = """
import os, pathlib, pytest
@pytest.mark.xdist_group("engine")
@pytest.mark.parametrize("number", range(8))
def test_where(number):
    folder = pathlib.Path(os.environ["SEEN"])
    (folder / os.environ["PYTEST_XDIST_WORKER"]).touch()
"""


def test_groups_stay_in_one_process(tmp_path: Path) -> None:
    """Tests of one engine do not run side by side: xdist's groups work with this pytest."""
    import os

    (tmp_path / "test_grouped.py").write_text(GROUPED)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    seen = tmp_path / "seen"
    seen.mkdir()
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-n2",
        "--dist=loadgroup",
        "-p",
        "no:cacheprovider",
    ]
    env = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST_", "COV_"))}
    done = subprocess.run(
        command,
        cwd=tmp_path,
        env=env | {"SEEN": str(seen)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert len(list(seen.iterdir())) == 1
