"""The OCI distribution client, against a real registry and a gate that breaks things."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.services.gate import Fault, Gate, Seen, TokenServer, gate_before
from tests.services.registry import Registry as RealRegistry
from tests.services.registry import Repository
from tools.core.errors import UsageError
from tools.core.secrets import Secret, redact
from tools.core.settings import load
from tools.registry import manifest as oci
from tools.registry.client import (
    Answer,
    Forbidden,
    NotFound,
    Registry,
    RegistryError,
    Unauthorised,
    Unreachable,
    connect,
)
from tools.registry.login import Challenge, basic, choose_challenge
from tools.registry.manifest import InvalidManifest, parse_manifest

LOGIN = ("robot", "pass-of-robot")


def client(host: str, user: str = "", password: str = "", **options: object) -> Registry:
    """A client that repeats without pauses."""
    return Registry(host, user, Secret(password), backoff=0, **options)


@pytest.fixture
def gate(registry: RealRegistry) -> Iterator[Gate]:
    """A gate before the registry, without tokens."""
    with gate_before(registry.url) as running:
        yield running


@pytest.fixture
def token_gate(registry: RealRegistry) -> Iterator[Gate]:
    """A gate before the registry that asks for Bearer tokens, as GitHub's does."""
    with gate_before(registry.url, TokenServer(*LOGIN)) as running:
        yield running


# --- values ---


@pytest.mark.parametrize(
    "host", ["127.0.0.1:5000", "127.9.9.9", "localhost:5000", "[::1]:5000"]
)
def test_plain_http_on_this_machine(host: str):
    """Only there a login may go in the clear."""
    assert oci.is_loopback(host) and Registry(host).url == f"http://{host}"


@pytest.mark.parametrize(
    "host", ["ghcr.io", "10.0.0.1:5000", "localhost.example.com", "127.0.0.1.example.com"]
)
def test_tls_elsewhere(host: str):
    """A login must never cross a network in the clear because of a host's name."""
    assert not oci.is_loopback(host) and Registry(host).url == f"https://{host}"


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


@pytest.mark.parametrize("header", CHALLENGES)
def test_challenges(header: str):
    """Each registry words its challenge differently (RFC 9110, 11.6.1)."""
    assert choose_challenge(header) == CHALLENGES[header]


@given(st.text(max_size=80))
def test_any_challenge_header_is_read(header: str):
    """A header of any content ends in a challenge or none, never in an error or a loop."""
    found = choose_challenge(header)
    assert found is None or found.scheme in {"bearer", "basic"}


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["manifests", "mediaType", "layers", "config", "subject", "digest", "size", "annotations", "platform"]), inner)))  # fmt: skip
def test_any_json_is_a_manifest_or_said_to_be_none(value: object):
    """What a registry sends never ends in a traceback."""
    try:
        read = parse_manifest(json.dumps(value).encode())
        assert read.size >= 0
        assert all(oci.is_digest(part.digest) for part in (*read.children, *read.blobs))
    except InvalidManifest:
        pass


def test_an_unknown_digest_algorithm_is_refused():
    """What cannot be checked is not believed."""
    with pytest.raises(InvalidManifest, match="md5"):
        parse_manifest(b"{}", digest="md5:0")


# --- reading ---


def test_manifests_of_both_families(repository: Repository):
    """OCI and Docker media types, plain and listed, by tag and by digest."""
    reader = client(repository.registry.address)
    for docker in (False, True):
        image = repository.image_manifest(f"image-{docker}", docker=docker, layers=3)
        index = repository.index([image], f"index-{docker}", docker=docker)
        for pushed, tag in ((image, f"image-{docker}"), (index, f"index-{docker}")):
            for reference in (tag, pushed.digest):
                found = reader.head(repository.name, reference)
                assert found == reader.manifest(repository.name, reference).descriptor
                assert (found.digest, found.media_type, found.size) == (
                    pushed.digest, pushed.media_type, pushed.size,
                )  # fmt: skip
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


def test_descriptors_without_the_headers(repository: Repository, gate: Gate):
    """Digest and size are only recommended headers of a HEAD: else the content tells."""
    image = repository.build("image")
    gate.fault = lambda seen: Fault(200) if seen.method == "HEAD" else None
    assert client(gate.address).head(repository.name, "image").digest == image.digest


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


