"""The workflow on a real runner, with stand-ins: act runs ci-cd.yml as it is.

What stands in: each pinned action is a folder of ``actions/``, that does the same thing on
this machine; GitHub is the simulated one; the registry is a real one that asks for a login.
docs/extending.md says what this cannot show.
"""

import contextlib
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.e2e.act import STAND_INS, WORKFLOW, Run, pinned_actions, program, titles
from tests.services import actions, project, releases
from tests.services.actions import Actions
from tests.services.github import GitHubServer, Token
from tests.services.packages import PackagesService
from tests.services.project import Project
from tests.services.registry import Registry, running_registry
from tests.workflow.events import Case
from tools.core.janitor import end_tree

REPOSITORY, ACTOR, RUN = "octocat/pipeline", "octocat", 4711
SECRET_TOKEN, JOB_TOKEN = "ghp_e2e0123456789secret", "ghs_e2e0123456789job"
LIMIT = 1100.0  # seconds that a run may take where all processors are busy
# What GITHUB_TOKEN may do in the jobs taken together: act has one token for all of them.
RIGHTS = {"actions": "read", "contents": "write", "packages": "write", "attestations": "write"}
READ_ONLY = {"actions": "read", "contents": "read", "packages": "read"}
# Of the process that runs the tests, or of the run that they are part of.
NOT_OURS = re.compile(
    "(GITHUB|RUNNER|ACTIONS|COV|COVERAGE|PYTEST|NOX|MLC|DOCKER_HUB)_|VIRTUAL_ENV|PYTHONPATH"
    "|GH_TOKEN|CODECOV_TOKEN|SLACK_WEBHOOK_URL|SOURCE_DATE_EPOCH|IMAGE_NAME"
)


