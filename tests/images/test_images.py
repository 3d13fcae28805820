"""The plan of an image build, its command and its failures, without any engine."""

import json
import os
from dataclasses import replace

import pytest
from requests.certs import where

from tools.core import process
from tools.core.errors import PipelineError, UsageError
from tools.core.process import Done
from tools.core.secrets import Secret
from tools.core.settings import ROOT, Settings
from tools.images import __main__ as images
from tools.images import build, plan, record
from tools.images.engine import Engine
from tools.images.login import PREFIX
from tools.images.plan import LOAD, OCI, PUSH, BuildPlan, Options
from tools.repo.context import Context
from tools.repo.event import Event

SHA = "0123456789abcdef0123456789abcdef01234567"


def event(ref: str, **more: object) -> Event:
    return Event(name="push", ref=ref, sha=SHA, repository="o/n", **more)  # type: ignore[arg-type]


MAIN = event("refs/heads/main")
DEVELOP = event("refs/heads/develop")
TAG = event("refs/tags/v1.2.3")
QUEUE = replace(event("refs/heads/gh-readonly-queue/main/pr-7-0123abc"), name="merge_group")
PULL = replace(event("refs/pull/7/merge"), name="pull_request", pull_request=7)


DEV, PROD, LOGIN = "development", "production", "ghp_recognisable"
TRUNK = event("refs/heads/trunk", default_branch="trunk")


@pytest.mark.parametrize(
    ("image", "what", "wish", "token", "output"),
    [
        (DEV, MAIN, {}, LOGIN, PUSH), (DEV, DEVELOP, {}, LOGIN, PUSH),
        (DEV, TAG, {}, LOGIN, PUSH), (DEV, MAIN, {}, "", LOAD),
        (DEV, MAIN, {"push": False}, LOGIN, LOAD), (DEV, MAIN, {"push": True}, "", PUSH),
        (DEV, PULL, {}, LOGIN, LOAD), (DEV, PULL, {"output": "oci"}, LOGIN, OCI),
        (PROD, MAIN, {}, LOGIN, PUSH), (PROD, TAG, {}, LOGIN, PUSH),
        (PROD, DEVELOP, {}, LOGIN, LOAD), (PROD, PULL, {}, LOGIN, LOAD),
        (PROD, TRUNK, {}, LOGIN, PUSH), (PROD, DEVELOP, {"push": True}, LOGIN, None),
        (DEV, PULL, {"push": True}, LOGIN, None), (DEV, QUEUE, {}, LOGIN, LOAD),
        (DEV, QUEUE, {"output": "oci"}, LOGIN, OCI), (DEV, QUEUE, {"push": True}, LOGIN, None),
    ],
)  # fmt: skip
def test_output(image, what, wish, token, output):
    """Nothing is published from a pull request, no production image from develop; --push
    there is an error, not a silence.
    """
    options, settings = Options(image, **wish), Settings(gh_token=Secret(token))
    if output is None:
        with pytest.raises(UsageError, match="not published from"):
            plan.choose_output(options, what, settings)
    else:
        chosen, reason = plan.choose_output(options, what, settings)
        assert chosen == output and reason


ACTIONS = {"ACTIONS_RUNTIME_TOKEN": "t", "ACTIONS_RESULTS_URL": "https://results"}


@pytest.mark.parametrize(
    ("output", "env", "source"),
    [
        (PUSH, ACTIONS, ("type=gha,scope=development",)),
        (LOAD, ACTIONS, ("type=gha,scope=development",)),
        (PUSH, {}, ("type=registry,ref=r/n:buildcache-development",)),
        (LOAD, {}, ()),
        (OCI, {"ACTIONS_RUNTIME_TOKEN": "t"}, ()),
    ],
)
def test_layer_cache(output, env, source):
    """The Actions cache where it is, else one beside the image when pushing, else none."""
    cache_from, cache_to = plan.layer_cache(output, "r/n", "development", env)
    assert cache_from == source and len(cache_to) == len(source)
    assert all(target.startswith(source) for target in cache_to)


