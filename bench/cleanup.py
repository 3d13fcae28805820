"""The cleanup on large packages: requests, seconds and memory.

``python -m bench.cleanup [VERSIONS ...]`` (10000 by default; 100000 takes long). A
simulated API and registry, in a process of their own, answer every request after 20 ms.
One version in ten is tagged; half of the images are indexes with provenance. Side by side
with what reading every manifest one after another and deleting one version a second costs,
as the careful peer does: its time is measured on a sample of requests and multiplied.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

LATENCY = 0.020
NAME = "owner/image"
SAMPLE = 200
INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"

# --- the simulated API and registry ------------------------------------------


class Content:
    """A package: every fifth image tagged, every second an index with provenance."""

    def __init__(self, count: int) -> None:
        self.bodies: dict[str, tuple[str, bytes]] = {}
        self.versions: dict[int, tuple[str, list[str]]] = {}
        self.tags: dict[str, str] = {}
        image = 0
        while len(self.versions) < count:
            if image % 2:
                children = [self._plain(f"{image} {part}") for part in ("image", "attestation")]
                digest = self._put(INDEX, {"manifests": children})
            else:
                digest = self._put(MANIFEST, self._layers(str(image)))
            self._version(digest, [f"v{image}"] if image % 5 == 0 else [])
            image += 1
        self.listing: list[int] = []

    def _layers(self, seed: str) -> dict[str, Any]:
        digest = "sha256:" + hashlib.sha256(seed.encode()).hexdigest()
        blob = {"mediaType": "application/octet-stream", "digest": digest, "size": 1000}
        return {"config": blob, "layers": [blob] * 8}

    def _plain(self, seed: str) -> dict[str, Any]:
        digest = self._put(MANIFEST, self._layers(seed))
        self._version(digest, [])
        return {"mediaType": MANIFEST, "digest": digest, "size": len(self.bodies[digest][1])}

    def _put(self, kind: str, content: dict[str, Any]) -> str:
        body = json.dumps({"schemaVersion": 2, "mediaType": kind, **content}).encode()
        digest = "sha256:" + hashlib.sha256(body).hexdigest()
        self.bodies[digest] = (kind, body)
        return digest

    def _version(self, digest: str, tags: list[str]) -> None:
        self.versions[len(self.versions) + 1] = (digest, tags)
        self.tags |= dict.fromkeys(tags, digest)

    def answer(self, method: str, path: str) -> tuple[int, str, bytes, str]:
        """Status, content type, body and further header lines."""
        if found := re.search(r"/versions/(\d+)$", path):
            gone = self.versions.pop(int(found.group(1)), None)
            return (404 if gone is None else 204), "application/json", b"", ""
        if found := re.search(r"/versions\?.*?\bpage=(\d+)", path):
            return self._page(int(found.group(1)))
        if "/tags/list" in path:
            names = list(self.tags)
            start = int(path.partition("last=")[2] or 0)
            body = json.dumps({"name": NAME, "tags": names[start : start + 1000]}).encode()
            link = f'Link: </v2/{NAME}/tags/list?last={start + 1000}>; rel="next"\r\n'
            return 200, "application/json", body, link if start + 1000 < len(names) else ""
        if "/manifests/" in path:
            reference = path.rpartition("/")[2]
            digest = self.tags.get(reference, reference)
            kind, body = self.bodies[digest]
            return 200, kind, body, f"Docker-Content-Digest: {digest}\r\n"
        return 200, "application/json", b'{"login": "owner", "type": "User"}', ""

    def _page(self, number: int) -> tuple[int, str, bytes, str]:
        if number == 1:
            self.listing = sorted(self.versions, reverse=True)
        last = -(-len(self.listing) // 100)
        shown = [
            {
                "id": one,
                "name": self.versions[one][0],
                "created_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(10**9 + one)),
                "metadata": {"container": {"tags": self.versions[one][1]}},
            }
            for one in self.listing[(number - 1) * 100 : number * 100]
            if one in self.versions
        ]
        links = ""
        if number < last:
            base = "<http://HOST/users/owner/packages/container/image/versions?page={}>"
            following, end = base.format(number + 1), base.format(last)
            links = f'Link: {following}; rel="next", {end}; rel="last"\r\n'
        return 200, "application/json", json.dumps(shown).encode(), links


class Connection(asyncio.Protocol):
    """HTTP/1.1 with kept connections, no more than the clients need."""

    def __init__(self, content: Content, counts: dict[str, int]) -> None:
        self.content = content
        self.counts = counts
        self.buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while b"\r\n\r\n" in self.buffer:
            head, _, self.buffer = self.buffer.partition(b"\r\n\r\n")
            asyncio.get_running_loop().call_later(LATENCY, self.respond, head.decode())

    def respond(self, head: str) -> None:
        """Answer one request, whose latency is over."""
        method, path, _ = head.split("\r\n", 1)[0].split(" ")
        host = re.search(r"(?im)^host: *(\S+)", head)
        self.counts[method] = self.counts.get(method, 0) + 1
        status, kind, body, more = self.content.answer(method, path)
        more = more.replace("HOST", host.group(1) if host else "")
        text = f"HTTP/1.1 {status} X\r\nContent-Type: {kind}\r\n{more}"
        if status != 204:
            text += f"Content-Length: {len(body)}\r\n"
        self.transport.write(text.encode() + b"\r\n" + (b"" if method == "HEAD" else body))


async def serve(count: int) -> None:
    """Print the address, and answer until standard input closes."""
    content = Content(count)
    counts: dict[str, int] = {}
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(content, counts), "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)


# --- what is measured --------------------------------------------------------


def one_run(dry_run: bool) -> None:
    """A cleanup in this process, as the environment says; prints what it cost."""
    from tools.cleanup.plan import Policy
    from tools.cleanup.read import Reader
    from tools.cleanup.run import clean
    from tools.core import console
    from tools.core.settings import load
    from tools.github.client import connect as connect_github
    from tools.registry.client import connect

    settings = load()
    began = time.monotonic()
    reader = Reader(settings, connect_github(settings, 0), connect(settings))
    report = clean(reader, Policy(), dry_run)
    assert not report.problems, report.problems
    used = resource.getrusage(resource.RUSAGE_SELF)
    console.emit_json(
        {
            "seconds": time.monotonic() - began,
            "cpu": used.ru_utime + used.ru_stime,
            "megabytes": used.ru_maxrss / 1000,
            "planned": len(report.plan.to_delete),
            "broken": len(report.broken),
            **report.requests,
        }
    )


def sample(port: int) -> float:
    """Seconds of one request, one after another, over a kept connection."""
    from tools.registry.client import Registry

    registry = Registry(f"127.0.0.1:{port}")
    tags = registry.tags(NAME)[:SAMPLE]
    began = time.monotonic()
    for tag in tags:
        registry.manifest(NAME, tag)
    return (time.monotonic() - began) / len(tags)


def measure(count: int) -> dict[str, Any]:
    """Three runs on a package: a first look, a second one, and the deletion."""
    me = [sys.executable, "-m", "bench.cleanup"]
    server = subprocess.Popen(
        [*me, "--serve", str(count)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert server.stdout is not None and server.stdin is not None
    try:
        port = int(server.stdout.readline())
        single = sample(port)
        with tempfile.TemporaryDirectory() as folder:
            env = {
                **os.environ,
                "REGISTRY": f"127.0.0.1:{port}",
                "GITHUB_API_URL": f"http://127.0.0.1:{port}",
                "IMAGE_NAME": NAME,
                "GH_TOKEN": "simulated",
                "MANIFEST_CACHE": folder,
                # Our own cost, not the wait that GitHub's limits ask for.
                "GITHUB_POINTS_PER_MINUTE": "0",
            }
            found: dict[str, Any] = {"versions": count, "single": single}
            for name, option in (
                ("first", "--look"),
                ("second", "--look"),
                ("delete", "--run"),
            ):
                done = subprocess.run(
                    [*me, option], env=env, capture_output=True, text=True, check=True
                )
                found[name] = json.loads(done.stdout)
            (cache,) = Path(folder).glob("*.gz")
            found["cache"] = cache.stat().st_size
    finally:
        server.stdin.close()
        server.wait(30)
    return found


def table(found: dict[str, Any]) -> list[str]:
    """The lines about one package."""
    first, second, last = (found[name] for name in ("first", "second", "delete"))
    count = found["versions"]
    deletes = last["planned"]
    pages = -(-count // 100)
    one_by_one = (pages + count) * found["single"]
    paced = deletes * 1.0
    ours = first["seconds"] + last["seconds"]
    peak = max(run["megabytes"] for run in (first, second, last))
    least = max(0, deletes - 180) / 180 * 60
    return [
        f"{count} versions, {LATENCY * 1000:.0f} ms a request",
        f"  first look      {first['pages']} pages, {first['manifests']} manifests:"
        f" {first['seconds']:.1f} s",
        f"  second look     {second['pages']} pages, {second['manifests']} manifests:"
        f" {second['seconds']:.1f} s (cache file {found['cache'] / 1e6:.1f} MB)",
        f"  carrying out    {last['pages']} pages, {last['manifests']} manifests,"
        f" {last['deletes']} deletes, {last['verified']} parts of tags verified:"
        f" {last['seconds']:.1f} s, {last['broken']} tags broken",
        f"  one by one      {pages} pages, {count} manifests: {one_by_one:.0f} s"
        f" (every run); {deletes} deletes at one a second: {paced:.0f} s",
        f"  ratio           reading {one_by_one / first['seconds']:.1f} x, reading again"
        f" {one_by_one / second['seconds']:.1f} x, all {(one_by_one + paced) / ours:.1f} x",
        f"  GitHub's limits allow 180 deletes a minute: {deletes} take {least:.0f} s at least:"
        f" {paced / max(least, deletes * LATENCY / 16):.1f} x",
        f"  memory          {peak:.0f} MB at most",
        f"  a version costs {1e6 * (first['cpu'] + last['cpu']) / count:.0f} microseconds of"
        f" processor time, {1e6 * ours / count:.0f} of time",
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; see the module's text."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("versions", nargs="*", type=int, default=[10_000])
    parser.add_argument("--serve", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--look", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--run", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.serve:
        asyncio.run(serve(given.serve))
    elif given.look or given.run:
        one_run(dry_run=given.look)
    else:
        costs = []
        for count in given.versions:
            found = measure(count)
            print("\n".join(table(found)), flush=True)
            costs.append((found["first"]["cpu"] + found["delete"]["cpu"]) / count)
        if len(costs) > 1:
            growth = costs[-1] / costs[0]
            print(f"cost of a version, last package to first: {growth:.2f} x", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
