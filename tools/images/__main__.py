"""``docker_dev`` and ``prod_image``: build an image, push it or keep it, record it.

First the plan, plain data that ``--dry-run`` prints; then the build; then what the
registry says of the result, for whoever comes next.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from packaging.utils import InvalidWheelFilename, parse_wheel_filename
from packaging.version import Version

from tools.core import cli, console, process
from tools.core.errors import PipelineError, UsageError
from tools.core.settings import Settings
from tools.images import build as buildx
from tools.images import context as build_context
from tools.images import engine, login
from tools.images import names as tags
from tools.images import record as image_record
from tools.images.build import LOAD, OCI, PUSH, BuildPlan
from tools.images.record import ImageRecord
from tools.registry import client as registry
from tools.registry import manifest as oci
from tools.repo.context import Context, load_context
from tools.repo.event import Event

STAGE = "wheels-for-image"


@dataclass(frozen=True)
class Wish:
    """What the command line asks for: an output (or none), nothing else."""

    push: bool | None = None
    oci: bool = False


def is_published(image: str, event: Event) -> bool:
    """Whether an image of this kind is published for this event at all.

    Never from a pull request; a production image only from the default branch, ``main``
    or a version tag.
    """
    if event.pull_request is not None:
        return False
    return (
        image == "development"
        or event.tag is not None
        or (event.on_default_branch or event.branch == "main")
    )


def choose_output(image: str, event: Event, wish: Wish, may_push: str) -> tuple[str, str]:
    """Where the image goes, and why.

    Args:
        image: ``development`` or ``production``.
        event: What triggered us.
        wish: What the command line asks for.
        may_push: Why a push is possible; empty if it is not.

    Raises:
        UsageError: A push is asked for where nothing is published.
    """
    if wish.oci:
        return OCI, "--output oci was given"
    if wish.push is False:
        return LOAD, "--no-push was given"
    if not is_published(image, event):
        what = "a pull request" if event.pull_request is not None else f"{event.ref_name}"
        if wish.push:
            raise UsageError(
                f"The {image} image is not published from {what}.",
                "Leave --push out to build and keep it here.",
            )
        return LOAD, f"the {image} image is not published from {what}"
    if may_push:
        return PUSH, may_push
    if wish.push:
        return PUSH, "--push was given"
    return LOAD, "there is no login for the registry (GH_TOKEN is not set)"


def push_right(settings: Settings, actor: str) -> str:
    """Why we may push without being told: a token, or a local registry that asks none."""
    if settings.gh_token:
        return f"there is a login for {settings.registry}"
    if oci.is_loopback(settings.registry):
        client = registry.connect(settings, actor)
        if client.answer().challenge == "":
            return f"{settings.registry} is local and asks for no login"
    return ""


def image_tags(image: str, event: Event, existing: Sequence[str]) -> list[str]:
    """Tags of one image for an event (without the registry's name)."""
    if image == "development":
        return tags.development_tags(event, existing)
    return tags.production_tags(event)


def runs_on_linux(name: str) -> bool:
    """Whether a wheel's file name says that it can be installed on Linux."""
    platforms = {tag.platform for tag in parse_wheel_filename(name)[3]}
    return any(p == "any" or "linux" in p for p in platforms)


def find_wheels(root: Path, version: str) -> list[Path]:
    """Wheels of ``mlc_llm`` of exactly this version in ``dist/`` that Linux can install.

    Raises:
        UsageError: There is none.
    """
    found: dict[str, Path] = {}
    others = set()
    for path in sorted((root / "dist").glob("**/mlc_llm-*.whl")):
        try:
            its = parse_wheel_filename(path.name)[1]
        except InvalidWheelFilename:
            continue
        if its != Version(version):
            others.add(str(its))
        elif runs_on_linux(path.name) and path.parent.name != STAGE:
            found.setdefault(path.name, path)
    if not found:
        instead = f" (there is {', '.join(sorted(others))})" if others else ""
        raise UsageError(
            f"dist/ holds no wheel of mlc_llm {version} for Linux{instead}.",
            "Run nox -s wheels first.",
        )
    return list(found.values())


@contextmanager
def staged(wheels: Sequence[Path], root: Path) -> Iterator[dict[str, str]]:
    """The named contexts that hand the wheels to a build: a folder with these alone."""
    if not wheels:
        yield {}
        return
    folder = image_record.folder(root) / STAGE
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for wheel in wheels:
        shutil.copy2(wheel, folder / wheel.name)
    try:
        yield {"wheels": str(folder)}
    finally:
        shutil.rmtree(folder, ignore_errors=True)


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


def make_plan(image: str, context: Context, wish: Wish, env: Mapping[str, str]) -> BuildPlan:
    """All that decides the build, without building.

    Raises:
        UsageError: A setting, the tag or the wish does not fit.
        PipelineError: The local registry does not answer.
    """
    settings, event = context.settings, context.event
    needs_right = wish.push is not False and not wish.oci and is_published(image, event)
    may_push = push_right(settings, event.actor) if needs_right else ""
    output, reason = choose_output(image, event, wish, may_push)
    base = base_image(settings, context.root)
    arguments = {"BASE_IMAGE": base} if base else {}
    if image == "development":
        arguments["CMAKE_VERSION"] = settings.cmake_version
    if settings.ca_path and not settings.ca_path.is_file():
        raise UsageError(
            f"The certificate bundle {settings.ca_path} "
            f"({settings.origins['ca_certificates']}) is not a file.",
            "Correct CA_CERTIFICATES.",
        )
    names = image_tags(image, event, context.tags)
    source, target = buildx.layer_cache(output, settings.image, image, env)
    archive = str(image_record.folder(context.root) / f"{image}.oci.tar")
    server = env.get("GITHUB_SERVER_URL", "https://github.com")
    return BuildPlan(
        image=image,
        stage=image,
        references=tuple(tags.references(settings.image, names)),
        labels=tags.labels(event, context.created, server),
        platforms=settings.platforms,
        output=output,
        reason=reason,
        archive=archive if output == OCI else "",
        build_args=arguments,
        cache_from=source,
        cache_to=target,
        builder=settings.buildx_builder,
        ca_certificates=settings.ca_certificates,
        created=context.created,
    )


def compressed_size(client: registry.Registry, name: str, digest: str) -> int:
    """Bytes of a pull: of the largest platform, where there are several."""
    return max(client.sizes(name, digest), default=0)


def size_of(plan: BuildPlan, context: Context, digest: str, env: Mapping[str, str]) -> int:
    """Bytes of the image as its output has them.

    Raises:
        PipelineError: The registry does not have what was pushed.
    """
    settings = context.settings
    if plan.output == PUSH:
        client = registry.connect(settings, context.event.actor)
        try:
            found = client.head(settings.image_name, plan.references[0].rsplit(":", 1)[1])
        except registry.NotFound as error:
            raise PipelineError(
                f"{plan.references[0]} was pushed, but the registry does not have it.",
                "Run the session again; see nox -s doctor.",
            ) from error
        if found.digest != digest:
            raise PipelineError(
                f"{plan.references[0]} is {found.digest} in the registry, but {digest} was "
                "pushed: somebody else pushed it at the same time.",
                "Run the session again.",
            )
        return compressed_size(client, settings.image_name, digest)
    if plan.output == OCI:
        return Path(plan.archive).stat().st_size
    command = ["docker", "image", "inspect", "--format", "{{.Size}}", plan.references[0]]
    return int(process.run(command, env=env).stdout)


def copy_to_hub(
    plan: BuildPlan, context: Context, digest: str, env: Mapping[str, str]
) -> list[str]:
    """Give Docker Hub the very manifests that were pushed; the references there.

    Raises:
        PipelineError: Docker Hub refused them, or has another digest afterwards.
    """
    settings = context.settings
    hub = login.hub_login(settings)
    if hub is None or plan.output != PUSH:
        return []
    name = f"{hub.username.lower()}/{settings.image_name.rsplit('/', 1)[-1]}"
    references = [f"{hub.host}/{name}:{ref.rsplit(':', 1)[1]}" for ref in plan.references]
    command = ["docker", "buildx", "imagetools", "create"]
    command += ["--builder", plan.builder] if plan.builder else []
    for reference in references:
        command += ["--tag", reference]
    command.append(f"{settings.image}@{digest}")
    done = buildx.insist(lambda: process.run(command, env=env, check=False))
    if done.code:
        raise login.explain(hub.host, done.output)
    client = registry.Registry(
        hub.host, hub.username, hub.password, ca_certificates=settings.ca_certificates
    )
    found = client.head(name, references[0].rsplit(":", 1)[1]).digest
    if found != digest:
        raise PipelineError(
            f"{references[0]} is {found} on Docker Hub, but {digest} was copied.",
            "Run the session again.",
        )
    return references


def report(record: ImageRecord, hub: Sequence[str], seconds: float, before: int) -> None:
    """Say what was built: to the person, to the next job, and in the job's summary."""
    change = f" ({(record.size - before) / 1e6:+.1f} MB)" if before else ""
    size = f"{console.human_size(record.size)}{change}"
    rows = [("digest", record.digest), ("size", size), ("output", record.output)]
    rows += [("tag", reference) for reference in (*record.tags, *hub)]
    console.table(("image", record.image), rows)
    console.set_output("digest", record.digest)
    console.set_output("tags", "\n".join((*record.tags, *hub)))
    title = f"### {record.image} image, {seconds:.0f} s\n\n"
    markdown = [(key, f"`{value}`") for key, value in rows]
    console.step_summary(title + console.markdown_table(("", ""), markdown))


def size_before(image: str, root: Path) -> int:
    """Bytes of the image that was built here before; 0 if none is recorded."""
    try:
        return image_record.read(image, root).size
    except PipelineError:
        return 0


def announce(plan: BuildPlan, context: Context) -> None:
    """Say what will be done, and check the context's size first (UsageError over it)."""
    measured = build_context.measure(context.root)
    size = console.human_size(measured.size)
    console.say(f"build context: {size} in {measured.files} files")
    build_context.check(measured, context.settings.context_limit)
    console.say(f"{plan.image} image of {context.version}: {plan.output}, for {plan.reason}")


def carry_out(plan: BuildPlan, context: Context, wheels: Sequence[Path]) -> ImageRecord:
    """Build, read back, record.

    Args:
        plan: What to build, as the builder can do it.
        context: Settings and event.
        wheels: What the image installs; empty where its stage takes no wheel.

    Raises:
        PipelineError: A refused login, a failed build: see each one's text.
    """
    settings = context.settings
    started = time.monotonic()
    wanted = [login.registry_login(settings, context.event.actor), login.hub_login(settings)]
    logins = [one for one in wanted if one is not None] if plan.output == PUSH else []
    with login.logged_in(logins) as env:
        before = size_before(plan.image, context.root)
        with staged(wheels, context.root) as folders:
            with console.step(f"building the {plan.image} image"):
                built = buildx.build(buildx.with_contexts(plan, folders), context.root, env)
        record = ImageRecord(
            image=plan.image,
            name=settings.image,
            digest=built.digest,
            tags=plan.references,
            platforms=plan.platforms,
            size=size_of(plan, context, built.digest, env),
            output=plan.output,
            version=context.version,
            revision=context.event.sha,
            archive=f"dist/images/{plan.image}.oci.tar" if plan.output == OCI else "",
        )
        hub = copy_to_hub(plan, context, built.digest, env)
    image_record.write(record, context.root)
    report(record, hub, time.monotonic() - started, before)
    return record


def work(given: argparse.Namespace) -> int:
    """Plan, then build (or print the plan)."""
    context = load_context()
    wish = Wish(push=given.push, oci=given.output == "oci")
    plan = make_plan(given.image, context, wish, os.environ)
    wheels = find_wheels(context.root, context.version) if plan.image == "production" else []
    if given.dry_run:
        if given.json:
            console.emit_json(plan.to_json())
        else:
            announce(plan, context)
            rows = [(ref, plan.output) for ref in plan.references]
            console.table(("reference", "output"), rows)
        return 0
    # While the engine answers, the size of the context is taken.
    with ThreadPoolExecutor(2) as pool:
        found = pool.submit(engine.find_engine)
        builder = pool.submit(engine.find_builder, plan.builder)
        announce(plan, context)
        plan = buildx.fit_to_builder(plan, found.result(), builder.result())
    record = carry_out(plan, context, wheels)
    if given.json:
        console.emit_json(record.__dict__)
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """``python -m tools.images.__main__ development|production``."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    image = arguments[0] if arguments and arguments[0] in image_record.IMAGES else ""
    session = "prod_image" if image == "production" else "docker_dev"
    made = cli.parser(session, f"Build the {image or 'development or production'} image.")
    made.add_argument("image", choices=image_record.IMAGES, help=argparse.SUPPRESS)
    made.add_argument(
        "--push",
        action=argparse.BooleanOptionalAction,
        help="push, or never; else by the event",
    )
    made.add_argument("--output", choices=["oci"], help="write an OCI archive to dist/images/")
    made.add_argument("--dry-run", action="store_true", help="print the plan, build nothing")
    made.add_argument("--json", action="store_true", help="print plan or record as JSON")
    return cli.main(made, argparse.Namespace, work, arguments)


if __name__ == "__main__":
    sys.exit(main())
