"""One build with ``docker buildx``: its context, its command, its run, its failures."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

from tools.core import files, process
from tools.core.console import human_size
from tools.core.errors import PipelineError, UsageError
from tools.core.failures import Failure, explain
from tools.core.process import Done
from tools.images import login, record
from tools.images.engine import Builder, Engine
from tools.images.plan import LOAD, OCI, PUSH, BuildPlan

# The last line of buildx where a registry is overloaded, restarts, or writes a tag just now.
# BuildKit tries some of that again by itself; the engine's push, which its own driver uses,
# gives up.
PASSING = (
    r"^ERROR: (?P<trouble>.*(?:unexpected (?:HTTP )?status\b.*: 5\d\d\b.*|"
    # A copy may send a manifest before the registry has all of its blobs.
    r"unexpected status from PUT request to \S+/manifests/\S+: 400\b.*|"
    r"TLS handshake timeout|(?:read|write) tcp .*: (?:connection reset by peer|i/o timeout)|"
    r"unexpected EOF|: EOF))$"
)
_STEP = (
    r'process "(?P<step>[^\n]{1,100})[^\n]*?" did not complete successfully: (?P<end>[^\n]+)'
)
_STEP_FAILED = "The build step '{step}' failed ({end})."
MISSING_BASE = Failure(
    r"failed to resolve source metadata for (?P<base>\S+): ",
    "The base image {base} cannot be found.",
    "Check its name and the network; set BASE_IMAGE to a mirror or a local image.",
)
FAILURES = (
    Failure(
        r"no space left on device",
        "The disk of the Docker engine is full.",
        "Free some: docker buildx prune, docker image prune.",
    ),
    Failure(
        rf"(?is)certificate[_ ]verify[_ ]failed.*{_STEP}",
        _STEP_FAILED,
        "Set CA_CERTIFICATES to the certificate bundle of your network.",
    ),
    Failure(_STEP, _STEP_FAILED, "Read the step's own output above."),
    MISSING_BASE,
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


def diagnose(output: str, host: str = "") -> PipelineError:
    """The error behind the output of a failed build of an image for a registry's ``host``."""
    errors = re.findall(r"^(?:#\d+ )?ERROR: (.+)$", output, re.MULTILINE)
    last = errors[-1] if errors else "see the output above"
    other = PipelineError(f"The image build failed: {last}.", "See nox -s doctor.")
    refusal = explain(last, login.REFUSALS, other, host=host)
    return explain(output, FAILURES, refusal, attempts=str(len(process.PAUSES) + 1))


def missing_base(reference: str) -> PipelineError:
    """The error for a base image that neither the engine nor its registry has."""
    return PipelineError(MISSING_BASE.message.format(base=reference), MISSING_BASE.remedy)


def passing(done: Done) -> str:
    """What a failed command of buildx has to say of a registry's passing trouble."""
    match = re.search(PASSING, done.output, re.MULTILINE)
    return match["trouble"] if match else ""


def check_context(root: Path, limit: int) -> str:
    """Size and number of the files that are sent to the builder, as ``.dockerignore`` leaves
    them (its rules are applied by the Docker SDK for Python).

    Raises:
        UsageError: They have over ``limit`` bytes; the largest are named.
    """
    from docker.utils.build import exclude_paths

    ignore = root / ".dockerignore"
    lines = ignore.read_text(encoding="utf-8").splitlines() if ignore.exists() else []
    rules = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    paths = [root / name for name in exclude_paths(str(root), rules)]
    sent = [path for path in paths if path.is_file() and not path.is_symlink()]
    sizes = sorted(((path.stat().st_size, path) for path in sent), reverse=True)
    whole = sum(size for size, _ in sizes)
    if whole > limit:
        entries = [
            f"  {human_size(size):>10}  {path.relative_to(root).as_posix()}"
            for size, path in sizes[:10]
        ]
        raise UsageError(
            f"The build context is {human_size(whole)}, over the limit of {human_size(limit)}; "
            "its largest entries stand above.",
            "Add them to .dockerignore, or raise CONTEXT_LIMIT.",
            "\n".join(entries),
        )
    return f"{human_size(whole)} in {len(sent)} files"


