"""The command ``mlc_llm`` of the stand-in."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path
from typing import Optional, Sequence

import mlc_llm
from mlc_llm import engine

# Names and purposes of the real program's subcommands.
COMMANDS = {
    "compile": "compile a model to a library for a target",
    "convert_weight": "convert and quantize the weights of a model",
    "gen_config": "write the chat configuration of a model",
    "chat": "chat with a model on the terminal",
    "serve": "serve a model over an OpenAI-compatible HTTP API",
    "package": "package model libraries and weights for an app",
    "calibrate": "calibrate the quantization of a model",
    "router": "serve one API in front of several servers",
}
WEIGHTS = "model.safetensors"
MISSING = 1


def parser() -> argparse.ArgumentParser:
    """The parser of the whole command line."""
    width = max(map(len, COMMANDS))
    listed = "\n".join(f"  {name.ljust(width)}  {about}" for name, about in COMMANDS.items())
    made = argparse.ArgumentParser(
        prog="mlc_llm",
        description="Stand-in for MLC LLM: it has the real program's name and commands, "
        "but not its engine.",
        epilog=f"commands of the real program, which do next to nothing here:\n{listed}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument(
        "--version", action="version", version=f"mlc_llm {mlc_llm.__version__} (stand-in)"
    )
    made.add_argument("command", nargs="?", choices=list(COMMANDS), metavar="command")
    made.add_argument("arguments", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    return made


def run(command: str, arguments: Sequence[str]) -> None:
    """A command of the real program, done trivially: files are copied, a word is served."""
    made = argparse.ArgumentParser(prog=f"mlc_llm {command}", allow_abbrev=False)
    made.add_argument("model", type=Path)
    made.add_argument("--output", "-o", type=Path)
    made.add_argument("--model-lib")
    made.add_argument("--host", default="127.0.0.1")
    made.add_argument("--port", type=int, default=8000)
    given, _ = made.parse_known_args(arguments)  # what only the real one heeds is passed over
    if command == "serve":
        engine.MLCEngine(str(given.model), model_lib=given.model_lib)
        engine.serve(str(given.model), given.host, given.port)
    elif command == "compile":
        given.output.write_bytes(given.model.read_bytes())
    else:
        given.output.mkdir(exist_ok=True)
        if command == "convert_weight":
            shutil.copy(given.model / WEIGHTS, given.output)
        else:
            configuration = json.loads((given.model / "config.json").read_text())
            (given.output / engine.CONFIGURATION).write_text(json.dumps(configuration))


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """Run the command line.

    Args:
        arguments: Arguments without the program's name; those of the process if None.

    Returns:
        0 after showing the help or a command that the stand-in does, 1 for one that only the
        real program has (argparse itself ends with 2 for an unknown one).
    """
    made = parser()
    given = made.parse_args(arguments)
    if given.command is None:
        made.print_help()
        return 0
    if given.command in {"convert_weight", "gen_config", "compile", "serve"}:
        run(given.command, given.arguments)
        return 0
    print(
        f"mlc_llm: error: this is the stand-in of the build pipeline; '{given.command}' needs "
        "the real MLC LLM (https://llm.mlc.ai/docs/install/mlc_llm.html).",
        file=sys.stderr,
    )
    return MISSING


if __name__ == "__main__":
    sys.exit(main())
