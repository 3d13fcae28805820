"""``docker_test``: run the image that was built and look at what it does."""

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from tools.core import cli, console
from tools.core.errors import PipelineError
from tools.images import containers, probe, record
from tools.images.containers import Runner
from tools.repo.context import Context, load_context

COMMANDS = ("help", "version", "python", "shell", "mlc_llm")
MORE = {"development": "build", "production": "healthcheck"}


class ImageCheck(NamedTuple):
    """One line of a test's table."""

    what: str
    expected: str
    actual: str
    passed: bool


def equal(what: str, expected: str, actual: str) -> ImageCheck:
    """A line that only the expected value passes."""
    return ImageCheck(what, expected, actual, actual == expected)


def check_basic(runner: Runner, image: str, context: Context) -> Iterator[ImageCheck]:
    """The entrypoint's help names every subcommand; an unknown one is refused with 2."""
    done = runner.run("help")
    yield equal("exit code of help", "0", str(done.code))
    words = {line.split()[0] for line in done.output.splitlines() if line.strip()}
    for name in (*COMMANDS, MORE[image]):
        yield equal(f"help names {name}", "yes", "yes" if name in words else "no")
    yield equal("exit code of an unknown command", "2", str(runner.run("no-such").code))


def check_import(runner: Runner, image: str, context: Context) -> Iterator[ImageCheck]:
    """Python has the right version, and its packages import and fit together."""
    found = runner.probe("imports", *probe.MODULES[image])
    required, version = context.settings.python_version, found["python"]
    yield ImageCheck("Python", required, version, version.startswith(f"{required}."))
    for name in probe.MODULES[image]:
        yield equal(f"import {name}", "works", found[name] or "works")
    yield equal("conflicts of packages", "none", found["conflicts"] or "none")
    if image == "production":
        done = runner.run("mlc_llm", "--version")
        try:  # the version of the wheel in it, if its record is here
            version = record.read(image, context.root).version
        except PipelineError:
            version = ""
        passed = done.code == 0 and version in done.stdout
        yield ImageCheck("mlc_llm --version", version or "any", done.tail(1), passed)


def check_help(runner: Runner, image: str, context: Context) -> Iterator[ImageCheck]:
    """Every tool is there at its minimum version; in production, none that builds."""
    if image == "production":
        places = runner.probe("absent", *probe.ABSENT)
        yield ImageCheck("user", "not root", f"uid {places['uid']}", places["uid"] != "0")
        for name in probe.ABSENT:
            yield equal(name, "absent", places[name] or "absent")
        return
    settings = context.settings
    required = {"python3": settings.python_version, "cmake": settings.cmake_version}
    required |= probe.MINIMUMS
    versions = runner.probe("tools", *required)
    for name, least in required.items():
        passed = probe.numbers(versions[name]) >= probe.numbers(least)
        yield ImageCheck(name, f">= {least}", versions[name] or "missing", passed)


TESTS = {"basic": check_basic, "import": check_import, "help": check_help}


@dataclass(frozen=True)
class Options:
    """What the command line asks for: the test, and the image where it is not the record's."""

    type: str = cli.option("", argparse.SUPPRESS, "type", choices=list(TESTS))
    image: str = cli.option("development", "which image", choices=record.IMAGES)
    digest: str = cli.option("", "sha256:... of an image in the registry")
    archive: str = cli.option("", "an OCI archive in place of a registry")


def work(options: Options) -> None:
    """Get the image, test it, show the table, to the person and in the job's summary."""
    context, image, test = load_context(), options.image, options.type
    with containers.runner(context, image, options.digest, options.archive) as runner:
        with console.step(f"run the test {test} of the {image} image"):
            checks = list(TESTS[test](runner, image, context))
    rows = [(*check[:3], "ok" if check.passed else "FAILED") for check in checks]
    headings = ("check", "expected", "actual", "result")
    console.table(headings, rows, f"{test}: {image} image {runner.digest[:19]}")
    title = f"### {image} image, test {test}\n\n`{runner.digest}`\n\n"
    console.step_summary(title + console.markdown_table(headings, rows))
    failed = [check.what for check in checks if not check.passed]
    if failed:
        raise PipelineError(
            f"The {image} image failed the test {test}: {', '.join(failed)}.",
            "The table above shows what is there; on Actions force_build goes on regardless.",
        )


main = cli.command("docker_test", "Test the image that was built.", Options, work)


if __name__ == "__main__":
    sys.exit(main())
