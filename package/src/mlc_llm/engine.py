"""The interface of the real engine, for tests of what uses it: it says one word."""

from __future__ import annotations

import json
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Optional

CONFIGURATION = "mlc-chat-config.json"


def completion(model: str, max_tokens: int) -> dict[str, Any]:
    """A chat completion of OpenAI's API, of as many tokens as are asked for."""
    message = {"role": "assistant", "content": " ".join(["word"] * max_tokens)}
    choice = {"index": 0, "finish_reason": "length", "message": message}
    usage = {"prompt_tokens": 1, "completion_tokens": max_tokens}
    return {"object": "chat.completion", "model": model, "choices": [choice], "usage": usage}


class MLCEngine:
    """As much of ``mlc_llm.MLCEngine`` as completes a chat.

    Raises:
        FileNotFoundError: The model is not configured, or its library is missing.
    """

    def __init__(
        self, model: str, device: str = "", *, model_lib: Optional[str] = None, mode: str = ""
    ) -> None:
        for path in (Path(model, CONFIGURATION), model_lib and Path(model_lib)):
            if path and not path.is_file():
                raise FileNotFoundError(f"{path} is missing")
        self.model = model
        self.chat = SimpleNamespace(completions=SimpleNamespace(create=self._complete))

    def _complete(self, messages: list[Any], max_tokens: int = 1, **_: Any) -> Any:
        text = json.dumps(completion(self.model, max_tokens))
        return json.loads(text, object_hook=lambda found: SimpleNamespace(**found))

    def terminate(self) -> None:
        """End the engine."""


def serve(model: str, host: str, port: int) -> None:
    """Serve ``/v1/models`` and ``/v1/chat/completions``, until the process is ended."""

    class Handler(BaseHTTPRequestHandler):
        """One request."""

        def _send(self, value: object) -> None:
            body = json.dumps(value).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_GET(self) -> None:
            """List the model."""
            if self.path != "/v1/models":
                return self.send_error(404)
            self._send({"object": "list", "data": [{"id": model, "object": "model"}]})

        def do_POST(self) -> None:
            """Complete a chat."""
            if self.path != "/v1/chat/completions":
                return self.send_error(404)
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            self._send(completion(model, body.get("max_tokens", 1)))

    HTTPServer((host, port), Handler).serve_forever()
