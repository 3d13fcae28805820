"""``docker_test``: run the image that was built and look at what it does."""

import argparse
import contextlib
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from tools.core import cli, console
from tools.core.errors import PipelineError
from tools.images import containers, probe, record
from tools.images.containers import Runner
from tools.repo.context import Context, load_context

COMMANDS = ("help", "version", "python", "shell", "mlc_llm")
MORE = {"development": ("build",), "production": ("serve", "healthcheck")}
LARGEST = 12  # packages whose size is shown


class ImageCheck(NamedTuple):
    """One line of a test's table."""

    what: str
    expected: str
    actual: str
    passed: bool


def equal(what: str, expected: str, actual: str) -> ImageCheck:
    """A line that only the expected value passes."""
    return ImageCheck(what, expected, actual, actual == expected)


def check_basic(runner: Runner, options: "Options", context: Context) -> Iterator[ImageCheck]:
    """The entrypoint's help names every subcommand; an unknown one is refused with 2. A
    production image serves a model and is healthy.
    """
    done = runner.run("help")
    yield equal("exit code of help", "0", str(done.code))
    words = {line.split()[0] for line in done.output.splitlines() if line.strip()}
    for name in (*COMMANDS, *MORE[options.image]):
        yield equal(f"help names {name}", "yes", "yes" if name in words else "no")
    yield equal("exit code of an unknown command", "2", str(runner.run("no-such").code))
    if options.image == "production":
        # Wheels are held to it before there is an image.
        glibc = f"glibc {context.settings.production_glibc}"
        script = "import os; print(os.confstr('CS_GNU_LIBC_VERSION'))"
        yield equal(
            "PRODUCTION_GLIBC", glibc, runner.run("python", "-c", script).stdout.strip()
        )
        yield equal("healthy without a server", "0", str(runner.run("healthcheck").code))
        yield from check_serving(runner, options.model)


def check_serving(runner: Runner, model: str) -> Iterator[ImageCheck]:
    """The model in a folder is served; the stand-in serves any."""
    with tempfile.TemporaryDirectory() as folder:
        if not model:
            stand_in = runner.run("python", "-c", "import mlc_llm; mlc_llm.STAND_IN").code == 0
            if not stand_in:
                console.warn("whether it serves is not tested: --model names a compiled model")
                return
            Path(folder).chmod(0o755)  # it is read by the image's user
            for name in ("mlc-chat-config.json", "model.so"):
                Path(folder, name).write_text("{}", encoding="utf-8")
        health, said = runner.serve(Path(model or folder).resolve())
    yield equal("serving", "running healthy", health)
    yield ImageCheck("/v1/chat/completions", "a text", said["text"], bool(said["text"]))


def check_import(runner: Runner, options: "Options", context: Context) -> Iterator[ImageCheck]:
    """Python has the right version, and its packages import and fit together."""
    image = options.image
    found = runner.probe("imports", *probe.MODULES[image])
    required, version = context.settings.python_version, found["python"]
    yield ImageCheck("Python", required, version, version.startswith(f"{required}."))
    for name in probe.MODULES[image]:
        yield equal(f"import {name}", "works", found[name] or "works")
    yield equal("conflicts of packages", "none", found["conflicts"] or "none")
    if image == "production":
        done = runner.run("version")
        version = ""
        if context.settings.wheel_version == "pipeline":
            # Of the wheel in it, if its record is here.
            with contextlib.suppress(PipelineError):
                version = record.read(image, context.root).version
        first = done.stdout.partition("\n")[0]
        passed = done.code == 0 and first.startswith("mlc_llm ") and version in first
        yield ImageCheck("version", version or "any", first, passed)
        yield equal(
            "exit code of mlc_llm --help", "0", str(runner.run("mlc_llm", "--help").code)
        )


def check_help(runner: Runner, options: "Options", context: Context) -> Iterator[ImageCheck]:
    """Every tool is there at its minimum version; in production, none that builds."""
    if options.image == "production":
        places = runner.probe("absent", *probe.ABSENT)
        yield ImageCheck("user", "not root", f"uid {places['uid']}", places["uid"] != "0")
        for name in probe.ABSENT:
            yield equal(name, "absent", places[name] or "absent")
        yield check_size(runner, context.settings.image_limit)
        return
    settings = context.settings
    required = {"python3": settings.python_version, "cmake": settings.cmake_version}
    required |= probe.MINIMUMS
    versions = runner.probe("tools", *required)
    for name, least in required.items():
        passed = probe.numbers(versions[name]) >= probe.numbers(least)
        yield ImageCheck(name, f">= {least}", versions[name] or "missing", passed)


def check_size(runner: Runner, limit: int) -> ImageCheck:
    """The unpacked image is within the limit; its largest packages are shown."""
    sizes = {name: int(size) for name, size in runner.probe("sizes").items()}
    whole, human = sizes.pop(""), console.human_size
    largest = sorted(sizes, key=lambda name: -sizes[name])[:LARGEST]
    rows = [(name, human(sizes[name])) for name in largest]
    rows.append((f"{len(sizes) - len(largest)} smaller packages", human(
        sum(sizes.values()) - sum(sizes[name] for name in largest))))  # fmt: skip
    rows.append(("Debian and Python", human(whole - sum(sizes.values()))))
    headings = ("package", "size")
    console.table(headings, rows, f"what is in the image: {human(whole)}")
    console.step_summary(console.markdown_table(headings, rows))
    return ImageCheck("size", f"<= {human(limit)}", human(whole), whole <= limit)


TESTS = {"basic": check_basic, "import": check_import, "help": check_help}


@dataclass(frozen=True)
class Options:
    """What the command line asks for: the test, and the image where it is not the record's."""

    type: str = cli.option("", argparse.SUPPRESS, "type", choices=list(TESTS))
    image: str = cli.option("development", "which image", choices=record.IMAGES)
    digest: str = cli.option("", "sha256:... of an image in the registry")
    archive: str = cli.option("", "an OCI archive in place of a registry")
    model: str = cli.option("", "folder of a compiled model for a production image to serve")


def work(options: Options) -> None:
    """Get the image, test it, show the table, to the person and in the job's summary."""
    context, image, test = load_context(), options.image, options.type
    with containers.runner(context, image, options.digest, options.archive) as runner:
        with console.step(f"run the test {test} of the {image} image"):
            checks = list(TESTS[test](runner, options, context))
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
