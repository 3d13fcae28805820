"""docker/entrypoint.py: what serves, and whether it is healthy."""

import importlib.util
import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType

import pytest

from tools.core.settings import ROOT


@pytest.fixture
def entrypoint(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    """The entrypoint in a production image with the stand-in, no GPU, and no process yet."""
    monkeypatch.setenv("MLC_IMAGE", "production")
    monkeypatch.delenv("MLC_HEALTHCHECK_URL", raising=False)
    monkeypatch.syspath_prepend(str(ROOT / "package" / "src"))
    spec = importlib.util.spec_from_file_location("entrypoint", ROOT / "docker/entrypoint.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "PROCESSES", tmp_path / "proc")
    monkeypatch.setattr(module, "GPUS", (str(tmp_path / "gpu"),))
    return module


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """The folder of a compiled model."""
    folder = tmp_path / "model"
    folder.mkdir()
    for name in ("mlc-chat-config.json", "tiny.so"):
        (folder / name).touch()
    return folder


def test_serve(entrypoint, model, monkeypatch):
    """On all addresses, with the library in the folder, on the CPU where there is no GPU; what
    is named on the command line wins.
    """
    seen: list[list[str]] = []
    monkeypatch.setattr(os, "execv", lambda _program, words: seen.append(words))
    start = ["python3", "-m", "mlc_llm", "serve", str(model)]
    library = ["--model-lib", f"{model}/tiny.so"]
    entrypoint.main(["serve", str(model), "--port", "9"])
    assert seen.pop() == [
        *start,
        *library,
        "--host",
        "0.0.0.0",
        "--device",
        "cpu",
        "--port",
        "9",
    ]
    Path(entrypoint.GPUS[0]).touch()
    entrypoint.main(["serve", str(model), "--host=::1"])
    assert seen.pop() == [*start, *library, "--host=::1"]
    entrypoint.main(["serve", str(model), "--host=::1", "--model-lib", "/x.so"])
    assert seen.pop() == [*start, "--host=::1", "--model-lib", "/x.so"]
    entrypoint.main(["mlc_llm", "serve", "x"])
    assert seen.pop() == [*start[:4], "x"]


@pytest.mark.parametrize(
    ("missing", "added", "sentence"),
    [
        ("", "other.so", "several libraries (other.so, tiny.so): name one with --model-lib"),
        ("tiny.so", "", "this image cannot compile one"),
        ("mlc-chat-config.json", "", "has no mlc-chat-config.json"),
        ("tiny.so mlc-chat-config.json .", "", "is not a folder. Mount the model's"),
    ],
)
def test_what_cannot_be_served(entrypoint, model, capsys, missing, added, sentence):
    """Each is one sentence and 2, before anything is imported."""
    for name in missing.split():
        path = model / name
        path.rmdir() if path.is_dir() else path.unlink()
    if added:
        (model / added).touch()
    assert entrypoint.main(["serve", str(model)]) == 2
    error = capsys.readouterr().err
    assert sentence in error and len(error.splitlines()) == 1


@pytest.fixture
def server() -> Iterator[int]:
    """A server's port; the path says which status it answers with."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/v1/models" else int(self.path[1:]))
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


def test_health(entrypoint, server, capsys, monkeypatch):
    """A container without a server is healthy; one with it is what its own port says, however
    it was started; nothing is imported for it. Another address can be asked instead.
    """
    assert entrypoint.main(["healthcheck"]) == 0
    assert "nothing is served" in capsys.readouterr().out
    process = entrypoint.PROCESSES / "7" / "cmdline"
    process.parent.mkdir(parents=True)
    closed = "1"  # nothing answers there
    for words, code in (
        (["tini", "--", "python3", "entrypoint.py", "python", "x.py"], 0),
        (["python3", "-m", "mlc_llm", "chat", "/model", "--port", closed], 0),
        (["python3", "-m", "mlc_llm", "serve", "/model", "--port", str(server)], 0),
        (["python3", "-m", "mlc_llm", "serve", "/m", "--host=0.0.0.0", f"--port={server}"], 0),
        (["python3", "-m", "mlc_llm", "serve", "/model", "--port", closed], 1),
    ):
        process.write_bytes("\0".join([*words, ""]).encode())
        assert entrypoint.main(["healthcheck"]) == code, words
    assert "http://127.0.0.1:1/v1/models does not answer" in capsys.readouterr().err
    for status, code in ((200, 0), (401, 0), (403, 0), (404, 1), (500, 1)):
        monkeypatch.setenv("MLC_HEALTHCHECK_URL", f"http://127.0.0.1:{server}/{status}")
        assert entrypoint.main(["healthcheck"]) == code, status
