"""One build with ``docker buildx``: its context, its command, its run, its failures."""

import re
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from tools.core import files, process
from tools.core.console import human_size
from tools.core.errors import PipelineError, UsageError
from tools.core.failures import Failure, explain
from tools.core.process import Done
from tools.images import archive, login, record, wheels
from tools.images.engine import Engine
from tools.images.plan import CACHE, LOAD, OCI, PUSH, BuildPlan

# The last line of buildx where a registry is overloaded, restarts, or writes a tag just now;
# BuildKit tries some of that again, the engine's push, which its own driver uses, does not.
PASSING = (
    r"^ERROR: (?P<trouble>.*(?:unexpected (?:HTTP )?status\b.*: 5\d\d\b.*|"
    r"TLS handshake timeout|(?:read|write) tcp .*: (?:connection reset by peer|i/o timeout)|"
    r"unexpected EOF|: EOF))$"
)
SECRET = "MLC_SECRET_"  # before the variables that hold build secrets
_STEP = r'process "(?P<step>[^\n]{1,100})[^\n]*?" did not complete successfully: (?P<end>.+)'
_STEP_FAILED = "The build step '{step}' failed ({end})."
FAILURES = (
    Failure(
        r"no space left on device",
        "The disk of the Docker engine is full.",
        "Free some: docker buildx prune, docker image prune.",
    ),
    Failure(
        rf"(?i)certificate[_ ]verify[_ ]failed[\s\S]*{_STEP}",
        _STEP_FAILED,
        "Set CA_CERTIFICATES to the certificate bundle of your network.",
    ),
    Failure(_STEP, _STEP_FAILED, "Read the step's own output above."),
    Failure(
        r"failed to resolve source metadata for (?P<base>\S+): ",
        "The base image {base} cannot be found.",
        "Check its name and the network; set BASE_IMAGE to a mirror or a local image.",
    ),
    Failure(
        PASSING,
        "A registry does not work as it should, {attempts} times in a row: {trouble}.",
        "See its status page, then run the session again: what was built is kept.",
    ),
    Failure(
        r"(?:error on line |Dockerfile:)(?P<line>\d+)\b(?:: |[\s\S]*?failed to solve: )"
        r"(?:dockerfile parse error on line \d+: )?(?P<problem>.+)",
        "Dockerfile, line {line}: {problem}.",
        "Correct that line; nox -s lint shows what hadolint says of it.",
    ),
)


def diagnose(output: str) -> PipelineError:
    """The error behind the output of a failed build."""
    errors = re.findall(r"^(?:#\d+ )?ERROR: (.+)$", output, re.MULTILINE)
    last = errors[-1] if errors else "see the output above"
    host = re.search(r"(?:failed to push |https?://)([^/\s]+)", last)
    other = f"The image build failed: {last}."
    refusal = login.explain(host[1] if host else "of the image", last, other)
    return explain(output, FAILURES, refusal, attempts=str(len(process.PAUSES) + 1))


def passing(done: Done) -> str:
    """What a failed command of buildx has to say of a registry's passing trouble."""
    match = re.search(PASSING, done.output, re.MULTILINE)
    return match["trouble"] if match else ""


def check_context(root: Path, limit: int) -> str:
    """Size and number of the files that are sent to the builder, as ``.dockerignore`` leaves
    them (UsageError: they have over ``limit`` bytes; the largest are named).
    """
    from docker.utils.build import exclude_paths

    ignore = root / ".dockerignore"
    lines = ignore.read_text(encoding="utf-8").splitlines() if ignore.exists() else []
    rules = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    paths = [root / name for name in exclude_paths(str(root), rules)]
    sent = [path for path in paths if path.is_file() and not path.is_symlink()]
    sizes = {path.relative_to(root).as_posix(): path.stat().st_size for path in sent}
    whole = human_size(sum(sizes.values()))
    if sum(sizes.values()) > limit:
        largest = sorted(sizes, key=lambda name: -sizes[name])[:10]
        raise UsageError(
            f"The build context is {whole}, over the limit of {human_size(limit)}; its largest "
            "entries stand above.",
            "Add them to .dockerignore, or raise CONTEXT_LIMIT.",
            "\n".join(f"  {human_size(sizes[name]):>10}  {name}" for name in largest),
        )
    return f"{whole} in {len(sizes)} files"


