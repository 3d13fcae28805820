"""The doctor's checks of the workflow files: valid, actions pinned."""

from __future__ import annotations

import re
from pathlib import Path

from tools.doctor.base import Check, Result, Subject, not_applicable, ok, problem
from tools.workflow import model as workflow

WORKFLOWS = frozenset({"plan", "pipeline"})
# "Using third-party actions": a full commit hash is the only immutable reference.
_USES = re.compile(r"^\s*(?:-\s+)?uses:\s*[\"']?([^\s\"'#]+)")


def workflow_files(root: Path) -> list[Path]:
    """All workflow and action files of the repository."""
    folder = root / ".github"
    return sorted([*folder.glob("workflows/*.y*ml"), *folder.glob("actions/*/action.y*ml")])


def unpinned(text: str) -> list[tuple[int, str]]:
    """Lines (from 1) and names of actions that are used by a tag or branch."""
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        match = _USES.match(line)
        if match is None or match.group(1).startswith(("./", "docker://")):
            continue
        if not re.search(r"@[0-9a-f]{40}$", match.group(1)):
            found.append((number, match.group(1)))
    return found


def check_workflow(subject: Subject) -> Result:
    """The pipeline's workflow file is valid (the error is that of ``plan``)."""
    if not (subject.root / workflow.WORKFLOW).exists():
        return not_applicable("There is no workflow file.", str(workflow.WORKFLOW))
    found = workflow.load(subject.root)
    return ok(f"{len(found.jobs)} jobs, in a valid order.", workflow.WORKFLOW.as_posix())


def check_pinned(subject: Subject) -> Result:
    """Every action is used at a full commit hash."""
    files = workflow_files(subject.root)
    if not files:
        return not_applicable("There are no workflow files.", ".github")
    loose = []
    for path in files:
        where = path.relative_to(subject.root).as_posix()
        for line, name in unpinned(path.read_text(encoding="utf-8")):
            loose.append(f"{where}:{line}: {name}")
    if loose:
        return problem(
            f"Actions are not pinned to a commit: {loose[0]}"
            f"{f' and {len(loose) - 1} more' if len(loose) > 1 else ''}.",
            "Write the full commit hash after @, and the version as a comment.",
            ".github",
            "\n".join(loose),
        )
    return ok(f"All actions in {len(files)} files are pinned to commits.", ".github")


CHECKS = (
    Check("workflow", "valid", check_workflow, WORKFLOWS),
    Check("pinned actions", "at full commit hashes", check_pinned, WORKFLOWS),
)
