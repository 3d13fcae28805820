"""The tests do not see the run of Actions that they are part of."""

import os
import subprocess
import sys
from pathlib import Path

from tools.core.settings import ROOT

TEST = """
import os, pytest
@pytest.fixture(scope="session")
def seen(): return {name for name in os.environ if name.startswith("GITHUB_")}
def test_it(seen): assert not seen
"""


def test_no_fixture_sees_the_event(tmp_path: Path) -> None:
    """Those of a session, which are made before all others, build what the event says."""
    (tmp_path / "test_it.py").write_text(TEST)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "tests.conftest", str(tmp_path)]
    env = {**os.environ, "GITHUB_REF": "refs/pull/7/merge"}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
    assert done.returncode == 0 and "1 passed" in done.stdout, done.stdout
