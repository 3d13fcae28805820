"""A checkout of this project for a test: its own git repository, commands run in it."""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# The same commit, and so the same images and wheels, whenever a test runs.
IDENTITY = {
    "GIT_AUTHOR_NAME": "tester",
    "GIT_AUTHOR_EMAIL": "tester@example.org",
    "GIT_COMMITTER_NAME": "tester",
    "GIT_COMMITTER_EMAIL": "tester@example.org",
    "GIT_AUTHOR_DATE": "2026-01-02T03:04:05Z",
    "GIT_COMMITTER_DATE": "2026-01-02T03:04:05Z",
}


@dataclass
class Project:
    """A checkout."""

    root: Path
    env: dict[str, str] = field(default_factory=dict)  # of every command, over the test's own

    def git(self, *arguments: str) -> str:
        """Run git here; its output, stripped."""
        done = subprocess.run(
            ["git", "-C", str(self.root), *arguments], env={**os.environ, **IDENTITY},
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        return done.stdout.strip()

    def commit(self, message: str = "change") -> str:
        """Commit all changes; the commit's hash."""
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message", message)
        return self.git("rev-parse", "HEAD")

    def environment(self, env: Mapping[str, str] | None = None) -> dict[str, str]:
        """The environment of a command."""
        return {**os.environ, **self.env, **(env or {})}

    def command(self, module: str, *arguments: str) -> list[str]:
        """A module of this checkout's own ``tools`` as a command."""
        return [sys.executable, "-m", f"tools.{module}", *arguments]

    def run(
        self, module: str, *arguments: str, env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a module of this checkout to its end, within ten minutes."""
        return subprocess.run(
            self.command(module, *arguments), cwd=self.root, env=self.environment(env),
            capture_output=True, text=True, timeout=600, check=False,
        )  # fmt: skip


def make(folder: Path, env: Mapping[str, str] | None = None) -> Project:
    """Copy the project's files (tracked, or new and not ignored) into a new repository."""
    listed = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    project = Project(folder, dict(env or {}))
    project.git("init", "--quiet", "--initial-branch", "main")
    project.commit("the project as it is")
    return project
