"""One build with ``docker buildx``: the plan as data, the command, the run, the errors."""

from __future__ import annotations

import json
import os
import re
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from tools.core import process
from tools.core.console import say, warn
from tools.core.errors import PipelineError, UsageError
from tools.core.process import Done
from tools.images import login
from tools.images.engine import Builder, Engine

PUSH, LOAD, OCI = "push", "load", "oci"

# The last line of buildx where a registry is overloaded, restarts, or writes a tag just now.
# BuildKit tries some of that again by itself; the engine's push, which its own driver uses,
# gives up.
PASSING = re.compile(
    r"^ERROR: (.*(?:unexpected (?:HTTP )?status\b.*: 5\d\d\b.*|TLS handshake timeout|"
    r"(?:read|write) tcp .*: (?:connection reset by peer|i/o timeout)|unexpected EOF|: EOF))$",
    re.MULTILINE,
)
PAUSES = (2.0, 8.0)  # seconds before the second and the third attempt


@dataclass(frozen=True)
class BuildPlan:
    """All that decides a build.

    Attributes:
        image: ``development`` or ``production``.
        stage: The Dockerfile's stage to build.
        references: Full references that name the result.
        labels: OCI labels.
        platforms: ``linux/amd64``, ...; several make an index.
        output: ``push``, ``load`` or ``oci``.
        reason: Why that output.
        archive: Where an OCI archive goes.
        build_args: Build arguments.
        contexts: Named contexts: name -> folder.
        cache_from: ``--cache-from`` values.
        cache_to: ``--cache-to`` values.
        builder: Name of the builder; empty for the current one.
        provenance: Whether provenance is attested.
        ca_certificates: The certificate bundle handed in as a build secret, if any.
        created: Seconds since the epoch that stand in the image (``SOURCE_DATE_EPOCH``).
    """

    image: str
    stage: str
    references: tuple[str, ...]
    labels: Mapping[str, str]
    platforms: tuple[str, ...]
    output: str
    reason: str
    archive: str = ""
    build_args: Mapping[str, str] = field(default_factory=dict)
    contexts: Mapping[str, str] = field(default_factory=dict)
    cache_from: tuple[str, ...] = ()
    cache_to: tuple[str, ...] = ()
    builder: str = ""
    provenance: bool = True
    ca_certificates: str = ""
    created: int = 0

    def to_json(self) -> dict[str, Any]:
        """The plan as plain data."""
        return asdict(self)


@dataclass(frozen=True)
class Built:
    """What came out: the digest of the index or manifest, as buildx reports it."""

    digest: str
    config_digest: str


