"""The OCI distribution client, against a real registry and a gate that breaks things."""

import base64
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.services.gate import Fault, Gate, Seen, TokenServer
from tests.services.registry import Registry as RealRegistry
from tests.services.registry import Repository
from tools.core.errors import UsageError
from tools.core.secrets import Secret, redact
from tools.core.settings import load
from tools.registry import manifest as oci
from tools.registry.client import Challenge, NotFound
from tools.registry.client import Registry as Client
from tools.registry.client import RegistryError, choose_challenge, connect
from tools.registry.manifest import parse_manifest

LOGIN = ("robot", "pass-of-robot")


def client(host: str, user: str = "", password: str = "") -> Client:
    """A client that repeats twice, without pauses."""
    return Client(host, user, Secret(password), backoff=0, retries=2)


@pytest.fixture
def gate(registry: RealRegistry) -> Iterator[Gate]:
    """A gate before the registry; it may ask for Bearer tokens, as GitHub's does."""
    with Gate(registry.url) as running:
        yield running


def test_plain_http_on_this_machine_alone(tmp_path):
    """A login must never cross a network in the clear because of a host's name, and Docker
    Hub has two; a certificate bundle that is no PEM file, or not there, is one sentence.
    """
    for host in ("127.0.0.1:5000", "127.9.9.9", "localhost:5000", "[::1]:5000"):
        assert Client(host).url == f"http://{host}"
    for host in ("ghcr.io", "10.0.0.1:5000", "localhost.example.com", "127.0.0.1.example.com"):
        assert Client(host).url == f"https://{host}"
    hub = connect(load({"REGISTRY": "docker.io"}, tmp_path))
    assert hub.url == "https://registry-1.docker.io"
    for path in (tmp_path, tmp_path / "none", __file__):
        with pytest.raises(UsageError, match="cannot be read"):
            Client("ghcr.io", ca_certificates=str(path))


CHALLENGES = {
    'Bearer realm="https://ghcr.io/token",service="ghcr.io",scope="repository:a/b:pull"':
        Challenge("bearer", "https://ghcr.io/token", "ghcr.io"),
    'Basic realm="Registry, of \\"us\\""': Challenge("basic", 'Registry, of "us"'),
    "Basic": Challenge("basic"),
    'basic realm=plain, BEARER realm="https://x/t"': Challenge("bearer", "https://x/t"),
    'Negotiate abc==, Basic realm="x"': Challenge("basic", "x"),
    'Basic realm="x, Bearer realm=y"': Challenge("basic", "x, Bearer realm=y"),
    'Digest realm="x", nonce="y"': None,
    "": None,
    "nonsense": None,
}  # fmt: skip


def test_challenges():
    """Each registry words its challenge differently (RFC 9110, 11.6.1)."""
    assert {header: choose_challenge(header) for header in CHALLENGES} == CHALLENGES


@given(st.text(max_size=80))
def test_any_challenge_header_is_read(header: str):
    """A header of any content ends in a challenge or none, never in an error or a loop."""
    found = choose_challenge(header)
    assert found is None or found.scheme in {"bearer", "basic"}


keys = st.sampled_from(["manifests", "mediaType", "layers", "config", "subject", "digest"])
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(keys | st.just("size"), inner),
    max_leaves=20,
)


@given(anything)
def test_any_json_is_a_manifest_or_said_to_be_none(value: object):
    """What a registry sends never ends in a traceback."""
    try:
        read = parse_manifest(json.dumps(value).encode())
    except ValueError:
        return
    assert read.size >= 0
    assert all(oci.is_digest(part.digest) for part in (*read.children, *read.blobs))


def test_manifests_of_unknown_types():
    """Descriptors are followed whatever the media type says; what cannot be checked against
    its digest is not believed.
    """
    part = {"digest": f"sha256:{'0' * 64}", "size": 5}
    read = parse_manifest(json.dumps({"mediaType": "a/b", "manifests": [part]}).encode())
    assert [child.digest for child in read.children] == [part["digest"]] and not read.is_index
    with pytest.raises(ValueError, match="md5"):
        parse_manifest(b"{}", digest="md5:0")


@pytest.mark.parametrize("docker", [False, True])
def test_manifests_of_both_families(repository: Repository, gate: Gate, docker: bool):
    """OCI and Docker media types, plain and listed, by tag and by digest; where a HEAD has not
    the recommended headers, the content tells.
    """
    reader = client(gate.address)
    image = repository.image_manifest("image", docker=docker, layers=3)
    index = repository.index([image], "index", docker=docker)
    for pushed, tag in ((image, "image"), (index, "index")):
        for reference in (tag, pushed.digest):
            gate.fault = lambda _seen: None
            found = reader.head(repository.name, reference)
            assert found == reader.manifest(repository.name, reference).descriptor
            assert (found.digest, found.size) == (pushed.digest, pushed.size)
            assert found.media_type == pushed.media_type
            gate.fault = lambda seen: Fault(200) if seen.method == "HEAD" else None
            assert reader.head(repository.name, reference) == found
    [child] = reader.manifest(repository.name, index.digest).children
    assert child.digest == image.digest


