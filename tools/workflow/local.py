"""``pipeline``: run the jobs that ``plan`` says run, on this machine, as CI would.

The same graph, conditions and sessions as in the workflow file. Nothing is pushed or
published unless ``--publish`` is given; a registry on the loopback range may be pushed to,
as nothing leaves the machine, so that images are tested by digest there.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import os
import platform
import secrets
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from tools.core import cli, console, files
from tools.core.errors import PipelineError, UsageError
from tools.core.settings import ROOT, Settings, load
from tools.images import engine
from tools.images import record as images
from tools.registry.manifest import is_loopback
from tools.repo.event import Event
from tools.repo.versions import parse_tag
from tools.runs import record as runs
from tools.runs.record import ArtifactRecord, RunRecord, critical_path
from tools.workflow import decisions, jobs, model, plan
from tools.workflow.decisions import CANCELLED, FAILURE, SUCCESS
from tools.workflow.jobs import Obstacle, Policy
from tools.workflow.runner import NOT_RUN, RUNNING, Runner, State
from tools.workflow.triggers import Trigger, not_triggered

TAIL = 20  # lines of a log that are shown for what failed
HEADINGS = ("job", "result", "seconds", "why")
EXIT_CODES = {SUCCESS: 0, FAILURE: 1, CANCELLED: 130}


JOBS = max(2, os.cpu_count() or 2)


@dataclasses.dataclass(frozen=True)
class Options(plan.EventOptions):
    """What the command line asks for."""

    jobs: int = cli.option(JOBS, f"at the same time ({JOBS})", "-j", "--jobs", type=cli.count)
    publish: bool = cli.option(False, "really push, release and delete, as CI does")
    dry_run: bool = cli.option(False, "show the commands, run nothing")
    json: bool = cli.option(False, "the record of the run on stdout")


def work(options: Options) -> int:
    """Run the pipeline."""
    runner = create_runner(options)
    title = f"{runner.event.name} of {runner.event.ref}"
    if options.dry_run:
        console.say(title)
        show_commands(runner, options.json)
        return 0
    for name in drop_stale(ROOT, runner.event):
        console.say(f"removed dist/images/{name}, which is of another version")
    folder = runner.folder.relative_to(ROOT).as_posix()
    with console.step(f"{title}, logs in {folder}"):
        record = carry_out(runner, options.jobs)
    show_result(runner, record)
    if options.json:
        console.emit_json(record.to_json())
    return EXIT_CODES[record.result]


# -- before -----------------------------------------------------------------------------


def create_runner(options: Options) -> Runner:
    """All that is decided before anything runs."""
    settings, graph = load(), model.load()
    event = plan.find_event(options, os.environ)
    if refusal := not_triggered(event, graph.triggers):
        if plan.is_described(options) or console.on_actions():
            raise UsageError(f"Nothing to run: {refusal}.", "Give another --event or --ref.")
        # Somebody who works on a branch of their own wants to know what CI will say of it.
        console.say(f"note: on GitHub nothing would run: {refusal}")
        graph = dataclasses.replace(graph, triggers=(Trigger(event.name, {}),))
    decisions.decide(graph, event, options.failed)  # refuses what is not a job
    # Where origin does not name the repository, the images' name does.
    event = dataclasses.replace(event, repository=event.repository or settings.image_name)
    return Runner(
        graph,
        event,
        find_policy(settings, options.publish),
        ROOT,
        # Sorts by time, and belongs to no other run.
        f"{datetime.datetime.now(datetime.UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}",
        failed=options.failed,
        python=os.environ.get("PIPELINE_PYTHON") or sys.executable,
        changed=say_change,
    )


def find_policy(settings: Settings, publish: bool) -> Policy:
    """What this machine may do, and what it cannot."""
    obstacles, ci = dict[str, Obstacle](), console.on_ci()
    try:
        engine.find_engine()
    except PipelineError as error:
        obstacle = Obstacle(error.message, error.remedy, fails=ci)
        obstacles |= dict.fromkeys(jobs.IMAGE_SESSIONS, obstacle)
    if not settings.gh_token and not ci:
        remedy = "Set GH_TOKEN to see what it would do."
        obstacles["cleanup"] = Obstacle("There is no token for GitHub.", remedy)
    push = publish or is_loopback(settings.registry)
    return Policy(publish, push, obstacles, platform.system())


def show_commands(runner: Runner, as_json: bool) -> None:
    """What would be run, by matrix job; nothing for what would not."""
    plans = decisions.decide(runner.graph, runner.event, runner.failed)
    commands: dict[str, list[str]] = {}
    for one in (state.matrix_job for state in all_states(runner)):
        planned = jobs.commands(one, runner.event, runner.policy, {}, {})
        runs_here = plans[one.job.name].run and one.obstacle is None
        commands[one.name] = [command.line() for command in planned] if runs_here else []
    if as_json:
        console.emit_json({"event": runner.event.to_json(), "commands": commands})
    else:
        for name, lines in commands.items():
            console.say(f"{name}: {'; '.join(lines) or 'not run'}")


def drop_stale(root: Path, event: Event) -> list[str]:
    """Before a release, remove the records of images of other versions; their names.

    On Actions every job begins with an empty ``dist/``. Here the release would find what
    an earlier run left there, as the production image is built at the same time.
    """
    dropped = []
    for image in images.IMAGES if event.tag is not None else ():
        # One that is missing or cannot be read is the release's to report.
        with contextlib.suppress(PipelineError):
            if images.read(image, root).version != str(parse_tag(event.tag or "").version):
                (images.folder(root) / f"{image}.json").unlink()
                dropped.append(f"{image}.json")
    return dropped


# -- while it runs ----------------------------------------------------------------------


def carry_out(runner: Runner, parallel: int) -> RunRecord:
    """Run, and record what became of it."""
    began = datetime.datetime.now(datetime.UTC)
    with live(runner):
        runner.run(parallel)
    ended, wheels = tuple(runner.records[n] for n in runner.states), new_files(runner, "*.whl")
    results = {job.result for job in ended}
    record = RunRecord(
        run=runner.name,
        began=f"{began:%Y-%m-%dT%H:%M:%SZ}",
        event=runner.event.to_json(),
        seconds=runner.elapsed(),
        result=next((one for one in (CANCELLED, FAILURE) if one in results), SUCCESS),
        parallel=parallel,
        jobs=ended,
        artifacts=tuple(
            ArtifactRecord(path.name, path.stat().st_size, files.sha256(path))
            for path in wheels
        ),
        images=tuple(
            images.read(path.stem, runner.root) for path in new_files(runner, "images/*.json")
        ),
    )
    runs.write(record, runner.root)
    return record


def new_files(runner: Runner, pattern: str) -> list[Path]:
    """Files in ``dist/`` that were written since the run began."""
    since = time.time() - runner.elapsed() - 1  # file times may be coarse
    paths = sorted((runner.root / "dist").glob(pattern))
    return [path for path in paths if path.stat().st_mtime >= since]


def all_states(runner: Runner) -> list[State]:
    """All matrix jobs, each after those it needs."""
    return [state for states in runner.states.values() for state in states]


def rows(runner: Runner) -> list[tuple[str, str, str, str]]:
    """The table as it is now."""
    lines = []
    for state in all_states(runner):
        one, now = state.record, runner.elapsed()
        seconds = now - one.started if one.result == RUNNING else one.seconds
        took = f"{seconds:.1f}" if one.log else ""
        lines.append((state.matrix_job.name, one.result, took, one.reason))
    return lines


def say_change(state: State) -> None:
    """A line for every beginning and end, where no terminal shows the table."""
    name, one = state.matrix_job.name, state.record
    took = f", {one.seconds:.1f} s" if one.log and one.result != RUNNING else ""
    if not console.is_terminal():
        console.say(f"{name}: {one.result}{took}{f' ({one.reason})' if one.reason else ''}")


@contextlib.contextmanager
def live(runner: Runner) -> Iterator[None]:
    """On a terminal, the table drawn anew while the run goes on."""
    if not console.is_terminal():
        yield
        return
    from rich.console import Console
    from rich.live import Live
    from rich.table import Table
    from rich.text import Text

    styles = {SUCCESS: "green", FAILURE: "bold red", RUNNING: "cyan"}

    def board() -> Table:
        drawn = Table(*HEADINGS, title=f"{runner.elapsed():.0f} s")
        for row in rows(runner):
            drawn.add_row(*(Text(cell, styles.get(row[1], "dim")) for cell in row))
        return drawn

    with Live(get_renderable=board, console=Console(stderr=True), transient=True):
        yield


# -- afterwards -------------------------------------------------------------------------


def show_result(runner: Runner, record: RunRecord) -> None:
    """The table, the critical path, logs of what failed, remedies of what was not run."""
    console.table(HEADINGS, rows(runner))
    if chain := critical_path(record.jobs):
        longest = sum(job.seconds for job in chain)
        path = " -> ".join(f"{job.name} {job.seconds:.1f} s" for job in chain)
        ratio = f"{longest:.1f} s of {record.seconds:.1f} s ({record.seconds / longest:.2f} x)"
        console.say(f"critical path: {ratio}: {path}")
    obstacles: set[Obstacle] = set()
    for state in all_states(runner):
        obstacle, one = state.matrix_job.obstacle, state.record
        if one.result == FAILURE and one.log:
            lines = (runner.root / one.log).read_text(encoding="utf-8").splitlines()
            console.say("\n  ".join([f"last lines of {one.log}:", *lines[-TAIL:]]))
        elif obstacle is not None and one.result in {NOT_RUN, FAILURE}:
            obstacles.add(obstacle)
    for obstacle in obstacles:
        console.say(f"not run: {obstacle.reason} {obstacle.remedy}")


main = cli.command("pipeline", "Run the jobs that plan says run, as CI would.", Options, work)


if __name__ == "__main__":
    sys.exit(main())