TAGS, TITLE = ("r.example/o/n:main", "r.example/o/n:latest"), "org.opencontainers.image.title"
PLAN = BuildPlan(DEV, TAGS, {TITLE: "mlc-llm"}, ("linux/amd64",), PUSH, "login")
LOADED = replace(PLAN, output=LOAD, cache_to=("type=gha",))
TWO = replace(LOADED, platforms=("linux/amd64", "linux/arm64"))
MODERN, CLASSIC = Engine("29.0.0", True, "0.30.0"), Engine("24.0.0", False, "0.11.0")
LOCAL, REMOTE = "docker", "kubernetes"


@pytest.mark.parametrize(
    ("asked", "engine", "driver", "changes"),
    [
        (PLAN, MODERN, LOCAL, {}),
        (PLAN, CLASSIC, REMOTE, {}),
        (LOADED, MODERN, LOCAL, {}),
        (LOADED, CLASSIC, LOCAL, {"provenance": False, "cache_to": ()}),
        (LOADED, MODERN, REMOTE, {"provenance": False}),
        (TWO, MODERN, LOCAL, {}),
        (TWO, MODERN, REMOTE, {"provenance": False}),  # buildx itself says what it cannot
        (PLAN, CLASSIC, LOCAL, "cannot push .* whose provenance is attested"),
        (replace(PLAN, output=OCI), CLASSIC, LOCAL, "cannot write an archive"),
        (TWO, CLASSIC, LOCAL, "cannot build for several platforms"),
    ],
)
def test_builders(asked, engine, driver, changes):
    """What cannot hold an attestation loads the image without one instead of failing; what a
    builder cannot do at all is said before the build, with what to do.
    """
    if isinstance(changes, str):
        with pytest.raises(UsageError, match=changes):
            build.fit_to_builder(asked, engine, driver)
    else:
        assert build.fit_to_builder(asked, engine, driver) == replace(asked, **changes)


PUSHED = "ERROR: failed to solve: failed to push ghcr.io/o/n:main: "
AUTHORIZE = (
    "#15 ERROR: failed to push r.example/o/n:main: failed to authorize: failed to fetch oauth "
    "token: unexpected status from POST request to https://r.example/token: 401 Unauthorized"
)
DENIED = "#15 ERROR: failed to push r.example/o/n:main: denied: permission_denied: write"
BASE = (
    "ERROR: failed to solve: nope:1: failed to resolve source metadata for "
    "docker.io/library/nope:1: pull access denied, repository does not exist"
)
STEP = 'ERROR: process "/bin/sh -c pip install x" did not complete successfully: exit code: 1'
SYNTAX = "ERROR: failed to solve: dockerfile parse error on line 3: unknown instruction: FRM"


@pytest.mark.parametrize(
    ("output", "message", "remedy"),
    [
        (AUTHORIZE, "The registry r.example refused the login", "write:packages"),
        (DENIED, "does not let this token write packages", "write:packages"),
        (BASE, "The base image docker.io/library/nope:1 cannot be found", "BASE_IMAGE"),
        (STEP, "'/bin/sh -c pip install x' failed (exit code: 1)", "output"),
        ("certificate verify failed\n" + STEP, "pip install x", "CA_CERTIFICATES"),
        ("write /x: no space left on device\n" + STEP, "disk", "prune"),
        (SYNTAX, "Dockerfile, line 3: unknown instruction: FRM", "lint"),
        (f"{PUSHED}unexpected HTTP status: 503 No", "3 times in a row: failed", "status page"),
        ("ERROR: something new", "something new", "doctor"),
    ],
)
def test_diagnosis(output, message, remedy):
    """Each kind of failure is recognised as itself and says what to do."""
    error = build.diagnose(output)
    assert message in error.message and remedy in error.remedy


@pytest.mark.parametrize(
    ("last", "attempts"),
    [
        ("unexpected status from POST request to https://r/v2/: 502 Bad Gateway", 3),
        ("received unexpected HTTP status: 503 Service Unavailable", 3),
        ("write tcp 10.0.0.1:1->10.0.0.2:443: connection reset by peer", 3),
        ('Put "https://r/v2/o/n/blobs": net/http: TLS handshake timeout', 3),
        ("read tcp 10.0.0.1:1->10.0.0.2:443: i/o timeout", 3),
        ('Patch "https://r/v2/o/n/blobs/uploads": EOF', 3),
        ("unexpected status from PUT request to https://r:500/v2/: 403 Forbidden", 1),
        ("dial tcp: lookup ghcr.io on 10.0.0.1:53: i/o timeout", 1),
        ("401 Unauthorized", 1),
    ],
)
def test_passing_trouble_is_tried_again(monkeypatch, last, attempts):
    """What a registry may have got over by the next time is tried three times, all else once;
    what the last attempt left is handed on.
    """
    monkeypatch.setattr(process, "PAUSES", (0.0, 0.0))
    step = "#9 12.3 E: 503 Service Unavailable"  # in a step's output it means nothing
    done = [Done(1, "", f"{step}\n{PUSHED}{last}\n") for _ in range(3)]
    left = iter(done)
    assert process.again(lambda: next(left), build.passing) is done[attempts - 1]


