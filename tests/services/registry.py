"""A real registry for tests, and hand-made OCI structures to put into it.

:func:`running_registry` starts Debian's ``docker-registry`` on 127.0.0.1 with data of its
own; the fixtures ``registry`` and ``login_registry`` share one each for a test run, and
``repository`` gives every test a name of its own in the first. :class:`Repository` pushes
what no builder makes on demand: nested indexes, referrers, signatures, broken tags.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import socket
import subprocess
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import urllib3

from tools.core.janitor import end_tree
from tools.registry.manifest import (
    DOCKER_LIST,
    DOCKER_MANIFEST,
    INDEX_TYPES,
    MANIFEST_TYPES,
    OCI_INDEX,
    OCI_MANIFEST,
)

OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"
START_LIMIT = 30.0


class RegistryError(Exception):
    """The registry did not start, or refused what a test put into it."""


def digest_of(data: bytes) -> str:
    """The digest of ``data`` as OCI writes it: ``sha256:<hex>``."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


@dataclass
class Registry:
    """A registry that runs."""

    address: str  # 127.0.0.1:port; plain HTTP
    root: Path  # of its data, laid out as distribution's filesystem driver does
    user: str = ""  # who may log in; empty where no login is asked for
    password: str = ""
    pool: urllib3.PoolManager = field(default_factory=lambda: urllib3.PoolManager(maxsize=16))

    @property
    def url(self) -> str:
        """The registry's base address."""
        return f"http://{self.address}"

    def request(
        self, method: str, path: str, body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> urllib3.BaseHTTPResponse:  # fmt: skip
        """One request, logged in where the registry wants it; any status is returned."""
        sent = dict(headers or {})
        if self.user:
            sent |= urllib3.make_headers(basic_auth=f"{self.user}:{self.password}")
        url = path if path.startswith("http") else self.url + path
        return self.pool.request(
            method, url, body=body, headers=sent, retries=False, redirect=False, timeout=60
        )

    def repository(self, name: str = "") -> Repository:
        """A repository in this registry; a new unique name unless one is given."""
        return Repository(self, name or f"test/{uuid.uuid4().hex[:12]}")


def _configure(folder: Path, address: str, user: str, password: str) -> Path:
    """Write the registry's configuration (JSON, which is YAML too); its path."""
    config: dict[str, Any] = {
        "version": "0.1",
        "log": {"level": "error", "accesslog": {"disabled": True}},
        "storage": {
            "filesystem": {"rootdirectory": str(folder / "data"), "maxthreads": 100},
            "delete": {"enabled": True},
        },
        "http": {"addr": address},
    }
    if user:
        import bcrypt

        # The registry takes no other hash than bcrypt; 4 rounds, because tests are many.
        hashed = bcrypt.hashpw(password.encode(), bcrypt.gensalt(4)).decode()
        (folder / "htpasswd").write_text(f"{user}:{hashed}\n", encoding="utf-8")
        config["auth"] = {"htpasswd": {"realm": "tests", "path": str(folder / "htpasswd")}}
    path = folder / "config.yml"
    path.write_text(json.dumps(config), encoding="utf-8")
    return path


def _answers(registry: Registry) -> bool:
    try:
        return registry.request("GET", "/v2/").status == 200
    except urllib3.exceptions.HTTPError:
        return False


@contextlib.contextmanager
def running_registry(folder: Path, user: str = "", password: str = "") -> Iterator[Registry]:
    """A registry with its data in ``folder``, deletes enabled, which asks for the login of
    ``user`` if one is given; stopped at the end. Needs Debian's package docker-registry.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    command = ["docker-registry", "serve", str(_configure(folder, address, user, password))]
    env = {"PATH": os.environ["PATH"], "OTEL_TRACES_EXPORTER": "none"}
    log = folder / "registry.log"
    with log.open("ab") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=env
        )
    registry = Registry(address, folder / "data", user, password)
    try:
        limit = time.monotonic() + START_LIMIT
        while not _answers(registry):
            if process.poll() is not None or time.monotonic() > limit:
                raise RegistryError(f"no registry:\n{log.read_text(errors='replace')[-2000:]}")
            time.sleep(0.02)
        yield registry
    finally:
        registry.pool.clear()
        end_tree(process.pid, limit=10)
        process.wait()


# --- hand-made structures ----------------------------------------------------


@dataclass(frozen=True)
class Pushed:
    """A manifest that was pushed: what a descriptor of it says."""

    digest: str
    media_type: str
    size: int
    platform: Mapping[str, str] | None = None
    annotations: Mapping[str, str] | None = None
    artifact_type: str = ""

    def descriptor(self) -> dict[str, Any]:
        """The OCI descriptor of this manifest, as an index holds it."""
        values = {
            "mediaType": self.media_type, "digest": self.digest, "size": self.size,
            "platform": self.platform, "annotations": self.annotations,
            "artifactType": self.artifact_type,
        }  # fmt: skip
        return {key: value for key, value in values.items() if value}


class Repository:
    """One repository of a :class:`Registry`, written and read through its HTTP API."""

    def __init__(self, registry: Registry, name: str) -> None:
        self.registry = registry
        self.name = name
        self.image = f"{registry.address}/{name}"  # as a client is told to pull it
        self._manifests = registry.root / f"docker/registry/v2/repositories/{name}/_manifests"
        self._count = 0
        self._blobs: set[str] = set()

    def _request(
        self, expected: tuple[int, ...], method: str, path: str, body: bytes | None = None,
        kind: str = "",
    ) -> urllib3.BaseHTTPResponse:  # fmt: skip
        path = path if path.startswith("http") else f"/v2/{self.name}/{path}"
        headers = {"Content-Type": kind} if kind else {"Accept": ", ".join(MANIFEST_TYPES)}
        response = self.registry.request(method, path, body, headers)
        if response.status not in expected:
            text = response.data.decode(errors="replace")
            raise RegistryError(f"{self.name}: status {response.status}: {text[:300]}")
        return response

    def blob(self, media_type: str, data: bytes) -> dict[str, Any]:
        """Push a blob; its descriptor."""
        digest = digest_of(data)
        if digest not in self._blobs:
            where = self._request((202,), "POST", "blobs/uploads/").headers["Location"]
            where += ("&" if "?" in where else "?") + f"digest={digest}"
            self._request((201,), "PUT", where, data, "application/octet-stream")
            self._blobs.add(digest)
        return {"mediaType": media_type, "digest": digest, "size": len(data)}

    def manifest(self, content: Mapping[str, Any], tag: str = "") -> Pushed:
        """Push a manifest or index, by digest or under ``tag``."""
        body = json.dumps({"schemaVersion": 2, **content}).encode()
        digest, kind = digest_of(body), str(content["mediaType"])
        self._request((201,), "PUT", f"manifests/{tag or digest}", body, kind)
        artifact_type = str(content.get("artifactType", ""))
        return Pushed(digest, kind, len(body), artifact_type=artifact_type)

    def _unique(self) -> str:
        self._count += 1
        return f"{self.name} {self._count}"

    def _push(
        self, config: tuple[str, bytes], *layers: tuple[str, bytes], tag: str = "", **more: Any
    ) -> Pushed:
        """Push a manifest with its configuration and layers: media types and bytes."""
        blobs = {"config": self.blob(*config), "layers": [self.blob(*one) for one in layers]}
        return self.manifest({"mediaType": OCI_MANIFEST, **blobs, **more}, tag)

    def image_manifest(
        self, tag: str = "", *, seed: str = "", layers: int = 1, layer_size: int = 64,
        architecture: str = "amd64", docker: bool = False,
    ) -> Pushed:  # fmt: skip
        """Push an image of one platform (its layers are no real file systems): its content is
        unique unless a ``seed`` makes it; with Docker's media types or OCI's.
        """
        seed = seed or self._unique()
        platform = {"architecture": architecture, "os": "linux"}
        config = {**platform, "rootfs": {"type": "layers", "diff_ids": []}, "comment": seed}
        kind, of_config, of_layer = OCI_MANIFEST, OCI_CONFIG, OCI_LAYER
        if docker:
            kind, of_config, of_layer = DOCKER_MANIFEST, DOCKER_CONFIG, DOCKER_LAYER
        datas = [f"{seed} layer {number} ".encode() * layer_size for number in range(layers)]
        blobs = [(of_config, json.dumps(config).encode())]
        blobs += [(of_layer, data[:layer_size]) for data in datas]
        return replace(self._push(*blobs, tag=tag, mediaType=kind), platform=platform)

    def attestation(self, of: Pushed) -> Pushed:
        """Push what BuildKit adds to an index for ``of``: its provenance, untagged (BuildKit,
        docs/attestations/attestation-storage.md).
        """
        platform = {"architecture": "unknown", "os": "unknown"}
        statement = json.dumps({"subject": [{"digest": of.digest}]}).encode()
        pushed = self._push(
            (OCI_CONFIG, json.dumps(platform).encode()),
            ("application/vnd.in-toto+json", statement),
        )
        annotations = {
            "vnd.docker.reference.type": "attestation-manifest",
            "vnd.docker.reference.digest": of.digest,
        }
        return replace(pushed, platform=platform, annotations=annotations)

    def index(self, children: Sequence[Pushed], tag: str = "", docker: bool = False) -> Pushed:
        """Push an index of manifests (or of indexes) that are there already."""
        listed = [child.descriptor() for child in children]
        kind = DOCKER_LIST if docker else OCI_INDEX
        return self.manifest({"mediaType": kind, "manifests": listed}, tag)

    def build(self, tag: str = "", *architectures: str) -> Pushed:
        """Push what a default buildx build makes: an index of images with provenance."""
        children = []
        for name in architectures or ("amd64",):
            child = self.image_manifest(architecture=name)
            children += [child, self.attestation(child)]
        return self.index(children, tag)

    def artifact(self, subject: Pushed, kind: str) -> Pushed:
        """Push an artifact of type ``kind`` that refers to ``subject`` (OCI image specification
        1.1, "Guidelines for Artifact Usage").
        """
        layer, about = (kind, self._unique().encode()), subject.descriptor()
        empty = ("application/vnd.oci.empty.v1+json", b"{}")
        return self._push(empty, layer, artifactType=kind, subject=about)

    def referrers_tag(self, subject: Pushed, artifacts: Sequence[Pushed]) -> Pushed:
        """Push the fallback index of referrers ("Referrers Tag Schema"): ``sha256-<hex>``."""
        return self.index(artifacts, subject.digest.replace(":", "-"))

    def cosign(self, subject: Pushed, suffix: str = "sig") -> Pushed:
        """Push a signature, attestation or SBOM as cosign does: ``sha256-<hex>.<suffix>``."""
        data = json.dumps({"critical": subject.digest, "suffix": suffix}).encode()
        layer = ("application/vnd.dev.cosign.simplesigning.v1+json", data)
        tag = f"{subject.digest.replace(':', '-')}.{suffix}"
        return self._push((OCI_CONFIG, data), layer, tag=tag)

    # --- what is there ---

    def get(self, reference: str) -> dict[str, Any]:
        """A manifest by tag or digest."""
        return dict(json.loads(self._request((200,), "GET", f"manifests/{reference}").data))

    def has(self, reference: str) -> bool:
        """Whether a manifest is there."""
        return self._request((200, 404), "HEAD", f"manifests/{reference}").status == 200

    def delete(self, digest: str) -> None:
        """Delete a manifest: its tags go too. This is how a test breaks an index."""
        self._request((202,), "DELETE", f"manifests/{digest}")

    def revision(self, digest: str) -> Path:
        """The file that says a manifest is there; its time is the manifest's."""
        return self._manifests / "revisions" / digest.replace(":", "/") / "link"

    def tag_link(self, tag: str) -> Path:
        """The file that says what a tag points at; its time is when it was set."""
        return self._manifests / "tags" / tag / "current" / "link"

    def digests(self) -> set[str]:
        """Digests of all manifests, tagged or not (which no registry API lists)."""
        found = self._manifests.glob("revisions/sha256/*/link")
        return {f"sha256:{path.parent.name}" for path in found}

    def tags(self) -> dict[str, str]:
        """All tags and the digests that they point at."""
        found: dict[str, str] = {}
        until = time.monotonic() + START_LIMIT
        for path in self._manifests.glob("tags/*/current/link"):
            # A tag can go between the listing and the reading, and the registry empties the
            # file before it writes it anew.
            with contextlib.suppress(FileNotFoundError):
                while not (digest := path.read_text(encoding="utf-8").strip()):
                    assert time.monotonic() < until, f"{path} stays empty"
                found[path.parent.parent.name] = digest
        return found

    def pushed_at(self, digest: str) -> float:
        """When a manifest was pushed, in seconds since the epoch."""
        return self.revision(digest).stat().st_mtime

    def set_age(self, digest: str, seconds: float) -> None:
        """Let a manifest have been pushed ``seconds`` ago."""
        then = time.time() - seconds
        links = [self.tag_link(tag) for tag, found in self.tags().items() if found == digest]
        for link in (self.revision(digest), *links):
            os.utime(link, (then, then))

    def clone(self) -> Repository:
        """A copy of this repository under a new name, ages included."""
        copy = self.registry.repository()
        shutil.copytree(self._manifests.parent, copy._manifests.parent)
        return copy

    def set_all_ages(self, seconds: float) -> None:
        """Let everything that is there have been pushed ``seconds`` ago."""
        then = time.time() - seconds
        for pattern in ("revisions/sha256/*/link", "tags/*/current/link"):
            for link in self._manifests.glob(pattern):
                with contextlib.suppress(FileNotFoundError):  # deleted meanwhile
                    os.utime(link, (then, then))


# --- a real client -----------------------------------------------------------


def _skopeo(*arguments: str) -> str:
    done = subprocess.run(["skopeo", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RegistryError(f"skopeo {arguments[0]} failed: {done.stderr.strip()[-600:]}")
    return done.stdout


def pull(repository: Repository, reference: str, folder: Path) -> str:
    """Pull a tag or digest with skopeo, every platform and attestation of it; the digest of
    what was pulled (RegistryError if it cannot be, or has another one than it should).

    skopeo copies an index with all its images, but not an index of indexes or of artifacts:
    of such a one each part is pulled by its digest.
    """
    join = "@" if reference.startswith("sha256:") else ":"
    name = f"docker://{repository.image}{join}{reference}"
    raw = _skopeo("inspect", "--tls-verify=false", "--raw", name).encode()
    digest = digest_of(raw)
    children = json.loads(raw).get("manifests", ())
    if any(c["mediaType"] in INDEX_TYPES or "platform" not in c for c in children):
        for child in children:
            pull(repository, child["digest"], folder)
        return digest
    target, options = folder / uuid.uuid4().hex, ("--src-tls-verify=false", "--all")
    _skopeo("copy", *options, "--preserve-digests", name, f"dir:{target}")
    found = digest_of((target / "manifest.json").read_bytes())
    if found != digest or (join == "@" and digest != reference):
        raise RegistryError(f"{name} was pulled as {found}, and shown as {digest}")
    shutil.rmtree(target)
    return digest


def pull_all(repository: Repository, folder: Path) -> dict[str, str]:
    """Pull every tag with skopeo; tag to digest (RegistryError if one is not whole)."""
    return {tag: pull(repository, tag, folder) for tag in sorted(repository.tags())}


# --- fixtures ----------------------------------------------------------------


@pytest.fixture(scope="session")
def _registries(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where registries keep their data, if there is the program."""
    if shutil.which("docker-registry") is None:
        reason = "no docker-registry program"
        if os.environ.get("CI"):
            pytest.fail(f"{reason}; in CI that is a failure", pytrace=False)
        pytest.skip(reason)
    return tmp_path_factory.mktemp("registries")


@pytest.fixture(scope="session")
def registry(_registries: Path) -> Iterator[Registry]:
    """A registry without login, for the whole test run."""
    with running_registry(_registries / "open") as running:
        yield running


@pytest.fixture(scope="session")
def login_registry(_registries: Path) -> Iterator[Registry]:
    """A registry that asks for a login: ``user`` and ``password`` are its attributes."""
    with running_registry(_registries / "login", "robot", "a secret of the tests") as running:
        yield running


@pytest.fixture
def repository(registry: Registry) -> Repository:
    """A new, empty repository in ``registry``."""
    return registry.repository()
