"""Whose draft is it: the mark in a draft's body, and who may take a draft over.

A run changes its own draft alone. It may take over the draft of a run that has surely
ended: an earlier attempt of the same job on Actions, or an earlier run in the same
checkout, whose lock we hold now. Any other draft may belong to a run that is alive, and
is left alone until the release is published.
"""

from __future__ import annotations

import contextlib
import json
import re
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from filelock import FileLock, Timeout

_MARK = re.compile(r"<!-- mlc-llm-pipeline (\{.*?\}) -->")


@dataclass(frozen=True)
class Mark:
    """What a draft says of its run.

    Attributes:
        fingerprint: Digest over tag and assets that the run publishes.
        instance: What later attempts of the run have in common with it.
        attempt: Which attempt of it (Actions).
        nonce: This very run.
    """

    fingerprint: str
    instance: str
    attempt: int
    nonce: str

    def to_text(self) -> str:
        """The mark as a comment that Markdown does not show."""
        return f"<!-- mlc-llm-pipeline {json.dumps(asdict(self))} -->"


def read_mark(body: str | None) -> Mark | None:
    """The mark in a draft's body; None if another program or a person made the draft."""
    for text in _MARK.findall(body or ""):
        with contextlib.suppress(ValueError, TypeError):
            return Mark(**json.loads(text))
    return None


@dataclass(frozen=True)
class Owner:
    """This run.

    Attributes:
        instance: What later attempts of this run have in common with it.
        attempt: Which attempt this is; earlier ones have ended.
        alone: Whether no other run of this instance and attempt can be alive.
        nonce: This very run.
    """

    instance: str
    attempt: int
    alone: bool
    nonce: str

    def mark(self, fingerprint: str) -> Mark:
        """What our drafts say."""
        return Mark(fingerprint, self.instance, self.attempt, self.nonce)

    def outlived(self, mark: Mark) -> bool:
        """Whether the run that left a draft has surely ended."""
        if mark.instance != self.instance or mark.nonce == self.nonce:
            return False
        return self.alone or mark.attempt < self.attempt


@contextlib.contextmanager
def this_run(root: Path, env: Mapping[str, str]) -> Iterator[Owner]:
    """Who we are, for as long as we run.

    On Actions the run's number, attempt and job; attempts of one run never overlap.
    Elsewhere the checkout, if no other release runs in it.

    Args:
        root: The checkout.
        env: The environment.
    """
    nonce = uuid.uuid4().hex
    if env.get("GITHUB_RUN_ID"):
        instance = "/".join(["actions", env["GITHUB_RUN_ID"], env.get("GITHUB_JOB", "")])
        attempt = env.get("GITHUB_RUN_ATTEMPT", "")
        yield Owner(instance, int(attempt) if attempt.isdecimal() else 0, False, nonce)
        return
    folder = root / ".nox"
    folder.mkdir(exist_ok=True)
    lock = FileLock(folder / "release.lock", timeout=0)
    try:
        lock.acquire()
    except Timeout:
        yield Owner(f"local/{nonce}", 0, False, nonce)
        return
    try:
        path = folder / "release-instance"
        known = path.read_text(encoding="ascii").strip() if path.exists() else ""
        if not re.fullmatch(r"[0-9a-f]{32}", known):
            known = uuid.uuid4().hex
            path.write_text(known, encoding="ascii")
        yield Owner(f"local/{known}", 0, True, nonce)
    finally:
        lock.release()
