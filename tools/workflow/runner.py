"""Carries out a pipeline: jobs in the graph's order, as many at a time as allowed.

Each command is a nox of its own. Threads wait for them; one loop decides, with the same
conditions as Actions, what comes next.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path

from tools.core.secrets import redact
from tools.repo.event import Event
from tools.runs.record import FOLDER, JobRecord, MatrixJobRecord
from tools.workflow import decisions
from tools.workflow.decisions import CANCELLED, FAILURE, SKIPPED, SUCCESS
from tools.workflow.jobs import (
    PUBLISHING_SECRETS,
    Command,
    Leg,
    Policy,
    command_of,
    is_repeated,
    legs_of,
    runs_here,
    step_scope,
)
from tools.workflow.model import Job, Workflow

NOT_RUN = "not run"
WAITING, RUNNING = "waiting", "running"
# How long a child may take to clean up after itself: it ends containers and logins.
GRACE = 30.0


class Children:
    """The processes that run, each the head of a group, ended together."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: set[subprocess.Popen[str]] = set()
        self.stopped = False

    @contextlib.contextmanager
    def started(
        self, command: list[str], env: Mapping[str, str]
    ) -> Iterator[subprocess.Popen[str]]:
        """Start a child that is ended with the others."""
        with self._lock:
            if self.stopped:
                raise InterruptedError
            child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                encoding="utf-8",
                errors="replace",
                env=dict(env),
                start_new_session=sys.platform != "win32",
            )
            self._running.add(child)
        try:
            yield child
        finally:
            child.wait()
            if child.stdout is not None:
                child.stdout.close()
            with self._lock:
                self._running.discard(child)

    def stop(self) -> None:
        """End all, politely, then not; returns when none is left."""
        with self._lock:
            self.stopped = True
            running = list(self._running)
        for polite in (True, False):
            for child in running:
                _signal(child, polite)
            until = time.monotonic() + GRACE
            while any(map(_alive, running)) and time.monotonic() < until:
                time.sleep(0.05)


def _signal(child: subprocess.Popen[str], polite: bool) -> None:
    if sys.platform == "win32":
        child.terminate()
        return
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGTERM if polite else signal.SIGKILL)


def _alive(child: subprocess.Popen[str]) -> bool:
    """Whether anybody of a child's group is left: nox ends before what it started."""
    if child.poll() is None:
        return True
    if sys.platform == "win32":
        return False
    try:
        os.killpg(child.pid, 0)
    except (ProcessLookupError, PermissionError):
        return False
    return True


@dataclass
class State:
    """What is known of a leg while the run goes on."""

    leg: Leg
    result: str = WAITING
    started: float = 0.0
    ended: float = 0.0
    reason: str = ""
    log: str = ""
    outputs: dict[str, str] = field(default_factory=dict)

    def record(self) -> MatrixJobRecord:
        """The leg as it is recorded."""
        seconds = max(0.0, self.ended - self.started)
        return MatrixJobRecord(
            self.leg.label, self.result, self.started, seconds, self.reason, self.log
        )


def parse_outputs(text: str) -> dict[str, str]:
    """What a session wrote to ``GITHUB_OUTPUT``.

    Source: "Workflow commands for GitHub Actions", setting an output parameter.
    """
    found: dict[str, str] = {}
    lines = iter(text.splitlines())
    for line in lines:
        name, mark, end = line.partition("<<")
        if mark and "=" not in name:
            value = []
            for part in lines:
                if part == end:
                    break
                value.append(part)
            found[name] = "\n".join(value)
        elif "=" in line:
            name, _, one = line.partition("=")
            found[name] = one
    return found


