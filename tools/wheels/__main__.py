"""Build, repair, check and install-test the wheels of one version into ``dist/``.

``nox -s wheels``; see docs/wheels.md.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path

from tools.core import cli, console, machine
from tools.core.errors import PipelineError
from tools.repo.context import Context, load_context
from tools.wheels import archive, build, check
from tools.wheels.archive import RecordedSource, RecordedWheel, Wheel, WheelsRecord, read_wheel
from tools.wheels.dist import exclusive, publish
from tools.wheels.source import Source, Tree, copy_tree, open_tree, parse_source, put_version


@dataclass(frozen=True)
class Options:
    """What the command line asks for."""

    dry_run: bool = cli.option(False, "show the plan, build nothing")
    json: bool = cli.option(False, "print the result as JSON")
    twice: bool = cli.option(False, "fail unless byte-identical")


@dataclass(frozen=True)
class WheelPlan:
    """All that a build needs to know, decided before anything is done."""

    version: str  # PEP 440; the wheel must have it
    commit: str  # of the pipeline
    source_date_epoch: int  # seconds; that commit's time
    source: Source
    jobs: int  # compilers at once
    compiler_cache: str  # sccache, ccache or empty
    installer: str  # uv or pip
    exclude: tuple[str, ...]  # libraries that auditwheel leaves out
    test_requires: tuple[str, ...]  # installed beside the wheel when it is tested
    output: str  # dist/ of the checkout

    @property
    def root(self) -> Path:
        """The checkout."""
        return Path(self.output).parent


def make_plan(context: Context) -> WheelPlan:
    """Decide what is built, from settings, event and machine.

    Raises:
        UsageError: ``MLC_LLM_SOURCE`` does not name a source.
    """
    settings = context.settings
    return WheelPlan(
        version=context.version,
        commit=context.event.sha,
        source_date_epoch=context.created,
        source=parse_source(settings.mlc_llm_source, context.root),
        jobs=machine.parallel_jobs(
            machine.processors(), machine.available_memory(), settings.build_memory
        ),
        compiler_cache=build.choose_compiler_cache(os.environ),
        installer=build.choose_installer(os.environ),
        exclude=settings.wheel_exclude,
        test_requires=settings.wheel_test_requires,
        output=str(context.root / "dist"),
    )


def build_wheels(plan: WheelPlan, twice: bool = False) -> WheelsRecord:
    """Build, check and publish; returns what ``wheels.json`` says.

    Raises:
        PipelineError: A step failed; ``dist/`` is as it was before.
    """
    build.hide_passwords(os.environ)
    # Not inside: a server that lives on would keep the lock if we are killed.
    build.start_server(plan.compiler_cache)
    with exclusive(plan.root) as work:
        with console.step(f"source: {plan.source.described}"):
            tree = open_tree(plan.source, plan.root / ".nox" / "sources")
            warn_of_state(tree)
        wheel = build_one(plan, tree, work)
        if twice:
            compare(wheel, build_one(plan, tree, work / "second-build"))
        with console.step(f"check {wheel.name}"):
            env = build.clean(os.environ)
            check.check_file(wheel, env)
            check.install(wheel, work / "fresh", plan.installer, env, plan.test_requires)
            check.use(wheel, work / "fresh", env, strict=plan.source.kind == "stand-in")
        record = record_of(plan, tree, wheel)
        publish(Path(plan.output), record, [wheel])
    report(record)
    return record


def warn_of_state(tree: Tree) -> None:
    """Say what of the source is not as it is committed."""
    if tree.untracked:
        console.warn(
            f"{tree.untracked} files of the source are not tracked by git and left out "
            "(git add takes them in)"
        )
    if tree.modified:
        console.warn("the source has changes that are not committed; they are built")


def build_one(plan: WheelPlan, tree: Tree, work: Path) -> Wheel:
    """Copy, build, repair and put into its one form: a wheel of the right version in ``work``.

    Raises:
        PipelineError: A step failed, or the version is another one.
    """
    folder = work / "source"
    copy_tree(tree, folder)
    project = put_version(folder, plan.version)
    env = build.build_environment(
        os.environ,
        folder=folder,
        project=project,
        created=plan.source_date_epoch,
        jobs=plan.jobs,
        compiler_cache=plan.compiler_cache,
    )
    constraints = (plan.root / "constraints.txt").read_text(encoding="utf-8").splitlines()
    kept = build.build_constraints(constraints, project.requires)
    means = f"{plan.jobs} compilers at once, {plan.compiler_cache or 'no compiler cache'}"
    with console.step(f"build {project.name} {plan.version} ({means})"):
        built = read_wheel(build.run_build(folder, work, env, plan.installer, kept))
    if not archive.same_version(built.version, plan.version):
        raise PipelineError(
            f"{built.name} has version {built.version}, but {plan.version} is being built.",
            "Make project.version of the source static, or take it from setuptools-scm "
            "(with dist_name set for hatch-vcs), so that the pipeline can give it.",
        )
    with console.step(f"repair {built.name}"):
        repaired = build.repair(built, work, env, plan.exclude)
    archive.canonicalize(repaired, work / repaired.name, plan.source_date_epoch)
    return read_wheel(work / repaired.name)


def compare(first: Wheel, second: Wheel) -> None:
    """Two builds must be the same byte for byte.

    Raises:
        PipelineError: They differ; the detail names the members.
    """
    if (second.name, second.sha256) != (first.name, first.sha256):
        names = archive.differences(first.path, second.path)
        raise PipelineError(
            f"Two builds of {first.name} differ.",
            "Look for times, random names or absolute paths in the members named above.",
            "\n".join(f"differs: {name}" for name in names),
        )
    console.say(f"{first.name}: two builds in different folders are byte-identical")


def record_of(plan: WheelPlan, tree: Tree, *wheels: Wheel) -> WheelsRecord:
    """The contents of ``wheels.json``."""
    return WheelsRecord(
        plan.version,
        plan.commit,
        RecordedSource(plan.source.kind, tree.commit or None, tree.modified),
        tuple(RecordedWheel(w.name, w.size, w.sha256, w.tags) for w in wheels),
    )


def report(record: WheelsRecord) -> None:
    """The table for people, and the outputs of the step for later ones."""
    rows = [(w.name, console.human_size(w.size), w.sha256) for w in record.wheels]
    headings = ("wheel", "size", "SHA-256")
    console.table(headings, rows, title=f"dist: wheels of {record.version}")
    console.step_summary(f"### Wheels\n\n{console.markdown_table(headings, rows)}")
    console.set_output("version", record.version)
    console.set_output("wheels", "\n".join(wheel.name for wheel in record.wheels))


def show(plan: WheelPlan) -> None:
    """The plan as a table for people."""
    lists = {"exclude": " ".join(plan.exclude), "test_requires": " ".join(plan.test_requires)}
    values = vars(plan) | lists | {"source": plan.source.described}
    rows = [(name.replace("_", " "), value or "none") for name, value in values.items()]
    console.table(("plan", "value"), rows, title="dry run: nothing is built")


def work(options: Options) -> None:
    """Carry out what the command line asks."""
    plan = make_plan(load_context())
    result = plan if options.dry_run else build_wheels(plan, options.twice)
    if options.json:
        console.emit_json(result)
    elif options.dry_run:
        show(plan)


main = cli.command(
    "wheels", "Build, repair, check and install-test wheels into dist/.", Options, work
)


if __name__ == "__main__":
    sys.exit(main())
