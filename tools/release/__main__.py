"""Publish the GitHub release of a version: complete and verified, or not visible."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from tools.core import cli, console, files
from tools.core.errors import PipelineError
from tools.github.client import connect, policy
from tools.release import notes
from tools.release.checks import Checked, check
from tools.release.contents import ReleasePlan, fill_folder
from tools.release.publish import Publisher, PublishResult, draft_mark, persist
from tools.release.transfer import Transfer
from tools.repo.context import Context, load_context


@dataclass(frozen=True)
class Options:
    """What the command line asks for."""

    tag: str = cli.option("", "the version's git tag, such as v1.2.3 or v1.2.3-rc1", "tag")
    dry_run: bool = cli.option(False, "all but publishing")
    json: bool = cli.option(False, "plan and outcome as JSON")


def release(context: Context, options: Options, env: Mapping[str, str]) -> None:
    """Check everything, prepare everything, publish.

    Raises:
        PipelineError: Something stands against the release, or it cannot be completed.
    """
    folder, settings = context.root / "dist" / "release", context.settings
    name = env.get("GITHUB_REPOSITORY") or context.event.repository
    token, platforms = settings.gh_token, settings.wheel_platforms
    retry = policy(settings)  # waiting for the API and for uploads has one limit
    repository = connect(settings, 0, retry).get_repo(name) if name and token else None
    with console.step(f"Check the release of {options.tag}"):
        checked = check(context.root, options.tag, platforms, name, repository)
    with lock(context.root):
        with console.step(f"Fill {folder}"):
            server = env.get("GITHUB_SERVER_URL", "https://github.com").rstrip("/")
            plan = prepare(checked, context, folder, f"{server}/{name}")
        result = None
        if options.dry_run:
            console.say("dry run: nothing was published")
        elif repository is None:
            refuse_without_token()
        else:
            with console.step("Publish"):
                transfer = Transfer(settings, folder, retry)
                mark = draft_mark(context.root, env)
                publisher = Publisher(repository, transfer, plan, mark)
                result = persist(f"the release {plan.tag}", publisher.attempt)
                report(plan, result)
    if options.json:
        console.emit_json({"plan": plan, "outcome": result})


def lock(root: Path) -> AbstractContextManager[object]:
    """Keep other releases in this checkout waiting: drafts and ``dist/release/`` are shared."""
    (root / ".nox").mkdir(exist_ok=True)
    only = FileLock(root / ".nox" / "release.lock")
    try:
        return only.acquire(timeout=0)
    except Timeout:
        console.say("another release is under way in this checkout; waiting for it")
        return only.acquire()


def prepare(checked: Checked, context: Context, folder: Path, web: str) -> ReleasePlan:
    """Fill the folder, and plan what is published, in ``dist/release.json`` too.

    ``web`` is the address of the repository's page.
    """
    tag, version = checked.version.tag, str(checked.version.version)
    changelog, downloads = context.root / "CHANGELOG.md", f"{web}/releases/download/{tag}"
    text = changelog.read_text(encoding="utf-8") if changelog.exists() else ""
    plan = ReleasePlan(
        tag=tag,
        version=version,
        repository=checked.repository,
        commit=checked.commit,
        prerelease=checked.version.is_prerelease,
        assets=fill_folder(folder, version, checked.wheels, checked.images, context.created),
        images=tuple(image.reference for image in checked.images),
        notes=notes.compose(
            notes.changelog_section(text, version),
            checked.generated,
            notes.installation(downloads, checked.wheels, checked.images),
        ),
    )
    files.write(context.root / "dist" / "release-notes.md", plan.notes)
    files.write_json(context.root / "dist" / "release.json", plan)
    rows = [(asset.name, console.human_size(asset.size), asset.sha256) for asset in plan.assets]
    kind = "prerelease" if plan.prerelease else "release"
    console.table(("asset", "size", "SHA-256"), rows, f"{kind} {tag} at {plan.commit[:7]}")
    return plan


def refuse_without_token() -> None:
    """Without a token: fine on a developer's machine, a mistake in a job of Actions."""
    message = "Not published: no token is set (GH_TOKEN)."
    if console.on_actions():
        raise PipelineError(message, "Pass secrets.GITHUB_TOKEN to the job, as GH_TOKEN.")
    console.warn(f"{message} What would be published is in dist/release/.")


def report(plan: ReleasePlan, result: PublishResult) -> None:
    """How it ended, for people and for later steps."""
    console.say(f"{result.what}: {plan.tag}, {result.url}", style="bold green")
    rows = [(a.name, console.human_size(a.size), f"`{a.sha256}`") for a in plan.assets]
    table = console.markdown_table(("asset", "size", "SHA-256"), rows)
    console.step_summary(f"### Release [{plan.tag}]({result.url}): {result.what}\n\n{table}")
    console.set_output("release-url", result.url)
    console.set_output("release-id", str(result.id))


def work(options: Options) -> None:
    """Release from this checkout."""
    release(load_context(), options, os.environ)


main = cli.command(
    "release", "Publish the GitHub release of a version with its wheels.", Options, work
)


if __name__ == "__main__":
    sys.exit(main())
