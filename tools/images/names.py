"""An event's image tags and OCI labels; a git tag that is not a version is a UsageError.

Rules: ``docs/images.md``. Grammar: OCI distribution specification, "Pulling manifests".
"""

import hashlib
import re
from collections.abc import Iterable
from datetime import UTC, datetime

from tools.repo.event import Event
from tools.repo.versions import TagVersion, known_versions, parse_tag

LABEL = "org.opencontainers.image"
OCI_TAG = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}")
# Room for "-" and seven digits of the commit within the 128 characters of a tag.
_LONGEST_BRANCH = 120
# Names that mean something else here; a branch of such a name gets its hash appended.
_RESERVED = re.compile(r"latest|prod|pr(-\d+)?|v?\d.*|.*-prod|.*-[0-9a-f]{7,8}")


def branch_tag(branch: str) -> str:
    """The OCI tag that stands for a branch, different for different branches.

    A name that is a valid tag, and means nothing else, is kept. Any other is made valid and
    gets eight digits of its SHA-256: ``feature/a`` and ``feature-a`` do not share a tag.
    """
    fits = OCI_TAG.fullmatch(branch) and len(branch) <= _LONGEST_BRANCH
    if fits and not _RESERVED.fullmatch(branch):
        return branch
    digest = hashlib.sha256(branch.encode()).hexdigest()[:8]
    valid = re.sub(r"[^a-zA-Z0-9._-]+", "-", branch).strip("-.") or "branch"
    return f"{valid[: _LONGEST_BRANCH - 9].rstrip('-.')}-{digest}"


def floating_tags(new: TagVersion, existing: Iterable[TagVersion]) -> list[str]:
    """``1.2`` and ``1`` of ``v1.2.3``, where they would not move backwards.

    A prerelease moves none; there is no ``0`` (semver: anything may change in 0.y.z);
    and a tag that a higher stable version already holds stays with it.
    """
    if new.is_prerelease:
        return []
    newer = [one for one in existing if not one.is_prerelease and one.version > new.version]
    held = {"0", *(one.minor for one in newer), *(one.major for one in newer)}
    return [tag for tag in (new.minor, new.major) if tag not in held]


def primary_tag(event: Event) -> str:
    """The tag that names the event itself: branch, ``pr-123`` or version tag."""
    if event.pull_request is not None:
        return f"pr-{event.pull_request}"
    if event.tag is not None:
        return parse_tag(event.tag).tag
    return branch_tag(event.branch or event.ref_name)


def development_tags(event: Event, existing: Iterable[str] = ()) -> list[str]:
    """Tags of the development image, the most telling first; ``existing`` are the git tags
    of the repository, of whatever form.
    """
    tags = [primary_tag(event)]
    if event.tag is not None:
        tags += floating_tags(parse_tag(event.tag), known_versions(existing))
    elif event.branch is not None:
        tags.append(f"{tags[0]}-{event.short_sha}")
        tags += ["latest"] if event.on_default_branch else []
    return tags


def moves(tag: str, event: Event) -> bool:
    """Whether a tag is set anew by later events: all do but a commit's and a version's own."""
    fixed = (primary_tag(event), f"{primary_tag(event)}-prod")
    return not tag.endswith(f"-{event.short_sha}") if event.branch else tag not in fixed


def production_tags(event: Event) -> list[str]:
    """Tags of the production image: ``main-prod``, ``v1.2.3-prod``, ``prod``."""
    return [f"{primary_tag(event)}-prod", *(["prod"] if event.on_default_branch else [])]


def labels(event: Event, created: int, server: str = "https://github.com") -> dict[str, str]:
    """OCI labels of an image, the same for the same commit, which was ``created`` so many
    seconds after the epoch; ``server`` is the base address of GitHub.

    Source: OCI image specification, "Pre-Defined Annotation Keys".
    """
    address = f"{server}/{event.repository}" if event.repository else server
    values = {
        "title": "mlc-llm",
        "description": "MLC LLM: universal LLM deployment engine with ML compilation",
        "url": address,
        "source": address,
        "version": str(parse_tag(event.tag).version) if event.tag else primary_tag(event),
        "created": datetime.fromtimestamp(created, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "revision": event.sha,
        "licenses": "Apache-2.0",
    }
    return {f"{LABEL}.{key}": value for key, value in values.items()}
