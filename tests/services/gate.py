"""A gate in front of a real server: counts requests, asks for tokens, breaks on demand.

The registry behind it stays the real one; the gate adds what GitHub's registry has and
Debian's does not (Bearer tokens) and the faults that a network has.
"""

import base64
import contextlib
import json
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self
from urllib.parse import parse_qs, urlsplit

import urllib3

from tests.services.faults import reset

TLS_HANDSHAKE = b"\x16"  # first byte of what a client of TLS sends (RFC 8446, 5.1)
HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length", "host", "date"}
Response = tuple[int, Mapping[str, str], bytes]  # status, headers, body


@dataclass(frozen=True)
class Seen:
    """A request that came to the gate."""

    number: int  # from 1
    method: str
    path: str
    headers: Mapping[str, str]


@dataclass(frozen=True)
class Fault:
    """What happens to a request instead of an answer."""

    status: int = 0  # answer with this status, these headers, this body
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b"{}"
    reset: bool = False  # reset the connection
    truncate: bool = False  # send half of the real answer's body, then close
    hang: float = 0.0  # hold the request this long, in seconds, then reset


@dataclass
class TokenServer:
    """Bearer tokens as a registry's token server gives them."""

    user: str = ""  # the login that gets tokens; empty: everybody may pull
    password: str = ""
    grants: frozenset[str] = frozenset({"pull", "push"})  # that are ever granted
    jwt: bool = True  # tokens say what they grant; opaque ones otherwise (as GitHub's are)
    refuse: bool = False  # answer 403 where a scope asks for more than is granted
    issued: dict[str, set[str]] = field(default_factory=dict)

    def issue(self, query: str, authorization: str) -> tuple[int, dict[str, object]]:
        """Status and JSON body for a request of a token."""
        login = base64.b64encode(f"{self.user}:{self.password}".encode()).decode()
        if self.user and authorization != f"Basic {login}":
            return 401, {"errors": [{"code": "UNAUTHORIZED", "message": "wrong login"}]}
        scope = parse_qs(query).get("scope", [""])[0]
        name, _, actions = scope.removeprefix("repository:").rpartition(":")
        asked = set(actions.split(",")) - {""}
        if self.refuse and not asked <= self.grants:
            return 403, {"errors": [{"code": "DENIED", "message": "permission_denied"}]}
        granted = asked & self.grants
        token = secrets.token_urlsafe(24)
        if self.jwt:
            access = [{"type": "repository", "name": name, "actions": sorted(granted)}]
            parts = [{"alg": "none"}, {"access": access, "jti": token}]
            texts = [base64.urlsafe_b64encode(json.dumps(p).encode()).decode() for p in parts]
            token = ".".join([*(text.rstrip("=") for text in texts), "c2lnbmF0dXJl"])
        self.issued[token] = granted
        return 200, {"token": token, "expires_in": 300}


class Gate:
    """The gate before ``upstream`` (``http://127.0.0.1:port``; empty where there is none),
    which asks for ``tokens`` if there are any. Its attributes may be changed while it runs.
    """

    def __init__(self, upstream: str = "", tokens: TokenServer | None = None) -> None:
        self.upstream = upstream
        self.tokens = tokens
        # Asked for every request; what it returns happens to it.
        self.fault: Callable[[Seen], Fault | None] = lambda _seen: None
        self.seen: list[Seen] = []  # all requests, in the order they came
        self._lock = threading.Lock()
        self._pool = urllib3.PoolManager(maxsize=64)
        gate = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def log_message(self, format: str, *args: object) -> None:
                """Say nothing."""

            def handle_one_request(self) -> None:
                with contextlib.suppress(ConnectionError):
                    if self.rfile.peek(1)[:1] == TLS_HANDSHAKE:
                        # As Go's servers do: an engine then goes on without TLS.
                        self.wfile.write(b"HTTP/1.0 400 Bad Request\r\n\r\n")
                        self.close_connection = True
                    else:
                        super().handle_one_request()

            def answer(self) -> None:
                gate._answer(self)

            do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = answer

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 256

        self._server = Server(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self.address = f"127.0.0.1:{self._server.server_address[1]}"
        self.url = f"http://{self.address}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        self._pool.clear()

    def reset(self) -> None:
        """Forget what was seen, and break nothing."""
        with self._lock:
            self.seen = []
        self.fault = lambda _seen: None

    def count(self, method: str = "", part: str = "") -> int:
        """How many requests were seen with this method and ``part`` of a path."""
        return sum(
            one.method == (method or one.method) and part in one.path for one in self.seen
        )

    # --- inside ---

    def _answer(self, handler: BaseHTTPRequestHandler) -> None:
        length = int(handler.headers.get("Content-Length") or 0)
        body = handler.rfile.read(length) if length else b""
        headers: dict[str, str] = {}
        for name, value in handler.headers.items():  # Go sends one Accept a media type
            headers[name] = f"{headers[name]}, {value}" if name in headers else value
        with self._lock:
            seen = Seen(len(self.seen) + 1, handler.command, handler.path, headers)
            self.seen.append(seen)
        fault = self.fault(seen) or Fault()
        if fault.status:
            self._send(handler, (fault.status, fault.headers, fault.body))
        elif fault.reset or fault.hang:
            time.sleep(fault.hang)
            reset(handler)
        else:
            self._send(handler, self.respond(seen, body), fault.truncate)

    def respond(self, seen: Seen, body: bytes) -> Response:
        """What the gate answers with when nothing is broken."""
        return (self.tokens and self._ask_token(seen, self.tokens)) or self.forward(seen, body)

    def forward(self, seen: Seen, body: bytes) -> Response:
        """What the server behind answers."""
        sent = {k: v for k, v in seen.headers.items() if k.lower() not in HOP_BY_HOP}
        if self.tokens is not None:
            sent.pop("Authorization", None)
        answer = self._pool.request(
            seen.method, self.upstream + seen.path, body=body or None, headers=sent,
            retries=False, redirect=False, timeout=60, decode_content=False,
        )  # fmt: skip
        headers = {
            key: value.replace(self.upstream, self.url)
            for key, value in answer.headers.items()
            if key.lower() not in HOP_BY_HOP
            or (seen.method == "HEAD" and key == "Content-Length")
        }
        return answer.status, headers, answer.data

    def _ask_token(self, seen: Seen, tokens: TokenServer) -> Response | None:
        """A token, or what asks for one; None if a request may pass."""
        parts, given = urlsplit(seen.path), seen.headers.get("Authorization", "")
        if parts.path == "/token":
            status, content = tokens.issue(parts.query, given)
            return status, {"Content-Type": "application/json"}, json.dumps(content).encode()
        granted = tokens.issued.get(given.removeprefix("Bearer "))
        needed = "pull" if seen.method in {"GET", "HEAD"} else "push"
        if granted is not None and (parts.path == "/v2/" or needed in granted):
            return None
        challenge = f'Bearer realm="{self.url}/token",service="{self.address}"'
        errors = {"errors": [{"code": "UNAUTHORIZED", "message": "authentication required"}]}
        return 401, {"WWW-Authenticate": challenge}, json.dumps(errors).encode()

    def _send(
        self, handler: BaseHTTPRequestHandler, response: Response, truncate: bool = False
    ) -> None:
        status, headers, body = response
        handler.send_response(status)
        for key, value in headers.items():
            handler.send_header(key, value)
        if "Content-Length" not in headers and status not in {204, 304}:
            handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        if handler.command != "HEAD":
            handler.wfile.write(body[: len(body) // 2] if truncate else body)
        handler.wfile.flush()
        if truncate and body:
            reset(handler)
