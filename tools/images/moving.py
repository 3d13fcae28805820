"""Tags that move, and when they stay: a slower, older run may end after a newer one.

A branch's tags stay where the image that has them is of a commit that ours does not
contain, unless the branch ends in ours (it was reset, or rewritten). A version's floating
tags stay with a higher version.
"""

import re
from collections.abc import Mapping
from dataclasses import replace

from packaging.version import VERSION_PATTERN, Version

from tools.core import console, process
from tools.core.errors import PipelineError
from tools.core.settings import github_server
from tools.images import build
from tools.images.names import LABEL
from tools.images.plan import BuildPlan
from tools.registry import client as registry
from tools.repo import git
from tools.repo.context import Context

# GitHub's registry refuses what is not there yet; where we lack the right, the push says so.
ABSENT = r"(?i)not found|unknown|denied|unauthorized|forbidden"


def keep_newer(plan: BuildPlan, context: Context, env: Mapping[str, str]) -> BuildPlan:
    """The plan without the tags that would move back; ``env`` is logged in at the registry
    (PipelineError: it, or on Actions origin, cannot be asked).
    """
    name = context.settings.image
    moving = [ref for ref in plan.moving if ref.startswith(f"{name}:")]
    held = {ref: labels(ref, plan.builder, env) for ref in moving}
    newer = {ref.rpartition(":")[2] for ref in moving if is_newer(held[ref], context)}
    if newer:
        console.say(f"{', '.join(sorted(newer))}: not moved, as a newer run has set it")
    stay = [ref for ref in plan.references if ref.rpartition(":")[2] in newer]
    return replace(plan, references=tuple(r for r in plan.references if r not in stay))


def labels(reference: str, builder: str, env: Mapping[str, str]) -> Mapping[str, str]:
    """The OCI labels of the image that a tag names; none if there is no such image."""
    words = ["docker", "buildx", "imagetools", "inspect", "--format={{json .Image}}", reference]
    words += [f"--builder={builder}"] if builder else []
    done = process.again(lambda: process.run(words, env=env, check=False), build.passing)
    if done.code and re.search(ABSENT, done.output):
        return {}
    if done.code:
        raise PipelineError(
            f"{reference} cannot be looked at: {done.tail(1)}.", "See nox -s doctor."
        )
    # A tag may be anybody's: an image of one platform or several, or no image at all.
    return dict(re.findall(rf'"({LABEL}\.\w+)": *"([^"]*)"', done.stdout))


def is_newer(held: Mapping[str, str], context: Context) -> bool:
    """Whether an image with such labels is of a newer run than this one."""
    event, root = context.event, context.root
    if event.tag:
        version = held.get(f"{LABEL}.version", "")
        is_ours = re.fullmatch(VERSION_PATTERN, version, re.VERBOSE | re.IGNORECASE)
        return bool(is_ours) and Version(version) > Version(context.version)
    theirs = held.get(f"{LABEL}.revision", event.sha)
    if theirs == event.sha or git.contains(root, event.sha, theirs):
        return False
    return branch_head(context) != event.sha


def branch_head(context: Context) -> str:
    """The commit that the event's branch ends in: at origin on Actions, else here.

    Source: git-config, ``http.extraHeader``: empty, it forgets those of the checkout.
    """
    ref, root = f"refs/heads/{context.event.branch}", context.root
    if not console.on_actions():
        return git.git(root, "rev-parse", "--verify", "--quiet", ref, check=False)
    token = registry.basic("x-access-token", context.settings.gh_token)
    config = {"GIT_CONFIG_COUNT": "2", "GIT_CONFIG_VALUE_0": ""}
    config |= {f"GIT_CONFIG_KEY_{i}": f"http.{github_server()}/.extraheader" for i in (0, 1)}
    config["GIT_CONFIG_VALUE_1"] = f"Authorization: {token}"
    try:
        found = git.git(root, "ls-remote", "origin", ref, timeout=git.REMOTE_LIMIT, env=config)
    except PipelineError as error:
        raise PipelineError(
            f"Whether {ref} has moved on cannot be told, and so whether its tags may.",
            "Run the job again; the token needs contents: read.",
            error.message,
        ) from error
    return found.partition("\t")[0]
