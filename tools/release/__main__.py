"""Publish the GitHub release of a version: complete and verified, or not visible."""

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from tools.core import cli, console, files
from tools.core.errors import PipelineError, UsageError
from tools.core.settings import ROOT, github_server
from tools.github.client import connect, policy
from tools.release import notes
from tools.release.checks import Candidate, check
from tools.release.contents import ReleasePlan, fill_folder
from tools.release.publish import Publisher, draft_mark, persist
from tools.release.transfer import Transfer
from tools.repo.context import load_context


@dataclass(frozen=True)
class Options:
    """What the command line asks for."""

    tag: str = cli.option("", "the version's git tag, such as v1.2.3 or v1.2.3-rc1", "tag")
    dry_run: bool = cli.option(False, "all but publishing")
    json: bool = cli.option(False, "plan and outcome as JSON")


def release(options: Options, env: Mapping[str, str] = os.environ, root: Path = ROOT) -> None:
    """Check everything, prepare everything, publish."""
    context, folder = load_context(env, root), root / "dist" / "release"
    settings, name = context.settings, env.get("GITHUB_REPOSITORY") or context.event.repository
    if not name:
        what = "It is not known which GitHub repository this is."
        raise UsageError(what, "Set GITHUB_REPOSITORY=owner/name, or the remote origin.")
    retry = policy(settings)  # waiting for the API and for uploads has one limit
    repository = connect(settings, 0, retry).get_repo(name) if settings.gh_token else None
    with console.step(f"Check the release of {options.tag}"):
        candidate = check(root, options.tag, settings.wheel_platforms, repository)
    # Drafts and the folder are the checkout's: another release in it is waited for.
    with FileLock(root / ".nox" / "release.lock"):
        with console.step(f"Fill {folder}"):
            downloads = f"{github_server(env)}/{name}/releases/download/{options.tag}"
            plan = prepare(candidate, folder, context.created, downloads)
        result = None
        if options.dry_run:
            console.say("dry run: nothing was published")
        elif repository:
            with console.step("Publish"):
                transfer = Transfer(settings, folder, retry)
                publisher = Publisher(repository, transfer, plan, draft_mark(root, env))
                result = persist(f"the release {plan.tag}", publisher.attempt)
            console.say(f"{result.what}: {plan.tag}, {result.url}", style="bold green")
            console.step_summary(f"Release [{plan.tag}]({result.url}): {result.what}.")
        elif console.on_actions():  # a mistake in the job
            todo = "Pass secrets.GITHUB_TOKEN to the job, as GH_TOKEN."
            raise PipelineError("Not published: no token is set (GH_TOKEN).", todo)
        else:
            console.warn("Not published: no token is set (GH_TOKEN). See dist/release/.")
    if options.json:
        console.emit_json({"plan": plan, "outcome": result})


def prepare(candidate: Candidate, folder: Path, created: int, downloads: str) -> ReleasePlan:
    """Fill the folder, and plan what is published, in ``dist/release.json`` too.

    ``created`` is the time of the commit (seconds since the epoch), ``downloads`` the address
    below which the release's files will be.
    """
    version, dist = candidate.version, folder.parent
    changelog = candidate.root / "CHANGELOG.md"
    text = changelog.read_text(encoding="utf-8") if changelog.exists() else ""
    plan = ReleasePlan(
        tag=version.tag,
        commit=candidate.commit,
        prerelease=version.is_prerelease,
        assets=fill_folder(folder, candidate.wheels, candidate.images, created),
        notes=notes.compose(
            notes.changelog_section(text, version.version),
            candidate.generated,
            notes.installation(downloads, candidate.wheels, candidate.images),
        ),
    )
    files.write(dist / "release-notes.md", plan.notes)
    files.write_json(dist / "release.json", plan)
    rows = [(asset.name, console.human_size(asset.size), asset.sha256) for asset in plan.assets]
    kind = "prerelease" if plan.prerelease else "release"
    console.table(("asset", "size", "SHA-256"), rows, f"{kind} {plan.tag} at {plan.commit[:7]}")
    return plan


main = cli.command(
    "release", "Publish the GitHub release of a version with its wheels.", Options, release
)


if __name__ == "__main__":
    sys.exit(main())
