"""What a cleanup found and did: as data, as a table, as the job's summary."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from tools.cleanup.plan import Package, Plan, short, subject_of_tag
from tools.cleanup.run import Check, Outcome
from tools.core import console

# Rows of a printed plan; --json has them all.
ROWS = 50


@dataclass
class Report:
    """What a run found and did; the object that ``--json`` prints.

    Attributes:
        image: ``registry/owner/name``.
        package: What was there.
        plan: What was decided.
        dry_run: Whether it was only decided.
        outcome: What became of it.
        check: What the registry has afterwards; None if nothing was deleted.
        restored: Digests that were brought back.
        problems: Sentences that make the exit code 1.
        requests: Requests by kind.
    """

    image: str
    package: Package
    plan: Plan
    dry_run: bool
    outcome: Outcome = field(default_factory=Outcome)
    check: Check | None = None
    restored: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    requests: dict[str, int] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The report as plain data."""
        verified = None
        if self.check is not None:
            lacking = {tag: list(parts) for tag, parts in self.check.broken.items()}
            verified = {"tags": self.check.tags, "broken": lacking}
        return {
            "image": self.image,
            "dry_run": self.dry_run,
            "versions": len(self.package.versions),
            "kept": len(self.plan.kept),
            "delete": [
                {
                    "id": one.version.id,
                    "digest": one.version.digest,
                    "tags": list(one.version.tags),
                    "created": _iso(one.version.created),
                    "reason": one.reason,
                }
                for one in self.plan.deletions
            ],
            "broken": {tag: list(parts) for tag, parts in self.plan.broken.items()},
            "undecided": dict(self.plan.undecided),
            "deleted": list(self.outcome.deleted),
            "skipped": self.outcome.skipped,
            "failed": self.outcome.failed,
            "saved": self.outcome.saved,
            "restored": self.restored,
            "verified": verified,
            "requests": self.requests,
            "problems": self.problems,
        }


def _iso(when: float) -> str:
    return datetime.fromtimestamp(when, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def show_plan(report: Report) -> None:
    """Print what would go, and why."""
    plan, package = report.plan, report.package
    rows = [
        (
            short(one.version.digest),
            _iso(one.version.created),
            ", ".join(map(_short_tag, one.version.tags)) or "-",
            one.reason,
        )
        for one in plan.deletions[:ROWS]
    ]
    title = f"{report.image}: {len(plan.deletions)} of {len(package.versions)} versions go"
    if rows:
        console.table(("digest", "created", "tags", "why"), rows, title)
        if len(plan.deletions) > ROWS:
            console.say(f"... and {len(plan.deletions) - ROWS} more; --json lists all")
    else:
        console.say(title)
    console.say(f"kept: {_kinds(plan)}")
    for tag, parts in list(plan.broken.items())[:ROWS]:
        lacking = ", ".join(short(digest) for digest in parts[:3])
        console.warn(
            f"The tag {tag} is broken already: it lacks {len(parts)} parts ({lacking})."
        )


def _kinds(plan: Plan) -> str:
    """How many versions are kept for which kind of reason."""
    plural = {"part of": "parts", "refers to": "referrers", "subject of": "subjects"}
    kinds = Counter(
        re.sub(r" [0-9a-f]{12}$|(?<=^tagged) .*", "", r) for r in plan.kept.values()
    )
    told = [f"{count} {plural.get(kind, kind)}" for kind, count in kinds.most_common()]
    return ", ".join(told) or "nothing"


def _short_tag(tag: str) -> str:
    """A tag as it fits a table: the digest in a referrer's tag cut to 12 digits."""
    subject = subject_of_tag(tag)
    hexadecimal = subject.partition(":")[2]
    return tag.replace(hexadecimal, f"{short(subject)}...") if subject else tag


def _conclusion(report: Report) -> str:
    if report.dry_run:
        return f"dry run: {len(report.plan.deletions)} versions would be deleted"
    outcome = report.outcome
    parts = [f"{len(outcome.deleted)} versions deleted"]
    for count, what in (
        (len(outcome.skipped), "kept by GitHub"),
        (len(outcome.saved), "saved"),
        (len(outcome.failed), "failed"),
        (len(report.restored), "brought back"),
    ):
        if count:
            parts.append(f"{count} {what}")
    left = len(report.plan.deletions) - outcome.settled
    if left:
        parts.append(f"{left} left for the next run")
    if report.check is not None:
        whole = report.check.tags - len(report.check.broken)
        parts.append(f"{whole} of {report.check.tags} tags verified whole")
    return ", ".join(parts)


def tell(report: Report) -> None:
    """Print what was done, and add it to the job's summary."""
    for digest, reason in report.outcome.skipped.items():
        console.warn(f"GitHub keeps {short(digest)}: {reason}")
    text = _conclusion(report)
    console.say(text)
    rows = [
        ("versions", len(report.package.versions)),
        ("kept", len(report.plan.kept)),
        ("deleted", len(report.outcome.deleted)),
        ("kept by GitHub", len(report.outcome.skipped)),
        ("broken before", len(report.plan.broken)),
    ]
    table = console.markdown_table(("what", "count"), rows)
    console.step_summary(f"### Cleanup of {report.image}\n\n{text}\n\n{table}")
