"""The archive of an image, without any engine: which image is in it, and is it whole."""

import hashlib
import io
import json
import tarfile
from pathlib import Path

import pytest

from tools.core.errors import PipelineError, UsageError
from tools.images import archive

NAMES = ("r.example/o/n:pr-5", "r.example/o/n:pr-5-abcdef1")


class Layout:
    """An OCI image layout, made by hand."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}

    def blob(self, content: bytes | dict[str, object]) -> str:
        """Add a blob; its digest."""
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        self.files[archive.blob(digest)] = data
        return digest

    def image(self, architecture: str, *layers: bytes) -> str:
        """Add an image; its manifest's digest."""
        ids = [f"sha256:{hashlib.sha256(layer).hexdigest()}" for layer in layers]
        config = {
            "architecture": architecture, "os": "linux", "config": {},
            "rootfs": {"type": "layers", "diff_ids": ids},
        }  # fmt: skip
        kind = "application/vnd.oci.image"
        parts = [self.described(f"{kind}.layer.v1.tar", self.blob(layer)) for layer in layers]
        return self.blob(
            {
                "schemaVersion": 2, "mediaType": f"{kind}.manifest.v1+json", "layers": parts,
                "config": self.described(f"{kind}.config.v1+json", self.blob(config)),
            }  # fmt: skip
        )

    def described(self, kind: str, digest: str) -> dict[str, object]:
        """The descriptor of a blob."""
        size = len(self.files[archive.blob(digest)])
        return {"mediaType": kind, "digest": digest, "size": size}

    def index(self, **images: str) -> str:
        """Add an index of images by their architectures; its digest."""
        kind = "application/vnd.oci.image.manifest.v1+json"
        children = [
            self.described(kind, digest) | {"platform": {"os": "linux", "architecture": name}}
            for name, digest in images.items()
        ]
        kind = "application/vnd.oci.image.index.v1+json"
        return self.blob({"schemaVersion": 2, "mediaType": kind, "manifests": children})

    def write(self, path: Path, digest: str, kind: str = "index") -> None:
        """Write the layout as an archive, with the image under one name."""
        top = self.described(f"application/vnd.oci.image.{kind}.v1+json", digest)
        top["annotations"] = {"io.containerd.image.name": NAMES[0]}
        files = {
            **self.files,
            "index.json": json.dumps({"schemaVersion": 2, "manifests": [top]}).encode(),
            "oci-layout": b'{"imageLayoutVersion": "1.0.0"}',
        }
        with tarfile.open(path, "w") as tar:
            for name, data in files.items():
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))


def config_of(path: Path) -> dict[str, object]:
    """What ``manifest.json`` names as the configuration."""
    with tarfile.open(path) as tar:
        names = tar.getnames()
        assert len(names) == len(set(names))
        [entry] = json.load(tar.extractfile("manifest.json"))
        assert entry["RepoTags"] == list(NAMES) and set(entry["Layers"]) <= set(names)
        assert len(entry["Layers"]) == 3
        return json.load(tar.extractfile(entry["Config"]))


@pytest.mark.parametrize(
    ("machine", "architecture"), [("x86_64", "amd64"), ("aarch64", "arm64"), ("arm64", "arm64")]
)
def test_docker_manifest(tmp_path, monkeypatch, machine, architecture):
    """``manifest.json`` names this machine's image of an index, never an attestation, and each
    layer as often as the image has it; the digest stays what was built.
    """
    monkeypatch.setattr("platform.machine", lambda: machine)
    layout, path, layers = Layout(), tmp_path / "image.tar", (b"one", b"none", b"none")
    images = {name: layout.image(name, *layers) for name in ("unknown", "arm64", "amd64")}
    digest = layout.index(**images)
    layout.write(path, digest)
    archive.add_docker_manifest(path, NAMES)
    assert config_of(path)["architecture"] == architecture
    assert archive.read(path, digest).digest == digest


def test_one_manifest(tmp_path):
    """An archive of one image without an index, and an index without this machine's image."""
    layout, path = Layout(), tmp_path / "image.tar"
    digest = layout.image("riscv64", b"one", b"two", b"three")
    for top, kind in ((digest, "manifest"), (layout.index(riscv64=digest), "index")):
        layout.write(path, top, kind)
        archive.add_docker_manifest(path, NAMES)
        assert config_of(path)["architecture"] == "riscv64"


def broken(path: Path, how: str) -> None:
    """Write an archive that is broken in a certain way."""
    layout = Layout()
    digest = layout.index(amd64=layout.image("amd64", b"one"))
    if how == "only attestations":
        digest = layout.index(unknown=layout.image("unknown", b"one"))
    if how == "no configuration":
        digest = layout.blob({"schemaVersion": 2, "layers": []})
    for name, data in list(layout.files.items()):
        if how == "changed" and b'"manifests"' in data:
            layout.files[name] = data + b" "
        if how == "a part is missing" and b'"rootfs"' in data:
            del layout.files[name]
    layout.write(path, digest)
    text = path.read_bytes()
    if how == "cut off":
        path.write_bytes(text[: text.index(b"index.json") + 600])
    if how == "not a tar":
        path.write_bytes(b"PK")
    if how == "of docker save":
        with tarfile.open(path, "w") as tar:
            tar.addfile(tarfile.TarInfo("manifest.json"))


@pytest.mark.parametrize(
    "how",
    [
        "only attestations", "no configuration", "changed", "a part is missing", "cut off",
        "not a tar", "of docker save",
    ],
)  # fmt: skip
def test_broken_archives(tmp_path, how):
    """What is not a whole archive is refused in a sentence that names the file."""
    broken(tmp_path / "image.tar", how)
    with pytest.raises(UsageError, match="image.tar is not a whole OCI archive: .+") as caught:
        archive.read(tmp_path / "image.tar")
    assert "--output oci" in caught.value.remedy


def test_another_image(tmp_path):
    """An archive of another run is not taken for the one that is asked for."""
    layout, path = Layout(), tmp_path / "image.tar"
    digest = layout.image("amd64", b"one")
    layout.write(path, digest, "manifest")
    with pytest.raises(PipelineError, match=f"holds {digest}, not sha256:1"):
        archive.read(path, "sha256:1")
