"""The tests' own registry does what tests rely on."""

from __future__ import annotations

from tests.services.registry import Registry, Repository


def test_holds_what_is_pushed_and_forgets_what_is_deleted(repository: Repository):
    """Protects the helper that all tests of the cleanup look at the registry through."""
    index = repository.build("one", "amd64", "arm64")
    listed = [child["digest"] for child in repository.get("one")["manifests"]]
    assert repository.tags() == {"one": index.digest}
    assert repository.digests() == {index.digest, *listed}
    assert len(listed) == 4
    repository.delete(listed[0])
    assert not repository.has(listed[0])
    assert repository.has("one")
    repository.delete(index.digest)
    assert repository.tags() == {}


def test_every_structure_is_accepted(repository: Repository):
    """Protects the hand-made structures: a real registry must take each of them."""
    image = repository.image_manifest("single", docker=True)
    listing = repository.index([image], "list", docker=True)
    nested = repository.index([listing, repository.build()], "nested")
    kind = "application/vnd.example"
    artifact = repository.artifact(nested, kind)
    of_artifact = repository.artifact(artifact, kind)
    repository.referrers_tag(nested, [artifact])
    repository.cosign(nested)
    hex_digest = nested.hex
    assert set(repository.tags()) == {
        "single", "list", "nested", f"sha256-{hex_digest}", f"sha256-{hex_digest}.sig",
    }  # fmt: skip
    assert repository.get(of_artifact.digest)["subject"]["digest"] == artifact.digest


def test_age_can_be_set(repository: Repository):
    """Protects the ages that grace periods are tested with."""
    image = repository.image_manifest("old")
    before = repository.pushed_at(image.digest)
    repository.set_age(image.digest, 3600)
    assert 3500 < before - repository.pushed_at(image.digest) < 3700


def test_login_is_asked_for(login_registry: Registry):
    """Protects tests of refused logins: without one nothing may be readable."""
    repository = login_registry.repository()
    repository.image_manifest("one")
    path = f"{login_registry.url}/v2/{repository.name}/manifests/one"
    answer = login_registry.pool.request("GET", path, retries=False)
    assert answer.status == 401
    assert answer.headers["WWW-Authenticate"].startswith("Basic ")