class Runner:
    """Runs the jobs of a workflow.

    Args:
        graph: The workflow.
        event: What triggers it.
        policy: What this machine can do, and what it may.
        name: Name of the run.
        root: The checkout.
        failed: Jobs that are supposed to fail, and are not run.
        python: The interpreter that has nox.
        changed: Called when a leg's state changes.
    """

    def __init__(
        self,
        graph: Workflow,
        event: Event,
        policy: Policy,
        name: str,
        root: Path,
        *,
        failed: tuple[str, ...] = (),
        python: str = sys.executable,
        changed: Callable[[State], None] = lambda state: None,
    ) -> None:
        self.graph = graph
        self.event = event
        self.policy = policy
        self.root = root
        self.folder = root / FOLDER / name
        self.states = {
            job: [State(leg) for leg in legs_of(graph.jobs[job], policy)] for job in graph.jobs
        }
        self.results: dict[str, str] = {}
        self.reasons: dict[str, str] = {}
        self.outputs: dict[str, dict[str, str]] = {}
        self.children = Children()
        self._failed = failed
        self._python = python
        self._changed = changed
        self._began = time.monotonic()

    # -- one leg --

    def elapsed(self) -> float:
        """Seconds since the run began."""
        return time.monotonic() - self._began

    def _environment(self, output: Path, summary: Path) -> dict[str, str]:
        """The children's environment: the event, and no secret that publishes."""
        env = dict(os.environ)
        prefix = env.pop("VIRTUAL_ENV", "")
        if prefix:  # the pipeline's own environment is not the jobs'
            parts = env.get("PATH", "").split(os.pathsep)
            own = str(Path(prefix))
            env["PATH"] = os.pathsep.join(p for p in parts if not p.startswith(own))
        for name in ("MLC_IN_ORDER", "NOX_CURRENT_SESSION", "PIPELINE_PYTHON", "FORCE_COLOR"):
            env.pop(name, None)
        if not self.policy.publish:
            for name in PUBLISHING_SECRETS:
                env.pop(name, None)
        event = self.event
        env |= {
            "NO_COLOR": "1",
            "PYTHONUNBUFFERED": "1",
            "GITHUB_EVENT_NAME": event.name,
            "GITHUB_REF": event.ref,
            "GITHUB_SHA": event.sha,
            "GITHUB_HEAD_REF": event.head_ref,
            "GITHUB_BASE_REF": event.base_ref,
            "GITHUB_EVENT_PATH": str(self.folder / "event.json"),
            "GITHUB_OUTPUT": str(output),
            "GITHUB_STEP_SUMMARY": str(summary),
        }
        if event.repository:
            env["GITHUB_REPOSITORY"] = event.repository
        return env

    def _run_command(self, command: Command, state: State, log: Path) -> int:
        """Run one command into the log; its exit code."""
        output = self.folder / f"{state.leg.file_name}.output"
        output.write_text("", encoding="utf-8")
        env = self._environment(output, self.folder / f"{state.leg.file_name}.summary.md")
        line = [self._python, "-m", "nox", "--no-dependencies", "-s", command.session]
        line += ["--", *command.arguments] if command.arguments else []
        with log.open("a", encoding="utf-8") as handle:
            handle.write(f"$ {redact(command.line())}\n")
            with self.children.started(line, env) as child:
                assert child.stdout is not None
                for text in child.stdout:
                    handle.write(redact(text))
                    handle.flush()
        state.outputs |= parse_outputs(output.read_text(encoding="utf-8"))
        return int(child.returncode)

    def commands(self, leg: Leg, steps: Mapping[str, Mapping[str, str]]) -> Iterator[Command]:
        """The commands of a leg, each made when the ones before have run.

        Args:
            leg: The leg.
            steps: Outputs of its steps by id, filled in as it goes on.
        """
        before: list[Command] = []
        for step in leg.job.steps:
            scope = step_scope(leg, self.event, self.outputs, steps)
            if not runs_here(step, scope):
                continue
            command = command_of(step, scope, self.policy)
            if not is_repeated(command, before):
                before.append(command)
                yield command

    def _run_leg(self, state: State) -> State:
        """Run all commands of a leg, until one fails."""
        state.started = state.ended = self.elapsed()
        state.result = RUNNING
        log = self.folder / f"{state.leg.file_name}.log"
        state.log = str(log.relative_to(self.root))
        log.write_text("", encoding="utf-8")
        self._changed(state)
        steps: dict[str, dict[str, str]] = {}
        result = SUCCESS
        try:
            for command in self.commands(state.leg, steps):
                code = self._run_command(command, state, log)
                steps[command.ident] = dict(state.outputs)
                if code:
                    result = FAILURE
                    state.reason = f"{command.line()} ended with exit code {code}"
                    break
        except InterruptedError:
            result = CANCELLED
        except Exception as error:
            # A thread's error must not pass for success, nor hide from the person.
            result, state.reason = FAILURE, f"{type(error).__name__}: {redact(str(error))}"
        state.ended = self.elapsed()
        state.result = CANCELLED if self.children.stopped and result == FAILURE else result
        self._changed(state)
        return state

    # -- the graph --

    def _begin(self, job: Job) -> list[State]:
        """Decide about a job whose needs have ended; its legs that are to run."""
        run, self.reasons[job.name] = decisions.decide_job(
            self.graph, job, self.event, self._results_of_needs(), outputs=self.outputs
        )
        states = self.states[job.name]
        if not run:
            self._set_all(states, SKIPPED, self.reasons[job.name])
            return []
        if job.name in self._failed:
            self._set_all(states, FAILURE, "supposed to fail (--failed)")
            return []
        for state in states:
            if state.leg.not_run:
                state.result = FAILURE if self._must_run(state) else NOT_RUN
                state.reason = state.leg.not_run
                self._changed(state)
        return [state for state in states if state.result == WAITING]

    def _must_run(self, state: State) -> bool:
        # In CI an image job without an engine is a failure; another system's leg is not.
        return self.policy.ci and state.leg.not_run == self.policy.engine

    def _set_all(self, states: list[State], result: str, reason: str) -> None:
        for state in states:
            state.result, state.reason = result, reason
            self._changed(state)

    def _results_of_needs(self) -> dict[str, str]:
        """Results as the conditions see them: what this machine cannot run is left to CI,
        and does not keep it from the rest."""
        return {n: SUCCESS if r == NOT_RUN else r for n, r in self.results.items()}

    def _end(self, job: Job) -> None:
        """All legs of a job have ended: its result, outputs and log."""
        states = self.states[job.name]
        found = {state.result for state in states}
        order = (CANCELLED, FAILURE, SUCCESS, NOT_RUN, SKIPPED)
        self.results[job.name] = next(result for result in order if result in found)
        self.outputs[job.name] = {k: v for s in states for k, v in s.outputs.items()}
        logs = [state for state in states if state.log]
        if logs and (len(logs) > 1 or logs[0].leg.label):
            # One log a job, however many legs it has.
            whole = self.folder / f"{job.name}.log"
            parts = [(self.root / s.log).read_text(encoding="utf-8") for s in logs]
            titled = [f"=== {s.leg.title}\n{t}" for s, t in zip(logs, parts, strict=True)]
            whole.write_text("".join(titled), encoding="utf-8")

    def run(self, parallel: int, refresh: Callable[[], None] = lambda: None) -> None:
        """Run everything; afterwards ``results`` and ``states`` tell what became of it.

        Args:
            parallel: How many legs may run at the same time.
            refresh: Called several times a second.

        Raises:
            KeyboardInterrupt: Interrupted; all children have been ended.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        payload = json.dumps(decisions.github_context(self.event)["event"])
        (self.folder / "event.json").write_text(payload, encoding="utf-8")
        waiting = list(self.graph.order())
        running: dict[Future[State], str] = {}
        with ThreadPoolExecutor(max_workers=parallel) as pool:
            try:
                while waiting or running:
                    self._start_ready(waiting, running, pool)
                    if running:
                        done, _ = wait(running, timeout=0.2, return_when=FIRST_COMPLETED)
                        ended = {running.pop(future) for future in done}
                        for name in ended - set(running.values()):
                            self._end(self.graph.jobs[name])
                    refresh()
            except KeyboardInterrupt:
                self.children.stop()
                pool.shutdown(cancel_futures=True)
                self._cancel_rest()
                raise

    def _start_ready(
        self, waiting: list[str], running: dict[Future[State], str], pool: ThreadPoolExecutor
    ) -> None:
        """Start every job whose needs have ended; what has nothing to run ends at once."""
        for name in list(waiting):
            job = self.graph.jobs[name]
            if not all(other in self.results for other in job.needs):
                continue
            waiting.remove(name)
            states = self._begin(job)
            for state in states:
                running[pool.submit(self._run_leg, state)] = name
            if not states:
                self._end(job)

    def _cancel_rest(self) -> None:
        for name, states in self.states.items():
            for state in states:
                if state.result in {WAITING, RUNNING}:
                    state.result, state.reason = CANCELLED, "interrupted"
            if name not in self.results:
                self._end(self.graph.jobs[name])

    def records(self) -> tuple[JobRecord, ...]:
        """The jobs as they are recorded, each after those it needs."""
        found = []
        for name in self.graph.order():
            job, states = self.graph.jobs[name], self.states[name]
            legs = tuple(s.record() for s in states) if self.results[name] != SKIPPED else ()
            log = self.folder / f"{name}.log"
            where = str(log.relative_to(self.root)) if log.exists() else ""
            failed = [s.reason for s in states if s.result == FAILURE and s.reason]
            reason = failed[0] if failed else self.reasons.get(name, "")
            found.append(JobRecord(name, job.needs, self.results[name], reason, where, legs))
        return tuple(found)
