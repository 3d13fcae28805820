"""``docker_test``: the very image that was built does what its users need.

Each test runs in containers without network; the production image besides read-only,
without capabilities and without new privileges, as it is meant to run. A container that
hangs is stopped after a limit, and none is left behind however we end.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tarfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tools.core import cli, console
from tools.core.errors import PipelineError, UsageError
from tools.core.janitor import Janitor
from tools.images import engine
from tools.images import probe as image_probe
from tools.images import record as image_record
from tools.images.record import ImageRecord
from tools.registry import client as registry
from tools.repo.context import Context, load_context

if TYPE_CHECKING:
    from docker import DockerClient
    from docker.models.images import Image

TYPES = ("basic", "import", "help")
COMMANDS = {
    "development": ("help", "version", "python", "shell", "mlc_llm", "build"),
    "production": ("help", "version", "python", "shell", "mlc_llm", "healthcheck"),
}
HARDENED: dict[str, Any] = {
    "read_only": True,
    "cap_drop": ["ALL"],
    "security_opt": ["no-new-privileges"],
}


@dataclass(frozen=True)
class Check:
    """One line of a test's table."""

    what: str
    wanted: str
    found: str
    passed: bool


@dataclass(frozen=True)
class Ran:
    """What a container left: exit code and output."""

    code: int
    output: str


def container_options(image: str) -> dict[str, Any]:
    """How containers of an image are run: without network, production hardened."""
    return {"network_mode": "none", **(HARDENED if image == "production" else {})}


class Runner:
    """Runs containers of one image, each removed whatever happens.

    Args:
        client: The engine.
        reference: Digest or id of the image.
        options: Options of every container.
        limit: Seconds that one container may take.
        janitor: Who removes them if we cannot.
    """

    def __init__(
        self,
        client: DockerClient,
        reference: str,
        options: dict[str, Any],
        limit: float,
        janitor: Janitor,
    ) -> None:
        self._client = client
        self.reference = reference
        self._options = options
        self._limit = limit
        self._janitor = janitor

    def run(self, *command: str) -> Ran:
        """Run the image's entrypoint with a command, to its end.

        Raises:
            PipelineError: It did not end within the limit; its last output is shown.
        """
        from requests.exceptions import ConnectionError as LostError
        from requests.exceptions import Timeout

        name = f"mlc-test-{os.getpid()}-{os.urandom(4).hex()}"
        self._janitor.owe("container", name)
        try:
            container = self._client.containers.run(
                self.reference, list(command), name=name, detach=True, **self._options
            )
            try:
                code = int(container.wait(timeout=self._limit)["StatusCode"])
            except (Timeout, LostError) as error:
                tail = container.logs(tail=20).decode(errors="replace")
                container.kill()
                raise PipelineError(
                    f"The container running {' '.join(command)!r} did not end within "
                    f"{self._limit:.0f} s and was stopped; its last output stands above.",
                    "Raise TEST_TIMEOUT if it is only slow.",
                    tail,
                ) from error
            return Ran(code, container.logs().decode(errors="replace"))
        finally:
            self._janitor.pay("container", name)


# --- the image ---------------------------------------------------------------


@contextmanager
def connected() -> Iterator[DockerClient]:
    """The engine, through the Docker SDK for Python (EngineError if there is none)."""
    import docker
    from docker.errors import DockerException

    # Asked with the command line first, which says best what is wrong.
    engine.find_engine()
    try:
        client = docker.from_env(timeout=300)
    except DockerException as error:
        raise engine.explain(str(error), os.environ.get("DOCKER_HOST", "")) from error
    try:
        yield client
    finally:
        client.close()


def archive_digest(path: Path) -> str:
    """The digest of the image in an OCI archive, from its ``index.json``.

    Source: OCI image layout specification.

    Raises:
        UsageError: The file is not such an archive.
    """
    try:
        with tarfile.open(path) as archive:
            member = archive.extractfile("index.json")
            assert member is not None
            manifests = json.load(member)["manifests"]
            return str(manifests[0]["digest"])
    except (OSError, tarfile.TarError, KeyError, ValueError, IndexError) as error:
        raise UsageError(
            f"{path} is not an OCI archive: {error}.",
            "Give the file that --output oci wrote.",
        ) from error


