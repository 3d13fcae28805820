"""Carries out the jobs in the graph's order, as many at a time as allowed.

Each command is a nox of its own, whose output is a log. Threads wait for them; one loop
decides, with the same conditions as Actions, what comes next.
"""

import contextlib
import graphlib
import os
import re
import sys
import threading
import time
from collections.abc import Collection, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

from tools.core import console, files, process
from tools.core.errors import PipelineError, UsageError
from tools.core.secrets import redact
from tools.core.settings import SECRET_VARIABLES
from tools.repo.event import Event
from tools.runs.record import FOLDER, JobRecord
from tools.workflow import contexts, decisions, jobs
from tools.workflow.contexts import Outputs
from tools.workflow.decisions import CANCELLED, FAILURE, SKIPPED, SUCCESS
from tools.workflow.jobs import WAITING, MatrixJob, Policy
from tools.workflow.model import Job, Workflow
from tools.workflow.values import Value

RUNNING, NOT_RUN = "running", "not run"
# Of the results of a matrix, the first of these is the job's.
WORST_FIRST = (CANCELLED, FAILURE, SUCCESS, NOT_RUN, SKIPPED)
# Seconds that a session has to clean up after itself: it ends containers and logins.
GRACE = 30.0
# Where nothing is published, secrets that publish are not even handed on.
PUBLISHING_SECRETS = SECRET_VARIABLES - {"GH_TOKEN", "MLC_GH_TOKEN"}
# What nox says to this session alone, and colours, which are not for a log.
OWN_VARIABLES = frozenset(
    {"VIRTUAL_ENV", "MLC_IN_ORDER", "NOX_CURRENT_SESSION", "PIPELINE_PYTHON", "FORCE_COLOR"}
)


def _change(one: MatrixJob, result: str, reason: str = "") -> None:
    """Another result, which is said."""
    one.record.result, one.record.reason = result, reason
    took = f", {one.record.seconds:.1f} s" if one.record.seconds else ""
    console.say(f"{one.name}: {result}{took}{f' ({reason})' if reason else ''}")


def parse_outputs(text: str) -> dict[str, str]:
    """What a session wrote to ``GITHUB_OUTPUT``, in both forms of "Workflow commands"."""
    form = re.compile(r"^([^=<\n]+)(?:=(.*)|<<(.+)\n((?s:.*?))\n?^\3$)", re.MULTILINE)
    return {m[1]: m[2] if m[3] is None else m[4] for m in form.finditer(text)}