def test_tags_of_every_page(repository: Repository, gate: Gate):
    """A listing that is cut into pages is read to its end."""
    for number in range(5):
        repository.image_manifest(f"tag-{number}")
    respond, pages = gate.respond, []

    def in_pages(seen: Seen, body: bytes):
        status, headers, content = respond(seen, body)
        if "/tags/list" in seen.path:
            tags = sorted(json.loads(content)["tags"])
            start = int(seen.path.partition("last=")[2] or 0)
            content = json.dumps({"tags": tags[start : start + 2]}).encode()
            pages.append(start)
            if start + 2 < len(tags):
                follow = f'</v2/{repository.name}/tags/list?last={start + 2}>; rel="next"'
                headers = {**headers, "Link": follow}
        return status, headers, content

    gate.respond = in_pages
    assert client(gate.address).tags(repository.name) == [f"tag-{n}" for n in range(5)]
    assert pages == [0, 2, 4]


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
    with pytest.raises(Forbidden):
        reader.referrers(repository.name, image.digest)


def test_content_that_is_not_its_digest_is_refused(repository: Repository, gate: Gate):
    """A cache or a proxy that mixes contents up must not decide what is deleted."""
    image = repository.image_manifest("image")
    gate.fault = lambda _seen: Fault(200, {"Content-Type": oci.OCI_MANIFEST}, b"{}")
    with pytest.raises(RegistryError, match="no valid manifest.*has the digest"):
        client(gate.address).manifest(repository.name, image.digest)


# --- logging in ---


def test_basic_login(login_registry: RealRegistry, registry: RealRegistry):
    """htpasswd registries: asked, accepted, refused, and not given; others ask nobody."""
    repository = login_registry.repository()
    repository.image_manifest("image")
    good = client(login_registry.address, login_registry.user, login_registry.password)
    assert good.answer() == Answer("basic", True)
    assert good.head(repository.name, "image").digest
    good.check_push(repository.name)
    wrong = client(login_registry.address, login_registry.user, "wrong password")
    assert wrong.answer() == Answer("basic", False)
    with pytest.raises(Unauthorised):
        wrong.head(repository.name, "image")
    nobody = client(login_registry.address)
    assert nobody.answer() == Answer("basic", None)
    with pytest.raises(Unauthorised, match="wants a login"):
        nobody.check_push(repository.name)
    assert client(registry.address, *LOGIN).answer() == Answer("", None)


def test_bearer_login(repository: Repository, token_gate: Gate):
    """One challenge and one token serve any number of requests; a wrong login is told from
    a missing one, and the secret is in no message.
    """
    image = repository.build("image")
    reader = client(token_gate.address, *LOGIN)
    for _ in range(5):
        assert reader.head(repository.name, "image").digest == image.digest
    assert token_gate.count(part="/token") == 1
    assert token_gate.count() == 1 + 1 + 5
    assert reader.answer() == Answer("bearer", True)
    assert client(token_gate.address).answer() == Answer("bearer", None)
    wrong = client(token_gate.address, "robot", "not-the-pass")
    assert wrong.answer() == Answer("bearer", False)
    with pytest.raises(Unauthorised) as caught:
        wrong.manifest(repository.name, "image")
    assert "not-the-pass" not in str(caught.value)


@pytest.mark.parametrize("body", [b"{}", b"no json", b"[]"])
def test_token_servers_that_give_no_token(token_gate: Gate, body: bytes):
    """What a broken token server sends is one sentence."""
    token_gate.fault = lambda seen: Fault(200, body=body) if "/token" in seen.path else None
    with pytest.raises(RegistryError, match="no token|unexpected"):
        client(token_gate.address).head("a/b", "c")


@pytest.mark.parametrize("refuse", [False, True])
def test_push_is_forbidden(registry: RealRegistry, refuse: bool):
    """A read-only login: said by the registry, or by the token server."""
    tokens = TokenServer(*LOGIN, frozenset({"pull"}), refuse=refuse)
    with gate_before(registry.url, tokens) as gate:
        with pytest.raises((Forbidden, Unauthorised)):
            client(gate.address, *LOGIN).check_push("test/read-only")


def test_check_push_pushes_nothing(repository: Repository, token_gate: Gate):
    """Asking whether we may push leaves no blob and no manifest, and ends its upload."""
    client(token_gate.address, *LOGIN).check_push(repository.name)
    root = repository.registry.root / "docker/registry/v2/repositories" / repository.name
    # distribution 2.8 keeps an empty hash state of an upload that was cancelled.
    left = {path.name for path in root.rglob("*") if path.is_file() and path.stat().st_size}
    assert not left & {"link", "data", "startedat"}
    assert token_gate.count("DELETE") == 1


