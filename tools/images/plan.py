"""Event and settings -> what is built and where it goes. Nothing is built here."""

import argparse
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tools.core import cli
from tools.core.errors import UsageError
from tools.core.settings import Settings, github_server
from tools.images import login, names, record
from tools.images.wheels import find_wheels
from tools.registry import client as registry
from tools.registry.manifest import is_loopback
from tools.repo.context import Context
from tools.repo.event import Event
from tools.repo.git import every_tag

PUSH, LOAD, OCI, CACHE = "push", "load", "oci", "cache"


@dataclass(frozen=True)
class Options:
    """What the command line asks for."""

    image: str = cli.option("", argparse.SUPPRESS, "image", choices=record.IMAGES)
    push: bool | None = cli.option(
        None, "push, or never; else by the event", action=argparse.BooleanOptionalAction
    )
    output: str | None = cli.option(None, "write an archive to dist/images/", choices=(OCI,))
    dry_run: bool = cli.option(False, "print the plan, build nothing")
    json: bool = cli.option(False, "print plan or record as JSON")


@dataclass(frozen=True)
class BuildPlan:
    """All that decides a build."""

    image: str  # development or production: also the Dockerfile's stage to build
    references: tuple[str, ...]  # full references that name the result
    labels: Mapping[str, str]
    platforms: tuple[str, ...]  # linux/amd64, ...; several make an index
    output: str  # push, load or oci; cache: what is built only stays with the builder
    reason: str  # why that output
    moving: tuple[str, ...] = ()  # those of the references that later events set anew
    wheels: tuple[str, ...] = ()  # files that the production image installs
    without: tuple[str, ...] = ()  # packages that the wheels require, and it does not
    build_args: Mapping[str, str] = field(default_factory=dict)
    cache_from: tuple[str, ...] = ()
    cache_to: tuple[str, ...] = ()
    builder: str = ""  # empty for the current one
    provenance: bool = True  # whether it is attested
    ca_certificates: str = ""  # the bundle that is handed in as a build secret
    created: int = 0  # seconds since the epoch that stand in the image


def choose_output(options: Options, event: Event, settings: Settings) -> tuple[str, str]:
    """Where the image goes, and why.

    Nothing is published from a pull request; a production image only from the default
    branch, ``main`` or a version tag. A UsageError if a push is asked for elsewhere.
    """
    if options.output == OCI:
        return OCI, "--output oci was given"
    if options.push is False:
        return LOAD, "--no-push was given"
    trunk = event.on_default_branch or event.branch == "main"
    published = options.image == "development" or event.tag is not None or trunk
    if not (event.publishes and published):
        proposals = {"pull_request": "a pull request", "merge_group": "a merge queue"}
        source = proposals.get(event.name, event.ref_name)
        reason = f"the {options.image} image is not published from {source}"
        if options.push:
            raise UsageError(f"Nothing is pushed: {reason}.", "Leave --push out.")
        return LOAD, reason
    host = settings.registry
    if settings.gh_token:
        return PUSH, f"there is a login for {host}"
    if options.push:
        return PUSH, "--push was given"
    if is_loopback(host) and registry.connect(settings).answer() == "open":
        return PUSH, f"{host} is local and asks for no login"
    return LOAD, "there is no login for the registry (GH_TOKEN is not set)"


def layer_cache(
    output: str, name: str, image: str, env: Mapping[str, str]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Where layers are kept between builds: values of ``--cache-from`` and ``--cache-to``.

    Source: docs.docker.com, "Cache storage backends": gha needs ``ACTIONS_RUNTIME_TOKEN``
    and the address of the service. A cache that cannot be written must not fail a build.
    """
    service = env.get("ACTIONS_RESULTS_URL") or env.get("ACTIONS_CACHE_URL")
    if env.get("ACTIONS_RUNTIME_TOKEN") and service:
        source, how = f"type=gha,scope={image}", "mode=max"
    elif output == PUSH:
        source = f"type=registry,ref={name}:buildcache-{image}"
        how = "mode=max,image-manifest=true,oci-mediatypes=true"
    else:
        return (), ()
    return (source,), (f"{source},{how},ignore-error=true",)


def base_image(settings: Settings, root: Path) -> str:
    """The base to build on: the setting; empty for the one pinned in the Dockerfile, which
    has one Python: any other version takes its official image, unpinned.
    """
    text = (root / "Dockerfile").read_text(encoding="utf-8")
    pinned = re.search(r"^FROM python:(\d+\.\d+)\S* AS pinned-base$", text, re.MULTILINE)
    fits = pinned is None or pinned[1] == settings.python_version
    official = "" if fits else f"python:{settings.python_version}-slim-bookworm"
    return settings.base_image or official


def make_plan(options: Options, context: Context, env: Mapping[str, str]) -> BuildPlan:
    """All that decides the build (UsageError: tag or option do not fit, a wheel is missing)."""
    settings, event, image = context.settings, context.event, options.image
    output, reason = choose_output(options, event, settings)
    if image == "production":
        version = "*" if settings.wheel_version == "source" else context.version
        wheels, tags = find_wheels(context.root, version), names.production_tags(event)
    else:
        # Only these need all git tags; a job that tests has a shallow clone and no login.
        existing = every_tag(context.root) if event.tag else ()
        wheels, tags = (), names.development_tags(event, existing)
    build_args = {"CMAKE_VERSION": settings.cmake_version}
    if base := base_image(settings, context.root):
        build_args["BASE_IMAGE"] = base
    images = [settings.image]
    if output == PUSH and (hub := login.hub_login(settings)):  # the very same manifests
        name = settings.image_name.rpartition("/")[2]
        images.append(f"{hub.host}/{hub.username.lower()}/{name}")
    # What a tag publishes is never made of what another run has cached.
    cached = event.tag is None
    cache = layer_cache(output, settings.image, image, env) if cached else ((), ())
    references = tuple(f"{name}:{tag}" for name in images for tag in tags)
    moving = tuple(ref for ref in references if names.moves(ref.rpartition(":")[2], event))
    labels = names.labels(event, context.created, github_server(env))
    return BuildPlan(
        image, references, labels, settings.platforms, output, reason, moving, wheels,
        settings.image_without if wheels else (),
        build_args, *cache, builder=settings.buildx_builder,
        ca_certificates=settings.ca_certificates, created=context.created,
    )  # fmt: skip
