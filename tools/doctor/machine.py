"""The doctor's checks of the machine and the checkout: tools, clone, space, network."""

from __future__ import annotations

import re
import shutil
import socket
import ssl
import sys
import tempfile
import urllib.parse
from pathlib import Path

from packaging.version import Version

from tools.core import process
from tools.core.console import human_size
from tools.core.errors import PipelineError
from tools.core.secrets import remember
from tools.core.settings import names, variable
from tools.doctor.base import (
    Check,
    Result,
    Subject,
    not_applicable,
    ok,
    problem,
    warning,
)
from tools.repo import git

BUILDS = frozenset({"wheels", "docker_dev", "prod_image", "pipeline"})
LEAST_GIT = "2.25"  # the first whose submodules and partial clones we rely on
CERTIFICATE_VARIABLES = (
    "CA_CERTIFICATES",
    "PIP_CERT",
    "SSL_CERT_FILE",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "GIT_SSL_CAINFO",
)
PROXY_VARIABLES = ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY")
PROXY_SCHEMES = {"http", "https", "socks4", "socks4a", "socks5", "socks5h"}


def check_settings(subject: Subject) -> Result:
    """All settings can be read (the error of a wrong one is the sessions' own)."""
    found = subject.settings
    given = sorted(n for n in names() if found.origins.get(n, "default") != "default")
    shown = ", ".join(variable(name) for name in given) or "none"
    return ok(f"All settings are valid; set: {shown}.", "environment, pyproject.toml")


def check_event(subject: Subject) -> Result:
    """What triggered us can be told."""
    event = subject.event
    return ok(f"{event.name} of {event.ref} at {event.short_sha}.", "git, GITHUB_* variables")


def _version_of(subject: Subject, program: str) -> str:
    """The version that ``program --version`` prints; PipelineError if it is missing."""
    path = shutil.which(program, path=subject.env.get("PATH"))
    if path is None:
        raise PipelineError(
            f"The program {program} was not found.",
            f"Install {program} and put it on the PATH.",
        )
    output = process.run([path, "--version"], env=subject.env, timeout=8).output
    match = re.search(r"\d+(\.\d+)+", output)
    return match.group(0) if match else ""


def _noxfile(subject: Subject) -> str:
    try:
        return (subject.root / "noxfile.py").read_text(encoding="utf-8")
    except OSError:
        return ""


def check_python(subject: Subject) -> Result:
    """The sessions' Python is the one that the settings want."""
    found = ".".join(map(str, sys.version_info[:3]))
    wanted = subject.settings.python_version
    if not found.startswith(f"{wanted}."):
        return problem(
            f"This session runs on Python {found}, but PYTHON_VERSION is {wanted}.",
            f"Install Python {wanted} (uv python install {wanted}), or set PYTHON_VERSION.",
            sys.executable,
        )
    return ok(f"Python {found}.", sys.executable)


def check_nox(subject: Subject) -> Result:
    """nox is new enough for the noxfile."""
    match = re.search(r'needs_version = ">=([\d.]+)"', _noxfile(subject))
    wanted = match.group(1) if match else "0"
    try:
        # Told by the noxfile: starting nox to ask it takes longer than all other checks.
        found = subject.env.get("PIPELINE_NOX") or _version_of(subject, "nox")
    except PipelineError:
        return warning("nox is not on the PATH.", "Install it: pip install nox uv.", "PATH")
    if Version(found or "0") < Version(wanted):
        return problem(
            f"nox {found} is too old; the noxfile needs {wanted}.",
            "Upgrade it: pip install --upgrade nox.",
            "nox --version",
        )
    return ok(f"nox {found}.", "nox --version")


def check_uv(subject: Subject) -> Result:
    """uv is there: without it environments are made by virtualenv and pip."""
    try:
        return ok(f"uv {_version_of(subject, 'uv')}.", "uv --version")
    except PipelineError:
        return warning(
            "uv is not on the PATH: environments are made by virtualenv, which takes longer.",
            "Install it: pip install uv.",
            "PATH",
        )


def check_git(subject: Subject) -> Result:
    """git is there and not too old."""
    found = _version_of(subject, "git")
    if Version(found or "0") < Version(LEAST_GIT):
        return problem(
            f"git {found} is too old; {LEAST_GIT} is needed.", "Upgrade git.", "git --version"
        )
    return ok(f"git {found}.", "git --version")


def check_submodules(subject: Subject) -> Result:
    """Submodules are initialised and at the commits that the checkout names."""
    if not (subject.root / ".gitmodules").exists():
        return not_applicable("The repository has no submodules.", ".gitmodules")
    lines = git.git(subject.root, "submodule", "status", "--recursive").splitlines()
    # The leading blank of the first line is lost: only the signs matter.
    missing = [line.split()[1] for line in lines if line.startswith("-")]
    moved = [line.split()[1] for line in lines if line.startswith(("+", "U"))]
    if missing:
        return problem(
            f"Submodules are not initialised: {', '.join(missing)}.",
            "Run git submodule update --init --recursive (on Actions: submodules: recursive).",
            ".gitmodules",
        )
    if moved:
        return warning(
            f"Submodules are at other commits than the checkout names: {', '.join(moved)}.",
            "Run git submodule update --recursive, or commit the change.",
            ".gitmodules",
        )
    return ok(f"{len(lines)} submodules are in place.", ".gitmodules")


