"""Build, repair, check and install-test the wheels of one version (docs/wheels.md)."""

import os
import shlex
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tools.core import cli, console, files, machine
from tools.core.errors import PipelineError, UsageError
from tools.repo.context import Context, load_context
from tools.wheels import abi, archive, build, check, cmake, kept, place, requirements, smoke
from tools.wheels.archive import REQUIREMENTS, RecordedWheel, Wheel, WheelsRecord, read_wheel
from tools.wheels.build import WheelPlan
from tools.wheels.dist import exclusive, publish
from tools.wheels.flavours import (
    PLAIN,
    Flavour,
    check_toolchain,
    choose,
    load_flavours,
    this_platform,
)
from tools.wheels.place import Place
from tools.wheels.repair import check_promise, repair
from tools.wheels.source import Tree, copy_tree, open_tree, parse_source, put_project


@dataclass(frozen=True)
class Options:
    """What the command line asks for."""

    dry_run: bool = cli.option(False, "show the plan, build nothing")
    json: bool = cli.option(False, "print the result as JSON")
    twice: bool = cli.option(False, "fail unless byte-identical")
    smoke: bool = cli.option(False, "have a tiny model compiled, generate and be served")
    flavour: tuple[str, ...] = cli.option(
        (), "of pyproject.toml's table; repeatable (default: this system's)"
    )