def fit_to_builder(plan: BuildPlan, engine: Engine, builder: Builder) -> BuildPlan:
    """The plan as this builder can carry it out.

    Raises:
        UsageError: It cannot; the sentence says what would be needed.

    Source: docs.docker.com, "Build drivers": the docker driver needs the containerd image
    store for attestations, several platforms and cache export; ``--load`` from any other
    driver goes through the docker exporter, which takes one manifest.
    """
    loads = plan.output == LOAD
    if engine.containerd_store and builder.is_local or not (loads or builder.is_local):
        return plan
    if loads and len(plan.platforms) == 1:
        cache_to = () if builder.is_local else plan.cache_to
        return replace(plan, provenance=False, cache_to=cache_to)
    if builder.is_local:
        raise UsageError(
            f"The builder in use (driver docker, engine {engine.version} without the "
            "containerd image store) cannot attest provenance.",
            "Create one that can (docker buildx create --name mlc --driver docker-container) "
            "and set BUILDX_BUILDER=mlc, or turn on the containerd image store.",
        )
    raise UsageError(
        f"The builder {builder.name or builder.driver} cannot load an image of "
        f"{len(plan.platforms)} platforms into the local engine.",
        "Build with --output oci, or set PLATFORMS to one platform.",
    )


def command(
    plan: BuildPlan, metadata: Path, wheels: Path | None = None, archive: Path | None = None
) -> list[str]:
    """The ``docker buildx build`` command of a plan.

    Args:
        plan: What to build.
        metadata: Where buildx writes the digest.
        wheels: The folder that holds the plan's wheels.
        archive: Where the OCI archive goes for the time being.
    """
    certificates = f"--secret=id=ca-certificates,src={plan.ca_certificates}"
    outputs = {PUSH: "--push", LOAD: "--load", OCI: f"--output=type=oci,dest={archive}"}
    return [
        "docker", "buildx", "build", "--file=Dockerfile", f"--target={plan.image}",
        *([f"--builder={plan.builder}"] if plan.builder else []),
        f"--platform={','.join(plan.platforms)}",
        *(f"--build-arg={name}={value}" for name, value in plan.build_args.items()),
        *([f"--build-context=wheels={wheels}"] if wheels else []),
        *([certificates] if plan.ca_certificates else []),
        *(f"--label={name}={value}" for name, value in plan.labels.items()),
        *(f"--tag={reference}" for reference in plan.references),
        *(f"--cache-from={source}" for source in plan.cache_from),
        *(f"--cache-to={target}" for target in plan.cache_to),
        f"--provenance={'true' if plan.provenance else 'false'}", outputs[plan.output],
        "--progress=plain", f"--metadata-file={metadata}", ".",
    ]  # fmt: skip


def build(plan: BuildPlan, root: Path, env: Mapping[str, str]) -> str:
    """Carry a plan out.

    Args:
        plan: What to build.
        root: The build context.
        env: The environment of docker, logged in where a login is needed.

    Returns:
        The digest of the index or manifest, as buildx reports it.

    Raises:
        PipelineError: The build failed, sorted out by :func:`diagnose`.
    """
    scratch = record.folder(root) / f".build-{plan.image}"
    shutil.rmtree(scratch, ignore_errors=True)  # of a run that was killed
    wheels, metadata = scratch / "wheels", scratch / "metadata.json"
    wheels.mkdir(parents=True)
    archive = files.replaced(Path(plan.archive)) if plan.archive else nullcontext()
    # buildx hands SOURCE_DATE_EPOCH on: the times within the image are the commit's.
    env = {**env, "SOURCE_DATE_EPOCH": str(plan.created)}
    try:
        for wheel in plan.wheels:
            shutil.copy2(wheel, wheels)
        with archive as part:
            words = command(plan, metadata, wheels if plan.wheels else None, part)
            done = process.again(
                lambda: process.stream(words, env=env, cwd=root, check=False), passing
            )
            if done.code:
                raise diagnose(done.output, plan.references[0].partition("/")[0])
        return str(files.read_json(metadata, dict[str, object])["containerimage.digest"])
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
