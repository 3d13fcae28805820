"""Event and settings -> what is built and where it goes. Nothing is built here."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from packaging.utils import InvalidWheelFilename, parse_wheel_filename
from packaging.version import Version

from tools.core import cli
from tools.core.errors import UsageError
from tools.core.settings import Settings
from tools.images import names, record
from tools.registry import client as registry
from tools.registry.manifest import is_loopback
from tools.repo.context import Context
from tools.repo.event import Event

PUSH, LOAD, OCI = "push", "load", "oci"


@dataclass(frozen=True)
class Options:
    """What the command line asks for."""

    image: str = cli.option("", argparse.SUPPRESS, "image", choices=record.IMAGES)
    push: bool | None = cli.option(
        None, "push, or never; else by the event", action=argparse.BooleanOptionalAction
    )
    output: str | None = cli.option(
        None, "write an OCI archive to dist/images/", choices=(OCI,)
    )
    dry_run: bool = cli.option(False, "print the plan, build nothing")
    json: bool = cli.option(False, "print plan or record as JSON")


@dataclass(frozen=True)
class BuildPlan:
    """All that decides a build."""

    image: str  # development or production: also the Dockerfile's stage to build
    references: tuple[str, ...]  # full references that name the result
    labels: Mapping[str, str]
    platforms: tuple[str, ...]  # linux/amd64, ...; several make an index
    output: str  # push, load or oci
    reason: str  # why that output
    archive: str = ""  # where an OCI archive goes
    wheels: tuple[str, ...] = ()  # files that the production image installs
    build_args: Mapping[str, str] = field(default_factory=dict)
    cache_from: tuple[str, ...] = ()
    cache_to: tuple[str, ...] = ()
    builder: str = ""  # empty for the current one
    provenance: bool = True  # whether it is attested
    ca_certificates: str = ""  # the bundle that is handed in as a build secret
    created: int = 0  # seconds since the epoch that stand in the image


def is_published(image: str, event: Event) -> bool:
    """Whether an image of this kind is published for this event at all.

    Never from a pull request; a production image only from the default branch, ``main``
    or a version tag.
    """
    if event.pull_request is not None:
        return False
    trunk = event.on_default_branch or event.branch == "main"
    return image == "development" or event.tag is not None or trunk


def choose_output(
    options: Options, event: Event, may_push: Callable[[], str]
) -> tuple[str, str]:
    """Where the image goes, and why; ``may_push`` says why a push is possible, if it is.

    Raises:
        UsageError: A push is asked for where nothing is published.
    """
    if options.output == OCI:
        return OCI, "--output oci was given"
    if options.push is False:
        return LOAD, "--no-push was given"
    if not is_published(options.image, event):
        source = event.ref_name if event.pull_request is None else "a pull request"
        reason = f"the {options.image} image is not published from {source}"
        if options.push:
            remedy = "Leave --push out to build and keep it here."
            raise UsageError(f"{reason[0].upper()}{reason[1:]}.", remedy)
        return LOAD, reason
    if reason := may_push():
        return PUSH, reason
    if options.push:
        return PUSH, "--push was given"
    return LOAD, "there is no login for the registry (GH_TOKEN is not set)"


def push_right(settings: Settings, actor: str) -> str:
    """Why we may push without being asked to: a token, or a local registry without login."""
    if settings.gh_token:
        return f"there is a login for {settings.registry}"
    if is_loopback(settings.registry):
        if not registry.connect(settings, actor).answer().challenge:
            return f"{settings.registry} is local and asks for no login"
    return ""


def layer_cache(
    output: str, name: str, image: str, env: Mapping[str, str]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Where layers are kept between builds: values of ``--cache-from`` and ``--cache-to``.

    The Actions cache where its variables are present, else a registry cache beside the
    image when pushing, else nothing: the builder's own cache.

    Source: docs.docker.com, "Cache storage backends": gha needs ``ACTIONS_RUNTIME_TOKEN``
    and the address of the service. A cache that cannot be written must not fail a build.
    """
    service = env.get("ACTIONS_RESULTS_URL") or env.get("ACTIONS_CACHE_URL")
    if env.get("ACTIONS_RUNTIME_TOKEN") and service:
        scope = f"type=gha,scope={image}"
        return (scope,), (f"{scope},mode=max,ignore-error=true",)
    if output == PUSH:
        source = f"type=registry,ref={name}:buildcache-{image}"
        how = "mode=max,image-manifest=true,oci-mediatypes=true,ignore-error=true"
        return (source,), (f"{source},{how}",)
    return (), ()


