#!/usr/bin/env python3
"""Entry point of the images: one subcommand each for what a user wants of them.

Standard library only, and any Python 3: it runs in every image. The subcommand replaces
this process (``exec``), so that signals, which tini forwards, reach it directly.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import shutil
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path

IMAGE = os.environ.get("MLC_IMAGE", "development")
USAGE_ERROR = 2
PROCESSES = Path("/proc")
GPUS = ("/dev/nvidia0", "/dev/kfd", "/dev/dri", "/dev/dxg")  # as containers are handed them


def fail(message: str, code: int = USAGE_ERROR) -> int:
    """Say what is wrong on stderr; the exit code."""
    print(f"error: {message}", file=sys.stderr)
    return code


def replace_by(program: str, arguments: Sequence[str], hint: str = "") -> int:
    """Become ``program``; returns only if that is impossible."""
    found = shutil.which(program)
    if found is None:
        return fail(
            f"{program} is not in this image ({IMAGE}).{' ' + hint if hint else ''}", 127
        )
    sys.stdout.flush()
    os.execv(found, [program, *arguments])


def show_help(_arguments: Sequence[str]) -> int:
    """List the subcommands."""
    print(f"MLC-LLM, {IMAGE} image\n\nusage: docker run [options] IMAGE COMMAND [arguments]\n")
    print("commands:")
    for name, (_, about) in commands().items():
        print(f"  {name:<12} {about}")
    return 0


def show_version(_arguments: Sequence[str]) -> int:
    """Versions of mlc_llm and of Python."""
    try:
        version = importlib.metadata.version("mlc_llm")
    except importlib.metadata.PackageNotFoundError:
        version = "not installed"
    print(f"mlc_llm {version}\nPython {sys.version.split()[0]}\nimage {IMAGE}")
    return 0


def python(arguments: Sequence[str]) -> int:
    """Become Python."""
    return replace_by("python3", arguments)


def shell(arguments: Sequence[str]) -> int:
    """Become a shell: bash where there is one."""
    return replace_by("bash" if shutil.which("bash") else "sh", arguments)


def mlc_llm(arguments: Sequence[str]) -> int:
    """Become mlc_llm; as a module, because the real package installs no command."""
    if importlib.util.find_spec("mlc_llm") is None:
        hint = "Build it with the command build, then pip install the wheel."
        return fail(f"mlc_llm is not in this image ({IMAGE}). {hint}", 127)
    return replace_by("python3", ["-m", "mlc_llm", *arguments])


def value(arguments: Sequence[str], option: str, default: str = "") -> str:
    """The value of an option, as ``--option value`` or ``--option=value``."""
    for place, word in enumerate(arguments):
        if word.startswith(f"{option}="):
            return word.partition("=")[2]
        if word == option and place + 1 < len(arguments):
            return arguments[place + 1]
    return default


def no_model(model: Path) -> str:
    """Why a folder is not a compiled model that can be read; empty if it is."""
    example = "docker run -p 8000:8000 -v MODEL:/model IMAGE serve /model"
    if not model.is_dir():
        return f"{model} is not a folder. Mount the model's: {example}"
    if not os.access(model, os.R_OK | os.X_OK):
        return (
            f"{model} cannot be read by user {os.getuid()}. Let others read it: chmod -R o+rX"
        )
    if not (model / "mlc-chat-config.json").is_file():
        return f"{model} has no mlc-chat-config.json. Mount a compiled model: {example}"
    return ""


def library(model: Path) -> tuple[str, str]:
    """The compiled library beside a model's weights, or why there is not one to take."""
    libraries = sorted(model.glob("*.so"))
    if len(libraries) == 1:
        return str(libraries[0]), ""
    if libraries:
        names = ", ".join(path.name for path in libraries)
        return "", f"{model} has several libraries ({names}): name one with --model-lib."
    return "", (
        f"{model} has no compiled library (*.so), and this image cannot compile one: it has no "
        f"C++ compiler. Compile it elsewhere (mlc_llm compile {model}/mlc-chat-config.json "
        f"--device cpu -o {model}/model.so), or name a library with --model-lib."
    )