@dataclass
class Runner:
    """Runs the jobs of a workflow; ``records`` says what became of them."""

    graph: Workflow
    event: Event
    policy: Policy
    root: Path  # the checkout
    name: str  # of the run, which is its folder's
    failed: Collection[str] = ()  # jobs that are supposed to fail, and are not run

    def __post_init__(self) -> None:
        """Begin the clock; nothing runs yet."""
        self.folder = self.root / FOLDER / self.name
        self.began = time.monotonic()
        self.interrupted = threading.Event()
        self.records: dict[str, JobRecord] = {}
        self.reasons: dict[str, str] = {}
        self.outputs: dict[str, dict[str, str]] = {}
        self.matrix_jobs = {
            name: list(jobs.matrix_jobs(job, self.policy, self.names(job, None)))
            for name, job in ((name, self.graph.jobs[name]) for name in self.graph.order())
        }

    def names(self, job: Job, outputs: Outputs | None) -> dict[str, Value]:
        """What a job's keys can refer to."""
        return contexts.of_job(self.graph, job, self.event, self.results(), outputs)

    def results(self) -> dict[str, str]:
        """The results of the jobs that have ended. What this machine cannot run is left to
        CI, and does not keep it from the rest.
        """
        records = list(self.records.items())  # at once: jobs end while others ask
        return {name: one.result.replace(NOT_RUN, SUCCESS) for name, one in records}

    def all_matrix_jobs(self) -> list[MatrixJob]:
        """Each after those it needs."""
        return [one for ones in self.matrix_jobs.values() for one in ones]

    def elapsed(self) -> float:
        """Seconds since the run began."""
        return time.monotonic() - self.began

    def run(self, parallel: int) -> None:
        """Run everything, at most ``parallel`` matrix jobs at the same time.

        After Ctrl-C all children are ended, and what has not ended by itself is cancelled.
        """
        files.write_json(self.folder / "event.json", contexts.payload(self.event))
        with ThreadPoolExecutor(parallel) as pool:
            try:
                self._run_graph(pool)
            except KeyboardInterrupt:
                self.interrupted.set()
                while any(one.record.result == RUNNING for one in self.all_matrix_jobs()):
                    # One that is only just being started is ended in the next round.
                    process.end_all(GRACE)
                    time.sleep(0.05)
        for name in self.matrix_jobs.keys() - self.records:
            for one in self.matrix_jobs[name]:
                if one.record.result == WAITING:
                    _change(one, CANCELLED, "interrupted")
            self._end(name)

    def _run_graph(self, pool: ThreadPoolExecutor) -> None:
        """Begin every job when those it needs have ended, until none is left."""
        waiting = graphlib.TopologicalSorter({n: j.needs for n, j in self.graph.jobs.items()})
        waiting.prepare()
        running: dict[Future[None], str] = {}
        while waiting.is_active():
            ready = waiting.get_ready()
            for name in ready:
                for one in self._begin(name):
                    running[pool.submit(self._run, one)] = name
            # Windows delivers Ctrl-C only between two waits.
            timeout = 0 if ready else 0.5
            ended = wait(running, timeout, return_when=FIRST_COMPLETED).done
            names = {running.pop(future) for future in ended}.union(ready)
            for name in names - set(running.values()):
                self._end(name)
                waiting.done(name)

    def _begin(self, name: str) -> list[MatrixJob]:
        """Decide about a job whose needs have ended; what of it is to run."""
        run, self.reasons[name] = decisions.decide_job(
            self.graph, self.graph.jobs[name], self.event, self.results(), self.outputs
        )
        for one in self.matrix_jobs[name]:
            if not run:
                _change(one, SKIPPED, self.reasons[name])
            elif name in self.failed:
                self._fail(one, "supposed to fail (--failed)")
            elif one.obstacle is not None:
                _change(one, NOT_RUN, one.obstacle.message)
        return [one for one in self.matrix_jobs[name] if one.record.result == WAITING]

    def _end(self, name: str) -> None:
        """The record and the outputs of a job whose matrix jobs have all ended."""
        ones, needs = self.matrix_jobs[name], self.graph.jobs[name].needs
        records = tuple(one.record for one in ones)
        result = min((record.result for record in records), key=WORST_FIRST.index)
        reasons = [record.reason for record in records if record.result == FAILURE]
        reason = next(iter(reasons), self.reasons.get(name, ""))
        ran = () if result == SKIPPED else records
        self.records[name] = JobRecord(name, needs, result, reason, ran)
        self.outputs[name] = {k: v for one in ones for k, v in one.outputs.items()}

    def _run(self, one: MatrixJob) -> None:
        """Run a matrix job, in a thread of its own."""
        if self.interrupted.is_set():
            return
        one.record.started = self.elapsed()
        log = self.folder / f"{one.name}.log"
        one.record.log = log.relative_to(self.root).as_posix()
        _change(one, RUNNING)
        try:
            problem = self._run_commands(one)
        except Exception as error:  # an error in a thread must not pass for success
            ours = isinstance(error, PipelineError)
            problem = redact(str(error) if ours else f"{type(error).__name__}: {error}")
        one.record.seconds = self.elapsed() - one.record.started
        if problem and self.interrupted.is_set():
            _change(one, CANCELLED, "interrupted")
        else:
            self._fail(one, problem) if problem else _change(one, SUCCESS)

    def _fail(self, one: MatrixJob, problem: str) -> None:
        """It failed, which counts as success if it may (continue-on-error)."""
        result, names = FAILURE, self.names(one.job, self.outputs)
        with contextlib.suppress(UsageError):  # what is not understood is no permission
            if decisions.tolerates(one.job.tolerated, {**names, "matrix": dict(one.values)}):
                result, problem = SUCCESS, f"{problem}; it may fail (continue-on-error)"
        _change(one, result, problem)

    def _run_commands(self, one: MatrixJob) -> str:
        """Run its commands; what went wrong first, empty for nothing."""
        problem, names = "", self.names(one.job, self.outputs)
        for command in jobs.job_commands(self.graph, one, names, self.policy):
            if self.interrupted.is_set():
                return "interrupted"
            code, outputs = self._run_command(command.words, one)
            one.note(command, outputs, code)
            if code and not command.tolerated:
                line = process.display(command.words)
                problem = problem or f"{line} ended with exit code {code}"
        return problem

    def _run_command(self, words: list[str], one: MatrixJob) -> tuple[int, dict[str, str]]:
        """Run one command into the log; its exit code, and its outputs."""
        output = self.folder / f"{one.name}.output"
        output.write_bytes(b"")
        env = self.environment(os.environ) | {"GITHUB_OUTPUT": str(output)}
        # The nox that runs here, not one of this session's environment.
        python = os.environ.get("PIPELINE_PYTHON") or sys.executable
        command = [python, "-m", "nox", "--no-dependencies", *words[1:]]
        # Unbuffered, a line is a write: the two streams come from two threads.
        with (self.root / one.record.log).open("ab", buffering=0) as log:

            def show(text: str) -> None:
                log.write(f"{text}\n".encode())

            show(f"$ {process.display(words)}")
            done = process.stream(command, env=env, check=False, show=show, keep=1)
        return done.code, parse_outputs(output.read_text(encoding="utf-8"))

    def environment(self, ours: Mapping[str, str]) -> dict[str, str]:
        """The children's environment: ours, the workflow's where ours has nothing, and the
        event, without secrets that publish.
        """
        dropped = OWN_VARIABLES | (set() if self.policy.publish else PUBLISHING_SECRETS)
        known = contexts.variables(self.graph, self.event, ours)
        env = {key: value for key, value in known.items() if key not in dropped}
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
