"""``pipeline``: run the jobs that ``plan`` says run, on this machine, as CI would.

The same graph, conditions and sessions as in the workflow file. Nothing is pushed or
published unless ``--publish`` is given; a registry on the loopback range may be pushed to,
as nothing leaves the machine, so that images are tested by digest there.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import datetime
import json
import os
import platform
import secrets
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tools.core import cli, console, files
from tools.core.errors import PipelineError, UsageError
from tools.core.settings import ROOT, Settings, load
from tools.images import engine
from tools.images.record import ImageRecord
from tools.registry import manifest as oci
from tools.repo.event import Event
from tools.repo.versions import parse_tag
from tools.runs import record as run_record
from tools.runs.record import ArtifactRecord, RunRecord, critical_path
from tools.workflow import model as workflow
from tools.workflow import plan
from tools.workflow.decisions import CANCELLED, FAILURE, SUCCESS
from tools.workflow.jobs import Policy
from tools.workflow.model import Workflow
from tools.workflow.runner import NOT_RUN, RUNNING, WAITING, Runner, State
from tools.workflow.triggers import Trigger, not_triggered

TAIL = 20  # lines of a log that are shown for what failed


def find_policy(settings: Settings, publish: bool) -> Policy:
    """What this machine can do, and what it may."""
    problem = remedy = ""
    try:
        engine.find_engine()
    except PipelineError as error:
        problem, remedy = error.message, error.remedy
    return Policy(
        publish=publish,
        local_registry=oci.is_loopback(settings.registry),
        token=bool(settings.gh_token),
        engine=problem,
        remedy=remedy,
        ci=console.on_ci(),
        system=platform.system(),
    )


def widened(graph: Workflow, event: Event) -> Workflow:
    """The workflow as if it were triggered by a branch that it is not for.

    Somebody who runs the pipeline on a branch of their own wants to know what CI will
    say of it, which the branch alone would not start.
    """
    if not not_triggered(event, graph.triggers):
        return graph
    console.say(f"note: on GitHub nothing would run: {not_triggered(event, graph.triggers)}")
    others = tuple(t for t in graph.triggers if t.name != event.name)
    return Workflow(graph.path, (*others, Trigger(event.name, {})), graph.jobs)


# -- while it runs ----------------------------------------------------------------------


def _plain(runner: Callable[[], Runner]) -> Callable[[State], None]:
    """One line for every beginning and end."""

    def changed(state: State) -> None:
        if state.result == RUNNING:
            console.say(f"{state.leg.title}: started")
        elif state.result != WAITING:
            took = f", {state.ended - state.started:.1f} s" if state.log else ""
            why = f" ({state.reason})" if state.reason else ""
            console.say(f"{state.leg.title}: {state.result}{took}{why}")

    return changed


_STYLES = {SUCCESS: "green", FAILURE: "bold red", RUNNING: "cyan", CANCELLED: "yellow"}
_SIGNS = {SUCCESS: "✓", FAILURE: "✗", RUNNING: "▶", WAITING: "·", CANCELLED: "!"}


def board(runner: Runner) -> Any:
    """The live view: each leg, its state, its time."""
    from rich.table import Table
    from rich.text import Text

    drawn = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    for states in runner.states.values():
        for state in states:
            style = _STYLES.get(state.result, "dim")
            end = runner.elapsed() if state.result == RUNNING else state.ended
            took = f"{end - state.started:6.1f} s" if state.log else ""
            sign = _SIGNS.get(state.result, "-")
            drawn.add_row(
                Text(f"{sign} {state.leg.title}", style),
                Text(state.result, style),
                took,
                Text(state.reason, "dim", overflow="ellipsis", no_wrap=True),
            )
    drawn.add_row("", "", Text(f"{runner.elapsed():6.1f} s", "bold"), "")
    return drawn


@contextlib.contextmanager
def live(runner: Runner) -> Iterator[Callable[[], None]]:
    """A view that is drawn anew while the run goes on; what draws it is given."""
    from rich.console import Console
    from rich.live import Live

    with Live(board(runner), console=Console(stderr=True), refresh_per_second=4) as shown:
        yield lambda: shown.update(board(runner))
        shown.update(board(runner))


# -- afterwards -------------------------------------------------------------------------


def find_artifacts(root: Path, since: float) -> tuple[ArtifactRecord, ...]:
    """Wheels in ``dist/`` that were written after ``since`` (seconds since the epoch)."""
    return tuple(
        ArtifactRecord(path.name, path.stat().st_size, files.sha256(path))
        for path in sorted((root / "dist").glob("*.whl"))
        if path.stat().st_mtime >= since - 1
    )


def find_images(root: Path, since: float) -> tuple[ImageRecord, ...]:
    """Records of images in ``dist/images/`` that were written after ``since``."""
    records = []
    for path in sorted((root / "dist" / "images").glob("*.json")):
        if path.stat().st_mtime >= since - 1:
            with contextlib.suppress(PipelineError):
                records.append(files.read_json(path, ImageRecord))
    return tuple(records)


def show_result(record: RunRecord) -> None:
    """The table, the critical path, and the end of the log of whatever failed."""
    rows: list[tuple[str, ...]] = []
    for job in record.jobs:
        if not job.matrix_jobs:
            rows.append((job.name, job.result, "", job.reason))
        for leg in job.matrix_jobs:
            name = f"{job.name} ({leg.label})" if leg.label else job.name
            took = f"{leg.seconds:.1f}" if leg.log else ""
            rows.append((name, leg.result, took, leg.reason))
    console.say()
    console.table(("job", "result", "seconds", "why"), rows)
    chain = critical_path(record.jobs)
    longest = sum(job.seconds for job in chain)
    if longest:
        names = " -> ".join(f"{job.name} {job.seconds:.1f} s" for job in chain)
        ratio = record.seconds / longest
        console.say(
            f"critical path: {longest:.1f} s of {record.seconds:.1f} s ({ratio:.2f} x): {names}"
        )
    for job in record.jobs:
        for leg in job.matrix_jobs:
            if leg.result == FAILURE and leg.log:
                show_tail(leg.log)


def show_tail(log: str, root: Path = ROOT) -> None:
    """The last lines of a log, and where it is."""
    lines = (root / log).read_text(encoding="utf-8").splitlines()[-TAIL:]
    console.say(f"\nlast lines of {log}:")
    for line in lines:
        console.say(f"  {line}")


def show_remedies(runner: Runner) -> None:
    """What to do about jobs that this machine cannot run, each remedy once."""
    found: dict[str, list[str]] = {}
    for states in runner.states.values():
        for state in states:
            if state.leg.not_run and state.result in {NOT_RUN, FAILURE}:
                found.setdefault(
                    f"{state.leg.not_run.rstrip('.')}. {state.leg.remedy}", []
                ).append(state.leg.title)
    for text, titles in found.items():
        console.say(f"not run: {', '.join(titles)}: {text}")


def drop_stale(root: Path, event: Event) -> list[str]:
    """Before a release, remove the records of images of other versions; their names.

    On Actions every job begins with an empty ``dist/``. Here the release would find what
    an earlier run left there, as the production image is built at the same time.
    """
    if event.tag is None:
        return []
    version, found = str(parse_tag(event.tag).version), []
    for path in sorted((root / "dist" / "images").glob("*.json")):
        with contextlib.suppress(ValueError, AttributeError):
            if json.loads(path.read_text(encoding="utf-8")).get("version") != version:
                path.unlink()
                found.append(path.name)
    return found


def join_summaries(folder: Path) -> str:
    """What the sessions wrote for the step summary, one after another."""
    parts = [p.read_text(encoding="utf-8") for p in sorted(folder.glob("*.summary.md"))]
    whole = "".join(parts)
    (folder / "summary.md").write_text(whole, encoding="utf-8")
    return whole


# -- the command ------------------------------------------------------------------------


def show_commands(runner: Runner, made: plan.Plan) -> dict[str, list[str]]:
    """What would be run, by leg, without running it."""
    found: dict[str, list[str]] = {}
    for name, decision in made.decisions.items():
        for state in runner.states[name]:
            lines = [command.line() for command in runner.commands(state.leg, {})]
            wanted = decision.run and not state.leg.not_run
            found[state.leg.title] = lines if wanted else []
    return found


def new_name(now: datetime.datetime) -> str:
    """A name for a run that sorts by time and belongs to no other."""
    return f"{now:%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"


def _result(runner: Runner, interrupted: bool) -> str:
    if interrupted:
        return CANCELLED
    return FAILURE if FAILURE in runner.results.values() else SUCCESS


def carry_out(runner: Runner, name: str, parallel: int, watch: bool) -> tuple[RunRecord, bool]:
    """Run, record; the record, and whether it was interrupted."""
    began = datetime.datetime.now(datetime.UTC)
    since = time.time()
    interrupted = False
    view = live(runner) if watch else contextlib.nullcontext(lambda: None)
    try:
        with view as refresh:
            runner.run(parallel, refresh)
    except KeyboardInterrupt:
        interrupted = True
    record = RunRecord(
        run=name,
        began=f"{began:%Y-%m-%dT%H:%M:%SZ}",
        event=runner.event.to_json(),
        seconds=runner.elapsed(),
        result=_result(runner, interrupted),
        parallel=parallel,
        jobs=runner.records(),
        artifacts=find_artifacts(runner.root, since),
        images=find_images(runner.root, since),
    )
    run_record.write(record, runner.root)
    return record, interrupted


@dataclasses.dataclass(frozen=True)
class Options(plan.EventOptions):
    """The event, and how to run what it gives."""

    jobs: int
    publish: bool
    dry_run: bool
    json: bool


def make_runner(given: Options, name: str, watch: bool) -> tuple[Runner, plan.Plan]:
    """All that is decided before anything runs."""
    settings = load()
    made = plan.plan_of(given, os.environ)
    graph = workflow.load()
    if not plan.is_described(given) and not console.on_actions():
        graph = widened(graph, made.event)
        made = plan.make_plan(graph, made.event, settings, failed=given.failed)
    refusal = not_triggered(made.event, graph.triggers)
    if refusal:
        raise UsageError(f"Nothing to run: {refusal}.", "Give another --event or --ref.")
    # Where origin does not tell the repository, the images' name does.
    repository = made.event.repository or settings.image_name
    runner = Runner(
        graph,
        dataclasses.replace(made.event, repository=repository),
        find_policy(settings, given.publish),
        name,
        ROOT,
        failed=tuple(given.failed),
        python=os.environ.get("PIPELINE_PYTHON") or sys.executable,
        changed=(lambda state: None) if watch else _plain(lambda: runner),
    )
    return runner, made


def work(given: Options) -> int:
    """Run the pipeline."""
    watch = console.is_terminal() and not given.json
    name = new_name(datetime.datetime.now(datetime.UTC))
    runner, made = make_runner(given, name, watch)
    if given.dry_run:
        commands = show_commands(runner, made)
        if given.json:
            console.emit_json({"event": made.event.to_json(), "commands": commands})
        else:
            plan.show(made)
            for title, lines in commands.items():
                console.say(f"{title}: {'; '.join(lines) or 'not run'}")
        return 0
    console.say(f"{made.event.name} of {made.event.ref}, logs in {run_record.FOLDER / name}")
    for stale in drop_stale(ROOT, made.event):
        console.say(f"removed dist/images/{stale}, which is of another version")
    record, interrupted = carry_out(runner, name, given.jobs, watch)
    show_result(record)
    show_remedies(runner)
    console.step_summary(join_summaries(runner.folder))
    if given.json:
        console.emit_json(record.to_json())
    if interrupted:
        raise KeyboardInterrupt
    return 0 if record.result == SUCCESS else 1


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError("give a whole number of at least 1")
    return int(text)


def main(arguments: Sequence[str] | None = None) -> int:
    """``python -m tools.workflow.local``."""
    made = cli.parser("pipeline", "Run the jobs that plan says run, as CI would.")
    plan.add_event_options(made)
    default = max(2, os.cpu_count() or 2)
    made.add_argument(
        "-j", "--jobs", type=_count, default=default, help=f"at the same time ({default})"
    )
    made.add_argument(
        "--publish", action="store_true", help="really push, release and delete, as CI does"
    )
    made.add_argument("--dry-run", action="store_true", help="show the commands, run nothing")
    made.add_argument("--json", action="store_true", help="the record of the run on stdout")
    return cli.main(made, Options, work, arguments)


if __name__ == "__main__":
    sys.exit(main())
