"""Typed settings: environment, else the repository's variables on Actions, else
``[tool.mlc-pipeline]``, else a default.

Each variable may also be given as ``MLC_<NAME>``, which wins: base images export names as
short as ``PYTHON_VERSION`` for purposes of their own.
"""

import json
import os
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TypeVar, cast

from tools.core import console
from tools.core.errors import UsageError
from tools.core.secrets import Secret, forget, remember_userinfo

ROOT = Path(__file__).resolve().parents[2]
# Other well-known variables that stand in for a setting's own, first come first served.
FALLBACKS = {
    "image_name": ("GITHUB_REPOSITORY",),
    "ca_certificates": ("PIP_CERT", "SSL_CERT_FILE"),
    "gh_token": ("GITHUB_TOKEN",),
}
_SIZES = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9}
_SIZES |= {"kib": 2**10, "mib": 2**20, "gib": 2**30}

T = TypeVar("T")


def parse_size(text: str) -> int:
    """Bytes of ``50 MB``, ``1.5GiB`` or ``2000``; ValueError says the accepted forms."""
    match = re.fullmatch(r"\s*([0-9]{1,15}(?:\.[0-9]{1,9})?)\s*([a-zA-Z]*)\s*", text)
    if not match or match[2].lower() not in _SIZES:
        raise ValueError("a size such as 2000, 50 MB or 1.5 GiB")
    return int(float(match[1]) * _SIZES[match[2].lower()])


def parse_duration(text: str) -> float:
    """Seconds of ``0``, ``45s``, ``90m``, ``36h`` or ``30d``; ValueError otherwise."""
    match = re.fullmatch(r"\s*(?:0|([0-9]{1,9}(?:\.[0-9]{1,9})?)([smhd]))\s*", text)
    if match is None:
        raise ValueError("a duration such as 0, 45s, 90m, 36h or 30d")
    units = {"s": 1, "m": 60, "h": 3600, "d": 86400}
    return float(match[1]) * units[match[2]] if match[1] else 0.0


def _matching(pattern: str, forms: str, lower: bool = False) -> Callable[[str], str]:
    """A parser: the pattern's first group; its ValueError says the accepted forms."""

    def parse(text: str) -> str:
        match = re.fullmatch(pattern, text.lower() if lower else text)
        if match is None:
            raise ValueError(forms)
        return match[1]

    return parse


_HOST = _matching(
    r"((?:\[[0-9a-f:]+\]|[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?)(?::\d+)?)",
    "a registry host such as ghcr.io or 127.0.0.1:5000, without https://",
    lower=True,
)
# The grammar of <name> in the OCI distribution specification.
_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_NAME = _matching(rf"({_PART}(?:/{_PART})*)", "an image name such as owner/name", lower=True)
_VERSION = _matching(r"([0-9]+(?:\.[0-9]+)*)", "a version such as 3.24")
_PYTHON = _matching(r"(3\.[0-9]{1,3})(?:\.[0-9]{1,3})?", "a Python version such as 3.11")
_URL = _matching(r"(https?://[^\s/]+\S*?)/*", "an address such as https://api.github.com")
_PLATFORM = _matching(
    r"([a-z0-9]+/[a-z0-9_]+(?:/v\d+)?)",
    "platforms such as linux/amd64 or linux/amd64,linux/arm64",
)
# No options: what is installed from where is for the installer's own settings.
_REQUIREMENT = _matching(
    r"([A-Za-z0-9][\w.-]*(?:\[[\w.-]+\])?(?:[<>=!~]=?=?[\w.*+!]+)?)",
    "packages such as numpy or mlc-ai-nightly-cpu==0.20, without blanks",
)
_PARSERS = {int: parse_size, float: parse_duration, Secret: Secret, tuple: str, str: str}


def setting(default: T, about: str, parse: Callable[[str], object] | None = None) -> T:
    """A field of :class:`Settings`; ``parse`` is that of its default's type if not given,
    and takes one word of a list.
    """
    parser = parse or _PARSERS[type(default)]
    return field(default=default, metadata={"parse": parser, "about": about})


