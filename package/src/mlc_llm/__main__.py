"""The command ``mlc_llm`` of the stand-in."""

from __future__ import annotations

import argparse
import sys
from typing import Optional, Sequence

import mlc_llm

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
MISSING = 1


def parser() -> argparse.ArgumentParser:
    """The parser of the whole command line."""
    width = max(map(len, COMMANDS))
    listed = "\n".join(f"  {name.ljust(width)}  {about}" for name, about in COMMANDS.items())
    made = argparse.ArgumentParser(
        prog="mlc_llm",
        description="Stand-in for MLC LLM: it has the real program's name and commands, "
        "but not its engine.",
        epilog=f"commands of the real program, none of which run here:\n{listed}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument(
        "--version", action="version", version=f"mlc_llm {mlc_llm.__version__} (stand-in)"
    )
    made.add_argument("command", nargs="?", choices=list(COMMANDS), metavar="command")
    made.add_argument("arguments", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    return made


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """Run the command line.

    Args:
        arguments: Arguments without the program's name; those of the process if None.

    Returns:
        0 after showing the help, 1 for a command that only the real program has
        (argparse itself ends with 2 for an unknown one).
    """
    made = parser()
    given = made.parse_args(arguments)
    if given.command is None:
        made.print_help()
        return 0
    print(
        f"mlc_llm: error: this is the stand-in of the build pipeline; '{given.command}' needs "
        "the real MLC LLM (https://llm.mlc.ai/docs/install/mlc_llm.html).",
        file=sys.stderr,
    )
    return MISSING


if __name__ == "__main__":
    sys.exit(main())
