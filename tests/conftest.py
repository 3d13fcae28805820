"""Fixtures for all tests."""

from __future__ import annotations

import functools
import os
import signal
import subprocess

import pytest
from hypothesis import HealthCheck, settings

from tools.core import console

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
    for command in (["docker", "version"], ["docker", "buildx", "version"]):
        try:
            subprocess.run(command, capture_output=True, timeout=30, check=True)
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


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Tests that need an engine are skipped without one, but fail in CI."""
    if item.get_closest_marker("engine") and not engine_answers():
        reason = "no Docker engine with buildx answers"
        if os.environ.get("CI"):
            pytest.fail(f"{reason}; in CI that is a failure", pytrace=False)
        pytest.skip(reason)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """On Actions, the step summary has the table of the tests."""
    if hasattr(terminalreporter.config, "workerinput"):
        return  # one of xdist's processes: the one that started it has them all
    stats = terminalreporter.stats
    rows = [
        (name, len(stats.get(name, ()))) for name in ("passed", "failed", "error", "skipped")
    ]
    text = "### Tests\n\n" + console.markdown_table(("result", "tests"), rows)
    failed = [report.nodeid for kind in ("failed", "error") for report in stats.get(kind, ())]
    console.step_summary(text + "".join(f"\n- `{name}`" for name in failed))


@pytest.fixture(autouse=True)
def outside_actions(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees the event, the token or the summary file of the run it is part of."""
    for name in list(os.environ):
        if name.startswith(("GITHUB_", "ACTIONS_", "RUNNER_")) or name in {
            "GH_TOKEN", "CODECOV_TOKEN", "SLACK_WEBHOOK_URL", "DOCKER_HUB_USERNAME",
            "DOCKER_HUB_TOKEN", "SOURCE_DATE_EPOCH", "IMAGE_NAME",
        }:  # fmt: skip
            monkeypatch.delenv(name)
