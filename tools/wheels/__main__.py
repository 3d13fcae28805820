"""Build, repair, check and install-test the wheels of one version (docs/wheels.md)."""

import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from tools.core import cli, console, machine
from tools.core.errors import PipelineError
from tools.repo.context import Context, load_context
from tools.wheels import archive, build, check, requirements
from tools.wheels.archive import RecordedWheel, Wheel, WheelsRecord, read_wheel
from tools.wheels.build import WheelPlan
from tools.wheels.dist import exclusive, publish
from tools.wheels.repair import repair
from tools.wheels.source import Tree, copy_tree, open_tree, parse_source, put_project


@dataclass(frozen=True)
class Options:
    """What the command line asks for."""

    dry_run: bool = cli.option(False, "show the plan, build nothing")
    json: bool = cli.option(False, "print the result as JSON")
    twice: bool = cli.option(False, "fail unless byte-identical")


def make_plan(context: Context) -> WheelPlan:
    """Decide what is built, from settings, event and machine."""
    settings = context.settings
    return WheelPlan(
        version=context.version,
        commit=context.event.sha,
        source_date_epoch=context.created,
        source=parse_source(settings.mlc_llm_source, context.root),
        jobs=machine.parallel_jobs(settings.build_memory),
        compiler_cache=next(filter(shutil.which, ("sccache", "ccache")), ""),
        installer="uv" if shutil.which("uv") else "pip",
        exclude=settings.wheel_exclude,
        test_requires=settings.wheel_test_requires,
        root=str(context.root),
    )


def build_wheels(plan: WheelPlan, twice: bool = False) -> WheelsRecord:
    """Build, check and publish; returns what ``wheels.json`` says. If a step fails, ``dist/``
    is as it was before.
    """
    root = Path(plan.root)
    # Not inside: a server that lives on would keep the lock if we are killed.
    build.prepare(plan.compiler_cache)
    with exclusive(root) as work:
        with console.step(f"source: {plan.source}"):
            tree = open_tree(plan.source, root / ".nox" / "sources")
        wheel = build_one(plan, tree, work)
        if twice:
            archive.compare(wheel, build_one(plan, tree, work / "second-build"))
        with console.step(f"check {wheel.name}"):
            env = build.clean(os.environ)
            check.check_file(wheel, env)
            pinned = requirements.pin(wheel, work, env)
            fresh, beside = work / "fresh", plan.test_requires
            check.install(wheel, fresh, plan.installer, env, pinned, beside)
            check.use(wheel, fresh, env, strict=plan.source.kind == "stand-in")
        recorded = RecordedWheel(wheel.name, wheel.size, wheel.sha256, wheel.tags)
        record = WheelsRecord(wheel.version, plan.commit, tree.recorded, (recorded,))
        publish(root / "dist", record, [wheel], [pinned])
    rows = [(w.name, console.human_size(w.size), w.sha256) for w in record.wheels]
    headings = ("wheel", "size", "SHA-256")
    console.table(headings, rows, title=f"dist: wheels of {record.version}")
    console.step_summary(f"### Wheels\n\n{console.markdown_table(headings, rows)}")
    return record


def build_one(plan: WheelPlan, tree: Tree, work: Path) -> Wheel:
    """Copy, build, repair and put into its one form: a wheel in ``work``."""
    folder = work / "source"
    copy_tree(tree, folder)
    requires, variables = put_project(folder, plan.version)
    env = build.build_environment(plan, folder, variables, os.environ)
    lock = Path(plan.root, "constraints.txt").read_text(encoding="utf-8").splitlines()
    kept = build.build_constraints(lock, requires)
    means = f"{plan.jobs} compilers at once, {plan.compiler_cache or 'no compiler cache'}"
    with console.step(f"build {plan.version or 'the source as its own version'} ({means})"):
        built = read_wheel(build.run_build(folder, work, env, plan.installer, kept))
    if plan.version and not archive.same_version(built.version, plan.version):
        raise PipelineError(
            f"{built.name} has version {built.version}, but {plan.version} is being built.",
            "Make project.version of the source static, or take it from setuptools-scm "
            "(with dist_name set for hatch-vcs), so that the pipeline can give it.",
        )
    with console.step(f"repair {built.name}"):
        repaired = repair(built, work, env, plan.exclude)
    archive.canonicalize(repaired, work / repaired.name, plan.source_date_epoch)
    return read_wheel(work / repaired.name)


def work(options: Options) -> None:
    """Carry out what the command line asks."""
    plan = make_plan(load_context())
    if options.dry_run and not options.json:
        texts = {k: " ".join(v) if isinstance(v, tuple) else v for k, v in vars(plan).items()}
        rows = [(name.replace("_", " "), text or "none") for name, text in texts.items()]
        console.table(("plan", "value"), rows, title="dry run: nothing is built")
        return
    result = plan if options.dry_run else build_wheels(plan, options.twice)
    if options.json:
        console.emit_json(result)


main = cli.command(
    "wheels", "Build, repair, check and install-test wheels into dist/.", Options, work
)


if __name__ == "__main__":
    sys.exit(main())
