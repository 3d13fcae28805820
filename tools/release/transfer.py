"""Files to GitHub and back, piece by piece, several at a time.

PyGithub's own uploads know no time limit, no certificates and no threads.
"""

from __future__ import annotations

import hashlib
import io
import mimetypes
import threading
from collections.abc import Callable, Iterable
from multiprocessing.pool import ThreadPool
from pathlib import Path

import requests
from github.Requester import Requester

from tools.core import http
from tools.core.progress import progress
from tools.core.settings import Settings
from tools.github.client import HostBoundToken, Policy
from tools.release.contents import Asset

UPLOADS = 16  # at once
BLOCK = 1 << 18  # bytes at once; urllib3's 16 kB keep a processor busy
TIMEOUT = 120.0  # seconds without a sign of life; GitHub looks at what was uploaded
MB = 1_000_000


class CountedFile(io.FileIO):
    """A file that is read as it is sent; ``count`` takes the bytes of each piece."""

    count: Callable[[int], None]

    def read(self, _size: int | None = -1) -> bytes:
        """The next piece."""
        piece = super().read(BLOCK)
        self.count(len(piece))
        return piece


class Transfer:
    """Sends the files of a folder, and reads assets."""

    def __init__(self, settings: Settings, folder: Path, retry: Policy) -> None:
        self.folder = folder
        self.session = http.session(settings.ca_certificates, retry, UPLOADS)
        # requests drops it where a download is redirected to another host.
        self.session.auth = HostBoundToken(settings)

    def upload(self, address: str, assets: Iterable[Asset]) -> None:
        """Upload several at a time to a release's ``upload_url``, the largest first.

        Raises:
            Exception: The first of any upload, PyGithub's or requests'.
        """
        by_size = sorted(assets, key=lambda asset: -asset.size)
        total, sent, lock = sum(asset.size for asset in by_size), 0, threading.Lock()
        errors: list[Exception] = []

        def count(size: int) -> None:
            nonlocal sent
            with lock:
                sent += size
                report(sent // MB, total // MB)

        def send(asset: Asset) -> None:
            try:
                self._upload(address, asset, count)
            except Exception as error:
                errors.append(error)  # not raised while others still send

        # The pool's threads do not outlive us: Ctrl-C ends the uploads.
        with progress("uploaded, MB:") as report, ThreadPool(UPLOADS) as pool:
            pool.map(send, by_size, chunksize=1)
        if errors:
            raise errors[0]

    def _upload(self, address: str, asset: Asset, count: Callable[[int], None]) -> None:
        kind = mimetypes.guess_type(asset.name)[0] or "application/octet-stream"
        with CountedFile(self.folder / asset.name) as file:
            file.count = count
            response = self.session.post(
                address.partition("{")[0],
                params={"name": asset.name},
                headers={"Content-Type": kind},
                data=file,
                timeout=TIMEOUT,
            )
        _check(response)

    def digest(self, url: str) -> str:
        """``sha256:...`` of an asset's bytes, for a GitHub (Enterprise) that reports none."""
        digest = hashlib.sha256()
        accept = {"Accept": "application/octet-stream"}
        with self.session.get(url, headers=accept, stream=True, timeout=TIMEOUT) as response:
            _check(response)
            for piece in response.iter_content(BLOCK):
                digest.update(piece)
        return f"sha256:{digest.hexdigest()}"


def _check(response: requests.Response) -> None:
    """Raise what PyGithub raises for such a response."""
    if response.status_code >= 300:
        headers = dict(response.headers)
        raise Requester.createException(response.status_code, headers, response.json())