@dataclass(frozen=True)
class Settings:
    """All settings, checked. Each field's variable is its name in capitals."""

    registry: str = setting("ghcr.io", "Registry that images go to.", _HOST)
    image_name: str = setting(
        "afzaal0007/mlc-llm-pipeline",
        "owner/name of the image; GITHUB_REPOSITORY on Actions.",
        _NAME,
    )
    python_version: str = setting("3.11", "Python of all sessions and images.", _PYTHON)
    cmake_version: str = setting("3.24", "Minimum CMake.", _VERSION)
    platforms: tuple[str, ...] = setting(
        ("linux/amd64",), "Platforms of the images; several make an index.", _PLATFORM
    )
    base_image: str = setting("", "Base image instead of the one pinned in the Dockerfile.")
    buildx_builder: str = setting(
        "", "buildx builder to use (container, Kubernetes, remote); the engine's own."
    )
    context_limit: int = setting(50_000_000, "Largest build context that is not refused.")
    ca_certificates: str = setting(
        "", "Certificate bundle that builds trust (PIP_CERT, SSL_CERT_FILE if unset)."
    )
    image_without: tuple[str, ...] = setting(
        ("datasets", "flashinfer-python", "pandas", "torch", "transformers"),
        "Packages that the wheel requires and the production image leaves out, with what only "
        "they require; none for all.",
        _matching(r"([A-Za-z0-9][\w.-]*)", "names of packages"),
    )
    image_limit: int = setting(2_500_000_000, "Largest production image that passes its test.")
    test_timeout: float = setting(120.0, "Limit of one test container.")
    mlc_llm_source: str = setting(
        "",
        "Folder or git+https://...@ref that wheels are built from; package/ if unset.",
        remember_userinfo,  # refused where it is used, but --debug shows it before
    )
    wheel_platforms: tuple[str, ...] = setting(
        ("linux-x64", "windows-x64"), "Platforms that a release must have wheels of."
    )
    wheel_exclude: tuple[str, ...] = setting(
        (), "Libraries that auditwheel leaves out (file names)."
    )
    wheel_test_requires: tuple[str, ...] = setting(
        (), "Packages installed beside a wheel when it is tested.", _REQUIREMENT
    )
    wheel_requires: tuple[str, ...] = setting(
        (), "Packages that the source needs and does not declare, in any flavour.", _REQUIREMENT
    )
    wheel_version: str = setting(
        "pipeline",
        "Whose version wheels have: pipeline (git's tag) or source.",
        _matching("(pipeline|source)", "pipeline or source"),
    )
    wheel_container: str = setting(
        "auto",
        "Whether compiled Linux wheels are built in a container: auto (if an engine is there) "
        "or never.",
        _matching("(auto|never)", "auto or never"),
    )
    wheel_image: str = setting(
        "", "Image that compiled Linux wheels are built in, instead of PyPA's."
    )
    manylinux: str = setting(
        "",
        "Oldest system that Linux wheels must fit; manylinux_2_28, or that of the "
        "development image where PyPA's cannot be pulled.",
        _matching(r"(manylinux_2_\d{1,3})", "a tag such as manylinux_2_28"),
    )
    production_glibc: str = setting("2.36", "glibc of the production image.", _VERSION)
    flavour_naming: str = setting(
        "name",
        "How a wheel tells its flavour: by its name (mlc-llm-cu128) or by a local version "
        "(1.2.3+cu128).",
        _matching("(name|local)", "name or local"),
    )
    smoke_timeout: float = setting(600.0, "Limit of one step of nox -s wheels -- --smoke.")
    build_memory: int = setting(2_000_000_000, "Memory reckoned for one parallel compiler.")
    disk_needed: int = setting(5_000_000_000, "Free disk space that nox -s doctor asks for.")
    lint_paths: tuple[str, ...] = setting(
        ("noxfile.py", "tools", "tests", "bench", "docker", "package", ".ci"),
        "Files and folders whose Python is linted; missing ones are left out.",
    )
    github_api_url: str = setting("https://api.github.com", "GitHub's REST API.", _URL)
    github_time_limit: float = setting(900.0, "Longest that a command keeps retrying GitHub.")
    github_points_per_minute: int = setting(
        900, "Points a minute that cleanup spends on GitHub; 0 for no limit."
    )
    registry_username: str = setting(
        "", "Account at the registry; the actor on Actions, else the image's owner."
    )
    manifest_cache: str = setting("", "Folder in which cleanup keeps manifests that it read.")
    docker_hub_registry: str = setting("docker.io", "Host of Docker Hub (a mirror).", _HOST)
    gh_token: Secret = setting(Secret(), "Registry and releases.")
    codecov_token: Secret = setting(Secret(), "Coverage uploads.")
    slack_webhook_url: Secret = setting(Secret(), "Notification of results.")
    docker_hub_username: Secret = setting(Secret(), "Docker Hub account.")
    docker_hub_token: Secret = setting(Secret(), "Docker Hub token.")

    @property
    def image(self) -> str:
        """Name of the image without tag: ``registry/owner/name``."""
        return f"{self.registry}/{self.image_name}"


