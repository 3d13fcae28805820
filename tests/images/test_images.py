"""The plan of an image build, without any engine."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from tools.core.errors import PipelineError, UsageError
from tools.core.process import Done
from tools.core.settings import ROOT, Settings, load
from tools.images import __main__ as images
from tools.images import build as buildx
from tools.images import context as build_context
from tools.images import record as image_record
from tools.images.__main__ import Wish
from tools.images.build import LOAD, OCI, PUSH, BuildPlan
from tools.images.engine import Builder, Engine, EngineError, explain
from tools.images.record import ImageRecord
from tools.repo.context import Context
from tools.repo.event import Event

SHA = "0123456789abcdef0123456789abcdef01234567"


def event(ref: str, **more: object) -> Event:
    return Event(name="push", ref=ref, sha=SHA, repository="o/n", **more)  # type: ignore[arg-type]


MAIN = event("refs/heads/main")
DEVELOP = event("refs/heads/develop")
TAG = event("refs/tags/v1.2.3")
PULL = replace(event("refs/pull/7/merge"), name="pull_request", pull_request=7)


@pytest.mark.parametrize(
    ("image", "what", "wish", "may_push", "output"),
    [
        ("development", MAIN, Wish(), "login", PUSH),
        ("development", DEVELOP, Wish(), "login", PUSH),
        ("development", TAG, Wish(), "login", PUSH),
        ("development", MAIN, Wish(), "", LOAD),
        ("development", MAIN, Wish(push=False), "login", LOAD),
        ("development", MAIN, Wish(push=True), "", PUSH),
        ("development", PULL, Wish(), "login", LOAD),
        ("development", PULL, Wish(oci=True), "login", OCI),
        ("production", MAIN, Wish(), "login", PUSH),
        ("production", TAG, Wish(), "login", PUSH),
        ("production", DEVELOP, Wish(), "login", LOAD),
        ("production", PULL, Wish(), "login", LOAD),
        ("production", event("refs/heads/trunk", default_branch="trunk"), Wish(), "x", PUSH),
    ],
)
def test_output(image: str, what: Event, wish: Wish, may_push: str, output: str) -> None:
    """Nothing is published from a pull request, no production image from develop."""
    chosen, reason = images.choose_output(image, what, wish, may_push)
    assert chosen == output
    assert reason


@pytest.mark.parametrize(("image", "what"), [("production", DEVELOP), ("development", PULL)])
def test_push_that_is_not_allowed(image: str, what: Event) -> None:
    """--push cannot publish what the event does not publish: an error, not a silence."""
    with pytest.raises(UsageError, match="not published from"):
        images.choose_output(image, what, Wish(push=True), "login")


ACTIONS = {"ACTIONS_RUNTIME_TOKEN": "t", "ACTIONS_RESULTS_URL": "https://results"}


@pytest.mark.parametrize(
    ("output", "env", "source", "target"),
    [
        (PUSH, ACTIONS, "type=gha", "type=gha"),
        (LOAD, ACTIONS, "type=gha", "type=gha"),
        (PUSH, {}, "type=registry,ref=r/n:buildcache-development", "type=registry"),
        (LOAD, {}, "", ""),
        (OCI, {"ACTIONS_RUNTIME_TOKEN": "t"}, "", ""),
    ],
)
def test_layer_cache(output: str, env: dict[str, str], source: str, target: str) -> None:
    """The Actions cache where it is, else one beside the image when pushing, else none."""
    found = buildx.layer_cache(output, "r/n", "development", env)
    for values, start in zip(found, (source, target), strict=True):
        assert bool(values) == bool(start)
        assert all(value.startswith(start) for value in values)
    assert "t" not in "".join(found[0]).split(","), "the token must not stand in argv"


PLAN = BuildPlan(
    image="development",
    stage="development",
    references=("r.example/o/n:main", "r.example/o/n:latest"),
    labels={"org.opencontainers.image.title": "mlc-llm"},
    platforms=("linux/amd64",),
    output=PUSH,
    reason="login",
)
MODERN = Engine("29.0.0", True, "overlayfs", "0.30.0")
CLASSIC = Engine("24.0.0", False, "overlay2", "0.11.0")
LOCAL, REMOTE = Builder("", "docker"), Builder("farm", "kubernetes")
TWO = ("linux/amd64", "linux/arm64")


def test_builder_that_can() -> None:
    """An engine with the containerd store, and any other builder, pushes attestations."""
    assert buildx.fit_to_builder(PLAN, MODERN, LOCAL) == PLAN
    assert buildx.fit_to_builder(PLAN, CLASSIC, REMOTE) == PLAN


def test_builder_that_loads_without_attestation() -> None:
    """What cannot hold an attestation loads the image without one instead of failing."""
    load = replace(PLAN, output=LOAD)
    assert buildx.fit_to_builder(load, MODERN, LOCAL).provenance
    assert not buildx.fit_to_builder(load, CLASSIC, LOCAL).provenance
    assert not buildx.fit_to_builder(load, MODERN, REMOTE).provenance


@pytest.mark.parametrize(
    ("plan", "engine", "builder", "words"),
    [
        (PLAN, CLASSIC, LOCAL, "docker buildx create"),
        (replace(PLAN, output=LOAD, platforms=TWO), CLASSIC, LOCAL, "containerd image store"),
        (replace(PLAN, output=LOAD, platforms=TWO), MODERN, REMOTE, "--output oci"),
    ],
)
def test_builder_that_cannot(
    plan: BuildPlan, engine: Engine, builder: Builder, words: str
) -> None:
    """What a builder cannot do is said before the build, with what to do."""
    with pytest.raises(UsageError) as caught:
        buildx.fit_to_builder(plan, engine, builder)
    assert words in str(caught.value)


def test_command() -> None:
    """The command says all that the plan says, and the context comes last."""
    plan = replace(
        PLAN, builder="farm", platforms=TWO, build_args={"CMAKE_VERSION": "3.24"},
        ca_certificates="/ca.crt", contexts={"wheels": "/w"}, cache_from=("type=gha",),
    )  # fmt: skip
    made = buildx.command(plan, Path("/m.json"))
    text = " ".join(made)
    assert made[-1] == "."
    for part in (
        "--builder farm", "--platform linux/amd64,linux/arm64", "--target development",
        "--build-arg CMAKE_VERSION=3.24", "--secret id=ca-certificates,src=/ca.crt",
        "--build-context wheels=/w", "--cache-from=type=gha", "--provenance=true", "--push",
        "--tag r.example/o/n:main", "--tag r.example/o/n:latest",
        "--label org.opencontainers.image.title=mlc-llm",
    ):  # fmt: skip
        assert part in text


PUSHED = "ERROR: failed to solve: failed to push ghcr.io/o/n:main: "
AUTHORIZE = (
    "#15 ERROR: failed to push r.example/o/n:main: failed to authorize: failed to fetch oauth "
    "token: unexpected status from POST request to https://r.example/token: 401 Unauthorized"
)
DENIED = (
    "#15 ERROR: failed to push r.example/o/n:main: denied: permission_denied: write_package"
)
BASE = (
    "#2 [internal] load metadata for docker.io/library/nope:1\n"
    "ERROR: failed to solve: nope:1: failed to resolve source metadata for "
    "docker.io/library/nope:1: pull access denied, repository does not exist or may require "
    "authorization: server message: insufficient_scope: authorization failed"
)
STEP = (
    'ERROR: failed to solve: process "/bin/sh -c pip install x" did not complete '
    "successfully: exit code: 1"
)


@pytest.mark.parametrize(
    ("output", "message", "remedy"),
    [
        (AUTHORIZE, "refused the login", "write:packages"),
        (DENIED, "does not let this token write packages", "write:packages"),
        (BASE, "The base image docker.io/library/nope:1 cannot be had", "BASE_IMAGE"),
        (STEP, "'/bin/sh -c pip install x' failed (exit code: 1)", "output"),
        ("certificate verify failed\n" + STEP, "pip install x", "CA_CERTIFICATES"),
        ("write /x: no space left on device\n" + STEP, "disk", "prune"),
        (
            "ERROR: failed to solve: dockerfile parse error on line 3: unknown instruction: FRM",
            "Dockerfile, line 3: unknown instruction: FRM",
            "lint",
        ),
        (
            f"{PUSHED}received unexpected HTTP status: 503 Service Unavailable",
            "3 times in a row: failed to solve: failed to push ghcr.io/o/n:main",
            "status page",
        ),
        ("ERROR: something new", "something new", "doctor"),
    ],
)
def test_diagnosis(output: str, message: str, remedy: str) -> None:
    """Each kind of failure is recognised as itself and says what to do."""
    error = buildx.diagnose(output, PLAN)
    assert message in error.message
    assert remedy in error.remedy


@pytest.mark.parametrize(
    ("last", "attempts"),
    [
        (
            "ERROR: unexpected status from HEAD request to http://r/v2/o/n/manifests/main: 500 "
            "Internal Server Error",
            3,
        ),
        (
            f"{PUSHED}unexpected status from POST request to https://r/v2/: 502 Bad Gateway",
            3,
        ),
        (f"{PUSHED}received unexpected HTTP status: 503 Service Unavailable", 3),
        (f"{PUSHED}write tcp 10.0.0.1:1->10.0.0.2:443: connection reset by peer", 3),
        (f'{PUSHED}Put "https://r/v2/o/n/blobs": net/http: TLS handshake timeout', 3),
        (f"{PUSHED}read tcp 10.0.0.1:1->10.0.0.2:443: i/o timeout", 3),
        (f'{PUSHED}Patch "https://r/v2/o/n/blobs/uploads": EOF', 3),
        (f"{PUSHED}unexpected status from PUT request to https://r:500/v2/: 403 Forbidden", 1),
        (f"{PUSHED}dial tcp 127.0.0.1:9: connect: connection refused", 1),
        (f"{PUSHED}dial tcp: lookup ghcr.io on 10.0.0.1:53: i/o timeout", 1),
        (f"{PUSHED}401 Unauthorized", 1),
        ("#9 12.3 E: 503 Service Unavailable\nERROR: failed to solve: process did not", 1),
    ],
)
def test_passing_trouble_is_tried_again(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    last: str,
    attempts: int,
) -> None:
    """What a registry may have got over by the next time is tried three times, all else once;
    what the last attempt left is handed on.
    """
    monkeypatch.setattr(buildx, "PAUSES", (0.0, 0.0))
    done = [Done(1, "", f"#1 something\n{last}\n") for _ in range(3)]
    left = iter(done)
    assert buildx.insist(lambda: next(left)) is done[attempts - 1]
    assert capsys.readouterr().err.count("trying again") == attempts - 1


def test_docker_hub_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Docker Hub's passing trouble does not fail a build whose image is pushed already."""
    last = "ERROR: unexpected status from HEAD request to https://hub/v2/: 500 Internal Server Error"
    answers = iter([Done(1, "", last), Done(0, "", "")])
    hub = SimpleNamespace(head=lambda *_: SimpleNamespace(digest="sha256:1"))
    monkeypatch.setattr(buildx, "PAUSES", (0.0, 0.0))
    monkeypatch.setattr(images.process, "run", lambda *_, **__: next(answers))
    monkeypatch.setattr(images.registry, "Registry", lambda *_, **__: hub)
    env = {"DOCKER_HUB_USERNAME": "Me", "DOCKER_HUB_TOKEN": "t", "DOCKER_HUB_REGISTRY": "hub"}
    where = Context(load(env | {"IMAGE_NAME": "o/n"}), MAIN, "1.2.3", 0, (), ROOT)
    copied = images.copy_to_hub(PLAN, where, "sha256:1", {})
    assert copied == ["hub/me/n:main", "hub/me/n:latest"] and list(answers) == []