def load_archive(client: DockerClient, path: Path) -> Image:
    """Load an OCI archive into the engine."""
    from docker.errors import APIError

    try:
        with path.open("rb") as handle:
            loaded = client.images.load(handle)
    except APIError as error:
        raise PipelineError(
            f"The engine cannot load {path.name}: {error.explanation}.",
            "OCI archives need engine 25 or newer.",
        ) from error
    if not loaded:
        raise PipelineError(f"The engine found no image in {path.name}.")
    return loaded[0]


def pull(client: DockerClient, context: Context, name: str, digest: str) -> Image:
    """Pull an image by digest; the login goes with the request, nowhere else.

    Raises:
        PipelineError: It is not there, or the registry wants another login.
    """
    from docker.errors import APIError, ImageNotFound, NotFound

    user, password = registry.login(context.settings, context.event.actor)
    auth = {"username": user, "password": password.reveal()} if password else None
    try:
        return client.images.pull(name, tag=digest, auth_config=auth)
    except (ImageNotFound, NotFound) as error:
        raise PipelineError(
            f"{name}@{digest} is not in the registry.", "Run nox -s docker_dev -- --push again."
        ) from error
    except APIError as error:
        raise PipelineError(
            f"{name}@{digest} cannot be pulled: {error.explanation}.", "See nox -s doctor."
        ) from error


def find_loaded(client: DockerClient, record: ImageRecord) -> Image:
    """The image of a record that was loaded into the engine, which must still be it."""
    from docker.errors import ImageNotFound

    for reference in (record.digest, *record.tags[:1]):
        try:
            image = client.images.get(reference)
        except ImageNotFound:
            continue
        if record.digest in {image.id, *_repo_digests(image)} or reference == record.digest:
            return image
        # Without the containerd store the id is the digest of the configuration, which
        # the label of the commit ties to the record.
        label = "org.opencontainers.image.revision"
        if (image.labels or {}).get(label) == record.revision:
            return image
    raise PipelineError(
        f"The engine no longer has the {record.image} image that was built "
        f"({record.digest[:19]}).",
        "Build it again.",
    )


def _repo_digests(image: Image) -> list[str]:
    listed = image.attrs.get("RepoDigests") or []
    return [str(entry).rpartition("@")[2] for entry in listed]


def get_image(
    client: DockerClient, context: Context, given: argparse.Namespace
) -> tuple[str, str]:
    """What to run and its digest: by option, else as the record of the build says."""
    if given.archive:
        path = Path(given.archive)
        digest = archive_digest(path)
        if given.digest and digest != given.digest:
            raise PipelineError(
                f"{path} holds {digest}, not {given.digest} as was asked for.",
                "Take the archive of the same run.",
            )
        return str(load_archive(client, path).id), digest
    if given.digest:
        name = context.settings.image
        return str(pull(client, context, name, given.digest).id), given.digest
    record = image_record.read(given.image, context.root)
    if record.output == "push":
        return str(pull(client, context, record.name, record.digest).id), record.digest
    if record.output == "oci":
        path = context.root / record.archive
        if archive_digest(path) != record.digest:
            raise PipelineError(
                f"{record.archive} is not what was recorded.", "Build it again."
            )
        return str(load_archive(client, path).id), record.digest
    return str(find_loaded(client, record).id), record.digest


# --- the tests ---------------------------------------------------------------


def check_basic(runner: Runner, image: str, context: Context) -> list[Check]:
    """The entrypoint's help names every subcommand; an unknown one is refused with 2."""
    shown = runner.run("help")
    found = [Check("exit code of help", "0", str(shown.code), shown.code == 0)]
    words = {line.split()[0] for line in shown.output.splitlines() if line.strip()}
    for name in COMMANDS[image]:
        there = name in words
        found.append(Check(f"help names {name}", "yes", "yes" if there else "no", there))
    unknown = runner.run("no-such-command")
    found.append(Check("unknown command", "exit 2", f"exit {unknown.code}", unknown.code == 2))
    return found


def probe(runner: Runner, name: str, *arguments: str) -> dict[str, Any]:
    """Run a probe of :mod:`tools.images.probe` in the image; what it found.

    Raises:
        PipelineError: It did not run to its end.
    """
    source = Path(image_probe.__file__).read_text(encoding="utf-8")
    ran = runner.run("python", "-c", source, name, *arguments)
    try:
        if ran.code:
            raise ValueError
        found: dict[str, Any] = json.loads(ran.output.strip().splitlines()[-1])
        return found
    except (ValueError, IndexError) as error:
        raise PipelineError(
            f"The probe {name!r} ended with exit code {ran.code}.", "", ran.output[-2000:]
        ) from error


