"""A simulated GitHub, and certificates for one."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from tests.services.github import GitHubServer

NAME, TOKEN = "owner/name", "ghp_simulated0123456789"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[GitHubServer]:
    with GitHubServer(tmp_path / "github") as running:
        running.add_token(TOKEN)
        running.add_repository(NAME, {"v1.0.0": "a" * 40})
        yield running
        assert running.errors == []


def certificates(folder: Path) -> tuple[Path, Path, Path]:
    """A certificate of 127.0.0.1, its key, and the authority to trust for it."""
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    certificate, key, bundle = (folder / name for name in ("cert.pem", "key.pem", "ca.pem"))
    certificate.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    issued.private_key_pem.write_to_path(key)
    authority.cert_pem.write_to_path(bundle)
    return certificate, key, bundle