FIELDS = {one.name: one for one in fields(Settings)}
# From the environment alone, and never shown.
SECRETS = [name for name, one in FIELDS.items() if isinstance(one.default, Secret)]
SECRET_VARIABLES = {before + name.upper() for name in SECRETS for before in ("", "MLC_")}


def _table(path: Path) -> dict[str, object]:
    """``[tool.mlc-pipeline]`` of a pyproject.toml; empty if there is none."""
    whole = tomllib.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    table: dict[str, object] = whole.get("tool", {}).get("mlc-pipeline", {})
    allowed = {name.replace("_", "-") for name in FIELDS.keys() - SECRETS}
    for key in table.keys() - allowed - {"flavours"}:  # tools.wheels.flavours reads them
        raise UsageError(
            f"{path.name} sets [tool.mlc-pipeline] {key}, which is not a setting "
            "(secrets come from the environment alone).",
            f"Use one of: {', '.join(sorted(allowed))}.",
        )
    return table


def load(env: Mapping[str, str] = os.environ, root: Path = ROOT) -> Settings:
    """Read and check all settings, ``root`` being the folder of the pyproject.toml.

    Raises:
        UsageError: A value cannot be read, or the table has a key that is not a setting.
    """
    table, repository = _table(root / "pyproject.toml"), _repository(env)
    values: dict[str, object] = {}
    rows = []
    for name, one in FIELDS.items():
        text, origin = _given(name, env, repository, table)
        values[name] = _parsed(name, text, origin) if text else one.default
        rows.append((name.upper(), shown(name, values[name]), origin))
    # Each parser gives the type of its field, which mypy cannot see through the names.
    settings = cast(Callable[..., Settings], Settings)(**values)
    account = settings.docker_hub_username.reveal()
    if account in settings.image_name.split("/"):
        forget(account)  # or the names of all images would be masked
    if console.debugging:
        console.table(("setting", "value", "from"), rows)
    return settings


def github_server(env: Mapping[str, str] = os.environ) -> str:
    """The base address of GitHub's pages, or of the Enterprise Server that Actions names."""
    return (env.get("GITHUB_SERVER_URL") or "https://github.com").rstrip("/")


def _repository(env: Mapping[str, str]) -> Mapping[str, object]:
    """The repository's variables, which the workflow hands on; they set no secret."""
    try:
        values = json.loads(env.get("MLC_VARIABLES") or "{}")
        return {key: values[key] for key in values.keys() - SECRET_VARIABLES}
    except (ValueError, AttributeError) as error:
        message = "MLC_VARIABLES is not a JSON object of names and values."
        raise UsageError(message, "Set it to ${{ toJSON(vars) }}, or leave it out.") from error


def _given(
    name: str,
    env: Mapping[str, str],
    repository: Mapping[str, object],
    table: Mapping[str, object],
) -> tuple[str, str]:
    """What is given for a setting, and where; empty if it has its default."""
    key, variables = name.replace("_", "-"), (f"MLC_{name.upper()}", name.upper())
    sources: list[tuple[object, str]]
    sources = [(env.get(one), f"environment {one}") for one in variables]
    sources += [(repository.get(name.upper()), f"repository variable {name.upper()}")]
    sources += [(table.get(key), f"pyproject.toml {key}")]
    sources += [(env.get(one), f"environment {one}") for one in FALLBACKS.get(name, ())]
    for value, origin in sources:
        text = " ".join(map(str, value)) if isinstance(value, list) else str(value or "")
        if text.strip():
            return text.strip(), origin
    return "", "default"


def _parsed(name: str, text: str, origin: str) -> object:
    parse: Callable[[str], object] = FIELDS[name].metadata["parse"]
    try:
        if isinstance(FIELDS[name].default, tuple):
            return tuple(map(parse, re.findall(r"[^\s,]+", text) or [text]))
        return parse(text)
    except ValueError as error:
        raise UsageError(
            f"The setting {name.upper()} ({origin}) is {text!r}.", f"Give {error}."
        ) from error


def shown(name: str, value: object) -> str:
    """A setting's value as text; of a secret only whether it is set."""
    if name in SECRETS:
        return "set" if value else "not set"
    return " ".join(value) if isinstance(value, tuple) else str(value)
