"""What a cleanup found and did: as data, as a table, as the job's summary."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field

from tools.cleanup.package import Package, short, subject_of_tag
from tools.cleanup.plan import CleanupPlan
from tools.cleanup.run import Outcome, TagCheck
from tools.core import console

ROWS = 50  # of a printed plan; --json has them all


@dataclass
class CleanupResult:
    """What a run found and did.

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
    plan: CleanupPlan
    dry_run: bool
    outcome: Outcome = field(default_factory=Outcome)
    check: TagCheck | None = None
    restored: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    requests: dict[str, int] = field(default_factory=dict)

    def to_json(self) -> dict[str, object]:
        """What ``--json`` prints."""
        check = self.check
        return {
            "image": self.image,
            "dry_run": self.dry_run,
            "versions": len(self.package.versions),
            "kept": len(self.plan.kept),
            "delete": self.plan.to_delete,
            "broken": self.plan.broken,
            "undecided": self.plan.undecided,
            "deleted": list(self.outcome.deleted),
            "skipped": self.outcome.skipped,
            "failed": self.outcome.failed,
            "saved": self.outcome.saved,
            "restored": self.restored,
            "verified": {"tags": check.tags, "broken": check.broken} if check else None,
            "requests": self.requests,
            "problems": self.problems,
        }


def show_plan(result: CleanupResult) -> None:
    """Print what would go, and why."""
    plan, total = result.plan, len(result.plan.to_delete)
    title = f"{result.image}: {total} of {len(result.package.versions)} versions go"
    rows = [
        (
            short(one.digest),
            one.created,
            ", ".join(map(_short_tag, one.tags)) or "-",
            one.reason,
        )
        for one in plan.to_delete[:ROWS]
    ]
    if rows:
        console.table(("digest", "created", "tags", "why"), rows, title)
    else:
        console.say(title)
    if total > ROWS:
        console.say(f"... and {total - ROWS} more; --json lists all")
    console.say(f"kept: {_kinds(plan)}")
    for tag, parts in list(plan.broken.items())[:ROWS]:
        lacking = ", ".join(short(digest) for digest in parts[:3])
        console.warn(
            f"The tag {tag} is broken already: it lacks {len(parts)} parts ({lacking})."
        )


def _kinds(plan: CleanupPlan) -> str:
    """How many versions are kept for which kind of reason."""
    plural = {"part of": "parts", "refers to": "referrers", "subject of": "subjects"}
    kinds = Counter(
        re.sub(r" [0-9a-f]{12}$|(?<=^tagged) .*", "", r) for r in plan.kept.values()
    )
    counts = [f"{count} {plural.get(kind, kind)}" for kind, count in kinds.most_common()]
    return ", ".join(counts) or "nothing"


def _short_tag(tag: str) -> str:
    """A tag as it fits a table: the digest in a referrer's tag cut to 12 digits."""
    hexadecimal = subject_of_tag(tag).partition(":")[2]
    return tag.replace(hexadecimal, f"{hexadecimal[:12]}...") if hexadecimal else tag


def _conclusion(result: CleanupResult) -> str:
    total, outcome, check = len(result.plan.to_delete), result.outcome, result.check
    if result.dry_run:
        return f"dry run: {total} versions would be deleted"
    counts = {
        "kept by GitHub": len(outcome.skipped),
        "saved": len(outcome.saved),
        "failed": len(outcome.failed),
        "brought back": len(result.restored),
        "left for the next run": total - outcome.settled,
    }
    parts = [f"{len(outcome.deleted)} versions deleted"]
    parts += [f"{count} {what}" for what, count in counts.items() if count]
    if check is not None:
        parts.append(f"{check.tags - len(check.broken)} of {check.tags} tags verified whole")
    return ", ".join(parts)


def report(result: CleanupResult) -> None:
    """Print what was done, and add it to the job's summary."""
    for digest, reason in result.outcome.skipped.items():
        console.warn(f"GitHub keeps {short(digest)}: {reason}")
    text = _conclusion(result)
    console.say(text)
    rows = [
        ("versions", len(result.package.versions)),
        ("kept", len(result.plan.kept)),
        ("deleted", len(result.outcome.deleted)),
        ("kept by GitHub", len(result.outcome.skipped)),
        ("broken before", len(result.plan.broken)),
    ]
    table = console.markdown_table(("what", "count"), rows)
    console.step_summary(f"### Cleanup of {result.image}\n\n{text}\n\n{table}")
