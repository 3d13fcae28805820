"""``docker_test``: run the image that was built and look at what it does.

The image is the one in the record, pulled by its digest (``--digest`` names another), or
an OCI archive that another job handed on.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tools.core import cli, console
from tools.core.errors import PipelineError
from tools.images import containers, probe, record
from tools.images.containers import Runner
from tools.repo.context import Context, load_context

COMMANDS = {
    "development": ("help", "version", "python", "shell", "mlc_llm", "build"),
    "production": ("help", "version", "python", "shell", "mlc_llm", "healthcheck"),
}


@dataclass(frozen=True)
class ImageCheck:
    """One line of a test's table: what was looked at, what it should be, what it is."""

    what: str
    expected: str
    actual: str
    passed: bool


def check_basic(runner: Runner, image: str, context: Context) -> Iterator[ImageCheck]:
    """The entrypoint's help names every subcommand; an unknown one is refused with 2."""
    code, output = runner.run("help")
    yield ImageCheck("exit code of help", "0", str(code), code == 0)
    words = {line.split()[0] for line in output.splitlines() if line.strip()}
    for name in COMMANDS[image]:
        yield ImageCheck(
            f"help names {name}", "yes", "yes" if name in words else "no", name in words
        )
    code, _ = runner.run("no-such-command")
    yield ImageCheck("exit code of an unknown command", "2", str(code), code == 2)


def check_import(runner: Runner, image: str, context: Context) -> Iterator[ImageCheck]:
    """Python has the right version, and its packages import and fit together."""
    found = runner.probe("imports", *probe.MODULES[image])
    required, version = context.settings.python_version, found["python"]
    yield ImageCheck("Python", required, version, version.startswith(f"{required}."))
    for name in probe.MODULES[image]:
        yield ImageCheck(f"import {name}", "works", found[name] or "works", not found[name])
    conflicts = found["conflicts"]
    yield ImageCheck("conflicts of packages", "none", conflicts or "none", not conflicts)
    if image == "production":
        code, output = runner.run("mlc_llm", "--version")
        shown, expected = output.strip().rpartition("\n")[2], _expected_version(context)
        passed = code == 0 and expected in shown
        yield ImageCheck("mlc_llm --version", expected or "any", shown, passed)


def _expected_version(context: Context) -> str:
    """The version of the wheel in the production image, if its record is here."""
    try:
        return record.read("production", context.root).version
    except PipelineError:
        return ""


def check_help(runner: Runner, image: str, context: Context) -> Iterator[ImageCheck]:
    """Every tool is there at its minimum version; in production, none that builds."""
    if image == "production":
        places = runner.probe("absent", *probe.ABSENT)
        yield ImageCheck("user", "not root", f"uid {places['uid']}", places["uid"] != "0")
        for name in probe.ABSENT:
            yield ImageCheck(name, "absent", places[name] or "absent", not places[name])
        return
    settings = context.settings
    required = {"python3": settings.python_version, "cmake": settings.cmake_version}
    required |= probe.MINIMUMS
    versions = runner.probe("tools", *required)
    for name, least in required.items():
        version = versions[name]
        passed = bool(version) and probe.numbers(version) >= probe.numbers(least)
        yield ImageCheck(name, f">= {least}", version or "missing", passed)


TESTS = {"basic": check_basic, "import": check_import, "help": check_help}


@dataclass(frozen=True)
class Options:
    """What the command line asks for: the test, and the image where it is not the record's."""

    type: str = cli.option("", argparse.SUPPRESS, "type", choices=list(TESTS))
    image: str = cli.option("development", "which image", choices=record.IMAGES)
    digest: str = cli.option("", "sha256:... of an image in the registry")
    archive: str = cli.option("", "an OCI archive in place of a registry")


def report(options: Options, digest: str, checks: Sequence[ImageCheck]) -> None:
    """Show the table, to the person and in the job's summary."""
    rows = [(c.what, c.expected, c.actual, "ok" if c.passed else "FAILED") for c in checks]
    headings = ("check", "expected", "actual", "result")
    console.table(headings, rows, f"{options.type}: {options.image} image {digest[:19]}")
    title = f"### {options.image} image, test {options.type}\n\n`{digest}`\n\n"
    console.step_summary(title + console.markdown_table(headings, rows))


def work(options: Options) -> None:
    """Get the image, test it, report."""
    context = load_context()
    image = options.image
    with containers.runner(context, image, options.digest, options.archive) as runner:
        with console.step(f"run the test {options.type} of the {image} image"):
            checks = list(TESTS[options.type](runner, image, context))
    report(options, runner.digest, checks)
    failed = [check.what for check in checks if not check.passed]
    if failed:
        raise PipelineError(
            f"The {image} image failed the test {options.type}: {', '.join(failed)}.",
            "The table above shows what is there; on Actions force_build goes on regardless.",
        )


main = cli.command("docker_test", "Test the image that was built.", Options, work)


if __name__ == "__main__":
    sys.exit(main())
