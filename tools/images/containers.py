"""Running containers of an image that was built: without network, a production image sealed
as it is meant to run. One that hangs is stopped; none is left behind however we end.
"""

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tools.core import files, process
from tools.core.errors import PipelineError
from tools.core.janitor import Janitor
from tools.core.process import Done
from tools.images import archive, engine, login, probe, record
from tools.repo.context import Context

SOURCE = Path(probe.__file__).read_text(encoding="utf-8")
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
        name = self._name()
        try:
            return self._start(name, (), command)
        except process.TimeLimitError as error:
            raise PipelineError(
                f"The container running {' '.join(command)!r} did not end within "
                f"{self.limit:.0f} s and was stopped; its last output stands above.",
                "Raise TEST_TIMEOUT if it is only slow.",
                process.run(["docker", "logs", "--tail=20", name], check=False).output,
            ) from error
        finally:
            self.janitor.pay("container", name)

    def _name(self) -> str:
        """A name for a container, which the janitor removes if we cannot."""
        name = f"mlc-test-{os.getpid()}-{os.urandom(4).hex()}"
        self.janitor.owe("container", name)
        return name

    def _start(self, name: str, options: Sequence[str], command: Sequence[str]) -> Done:
        """``docker run``, without network (PipelineError: the engine starts nothing)."""
        words = ["docker", "run", f"--name={name}", "--pull=never", "--network=none"]
        words += [*self.options, *options, self.reference, *command]
        done = process.run(words, check=False, timeout=self.limit, mask=False)
        if done.code == 125:  # docker's own
            raise PipelineError(f"The engine did not start a container: {done.tail(1)}.")
        return done

    def serve(self, model: Path) -> tuple[str, dict[str, str]]:
        """Serve a model's folder until the image's own health check says how that went: what
        it says, and what the server answers to a chat (PipelineError: not within the limit).
        """
        name = self._name()
        options = ["--detach", "--health-interval=2s", f"--volume={model}:/model:ro"]
        state = [
            "docker",
            "inspect",
            "--format={{.State.Status}} {{.State.Health.Status}}",
            name,
        ]
        until = time.monotonic() + self.limit
        try:
            self._start(name, options, ("serve", "/model"))
            while (health := process.run(state).stdout.strip()) == "running starting":
                if time.monotonic() > until:
                    break
                time.sleep(0.5)  # the engine has no command that waits for a container's health
            if health != "running healthy":
                raise PipelineError(
                    f"The container that serves {model} is {health or 'gone'}, not healthy, "
                    f"after at most {self.limit:.0f} s; its last output stands above.",
                    "Raise TEST_TIMEOUT if it is only slow.",
                    process.run(["docker", "logs", "--tail=20", name], check=False).output,
                )
            command = ["docker", "exec", name, "python3", "-c", SOURCE, "chat"]
            return health, self._read("chat", process.run(command, check=False, mask=False))
        finally:
            self.janitor.pay("container", name)

    def probe(self, name: str, *arguments: str) -> dict[str, str]:
        """Run a probe of :mod:`tools.images.probe` in the image; what it says."""
        return self._read(name, self.run("python", "-c", SOURCE, name, *arguments))

    @staticmethod
    def _read(name: str, done: Done) -> dict[str, str]:
        """What a probe says."""
        try:
            return files.parse_json(done.stdout.strip().rpartition("\n")[2], dict[str, str])
        except ValueError as error:
            message = f"The probe {name!r} ended with exit code {done.code}."
            raise PipelineError(message, "", done.tail()) from error


@contextmanager
def runner(context: Context, image: str, digest: str = "", file: str = "") -> Iterator[Runner]:
    """Get an image, development or production, and run it: the one in the registry with a
    ``digest``, else that of an OCI archive in a ``file``, else the one that was built last
    (PipelineError: there is no engine, or no such image).
    """
    engine.find_engine()
    reference, digest = _take(context, image, digest, file)
    limit = context.settings.test_timeout
    with process.watched() as janitor:
        yield Runner(janitor, reference, digest, limit, SEALED if image == "production" else ())


def _take(context: Context, image: str, digest: str, file: str) -> tuple[str, str]:
    """Have the engine take the image: what it calls it, and the image's digest."""
    name, loaded = context.settings.image, ""
    if not digest and not file:
        built = record.read(image, context.root)
        name, digest, loaded = built.name, built.digest, built.loaded
        file = str(context.root / built.archive) if built.archive else ""
    if file:
        return _load(image, Path(file), digest)
    if loaded:
        _docker(image, ["image", "inspect", loaded])
        return loaded, digest
    with login.logged_in(login.push_logins(context)) as env:
        _docker(image, ["pull", "--quiet", f"{name}@{digest}"], env)
    return f"{name}@{digest}", digest


def _docker(image: str, command: Sequence[str], env: Mapping[str, str] | None = None) -> None:
    """A command of docker's that takes the image (PipelineError: the engine cannot)."""
    done = process.run(["docker", *command], env=env, check=False)
    if done.code:
        raise PipelineError(
            f"The engine cannot take the {image} image: {done.tail(1)}.",
            f"Build it again with nox -s {record.SESSIONS[image]}.",
        )


def _load(image: str, path: Path, digest: str) -> tuple[str, str]:
    """Load an archive: the engine's id of the image, which is one of the archive's own digests
    (a name may be moved by another run at any time), and the image's digest.
    """
    content = archive.read(path, digest)
    _docker(image, ["load", "--quiet", f"--input={path}"])
    words = ["docker", "image", "inspect", "--format={{.Id}}", content.digest, content.config]
    ids = process.run(words, check=False, mask=False).stdout.split()
    if not ids:  # index.json and manifest.json name different images
        raise PipelineError(
            f"The engine took another image than {content.digest} from {path}.",
            "Take the archive of the same run, or build it again.",
        )
    return ids[0], content.digest