def test_plan(tmp_path):
    """Two plans of one commit are equal: no clock, no random name goes into an image. Of
    wheels it takes those of exactly this version that Linux can install.
    """
    (tmp_path / "Dockerfile").write_text("FROM python:3.11.1-slim AS pinned-base\n")
    context = Context(Settings(), MAIN, "1.2.3", 1_700_000_000, tmp_path)
    one, two = (plan.make_plan(Options(DEV), context, {}) for _ in "12")
    assert one == two
    assert one.labels["org.opencontainers.image.created"] == "2023-11-14T22:13:20Z"
    assert one.references[0].endswith(":main")
    others = "mlc_llm-1.2.3rc1-py3-none-any.whl", "windows/mlc_llm-1.2.3-py3-none-win_amd64.whl"
    for name in (*others, "linux/mlc_llm-1.2.3-py3-none-manylinux_2_28_x86_64.whl"):
        with pytest.raises(UsageError, match=r"mlc_llm 1\.2\.3 .*nox -s wheels"):
            plan.make_plan(Options(PROD), context, {})
        path = tmp_path / "dist" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    with pytest.raises(UsageError, match="requirements.txt is missing beside dist/linux/mlc"):
        plan.make_plan(Options(PROD), context, {})
    path.with_name("requirements.txt").touch()
    production = plan.make_plan(Options(PROD), context, {})
    assert "torch" in production.without
    assert production.wheels == (str(path),)
    assert production.references[0].endswith(":main-prod")


def test_a_tag_is_built_without_any_cache(tmp_path):
    """What a tag publishes is not made of what another run has cached, nor kept for others."""
    (tmp_path / "Dockerfile").touch()
    context = Context(Settings(gh_token=Secret(LOGIN)), TAG, "1.2.3", 0, tmp_path)
    main = replace(context, event=MAIN)
    for env in (ACTIONS, {}):
        words = [
            build.command(plan.make_plan(Options(DEV), one, env), tmp_path)
            for one in (context, main)
        ]
        of_tag, of_main = (" ".join(command) for command in words)
        assert "--cache" not in of_tag and "--cache-from" in of_main and "--push" in of_tag


def test_base_image():
    """The pinned base is used for its own Python; another version takes its own image."""
    other = Settings(python_version="3.12")
    mirror = replace(other, base_image="mirror/py:3.12")
    bases = [plan.base_image(settings, ROOT) for settings in (Settings(), other, mirror)]
    assert bases == ["", "python:3.12-slim-bookworm", "mirror/py:3.12"]


def test_context(tmp_path):
    """Only what the Dockerfile copies is sent; over the bound the largest entries are named."""
    assert "files" in build.check_context(ROOT, 1_000_000)
    (tmp_path / "model").mkdir()
    for name, size in (("big", 3000), ("model/huge.bin", 9000)):
        (tmp_path / name).write_bytes(b"x" * size)
    with pytest.raises(UsageError, match="over the limit of 1.0 kB") as caught:
        build.check_context(tmp_path, 1000)
    lines = caught.value.detail.splitlines()
    assert "model/huge.bin" in lines[0] and "big" in lines[1]
    assert build.check_context(tmp_path, 20_000) == "12.0 kB in 2 files"


DOCKER = """#!/bin/sh
echo "$@" >>$ARGV
case "$*" in
info*) printf '29\\n["io.containerd.snapshotter.v1"]\\n0.30.0\\n' ;;
"buildx inspect"*) echo 'Driver: docker' ;;
"image inspect"*) echo sha256:1 5 ;;
"buildx imagetools"*) echo '{"linux/amd64": {"config": {"Labels": null}}}' ;;
*) cp -r $DOCKER_CONFIG seen; file=${*#*--metadata-file=}
   echo '{"containerimage.digest": "'$DIGEST'"}' >"${file% .}" ;;
esac
"""


