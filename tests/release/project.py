"""A checkout that is ready for a release, and ways to release it as a user would."""

import contextlib
import hashlib
import io
import multiprocessing
import os
import random
import sys
import time
import types
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any
from unittest import mock

import requests

from tests.services.faults import Fault
from tests.services.github import GitHubServer
from tests.services.project import Project
from tools.core import cli, files
from tools.release import __main__ as release
from tools.wheels.archive import RecordedSource, RecordedWheel, WheelsRecord, read_wheel

REPOSITORY = "owner/name"
TOKEN = "ghp_simulated0123456789"
TAG = "v1.0.0"
ENV = {
    "GITHUB_REPOSITORY": REPOSITORY,
    "GH_TOKEN": TOKEN,
    "WHEEL_PLATFORMS": "linux-x64 windows-x64",
}
LINUX = "cp311-cp311-manylinux_2_28_x86_64"
WINDOWS = "cp311-cp311-win_amd64"
# Children start in milliseconds: forked from a process that has all modules loaded.
PROCESSES = multiprocessing.get_context("spawn" if sys.platform == "win32" else "forkserver")
if sys.platform != "win32":
    PROCESSES.set_forkserver_preload([__name__])


def git(root: Path, *arguments: str) -> str:
    """Run git in a checkout."""
    return Project(root).git(*arguments)


def head(root: Path) -> str:
    """The commit that is checked out."""
    return git(root, "rev-parse", "HEAD")


def digest_of(path: Path) -> str:
    """``sha256:...`` of a file."""
    return f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"


def write_wheel(
    folder: Path, version: str = "1.0.0", tag: str = LINUX, size: int = 200, **more: bytes
) -> Path:
    """A wheel with ``size`` random bytes inside, and further members."""
    folder.mkdir(parents=True, exist_ok=True)
    path, info = folder / f"mlc_llm-{version}-{tag}.whl", f"mlc_llm-{version}.dist-info"
    members = {
        "mlc_llm/__init__.py": b'"""A package."""\n',
        "mlc_llm/data.bin": random.Random(f"{version}{tag}{size}").randbytes(size),
        f"{info}/METADATA": (
            f"Metadata-Version: 2.4\nName: mlc_llm\nVersion: {version}\n"
            "Requires-Dist: numpy>=1.23\nRequires-Dist: tqdm; extra == 'cli'\n"
        ).encode(),
        **more,
    }
    with zipfile.ZipFile(path, "w") as archive:
        for member, data in members.items():
            archive.writestr(zipfile.ZipInfo(member), data)
    return path


def write_record(folder: Path, commit: str) -> None:
    """The ``wheels.json`` of the build that made the wheels in a folder."""
    wheels = [read_wheel(path) for path in sorted(folder.glob("*.whl"))]
    entries = tuple(RecordedWheel(w.name, w.size, w.sha256, w.tags) for w in wheels)
    record = WheelsRecord("1.0.0", commit, RecordedSource("stand-in", None, False), entries)
    files.write_json(folder / "wheels.json", record)


def make_project(
    root: Path, tag: str = TAG, version: str = "1.0.0", tags: Sequence[str] = (LINUX, WINDOWS)
) -> Path:
    """A git checkout at a version tag, with its wheels in ``dist/``."""
    root.mkdir(parents=True)
    changelog = f"# Changelog\n\n## {version}\n\nWritten by hand.\n\n## 0.1\n\nOld.\n"
    (root / "CHANGELOG.md").write_text(changelog, encoding="utf-8")
    (root / ".gitignore").write_text("/dist/\n/.nox/\n", encoding="utf-8")
    git(root, "init", "-q", "-b", "main")
    Project(root).commit()
    git(root, "tag", tag)
    for wheel_tag in tags:
        write_wheel(root / "dist", version, wheel_tag)
    if tags:
        write_record(root / "dist", head(root))
    return root


def change_wheel(root: Path) -> None:
    """Build one of the wheels again, with other content."""
    write_wheel(root / "dist", size=333)
    write_record(root / "dist", head(root))


