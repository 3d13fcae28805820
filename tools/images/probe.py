"""What is looked at inside a container: this file's own text runs there.

Standard library only, and any Python 3.9: ``python -c <this file> PROBE [names]`` prints
one line of JSON. On our side the same file holds what is expected.
"""

import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
from functools import partial
from importlib.util import cache_from_source
from pathlib import Path
from urllib.parse import quote
from urllib.request import Request, urlopen

# Python packages that each image is for.
MODULES = {
    "development": (
        "auditwheel", "build", "pytest", "scikit_build_core", "setuptools", "twine",
    ),
    "production": ("mlc_llm",),
}  # fmt: skip
# Minimum versions of the development image's tools; those of Python and CMake are settings.
# Rust: what MLC-LLM's tokenizers compile with; the others: what Debian 12 has, rounded down.
MINIMUMS = {
    "git": "2.30", "git-lfs": "3.0", "ninja": "1.10", "cargo": "1.78", "rustc": "1.78",
    "ccache": "4.0", "g++": "11",
}  # fmt: skip
# What a production image must not have.
ABSENT = ("gcc", "g++", "cc", "make", "cmake", "cargo", "git")
run = partial(subprocess.run, capture_output=True, text=True, check=False)
STATUS = Path("/var/lib/dpkg/status")


def numbers(version: str) -> tuple[int, ...]:
    """The first dotted number in a text, as numbers: ``cmake version 3.25.1`` -> 3, 25, 1."""
    match = re.search(r"\d+(?:\.\d+)*", version)
    return tuple(map(int, match[0].split("."))) if match else ()


def imports(names: list[str]) -> dict[str, str]:
    """Python's version, what does not import, and what ``pip check`` finds, if it is there."""
    found = {"python": ".".join(map(str, sys.version_info[:3])), "conflicts": ""}
    for name in names:
        try:
            importlib.import_module(name)
            found[name] = ""
        except Exception as error:
            found[name] = f"{type(error).__name__}: {error}"
    check = run([sys.executable, "-m", "pip", "check"])
    if check.returncode and "No module named pip" not in check.stderr:
        found["conflicts"] = "; ".join((check.stdout or check.stderr).strip().splitlines())
    return found


def tools(names: list[str]) -> dict[str, str]:
    """The version that each tool says; empty where it is missing or does not run."""
    done = {name: run([name, "--version"]) for name in names if shutil.which(name)}
    says = {name: one.stdout for name, one in done.items() if one.returncode == 0}
    return {name: ".".join(map(str, numbers(says.get(name, "")))) for name in names}


def absent(names: list[str]) -> dict[str, str]:
    """Where each program is that should be absent, and the user that we run as."""
    uid = Path("/proc/self").stat().st_uid
    return {"uid": str(uid), **{name: shutil.which(name) or "" for name in names}}


def packages(_names: list[str]) -> dict[str, str]:
    """Python's packages by their metadata, Debian's by dpkg's status file: a URL a line.

    Source: Package URL specification, types ``pypi`` and ``deb``.
    """
    urls = set()
    for one in importlib.metadata.distributions():
        name = re.sub(r"[-_.]+", "-", one.metadata["Name"]).lower()
        urls.add(f"pkg:pypi/{name}@{quote(one.version)}")
    text = STATUS.read_text(encoding="utf-8") if STATUS.exists() else ""
    for part in text.split("\n\n"):
        lines = dict(re.findall(r"^(\w+): (.+)$", part, re.MULTILINE))
        if lines.get("Status", "").endswith(" installed"):
            name, version = quote(lines["Package"]), quote(lines["Version"])
            urls.add(f"pkg:deb/debian/{name}@{version}?arch={lines['Architecture']}")
    return {"urls": "\n".join(sorted(urls))}


def sizes(_names: list[str]) -> dict[str, str]:
    """Bytes of each Python package, compiled modules included, and of the whole image ("")."""
    result = {"": 0}
    for folder, _, names in os.walk("/"):
        if os.lstat(folder).st_dev == os.lstat("/").st_dev:  # not /proc, nor what is mounted
            result[""] += sum(os.lstat(os.path.join(folder, name)).st_size for name in names)
    for one in importlib.metadata.distributions():
        paths = [str(one.locate_file(path)) for path in one.files or ()]
        paths += [cache_from_source(path) for path in paths if path.endswith(".py")]
        total = sum(os.lstat(path).st_size for path in paths if os.path.exists(path))
        result[one.metadata["Name"]] = total
    return {name: str(size) for name, size in result.items()}


def chat(_names: list[str]) -> dict[str, str]:
    """What the server of this container calls its model, and what that says."""
    base = "http://127.0.0.1:8000/v1"
    with urlopen(f"{base}/models", timeout=60) as response:  # nosec B310
        model = json.load(response)["data"][0]["id"]
    body = {
        "model": model,
        "max_tokens": 16,
        "messages": [{"role": "user", "content": "hello"}],
    }
    headers = {"Content-Type": "application/json"}
    request = Request(f"{base}/chat/completions", json.dumps(body).encode(), headers)
    with urlopen(request, timeout=60) as response:  # nosec B310
        choice = json.load(response)["choices"][0]
    return {"model": model, "text": choice["message"]["content"]}


if __name__ == "__main__":
    probes = {"imports": imports, "tools": tools, "absent": absent, "packages": packages}
    probes |= {"sizes": sizes, "chat": chat}
    print(json.dumps(probes[sys.argv[1]](sys.argv[2:])))