def test_many_threads(repository: Repository, token_gate: Gate):
    """One client object serves many threads: connections are pooled, one token is fetched,
    and another when the registry no longer takes it.
    """
    images = [repository.image_manifest(f"t{number}").digest for number in range(20)]
    reader = client(token_gate.address, *LOGIN, connections=8)

    def read(number: int) -> str:
        return {reader.head(repository.name, f"t{number}").digest for _ in range(5)}.pop()

    for tokens in (1, 2):
        with ThreadPoolExecutor(20) as pool:
            assert list(pool.map(read, range(20))) == images
        assert token_gate.count(part="/token") == tokens
        token_gate.tokens.issued.clear()


def test_login_goes_to_no_token_server_without_tls():
    """A registry can't make us send the login in the clear to somebody else."""
    with gate_before("") as gate:
        headers = {"WWW-Authenticate": 'Bearer realm="http://tokens.example.com/t",service="x"'}
        gate.fault = lambda _seen: Fault(401, headers)
        with pytest.raises(RegistryError, match="no TLS"):
            client(gate.address, *LOGIN).head("a/b", "c")


def test_login_does_not_follow_a_redirect_elsewhere(repository: Repository, token_gate: Gate):
    """Whatever a registry answers, no other host sees the Authorization header."""
    with gate_before("") as other:
        other.fault = lambda _seen: Fault(200)
        away = Fault(202, {"Location": f"{other.url}/upload"})
        token_gate.fault = lambda seen: away if seen.method == "POST" else None
        client(token_gate.address, *LOGIN).check_push(repository.name)
        assert [seen.headers.get("Authorization") for seen in other.seen] == [None]


def test_connect_takes_the_settings(login_registry: RealRegistry, tmp_path):
    """The settings' registry and token are what is used; Docker Hub has its own login."""
    env = {"REGISTRY": login_registry.address, "GH_TOKEN": login_registry.password}
    settings = load({**env, "IMAGE_NAME": f"{login_registry.user}/image"}, tmp_path)
    assert connect(settings).answer().login is True
    env = {"REGISTRY": "docker.io", "IMAGE_NAME": "a/b", "DOCKER_HUB_USERNAME": "me"}
    assert connect(load(env, tmp_path)).url == "https://registry-1.docker.io"


def test_basic_header_is_masked():
    """Neither the password nor its Base64 form is ever printed."""
    header = basic("robot", Secret("correct horse"))
    assert redact(f"x {header} correct horse") == "x Basic *** ***"


# --- faults ---

PASSING = {
    "500": Fault(500), "502": Fault(502), "503": Fault(503, {"Retry-After": "0"}),
    "429": Fault(429), "reset": Fault(reset=True), "truncated": Fault(truncate=True),
}  # fmt: skip
LASTING = {
    RegistryError: (Fault(500), Fault(418)), Unauthorised: (Fault(401),),
    Forbidden: (Fault(403),), NotFound: (Fault(404),),
    Unreachable: (Fault(reset=True), Fault(truncate=True)),
}  # fmt: skip


@pytest.mark.parametrize("fault", PASSING.values(), ids=PASSING)
def test_passing_faults_are_outlived(repository: Repository, gate: Gate, fault: Fault):
    """A fault that passes is repeated away, and the response is whole."""
    image = repository.build("image")
    gate.fault = lambda seen: fault if seen.number <= 2 else None
    read = client(gate.address).manifest(repository.name, "image")
    assert read.descriptor.digest == image.digest
    assert gate.count() == 3


@pytest.mark.parametrize("expected", LASTING)
def test_lasting_faults_are_told_apart(gate: Gate, expected: type[RegistryError]):
    """Only a clean 404 may ever count as absence; each other fault has its own exception."""
    for fault in LASTING[expected]:
        gate.fault = lambda _seen, fault=fault: fault
        with pytest.raises(RegistryError) as caught:
            client(gate.address, retries=2).manifest("a/b", "tag")
        assert type(caught.value) is expected
        assert caught.value.status == (0 if expected is Unreachable else fault.status)


def test_nobody_there(monkeypatch: pytest.MonkeyPatch):
    """A registry that is down is one sentence; no proxy is asked for one on this machine."""
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with gate_before("") as gone:
        gone.fault = lambda _seen: Fault(200)
        client(gone.address, retries=1).answer()
    with pytest.raises(Unreachable, match=f"{gone.address} cannot be reached: .*refused"):
        client(gone.address, retries=1).answer()


def test_wrong_certificate_bundle(tmp_path):
    """A bundle that is no PEM file, or not there, is one sentence, at once."""
    bundle = tmp_path / "bundle.pem"
    for _ in range(2):
        with pytest.raises(UsageError, match="cannot be read"):
            Registry("ghcr.io", ca_certificates=str(bundle))
        bundle.write_text("nonsense")