def base_image(settings: Settings, root: Path) -> str:
    """The base to build on: the setting; empty for the one pinned in the Dockerfile.

    The pinned one has one Python. Another ``PYTHON_VERSION`` takes the official image of
    that version, unpinned.
    """
    if settings.base_image:
        return settings.base_image
    text = (root / "Dockerfile").read_text(encoding="utf-8")
    pinned = re.search(r"^FROM python:(\d+\.\d+)\S* AS pinned-base$", text, re.MULTILINE)
    if pinned is None or pinned.group(1) == settings.python_version:
        return ""
    return f"python:{settings.python_version}-slim-bookworm"


def find_wheels(root: Path, version: str) -> tuple[str, ...]:
    """Wheels of ``mlc_llm`` of exactly this version in ``dist/`` that Linux can install
    (UsageError if there are none).
    """
    wheels: dict[str, Path] = {}
    others = set()
    for path in sorted((root / "dist").glob("**/mlc_llm-*.whl")):
        try:
            _, its, _, tags = parse_wheel_filename(path.name)
        except InvalidWheelFilename:
            continue
        if its != Version(version):
            others.add(str(its))
        elif any(tag.platform == "any" or "linux" in tag.platform for tag in tags):
            wheels.setdefault(path.name, path)
    if not wheels:
        instead = f" (there is {', '.join(sorted(others))})" if others else ""
        raise UsageError(
            f"dist/ holds no wheel of mlc_llm {version} for Linux{instead}.",
            "Run nox -s wheels first.",
        )
    return tuple(map(str, wheels.values()))


def make_plan(options: Options, context: Context, env: Mapping[str, str]) -> BuildPlan:
    """All that decides the build.

    Raises:
        UsageError: A setting, the tag or an option does not fit; a wheel is missing.
        PipelineError: The local registry does not answer.
    """
    settings, event, image = context.settings, context.event, options.image
    output, reason = choose_output(options, event, lambda: push_right(settings, event.actor))
    if settings.ca_path and not settings.ca_path.is_file():
        raise UsageError(
            f"The certificate bundle {settings.ca_path} "
            f"({settings.origins['ca_certificates']}) is not a file.",
            "Correct CA_CERTIFICATES.",
        )
    base = base_image(settings, context.root)
    build_args = {"BASE_IMAGE": base} if base else {}
    wheels: tuple[str, ...] = ()
    if image == "development":
        build_args["CMAKE_VERSION"] = settings.cmake_version
        tags = names.development_tags(event, context.tags)
    else:
        wheels = find_wheels(context.root, context.version)
        tags = names.production_tags(event)
    cache_from, cache_to = layer_cache(output, settings.image, image, env)
    archive = str(record.folder(context.root) / f"{image}.oci.tar")
    server = env.get("GITHUB_SERVER_URL", "https://github.com")
    return BuildPlan(
        image=image,
        references=tuple(names.references(settings.image, tags)),
        labels=names.labels(event, context.created, server),
        platforms=settings.platforms,
        output=output,
        reason=reason,
        archive=archive if output == OCI else "",
        wheels=wheels,
        build_args=build_args,
        cache_from=cache_from,
        cache_to=cache_to,
        builder=settings.buildx_builder,
        ca_certificates=settings.ca_certificates,
        created=context.created,
    )
