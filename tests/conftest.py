"""Fixtures for all tests."""

import functools
import os
import signal
import subprocess
from collections.abc import Iterator
from typing import NoReturn

import pytest
from hypothesis import HealthCheck, settings

# Fixtures that start services; each module says which it gives.
pytest_plugins = ("tests.services.registry", "tests.services.cleanup_world")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell starts what it runs in the background so, and children would inherit it: the
    # tests of Ctrl-C would wait for ever.
    signal.signal(signal.SIGINT, signal.default_int_handler)

settings.register_profile(
    "default", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
settings.load_profile("default")


@functools.cache
def engine_answers() -> bool:
    """Whether a Docker engine with buildx answers."""
    try:
        for command in ("docker version", "docker buildx version"):
            subprocess.run(command.split(), capture_output=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return False
    return True


# First: xdist reads the groups in the same hook, and would miss those added after it.
@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of the one engine run one after another, in one of xdist's processes."""
    for item in items:
        if item.get_closest_marker("engine") and not item.get_closest_marker("xdist_group"):
            item.add_marker(pytest.mark.xdist_group("engine"))


def skip_except_in_ci(reason: str) -> NoReturn:
    """Skip a test that lacks something of the machine; in CI, where all is, it fails."""
    if os.environ.get("CI"):
        pytest.fail(f"{reason}; in CI that is a failure", pytrace=False)
    pytest.skip(reason)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Tests that need an engine are skipped without one, but fail in CI."""
    if item.get_closest_marker("engine") and not engine_answers():
        skip_except_in_ci("no Docker engine with buildx answers")


@pytest.fixture(scope="session", autouse=True)
def outside_actions() -> Iterator[None]:
    """No test, and no fixture of whatever scope, sees the event, the token or the summary file
    of the run it is part of.
    """
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.startswith(("GITHUB_", "ACTIONS_", "RUNNER_")) or name in {
                "GH_TOKEN", "CODECOV_TOKEN", "SLACK_WEBHOOK_URL", "DOCKER_HUB_USERNAME",
                "DOCKER_HUB_TOKEN", "SOURCE_DATE_EPOCH", "IMAGE_NAME",
            }:  # fmt: skip
                patch.delenv(name)
        yield
