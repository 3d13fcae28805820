"""What --debug shows."""

import importlib.util
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
    assert "$ git -C" in done.stderr
    for value in SECRETS.values():
        assert value not in done.stderr + done.stdout


def commands() -> list[list[str]]:
    """The command of every session that runs a module of tools/."""
    text = (ROOT / "noxfile.py").read_text(encoding="utf-8")
    found = re.findall(r'^    tool\(session, "\w+", ((?:"[\w.]+"(?:, )?)+)', text, re.MULTILINE)
    return [re.findall(r'"([\w.]+)"', arguments) for arguments in found]


@pytest.mark.parametrize("command", commands(), ids=" ".join)
def test_every_session_has_it(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """--debug is an option of each session, and --help tells of it."""
    name, *args = command
    spec = importlib.util.find_spec(f"tools.{name}")
    main = f".{name}.__main__" if spec and spec.submodule_search_locations else f".{name}"
    with pytest.raises(SystemExit) as ended:
        importlib.import_module(f"tools{main}").main([*args, "--help"])
    assert ended.value.code == 0
    assert "--debug" in capsys.readouterr().out