def fit_to_builder(plan: BuildPlan, engine: Engine, driver: str) -> BuildPlan:
    """The plan as a builder with this driver can carry it out (UsageError: it cannot).

    Source: docs.docker.com, "Build drivers": the docker driver needs the containerd image
    store for attestations, several platforms and cache export; ``--load`` from any other
    driver goes through the docker exporter, which takes one manifest.
    """
    local, loads = driver == "docker", plan.output == LOAD
    if local and engine.containerd_store or not (local or loads):
        return plan
    if loads and (len(plan.platforms) == 1 or not local):
        return replace(plan, provenance=False, cache_to=() if local else plan.cache_to)
    lacking = {
        PUSH: "push an image whose provenance is attested",
        OCI: "write an archive",
        LOAD: "build for several platforms",
    }
    raise UsageError(
        f"The builder in use (driver docker, engine {engine.version} without the "
        f"containerd image store) cannot {lacking[plan.output]}.",
        "Create one that can (docker buildx create --name mlc --driver docker-container) "
        "and set BUILDX_BUILDER=mlc, or turn on the containerd image store.",
    )


def command(plan: BuildPlan, folder: Path, secrets: Iterable[str] = ()) -> list[str]:
    """The ``docker buildx build`` command of a plan: from ``folder`` it takes the wheels, and
    it writes the metadata and an OCI archive there. ``secrets`` stand in the environment.
    """
    file = f"--output=type=oci,dest={folder}/image.tar"
    outputs = {PUSH: "--push", LOAD: "--load", OCI: file, CACHE: "--output=type=cacheonly"}
    certificates = f"--secret=id=ca-certificates,src={plan.ca_certificates}"
    return [
        "docker", "buildx", "build", "--file=Dockerfile", f"--target={plan.image}",
        *([f"--builder={plan.builder}"] if plan.builder else []),
        f"--platform={','.join(plan.platforms)}",
        *(f"--build-arg={name}={value}" for name, value in plan.build_args.items()),
        *([f"--build-context=wheels={folder}/wheels"] if plan.wheels else []),
        *([certificates] if plan.ca_certificates else []),
        *(f"--secret=id={name},env={SECRET}{name}" for name in secrets),
        *(f"--label={name}={value}" for name, value in plan.labels.items()),
        *(f"--tag={reference}" for reference in plan.references),
        *(f"--cache-from={source}" for source in plan.cache_from),
        *(f"--cache-to={target}" for target in plan.cache_to),
        f"--provenance={'true' if plan.provenance else 'false'}", outputs[plan.output],
        "--progress=plain", f"--metadata-file={folder}/metadata.json", ".",
    ]  # fmt: skip


def build(plan: BuildPlan, root: Path, env: Mapping[str, str]) -> str:
    """Carry a plan out with ``root`` as the build context, in an environment in which docker
    is logged in; the digest of the index or manifest, as buildx reports it, if there is one.
    """
    folder = record.folder(root)
    scratch = folder / f".build-{plan.image}"
    shutil.rmtree(scratch, ignore_errors=True)  # of a run that was killed
    scratch.mkdir(parents=True)
    # buildx hands SOURCE_DATE_EPOCH on: the times within the image are the commit's.
    env = {**env, "SOURCE_DATE_EPOCH": str(plan.created)}
    places = wheels.indexes(env) if plan.wheels else {}
    env |= {f"{SECRET}{name}": value for name, value in places.items()}
    words = command(plan, scratch, places)
    try:
        if plan.wheels:
            links = env.get("UV_FIND_LINKS") or env.get("PIP_FIND_LINKS", "")
            wheels.hand_in(scratch / "wheels", plan.wheels, plan.without, links)
        done = process.again(
            lambda: process.stream(words, env=env, cwd=root, check=False), passing
        )
        if done.code:
            raise diagnose(done.output)
        if plan.output == CACHE:
            return ""
        if plan.output == OCI:
            archive.add_docker_manifest(scratch / "image.tar", plan.references)
            (scratch / "image.tar").replace(folder / f"{plan.image}.oci.tar")
        metadata = files.read_json(scratch / "metadata.json", dict[str, object])
        return str(metadata["containerimage.digest"])
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
