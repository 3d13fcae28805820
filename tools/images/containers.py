"""Running containers of an image that was built: without network, a production image sealed
as it is meant to run. One that hangs is stopped; none is left behind however we end.
"""

import os
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tools.core import files, process
from tools.core.errors import PipelineError, UsageError
from tools.core.janitor import Janitor
from tools.core.process import Done
from tools.images import engine, login, probe, record
from tools.registry.manifest import parse_manifest
from tools.repo.context import Context

SEALED = ("--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges")


@dataclass(frozen=True)
class Runner:
    """Runs containers of one image, each removed whatever happens."""

    janitor: Janitor  # who removes them if we cannot
    reference: str  # what the engine calls the image
    digest: str  # its digest in the registry
    limit: float  # seconds that one container may take
    options: tuple[str, ...] = ()  # more for ``docker run``

    def run(self, *command: str) -> Done:
        """Run the image's entrypoint with a command (PipelineError: not within the limit)."""
        name = f"mlc-test-{os.getpid()}-{os.urandom(4).hex()}"
        words = ["docker", "run", f"--name={name}", "--pull=never", "--network=none"]
        words += [*self.options, self.reference, *command]
        self.janitor.owe("container", name)
        try:
            done = process.run(words, check=False, timeout=self.limit, mask=False)
            if done.code == 125:  # docker's own
                raise PipelineError(f"The engine did not start a container: {done.tail(1)}.")
            return done
        except process.TimeLimitError as error:
            raise PipelineError(
                f"The container running {' '.join(command)!r} did not end within "
                f"{self.limit:.0f} s and was stopped; its last output stands above.",
                "Raise TEST_TIMEOUT if it is only slow.",
                process.run(["docker", "logs", "--tail=20", name], check=False).output,
            ) from error
        finally:
            self.janitor.pay("container", name)

    def probe(self, name: str, *arguments: str) -> dict[str, str]:
        """Run a probe of :mod:`tools.images.probe` in the image; what it says."""
        source = Path(probe.__file__).read_text(encoding="utf-8")
        done = self.run("python", "-c", source, name, *arguments)
        try:
            return files.parse_json(done.stdout.strip().rpartition("\n")[2], dict[str, str])
        except ValueError as error:
            message = f"The probe {name!r} ended with exit code {done.code}."
            raise PipelineError(message, "", done.tail()) from error


@contextmanager
def runner(
    context: Context, image: str, digest: str = "", archive: str = ""
) -> Iterator[Runner]:
    """Get an image, development or production, and run it: the one in the registry with a
    ``digest``, else that of an OCI ``archive``, else the one that was built last
    (PipelineError: there is no engine, or no such image).
    """
    engine.find_engine()
    command, digest = _choose(context, image, digest, archive)
    logins = login.push_logins(context) if command[0] == "pull" else []
    with login.logged_in(logins) as env:
        done = process.run(["docker", *command], env=env, check=False, mask=False)
    if done.code:
        raise PipelineError(
            f"The engine cannot take the {image} image: {done.tail(1)}.",
            "Build it again; an OCI archive needs engine 25 or newer.",
        )
    name, limit = done.stdout.split()[-1], context.settings.test_timeout
    with process.watched() as janitor:
        yield Runner(janitor, name, digest, limit, SEALED if image == "production" else ())


def _choose(context: Context, image: str, digest: str, archive: str) -> tuple[list[str], str]:
    """The command that ends with what the engine calls the image, and the image's digest."""
    name = context.settings.image
    if not digest and not archive:
        built = record.read(image, context.root)
        if built.loaded:
            return ["image", "inspect", "--format={{.Id}}", built.loaded], built.digest
        name, digest = built.name, built.digest
        archive = str(context.root / built.archive) if built.archive else ""
    if not archive:
        return ["pull", "--quiet", f"{name}@{digest}"], digest
    try:  # Source: OCI image layout specification, index.json
        with tarfile.open(archive) as layout:
            member = layout.extractfile("index.json")
            assert member is not None
            actual = parse_manifest(member.read()).children[0].digest
    except (OSError, tarfile.TarError, KeyError, ValueError, IndexError) as error:
        remedy = "Give the file that --output oci wrote."
        raise UsageError(f"{archive} is not an OCI archive: {error}.", remedy) from error
    if digest and actual != digest:
        remedy = "Take the archive of the same run, or build it again."
        raise PipelineError(f"{archive} holds {actual}, not {digest}.", remedy)
    return ["load", "--quiet", f"--input={archive}"], actual
