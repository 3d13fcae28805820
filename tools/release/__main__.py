"""Publish the GitHub release of a version: complete and verified, or not visible.

Everything is checked before anything is touched, and all that stands against the
release is reported at once. Then ``dist/release/`` is filled with what is published;
with ``--dry-run`` it ends there. See ``docs/releasing.md``.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from tools.core import cli, console
from tools.core.errors import PipelineError, UsageError
from tools.github.errors import GitHubError
from tools.github.old import GitHub, Response
from tools.images.record import ImageRecord
from tools.release.checks import (
    Problems,
    check_files,
    check_images,
    check_tag,
    check_wheels,
)
from tools.release.notes import changelog_section, compose, installation
from tools.release.owner import this_run
from tools.release.plan import ReleasePlan
from tools.release.prepare import prepare, release_folder
from tools.release.publish import Outcome, Publisher
from tools.repo.context import Context, load_context
from tools.repo.versions import TagVersion
from tools.wheels.archive import Wheel

SOON = 7 * 86400.0  # seconds before a token's end from which on we warn


@dataclass(frozen=True)
class Checked:
    """What the checks found, all in order."""

    version: TagVersion
    commit: str
    repository: str
    wheels: tuple[Wheel, ...]
    images: tuple[ImageRecord, ...]
    generated: str


# --- checks -------------------------------------------------------------------


def check(context: Context, tag: str, repository: str, client: GitHub | None) -> Checked:
    """Check everything, and report all problems together.

    Args:
        context: Settings and event.
        tag: The tag to release.
        repository: ``owner/name``; empty if it is not known.
        client: GitHub, where there is a token.

    Raises:
        PipelineError: Something stands against the release.
    """
    problems = Problems()
    root = context.root
    version, head = check_tag(root, tag, problems)
    platforms = context.settings.wheel_platforms
    wheels = check_wheels(root / "dist", head, version, platforms, problems)
    images = check_images(root, head, version, problems)
    check_files([wheel.path for wheel in wheels], problems)
    generated = ""
    if not repository:
        problems.note(
            UsageError(
                "It is not known which GitHub repository this is.",
                "Set GITHUB_REPOSITORY=owner/name, or the remote origin.",
            )
        )
    elif client is not None and version is not None:
        generated = check_github(client, repository, tag, head, problems)
    problems.report(tag)
    assert version is not None
    return Checked(version, head, repository, tuple(wheels), tuple(images), generated)


def check_github(
    client: GitHub, repository: str, tag: str, head: str, problems: Problems
) -> str:
    """What only GitHub can tell: the token's rights, and the tag there.

    Generating notes needs the right to write contents and changes nothing, so it
    shows whether the token has it.

    Returns:
        The generated notes; empty if there is a problem.
    """
    try:
        path = f"/repos/{repository}/releases/generate-notes"
        answer = client.request("POST", path, json={"tag_name": tag}, repeat=True)
    except GitHubError as error:
        problems.note(error)
        return ""
    _warn_of_expiry(answer)
    try:
        accept = {"Accept": "application/vnd.github.sha"}
        there = client.request("GET", f"/repos/{repository}/commits/tags/{tag}", headers=accept)
        commit = str(there.data)
    except GitHubError as error:
        if error.status not in {404, 422}:
            problems.note(error)
            return ""
        commit = ""
    if not commit:
        problems.add(f"The tag {tag} is not on GitHub.", f"Push it: git push origin {tag}.")
    elif commit != head:
        problems.add(
            f"The tag {tag} on GitHub points at {commit[:7]}, here at {head[:7]}.",
            "Fetch it (git fetch --tags --force), and never move a tag that was pushed.",
        )
    return str(answer.data["body"])


def _warn_of_expiry(answer: Response) -> None:
    """Say it when the token will soon have expired."""
    text = answer.headers.get("github-authentication-token-expiration", "")
    with contextlib.suppress(ValueError):
        end = datetime.strptime(text.replace("UTC", "+0000"), "%Y-%m-%d %H:%M:%S %z")
        if end.timestamp() - time.time() < SOON:
            console.warn(f"The token expires on {end.astimezone(UTC):%Y-%m-%d at %H:%M} UTC.")


# --- plan ---------------------------------------------------------------------


def make_plan(context: Context, checked: Checked, env: Mapping[str, str]) -> ReleasePlan:
    """Fill ``dist/release/``, and say what is to be published."""
    root, version = context.root, str(checked.version.version)
    tag, repository = checked.version.tag, checked.repository
    assets = prepare(root, version, checked.wheels, checked.images, context.created)
    changelog = root / "CHANGELOG.md"
    text = changelog.read_text(encoding="utf-8") if changelog.exists() else ""
    server = env.get("GITHUB_SERVER_URL", "https://github.com").rstrip("/")
    plan = ReleasePlan(
        tag=tag,
        version=version,
        repository=repository,
        commit=checked.commit,
        prerelease=checked.version.is_prerelease,
        assets=assets,
        images=checked.images,
        notes=compose(
            changelog_section(text, version),
            checked.generated,
            installation(server, repository, tag, assets, checked.images),
        ),
    )
    problems = Problems()
    check_files([asset.path for asset in assets], problems)
    problems.report(tag)
    (root / "dist" / "release-notes.md").write_text(plan.notes, encoding="utf-8")
    document = json.dumps(plan.to_json(), indent=2) + "\n"
    (root / "dist" / "release.json").write_text(document, encoding="utf-8")
    return plan


def show(plan: ReleasePlan) -> None:
    """The plan for people."""
    kind = "prerelease" if plan.prerelease else "release"
    rows = [(a.name, console.human_size(a.size), a.sha256) for a in plan.assets]
    console.table(
        ("asset", "size", "SHA-256"),
        rows,
        title=f"{kind} {plan.tag} of {plan.repository} at {plan.commit[:7]}",
    )
    for image in plan.images:
        console.say(f"image: {image.reference}")
    if not plan.images:
        console.say("no image digest is recorded (dist/images/ has none that was pushed)")


def report(plan: ReleasePlan, outcome: Outcome) -> None:
    """How it ended, for people and for later steps."""
    if outcome.what == "nothing to do":
        console.say(f"nothing to do: {plan.tag} is published with these assets: {outcome.url}")
    else:
        console.say(f"{outcome.what} {plan.tag}: {outcome.url}", style="bold green")
    rows = [(a.name, console.human_size(a.size), f"`{a.sha256}`") for a in plan.assets]
    table = console.markdown_table(("asset", "size", "SHA-256"), rows)
    console.step_summary(f"### Release [{plan.tag}]({outcome.url}): {outcome.what}\n\n{table}")
    console.set_output("release-url", outcome.url)
    console.set_output("release-id", str(outcome.number))


# --- command ------------------------------------------------------------------


def publish(
    context: Context, plan: ReleasePlan, client: GitHub, env: Mapping[str, str], replace: bool
) -> Outcome:
    """Bring the release about; see :class:`tools.release.publish.Publisher`."""
    kept = context.root / "dist" / "removed-drafts"
    with this_run(context.root, env) as owner:
        return Publisher(client, plan, owner, kept).run(replace)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = cli.parser("release", "Publish the GitHub release of a version with its wheels.")
    made.add_argument("tag", help="the version's git tag, such as v1.2.3 or v1.2.3-rc1")
    made.add_argument("--dry-run", action="store_true", help="all but publishing")
    made.add_argument(
        "--replace-assets",
        action="store_true",
        help="replace a published release that has other content",
    )
    made.add_argument("--json", action="store_true", help="plan and outcome as JSON on stdout")
    return made


def _no_token() -> int:
    """Without a token: fine on a developer's machine, a mistake in a job of Actions."""
    message = "Not published: no token is set (GH_TOKEN)."
    if console.on_actions():
        raise PipelineError(message, "Pass secrets.GITHUB_TOKEN to the job, as GH_TOKEN.")
    console.warn(f"{message} What would be published is in dist/release/.")
    return 0


def release(
    context: Context, given: argparse.Namespace, client: GitHub, env: Mapping[str, str]
) -> int:
    """Check, prepare, publish."""
    repository = env.get("GITHUB_REPOSITORY") or context.event.repository
    checked = check(context, given.tag, repository, client if client.has_token else None)
    plan = make_plan(context, checked, env)
    show(plan)
    document: dict[str, Any] = {"plan": plan.to_json(), "outcome": None}
    code = 0
    if given.dry_run:
        console.say(f"dry run: nothing was published; see {release_folder(context.root)}")
    elif not client.has_token:
        code = _no_token()
    else:
        outcome = publish(context, plan, client, env, given.replace_assets)
        report(plan, outcome)
        document["outcome"] = {"what": outcome.what, "url": outcome.url, "id": outcome.number}
    if given.json:
        console.emit_json(document)
    return code


def work(given: argparse.Namespace) -> int:
    """Carry out what the command line asks."""
    context = load_context()
    with GitHub.from_settings(context.settings) as client:
        return release(context, given, client, os.environ)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    return cli.main(parser(), argparse.Namespace, work, arguments)


if __name__ == "__main__":
    sys.exit(main())
