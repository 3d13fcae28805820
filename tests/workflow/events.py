"""What becomes of every job, for every kind of event: one table.

``plan``, ``pipeline`` and the run of the workflow on a runner are each compared with it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

REPOSITORY = "owner/name"
SHA = "0123456789abcdef0123456789abcdef01234567"
ZEROS = "0" * 40
JOBS = (
    "lint-and-format",
    "build-docker-image",
    "test-docker-image",
    "build-wheels",
    "create-release",
    "build-production-image",
    "cleanup",
)


@dataclass(frozen=True)
class Case:
    """An event as GitHub sends it, as ``plan``'s options describe it, and what it gives."""

    title: str
    name: str  # GITHUB_EVENT_NAME
    ref: str  # GITHUB_REF
    options: str  # of plan and pipeline
    # "success failure -": what becomes of each of JOBS; empty if nothing starts.
    results: str
    failing: str = ""  # the job that is made to fail
    head_ref: str = ""
    base_ref: str = ""
    own: Mapping[str, object] = field(default_factory=dict)  # the event's part of the payload

    def expected(self) -> dict[str, str]:
        """The result of each job."""
        words = self.results.split() or ["-"] * len(JOBS)
        return {
            job: word.replace("-", "skipped") for job, word in zip(JOBS, words, strict=True)
        }

    @property
    def starts(self) -> bool:
        """Whether the event starts a run at all."""
        return bool(self.results)

    def payload(self, sha: str = SHA, repository: str = REPOSITORY) -> dict[str, object]:
        """The event file: what GitHub sends, cut down to what anybody here looks at."""
        owner, _, name = repository.partition("/")
        about: dict[str, object] = {
            "full_name": repository,
            "name": name,
            "owner": {"login": owner},
            "default_branch": "main",
            "private": False,
        }
        own = {"repository": about, "sender": {"login": "somebody"}}
        if self.name == "push":
            after = {"before": ZEROS, "after": sha, "created": False, "deleted": False}
            own |= {"ref": self.ref, **after, "forced": False}
        if self.name == "merge_group":
            group = {"head_sha": sha, "head_ref": self.ref, "base_ref": "refs/heads/main"}
            own |= {"action": "checks_requested", "merge_group": {**group, "base_sha": ZEROS}}
        if self.name == "pull_request":
            full_name = "somebody/fork" if "--fork" in self.options else repository
            repo = {"full_name": full_name, "fork": full_name != repository}
            head = {"ref": self.head_ref, "sha": sha, "repo": repo}
            base = {"ref": self.base_ref, "sha": ZEROS, "repo": about}
            pull = {"number": 7, "draft": False, "head": head, "base": base}
            own |= {"action": "synchronize", "number": 7, "pull_request": pull}
        return {**own, **self.own}

    def env(self, sha: str = SHA, repository: str = REPOSITORY) -> dict[str, str]:
        """The standard variables, but GITHUB_EVENT_PATH."""
        return {
            "GITHUB_EVENT_NAME": self.name,
            "GITHUB_REF": self.ref,
            "GITHUB_SHA": ZEROS if "deleted" in self.own else sha,
            "GITHUB_REPOSITORY": repository,
            "GITHUB_HEAD_REF": self.head_ref,
            "GITHUB_BASE_REF": self.base_ref,
        }


MAIN, TAG = "refs/heads/main", "refs/tags/v1.0.0"
PULL = "refs/pull/7/merge"
QUEUE = f"refs/heads/gh-readonly-queue/main/pr-7-{SHA}"
ALL = "success success success success"  # checked, built, tested, wheels
FORCE = {"inputs": {"force_build": "true"}}

CASES = (
    Case("push to main", "push", MAIN, f"--ref {MAIN}", f"{ALL} - success success"),
    Case(
        "push to develop", "push", "refs/heads/develop", "--ref refs/heads/develop",
        f"{ALL} - - success",
    ),
    Case("tag", "push", TAG, f"--ref {TAG}", f"{ALL} success success success"),
    Case(
        "pull request from a branch", "pull_request", PULL, "--pr 7", f"{ALL} - - success",
        head_ref="topic", base_ref="main",
    ),
    Case(
        "pull request from a fork", "pull_request", PULL, "--pr 7 --fork",
        f"{ALL} - - success", head_ref="topic", base_ref="main",
    ),
    Case(
        "manual with force_build, lint fails", "workflow_dispatch", MAIN, "--force-build",
        "failure success success success - success success", "lint-and-format", own=FORCE,
    ),
    Case(
        "manual", "workflow_dispatch", MAIN, "--event workflow_dispatch",
        f"{ALL} - success success", own={"inputs": {"force_build": "false"}},
    ),
    Case(
        "manual, lint fails", "workflow_dispatch", MAIN, "--event workflow_dispatch",
        "failure - - - - - success", "lint-and-format",
        own={"inputs": {"force_build": "false"}},
    ),
    Case(
        "merge queue", "merge_group", QUEUE, "--event merge_group", f"{ALL} - - success",
    ),
    Case(
        "a branch is deleted", "push", MAIN, f"--ref {MAIN} --sha {ZEROS}", "",
        own={"deleted": True, "after": ZEROS},
    ),
    Case("a tag that is not a version", "push", "refs/tags/vnext", "--ref refs/tags/vnext", ""),
)  # fmt: skip
