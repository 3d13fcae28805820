"""Carries out the jobs in the graph's order, as many at a time as allowed.

Each command is a nox of its own, whose output is a log. Threads wait for them; one loop
decides, with the same conditions as Actions, what comes next.
"""

from __future__ import annotations

import graphlib
import os
import re
import sys
import threading
import time
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from pathlib import Path

from tools.core import files, process
from tools.core.secrets import redact
from tools.repo.event import Event
from tools.runs.record import FOLDER, JobRecord, MatrixJobRecord
from tools.workflow import decisions, jobs
from tools.workflow.decisions import CANCELLED, FAILURE, SKIPPED, SUCCESS
from tools.workflow.jobs import Command, MatrixJob, Policy
from tools.workflow.model import Workflow

WAITING, RUNNING, NOT_RUN = "waiting", "running", "not run"
# Of the results of a matrix, the first of these is the job's.
WORST_FIRST = (CANCELLED, FAILURE, SUCCESS, NOT_RUN, SKIPPED)
# Seconds that a session has to clean up after itself: it ends containers and logins.
GRACE = 30.0
# Where nothing is published, secrets that publish are not even handed on.
PUBLISHING_SECRETS = frozenset(
    {"DOCKER_HUB_USERNAME", "DOCKER_HUB_TOKEN", "SLACK_WEBHOOK_URL", "CODECOV_TOKEN"}
)
# What nox says to this session alone, and colours, which are not for a log.
OWN_VARIABLES = frozenset(
    {"VIRTUAL_ENV", "MLC_IN_ORDER", "NOX_CURRENT_SESSION", "PIPELINE_PYTHON", "FORCE_COLOR"}
)


@dataclass
class State:
    """What is known of a matrix job while the run goes on."""

    matrix_job: MatrixJob
    record: MatrixJobRecord
    outputs: dict[str, str] = field(default_factory=dict)


def parse_outputs(text: str) -> dict[str, str]:
    """What a session wrote to ``GITHUB_OUTPUT``, in both of its forms.

    Source: "Workflow commands for GitHub Actions", setting an output parameter.
    """
    form = re.compile(r"^([^=<\n]+)(?:=(.*)|<<(.+)\n((?s:.*?))\n?^\3$)", re.MULTILINE)
    return {m[1]: m[2] if m[3] is None else m[4] for m in form.finditer(text)}


