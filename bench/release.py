"""Releasing 200 files of 1 MB, against ``gh release upload``; memory with one of 2 GB.

Both talk over TLS to the same simulated GitHub, which takes 50 ms for each request. Ours
does more: it makes the draft, uploads, verifies every digest and publishes; gh uploads
to a release that is there. Each runs in a process of its own; for ours the time from the
first request on is shown too, because Python's start weighs where there is little to do::

    python -m bench.release [--rounds N] [--files N] [--large BYTES]
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tools.core import files, settings
from tools.github.client import connect, policy
from tools.release.contents import Asset, ReleasePlan
from tools.release.publish import Publisher, draft_mark, persist
from tools.release.transfer import Transfer

REPOSITORY, TOKEN, LATENCY = "owner/name", "simulated-token", 0.05
MEGABYTE = 1_000_000


def make_files(folder: Path, count: int) -> list[Path]:
    """Files of 1 MB that do not compress."""
    folder.mkdir()
    chance = random.Random(1)
    paths = []
    for number in range(count):
        path = folder / f"file-{number:03}.bin"
        path.write_bytes(chance.randbytes(MEGABYTE))
        paths.append(path)
    return paths


def start_server(
    folder: Path, certificate: Path, key: Path
) -> tuple[subprocess.Popen[str], str]:
    """The simulated GitHub in a process of its own; its address."""
    command = [sys.executable, "-m", "tests.services.github", "--folder", str(folder)]
    command += ["--tls", str(certificate), str(key), "--latency", str(LATENCY)]
    command += ["--repository", REPOSITORY, "--token", TOKEN]
    command += [f"--tag={tag}={'a' * 40}" for tag in ("v1.0.0", "v2.0.0")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, str(json.loads(process.stdout.readline())["url"])


def ours(url: str, bundle: Path, tag: str, folder: Path) -> list[str]:
    """The command of our release (this module, as a program)."""
    return [
        sys.executable,
        "-m",
        "bench.release",
        "--publish",
        url,
        str(bundle),
        tag,
        str(folder),
    ]


def publish(url: str, bundle: str, tag: str, folder: Path) -> None:
    """Release every file of a folder; prints seconds, and the peak of memory in MB."""
    assets = [
        Asset(p.name, p.stat().st_size, files.sha256(p)) for p in sorted(folder.iterdir())
    ]
    plan = ReleasePlan(tag, "a" * 40, False, tuple(assets), "Notes.")
    started = time.monotonic()
    env = {"GITHUB_API_URL": url, "GH_TOKEN": TOKEN, "CA_CERTIFICATES": bundle}
    loaded = settings.load(env, folder)
    repository = connect(loaded, 0).get_repo(REPOSITORY)
    publisher = Publisher(
        repository, Transfer(loaded, folder, policy(loaded)), plan, draft_mark(folder, {})
    )
    assert persist("the release", publisher.attempt).what == "published"
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
    print(time.monotonic() - started, peak)


def timed(command: list[str], env: dict[str, str]) -> tuple[float, str]:
    """Seconds that a command takes, and what it prints."""
    started = time.monotonic()
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    taken = time.monotonic() - started
    if done.returncode:
        raise SystemExit(f"{command[:4]} failed: {done.stderr}")
    return taken, done.stdout


def gh_environment(url: str, bundle: Path, config: Path) -> dict[str, str]:
    """Variables that point gh at the simulated GitHub."""
    host = url.removeprefix("https://")
    return {
        **os.environ,
        "GH_HOST": host,
        "GH_REPO": f"{host}/{REPOSITORY}",
        "GH_ENTERPRISE_TOKEN": TOKEN,
        "GH_CONFIG_DIR": str(config),
        "SSL_CERT_FILE": str(bundle),
    }


def race(
    work: Path, files: list[Path], bundle: Path, tls: tuple[Path, Path]
) -> tuple[float, float, float, float]:
    """One round on a fresh server: seconds of ours, of it after the start, of gh; MB."""
    shutil.rmtree(work / "server", ignore_errors=True)
    server, url = start_server(work / "server", *tls)
    try:
        env = gh_environment(url, bundle, work / "gh")
        timed(["gh", "release", "create", "v2.0.0", "--notes", "x", "--draft=false"], env)
        mine, printed = timed(ours(url, bundle, "v1.0.0", files[0].parent), dict(os.environ))
        theirs, _ = timed(["gh", "release", "upload", "v2.0.0", *map(str, files)], env)
    finally:
        server.terminate()
        server.wait()
    inside, peak = map(float, printed.split())
    return mine, inside, theirs, peak


def large(work: Path, size: int, bundle: Path, tls: tuple[Path, Path]) -> tuple[float, float]:
    """Seconds and MB for one file of ``size`` bytes."""
    folder = work / "large"
    folder.mkdir()
    with (folder / "large.bin").open("wb") as target:
        target.truncate(size)
    shutil.rmtree(work / "server", ignore_errors=True)
    server, url = start_server(work / "server", *tls)
    try:
        taken, printed = timed(ours(url, bundle, "v1.0.0", folder), dict(os.environ))
    finally:
        server.terminate()
        server.wait()
    return taken, float(printed.split()[1])


def main() -> int:
    """Print the table; 1 if our requests take longer than gh, or more than 120 MB."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--files", type=int, default=200)
    parser.add_argument("--large", type=int, default=2_000_000_000)
    parser.add_argument("--publish", nargs=4, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.publish:
        url, bundle, tag, folder = given.publish
        publish(url, bundle, tag, Path(folder))
        return 0
    from tests.services.certificates import certificates  # not where memory is measured

    if shutil.which("gh") is None:
        print("gh is not installed: nothing to compare with")
        return 0
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        files = make_files(work / "files", given.files)
        certificate, key, authority = certificates(work)
        tls = certificate, key
        rounds = [race(work, files, authority, tls) for _ in range(given.rounds)]
        seconds, peak = large(work, given.large, authority, tls)
    columns = zip(*rounds, strict=True)
    mine, inside, theirs, memory = (statistics.median(values) for values in columns)
    print(f"{given.files} files of 1 MB, 50 ms a request, TLS, median of {given.rounds}")
    print(f"  gh release upload (upload alone)                {theirs:6.2f} s")
    print(f"  ours (draft, upload, verify, publish)           {mine:6.2f} s  {memory:.0f} MB")
    print(f"  ours from the first request on                  {inside:6.2f} s")
    print(
        f"  ratio to gh: {mine / theirs:.2f}, from the first request on {inside / theirs:.2f}"
    )
    size = f"{given.large / 1e9:.1f} GB"
    print(f"one file of {size}: {seconds:.1f} s, peak memory {peak:.0f} MB (limit: 120 MB)")
    return int(inside > theirs or max(memory, peak) > 120)


if __name__ == "__main__":
    sys.exit(main())
