"""``audit``: known weaknesses of packages, code, workflows and Dockerfile; an SBOM.

Each check is the field's own tool; all findings of all checks are shown. What cannot be
looked at here (no advisories to be had, no image) is said, and in CI it is a failure.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tools.core import cli, console, process
from tools.core.errors import PipelineError
from tools.core.settings import ROOT

CLEAN, FINDINGS, NOT_RUN = "clean", "findings", "not run"


@dataclass(frozen=True)
class Outcome:
    """What a check came to: ``clean``, ``findings`` or ``not run``, and its text."""

    state: str
    text: str = ""


@dataclass(frozen=True)
class Check:
    """One check: its name, what it looks at, how it is carried out."""

    name: str
    about: str
    run: Callable[[Path], Outcome]


def _of_exit_code(command: Sequence[str], root: Path) -> Outcome:
    """A tool that ends with 0 when it found nothing."""
    done = process.run(command, cwd=root, check=False)
    return Outcome(CLEAN if done.code == 0 else FINDINGS, done.output.strip())


def judge_advisories(text: str) -> Outcome:
    """What pip-audit's JSON says.

    Packages that it could not look up are no clean ones: if that is all of them, there
    were no advisories to be had.
    """
    listed = json.loads(text)["dependencies"]
    skipped = [entry["name"] for entry in listed if "skip_reason" in entry]
    lines = [
        f"{entry['name']} {entry['version']}: {found['id']}"
        + (f", fixed in {', '.join(found['fix_versions'])}" if found["fix_versions"] else "")
        for entry in listed
        for found in entry.get("vulns", ())
    ]
    if lines:
        return Outcome(FINDINGS, "\n".join(lines))
    if skipped and len(skipped) == len(listed):
        return Outcome(NOT_RUN, "the package index has no advisories for any package")
    rest = f"not looked up: {', '.join(skipped)}" if skipped else ""
    return Outcome(CLEAN, rest)


def check_dependencies(root: Path) -> Outcome:
    """All locked packages against the advisories of the Python packaging authority."""
    command = ["pip-audit", "--requirement", "constraints.txt", "--no-deps", "--disable-pip"]
    command += ["--progress-spinner", "off", "--format", "json"]
    done = process.run(command, cwd=root, check=False)
    try:
        return judge_advisories(done.stdout)
    except (ValueError, KeyError):
        last = (done.stderr.strip().splitlines() or ["no output"])[-1]
        return Outcome(NOT_RUN, f"pip-audit gave no answer: {last}")


def check_code(root: Path) -> Outcome:
    """bandit over all code of ours that runs with rights."""
    folders = [
        name for name in ("tools", ".ci", "docker", "noxfile.py") if (root / name).exists()
    ]
    command = ["bandit", "--quiet", "--recursive", "--configfile", "pyproject.toml"]
    return _of_exit_code([*command, "--severity-level", "medium", *folders], root)


def check_workflow(root: Path) -> Outcome:
    """zizmor, pedantic, over everything in .github."""
    command = ["zizmor", "--offline", "--no-progress", "--persona", "pedantic", ".github"]
    return _of_exit_code(command, root)


def check_dockerfile(root: Path) -> Outcome:
    """hadolint over the Dockerfile."""
    return _of_exit_code(["hadolint", "Dockerfile"], root)


def check_sbom(root: Path) -> Outcome:
    """Write what is in the production image to ``dist/``."""
    from tools.images import sbom

    try:
        sbom.work(sbom.Options())
    except PipelineError as error:
        return Outcome(NOT_RUN, str(error))
    return Outcome(CLEAN, sbom.OUTPUT)


CHECKS = (
    Check("dependencies", "locked packages (pip-audit)", check_dependencies),
    Check("code", "Python code (bandit)", check_code),
    Check("workflow", "workflows (zizmor)", check_workflow),
    Check("dockerfile", "Dockerfile (hadolint)", check_dockerfile),
    Check("sbom", "packages of the production image (CycloneDX)", check_sbom),
)


def chosen(only: Sequence[str]) -> list[Check]:
    """The checks to run: those named, else all."""
    return [check for check in CHECKS if not only or check.name in only]


def is_failure(check: Check, outcome: Outcome, only: Sequence[str], ci: bool) -> bool:
    """Whether an outcome fails the audit.

    What was named must be possible; without names, an image that was not built is none of
    the audit's business, but in CI everything else must have been looked at.
    """
    if outcome.state != NOT_RUN:
        return outcome.state == FINDINGS
    return check.name in only or (ci and check.name != "sbom")


def work(given: argparse.Namespace) -> int:
    """Run the checks, show everything."""
    rows, failed = [], []
    for check in chosen(given.only):
        outcome = check.run(ROOT)
        if outcome.state == FINDINGS:
            console.say(f"{check.name}:\n{outcome.text}\n")
        remark = "" if outcome.state == FINDINGS else outcome.text.splitlines()[:1]
        rows.append((check.name, check.about, outcome.state, " ".join(remark)))
        if is_failure(check, outcome, given.only, console.on_ci()):
            failed.append(check.name)
    console.table(("check", "looks at", "result", ""), rows)
    headings = ("check", "looks at", "result", "remark")
    console.step_summary("### Audit\n\n" + console.markdown_table(headings, rows))
    if failed:
        raise PipelineError(
            f"The audit is not clean: {', '.join(failed)}.", "The findings stand above."
        )
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """``python -m tools.audit``."""
    made = cli.parser("audit", "Look for known weaknesses; list what the image contains.")
    names = [check.name for check in CHECKS]
    made.add_argument(
        "--only",
        action="append",
        choices=names,
        default=[],
        help="this check alone; repeatable",
    )
    return cli.main(made, argparse.Namespace, work, arguments)


if __name__ == "__main__":
    sys.exit(main())
