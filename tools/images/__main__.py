"""``docker_dev`` and ``prod_image``: plan, build, read back, record."""

import os
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from tools.core import cli, console, process
from tools.core.errors import PipelineError
from tools.images import build, engine, login, moving, record
from tools.images.plan import CACHE, OCI, PUSH, BuildPlan, Options, make_plan
from tools.images.record import SESSIONS, ImageRecord
from tools.registry import client as registry
from tools.repo.context import Context, load_context


def work(options: Options) -> None:
    """Plan, then build (or print the plan)."""
    context = load_context()
    plan = make_plan(options, context, os.environ)
    console.say(f"{plan.image} image of {context.version}: {plan.output}, for {plan.reason}")
    if options.dry_run:
        rows = [(name, plan.output) for name in plan.references]
        console.table(("reference", "output"), rows)
        if options.json:
            console.emit_json(plan)
        return
    logins = login.push_logins(context) if plan.output == PUSH else []
    with console.step("check the Docker engine, the build context and the logins"):
        plan = check(plan, context, logins)
    with login.logged_in(logins) as env:
        with console.step(f"build the {plan.image} image"):
            if plan.output == PUSH and plan.moving:
                if console.on_ci():
                    # Other runs go on meanwhile: what the tags hold is looked at when all but
                    # the push is done.
                    build.build(replace(plan, output=CACHE, cache_to=()), context.root, env)
                plan = moving.keep_newer(plan, context, env)
            if not plan.references:
                console.say("nothing is left to push")
                if options.json:
                    console.emit_json(plan)
                return
            digest = build.build(plan, context.root, env)
        with console.step("read the image back"):
            built = read_back(plan, context, digest, env)
    record.write(built, context.root)
    report(built)
    if options.json:
        console.emit_json(built)


def check(plan: BuildPlan, context: Context, logins: Sequence[login.Login]) -> BuildPlan:
    """The plan as the builder can carry it out (PipelineError: it cannot, the context is too
    large, or a login is refused).
    """
    with ThreadPoolExecutor(2) as pool:
        found = pool.submit(engine.find_engine)
        driver = pool.submit(engine.find_driver, plan.builder)
        sent = build.check_context(context.root, context.settings.context_limit)
    console.say(f"build context: {sent}")
    fitting = build.fit_to_builder(plan, found.result(), driver.result())
    for one in logins:
        client = registry.Registry(*one, ca_certificates=context.settings.ca_certificates)
        if client.answer() == "refuses":
            raise login.explain(one.host, "unauthorized")
    return fitting


def read_back(
    plan: BuildPlan, context: Context, digest: str, env: Mapping[str, str]
) -> ImageRecord:
    """The record of what was built (PipelineError: the registry does not have it)."""
    settings, archive, loaded = context.settings, "", ""
    if plan.output == PUSH:
        client = registry.connect(settings, context.event.actor)
        name, tag = settings.image_name, plan.references[0].rpartition(":")[2]
        if (found := client.head(name, tag).digest) != digest:
            raise PipelineError(
                f"{client.host}/{name}:{tag} is {found}, but {digest} was pushed: somebody "
                "else pushed or deleted it at the same time.",
                "Run the session again; see nox -s doctor.",
            )
        size = max(client.sizes(name, digest), default=0)
    elif plan.output == OCI:
        archive = f"dist/images/{plan.image}.oci.tar"
        size = (context.root / archive).stat().st_size
    else:
        words = ["docker", "image", "inspect", "--format={{.Id}} {{.Size}}", plan.references[0]]
        loaded, number = process.run(words, env=env).stdout.split()
        size = int(number)
    return ImageRecord(
        plan.image, settings.image, digest, plan.references, plan.platforms, size,
        plan.output, context.version, context.event.sha, archive, loaded,
    )  # fmt: skip


def report(built: ImageRecord) -> None:
    """Say what was built: to the person, to the next job, and in the job's summary."""
    rows = [("digest", built.digest), ("size", console.human_size(built.size))]
    rows += [("output", built.output), *(("tag", tag) for tag in built.tags)]
    console.table(("image", built.image), rows)
    console.set_output("digest", built.digest)
    console.set_output("tags", "\n".join(built.tags))
    table = console.markdown_table(("", ""), [(key, f"`{value}`") for key, value in rows])
    console.step_summary(f"### {built.image} image\n\n{table}")


def main(arguments: Sequence[str] | None = None) -> int:
    """``python -m tools.images development|production``."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    image = words[0] if words and words[0] in SESSIONS else "development"
    return cli.command(SESSIONS[image], f"Build the {image} image.", Options, work)(words)


if __name__ == "__main__":
    sys.exit(main())
