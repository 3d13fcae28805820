"""What a cleanup found and did: as data, as a table, as the job's summary."""

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from tools.cleanup.package import Package, short
from tools.cleanup.plan import CleanupPlan
from tools.core import console

ROWS = 50  # of a printed plan; --json has them all


@dataclass
class CleanupResult:
    """What a run found and did."""

    image: str  # registry/owner/name
    package: Package
    plan: CleanupPlan
    dry_run: bool  # whether it was only decided
    deleted: dict[str, int] = field(default_factory=dict)  # digest to GitHub's number
    skipped: dict[str, str] = field(default_factory=dict)  # digest to GitHub's refusal
    failed: dict[str, str] = field(default_factory=dict)  # digest to what went wrong
    saved: dict[str, str] = field(default_factory=dict)  # digest to why it stays after all
    restored: list[str] = field(default_factory=list)
    unrestored: dict[str, str] = field(default_factory=dict)  # digest to why not
    tags: int | None = None  # how many were verified; None if nothing was changed
    broken: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # as then found
    problems: list[str] = field(default_factory=list)  # sentences that make the exit code 1
    requests: dict[str, int] = field(default_factory=dict)

    def to_json(self) -> dict[str, object]:
        """What ``--json`` prints."""
        plan, versions, tags = self.plan, self.package.versions, self.tags
        return {
            "image": self.image,
            "dry_run": self.dry_run,
            "versions": len(versions),
            "kept": len(plan.kept),
            "delete": [
                {
                    "id": versions[digest].id,
                    "digest": digest,
                    "tags": versions[digest].tags,
                    "created": _iso(versions[digest].created),
                    "reason": reason,
                    "after": plan.after[digest],
                }
                for digest, reason in plan.to_delete.items()
            ],
            "broken": plan.broken,
            "undecided": plan.undecided,
            "deleted": list(self.deleted),
            "skipped": self.skipped,
            "failed": self.failed,
            "saved": self.saved,
            "restored": self.restored,
            "verified": None if tags is None else {"tags": tags, "broken": self.broken},
            "requests": self.requests,
            "problems": self.problems,
        }


def _iso(when: float) -> str:
    return datetime.fromtimestamp(when, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def show_plan(result: CleanupResult) -> None:
    """Print what would go, and why."""
    plan, versions = result.plan, result.package.versions
    rows = []
    for digest, reason in list(plan.to_delete.items())[:ROWS]:
        # A referrer's tag is long: the digest in it is cut as all others are.
        tags = re.sub("(-.{12})[0-9a-f]{52}", r"\1...", ", ".join(versions[digest].tags))
        rows.append((short(digest), _iso(versions[digest].created), tags or "-", reason))
    if rows:
        console.table(("digest", "created", "tags", "why"), rows)
    if len(plan.to_delete) > ROWS:
        console.say(f"... and {len(plan.to_delete) - ROWS} more; --json lists all")
    console.say(f"{result.image}: {len(plan.to_delete)} of {len(versions)} versions go")
    reasons = Counter(plan.kept.values()).most_common()
    console.say(f"kept: {', '.join(f'{n} {why}' for why, n in reasons) or 'nothing'}")
    for tag, parts in list(plan.broken.items())[:ROWS]:
        some = ", ".join(map(short, parts[:3]))
        console.warn(f"The tag {tag} is broken already: it lacks {len(parts)} parts ({some}).")


def report(result: CleanupResult) -> None:
    """Print what was done, and add it to the job's summary."""
    for digest, reason in result.skipped.items():
        console.warn(f"GitHub keeps {short(digest)}: {reason}")
    total, tags = len(result.plan.to_delete), result.tags
    counts = {
        "versions deleted": len(result.deleted),
        "kept by GitHub": len(result.skipped),
        "saved": len(result.saved),
        "failed": len(result.failed),
    }
    counts["left for the next run"] = total - sum(counts.values())
    counts["brought back"] = len(result.restored)
    parts = [f"{n} {what}" for what, n in counts.items() if n or what == "versions deleted"]
    if tags is not None:
        parts.append(f"{tags - len(result.broken)} of {tags} tags verified whole")
    text = ", ".join(parts)
    if result.dry_run:
        text = f"dry run: {total} versions would be deleted"
    elif not result.package.versions:
        text = "there is no such package yet, nothing to do"
    console.say(text)
    console.step_summary(f"### Cleanup of {result.image}\n\n{text}\n")