def layer_cache(
    plan_output: str, image: str, name: str, env: Mapping[str, str]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Where layers are kept between builds: values of ``--cache-from`` and ``--cache-to``.

    The Actions cache where its variables are present, else a registry cache beside the
    image when pushing, else nothing: the builder's own cache.

    Source: docs.docker.com, "Cache storage backends": gha needs ``ACTIONS_RUNTIME_TOKEN``
    and the address of the service.
    """
    service = env.get("ACTIONS_RESULTS_URL") or env.get("ACTIONS_CACHE_URL")
    if env.get("ACTIONS_RUNTIME_TOKEN") and service:
        # A cache that cannot be written must not fail a build.
        scope = f"type=gha,scope={name}"
        return (scope,), (f"{scope},mode=max,ignore-error=true",)
    if plan_output == PUSH:
        reference = f"type=registry,ref={image}:buildcache-{name}"
        options = "mode=max,image-manifest=true,oci-mediatypes=true,ignore-error=true"
        return (reference,), (f"{reference},{options}",)
    return (), ()


def fit_to_builder(plan: BuildPlan, engine: Engine, builder: Builder) -> BuildPlan:
    """The plan as this builder can carry it out.

    Raises:
        UsageError: It cannot; the sentence says what would be needed.

    Source: docs.docker.com, "Build drivers": the docker driver needs the containerd image
    store for attestations, several platforms and cache export; ``--load`` from any other
    driver goes through the docker exporter, which takes one manifest.
    """
    changes: dict[str, Any] = {}
    store = engine.containerd_store
    if builder.is_local and not store:
        if plan.output != LOAD or len(plan.platforms) > 1:
            raise UsageError(
                f"The builder in use (driver docker, engine {engine.version} without the "
                "containerd image store) cannot attest provenance.",
                "Create one that can (docker buildx create --name mlc --driver "
                "docker-container) and set BUILDX_BUILDER=mlc, or turn on the containerd "
                "image store.",
            )
        changes |= {"provenance": False, "cache_to": ()}
    if not builder.is_local and plan.output == LOAD:
        if len(plan.platforms) > 1:
            raise UsageError(
                f"The builder {builder.name or builder.driver} cannot load an image of "
                f"{len(plan.platforms)} platforms into the local engine.",
                "Build with --output oci, or set PLATFORMS to one platform.",
            )
        changes["provenance"] = False
    return replace(plan, **changes)


def with_contexts(plan: BuildPlan, folders: Mapping[str, str]) -> BuildPlan:
    """The plan with more named contexts."""
    return replace(plan, contexts={**plan.contexts, **folders})


def command(plan: BuildPlan, metadata: Path, archive: Path | None = None) -> list[str]:
    """The ``docker buildx build`` command of a plan.

    Args:
        plan: What to build.
        metadata: Where buildx writes the digest.
        archive: Where the OCI archive goes for the time being.
    """
    made = ["docker", "buildx", "build", "--file", "Dockerfile", "--target", plan.stage]
    if plan.builder:
        made += ["--builder", plan.builder]
    made += ["--platform", ",".join(plan.platforms)]
    for name, value in plan.build_args.items():
        made += ["--build-arg", f"{name}={value}"]
    for name, folder in plan.contexts.items():
        made += ["--build-context", f"{name}={folder}"]
    if plan.ca_certificates:
        made += ["--secret", f"id=ca-certificates,src={plan.ca_certificates}"]
    for name, value in plan.labels.items():
        made += ["--label", f"{name}={value}"]
    for reference in plan.references:
        made += ["--tag", reference]
    made += [f"--cache-from={source}" for source in plan.cache_from]
    made += [f"--cache-to={target}" for target in plan.cache_to]
    made += [f"--provenance={'true' if plan.provenance else 'false'}"]
    output = {PUSH: ["--push"], LOAD: ["--load"], OCI: [f"--output=type=oci,dest={archive}"]}
    made += output[plan.output]
    return [*made, "--progress", "plain", "--metadata-file", str(metadata), "."]


def _syntax_error(output: str, plan: BuildPlan) -> PipelineError | None:
    match = re.search(r"dockerfile parse error on line (\d+): (.+)", output)
    match = match or re.search(
        r"Dockerfile:(\d+)\b[\s\S]*?ERROR: .*?failed to solve: (.+)", output
    )
    if match and "did not complete successfully" not in match.group(2):
        return PipelineError(
            f"Dockerfile, line {match.group(1)}: {match.group(2).strip()}.",
            "Correct that line; nox -s lint shows what hadolint says of it.",
        )
    return None


def _failed_step(output: str, plan: BuildPlan) -> PipelineError | None:
    match = re.search(r"process \"(.+?)\" did not complete successfully: (.+)", output)
    if match is None:
        return None
    step = re.sub(r"\s+", " ", match.group(1))
    step = step if len(step) < 120 else step[:117] + "..."
    certificate = re.search(r"CERTIFICATE_VERIFY_FAILED|certificate verify failed", output)
    remedy = (
        "Set CA_CERTIFICATES to the certificate bundle of your network."
        if certificate
        else "Read the step's own output above."
    )
    return PipelineError(f"The build step {step!r} failed ({match.group(2)}).", remedy)


def missing_base(reference: str) -> PipelineError:
    """The error for a base image that neither the engine nor its registry has."""
    return PipelineError(
        f"The base image {reference} cannot be had.",
        "Check its name and the network; set BASE_IMAGE to a mirror or a local image.",
    )


def _missing_base(output: str, plan: BuildPlan) -> PipelineError | None:
    match = re.search(
        r"(?:failed to resolve source metadata for|load metadata for) (\S+)", output
    )
    if match is None or "failed to resolve source metadata" not in output:
        return None
    return missing_base(match.group(1).rstrip(":"))


def _refused(output: str, plan: BuildPlan) -> PipelineError | None:
    pattern = (
        r"failed to authorize|401 Unauthorized|authentication required|denied|no basic auth"
    )
    host = plan.references[0].split("/")[0] if plan.references else "the registry"
    # A base image that needs no login fails in the same words: see whose name is there.
    if re.search(pattern, output) and (host in output or plan.output == PUSH):
        return login.explain(host, output)
    return None


def _no_space(output: str, plan: BuildPlan) -> PipelineError | None:
    if "no space left on device" not in output:
        return None
    return PipelineError(
        "The disk of the Docker engine is full.",
        "Free some: docker buildx prune, docker image prune.",
    )


def _passing(output: str, plan: BuildPlan) -> PipelineError | None:
    trouble = PASSING.search(output)
    if trouble is None:
        return None
    return PipelineError(
        f"A registry does not work as it should, {len(PAUSES) + 1} times in a row: "
        f"{trouble.group(1)}.",
        "See its status page, then run the session again: what was built is kept.",
    )


DIAGNOSES: tuple[Callable[[str, BuildPlan], PipelineError | None], ...] = (
    _no_space,
    _failed_step,
    _missing_base,
    _passing,
    _refused,
    _syntax_error,
)


def diagnose(output: str, plan: BuildPlan) -> PipelineError:
    """The error behind the output of a failed build, with what to do about it."""
    tail = "\n".join(output.splitlines()[-12:])
    for look in DIAGNOSES:
        found = look(output, plan)
        if found is not None:
            return type(found)(found.message, found.remedy, tail)
    errors = re.findall(r"^ERROR: (.+)$", output, re.MULTILINE)
    last = errors[-1] if errors else "see the output above"
    return PipelineError(f"The image build failed: {last}.", "See nox -s doctor.", tail)


def insist(attempt: Callable[[], Done]) -> Done:
    """Run a command of buildx, again where a registry was in passing trouble.

    What has been built and pushed is there already: only the rest is done again.

    Args:
        attempt: Runs the command.

    Returns:
        What the last attempt left.
    """
    for pause in PAUSES:
        done = attempt()
        trouble = PASSING.search(done.output) if done.code else None
        if trouble is None:
            return done
        warn(f"{trouble.group(1)}; trying again in {pause:.0f} s")
        time.sleep(pause)
    return attempt()


def build(plan: BuildPlan, root: Path, env: Mapping[str, str]) -> Built:
    """Carry a plan out.

    Args:
        plan: What to build.
        root: The build context.
        env: The environment of docker, logged in where a login is needed.

    Raises:
        PipelineError: The build failed, sorted out by :func:`diagnose`.
    """
    with tempfile.TemporaryDirectory(prefix="mlc-build-") as folder:
        metadata = Path(folder) / "metadata.json"
        target = Path(plan.archive) if plan.archive else None
        part = target.with_name(f".{target.name}.part") if target else None
        if part is not None:
            part.parent.mkdir(parents=True, exist_ok=True)
        # buildx hands SOURCE_DATE_EPOCH on: the times within the image are the commit's.
        inside = {**env, "SOURCE_DATE_EPOCH": str(plan.created)}
        line = command(plan, metadata, part)
        done = insist(lambda: process.stream(line, env=inside, cwd=root, check=False, show=say))
        if done.code:
            if part is not None:
                part.unlink(missing_ok=True)
            raise diagnose(done.output, plan)
        if part is not None and target is not None:
            os.replace(part, target)
        found = json.loads(metadata.read_text(encoding="utf-8"))
    return Built(
        digest=str(found.get("containerimage.digest", "")),
        config_digest=str(found.get("containerimage.config.digest", "")),
    )
