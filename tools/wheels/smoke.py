"""A test that it lives: a tiny model is converted, configured, compiled, generates, is served.

All of it with what a user types, ``python -m mlc_llm``, without a GPU and without a network.
"""

import contextlib
import socket
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import msgspec
import requests

from tools.core import console, http, process
from tools.core.errors import PipelineError
from tools.core.process import Done, TimeLimitError
from tools.wheels.check import MODULE, program
from tools.wheels.smoke_model import END, TOKENS

SCRIPT = Path(__file__).with_name("smoke_model.py")
KEPT = 30  # lines of output shown when a step fails
PAUSE = 0.2  # seconds between two questions whether the server is up
SLOWER = "See the last lines above; where the machine is only slow, raise SMOKE_TIMEOUT."
_T = TypeVar("_T")


class _Model(msgspec.Struct):
    id: str


class _Models(msgspec.Struct):
    data: list[_Model]


class _Usage(msgspec.Struct):
    completion_tokens: int


class _Completion(msgspec.Struct):
    usage: _Usage


@contextlib.contextmanager
def _step(name: str) -> Iterator[None]:
    """One step; what fails in it bears its name."""
    with console.step(f"smoke: {name}"):
        try:
            yield
        except PipelineError as error:
            raise PipelineError(
                f"The smoke test failed at {name}: {error.message}",
                error.remedy or "See its last lines above.",
                error.detail,
            ) from error


def commands(python: str, work: Path) -> dict[str, list[str]]:
    """The steps before the server is started, in their order (pure)."""
    # Absolute: the loader would look for the compiled model along its own path.
    raw, model, library = (str(work / name) for name in ("raw", "model", "model.so"))
    script, module = [python, "-Iu", str(SCRIPT)], [python, "-Iu", "-m", MODULE]
    convert, configure = [*module, "convert_weight", raw], [*module, "gen_config", raw]
    convert += ["--quantization", "q0f32", "--device", "cpu", "-o", model]
    configure += ["--quantization", "q0f32", "--conv-template", "LM", "-o", model]
    configure += ["--context-window-size", "256", "--prefill-chunk-size", "64"]
    configure += ["--max-batch-size", "2"]
    settings = str(Path(model, "mlc-chat-config.json"))
    compiled = ["compile", settings, "--device", "cpu", "--opt", "O2", "-o", library]
    return {
        "make": [*script, "make", raw],
        "convert_weight": convert,
        "gen_config": configure,
        "compile": [*script, *compiled],
        "generate": [*script, "generate", model, library],
    }


def run(venv: Path, work: Path, env: Mapping[str, str], limit: float) -> None:
    """Prove that the package installed in ``venv`` works, in the folder ``work``, which may
    exist; ``env`` is the environment of what is run, ``limit`` the seconds of each step.

    Raises:
        PipelineError: A step failed or ran out of its time; its last lines are the detail.
    """
    work = work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    python = str(program(venv.absolute(), "python"))
    # The package writes to its home when it is imported.
    env = {**env, "HF_HUB_OFFLINE": "1", "MLC_LLM_HOME": str(work / "home")}
    for name, command in commands(python, work).items():
        with _step(name):
            _run(command, work, env, limit)
    with _step("serve"):
        _serve(python, work, env, limit)


def _run(command: Sequence[str], work: Path, env: Mapping[str, str], limit: float) -> None:
    """Run one step's program to its end."""
    try:
        done = process.run(command, env=env, cwd=work, check=False, timeout=limit, keep=KEPT)
    except TimeLimitError as error:
        message = f"it did not end within {limit:.0f} s."
        raise PipelineError(message, SLOWER, error.detail) from error
    if done.code:
        message = f"it ended with exit code {done.code}."
        raise PipelineError(message, detail=done.tail(KEPT))


def _free_port() -> int:
    """A port of the loopback address that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def _serve(python: str, work: Path, env: Mapping[str, str], limit: float) -> None:
    """Start the server, have it list its model and complete a chat, and end it."""
    port = _free_port()
    command = [python, "-Iu", "-m", MODULE, "serve", str(work / "model")]
    command += ["--model-lib", str(work / "model.so"), "--device", "cpu"]
    command += ["--mode", "interactive", "--host", "127.0.0.1", "--port", str(port)]
    pool = ThreadPoolExecutor(1)
    try:  # around the start, too: Ctrl-C may come before it has returned
        server = pool.submit(process.run, command, env=env, cwd=work, check=False, keep=KEPT)
        _converse(f"http://127.0.0.1:{port}/v1", server, time.monotonic() + limit)
    except PipelineError as error:
        _end(pool)
        last = server.result().tail(KEPT)
        raise PipelineError(error.message, error.remedy, last) from error
    finally:
        _end(pool)


def _end(pool: ThreadPoolExecutor) -> None:
    """End the server, the one program that runs; one that only just starts as well."""
    waiting = threading.Thread(target=pool.shutdown)
    waiting.start()
    while waiting.is_alive():
        process.end_all()
        waiting.join(0.1)


def _converse(base: str, server: Future[Done], deadline: float) -> None:
    """Ask for the models, until the server is up, then for a chat."""
    models = _ask(f"{base}/models", None, _Models, server, deadline)
    if not models.data:
        raise PipelineError("it lists no model.")
    body = {
        "model": models.data[0].id,
        "messages": [{"role": "user", "content": "hello"}],
        "max_tokens": TOKENS,
        "logit_bias": {str(END): -100},
    }
    chat = _ask(f"{base}/chat/completions", body, _Completion, server, deadline)
    if chat.usage.completion_tokens != TOKENS:
        raise PipelineError(f"{chat.usage.completion_tokens} tokens instead of {TOKENS}.")


def _ask(url: str, body: object, kind: type[_T], server: Future[Done], deadline: float) -> _T:
    """What the server answers, as the type ``kind``; waits until it listens."""
    session = http.session(http.retry(0))
    session.trust_env = False  # no proxy leads to ourselves
    method = "GET" if body is None else "POST"
    while True:
        left = deadline - time.monotonic()
        if server.done():
            raise PipelineError(f"the server ended with exit code {server.result().code}.")
        if left <= 0:
            raise PipelineError(f"the server did not answer {url} in time.", SLOWER)
        try:
            response = session.request(method, url, json=body, timeout=left)
            response.raise_for_status()
            return msgspec.json.decode(response.content, type=kind)
        except requests.ConnectionError:
            time.sleep(PAUSE)
        except (requests.RequestException, msgspec.MsgspecError) as error:
            raise PipelineError(f"{method} {url} failed: {http.reason(error)}.") from error