@pytest.mark.parametrize(
    ("output", "cause"),
    [
        (
            "permission denied while trying to connect to the Docker daemon socket",
            "no-permission",
        ),
        ("Cannot connect to the Docker daemon at unix:///x. Is it running?", "not-running"),
    ],
)
def test_engine_out_of_reach(output: str, cause: str) -> None:
    """A socket that refuses us is told apart from an engine that does not run."""
    assert explain(output).cause == cause


def test_no_docker_client(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without docker on the PATH the error names docker, not an engine."""
    from tools.images.engine import find_engine

    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EngineError) as caught:
        find_engine()
    assert caught.value.cause == "no-client"


def wheel(root: Path, name: str, folder: str = "") -> None:
    path = root / "dist" / folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x")


def test_wheels_of_the_version_only(tmp_path: Path) -> None:
    """The image takes Linux wheels of exactly this version, from wherever they were put."""
    wheel(tmp_path, "mlc_llm-1.2.3-py3-none-manylinux_2_28_x86_64.whl", "wheels-linux-x64")
    wheel(tmp_path, "mlc_llm-1.2.3-py3-none-win_amd64.whl", "wheels-windows-x64")
    wheel(tmp_path, "mlc_llm-1.2.2-py3-none-any.whl")
    wheel(tmp_path, "mlc_llm-1.2.3-nonsense.whl")
    found = images.find_wheels(tmp_path, "1.2.3")
    assert [path.name for path in found] == ["mlc_llm-1.2.3-py3-none-manylinux_2_28_x86_64.whl"]


def test_no_wheel_of_the_version(tmp_path: Path) -> None:
    """A wheel of another version is not taken instead: it is named in the error."""
    wheel(tmp_path, "mlc_llm-1.2.2-py3-none-any.whl")
    with pytest.raises(
        UsageError, match=r"no wheel of mlc_llm 1\.2\.3 .*1\.2\.2.*nox -s wheels"
    ):
        images.find_wheels(tmp_path, "1.2.3")


def context(root: Path, what: Event = MAIN, **changes: object) -> Context:
    (root / "Dockerfile").write_text("FROM python:3.11.1-slim AS pinned-base\n")
    settings = Settings(origins={"ca_certificates": "test"}, **changes)  # type: ignore[arg-type]
    return Context(settings, what, "1.2.3", 1_700_000_000, ("v1.0.0",), root)


def test_plan_is_the_same_for_the_same_commit(tmp_path: Path) -> None:
    """Two plans of one commit are equal: no clock, no random name goes into an image."""
    one, two = (images.make_plan("development", context(tmp_path), Wish(), {}) for _ in "12")
    assert one == two
    assert one.labels["org.opencontainers.image.created"] == "2023-11-14T22:13:20Z"
    assert json.loads(json.dumps(one.to_json()))["references"][0].endswith(":main")


@pytest.mark.parametrize(
    ("settings", "base"),
    [
        ({}, ""),
        ({"python_version": "3.12"}, "python:3.12-slim-bookworm"),
        ({"python_version": "3.12", "base_image": "mirror/py:3.12"}, "mirror/py:3.12"),
    ],
)
def test_base_image(tmp_path: Path, settings: dict[str, str], base: str) -> None:
    """The pinned base is used for its own Python; another version takes its own image."""
    text = (Path(__file__).parents[2] / "Dockerfile").read_text()
    (tmp_path / "Dockerfile").write_text(text)
    assert images.base_image(Settings(**settings), tmp_path) == base  # type: ignore[arg-type]


def test_missing_certificate_bundle(tmp_path: Path) -> None:
    """A bundle that is not there is said before the build, with the setting's name."""
    with pytest.raises(UsageError, match="CA_CERTIFICATES"):
        images.make_plan("development", context(tmp_path, ca_certificates="/no/ca"), Wish(), {})


def test_context_is_small() -> None:
    """Only what the Dockerfile copies is sent: this checkout's context is under 1 MB."""
    root = Path(__file__).parents[2]
    measured = build_context.measure(root)
    assert 0 < measured.size < 1_000_000
    allowed = ("docker/", "package/", "Dockerfile", ".dockerignore")
    assert all(name.startswith(allowed) for _, name in measured.largest)


def test_context_too_large(tmp_path: Path) -> None:
    """Over the bound the largest entries are named, the largest first."""
    (tmp_path / "Dockerfile").write_text("FROM scratch\n")
    (tmp_path / "big").write_bytes(b"x" * 3000)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "huge.bin").write_bytes(b"x" * 9000)
    measured = build_context.measure(tmp_path)
    with pytest.raises(UsageError, match="over the limit of 1.0 kB") as caught:
        build_context.check(measured, 1000)
    lines = caught.value.detail.splitlines()
    assert "model/huge.bin" in lines[0] and "big" in lines[1]
    build_context.check(measured, 20_000)


RECORD = ImageRecord(
    "development", "r/o/n", "sha256:" + "0" * 64, ("r/o/n:main",), ("linux/amd64",), 5, PUSH,
    "1.2.3", SHA,
)  # fmt: skip


def test_record_round_trip(tmp_path: Path) -> None:
    """The next job reads what this one wrote, and no half-written file is left."""
    path = image_record.write(RECORD, tmp_path)
    assert image_record.read("development", tmp_path) == RECORD
    assert [found.name for found in path.parent.iterdir()] == ["development.json"]


def test_record_missing_or_broken(tmp_path: Path) -> None:
    """Without a record the session to run is named; a broken one is no traceback."""
    with pytest.raises(UsageError, match="nox -s docker_dev"):
        image_record.read("development", tmp_path)
    image_record.write(RECORD, tmp_path).write_text("{")
    with pytest.raises(PipelineError, match="cannot be read"):
        image_record.read("development", tmp_path)
