"""Checks of the Docker engine and of what is built."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

from tools.core import process
from tools.core.errors import PipelineError, UsageError
from tools.doctor.base import Caution, Check, Subject
from tools.images import build, engine
from tools.images.engine import Builder, Engine
from tools.images.plan import PUSH, BuildPlan, base_image

BUILDS = frozenset({"docker_dev", "prod_image", "pipeline"})
NO_STAGE = "no-such-stage"


def find_engine(subject: Subject) -> Engine:
    """The engine (PipelineError if it, or buildx, cannot be used)."""
    return engine.find_engine(subject.env)


def find_builder(subject: Subject) -> Builder:
    """The builder (PipelineError if it cannot be used)."""
    subject.get(find_engine)
    return engine.find_builder(subject.settings.buildx_builder, subject.env)


def dockerfile(subject: Subject) -> Path:
    """The Dockerfile (PipelineError if there is none)."""
    path = subject.root / "Dockerfile"
    if not path.is_file():
        raise PipelineError("There is no Dockerfile.", "Run from the checkout's root.")
    return path


def check_engine(subject: Subject) -> str:
    """An engine answers, to us, and buildx is there and not too old."""
    found = subject.get(find_engine)
    return f"Docker engine {found.version}, buildx {found.buildx}."


def check_builder(subject: Subject) -> str:
    """The builder can be used, and can attest what is pushed."""
    builder, platforms = subject.get(find_builder), subject.settings.platforms
    plan = BuildPlan("development", (), {}, platforms, PUSH, "a check")
    try:
        build.fit_to_builder(plan, subject.get(find_engine), builder)
    except UsageError as error:  # what is not pushed can be built all the same
        raise Caution(error.message, error.remedy) from error
    return f"The builder {builder.name or 'in use'} has the driver {builder.driver}."


def check_dockerfile(subject: Subject) -> str:
    """BuildKit itself can parse the Dockerfile: it is asked for a stage that is not there."""
    path, builder = subject.get(dockerfile), subject.get(find_builder)
    command = ["docker", "buildx", "build", "--target", NO_STAGE, "--file", str(path)]
    command += ["--progress", "plain", *(["--builder", builder.name] if builder.name else [])]
    with tempfile.TemporaryDirectory(prefix="mlc-doctor-") as empty:
        done = process.run([*command, empty], env=subject.env, check=False, timeout=12)
    if f'target stage "{NO_STAGE}" could not be found' not in done.output:
        raise build.diagnose(done.output)
    return "BuildKit can parse the Dockerfile."


def check_base_image(subject: Subject) -> str:
    """The engine has the base image, or its registry does."""
    text = subject.get(dockerfile).read_text(encoding="utf-8")
    pinned = re.search(r"^FROM (\S+) AS pinned-base$", text, re.MULTILINE)
    base = base_image(subject.settings, subject.root) or (pinned[1] if pinned else "scratch")
    subject.get(find_builder)
    for command in (["image", "inspect"], ["buildx", "imagetools", "inspect"]):
        done = process.run(["docker", *command, base], env=subject.env, check=False, timeout=8)
        if done.code == 0:
            return f"The base image {base} is there."
    raise build.diagnose(f"failed to resolve source metadata for {base}: {done.tail(1)}")


def check_context(subject: Subject) -> str:
    """The build context is within its bound."""
    sent = build.check_context(subject.root, subject.settings.context_limit)
    return f"The build context is {sent}."


CHECKS = (
    Check("docker engine", check_engine, BUILDS | {"docker_test"}),
    Check("builder", check_builder, BUILDS),
    Check("dockerfile", check_dockerfile, BUILDS),
    Check("base image", check_base_image, BUILDS),
    Check("build context", check_context, BUILDS),
)
