"""What the ``run`` of a step is: sessions of nox, and nothing else. Pure.

A shell has many ways to say a thing; here those are understood that are one call of nox, and
any other is refused with the part that is not, so that nothing is taken for having run.
"""

import argparse
import re
import shlex
from collections.abc import Callable
from typing import NoReturn

from msgspec import Struct

_STARTS = (["nox"], *([python, "-m", "nox"] for python in ("python", "python3", "py")))
_QUOTED = re.compile(r"'[^']*'|\"(?:[^\"\\]|\\.)*\"|\\.", re.DOTALL)
_SHELL = re.compile(r"&&|\|\||\$|[;&|<>()`{}\[\]*?~#!\n]")
_VARIABLE = re.compile(r"\$(?:(\w+)|\{(\w+)\})")


class Call(Struct, frozen=True):
    """One call of nox."""

    sessions: tuple[str, ...]  # as they stand there, with their parameters
    args: tuple[str, ...] = ()  # what follows ``--``


class _Options(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ValueError(f"nox: {message}")


# Those of nox's options that change nothing about what its sessions do.
_OPTIONS = _Options(add_help=False, allow_abbrev=False)
_OPTIONS.add_argument("-s", "-e", "--session", "--sessions", nargs="*", action="append")
_OPTIONS.add_argument("--reuse-venv", choices=("no", "yes", "never", "always"))
for _flags in (
    *("-r --reuse-existing-virtualenvs", "-N --no-reuse-existing-virtualenvs", "-R"),
    *("--no-install", "-x --stop-on-first-error", "-v --verbose", "--non-interactive"),
    *("--nocolor --no-color", "--forcecolor --force-color", "--no-dependencies"),
):
    _OPTIONS.add_argument(*_flags.split(), dest="_", action="store_true")


def base_name(session: str) -> str:
    """A session's name without its parameters and its Python: ``docker_test(basic)``."""
    return re.sub(r"(-\d+\.\d+)?(\(.*\))?$", "", session, flags=re.DOTALL)


def parse(text: str, value: Callable[[str], str] = "${}".format) -> Call:
    """The call of nox that a ``run`` is, without expressions (``${{ }}``); a ValueError says
    what of it is not understood. ``value`` is that of a variable, which else stays as it is.
    """
    lines = [line.strip() for line in re.sub(r"\\\n", " ", text).splitlines()]
    lines = [line for line in lines if line and not line.startswith("#")]
    if len(lines) != 1:
        raise ValueError(f"it has {len(lines)} lines")
    _check_shell(lines[0])
    words = [
        _VARIABLE.sub(lambda found: value(found[1] or found[2]), word)
        for word in shlex.split(lines[0])
    ]
    start = next((start for start in _STARTS if words[: len(start)] == start), None)
    if start is None:
        raise ValueError(f"{words[0]!r} is not nox")
    options = words[len(start) :]
    at = options.index("--") if "--" in options else len(options)
    named = _OPTIONS.parse_args(options[:at]).session or [[]]
    if len(named) > 1:
        raise ValueError("-s stands twice, of which nox takes the last alone")
    if not named[0]:
        raise ValueError("it names no session")
    return Call(tuple(named[0]), tuple(options[at + 1 :]))


def _check_shell(line: str) -> None:
    """Refuse what a shell would do more than to split the line into words."""
    bare = _VARIABLE.sub("$", _QUOTED.sub("", line))
    if special := _SHELL.search(bare):
        quoted = "a variable outside of double quotes" if special[0] == "$" else special[0]
        raise ValueError(f"{quoted} is for a shell")
    for part in _QUOTED.findall(line):
        rest = re.sub(rf"(?<!\\){_VARIABLE.pattern}", "", part) if part[0] == '"' else part
        if special := re.search(r"[$`]|\\[^\"\\]", rest):
            raise ValueError(f"{special[0]} in {part} is for a shell")