@dataclass
class Runner:
    """Runs the jobs of a workflow; ``records`` says what became of them.

    Attributes:
        graph: The workflow.
        event: What triggers it.
        policy: What this machine may do, and what it cannot.
        root: The checkout.
        name: Name of the run, which is its folder's.
        failed: Jobs that are supposed to fail, and are not run.
        python: The interpreter that has nox.
        changed: Called when a matrix job begins and ends, from several threads.
    """

    graph: Workflow
    event: Event
    policy: Policy
    root: Path
    name: str
    failed: Collection[str] = ()
    python: str = sys.executable
    changed: Callable[[State], None] = lambda state: None

    def __post_init__(self) -> None:
        """Begin the clock; nothing runs yet."""
        self.folder = self.root / FOLDER / self.name
        self.began = time.monotonic()
        self.interrupted = threading.Event()
        self.records: dict[str, JobRecord] = {}
        self.reasons: dict[str, str] = {}
        self.outputs: dict[str, dict[str, str]] = {}
        self.states: dict[str, list[State]] = {}
        for name in self.graph.order():
            ones = jobs.matrix_jobs(self.graph.jobs[name], self.policy)
            self.states[name] = [State(o, MatrixJobRecord(o.label, WAITING)) for o in ones]

    def elapsed(self) -> float:
        """Seconds since the run began."""
        return time.monotonic() - self.began

    def run(self, parallel: int) -> None:
        """Run everything, at most ``parallel`` matrix jobs at the same time.

        After Ctrl-C all children are ended, and what has not ended by itself is cancelled.
        """
        payload = decisions.github_context(self.event)["event"]
        files.write_json(self.folder / "event.json", payload)
        with ThreadPoolExecutor(parallel) as pool:
            try:
                self._run_graph(pool)
            except KeyboardInterrupt:
                self._stop()
        for name in self.states.keys() - self.records:
            for state in self.states[name]:
                if state.record.result == WAITING:
                    self._change(state, CANCELLED, "interrupted")
            self._end(name)

    def _run_graph(self, pool: ThreadPoolExecutor) -> None:
        """Begin every job when those it needs have ended, until none is left."""
        waiting = graphlib.TopologicalSorter({n: j.needs for n, j in self.graph.jobs.items()})
        waiting.prepare()
        running: dict[Future[None], str] = {}
        while waiting.is_active():
            ready = waiting.get_ready()
            for name in ready:
                for state in self._begin(name):
                    running[pool.submit(self._run, state)] = name
            # Windows delivers Ctrl-C only between two waits.
            timeout = 0 if ready else 0.5
            ended = wait(running, timeout, return_when=FIRST_COMPLETED).done
            names = {running.pop(future) for future in ended}.union(ready)
            for name in names - set(running.values()):
                self._end(name)
                waiting.done(name)

    def _stop(self) -> None:
        """End all children; one that is only just being started, in the next round."""
        self.interrupted.set()
        while any(s.record.result == RUNNING for ones in self.states.values() for s in ones):
            process.end_all(GRACE)
            time.sleep(0.05)

    def _begin(self, name: str) -> list[State]:
        """Decide about a job whose needs have ended; what of it is to run."""
        # What this machine cannot run is left to CI, and does not keep it from the rest.
        needs = {n: r.result.replace(NOT_RUN, SUCCESS) for n, r in self.records.items()}
        run, self.reasons[name] = decisions.decide_job(
            self.graph, self.graph.jobs[name], self.event, needs, outputs=self.outputs
        )
        for state in self.states[name]:
            obstacle = state.matrix_job.obstacle
            if not run:
                self._change(state, SKIPPED, self.reasons[name])
            elif name in self.failed:
                self._change(state, FAILURE, "supposed to fail (--failed)")
            elif obstacle is not None:
                self._change(state, FAILURE if obstacle.fails else NOT_RUN, obstacle.reason)
        return [state for state in self.states[name] if state.record.result == WAITING]

    def _change(self, state: State, result: str, reason: str = "") -> None:
        took = self.elapsed() - state.record.started if state.record.log else 0.0
        state.record = replace(state.record, result=result, reason=reason, seconds=took)
        self.changed(state)

    def _run(self, state: State) -> None:
        """Run a matrix job, in a thread of its own."""
        if self.interrupted.is_set():
            return
        log = (self.folder / f"{state.matrix_job.name}.log").relative_to(self.root)
        state.record = replace(state.record, started=self.elapsed(), log=log.as_posix())
        self._change(state, RUNNING)
        try:
            problem = self._run_commands(state)
        except Exception as error:  # an error in a thread must not pass for success
            problem = redact(f"{type(error).__name__}: {error}")
        if problem and self.interrupted.is_set():
            self._change(state, CANCELLED, "interrupted")
        else:
            self._change(state, FAILURE if problem else SUCCESS, problem)

    def _run_commands(self, state: State) -> str:
        """Run its commands until one fails; what went wrong, empty for nothing."""
        one, steps = state.matrix_job, dict[str, dict[str, str]]()
        for command in jobs.commands(one, self.event, self.policy, self.outputs, steps):
            if self.interrupted.is_set():
                return "interrupted"
            if code := self._run_command(command, state):
                return f"{command.line()} ended with exit code {code}"
            steps[command.step] = dict(state.outputs)
        return ""

    def _run_command(self, command: Command, state: State) -> int:
        """Run one command into the log; its exit code."""
        output = self.folder / f"{state.matrix_job.name}.output"
        output.write_bytes(b"")
        env = self.environment(os.environ) | {"GITHUB_OUTPUT": str(output)}
        line = [self.python, "-m", "nox", "--no-dependencies", *command.words]
        # Unbuffered, a line is a write: the two streams come from two threads.
        with (self.root / state.record.log).open("ab", buffering=0) as log:

            def show(text: str) -> None:
                log.write(f"{text}\n".encode())

            show(redact(f"$ {command.line()}"))
            done = process.stream(line, env=env, check=False, show=show, keep=1)
        state.outputs |= parse_outputs(output.read_text(encoding="utf-8"))
        return done.code

    def environment(self, ours: Mapping[str, str]) -> dict[str, str]:
        """The children's environment: ours and the event, without secrets that publish."""
        dropped = OWN_VARIABLES | (frozenset() if self.policy.publish else PUBLISHING_SECRETS)
        env = {key: value for key, value in ours.items() if key not in dropped}
        if own := ours.get("VIRTUAL_ENV"):  # the environment of this session is not the jobs'
            paths = env.get("PATH", "").split(os.pathsep)
            env["PATH"] = os.pathsep.join(path for path in paths if not path.startswith(own))
        event = self.event
        return env | {
            "NO_COLOR": "1",
            "PYTHONUNBUFFERED": "1",
            "GITHUB_EVENT_NAME": event.name,
            "GITHUB_REF": event.ref,
            "GITHUB_SHA": event.sha,
            "GITHUB_REPOSITORY": event.repository,
            "GITHUB_HEAD_REF": event.head_ref,
            "GITHUB_BASE_REF": event.base_ref,
            "GITHUB_EVENT_PATH": str(self.folder / "event.json"),
        }

    def _end(self, name: str) -> None:
        """The record and the outputs of a job whose matrix jobs have all ended."""
        states, needs = self.states[name], self.graph.jobs[name].needs
        ones = tuple(state.record for state in states)
        results = {one.result for one in ones}
        result = next(result for result in WORST_FIRST if result in results)
        reasons = [one.reason for one in ones if one.result == FAILURE]
        reason = reasons[0] if reasons else self.reasons.get(name, "")
        ran = () if result == SKIPPED else ones
        self.records[name] = JobRecord(name, needs, result, reason, ran)
        self.outputs[name] = {k: v for state in states for k, v in state.outputs.items()}