def test_sizes_of_images(repository: Repository):
    """The size that a user pulls: config and layers, each blob once, no attestation."""
    one = repository.image_manifest(seed="one", layers=2, layer_size=1000)
    other = repository.image_manifest(seed="two", layer_size=500, architecture="arm64")
    inner = repository.index([other, repository.attestation(other)])
    repository.index([one, repository.attestation(one), inner], "both")
    config = repository.get(one.digest)["config"]["size"]
    reader = client(repository.registry.address)
    first, second = reader.sizes(repository.name, "both")
    assert first == 2000 + config
    assert 500 < second < first
    assert reader.sizes(repository.name, one.digest) == [first]


def test_missing_things_are_a_clean_404(repository: Repository):
    """Cleanup may trust only this as proof that something is gone."""
    reader = client(repository.registry.address)
    repository.image_manifest("there")
    for reference in ("absent", "sha256:" + "0" * 64):
        for read in (reader.head, reader.manifest):
            with pytest.raises(NotFound, match="does not have"):
                read(repository.name, reference)
    with pytest.raises(NotFound):
        reader.tags("test/no-such-repository")


def test_tags_of_every_page():
    """A listing that is cut into pages is read to its end."""

    def page(seen: Seen) -> Fault:
        start = int(seen.path.partition("last=")[2] or 0)
        link = {"Link": f'</v2/a/tags/list?last={start + 2}>; rel="next"'} if start < 4 else {}
        return Fault(200, link, json.dumps({"tags": [f"{start}", f"{start + 1}"]}).encode())

    with Gate("") as gate:
        gate.fault = page
        assert client(gate.address).tags("a") == ["0", "1", "2", "3", "4", "5"]


def test_referrers(repository: Repository, gate: Gate):
    """The OCI 1.1 API where it is there, else the tag sha256-<hex>; GitHub's 303 to a web page
    is not followed.
    """
    image = repository.build("image")
    reader = client(gate.address)
    assert reader.referrers(repository.name, image.digest) == []
    by_tag = repository.artifact(image, "application/vnd.by.tag")
    by_api = repository.artifact(image, "application/vnd.by.api")
    repository.referrers_tag(image, [by_tag])
    listed = json.dumps({"manifests": [by_api.descriptor()]}).encode()
    api = Fault(200, {"Content-Type": oci.OCI_INDEX}, listed)
    redirect = Fault(303, {"Location": "http://127.0.0.1:9/packages"})
    for fault, expected in ((None, by_tag), (redirect, by_tag), (api, by_api)):
        gate.fault = lambda seen, fault=fault: fault if "/referrers/" in seen.path else None
        [found] = reader.referrers(repository.name, image.digest)
        assert (found.digest, found.artifact_type) == (expected.digest, expected.artifact_type)
    gate.fault = lambda seen: Fault(403) if "/referrers/" in seen.path else None
    with pytest.raises(RegistryError, match="refuses"):
        reader.referrers(repository.name, image.digest)


def test_content_that_is_not_its_digest_is_refused(repository: Repository, gate: Gate):
    """A cache or a proxy that mixes contents up must not decide what is deleted."""
    gate.fault = lambda _seen: Fault(200, {"Content-Type": oci.OCI_MANIFEST}, b"{}")
    with pytest.raises(RegistryError, match="no valid manifest.*has the digest"):
        client(gate.address).manifest(repository.name, f"sha256:{'0' * 64}")


def test_basic_login(login_registry: RealRegistry, registry: RealRegistry, tmp_path):
    """htpasswd registries: asked, accepted (with the settings' token), refused, and not given;
    others ask nobody.
    """
    host, user, repository = login_registry.address, login_registry.user, "test/a"
    env = {"REGISTRY": host, "GH_TOKEN": login_registry.password, "IMAGE_NAME": f"{user}/a"}
    good, wrong, nobody = connect(load(env, tmp_path)), client(host, user, "no"), client(host)
    login_registry.repository(repository).image_manifest("image")
    assert good.head(repository, "image").digest
    good.check_push(repository)
    assert [one.answer() for one in (good, wrong, nobody)] == ["accepts", "refuses", "asks"]
    for refused in (wrong, nobody):
        with pytest.raises(RegistryError, match="wants a login") as caught:
            refused.head(repository, "image")
        assert caught.value.status == 401
    assert client(registry.address, *LOGIN).answer() == "open"
    # Neither the password nor its Base64 form is ever printed.
    value = base64.b64encode(f"{LOGIN[0]}:{LOGIN[1]}".encode()).decode()
    assert redact(f"x {value} {LOGIN[1]}") == "x *** ***"


