"""``requirements.txt`` beside a wheel: all that it requires, in exact versions, with hashes."""

import sys
from collections.abc import Mapping
from pathlib import Path

from tools.core import files, process
from tools.core.errors import PipelineError
from tools.core.failures import Failure, explain
from tools.wheels.archive import REQUIREMENTS, Wheel

# How uv calls what pip's variables say, which our users set; uv's own win.
_UV_NAMES = {
    "PIP_INDEX_URL": "UV_DEFAULT_INDEX",
    "PIP_EXTRA_INDEX_URL": "UV_INDEX",
    "PIP_NO_INDEX": "UV_NO_INDEX",
    "PIP_FIND_LINKS": "UV_FIND_LINKS",
    "PIP_CERT": "SSL_CERT_FILE",
}
FAILURES = (
    Failure(
        r"(?:Failed to fetch|error sending request|Could not connect)",
        "The package index cannot be reached, so what {wheel} requires cannot be pinned.",
        "Check the network; UV_DEFAULT_INDEX or PIP_INDEX_URL names another index.",
    ),
    Failure(
        r"Because (?:(?:only|there (?:is|are) no versions? of) )?(?P<name>[\w.-]+)[<>=!~]?\S* "
        r"(?:was not found|is available|and )",
        "{wheel} requires {name}, which no package index has in that version.",
        "Correct the requirement, or name its place: UV_INDEX, UV_FIND_LINKS.",
    ),
)


def uv_environment(env: Mapping[str, str]) -> dict[str, str]:
    """``env`` with what pip's variables say under uv's names, where those are not set."""
    found = {ours: env[theirs] for theirs, ours in _UV_NAMES.items() if theirs in env}
    if "UV_FIND_LINKS" in found:
        found["UV_FIND_LINKS"] = ",".join(found["UV_FIND_LINKS"].split())
    return {**found, **env}


def pin(wheel: Wheel, folder: Path, env: Mapping[str, str]) -> Path:
    """Resolve what a wheel requires, and what that requires, for every platform; the file
    in ``folder`` with versions and hashes, empty but there if the wheel requires nothing.

    Each package has a comment ``# via`` with who requires it. Universal: the same file serves
    the images of x86 and Arm, whose packages differ by markers. PipelineError: something
    cannot be found, or does not fit together.

    Source: docs.astral.sh/uv, "Locking environments", and pip's "Secure installs".
    """
    pinned = folder / REQUIREMENTS
    pinned.unlink(missing_ok=True)  # uv would keep to the versions in it
    python = ".".join(map(str, sys.version_info[:2]))
    command = [
        sys.executable, "-m", "uv", "pip", "compile", "-", "--universal", "--quiet",
        f"--python-version={python}", "--generate-hashes", "--no-header",
        "--no-emit-index-url", f"--no-emit-package={wheel.project}", f"--output-file={pinned}",
    ]  # fmt: skip
    requirement = f"{wheel.project} @ {wheel.path.resolve().as_uri()}"
    done = process.run(command, env=uv_environment(env), stdin=requirement, check=False)
    if done.code:
        message = f"What {wheel.name} requires does not fit together."
        remedy = "See below which exclude each other; the source declares them."
        error = PipelineError(message, remedy)
        raise explain(done.output, FAILURES, error, wheel=wheel.name)
    # After it uv names what we left out.
    text = pinned.read_text(encoding="utf-8").partition("\n# The following packages")[0]
    files.write(pinned, text.lstrip())
    return pinned
