"""act, the runner: what it takes of the workflow, and what its log says of a run."""

import re
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

STAND_INS = Path(__file__).parent / "actions"
WORKFLOW = ".github/workflows/ci-cd.yml"
COLOURS = re.compile("\x1b\\[[0-9;]*m")


@dataclass
class Run:
    """What became of a run."""

    code: int  # act's exit code, which can lie
    log: list[dict[str, Any]] = field(default_factory=list)  # act's own lines

    @property
    def results(self) -> dict[str, str]:
        """The result of each job; a job that was not run is not there."""
        found: dict[str, str] = {}
        for line in self.ends():
            job, result = line["jobID"], line["jobResult"]
            found[job] = "failure" if "failure" in (result, found.get(job)) else result
        return found

    def ends(self, job: str = "") -> list[dict[str, Any]]:
        """The last line of each matrix job, of a job or all."""
        return [one for one in self.log if "jobResult" in one and job in ("", one["jobID"])]

    def rows(self, job: str) -> set[str]:
        """The matrix jobs of a job that ended, each by the values of its row."""
        rows = [one["matrix"] or {} for one in self.ends(job)]
        return {" ".join(sorted(map(str, row.values()))) for row in rows}

    def said(self, job: str = "") -> str:
        """What the steps of a job printed, or of all."""
        lines = (one for one in self.log if one.get("raw_output") and job in ("", one["jobID"]))
        return "\n".join(COLOURS.sub("", str(one["msg"])).rstrip() for one in lines) + "\n"

    def steps(self, job: str) -> list[tuple[str, str]]:
        """Name and result of each step of a job, matrix jobs mixed."""
        lines = [one for one in self.log if one.get("jobID") == job and "stepResult" in one]
        main = [one for one in lines if one.get("stage") == "Main"]
        return list(dict.fromkeys((str(one["step"]), str(one["stepResult"])) for one in main))

    def failures(self) -> str:
        """The failed steps and the last lines that their jobs printed, for a report."""
        texts = []
        for job, result in self.results.items():
            if result == "failure":
                bad = [name for name, result in self.steps(job) if result == "failure"]
                texts.append(f"{job}: {bad}\n" + "\n".join(self.said(job).splitlines()[-25:]))
        errors = [str(one["msg"]) for one in self.log if one.get("level") == "error"]
        return "\n\n".join([*texts, *errors[-10:]])


def titles(root: Path) -> dict[str, str]:
    """The display name of each job."""
    whole = yaml.load((root / WORKFLOW).read_text("utf-8"), yaml.BaseLoader)
    return {name: job.get("name", name) for name, job in whole["jobs"].items()}


def program(name: str) -> str:
    """A program of the tests' own environment."""
    found = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
    assert found, f"{name} is not installed"
    return found


def pinned_actions(root: Path) -> dict[str, str]:
    """Each action that the workflow or a local action uses (owner/name@commit), and its
    stand-in, which must know all inputs that it is given.
    """
    paths = [root / WORKFLOW, *root.glob(".github/actions/*/action.yml")]
    found = {}
    for step in (step for path in paths for step in steps_of(path)):
        action = step.get("uses", "./")
        if not action.startswith("./"):
            found[action] = name = action.partition("@")[0].partition("/")[2]
            path = STAND_INS / name / "action.yml"
            known = yaml.safe_load(path.read_text("utf-8")).get("inputs", {})
            unknown = set(step.get("with", {})) - set(known)
            assert not unknown, f"the stand-in of {action} has no input {unknown}"
    return found


def steps_of(path: Path) -> Iterator[dict[str, Any]]:
    """The steps of a workflow or a composite action."""
    whole = yaml.load(path.read_text("utf-8"), yaml.BaseLoader)
    jobs = whole["jobs"].values() if "jobs" in whole else [whole["runs"]]
    for job in jobs:
        yield from job["steps"]