def test_bearer_login(repository: Repository, gate: Gate):
    """One token serves any number of threads, until the registry no longer takes it; a wrong
    login is told from a missing one, and the secret is in no message.
    """
    gate.tokens = TokenServer(*LOGIN)
    images = [repository.image_manifest(f"t{number}").digest for number in range(4)]
    reader = client(gate.address, *LOGIN)

    def read(number: int) -> str:
        return reader.head(repository.name, f"t{number % 4}").digest

    for tokens in (1, 2):
        with ThreadPoolExecutor(20) as pool:
            assert list(pool.map(read, range(40))) == images * 10
        assert gate.count(part="/token") == tokens
        gate.tokens.issued.clear()
    nobody, wrong = client(gate.address), client(gate.address, "robot", "not-it")
    assert [one.answer() for one in (reader, wrong, nobody)] == ["accepts", "refuses", "asks"]
    with pytest.raises(RegistryError) as caught:
        wrong.manifest(repository.name, "image")
    assert caught.value.status == 401 and "not-it" not in str(caught.value)
    for body in (b"{}", b"no json", b"[]"):  # a broken token server
        fault = Fault(200, body=body)
        gate.fault = lambda seen, fault=fault: fault if "/token" in seen.path else None
        with pytest.raises(RegistryError, match="no token|unexpected"):
            client(gate.address).head("a/b", "c")
        assert client(gate.address).answer() == "asks"


def test_check_push(repository: Repository, gate: Gate):
    """Asking whether we may push leaves no blob and no manifest, and ends its upload; a login
    that may only read is refused, by the registry or by the token server.
    """
    gate.tokens = TokenServer(*LOGIN)
    client(gate.address, *LOGIN).check_push(repository.name)
    root = repository.registry.root / "docker/registry/v2/repositories" / repository.name
    # distribution 2.8 keeps an empty hash state of an upload that was cancelled.
    left = {path.name for path in root.rglob("*") if path.is_file() and path.stat().st_size}
    assert not left & {"link", "data", "startedat"}
    assert gate.count("DELETE") == 1
    for refuse, status in ((False, 401), (True, 403)):
        gate.tokens = TokenServer(*LOGIN, frozenset({"pull"}), refuse=refuse)
        with pytest.raises(RegistryError) as caught:
            client(gate.address, *LOGIN).check_push(repository.name)
        assert caught.value.status == status


def test_the_login_goes_nowhere_else(repository: Repository, gate: Gate):
    """A registry can't make us send the login in the clear to a token server, nor to another
    host with an address in its response.
    """
    with Gate("") as other:
        other.fault = lambda _seen: Fault(200)
        away = Fault(202, {"Location": f"{other.url}/upload"})
        gate.fault = lambda seen: away if seen.method == "POST" else None
        client(gate.address, *LOGIN).check_push(repository.name)
        assert [seen.headers.get("Authorization") for seen in other.seen] == [None]
    headers = {"WWW-Authenticate": 'Bearer realm="http://tokens.example.com/t",service="x"'}
    gate.fault = lambda _seen: Fault(401, headers)
    with pytest.raises(RegistryError, match="no TLS"):
        client(gate.address, *LOGIN).head("a/b", "c")


PASSING = (
    Fault(500), Fault(502), Fault(503, {"Retry-After": "0"}), Fault(429), Fault(reset=True),
    Fault(truncate=True),
)  # fmt: skip


def test_passing_faults_are_outlived(repository: Repository, gate: Gate):
    """A fault that passes is repeated away, and the response is whole; one that lasts is told
    by its status, if there is any: only a clean 404 may ever count as absence.
    """
    image, reader = repository.build("image"), client(gate.address)
    for fault in PASSING:
        gate.reset()
        gate.fault = lambda seen, fault=fault: fault if seen.number <= 2 else None
        assert reader.manifest(repository.name, "image").descriptor.digest == image.digest
        assert gate.count() == 3
    for fault in (*PASSING, Fault(418), Fault(401), Fault(403), Fault(404)):
        gate.fault = lambda _seen, fault=fault: fault
        with pytest.raises(RegistryError) as caught:
            reader.manifest(repository.name, "image")
        assert caught.value.status == fault.status
        assert isinstance(caught.value, NotFound) == (fault.status == 404)


def test_nobody_there(monkeypatch: pytest.MonkeyPatch):
    """A registry that is down is one sentence; no proxy is asked for one on this machine."""
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with Gate("") as gone:
        gone.fault = lambda _seen: Fault(200)
        assert client(gone.address).answer() == "open"
    with pytest.raises(RegistryError, match=f"{gone.address} cannot be reached: .*refused"):
        client(gone.address).answer()