def check_clone(subject: Subject) -> Result:
    """The clone has, or can ask for, all tags: floating tags and versions need them."""
    if not git.is_shallow(subject.root):
        count = len(git.tags(subject.root))
        return ok(f"The clone is complete and has {count} tags.", "git")
    git.every_tag(subject.root)  # its error is the sessions' own
    return warning(
        "The clone is shallow: versions between two tags are counted wrongly.",
        "Fetch the rest with git fetch --unshallow --tags (on Actions: fetch-depth: 0).",
        "git",
    )


def _places(subject: Subject) -> list[Path]:
    return [subject.root, Path(subject.env.get("TMPDIR") or tempfile.gettempdir())]


def space(path: Path, needed: int) -> Result:
    """Whether ``path`` has ``needed`` bytes free."""
    free = shutil.disk_usage(path).free
    if free < needed:
        return problem(
            f"Only {human_size(free)} are free in {path}; a build needs "
            f"{human_size(needed)}.",
            "Free some (docker buildx prune, docker image prune, rm -r .nox), or lower "
            "DISK_NEEDED.",
            str(path),
        )
    return ok(f"{human_size(free)} are free in {path}.", str(path))


def check_disk(subject: Subject) -> Result:
    """Room for a build in the checkout and in the folder for temporary files."""
    results = [space(path, subject.settings.disk_needed) for path in _places(subject)]
    return next((result for result in results if result.status == "problem"), results[0])


def check_memory(subject: Subject) -> Result:
    """Memory for at least one compiler."""
    from tools.core import machine

    settings = subject.settings
    free, processors = machine.available_memory(), machine.processors()
    jobs = machine.parallel_jobs(processors, free, settings.build_memory)
    if free < settings.build_memory:
        return warning(
            f"Only {human_size(free)} of memory are free, and one compiler is reckoned with "
            f"{human_size(settings.build_memory)}.",
            "End other programs, use a larger machine, or lower BUILD_MEMORY.",
        )
    return ok(f"{human_size(free)} of memory are free: {jobs} compilers at once.")


def _bundle_fault(path: str) -> str:
    """What is wrong with a certificate bundle; empty if nothing is."""
    if not Path(path).is_file():
        return "is not a file"
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        context.load_verify_locations(path)
    except (OSError, ssl.SSLError):
        return "holds no certificates in PEM form"
    return ""


def check_certificates(subject: Subject) -> Result:
    """Certificate bundles that variables name can be read: pip and buildx would fail."""
    given = {name: subject.env[name] for name in CERTIFICATE_VARIABLES if subject.env.get(name)}
    if "ca_certificates" in subject.settings.origins:
        given.setdefault("CA_CERTIFICATES", subject.settings.ca_certificates)
    given = {name: path for name, path in given.items() if path}
    # Mostly all name the same one, and reading it takes a while.
    faults = {path: _bundle_fault(path) for path in set(given.values())}
    for name, path in given.items():
        if fault := faults[path]:
            return problem(
                f"The certificate bundle {path} ({name}) {fault}.",
                f"Correct {name}, or unset it.",
                name,
            )
    if not given:
        return not_applicable("No certificate bundle is set: the system's own is used.")
    return ok(f"Certificates can be read: {', '.join(given)}.", ", ".join(given))


def _proxy_fault(address: str) -> str:
    """What is wrong with a proxy's address; empty if it answers."""
    parts = urllib.parse.urlsplit(address)
    remember(parts.password or "")
    try:
        port = parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError:
        return "has no valid port"
    if parts.scheme not in PROXY_SCHEMES or not parts.hostname:
        return "is no address such as http://proxy.example:3128"
    try:
        socket.create_connection((parts.hostname, port), timeout=2).close()
    except OSError as error:
        return f"does not answer ({error.strerror or error})"
    return ""


def check_proxy(subject: Subject) -> Result:
    """Proxies that variables name answer: pip, git and buildx would hang or fail."""
    given = {}
    for name in PROXY_VARIABLES:
        both = [subject.env.get(spelling, "") for spelling in (name, name.lower())]
        if all(both) and both[0] != both[1]:
            return problem(
                f"{name} and {name.lower()} name different proxies: programs differ in which "
                "one they follow.",
                "Set both to the same address, or unset one.",
                name,
            )
        if any(both):
            given[name] = both[0] or both[1]
    for name, address in given.items():
        if fault := _proxy_fault(address):
            host = urllib.parse.urlsplit(address).hostname or "it"
            return problem(
                f"The proxy in {name} ({host}) {fault}.", f"Correct {name}, or unset it.", name
            )
    if not given:
        return not_applicable("No proxy is set.", ", ".join(PROXY_VARIABLES))
    return ok(f"The proxy answers: {', '.join(given)}.", ", ".join(given))


CHECKS = (
    Check("settings", "all settings are valid", check_settings),
    Check("event", "what triggered the run can be told", check_event, needs=("git",)),
    Check("python", "the Python that the settings want", check_python, needs=("settings",)),
    Check("nox", "new enough for the noxfile", check_nox),
    Check("uv", "fast environments", check_uv),
    Check("git", "there and not too old", check_git),
    Check("submodules", "initialised", check_submodules, BUILDS, ("git",)),
    Check(
        "clone", "complete enough to know all tags", check_clone,
        BUILDS | {"release", "plan"}, ("git",), limit=15,
    ),
    Check("disk space", "room for a build", check_disk, BUILDS, ("settings",)),
    Check("memory", "enough for a compiler", check_memory, BUILDS, ("settings",)),
    Check("certificates", "bundles that can be read", check_certificates, needs=("settings",)),
    Check("proxy", "proxies that answer", check_proxy),
)  # fmt: skip