def check_import(runner: Runner, image: str, context: Context) -> list[Check]:
    """Python has the right version, and its packages import and fit together."""
    found = probe(runner, "import", *image_probe.MODULES[image])
    wanted = context.settings.python_version
    version = str(found["python"])
    checks = [Check("Python", wanted, version, version.startswith(f"{wanted}."))]
    for name, problem in found["modules"].items():
        checks.append(Check(f"import {name}", "works", problem or "works", not problem))
    if image == "production":
        ran = runner.run("mlc_llm", "--version")
        last = (ran.output.strip().splitlines() or [""])[-1]
        expected = expected_version(context)
        fits = ran.code == 0 and (expected in last if expected else True)
        checks.append(Check("mlc_llm --version", expected or "any", last, fits))
    conflicts = found["conflicts"]
    text = "; ".join(conflicts) or "none"
    return [*checks, Check("conflicts between packages", "none", text, not conflicts)]


def expected_version(context: Context) -> str:
    """The version of the wheel in the production image, if its record is here."""
    try:
        return image_record.read("production", context.root).version
    except PipelineError:
        return ""


def check_help(runner: Runner, image: str, context: Context) -> list[Check]:
    """Every tool is there at its minimum version; in production, none that builds."""
    if image == "production":
        found = probe(runner, "absent", *image_probe.ABSENT)
        checks = [Check("user", "not root", f"uid {found['uid']}", found["uid"] != 0)]
        for name in image_probe.ABSENT:
            where = found["present"].get(name, "")
            checks.append(Check(name, "absent", where or "absent", not where))
        return checks
    settings = context.settings
    wanted = {"python3": settings.python_version, "cmake": settings.cmake_version}
    wanted |= image_probe.MINIMUMS
    found = probe(runner, "tools", *wanted)
    return [compare_tool(name, least, str(found[name])) for name, least in wanted.items()]


def compare_tool(name: str, least: str, found: str) -> Check:
    """A tool's version against its minimum; an empty version is a missing tool."""
    numbers = image_probe.numbers
    passed = bool(found) and numbers(found) >= numbers(least)
    return Check(name, f">= {least}", found or "missing", passed)


TESTS = {"basic": check_basic, "import": check_import, "help": check_help}


def report(
    test_type: str, image: str, digest: str, checks: Sequence[Check], took: float
) -> None:
    """Show the table, to the person and in the job's summary."""
    rows = [(c.what, c.wanted, c.found, "ok" if c.passed else "FAILED") for c in checks]
    headings = ("check", "wanted", "found", "result")
    console.table(headings, rows, title=f"{test_type}: {image} image {digest[:19]}")
    title = f"### {image} image, test {test_type}, {took:.0f} s\n\n`{digest}`\n\n"
    console.step_summary(title + console.markdown_table(headings, rows))


def work(given: argparse.Namespace) -> int:
    """Get the image, test it, report."""
    context = load_context()
    started = time.monotonic()
    with connected() as client, Janitor() as janitor:
        reference, digest = get_image(client, context, given)
        limit = context.settings.test_timeout
        runner = Runner(client, reference, container_options(given.image), limit, janitor)
        checks = TESTS[given.type](runner, given.image, context)
    report(given.type, given.image, digest, checks, time.monotonic() - started)
    failed = [check.what for check in checks if not check.passed]
    if failed:
        raise PipelineError(
            f"The {given.image} image failed the test {given.type}: {', '.join(failed)}.",
            "The table above shows what was found; on Actions force_build goes on regardless.",
        )
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """``python -m tools.images.test TYPE``."""
    made = cli.parser("docker_test", "Test the image that was built.")
    made.add_argument("type", choices=TYPES, help=argparse.SUPPRESS)
    made.add_argument("--image", choices=image_record.IMAGES, default="development")
    made.add_argument("--digest", default="", help="sha256:... of an image in the registry")
    made.add_argument("--archive", default="", help="an OCI archive in place of a registry")
    return cli.main(made, argparse.Namespace, work, arguments)


if __name__ == "__main__":
    sys.exit(main())
