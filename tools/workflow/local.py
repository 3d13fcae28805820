"""``pipeline``: run the jobs that ``plan`` says run, on this machine, as CI would.

The same graph, conditions and sessions as in the workflow file. Nothing is pushed or
published unless ``--publish`` is given; a registry on the loopback range may be pushed to,
as nothing leaves the machine, so that images are tested by digest there.
"""

import dataclasses
import datetime
import os
import secrets
import sys
import time
from pathlib import Path

from tools.core import cli, console, files, process
from tools.core.errors import PipelineError, UsageError
from tools.core.settings import ROOT, Settings, load
from tools.images import engine
from tools.images import record as images
from tools.registry.manifest import is_loopback
from tools.runs import record as runs
from tools.runs.record import ArtifactRecord, RunRecord, critical_path
from tools.workflow import changes, contexts, decisions, jobs, model, plan
from tools.workflow.decisions import CANCELLED, FAILURE, SUCCESS
from tools.workflow.runner import NOT_RUN, Runner
from tools.workflow.triggers import Trigger, not_triggered

TAIL = 20  # lines of a log that are shown for what failed
JOBS = max(2, os.cpu_count() or 2)
EXIT_CODES = {SUCCESS: 0, FAILURE: 1, CANCELLED: 130}


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
    with console.step(f"{title}, logs in {runner.folder.relative_to(ROOT).as_posix()}"):
        record = carry_out(runner, options.jobs)
    show_result(runner, record)
    if options.json:
        console.emit_json(record.to_json())
    return EXIT_CODES[record.result]


def create_runner(options: Options) -> Runner:
    """All that is decided before anything runs."""
    graph = model.load()
    event = changes.find(plan.find_event(options, os.environ), graph.triggers, ROOT)
    if refusal := not_triggered(event, graph.triggers):
        if options.describe_an_event or console.on_actions():
            raise UsageError(f"Nothing to run: {refusal}.", "Give another --event or --ref.")
        # Somebody who works on a branch of their own wants to know what CI will say of it.
        console.say(f"note: on GitHub nothing would run: {refusal}")
        graph = dataclasses.replace(graph, triggers=(Trigger(event.name, {}),))
    settings = load(contexts.variables(graph, event, os.environ))
    # Where origin does not name the repository, the images' name does.
    event = dataclasses.replace(event, repository=event.repository or settings.image_name)
    decided = decisions.decide(graph, event, options.failed)
    graph = dataclasses.replace(graph, jobs={n: one.job for n, one in decided.items()})
    policy = jobs.Policy(
        publish=options.publish,
        push=options.publish or is_loopback(settings.registry),
        # In CI nothing is left out: a session that cannot run there fails.
        obstacles={} if console.on_ci() else find_obstacles(settings),
    )
    # Sorts by time, and belongs to no other run.
    name = f"{datetime.datetime.now(datetime.UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"
    runner = Runner(graph, event, policy, ROOT, name, options.failed)
    planned_commands(runner)  # what is not understood is refused before anything runs
    return runner


def find_obstacles(settings: Settings) -> dict[str, PipelineError]:
    """Which sessions cannot be run on this machine, and why."""
    obstacles: dict[str, PipelineError] = {}
    try:
        engine.find_engine()
    except PipelineError as error:
        obstacles = dict.fromkeys(("docker_dev", "docker_test", "prod_image"), error)
    if not settings.gh_token:
        remedy = "Set GH_TOKEN to see what it would do."
        obstacles["cleanup"] = PipelineError("There is no token for GitHub.", remedy)
    return obstacles


def planned_commands(runner: Runner) -> dict[str, list[str]]:
    """What would be run, by matrix job; nothing for what would not (UsageError: a step is not
    understood).
    """
    plans = decisions.decide(runner.graph, runner.event, runner.failed)
    results = {name: one.result for name, one in plans.items()}
    commands: dict[str, list[str]] = {}
    for one in runner.all_matrix_jobs():
        commands[one.name] = []
        runs_here = plans[one.job.name].run and one.job.name not in runner.failed
        if runs_here and one.obstacle is None:
            names = contexts.of_job(runner.graph, one.job, runner.event, results, {})
            found = jobs.job_commands(runner.graph, one, names, runner.policy)
            commands[one.name] = [process.display(command.words) for command in found]
    return commands


def show_commands(runner: Runner, as_json: bool) -> None:
    """What would be run."""
    commands = planned_commands(runner)
    for name, lines in commands.items():
        console.say(f"{name}: {'; '.join(lines) or 'not run'}")
    if as_json:
        console.emit_json({"event": runner.event.to_json(), "commands": commands})


def carry_out(runner: Runner, parallel: int) -> RunRecord:
    """Run, and record what became of it."""
    if runner.event.tag is not None:
        # On Actions the release sees no record of the image that is built beside it; here
        # it would find that of an earlier run.
        (images.folder(runner.root) / "production.json").unlink(missing_ok=True)
    began = datetime.datetime.now(datetime.UTC)
    runner.run(parallel)

    def written(pattern: str) -> list[Path]:
        """Files in ``dist/`` that were written since the run began."""
        since = time.time() - runner.elapsed() - 1  # file times may be coarse
        paths = sorted((runner.root / "dist").glob(pattern))
        return [path for path in paths if path.stat().st_mtime >= since]

    wheels = [(path, path.stat().st_size, files.sha256(path)) for path in written("*.whl")]
    results = {job.result for job in runner.records.values()}
    record = RunRecord(
        run=runner.name,
        began=f"{began:%Y-%m-%dT%H:%M:%SZ}",
        event=runner.event.to_json(),
        seconds=runner.elapsed(),
        result=next((one for one in (CANCELLED, FAILURE) if one in results), SUCCESS),
        parallel=parallel,
        jobs=tuple(runner.records[name] for name in runner.matrix_jobs),
        artifacts=tuple(ArtifactRecord(path.name, size, sha) for path, size, sha in wheels),
        images=tuple(images.read(p.stem, runner.root) for p in written("images/*.json")),
    )
    runs.write(record, runner.root)
    return record


def show_result(runner: Runner, record: RunRecord) -> None:
    """The table, the critical path, logs of what failed, remedies of what was not run."""
    ones = runner.all_matrix_jobs()
    rows = [(one.name, one.record) for one in ones]
    console.table(
        ("job", "result", "seconds", "why"),
        [(n, r.result, f"{r.seconds:.1f}" if r.log else "", r.reason) for n, r in rows],
    )
    if chain := critical_path(record.jobs):
        longest = sum(job.seconds for job in chain)
        path = " -> ".join(f"{job.name} {job.seconds:.1f} s" for job in chain)
        ratio = f"{longest:.1f} s of {record.seconds:.1f} s ({record.seconds / longest:.2f} x)"
        console.say(f"critical path: {ratio}: {path}")
    for one in ones:
        if one.record.result == FAILURE and one.record.log:
            lines = (runner.root / one.record.log).read_text(encoding="utf-8").splitlines()
            console.say("\n  ".join([f"last lines of {one.record.log}:", *lines[-TAIL:]]))
    for obstacle in {one.obstacle for one in ones if one.record.result == NOT_RUN}:
        console.say(f"not run: {obstacle}")


main = cli.command("pipeline", "Run the jobs that plan says run, as CI would.", Options, work)


if __name__ == "__main__":
    sys.exit(main())
