"""What the doctor's checks share: what they examine, their outcomes, and their run."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from tools.core import process
from tools.core.errors import PipelineError
from tools.core.secrets import redact
from tools.core.settings import Settings

OK, WARNING, PROBLEM, SKIPPED = "ok", "warning", "problem", "skipped"


class Caution(PipelineError):
    """Something will be missing or slow, but the work can be done: a warning."""


class Skipped(PipelineError):
    """There is nothing to check, or it cannot be checked."""


@dataclass(frozen=True)
class Subject:
    """What is examined."""

    root: Path  # the checkout
    env: Mapping[str, str]
    settings: Settings
    sessions: frozenset[str] = frozenset()  # those asked about; none: all
    timeout: int = 8  # seconds without a sign of life after which a request has failed


class Check(NamedTuple):
    """A check, and the sessions that need it. It returns a sentence if all is well, else it
    raises what a session would raise: in the same words.
    """

    name: str
    run: Callable[[Subject], str]
    sessions: frozenset[str]


@dataclass(frozen=True)
class DoctorCheck:
    """What became of a check: its status, a sentence, what to do, lines that help further."""

    name: str
    status: str
    sentence: str
    remedy: str = ""
    detail: str = ""


def examine(
    checks: Sequence[Check], subject: Subject, seconds: float = 15
) -> list[DoctorCheck]:
    """Run all checks at the same time, for so many seconds at most.

    If several end with the same sentence, such as that of an engine that does not answer,
    it is the problem of the first; the others are skipped.
    """
    pool = ThreadPoolExecutor(len(checks))
    running = {check.name: pool.submit(check.run, subject) for check in checks}
    if wait(running.values(), seconds).not_done:
        process.end_all(grace=0)  # what waits for a program fails in its own words
        wait(running.values(), 1)
    pool.shutdown(wait=False)
    owners: dict[str, str] = {}
    results = []
    for name, future in running.items():
        if not future.done():
            sentence = f"No answer within {seconds:.0f} s."
            remedy = "See whether the network, a proxy or the engine keeps it waiting."
            results.append(DoctorCheck(name, PROBLEM, sentence, remedy))
        elif (error := future.exception()) is None:
            results.append(DoctorCheck(name, OK, future.result()))
        elif (owner := owners.setdefault(str(error), name)) != name:
            sentence = f"Not checked, because of the problem with {owner}."
            results.append(DoctorCheck(name, SKIPPED, sentence))
        elif isinstance(error, PipelineError):
            status = {Caution: WARNING, Skipped: SKIPPED}.get(type(error), PROBLEM)
            found = DoctorCheck(name, status, error.message, error.remedy, error.detail)
            results.append(found)
        else:  # must not hide what the others find
            sentence = f"The check itself broke: {type(error).__name__}: {redact(str(error))}."
            remedy = "Report it with the output of --debug; the other checks are not affected."
            results.append(DoctorCheck(name, PROBLEM, sentence, remedy))
    return results
