"""What --debug shows."""

import importlib
import json
import os
import re
import subprocess
import sys

import pytest

from tools.core.settings import FIELDS, ROOT

SECRETS = {
    "GH_TOKEN": "ghp_debugtoken0123456789",
    "CODECOV_TOKEN": "codecov-debug-secret",
    "SLACK_WEBHOOK_URL": "https://hooks.slack.example/debug-secret",
    "DOCKER_HUB_USERNAME": "debug-account",
    "DOCKER_HUB_TOKEN": "dckr_pat_debug-secret",
}


@pytest.mark.parametrize("switch", ["--debug", "RUNNER_DEBUG"])
def test_a_real_session(switch: str) -> None:
    """Each setting with its origin, event and commands; no secret; stdout untouched."""
    event = {"GITHUB_EVENT_NAME": "push", "GITHUB_REF": "refs/heads/develop"}
    debug = {"RUNNER_DEBUG": "1" if switch == "RUNNER_DEBUG" else "0"}
    env = {**os.environ, **SECRETS, **event, **debug, "CMAKE_VERSION": "3.30"}
    env.pop("REGISTRY", None)
    command = [sys.executable, "-m", "tools.images", "development", "--dry-run", "--json"]
    command += ["--debug"] if switch == "--debug" else []
    done = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "ghcr.io" in json.loads(done.stdout)["references"][0]
    lines = {re.sub(" {2,}", "|", line) for line in done.stderr.splitlines()}
    assert {name.upper() for name in FIELDS} <= {line.split("|")[0] for line in lines}
    assert {
        "CMAKE_VERSION|3.30|environment CMAKE_VERSION",
        "TEST_TIMEOUT|120.0|default",
    } < lines
    assert {"REGISTRY|ghcr.io|pyproject.toml registry", "ref|refs/heads/develop"} < lines
    assert "GH_TOKEN|set|environment GH_TOKEN" in lines
    assert f"$ git -C {ROOT}" in done.stderr
    for value in SECRETS.values():
        assert value not in done.stderr + done.stdout


NOXFILE = (ROOT / "noxfile.py").read_text(encoding="utf-8")
COMMANDS = re.findall(r'^    tool\(session, "\w+", (.*)\)$', NOXFILE, re.MULTILINE)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_session_has_it(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """--debug is an option of each session, and --help tells of it."""
    name, *args = (word.strip('"') for word in command.split(", ") if word != "test_type")
    module = importlib.import_module(f"tools.{name}")
    if hasattr(module, "__path__"):
        module = importlib.import_module(f"tools.{name}.__main__")
    with pytest.raises(SystemExit) as ended:
        module.main([*args, "--help"])
    assert ended.value.code == 0
    assert "--debug" in capsys.readouterr().out
