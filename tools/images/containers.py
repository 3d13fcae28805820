"""Running containers of an image that was built, through the Docker SDK for Python.

Each has no network, a production image runs sealed as it is meant to; one that hangs is
stopped after a limit, and none is left behind however we end.
"""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tools.core import files
from tools.core.errors import PipelineError, UsageError
from tools.core.janitor import Janitor
from tools.images import engine, probe, record
from tools.registry import client as registry
from tools.registry.manifest import parse_manifest
from tools.repo.context import Context

if TYPE_CHECKING:
    from docker import DockerClient
    from docker.models.images import Image


@dataclass(frozen=True)
class Runner:
    """Runs containers of one image, each removed whatever happens."""

    client: DockerClient
    janitor: Janitor  # who removes them if we cannot
    reference: str  # id of the image
    digest: str  # its digest in the registry
    limit: float  # seconds that one container may take
    sealed: bool = False  # read-only, without capabilities and new privileges

    def run(self, *command: str) -> tuple[int, str]:
        """Run the image's entrypoint with a command, to its end; exit code and output.

        Raises:
            PipelineError: It did not end within the limit; its last output is shown.
        """
        from requests.exceptions import ConnectionError, Timeout

        name = f"mlc-test-{os.getpid()}-{os.urandom(4).hex()}"
        self.janitor.owe("container", name)
        try:
            container = self.client.containers.run(
                self.reference, list(command), name=name, detach=True, network_mode="none",
                read_only=self.sealed, cap_drop=["ALL"] if self.sealed else None,
                security_opt=["no-new-privileges"] if self.sealed else None,
            )  # fmt: skip
            try:
                code = int(container.wait(timeout=self.limit)["StatusCode"])
            except (Timeout, ConnectionError) as error:
                raise PipelineError(
                    f"The container running {' '.join(command)!r} did not end within "
                    f"{self.limit:.0f} s and was stopped; its last output stands above.",
                    "Raise TEST_TIMEOUT if it is only slow.",
                    container.logs(tail=20).decode(errors="replace"),
                ) from error
            return code, container.logs().decode(errors="replace")
        finally:
            self.janitor.pay("container", name)

    def probe(self, name: str, *arguments: str) -> dict[str, str]:
        """Run a probe of :mod:`tools.images.probe` in the image; what it found.

        Raises:
            PipelineError: It did not run to its end.
        """
        source = Path(probe.__file__).read_text(encoding="utf-8")
        code, output = self.run("python", "-c", source, name, *arguments)
        try:
            return files.parse_json(output.strip().rpartition("\n")[2], dict[str, str])
        except ValueError as error:
            message = f"The probe {name!r} ended with exit code {code}."
            raise PipelineError(message, "", output[-2000:]) from error


@contextmanager
def runner(
    context: Context, image: str, digest: str = "", archive: str = ""
) -> Iterator[Runner]:
    """Get an image, and run it.

    Args:
        context: Settings and event.
        image: ``development`` or ``production``.
        digest: Of an image in the registry; empty for the one that was built last.
        archive: An OCI archive in place of a registry.

    Raises:
        PipelineError: There is no engine, or no such image.
    """
    import docker
    from docker.errors import DockerException

    # Asked with the command line first, which says best what is wrong.
    engine.find_engine()
    try:
        client = docker.from_env(timeout=300)
    except DockerException as error:
        raise engine.unreachable(str(error), os.environ) from error
    with closing(client), Janitor() as janitor:
        try:
            found, digest = _get_image(client, context, image, digest, archive)
        except (DockerException, IndexError) as error:
            raise PipelineError(
                f"The engine cannot take the {image} image: {error}.",
                "Build it again; an OCI archive needs engine 25 or newer.",
            ) from error
        limit, sealed = context.settings.test_timeout, image == "production"
        yield Runner(client, janitor, str(found.id), digest, limit, sealed)


def _get_image(
    client: DockerClient, context: Context, image: str, digest: str, archive: str
) -> tuple[Image, str]:
    """The image and its digest: as asked for, else as the record of the build says."""
    name = context.settings.image
    if not digest and not archive:
        built = record.read(image, context.root)
        if built.loaded:
            return client.images.get(built.loaded), built.digest
        name, digest = built.name, built.digest
        archive = str(context.root / built.archive) if built.archive else ""
    if archive:
        found = _archive_digest(Path(archive))
        if digest and found != digest:
            remedy = "Take the archive of the same run, or build it again."
            raise PipelineError(f"{archive} holds {found}, not {digest}.", remedy)
        with open(archive, "rb") as handle:
            return client.images.load(handle)[0], found
    # The login goes with the request, nowhere else.
    user, password = registry.login(context.settings, context.event.actor)
    login = {"username": user, "password": password.reveal()} if password else None
    return client.images.pull(name, tag=digest, auth_config=login), digest


def _archive_digest(path: Path) -> str:
    """The digest of the image in an OCI archive, from its ``index.json``.

    Source: OCI image layout specification.
    """
    try:
        with tarfile.open(path) as archive:
            member = archive.extractfile("index.json")
            assert member is not None
            return parse_manifest(member.read()).children[0].digest
    except (OSError, tarfile.TarError, KeyError, ValueError, IndexError) as error:
        remedy = "Give the file that --output oci wrote."
        raise UsageError(f"{path} is not an OCI archive: {error}.", remedy) from error
