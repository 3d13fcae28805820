"""Typed settings: environment, else ``[tool.mlc-pipeline]``, else a default.

Each variable may also be given as ``MLC_<NAME>``, which wins: base images export names as
short as ``PYTHON_VERSION`` for purposes of their own. A wrong value is one sentence that
names where it came from.
"""

from __future__ import annotations

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
DEFAULT_IMAGE_NAME = "afzaal0007/mlc-llm-pipeline"

_SIZES = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9}
_SIZES |= {"kib": 2**10, "mib": 2**20, "gib": 2**30}
_TIMES = {"s": 1, "m": 60, "h": 3600, "d": 86400}

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
    return float(match[1]) * _TIMES[match[2]] if match[1] else 0.0


def _matching(pattern: str, forms: str) -> Callable[[str], str]:
    """A parser of texts that match; its ValueError says the accepted forms."""

    def parse(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise ValueError(forms)
        return text

    return parse


def _words(text: str) -> tuple[str, ...]:
    return tuple(part for part in re.split(r"[\s,]+", text) if part)


def _words_matching(pattern: str, forms: str) -> Callable[[str], tuple[str, ...]]:
    word = _matching(pattern, forms)
    return lambda text: tuple(map(word, _words(text) or ("",)))


_HOST = _matching(
    r"(\[[0-9a-f:]+\]|[a-z0-9]([a-z0-9.-]*[a-z0-9])?)(:\d+)?",
    "a registry host such as ghcr.io or 127.0.0.1:5000, without https://",
)
# The grammar of <name> in the OCI distribution specification.
_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_NAME = _matching(rf"{_PART}(?:/{_PART})*", "an image name such as owner/name")
_VERSION = _matching(r"[0-9]+(\.[0-9]+)*", "a version such as 3.24")
_PYTHON = _matching(r"3\.[0-9]{1,3}(\.[0-9]{1,3})?", "a Python version such as 3.11")
_URL = _matching(r"https?://[^\s/]+[^\s]*", "an address such as https://api.github.com")
_WHOLE = _matching(r"[0-9]{1,15}", "a whole number")
_PLATFORMS = _words_matching(
    r"[a-z0-9]+/[a-z0-9_]+(/v\d+)?", "platforms such as linux/amd64 or linux/amd64,linux/arm64"
)
# No options: what is installed from where is for the installer's own settings.
_REQUIREMENTS = _words_matching(
    r"[A-Za-z0-9][\w.-]*(\[[\w.-]+\])?([<>=!~]=?=?[\w.*+!]+)?",
    "packages such as numpy or mlc-ai-nightly-cpu==0.20, without blanks",
)


def _source(text: str) -> str:
    # Refused where it is used, but --debug shows the settings before that.
    remember_userinfo(text)
    return text


def setting(default: T, parse: Callable[[str], T], about: str) -> T:
    """A field of :class:`Settings`: its default, its parser and one line about it."""
    return field(default=default, metadata={"parse": parse, "about": about})


@dataclass(frozen=True)
class Settings:
    """All settings, checked. Each field's variable is its name in capitals."""

    registry: str = setting(
        "ghcr.io", lambda text: _HOST(text.lower()), "Registry that images go to."
    )
    image_name: str = setting(
        DEFAULT_IMAGE_NAME,
        lambda text: _NAME(text.lower()),
        "owner/name of the image; GITHUB_REPOSITORY on Actions.",
    )
    python_version: str = setting(
        "3.11",
        lambda text: ".".join(_PYTHON(text).split(".")[:2]),
        "Python of all sessions and images.",
    )
    cmake_version: str = setting("3.24", _VERSION, "Minimum CMake.")
    platforms: tuple[str, ...] = setting(
        ("linux/amd64",), _PLATFORMS, "Platforms of the images; several make an index."
    )
    base_image: str = setting(
        "", str, "Base image instead of the one pinned in the Dockerfile."
    )
    buildx_builder: str = setting(
        "", str, "buildx builder to use (container, Kubernetes, remote); the engine's own."
    )
    context_limit: int = setting(
        50_000_000, parse_size, "Largest build context; over it the build is refused."
    )
    ca_certificates: str = setting(
        "", str, "Certificate bundle that builds trust (PIP_CERT, SSL_CERT_FILE if unset)."
    )
    test_timeout: float = setting(120.0, parse_duration, "Limit of one test container.")
    mlc_llm_source: str = setting(
        "",
        _source,
        "Folder or git+https://...@ref that wheels are built from; package/ if unset.",
    )
    wheel_platforms: tuple[str, ...] = setting(
        ("linux-x64", "windows-x64"), _words, "Platforms that a release must have wheels of."
    )
    wheel_exclude: tuple[str, ...] = setting(
        (), _words, "Libraries that auditwheel leaves out (file names)."
    )
    wheel_test_requires: tuple[str, ...] = setting(
        (), _REQUIREMENTS, "Packages installed beside a wheel when it is tested."
    )
    build_memory: int = setting(
        2_000_000_000, parse_size, "Memory reckoned for one compiler; bounds the parallel ones."
    )
    disk_needed: int = setting(
        5_000_000_000, parse_size, "Free disk space that nox -s doctor asks for."
    )
    lint_paths: tuple[str, ...] = setting(
        ("noxfile.py", "tools", "tests", "bench", "docker", "package", ".ci"),
        _words,
        "Files and folders whose Python is linted; missing ones are left out.",
    )
    github_api_url: str = setting(
        "https://api.github.com", lambda text: _URL(text).rstrip("/"), "GitHub's REST API."
    )
    github_time_limit: float = setting(
        900.0, parse_duration, "Longest that one command keeps retrying GitHub."
    )
    registry_username: str = setting(
        "", str, "Account at the registry; the actor on Actions, else the image's owner."
    )
    github_points_per_minute: int = setting(
        900,
        lambda text: int(_WHOLE(text)),
        "Points a minute that cleanup spends on GitHub; 0 for no limit.",
    )
    manifest_cache: str = setting(
        "", str, "Folder in which cleanup keeps manifests that it read."
    )
    gh_token: Secret = setting(Secret(), Secret, "Registry and releases.")
    codecov_token: Secret = setting(Secret(), Secret, "Coverage uploads.")
    slack_webhook_url: Secret = setting(Secret(), Secret, "Notification of results.")
    docker_hub_username: Secret = setting(Secret(), Secret, "Docker Hub account.")
    docker_hub_registry: str = setting(
        "docker.io", lambda text: _HOST(text.lower()), "Host of Docker Hub (a mirror)."
    )
    docker_hub_token: Secret = setting(Secret(), Secret, "Docker Hub token.")
    origins: Mapping[str, str] = field(default_factory=dict, compare=False)

    @property
    def image(self) -> str:
        """Name of the image without tag: ``registry/owner/name``."""
        return f"{self.registry}/{self.image_name}"

    @property
    def ca_path(self) -> Path | None:
        """The certificate bundle, if one is set."""
        return Path(self.ca_certificates) if self.ca_certificates else None


def variable(name: str) -> str:
    """The environment variable of the setting ``name``."""
    return name.upper()


def is_secret(name: str) -> bool:
    """Whether the setting is a secret: from the environment alone, never shown."""
    return isinstance(Settings.__dataclass_fields__[name].default, Secret)


def names() -> list[str]:
    """Names of all settings, in the order of their definition."""
    return [f.name for f in fields(Settings) if f.metadata]


def about(name: str) -> str:
    """One line about a setting."""
    return str(Settings.__dataclass_fields__[name].metadata["about"])


# Other well-known variables that stand in for a setting's own, first come first served.
FALLBACKS = {
    "image_name": ("GITHUB_REPOSITORY",),
    "ca_certificates": ("PIP_CERT", "SSL_CERT_FILE"),
    "gh_token": ("GITHUB_TOKEN",),
}


def read_table(path: Path) -> dict[str, object]:
    """``[tool.mlc-pipeline]`` of a pyproject.toml; empty if there is none.

    Raises:
        UsageError: The file is not TOML, or the table has a key that is not a setting.
    """
    if not path.exists():
        return {}
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise UsageError(
            f"{path.name} is not valid TOML: {error}.", "Correct the line."
        ) from error
    values: dict[str, object] = table.get("tool", {}).get("mlc-pipeline", {})
    allowed = {name.replace("_", "-") for name in names() if not is_secret(name)}
    for key in values.keys() - allowed:
        secret = key.replace("-", "_") in names()
        why = " (secrets come from the environment alone)" if secret else ""
        raise UsageError(
            f"{path.name} sets [tool.mlc-pipeline] {key}, which is not a setting{why}.",
            f"Use one of: {', '.join(sorted(allowed))}.",
        )
    return values


def load(env: Mapping[str, str] | None = None, root: Path = ROOT) -> Settings:
    """Read and check all settings.

    Args:
        env: The environment; ours if not given.
        root: Folder of the pyproject.toml.

    Raises:
        UsageError: A value cannot be read; the sentence names its source.
    """
    env = os.environ if env is None else env
    table = read_table(root / "pyproject.toml")
    values: dict[str, object] = {}
    origins: dict[str, str] = {}
    for name in names():
        text, origins[name] = _given(name, env, table)
        if text:
            values[name] = _parsed(name, text, origins[name])
    # Each parser gives the type of its field, which mypy cannot see through the names.
    settings = cast(Callable[..., Settings], Settings)(**values, origins=origins)
    account = settings.docker_hub_username.reveal()
    if account in settings.image_name.split("/"):
        forget(account)  # or the names of all images would be masked
    if console.debugging():
        console.table(("setting", "value", "from"), shown(settings))
    return settings


def _given(name: str, env: Mapping[str, str], table: Mapping[str, object]) -> tuple[str, str]:
    """What is given for a setting, and where; empty and ``default`` if nothing is."""
    for variable_name in (f"MLC_{variable(name)}", variable(name)):
        if text := env.get(variable_name, "").strip():
            return text, f"environment {variable_name}"
    key = name.replace("_", "-")
    if key in table:
        value = table[key]
        text = " ".join(map(str, value)) if isinstance(value, list) else str(value)
        return text.strip(), f"pyproject.toml {key}"
    for other in FALLBACKS.get(name, ()):
        if text := env.get(other, "").strip():
            return text, f"environment {other}"
    return "", "default"


def _parsed(name: str, text: str, origin: str) -> object:
    try:
        parse: Callable[[str], object] = Settings.__dataclass_fields__[name].metadata["parse"]
        return parse(text)
    except ValueError as error:
        raise UsageError(
            f"The setting {variable(name)} ({origin}) is {text!r}.", f"Give {error}."
        ) from error


def shown(settings: Settings) -> list[tuple[str, str, str]]:
    """Variable, value and origin of every setting; of a secret only whether it is set."""
    rows = []
    for name in names():
        value = getattr(settings, name)
        if is_secret(name):
            text = "set" if value else "not set"
        else:
            text = " ".join(value) if isinstance(value, tuple) else str(value)
        rows.append((variable(name), text, settings.origins.get(name, "default")))
    return rows


def documentation() -> str:
    """``docs/settings.md``: all settings and secrets, as Markdown."""
    rows, secret_rows = [], []
    for name in names():
        default = Settings.__dataclass_fields__[name].default
        if is_secret(name):
            secret_rows.append((f"`{variable(name)}`", about(name)))
            continue
        shown = " ".join(default) if isinstance(default, tuple) else default
        key = f"`{name.replace('_', '-')}`"
        rows.append((f"`{variable(name)}`", key, f"`{shown}`" if shown else "", about(name)))
    return f"""# Settings

Each setting is read from the environment variable, else from `[tool.mlc-pipeline]` in
`pyproject.toml`, else it has its default. `MLC_` before a variable's name wins over the
plain one: base images export `PYTHON_VERSION` and the like for themselves (3.11.7 is read
as 3.11). A wrong value is refused before anything is done. Sizes are written `50 MB` or
`1.5 GiB`, durations `45s`, `90m`, `36h` or `30d` (here in bytes and seconds), lists with
blanks or commas. `--debug` on any session shows where each value came from. This page is
written by `python -m tools.core.settings > docs/settings.md`.

{console.markdown_table(("variable", "in pyproject.toml", "default", "meaning"), rows)}
## Secrets

From the environment alone; `GITHUB_TOKEN` stands in for a missing `GH_TOKEN`. They are
masked in everything that is printed.

{console.markdown_table(("variable", "used for"), secret_rows)}"""


if __name__ == "__main__":
    print(documentation(), end="")
