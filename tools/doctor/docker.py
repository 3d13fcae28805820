"""The doctor's checks of the Docker engine and of what is to be built."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

from tools.core import console, process
from tools.core.errors import PipelineError, UsageError
from tools.doctor.base import (
    Check,
    Result,
    Subject,
    from_error,
    not_applicable,
    ok,
    problem,
    warning,
)
from tools.doctor.machine import space
from tools.images import build as buildx
from tools.images import engine
from tools.images.engine import Builder, Engine
from tools.images.plan import PUSH, BuildPlan
from tools.registry import client as registry

IMAGES = frozenset({"docker_dev", "docker_test", "prod_image", "pipeline"})
BUILDS = frozenset({"docker_dev", "prod_image", "pipeline"})
NO_STAGE = "no-such-stage"


def _engine(subject: Subject) -> Engine:
    found: Engine = subject.once("engine", lambda: engine.find_engine(subject.env))
    return found


def _builder(subject: Subject) -> Builder:
    name = subject.settings.buildx_builder
    found: Builder = subject.once("builder", lambda: engine.find_builder(name, subject.env))
    return found


def check_engine(subject: Subject) -> Result:
    """An engine answers; a refused socket is told apart from a stopped engine."""
    host = subject.env.get("DOCKER_HOST", "docker's own socket")
    return ok(f"Docker engine {_engine(subject).version}.", host)


def check_buildx(subject: Subject) -> Result:
    """buildx is there and not too old."""
    return ok(f"buildx {_engine(subject).buildx}.", "docker info")


def check_builder(subject: Subject) -> Result:
    """The builder that is to be used can be used."""
    found = _builder(subject)
    return ok(f"The builder {found.name or 'in use'} has the driver {found.driver}.", "buildx")


def check_storage(subject: Subject) -> Result:
    """The image store can hold indexes and attestations, or the builder does without."""
    found, builder = _engine(subject), _builder(subject)
    platforms = subject.settings.platforms
    wanted = BuildPlan("development", (), {}, platforms, PUSH, "a push")
    try:
        buildx.fit_to_builder(wanted, found, builder)
    except UsageError as error:
        return warning(error.message, error.remedy, "docker info")
    store = "containerd's image store" if found.containerd_store else "the classic store"
    return ok(f"The engine keeps images in {store}.", "docker info")


def check_engine_disk(subject: Subject) -> Result:
    """The engine's own disk has room for a build, where it is on this machine."""
    command = ["docker", "info", "--format", "{{.DockerRootDir}}"]
    done = process.run(command, env=subject.env, timeout=8, mask=False)
    folder = Path(done.stdout.strip())
    try:
        return space(folder, subject.settings.disk_needed)
    except OSError:
        return not_applicable("The engine's disk cannot be seen from here.", str(folder))


def base_image(subject: Subject) -> str:
    """The base image of a build: the setting's, else the one pinned in the Dockerfile.

    Raises:
        PipelineError: The Dockerfile names none.
    """
    if subject.settings.base_image:
        return subject.settings.base_image
    text = (subject.root / "Dockerfile").read_text(encoding="utf-8")
    for match in re.finditer(r"^FROM\s+(?:--\S+\s+)*(\S+)", text, re.MULTILINE | re.IGNORECASE):
        if "$" not in match.group(1) and match.group(1) != "scratch":
            return match.group(1)
    raise PipelineError("The Dockerfile names no base image.", "Set BASE_IMAGE.", "")


def split_reference(reference: str) -> tuple[str, str, str]:
    """Host, name, and tag or digest of an image reference, as Docker completes it.

    Source: distribution/reference, "normalize.go": the first part is a host if it has a
    dot or a colon or is ``localhost``; else it is Docker Hub's, ``library/`` included.
    """
    rest, _, digest = reference.partition("@")
    first, slash, remainder = rest.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost"):
        host, rest = first, remainder
    else:
        host, rest = "docker.io", rest if slash else f"library/{rest}"
    name, _, tag = rest.partition(":")
    return host, name, digest or tag or "latest"


def check_base_image(subject: Subject) -> Result:
    """The engine has the base image, or its registry does."""
    wanted = base_image(subject)
    command = ["docker", "image", "inspect", "--format", "{{.Id}}", wanted]
    if process.run(command, env=subject.env, check=False, timeout=8).code == 0:
        return ok(f"The engine has the base image {wanted}.", wanted)
    host, name, reference = split_reference(wanted)
    client = registry.Registry(
        host, ca_certificates=subject.settings.ca_certificates, retries=0
    )
    try:
        client.head(name, reference)
    except PipelineError as error:
        missing = buildx.missing_base(wanted)
        return problem(missing.message, missing.remedy, wanted, error.message)
    return ok(f"{host} has the base image {wanted}.", wanted)


def check_dockerfile(subject: Subject) -> Result:
    """BuildKit itself can parse the Dockerfile: it is asked for a stage that is not there."""
    path = subject.root / "Dockerfile"
    if not path.is_file():
        return problem("There is no Dockerfile.", "Run from the checkout's root.", str(path))
    with tempfile.TemporaryDirectory(prefix="mlc-doctor-") as empty:
        command = ["docker", "buildx", "build", "--target", NO_STAGE, "--progress", "plain"]
        name = subject.settings.buildx_builder
        command += ["--builder", name] if name else []
        done = process.run(
            [*command, "--file", str(path), empty], env=subject.env, check=False, timeout=12
        )
    if f'target stage "{NO_STAGE}" could not be found' in done.output:
        return ok("BuildKit can parse the Dockerfile.", str(path))
    return from_error(buildx.diagnose(done.output), str(path))


def check_context(subject: Subject) -> Result:
    """The build context is within its bound; its largest entries are named."""
    measured = buildx.measure_context(subject.root)
    buildx.check_context(measured, subject.settings.context_limit)
    size = console.human_size(measured.size)
    largest = f", the largest {measured.largest[0][1]}" if measured.largest else ""
    return ok(
        f"The build context is {size} in {measured.files} files{largest}.", ".dockerignore"
    )


CHECKS = (
    Check("docker engine", "there, running, and open to us", check_engine, IMAGES),
    Check("buildx", "there and not too old", check_buildx, BUILDS, ("docker engine",)),
    Check(
        "builder", "the builder that is named can be used", check_builder, BUILDS,
        ("settings", "buildx"),
    ),
    Check(
        "image store", "can hold what is to be pushed", check_storage, BUILDS, ("builder",)
    ),
    Check(
        "engine disk", "room for a build", check_engine_disk, BUILDS,
        ("settings", "docker engine"),
    ),
    Check(
        "base image", "can be had", check_base_image, BUILDS, ("settings", "docker engine"),
    ),
    Check(
        "dockerfile", "BuildKit can parse it", check_dockerfile, BUILDS,
        ("settings", "builder"), limit=15,
    ),
    Check(
        "build context", "within its bound", check_context, BUILDS, ("settings",), limit=15
    ),
)  # fmt: skip