def test_build_with_a_login(monkeypatch, tmp_path, repository, capsys):
    """With a docker that builds nothing: its command line says all that the plan says, the
    login stands beside the user's own in what it sees, and is gone afterwards; digest and
    tags are outputs of the step; a tag that is another's after the push is an error.
    """
    pushed, user, seen = repository.image_manifest("main"), tmp_path / "user", tmp_path / "seen"
    (user / "contexts" / "far").mkdir(parents=True)
    theirs = {"auths": {"a.b": {}}, "credsStore": "keys", "proxies": {"default": {}}}
    (user / "config.json").write_text(json.dumps(theirs))
    (tmp_path / "Dockerfile").touch()
    (tmp_path / "docker").write_text(DOCKER)
    (tmp_path / "docker").chmod(0o755)
    env = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "DIGEST": pushed.digest}
    env |= {"DOCKER_CONFIG": str(user), "TMPDIR": str(tmp_path)}
    files = {"ARGV": "argv", "GITHUB_OUTPUT": "out", "GITHUB_STEP_SUMMARY": "summary"}
    env |= {variable: str(tmp_path / name) for variable, name in files.items()}
    for variable, value in env.items():
        monkeypatch.setenv(variable, value)
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.setenv("CI", "true")
    host, name = repository.registry.address, repository.name
    settings = Settings(
        registry=host, image_name=name, gh_token=Secret(LOGIN), buildx_builder="farm",
        platforms=("linux/amd64", "linux/arm64"), ca_certificates=where(),
    )  # fmt: skip
    context = Context(settings, MAIN, "1.2.3", 0, tmp_path)
    monkeypatch.setattr(images, "load_context", lambda: context)
    assert images.main([DEV]) == 0
    argv = (tmp_path / "argv").read_text()
    assert argv.split()[-1] == "." and LOGIN not in argv
    assert set(argv.split()) >= {
        "--builder=farm", "--platform=linux/amd64,linux/arm64", "--target=development",
        "--build-arg=CMAKE_VERSION=3.24", "--provenance=true", "--push",
        f"--cache-from=type=registry,ref={host}/{name}:buildcache-development",
        f"--tag={host}/{name}:main", f"--tag={host}/{name}:latest",
        "--label=org.opencontainers.image.title=mlc-llm",
        f"--secret=id=ca-certificates,src={where()}",
    }  # fmt: skip
    steps = [line for line in argv.splitlines() if "--metadata" in line or "imagetools" in line]
    looks = [f"{host}/{name}:main" in steps[1], f"{host}/{name}:latest" in steps[2]]
    # In CI the look at what the tags hold is the last thing before the push.
    assert "cacheonly" in steps[0] and looks == [True, True] and "--push" in steps[3]
    config = json.loads((seen / "config.json").read_text())
    assert config["auths"].keys() == {"a.b", host} and config["credHelpers"] == {host: ""}
    assert config["credsStore"] == "keys" and "proxies" in config
    assert (seen / "contexts" / "far").is_dir() and not list(tmp_path.glob(f"{PREFIX}*"))
    assert record.read(DEV, tmp_path).reference == f"{host}/{name}@{pushed.digest}"
    out = (tmp_path / "out").read_text().splitlines()
    assert out[:4] == ["digest<<EOF", pushed.digest, "EOF", "tags<<EOF"]
    assert out[4] == f"{host}/{name}:main" in (tmp_path / "summary").read_text()
    assert images.main([DEV, "--no-push"]) == 0
    assert record.read(DEV, tmp_path).loaded == "sha256:1"
    monkeypatch.setenv("DIGEST", f"sha256:{'2' * 64}")
    assert images.main([DEV]) == 1
    assert f"main is {pushed.digest}, but sha256:222" in capsys.readouterr().err


def test_record_that_cannot_be_read(tmp_path):
    """Without a record the session to run is named; a broken one is no traceback."""
    with pytest.raises(UsageError, match="nox -s docker_dev"):
        record.read(DEV, tmp_path)
    record.folder(tmp_path).mkdir(parents=True)
    (record.folder(tmp_path) / "development.json").write_text("{")
    with pytest.raises(PipelineError, match="cannot be read"):
        record.read(DEV, tmp_path)
