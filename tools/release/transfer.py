"""Files to GitHub and back, piece by piece, several at a time.

PyGithub's own uploads know no time limit, no certificates and no threads.
"""

import hashlib
import io
import mimetypes
from collections.abc import Iterable
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
BLOCK = 1 << 18  # bytes at once
TIMEOUT = 120.0  # seconds without a sign of life; GitHub looks at what was uploaded


class LargePieces(io.FileIO):
    """A file that is sent in large pieces: urllib3's 16 kB keep a processor busy."""

    def read(self, _size: int | None = -1) -> bytes:
        """The next piece."""
        return super().read(BLOCK)


class Transfer:
    """Sends the files of a folder, and reads assets."""

    def __init__(self, settings: Settings, folder: Path, retry: Policy) -> None:
        self.folder = folder
        self.session = http.session(retry, settings.ca_certificates, UPLOADS)
        # requests drops it where a download is redirected to another host.
        self.session.auth = HostBoundToken(settings)

    def upload(self, address: str, assets: Iterable[Asset]) -> None:
        """Upload several at a time to a release's ``upload_url``, the largest first; an error
        (PyGithub's or requests') is raised when all have ended.
        """
        by_size = sorted(assets, key=lambda asset: -asset.size)
        # The pool's threads do not outlive us: Ctrl-C ends the uploads.
        with progress("uploaded files:") as report, ThreadPool(UPLOADS) as pool:
            uploads = [pool.apply_async(self._upload, (address, asset)) for asset in by_size]
            for done, upload in enumerate(uploads, 1):
                upload.wait()
                report(done, len(uploads))
        for upload in uploads:
            upload.get()

    def _upload(self, address: str, asset: Asset) -> None:
        kind = mimetypes.guess_type(asset.name)[0] or "application/octet-stream"
        with LargePieces(self.folder / asset.name) as file:
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
