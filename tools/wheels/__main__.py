"""Build, repair, check and install-test the wheels of one version into ``dist/``.

``nox -s wheels``; see docs/wheels.md.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from packaging.utils import InvalidWheelFilename, parse_wheel_filename

from tools.core import cli, console, machine, process
from tools.core.errors import PipelineError
from tools.core.janitor import Janitor
from tools.repo.context import Context, load_context
from tools.wheels.archive import (
    Wheel,
    canonicalize,
    check_version,
    differences,
    read_wheel,
)
from tools.wheels.build import (
    build_constraints,
    build_environment,
    choose_installer,
    choose_launcher,
    hide_passwords,
    repair,
    run_build,
    start_launcher,
    without_secrets,
)
from tools.wheels.check import check_file, install, use_test
from tools.wheels.source import Source, Tree, copy_tree, open_tree, parse_source, put_version

INDEX = "wheels.json"
WORK = ".wheels"
LOCK_LIMIT = 3600.0  # seconds to wait for another build in this checkout


@dataclass(frozen=True)
class Plan:
    """All that a build needs to know, decided before anything is done.

    Attributes:
        root: The checkout.
        version: PEP 440 version that the wheel must have.
        commit: Commit of the pipeline that it is built for.
        created: Seconds since the epoch of that commit.
        source: Where the package comes from.
        jobs: Compilers at once.
        launcher: Compiler cache, or empty.
        installer: ``uv`` or ``pip``.
        exclude: Libraries that auditwheel leaves out.
        test_requires: Packages installed beside the wheel when it is tested.
    """

    root: Path
    version: str
    commit: str
    created: int
    source: Source
    jobs: int
    launcher: str
    installer: str
    exclude: tuple[str, ...]
    test_requires: tuple[str, ...] = ()

    @property
    def dist(self) -> Path:
        """Where the wheels go."""
        return self.root / "dist"

    def to_json(self) -> dict[str, Any]:
        """The plan as plain data."""
        return {
            "version": self.version,
            "commit": self.commit,
            "source_date_epoch": self.created,
            "source": {
                "kind": self.source.kind,
                "location": self.source.location,
                "ref": self.source.ref,
                "subdirectory": self.source.subdirectory,
            },
            "jobs": self.jobs,
            "compiler_cache": self.launcher,
            "installer": self.installer,
            "exclude": list(self.exclude),
            "test_requires": list(self.test_requires),
            "output": str(self.dist),
        }


def make_plan(context: Context) -> Plan:
    """Decide what is built, from settings, event and machine.

    Raises:
        UsageError: ``MLC_LLM_SOURCE`` names no source.
    """
    settings = context.settings
    return Plan(
        root=context.root,
        version=context.version,
        commit=context.event.sha,
        created=context.created,
        source=parse_source(settings.mlc_llm_source, context.root),
        jobs=machine.parallel_jobs(
            machine.processors(), machine.available_memory(), settings.build_memory
        ),
        launcher=choose_launcher(os.environ),
        installer=choose_installer(os.environ),
        exclude=settings.wheel_exclude,
        test_requires=settings.wheel_test_requires,
    )


@contextlib.contextmanager
def exclusive(plan: Plan) -> Iterator[Path]:
    """Hold the checkout's one build of wheels; yields its empty work folder.

    The lock ends with the last process of the build. If ours is killed, the janitor
    holds it until it has ended the others: a build front end that lived on would
    remove its isolated environment by a path that is the next build's, too. What is
    left is swept first: renamed before it is deleted.

    Raises:
        PipelineError: Another build does not end, or its folder is in use.
    """
    plan.dist.mkdir(parents=True, exist_ok=True)
    locks = plan.root / ".nox"
    locks.mkdir(exist_ok=True)
    work = plan.dist / WORK
    held: list[int] = []
    lock = FileLock(locks / "wheels.lock", on_acquired=held.append)
    _acquire(lock)
    try:
        with Janitor(keep_open=held) as janitor, process.watched_by(janitor, held):
            _sweep(plan.dist)
            work.mkdir()
            yield work
    finally:
        # The work is done or has failed: a file that is still held open (as on Windows)
        # changes nothing of that, and the next build sweeps again.
        with contextlib.suppress(PipelineError):
            _sweep(plan.dist)
        lock.release()


def _acquire(lock: FileLock) -> None:
    """Take the lock; wait for a build that has it, such as one whose nox was killed."""
    try:
        lock.acquire(timeout=0)
    except Timeout:
        console.say("another build of wheels is running in this checkout: waiting for it")
        try:
            lock.acquire(timeout=LOCK_LIMIT)
        except Timeout as error:
            raise PipelineError(
                f"Another build of wheels has been running here for {LOCK_LIMIT:.0f} s.",
                "End it if it hangs, and start again.",
            ) from error


def _sweep(dist: Path) -> None:
    work = dist / WORK
    if work.exists():
        try:
            os.replace(work, Path(tempfile.mkdtemp(dir=dist, prefix=f"{WORK}-old-")) / "work")
        except OSError as error:
            raise PipelineError(
                f"The folder {work} of an earlier build is in use: {error}.",
                "End what still runs there, and start again.",
            ) from error
    for old in dist.glob(f"{WORK}-old-*"):
        shutil.rmtree(old, ignore_errors=True)


def build_one(plan: Plan, tree: Tree, work: Path) -> Wheel:
    """Build, repair and put into its one form: a wheel of the right version in ``work``.

    Raises:
        PipelineError: A step failed, or the version is another one.
    """
    folder = work / "source"
    copy_tree(tree, folder)
    project = put_version(folder, plan.version)
    env = build_environment(
        os.environ,
        folder=folder,
        project=project,
        created=plan.created,
        jobs=plan.jobs,
        launcher=plan.launcher,
    )
    lines = (plan.root / "constraints.txt").read_text(encoding="utf-8").splitlines()
    constraints = work / "constraints.txt"
    kept = build_constraints(lines, project.requires)
    constraints.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")
    with console.step(f"build {project.name} {plan.version}"):
        built = read_wheel(run_build(folder, work, env, plan.installer, constraints))
    check_version(built, plan.version)
    with console.step(f"repair {built.name}"):
        if built.pure:
            console.say("nothing to repair: it fits every platform")
        repaired = repair(built, work, env, plan.exclude)
    final = work / repaired.name
    canonicalize(repaired, final, plan.created)
    return read_wheel(final)


def build_twice(plan: Plan, tree: Tree, work: Path, first: Wheel) -> None:
    """Build again in a folder of another path, and compare byte for byte.

    Raises:
        PipelineError: The wheels differ; the detail names the members.
    """
    again = work / "second-build"
    again.mkdir()
    second = build_one(plan, tree, again)
    if (second.name, second.sha256) != (first.name, first.sha256):
        found = differences(first.path, second.path)
        raise PipelineError(
            f"Two builds of {first.name} differ.",
            "Look for times, random names or absolute paths in the members named above.",
            "\n".join(f"differs: {name}" for name in found),
        )
    console.say(f"{first.name}: two builds in different folders are byte-identical")


def check(plan: Plan, wheel: Wheel, work: Path) -> None:
    """All checks of a finished wheel.

    Raises:
        PipelineError: One of them failed.
    """
    env = without_secrets(os.environ)
    with console.step(f"check {wheel.name}"):
        check_file(wheel, env)
        environment = work / "fresh"
        install(wheel, environment, plan.installer, env, plan.test_requires)
        use_test(wheel, environment, env, strict=plan.source.kind == "stand-in")


def index_of(plan: Plan, tree: Tree, wheels: list[Wheel]) -> dict[str, Any]:
    """The contents of ``wheels.json``."""
    return {
        "version": plan.version,
        "commit": plan.commit,
        "source": {
            "kind": plan.source.kind,
            "commit": tree.commit or None,
            "modified": tree.dirty,
        },
        "wheels": [wheel.to_json() for wheel in wheels],
    }


def _outdated(dist: Path, wheels: list[Wheel]) -> list[Path]:
    """Wheels in ``dist`` that the new ones replace: of the same project, or listed."""
    listed: set[str] = set()
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        index = json.loads((dist / INDEX).read_text(encoding="utf-8"))
        listed = {str(entry["name"]) for entry in index["wheels"]}
    projects = {wheel.project for wheel in wheels}
    new = {wheel.name for wheel in wheels}
    found = []
    for path in dist.glob("*.whl"):
        with contextlib.suppress(InvalidWheelFilename):
            if parse_wheel_filename(path.name)[0] in projects and path.name not in new:
                found.append(path)
                continue
        if path.name in listed - new:
            found.append(path)
    return found


def publish(plan: Plan, index: dict[str, Any], wheels: list[Wheel], work: Path) -> list[Wheel]:
    """Put finished wheels and their index into ``dist/``, each in one step.

    Earlier wheels of the project go: dist/ holds one version, so that nothing picks
    up an old one. The index is taken away first and put back last: wherever this is
    cut off, no file is half written and no index names a wheel that is not there.
    """
    staged = work / INDEX
    staged.write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8", newline="\n")
    old = _outdated(plan.dist, wheels)
    (plan.dist / INDEX).unlink(missing_ok=True)
    for wheel in wheels:
        os.replace(wheel.path, plan.dist / wheel.name)
    for path in old:
        console.say(f"removing {path.name}: replaced by this build")
        path.unlink()
    os.replace(staged, plan.dist / INDEX)
    return [read_wheel(plan.dist / wheel.name) for wheel in wheels]


def report(plan: Plan, wheels: list[Wheel]) -> None:
    """The table for people, and the outputs of the step for later ones."""
    rows = [(w.name, console.human_size(w.size), w.sha256) for w in wheels]
    headings = ("wheel", "size", "SHA-256")
    console.table(headings, rows, title=f"dist: wheels of {plan.version}")
    console.step_summary(f"### Wheels\n\n{console.markdown_table(headings, rows)}")
    console.set_output("version", plan.version)
    console.set_output("wheels", "\n".join(wheel.name for wheel in wheels))


def _announce(plan: Plan) -> None:
    cache = plan.launcher or "no compiler cache"
    console.say(
        f"wheels of {plan.version} from {plan.source.described} "
        f"({plan.jobs} compilers at once, {cache}, {plan.installer})"
    )


def _warn_of_state(tree: Tree) -> None:
    if tree.untracked:
        console.warn(
            f"{tree.untracked} files of the source are not tracked by git and left out "
            "(git add takes them in)"
        )
    if tree.dirty:
        console.warn("the source has changes that are not committed; they are built")


def carry_out(plan: Plan, twice: bool = False) -> dict[str, Any]:
    """Build, check and publish; returns the index.

    Raises:
        PipelineError: A step failed; ``dist/`` is as it was before.
    """
    _announce(plan)
    hide_passwords(os.environ)
    # Not inside: a server that lives on would keep the lock if we are killed.
    start_launcher(plan.launcher)
    with exclusive(plan) as work:
        tree = open_tree(plan.source, plan.root / ".nox" / "sources")
        _warn_of_state(tree)
        wheel = build_one(plan, tree, work)
        if twice:
            build_twice(plan, tree, work, wheel)
        check(plan, wheel, work)
        index = index_of(plan, tree, [wheel])
        report(plan, publish(plan, index, [wheel], work))
    return index


def show_plan(plan: Plan) -> None:
    """The plan as a table for people."""
    rows = [
        ("version", plan.version),
        ("commit", plan.commit),
        ("SOURCE_DATE_EPOCH", plan.created),
        ("source", plan.source.described),
        ("compilers at once", plan.jobs),
        ("compiler cache", plan.launcher or "none (no sccache or ccache on the PATH)"),
        ("installer", plan.installer),
        ("left out by auditwheel", " ".join(plan.exclude) or "nothing"),
        ("installed for the test", " ".join(plan.test_requires) or "the wheel alone"),
        ("written to", plan.dist),
    ]
    console.table(("plan", "value"), rows, title="dry run: nothing is built")


def work(arguments: argparse.Namespace) -> int:
    """Carry out what the command line asks."""
    plan = make_plan(load_context())
    if arguments.dry_run and arguments.json:
        console.emit_json(plan.to_json())
        return 0
    if arguments.dry_run:
        show_plan(plan)
        return 0
    index = carry_out(plan, arguments.twice)
    if arguments.json:
        console.emit_json(index)
    return 0


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = cli.parser("wheels", "Build, repair, check and install-test wheels into dist/.")
    made.add_argument("--dry-run", action="store_true", help="show the plan, build nothing")
    made.add_argument("--json", action="store_true", help="print the result as JSON on stdout")
    made.add_argument(
        "--twice", action="store_true", help="build twice; fail unless byte-identical"
    )
    return made


if __name__ == "__main__":
    sys.exit(cli.main(parser(), argparse.Namespace, work))
