"""A simulated GitHub, and certificates for one."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from tests.services.github import GitHubServer

NAME, TOKEN = "owner/name", "ghp_simulated0123456789"


@contextlib.contextmanager
def github(folder: Path, tls: tuple[Path, Path] | None = None) -> Iterator[GitHubServer]:
    """A GitHub that keeps its state in a folder, with our token, a repository and its tag."""
    with GitHubServer(folder, tls=tls) as running:
        running.add_token(TOKEN)
        running.add_repository(NAME, {"v1.0.0": "a" * 40})
        yield running
        assert running.errors == []


@pytest.fixture
def server(tmp_path: Path) -> Iterator[GitHubServer]:
    with github(tmp_path / "github") as running:
        yield running


def certificates(folder: Path) -> tuple[Path, Path, Path]:
    """A certificate of 127.0.0.1, its key, and the authority to trust for it."""
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    certificate, key, bundle = (folder / name for name in ("cert.pem", "key.pem", "ca.pem"))
    certificate.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    issued.private_key_pem.write_to_path(key)
    authority.cert_pem.write_to_path(bundle)
    return certificate, key, bundle