def serve(arguments: Sequence[str]) -> int:
    """Become the server of a model's folder: on all addresses, since only published ports can
    be reached, and with the library that lies in the folder.
    """
    named = bool(arguments) and not arguments[0].startswith("-")
    model, options = (arguments[0], arguments[1:]) if named else ("/model", arguments)
    if reason := no_model(Path(model)):
        return fail(reason)
    added = []
    if not value(options, "--model-lib"):
        path, reason = library(Path(model))
        if reason:
            return fail(reason)
        added += ["--model-lib", path]
    if not value(options, "--host"):
        added += ["--host", "0.0.0.0"]  # nosec B104
    # To find out by itself, mlc_llm imports itself anew for each of six kinds of device.
    if not value(options, "--device") and not any(map(os.path.exists, GPUS)):
        added += ["--device", "cpu"]
    return mlc_llm(["serve", model, *added, *options])


def build(arguments: Sequence[str]) -> int:
    """Become the wheel session of the pipeline's checkout in the working folder."""
    if not os.path.exists("tools/wheels/__main__.py"):
        return fail(
            f"{os.getcwd()} is not a checkout of the pipeline. Mount one, and the sources:\n"
            "docker run -v $PWD:/workspace -v SOURCES:/sources -e MLC_LLM_SOURCE=/sources "
            "IMAGE build"
        )
    return replace_by("python3", ["-m", "tools.wheels", *arguments])


def served() -> str:
    """The address at which the server of this container lists its models; empty without one.

    Found by its command line, however it was started.
    """
    for path in PROCESSES.glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().decode(errors="replace").split("\0")
        except OSError:  # it has just ended
            continue
        if "mlc_llm" in words and words[words.index("mlc_llm") + 1 :][:1] == ["serve"]:
            host = value(words, "--host", "127.0.0.1")
            host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # nosec B104
            host = f"[{host}]" if ":" in host else host
            return f"http://{host}:{value(words, '--port', '8000')}/v1/models"
    return ""


def healthcheck(_arguments: Sequence[str]) -> int:
    """Healthy: the server answers, or nothing serves. MLC_HEALTHCHECK_URL is asked instead.
    Nothing is imported: that takes mlc_llm six seconds of a processor.
    """
    address = os.environ.get("MLC_HEALTHCHECK_URL", "") or served()
    if not address:
        print("nothing is served in this container")
        return 0
    try:
        with urllib.request.urlopen(address, timeout=8):  # nosec B310
            print(f"{address} answers")
            return 0
    except urllib.error.HTTPError as error:
        if error.code in (401, 403):  # it asks for its --api-key, and so lives
            return 0
        return fail(f"{address} answers {error.code}", 1)
    except (OSError, ValueError) as error:
        return fail(f"{address} does not answer: {error}", 1)


def commands() -> dict[str, tuple[Callable[[Sequence[str]], int], str]]:
    """Subcommands of this image: what runs them and one line about each."""
    found: dict[str, tuple[Callable[[Sequence[str]], int], str]] = {
        "help": (show_help, "show this list"),
        "version": (show_version, "show the versions of mlc_llm, Python and the image"),
        "python": (python, "run Python with the arguments that follow"),
        "shell": (shell, "run a shell with the arguments that follow"),
        "mlc_llm": (mlc_llm, "run mlc_llm with the arguments that follow"),
    }
    if IMAGE == "development":
        found["build"] = (build, "what nox -s wheels does, in the checkout at /workspace")
    if IMAGE == "production":
        found["serve"] = (serve, "serve the model in a folder (/model) at port 8000")
        found["healthcheck"] = (healthcheck, "exit with 0 if what is served answers")
    return found


def main(arguments: Sequence[str]) -> int:
    """Run the subcommand that the first argument names."""
    name = arguments[0] if arguments else "help"
    name = {"--help": "help", "-h": "help", "--version": "version"}.get(name, name)
    if os.path.isabs(name):  # as whoever starts a container for work of its own does
        return replace_by(name, arguments[1:])
    known = commands()
    if name not in known:
        return fail(f"unknown command {name!r}; use one of: {', '.join(known)}.")
    return known[name][0](arguments[1:])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