@dataclass
class World:
    """A project on a simulated GitHub, with a registry."""

    folder: Path
    project: Project
    server: GitHubServer
    registry: Registry
    old: set[str] = field(default_factory=set)  # digests that were in the package before

    @property
    def artifacts(self) -> Path:
        """A folder an artifact."""
        return self.folder / "artifacts"

    @property
    def image(self) -> Any:
        """The project's package in the registry."""
        return self.registry.repository(REPOSITORY)

    def files(self, artifact: str) -> set[str]:
        """Names of the files of an artifact."""
        root = self.artifacts / artifact
        return {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}

    def caches(self) -> list[dict[str, str]]:
        """What the jobs asked of the cache."""
        path = self.folder / "caches.jsonl"
        return [json.loads(line) for line in path.read_text("utf-8").splitlines()]

    def prepare(self, case: Case) -> str:
        """Let the repository be as the event finds it; the commit that it is about."""
        if case.failing:  # lint
            (self.project.root / "docker/unformatted.py").write_text("x = [ 1,2 ]\n", "utf-8")
            self.project.commit("not formatted")
        sha = self.project.git("rev-parse", "HEAD")
        kind, _, name = case.ref.removeprefix("refs/").partition("/")
        if kind == "tags":
            self.project.git("tag", "-a", name, "-m", name)
        elif name != "main":
            self.project.git("update-ref", case.ref, sha)
        commit = "%(if)%(*objectname)%(then)%(*objectname)%(else)%(objectname)%(end)"
        listed = self.project.git("tag", f"--format=%(refname:short) {commit}").split("\n")
        tags, branches = dict(one.split() for one in listed), (
            {name: sha} if kind == "heads" else {}
        )
        self.server.add_repository(REPOSITORY, tags, branches=branches)
        self.server.add_token(SECRET_TOKEN)
        rights = READ_ONLY if is_fork(case) else RIGHTS
        self.server.add_token(JOB_TOKEN, Token(kind="installation", permissions=rights))
        return sha

    def run(self, case: Case) -> Run:
        """Run the workflow for an event, to its end; its jobs are told to GitHub as they go."""
        sha, told = self.prepare(case), Actions(self.server, REPOSITORY)
        branch = case.head_ref or re.sub("^refs/(heads|tags)/", "", case.ref)
        told.run(RUN, event=case.name, head_branch=branch, head_sha=sha, status="in_progress")
        command, run = self._command(case, sha), Run(code=-1)
        log = (self.folder / "act.log").open("w", encoding="utf-8")
        process = subprocess.Popen(
            command, cwd=self.project.root, env=self._environment(), text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, start_new_session=True,
        )  # fmt: skip
        clock = threading.Timer(LIMIT, end_tree, (process.pid,))
        clock.start()
        try:
            assert process.stdout
            for line in process.stdout:
                log.write(line)
                with contextlib.suppress(ValueError):
                    run.log.append(json.loads(line))
                    self._tell(told, run.log[-1])
            run.code = process.wait()
        finally:
            clock.cancel()
            end_tree(process.pid)
            process.communicate()
            log.close()
        told.run(RUN, status="completed", conclusion="success" if run.code == 0 else "failure")
        return run

    def _tell(self, told: Actions, line: Mapping[str, Any]) -> None:
        """What a line of act's log says of a job, and the artifacts so far, told to GitHub."""
        if "jobResult" in line or line.get("stepID") == ["--setup-job"]:
            title = titles(self.project.root)[line["jobID"]]
            for key, value in (line.get("matrix") or {}).items():
                title = title.replace("${{ matrix.%s }}" % key, str(value))
            done = {"completed_at": releases.now(), "conclusion": line.get("jobResult")}
            state = "completed" if "jobResult" in line else "in_progress"
            told.job(RUN, title, status=state, **(done if "jobResult" in line else {}))
        known = {one["name"] for one in self.server.store.all("artifacts")}
        for folder in self.artifacts.iterdir():
            if folder.name not in known:
                size = sum(path.stat().st_size for path in folder.rglob("*"))
                told.artifact(RUN, folder.name, size)

    def _command(self, case: Case, sha: str) -> list[str]:
        """act's command line, and the files that it names."""
        payload, secrets = self.folder / "event.json", self.folder / "secrets"
        payload.write_text(json.dumps(case.payload(sha, REPOSITORY)), encoding="utf-8")
        values = {"GITHUB_TOKEN": JOB_TOKEN}
        if not is_fork(case):
            values["SLACK_WEBHOOK_URL"] = f"{self.server.url}/services/T0/B0/hook"
        if self.registry.password == SECRET_TOKEN and not is_fork(case):
            values["GH_TOKEN"] = SECRET_TOKEN
        secrets.write_text("".join(f"{k}={v}\n" for k, v in values.items()), encoding="utf-8")
        env = {
            **case.env(sha, REPOSITORY), "SHA_REF": sha, "GITHUB_RUN_ID": str(RUN),
            "GITHUB_API_URL": self.server.url, "GITHUB_SERVER_URL": self.server.url,
        }  # fmt: skip
        runners = ("ubuntu-latest", "ubuntu-24.04-arm", "windows-latest", "macos-15")
        options = [
            f"--workflows={WORKFLOW}", f"--eventpath={payload}", f"--secret-file={secrets}",
            f"--actor={ACTOR}", "--json", "--insecure-secrets", "--no-cache-server",
            "--no-skip-checkout", f"--action-cache-path={self.folder / 'act'}",
            "--env-file=", "--var-file=", "--input-file=", "--pull=false", "--strict",
        ]  # fmt: skip
        options += [f"--platform={one}=-self-hosted" for one in runners]
        options += [f"--env={key}={value}" for key, value in env.items()]
        for action, name in pinned_actions(self.project.root).items():
            options.append(f"--local-repository={action}={STAND_INS / name}")
        return [program("act"), case.name, *options]

    def _environment(self) -> dict[str, str]:
        """The environment of the runner, and so of its jobs, as that of a fresh machine."""
        env = {k: v for k, v in os.environ.items() if not NOT_OURS.match(k)}
        ours = str(Path(sys.executable).parent)
        env["PATH"] = os.pathsep.join(p for p in env["PATH"].split(os.pathsep) if p != ours)
        home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        return {
            "UV_CACHE_DIR": str(home / "uv"), "PIP_CACHE_DIR": str(home / "pip"),
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            "MYPY_CACHE_DIR": str(self.folder.parent / "mypy"), **env,
            "XDG_CACHE_HOME": str(self.folder / "cache"),
            "XDG_CONFIG_HOME": str(self.folder / "config"),
            "GIT_TERMINAL_PROMPT": "0", "GIT_CONFIG_GLOBAL": os.devnull,
            "E2E_PYTHON": sys.executable, "E2E_REPOSITORY": str(self.project.root),
            "E2E_ARTIFACTS": str(self.artifacts), "E2E_CACHES": str(self.folder / "caches.jsonl"),
            "MLC_REGISTRY": self.registry.address, "MLC_LINT_PATHS": "docker",
            "MLC_GITHUB_POINTS_PER_MINUTE": "0",
        }  # fmt: skip


def is_fork(case: Case) -> bool:
    """Whether the event has no secrets, and a token that may only read."""
    return "--fork" in case.options


@contextlib.contextmanager
def make_world(
    folder: Path, token: str = SECRET_TOKEN, change: Callable[[Path], None] | None = None
) -> Iterator[World]:
    """This project as it is, with two commits and the tag v0.9.0 on the first, a GitHub, and a
    registry that takes ``token``: the secret GH_TOKEN, or the job's own where that is not set.
    ``change`` is done to the files before the second commit.
    """
    for name in ("artifacts", "config/act", "project"):
        (folder / name).mkdir(parents=True)
    (folder / "caches.jsonl").touch()
    (folder / "config/act/actrc").touch()  # act asks questions without one
    copy = project.make(folder / "project")
    copy.git("tag", "-a", "v0.9.0", "-m", "v0.9.0")
    if change:
        change(copy.root)
    copy.commit("a change")
    copy.git("config", "uploadpack.allowAnySHA1InWant", "true")
    with running_registry(folder / "registry", ACTOR, token) as registry:
        package = PackagesService(registry)
        routes = [*releases.ROUTES, *package.routes, *actions.ROUTES]
        with GitHubServer(folder / "github", routes) as server:
            yield World(folder, copy, server, registry)
            assert server.errors == [] and server.leaks == []
