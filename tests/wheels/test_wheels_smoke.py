"""tools.wheels.smoke: the stand-in passes; a step that fails, hangs or dies is named."""

import json
import os
import re
import shutil
import signal
import struct
import subprocess
import sys
import venv
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tools.core.errors import PipelineError
from tools.core.settings import ROOT
from tools.wheels import smoke, smoke_model
from tools.wheels.build import clean
from tools.wheels.check import program

STEPS = ["make", "convert_weight", "gen_config", "compile", "generate", "serve"]
# What a hanging step does: it says something, and waits for what it has started.
HANG = """
import subprocess, sys
print("still at it")
subprocess.run([sys.executable, "-c", "import time; time.sleep(600)", __file__])
"""
Install = Callable[[str, str], Path]


@pytest.fixture
def install(tmp_path: Path) -> Install:
    """Makes an environment with the stand-in, in which one step does something else."""

    def environment(step: str, code: str) -> Path:
        shutil.copytree(ROOT / "package" / "src", tmp_path / "src")
        main = tmp_path / "src" / "mlc_llm" / "__main__.py"
        lines = "".join(f"    {line}\n" for line in code.strip().splitlines())
        start = f"import sys\nif sys.argv[1] == {step!r}:\n{lines or '    pass'}\n"
        text = main.read_text().replace("import argparse\n", f"import argparse\n{start}", 1)
        main.write_text(text)
        venv.create(tmp_path / "venv")
        python = program(tmp_path / "venv", "python")
        where = "import sysconfig; print(sysconfig.get_path('purelib'))"
        printed = subprocess.check_output([python, "-c", where], text=True).strip()
        Path(printed, "stand-in.pth").write_text(f"{tmp_path / 'src'}\n")
        return tmp_path / "venv"

    return environment


def left(folder: Path) -> list[list[str]]:
    """The programs that run with a path below ``folder`` on their command line."""
    found = [p.info["cmdline"] or [] for p in psutil.process_iter(["cmdline"])]
    return [line for line in found if any(str(folder) in word for word in line)]


def failure(environment: Path, limit: float) -> PipelineError:
    """What the smoke test says of the package in ``environment``, with nothing left running."""
    with pytest.raises(PipelineError) as caught:
        smoke.run(environment, environment.parent / "work", clean(os.environ), limit)
    assert not left(environment.parent)
    return caught.value


def test_the_stand_in_lives(
    install: Install, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every step is done, in order and timed, on a loopback that a proxy does not reach."""
    env = clean(os.environ) | {"HTTP_PROXY": "http://127.0.0.1:1", "PYTHONPATH": "/nowhere"}
    smoke.run(install("", ""), tmp_path / "work", env, limit=60)
    said = capsys.readouterr().err
    assert re.findall(r"smoke: (\w+): [\d.]+ s", said) == STEPS
    assert not left(tmp_path)


@pytest.mark.parametrize(
    ("step", "code", "sentence"),
    [
        (
            "gen_config",
            "sys.exit('no such template')",
            "gen_config: it ended with exit code 1.",
        ),
        ("compile", "raise MemoryError('kernels')", "compile: it ended with exit code 1."),
        ("serve", "print('port'); sys.exit(3)", "serve: the server ended with exit code 3."),
    ],
)
def test_a_step_that_fails(install: Install, step: str, code: str, sentence: str) -> None:
    """The sentence names the step, and its last lines are shown."""
    error = failure(install(step, code), limit=60)
    assert error.message == f"The smoke test failed at {sentence}"
    assert error.remedy == "See its last lines above."
    assert {"gen_config": "template", "compile": "kernels", "serve": "port"}[
        step
    ] in error.detail


def test_too_few_tokens(install: Install, tmp_path: Path) -> None:
    """An engine and a server that end without a failure must have generated something."""
    environment = install("", "")
    engine = tmp_path / "src" / "mlc_llm" / "engine.py"
    text = engine.read_text()
    engine.write_text(text.replace('"completion_tokens": max_tokens', '"completion_tokens": 1'))
    error = failure(environment, limit=60)
    assert "failed at generate" in error.message
    assert "1 tokens instead of 16" in error.detail
    engine.write_text(re.sub(r"self._send\(completion.*", "self._send([])", text))
    shutil.rmtree(tmp_path / "work")
    error = failure(environment, limit=60)
    assert "failed at serve: POST http://127.0.0.1:" in error.message
    assert "Expected `object`, got `array`" in error.message


@pytest.mark.parametrize(
    ("step", "sentence"),
    [("convert_weight", "it did not end within 5 s"), ("serve", "did not answer http")],
)
def test_a_step_that_hangs(install: Install, step: str, sentence: str) -> None:
    """It is ended at its limit, with what it had started, and what it said is shown."""
    error = failure(install(step, HANG), limit=5)
    assert f"failed at {step}: " in error.message and sentence in error.message
    assert "SMOKE_TIMEOUT" in error.remedy
    assert "still at it" in error.detail


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGINT for one process")
def test_interrupted(install: Install, tmp_path: Path) -> None:
    """Ctrl-C while the server starts leaves neither it nor what it has started."""
    code = "import os, pathlib, sys; from tools.wheels import smoke; one, two = sys.argv[1:];"
    code += "smoke.run(pathlib.Path(one), pathlib.Path(two), os.environ, 60)"
    command = [sys.executable, "-c", code, install("serve", HANG), tmp_path / "work"]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as child:
        assert child.stderr is not None
        assert any(line == "smoke: serve\n" for line in child.stderr)
        while not any("time.sleep(600)" in word for line in left(tmp_path) for word in line):
            assert child.poll() is None
        child.send_signal(signal.SIGINT)
        assert "KeyboardInterrupt" in child.stderr.read()
    assert not left(tmp_path)


def test_the_rule_that_costs_minutes_is_off(install: Install, tmp_path: Path) -> None:
    """While the model is compiled, and only then, TVM's GEMV rule for CPUs does nothing."""
    cpu = tmp_path / "src" / "tvm" / "s_tir" / "dlight" / "cpu.py"
    rule = "from tvm.s_tir.dlight.cpu import GEMV; print('result', GEMV().apply('kernel', 1))"
    environment = install("compile", f"{rule}; sys.exit(1)")
    cpu.parent.mkdir(parents=True)
    cpu.write_text("class GEMV:\n    def apply(self, *_):\n        return 'schedule'\n")
    assert "result None" in failure(environment, limit=60).detail


def test_model(tmp_path: Path) -> None:
    """The tokenizer's parts fit together and with the model; the file is as long as it says."""
    smoke_model.make(str(tmp_path / "raw"))
    described = json.loads((tmp_path / "raw" / "tokenizer.json").read_text())["model"]
    vocabulary = described["vocab"]
    assert sorted(vocabulary.values()) == list(range(smoke_model.VOCABULARY))
    pairs = [merge.split(" ") for merge in described["merges"]]
    assert all(vocabulary.keys() >= {one, two, one + two} for one, two in pairs)
    data = (tmp_path / "raw" / "model.safetensors").read_bytes()
    [length] = struct.unpack("<Q", data[:8])
    ends = [one["data_offsets"][1] for one in json.loads(data[8 : 8 + length]).values()]
    assert max(ends) == len(data) - 8 - length
