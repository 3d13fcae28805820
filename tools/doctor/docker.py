"""Checks of the Docker engine and of what is built."""

import re

from tools.core import process
from tools.core.errors import UsageError
from tools.doctor.base import Caution, Check, Subject
from tools.images import build
from tools.images.engine import Engine, find_driver, find_engine
from tools.images.plan import PUSH, BuildPlan, base_image

BUILDS = frozenset({"docker_dev", "prod_image", "pipeline"})


def check_engine(subject: Subject) -> str:
    """An engine answers, to us, and buildx is there and not too old."""
    found = find_engine(subject.env)
    return f"Docker engine {found.version}, buildx {found.buildx}."


def engine_and_driver(subject: Subject) -> tuple[Engine, str]:
    """The engine, and the driver of the builder (PipelineError: one cannot be used)."""
    found = find_engine(subject.env)
    return found, find_driver(subject.settings.buildx_builder, subject.env)


def check_builder(subject: Subject) -> str:
    """The builder can be used, and can attest what is pushed."""
    found, driver = engine_and_driver(subject)
    plan = BuildPlan("development", (), {}, subject.settings.platforms, PUSH, "a check")
    try:
        build.fit_to_builder(plan, found, driver)
    except UsageError as error:  # what is not pushed can be built all the same
        raise Caution(error.message, error.remedy) from error
    return f"The builder has the driver {driver}."


def check_base_image(subject: Subject) -> str:
    """The engine has the base image, or its registry does."""
    text = (subject.root / "Dockerfile").read_text(encoding="utf-8")
    pinned = re.search(r"^FROM (\S+) AS pinned-base$", text, re.MULTILINE)
    base = base_image(subject.settings, subject.root) or (pinned[1] if pinned else "scratch")
    engine_and_driver(subject)
    for command in (["image", "inspect"], ["buildx", "imagetools", "inspect"]):
        done = process.run(["docker", *command, base], env=subject.env, check=False)
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
    Check("base image", check_base_image, BUILDS),
    Check("build context", check_context, BUILDS),
)
