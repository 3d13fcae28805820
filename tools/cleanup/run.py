"""A run: read, decide, delete in order, look again, verify, restore what a push needed.

A version is deleted only after its parents (and subjects) are gone: whenever the work
ends, no tag has lost a part. What GitHub refuses to delete keeps all that it needs. One at a
time is as fast as GitHub's limit allows (180 deletes a minute).
"""

import time
from collections import ChainMap
from collections.abc import Collection, Mapping
from functools import partial
from time import monotonic

from tools.cleanup.package import Package, lacking, short
from tools.cleanup.plan import Policy, make_plan
from tools.cleanup.read import Reader, side_by_side
from tools.cleanup.report import CleanupResult, show_plan
from tools.core import console
from tools.core.progress import human_time, progress
from tools.core.settings import Settings
from tools.github.errors import GitHubError
from tools.github.packages import KeptByGitHub, PackageVersion
from tools.registry.client import NotFound, RegistryError

DELETE_POINTS = 5  # of GitHub's points a minute ("Calculating points")
# The plan is looked at again after so many seconds, or after this many times what a look
# takes, whichever is more: of a large package the listing itself uses up limits.
LOOK_AGAIN = 60.0
LOOK_SHARE = 10.0
ROUNDS = 3  # how often what is broken afterwards is restored and looked at again


def seconds_between_deletes(settings: Settings) -> float:
    """The pace that keeps within GitHub's points a minute."""
    points = settings.github_points_per_minute
    return 60 * DELETE_POINTS / points if points else 0.0


def clean(reader: Reader, policy: Policy, dry_run: bool) -> CleanupResult:
    """Read, decide, and unless ``dry_run`` delete and verify.

    Raises:
        PipelineError: GitHub or the registry cannot be read.
    """
    with console.step("read the package"), progress("manifests read:") as shown:
        package = reader.read(policy, shown)
    plan = make_plan(package, policy, time.time())
    result = CleanupResult(reader.settings.image, package, plan, dry_run)
    show_plan(result)
    for digest, reason in list(plan.undecided.items())[:1]:
        result.problems.append(
            f"{len(plan.undecided)} manifests could not be read, {short(digest)} for one:"
            f" {reason} Nothing they could reach is deleted; run it again."
        )
    try:
        if not dry_run:
            restored = restore(reader, result, plan.broken)
            if plan.to_delete:
                with console.step(f"delete {len(plan.to_delete)} versions"):
                    delete(reader, policy, result)
            if plan.to_delete or restored:
                with console.step("verify the tags"):
                    verify(reader, policy, result)
    finally:
        reader.remember()
    result.requests |= {
        "pages": reader.packages.listed_pages,
        "manifests": reader.manifests_read,
        "deletes": len(result.deleted) + len(result.skipped),
    }
    return result


def delete(reader: Reader, policy: Policy, result: CleanupResult) -> None:
    """Delete what the plan says, in its order, and look now and then whether it still holds.

    Raises:
        PipelineError: The package could not be looked at again; nothing more is deleted.
    """
    planned, pace = result.plan.to_delete, seconds_between_deletes(reader.settings)
    console.say(f"GitHub's limits ask for at least {human_time(len(planned) * pace)}")
    allowed: Collection[str] = ()
    stays = ChainMap(result.skipped, result.failed, result.saved)
    look_at = monotonic()
    with progress("deleted") as shown:
        for number, digest in enumerate(planned):
            shown(number, len(planned))
            if monotonic() >= look_at:
                began = monotonic()
                reader.remember()  # a run that is killed must leave what it deleted
                package = reader.read(policy)
                allowed = make_plan(package, policy, time.time(), within=planned).to_delete
                look_at = monotonic() + max(LOOK_AGAIN, LOOK_SHARE * (monotonic() - began))
            if digest not in allowed:
                result.saved[digest] = "something needs it now"
            elif any(other in stays for other in result.plan.after[digest]):
                result.saved[digest] = "what needs it stays"
            elif not _delete_one(reader, result, digest):
                break
    for reason in list(result.failed.values())[:1]:
        result.problems.append(f"{len(result.failed)} deletions failed: {reason}")


def _delete_one(reader: Reader, result: CleanupResult, digest: str) -> bool:
    """Delete one version; whether the work may go on."""
    version = result.package.versions[digest]
    # Before it is done: where we are interrupted it may be gone.
    result.deleted[digest] = version.id
    reader.memory.deleted[digest] = (version.id, time.time())
    try:
        reader.packages.delete(version)
    except KeptByGitHub as error:
        del result.deleted[digest]
        result.skipped[digest] = str(error)
    except GitHubError as error:
        del result.deleted[digest]
        result.failed[digest] = str(error)
        # A wrong token, or a limit that outlasts the deadline: no use to go on.
        return not (error.limited or error.status in (401, 403))
    return True


# --- afterwards --------------------------------------------------------------


def verify(reader: Reader, policy: Policy, result: CleanupResult) -> None:
    """Walk every tag; bring back what a push needs that came while we deleted."""
    for _ in range(ROUNDS):
        try:
            package = reader.read(policy)
        except GitHubError as error:
            result.problems.append(f"New tags could not be verified: {error.message}")
            old = result.package
            left = {d: v for d, v in old.versions.items() if d not in result.deleted}
            package = Package(left, old.links, old.unreadable, old.gone)
        unknown = walk_tags(reader, package, result)
        new = {t: parts for t, parts in result.broken.items() if t not in result.plan.broken}
        if not restore(reader, result, new):
            break
    # A restoration without a response may have worked: what is there is not a problem.
    missing = {digest for parts in result.broken.values() for digest in parts}
    for digest, reason in result.unrestored.items():
        if digest in missing:
            result.problems.append(f"{short(digest)} could not be brought back: {reason}")
    if new:
        tags = ", ".join(list(new)[:5])
        result.problems.append(f"Tags that were whole, or are new, now lack parts: {tags}.")
    if unknown:
        result.problems.append(f"Not all tags could be verified: {unknown[0]}")


def walk_tags(reader: Reader, package: Package, result: CleanupResult) -> list[str]:
    """Ask the registry for every part of every tag, each manifest once; why it did not tell
    of some.
    """
    needs = package.needs()
    digests = list(dict.fromkeys(digest for parts in needs.values() for digest in parts))
    missing: set[str] = set()
    unknown = list(package.unreadable.values())
    for digest, found in side_by_side(partial(reader.registry.head, reader.name), digests):
        if isinstance(found, NotFound):
            missing.add(digest)
        elif isinstance(found, RegistryError):
            unknown.append(found.message)
    result.tags, result.broken = len(needs), lacking(needs, missing.__contains__)
    result.requests["verified"] = len(digests)
    return unknown


def restore(
    reader: Reader, result: CleanupResult, broken: Mapping[str, tuple[str, ...]]
) -> bool:
    """Restore what broken tags lack and we, now or in an earlier run, deleted.

    Returns:
        Whether there was such a thing: then the tags are to be looked at again.
    """
    ours = reader.memory.deleted
    missing = dict.fromkeys(d for parts in broken.values() for d in parts if d in ours)
    if missing:
        console.warn(f"Tags need {len(missing)} versions that were deleted: they are restored.")
    # Parts come after what lists them: a registry may want them to be there first.
    for digest in reversed(missing):
        try:
            reader.packages.restore(PackageVersion(ours[digest][0], digest))
        except GitHubError as error:
            result.unrestored[digest] = error.message
        else:
            result.restored.append(digest)
            result.unrestored.pop(digest, None)
            del ours[digest]
    return bool(missing)