def make_plan(
    context: Context, names: Sequence[str] = (), smoke_test: bool = False
) -> WheelPlan:
    """Decide what is built, from settings, event, machine and the ``names`` of flavours."""
    settings = context.settings
    source = parse_source(settings.mlc_llm_source, context.root)
    flavours = choose(load_flavours(context.root), names, this_platform())
    if source.kind == "stand-in":
        flavours = ()  # it is the same in all
    own = settings.wheel_version == "source"
    if own and settings.flavour_naming == "local" and not all(one.default for one in flavours):
        raise UsageError(
            "FLAVOUR_NAMING is local, and WHEEL_VERSION is source.",
            "A flavour is added to the pipeline's versions alone: change one of them.",
        )
    return WheelPlan(
        version=None if own else context.version,
        commit=context.event.sha,
        source_date_epoch=context.created,
        source=source,
        cmake=settings.cmake_version,
        jobs=machine.parallel_jobs(settings.build_memory),
        compiler_cache=build.compiler_cache(os.environ),
        installer="uv" if shutil.which("uv") else "pip",
        flavours=flavours or (PLAIN,),
        naming=settings.flavour_naming,
        requires=settings.wheel_requires if flavours else (),
        exclude=settings.wheel_exclude,
        test_requires=settings.wheel_test_requires,
        container=settings.wheel_container == "auto",
        image=settings.wheel_image,
        certificates=settings.ca_certificates,
        manylinux=settings.manylinux,
        production_glibc=settings.production_glibc,
        smoke_timeout=settings.smoke_timeout if smoke_test else 0.0,
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
        built = [build_checked(plan, one, tree, work, twice) for one in plan.flavours]
        wheels, pinned, recorded = map(tuple, zip(*built, strict=True))
        version = plan.version or wheels[0].version
        record = WheelsRecord(version, plan.commit, tree.recorded, recorded)
        publish(root / "dist", record, wheels, pinned)
        files.remove_tree(root / kept.FOLDER)
    rows = [(w.name, console.human_size(w.size), w.sha256) for w in record.wheels]
    headings = ("wheel", "size", "SHA-256")
    console.table(headings, rows, title=f"dist: wheels of {record.version}")
    console.step_summary(f"### Wheels\n\n{console.markdown_table(headings, rows)}")
    return record


def build_checked(
    plan: WheelPlan, flavour: Flavour, tree: Tree, work: Path, twice: bool
) -> tuple[Wheel, Path, RecordedWheel]:
    """A flavour's wheel, held against everything, and what it requires, pinned, in ``work``;
    and what ``wheels.json`` says of it.
    """
    site = place.choose(plan, flavour, tree)
    check_toolchain(flavour, site.has)
    # The folder's path is the same for all: compilers' caches hit.
    one = work / "one"
    files.remove_tree(one)
    wheel = build_one(plan, flavour, tree, one, site, again=twice)
    if twice:
        second = build_one(plan, flavour, tree, one / "second-build", site, again=True)
        archive.compare(wheel, second)
    with console.step(f"check {wheel.name}"):
        # An import makes folders there: not in the user's home.
        env = {**build.clean(os.environ), "MLC_LLM_HOME": str(one / "home")}
        check_promise(wheel, site.promise(plan), plan.production_glibc)
        check.check_file(wheel, env)
        pinned = requirements.pin(wheel, one, env)
        fresh, beside = one / "fresh", plan.test_requires
        check.install(wheel, fresh, plan.installer, env, pinned, beside)
        report = abi.check(wheel, check.site_packages(fresh), excluded(plan, flavour))
        console.say(str(report))
        check.use(wheel, fresh, env, strict=plan.source.kind == "stand-in")
    if plan.smoke_timeout:
        smoke.run(fresh, one / "smoke", env, plan.smoke_timeout)
    name = REQUIREMENTS
    if not flavour.default:
        name = name.replace(".", f"-{flavour.name}.")
    wheel = replace(wheel, path=wheel.path.rename(work / wheel.name))
    facts = (wheel.name, wheel.size, wheel.sha256, wheel.tags)
    recorded = RecordedWheel(*facts, flavour.name, flavour.companion, report.providers)
    return wheel, pinned.rename(work / name), recorded


def excluded(plan: WheelPlan, flavour: Flavour) -> list[str]:
    """Libraries that are not packed: the companion and the user's drivers bring them."""
    return [*plan.exclude, *flavour.exclude]


def build_one(
    plan: WheelPlan, flavour: Flavour, tree: Tree, work: Path, site: Place, again: bool = False
) -> Wheel:
    """Build, repair and put into its one form: a wheel in ``work``."""
    env, built = build_copy(plan, flavour, tree, work, site, again)
    with console.step(f"repair {built.name}"):
        repaired = repair(built, work, env, excluded(plan, flavour), site.repairer(work))
    archive.canonicalize(repaired, work / repaired.name, plan.source_date_epoch)
    return read_wheel(work / repaired.name)


def build_copy(
    plan: WheelPlan, flavour: Flavour, tree: Tree, work: Path, site: Place, again: bool
) -> tuple[dict[str, str], Wheel]:
    """The environment and the wheel of a build of a copy of the source. What an earlier run
    built and could not finish is not built ``again``, unless that is asked for.
    """
    folder = work / "source"
    copy_tree(tree, folder)
    name, version = flavour.identity("mlc-llm", plan.version, plan.naming)
    declared = [*plan.requires, *filter(None, [flavour.companion])]
    requires, variables = put_project(
        folder, version, "" if name == "mlc-llm" else name, declared
    )
    cmake.put_first(folder)
    if minimum := cmake.minimum(folder, plan.cmake, os.environ):
        console.say(f"CMake {minimum.specifier}: {minimum.origin} asks for it")
        requires.append(f"cmake{minimum.specifier}")
        variables |= minimum.variables
    args = [os.environ.get("CMAKE_ARGS", ""), *map(shlex.quote, flavour.cmake_args())]
    outer = {**os.environ, "CMAKE_ARGS": " ".join(args)}
    env = site.environment(plan, folder, variables, outer)
    lock = Path(plan.root, "constraints.txt").read_text(encoding="utf-8").splitlines()
    constraints = build.build_constraints(lock, requires)
    cache = build.launcher(env) or "no compiler cache"
    means = f"{site}, {plan.jobs} compilers at once, {cache}"
    key = kept.key(folder, env, str(site), sys.version, *constraints)
    store = Path(plan.root, kept.FOLDER, key)
    path = None if again else kept.take(store, work / "built")
    if path is None:
        with console.step(f"build {name} {version or 'of its own version'} ({means})"):
            path = site.build(plan, folder, work, env, constraints)
            kept.keep(path, store)
    built = read_wheel(path)
    if version and not archive.same_version(built.version, version):
        raise PipelineError(
            f"{built.name} has version {built.version}, but {version} is being built.",
            "Make project.version of the source static, or take it from setuptools-scm "
            "(with dist_name set for hatch-vcs), so that the pipeline can give it.",
        )
    return env, built


def work(options: Options) -> None:
    """Carry out what the command line asks."""
    plan = make_plan(load_context(), options.flavour, options.smoke)
    if options.dry_run and not options.json:
        texts = {
            key: " ".join(map(str, value)) if isinstance(value, tuple) else value
            for key, value in vars(plan).items()
        }
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
