"""A checkout that is ready for a release, and a way to release it as a user would.

Run as a program, it is the release that the campaigns kill::

    python -m tests.release.project ROOT URL TAG
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import random
import subprocess
import sys
import time
import types
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import requests

from tests.services.github import GitHubServer
from tests.services.store import Tables
from tools.core import cli
from tools.release import __main__ as release
from tools.repo.context import load_context

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


def git(root: Path, *arguments: str) -> str:
    """Run git without the configuration of the machine."""
    quiet = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
    names = ["-c", "user.name=t", "-c", "user.email=t@example.com"]
    return subprocess.run(
        ["git", "-C", str(root), *names, *arguments],
        env={**os.environ, **quiet},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()


def write_wheel(
    folder: Path,
    version: str = "1.0.0",
    tag: str = LINUX,
    size: int = 200,
    name: str = "mlc_llm",
    **more: bytes,
) -> Path:
    """A sound wheel with ``size`` random bytes inside, and further members."""
    folder.mkdir(parents=True, exist_ok=True)
    path, info = folder / f"{name}-{version}-{tag}.whl", f"{name}-{version}.dist-info"
    members = {
        f"{name}/__init__.py": b'"""A package."""\n',
        f"{name}/data.bin": random.Random(f"{name}{version}{tag}{size}").randbytes(size),
        f"{info}/METADATA": (
            f"Metadata-Version: 2.4\nName: {name}\nVersion: {version}\n"
            "License-Expression: Apache-2.0\n"
            "Requires-Dist: numpy>=1.23\nRequires-Dist: tqdm; extra == 'cli'\n"
        ).encode(),
        f"{info}/WHEEL": f"Wheel-Version: 1.0\nRoot-Is-Purelib: false\nTag: {tag}\n".encode(),
        **more,
    }
    record = [f"{n},sha256={_urlsafe(data)},{len(data)}\n" for n, data in members.items()]
    members[f"{info}/RECORD"] = "".join([*record, f"{info}/RECORD,,\n"]).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for member, data in members.items():
            archive.writestr(zipfile.ZipInfo(member), data)
    return path


def _urlsafe(data: bytes) -> str:
    digest = hashlib.sha256(data).digest()
    return base64.urlsafe_b64encode(digest).decode().rstrip("=")


def write_index(folder: Path, commit: str, wheels: Iterable[Path]) -> None:
    """The ``wheels.json`` of a build."""
    entries = [
        {
            "name": path.name,
            "size": path.stat().st_size,
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            "tags": [path.stem.split("-", 2)[2]],
        }
        for path in wheels
    ]
    source = {"kind": "stand-in", "commit": None, "modified": False}
    index = {"version": "1.0.0", "commit": commit, "source": source, "wheels": entries}
    (folder / "wheels.json").write_text(json.dumps(index), encoding="utf-8")


def make_project(
    root: Path, tag: str = TAG, version: str = "1.0.0", tags: Sequence[str] = (LINUX, WINDOWS)
) -> Path:
    """A git checkout at a version tag, with its wheels in ``dist/``."""
    root.mkdir(parents=True)
    changelog = f"# Changelog\n\n## {version}\n\nWritten by hand.\n\n## 0.1\n\nOld.\n"
    (root / "CHANGELOG.md").write_text(changelog, encoding="utf-8")
    (root / ".gitignore").write_text("/dist/\n/.nox/\n", encoding="utf-8")
    git(root, "init", "-q", "-b", "main")
    git(root, "add", ".")
    git(root, "commit", "-q", "-m", "one")
    git(root, "tag", tag)
    wheels = [write_wheel(root / "dist", version, wheel_tag) for wheel_tag in tags]
    if wheels:
        write_index(root / "dist", git(root, "rev-parse", "HEAD"), wheels)
    return root


def change_wheel(root: Path) -> None:
    """Build one of the wheels again, with other content."""
    wheels = [write_wheel(root / "dist", size=333), write_wheel(root / "dist", tag=WINDOWS)]
    write_index(root / "dist", git(root, "rev-parse", "HEAD"), wheels)


def serve(server: GitHubServer, root: Path, *tags: str) -> None:
    """Make the server know the project's repository, its tags and the token."""
    server.add_token(TOKEN)
    head = git(root, "rev-parse", "HEAD")
    server.add_repository(REPOSITORY, {tag: head for tag in tags or (TAG,)})


def run_release(
    root: Path, url: str, *arguments: str, timeout: float = 20.0, **env: str
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
        return cli.main(
            "release",
            "",
            release.Options,
            lambda options: release.release(load_context(variables, root), options, variables),
            arguments,
        )


def start_release(root: Path, url: str, *arguments: str) -> subprocess.Popen[str]:
    """The same in a process of its own, which may be killed."""
    command = [sys.executable, "-m", "tests.release.project", str(root), url, *arguments]
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("GITHUB_", "COV_"))}
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=kept,
        cwd=Path(__file__).resolve().parents[2],
    )


# --- what must hold -----------------------------------------------------------


def expected_assets(root: Path) -> dict[str, str]:
    """Names and digests of what a release of the checkout publishes."""
    return {
        path.name: f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"
        for path in (root / "dist" / "release").iterdir()
    }


def published(tables: Tables, tag: str = TAG) -> list[dict[str, Any]]:
    """The published releases of a tag."""
    releases = tables.get("releases", {}).values()
    return [r for r in releases if r["tag_name"] == tag and not r["draft"]]


def assets_of(tables: Tables, release: dict[str, Any]) -> dict[str, str]:
    """Names and digests of a release's assets, as far as they were uploaded."""
    return {
        asset["name"]: asset["digest"]
        for asset in tables.get("assets", {}).values()
        if asset["release"] == release["id"] and asset["state"] == "uploaded"
    }


def check_history(server: GitHubServer, expected: dict[str, str], tag: str = TAG) -> None:
    """After no change was a release visible that is incomplete, nor two of one tag."""
    for tables in server.store.history():
        visible = published(tables, tag)
        assert len(visible) <= 1, f"{len(visible)} published releases at once"
        for one in visible:
            assert assets_of(tables, one) == expected, f"{one['id']} published but incomplete"


def check_end(server: GitHubServer, expected: dict[str, str], tag: str = TAG) -> None:
    """One published release with exactly these bytes, no draft left, nothing amiss."""
    tables = server.store.tables
    (one,) = published(tables, tag)
    assert assets_of(tables, one) == expected
    assert [r["id"] for r in tables["releases"].values() if r["tag_name"] == tag] == [one["id"]]
    for asset in (a for a in tables["assets"].values() if a["release"] == one["id"]):
        content = (server.store.folder / "blobs" / str(asset["id"])).read_bytes()
        assert f"sha256:{hashlib.sha256(content).hexdigest()}" == expected[asset["name"]]
    assert "mlc-llm-pipeline:" not in one["body"]
    assert server.errors == [] and server.leaks == []


if __name__ == "__main__":
    sys.exit(run_release(Path(sys.argv[1]), *sys.argv[2:]))
