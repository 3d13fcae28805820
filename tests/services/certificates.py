"""Certificates for servers on the loopback address."""

from pathlib import Path

import trustme


def certificates(folder: Path) -> tuple[Path, Path, Path]:
    """A certificate of 127.0.0.1, its key, and the authority to trust for it."""
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    certificate, key, bundle = (folder / name for name in ("cert.pem", "key.pem", "ca.pem"))
    certificate.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    issued.private_key_pem.write_to_path(key)
    authority.cert_pem.write_to_path(bundle)
    return certificate, key, bundle
