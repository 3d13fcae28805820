"""``docker_dev`` and ``prod_image``: plan, build, read back, record."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tools.core import cli, console, process
from tools.core.errors import PipelineError
from tools.images import build, engine, login, record
from tools.images.login import Login
from tools.images.plan import OCI, PUSH, BuildPlan, Options, make_plan
from tools.images.record import SESSIONS, ImageRecord
from tools.registry import client as registry
from tools.repo.context import Context, load_context


def work(options: Options) -> None:
    """Plan, then build (or print the plan)."""
    context = load_context()
    plan = make_plan(options, context, os.environ)
    if options.dry_run and options.json:
        console.emit_json(plan)
        return
    console.say(f"{plan.image} image of {context.version}: {plan.output}, for {plan.reason}")
    if options.dry_run:
        console.table(
            ("reference", "output"), [(name, plan.output) for name in plan.references]
        )
        return
    with console.step("check the Docker engine and the build context"):
        plan = check(plan, context)
    with login.logged_in(logins(plan, context)) as env:
        with console.step(f"build the {plan.image} image"):
            digest = build.build(plan, context.root, env)
        with console.step("read the image back"):
            built = read_back(plan, context, digest, env)
        hub = copy_to_hub(plan, context, digest, env)
    record.write(built, context.root)
    report(built, hub)
    if options.json:
        console.emit_json(built)


def check(plan: BuildPlan, context: Context) -> BuildPlan:
    """The plan as the builder can carry it out.

    Raises:
        UsageError: The context is too large, or the builder cannot do it.
        PipelineError: The engine or the builder cannot be used.
    """
    with ThreadPoolExecutor(2) as pool:
        found = pool.submit(engine.find_engine)
        builder = pool.submit(engine.find_builder, plan.builder)
        sent = build.check_context(context.root, context.settings.context_limit)
    console.say(f"build context: {sent}")
    return build.fit_to_builder(plan, found.result(), builder.result())


def logins(plan: BuildPlan, context: Context) -> list[Login]:
    """The accounts that a push needs: at the registry, and at Docker Hub."""
    ours = login.registry_login(context.settings, context.event.actor)
    accounts = (ours, login.hub_login(context.settings))
    return [one for one in accounts if one is not None] if plan.output == PUSH else []


def read_back(
    plan: BuildPlan, context: Context, digest: str, env: Mapping[str, str]
) -> ImageRecord:
    """The record of what was built.

    Raises:
        PipelineError: The registry does not have what was pushed.
    """
    settings = context.settings
    archive = loaded = ""
    if plan.output == PUSH:
        client = registry.connect(settings, context.event.actor)
        compare(client, settings.image_name, plan, digest)
        size = max(client.sizes(settings.image_name, digest), default=0)
    elif plan.output == OCI:
        archive = Path(plan.archive).relative_to(context.root).as_posix()
        size = Path(plan.archive).stat().st_size
    else:
        words = ["docker", "image", "inspect", "--format={{.Id}} {{.Size}}", plan.references[0]]
        loaded, number = process.run(words, env=env).stdout.split()
        size = int(number)
    return ImageRecord(
        plan.image, settings.image, digest, plan.references, plan.platforms, size,
        plan.output, context.version, context.event.sha, archive, loaded,
    )  # fmt: skip


def compare(client: registry.Registry, name: str, plan: BuildPlan, digest: str) -> None:
    """Check that a registry's tag has the digest that was pushed there (PipelineError)."""
    tag = plan.references[0].rpartition(":")[2]
    try:
        found = client.head(name, tag).digest
    except registry.NotFound:
        found = "not there"
    if found != digest:
        raise PipelineError(
            f"{client.host}/{name}:{tag} is {found}, but {digest} was pushed: somebody else "
            "pushed or deleted it at the same time.",
            "Run the session again; see nox -s doctor.",
        )


def copy_to_hub(
    plan: BuildPlan, context: Context, digest: str, env: Mapping[str, str]
) -> list[str]:
    """Give Docker Hub the very manifests that were pushed, if it has a login; the references
    there.

    Raises:
        PipelineError: Docker Hub refused them, or has another digest afterwards.
    """
    settings = context.settings
    hub = login.hub_login(settings)
    if hub is None or plan.output != PUSH:
        return []
    name = f"{hub.username.lower()}/{settings.image_name.rpartition('/')[2]}"
    references = [f"{hub.host}/{name}:{ref.rpartition(':')[2]}" for ref in plan.references]
    words = ["docker", "buildx", "imagetools", "create", f"{settings.image}@{digest}"]
    words += [f"--builder={plan.builder}"] if plan.builder else []
    words += [f"--tag={reference}" for reference in references]
    with console.step("copy the image to Docker Hub"):
        done = process.again(lambda: process.run(words, env=env, check=False), build.passing)
    if done.code:
        raise login.explain(hub.host, done.output)
    bundle = settings.ca_certificates
    client = registry.Registry(hub.host, hub.username, hub.password, ca_certificates=bundle)
    compare(client, name, plan, digest)
    return references


def report(built: ImageRecord, hub: Sequence[str]) -> None:
    """Say what was built: to the person, to the next job, and in the job's summary."""
    tags = (*built.tags, *hub)
    rows = [("digest", built.digest), ("size", console.human_size(built.size))]
    rows += [("output", built.output), *(("tag", tag) for tag in tags)]
    console.table(("image", built.image), rows)
    console.set_output("digest", built.digest)
    console.set_output("tags", "\n".join(tags))
    markdown = [(key, f"`{value}`") for key, value in rows]
    table = console.markdown_table(("", ""), markdown)
    console.step_summary(f"### {built.image} image\n\n{table}")


def main(arguments: Sequence[str] | None = None) -> int:
    """``python -m tools.images development|production``."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    image = words[0] if words and words[0] in SESSIONS else "development"
    return cli.main(SESSIONS[image], f"Build the {image} image.", Options, work, words)


if __name__ == "__main__":
    sys.exit(main())