def run_release(
    root: Path, url: str, tag: str, *arguments: str, timeout: float = 20.0, **env: str
) -> int:
    """The command ``release`` in a checkout, against a server; its exit code.

    Pauses take no time, and what does not answer for ``timeout`` seconds has failed.
    """
    variables = {**ENV, "GITHUB_API_URL": url, **env}
    skipped = types.SimpleNamespace(**{**vars(time), "sleep": lambda _: None})
    send = requests.Session.request

    def impatient(*args: Any, **options: Any) -> requests.Response:
        return send(*args, **{**options, "timeout": timeout})

    with (
        mock.patch("tools.github.client.time", skipped),
        mock.patch("tools.release.publish.time", skipped),
        mock.patch("requests.Session.request", impatient),
    ):
        main = cli.command(
            "release", "", release.Options,
            lambda options: release.release(options, variables, root),
        )  # fmt: skip
        return main([tag, *arguments])


def _child(log: Path, root: Path, url: str) -> None:
    with log.open("w", encoding="utf-8") as sink:
        os.dup2(sink.fileno(), 1)
        os.dup2(sink.fileno(), 2)
        sys.stdout = sys.stderr = sink
        os._exit(run_release(root, url, TAG))


@dataclass
class World:
    """A checkout at a version tag, and the GitHub that it is released to."""

    root: Path
    server: GitHubServer
    tag: str = TAG
    out: str = ""  # what the last run printed
    err: str = ""

    def run(self, *arguments: str, timeout: float = 20.0, **env: str) -> int:
        """Run ``release`` to its end; its exit code."""
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            url = self.server.url
            code = run_release(self.root, url, self.tag, *arguments, timeout=timeout, **env)
        self.out, self.err = out.getvalue(), err.getvalue()
        print(self.err)
        return code

    def start(self, log: Path) -> BaseProcess:
        """Run it in a process that may be killed."""
        process = PROCESSES.Process(target=_child, args=(log, self.root, self.server.url))
        process.start()
        return process

    def kinds(self) -> list[str]:
        """Operations that were asked of the server, in order."""
        return [entry["kind"] for entry in self.server.log]

    def wrote(self) -> bool:
        """Whether any of them changes something."""
        verbs = ("repos/create", "repos/update", "repos/delete", "repos/upload")
        return any(kind.startswith(verbs) for kind in self.kinds())

    def releases(self, draft: bool = False) -> list[dict[str, Any]]:
        """What is published, or the drafts."""
        return [r for r in self.server.store.all("releases") if r["draft"] is draft]

    def files(self) -> dict[str, str]:
        """Names and digests of what was prepared in the checkout."""
        return {path.name: digest_of(path) for path in (self.root / "dist/release").iterdir()}

    def check_history(self, files: Mapping[str, str]) -> None:
        """After no change was a release visible that is incomplete, nor two of one tag."""
        for tables in self.server.store.history():
            visible = [r for r in tables.get("releases", {}).values() if not r["draft"]]
            assert len(visible) <= 1, f"{len(visible)} published releases at once"
            for one in visible:
                assert {
                    asset["name"]: asset["digest"]
                    for asset in tables.get("assets", {}).values()
                    if asset["release"] == one["id"] and asset["state"] == "uploaded"
                } == files, f"{one['id']} published but incomplete"

    def check(self) -> None:
        """All along that, and in the end one release with these bytes, and no draft left."""
        files, store = self.files(), self.server.store
        self.check_history(files)
        (one,) = (r for r in store.all("releases") if r["tag_name"] == self.tag)
        assets = [a for a in store.all("assets") if a["release"] == one["id"]]
        blobs = store.folder / "blobs"
        assert {a["name"]: digest_of(blobs / str(a["id"])) for a in assets} == files
        assert not one["draft"] and "mlc-llm-pipeline:" not in one["body"]


@contextlib.contextmanager
def make_world(root: Path, folder: Path, *faults: Fault, tag: str = TAG) -> Iterator[World]:
    """The world of a checkout; GitHub's state is in ``folder``."""
    with GitHubServer(folder, faults=faults) as server:
        server.add_token(TOKEN)
        server.add_repository(REPOSITORY, {tag: head(root)})
        yield World(root, server, tag)
        assert server.errors == [] and server.leaks == []
