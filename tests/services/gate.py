"""A gate in front of a real server: counts requests, asks for tokens, breaks on demand.

The registry behind it stays the real one; the gate adds what GitHub's registry has and
Debian's does not (Bearer tokens) and the faults that a network has.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import secrets
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import urllib3

TLS_HANDSHAKE = b"\x16"  # first byte of what a client of TLS sends (RFC 8446, 5.1)
HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length", "host", "date"}


@dataclass(frozen=True)
class Seen:
    """A request that came to the gate; ``number`` counts from 1."""

    number: int
    method: str
    path: str
    headers: Mapping[str, str]


@dataclass(frozen=True)
class Fault:
    """What happens to a request instead of an answer.

    Attributes:
        status: Answer with this status; 0 for none.
        headers: Headers of that answer.
        body: Its body.
        reset: Reset the connection.
        truncate: Send half of the real answer's body, then close.
        hang: Hold the request this long, in seconds, then reset.
    """

    status: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b"{}"
    reset: bool = False
    truncate: bool = False
    hang: float = 0.0


@dataclass
class TokenServer:
    """Bearer tokens as a registry's token server gives them.

    Attributes:
        user: The login that gets tokens; empty: everybody may pull.
        password: The password that goes with it.
        grants: Actions that are ever granted.
        jwt: Tokens that say what they grant; opaque ones otherwise (as GitHub's are).
        lifetime: Seconds that a token is good for.
        refuse: Answer 403 where a scope asks for more than ``grants``.
    """

    user: str = ""
    password: str = ""
    grants: frozenset[str] = frozenset({"pull", "push"})
    jwt: bool = True
    lifetime: float = 300.0
    refuse: bool = False
    issued: dict[str, tuple[float, set[str]]] = field(default_factory=dict)

    def issue(self, query: str, authorization: str) -> tuple[int, dict[str, object]]:
        """Status and JSON body for a request of a token."""
        if self.user:
            login = base64.b64encode(f"{self.user}:{self.password}".encode()).decode()
            if authorization != f"Basic {login}":
                return 401, {"errors": [{"code": "UNAUTHORIZED", "message": "wrong login"}]}
        scopes = parse_qs(query).get("scope", [])
        name, _, actions = (
            scopes[0].removeprefix("repository:").rpartition(":") if scopes else ("",) * 3
        )
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
        self.issued[token] = (time.monotonic() + self.lifetime, granted)
        return 200, {"token": token, "expires_in": int(self.lifetime)}

    def allows(self, authorization: str, method: str) -> bool:
        """Whether a request may pass."""
        until, granted = self.issued.get(authorization.removeprefix("Bearer "), (0.0, set()))
        needed = "pull" if method in {"GET", "HEAD"} else "push"
        return time.monotonic() < until and needed in granted


class Gate:
    """The gate. Its attributes may be changed while it runs.

    Attributes:
        fault: Asked for every request; what it returns happens to it.
        seen: All requests, in the order they came.
        tokens: Bearer tokens to ask for; None for none.
        upstream: Base address of the server behind; empty where there is none.
    """

    def __init__(self, upstream: str = "", tokens: TokenServer | None = None) -> None:
        self.upstream = upstream
        self.tokens = tokens
        self.fault: Callable[[Seen], Fault | None] = lambda _seen: None
        self.seen: list[Seen] = []
        self.most_at_once = 0
        self._now = 0
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
                gate._handle(self)

            do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = answer

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 256

        self._server = Server(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))

    @property
    def address(self) -> str:
        """``127.0.0.1:port``."""
        return f"127.0.0.1:{self._server.server_address[1]}"

    @property
    def url(self) -> str:
        """Base address."""
        return f"http://{self.address}"

    def __enter__(self) -> Gate:
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
            self.most_at_once = 0
        self.fault = lambda _seen: None

    def count(self, method: str = "", part: str = "") -> int:
        """How many requests were seen with this method and ``part`` of a path."""
        return sum(
            one.method == (method or one.method) and part in one.path for one in self.seen
        )

    # --- inside ---

    def _handle(self, handler: BaseHTTPRequestHandler) -> None:
        length = int(handler.headers.get("Content-Length") or 0)
        body = handler.rfile.read(length) if length else b""
        with self._lock:
            headers: dict[str, str] = {}
            for name, value in handler.headers.items():  # Go sends one Accept a media type
                headers[name] = f"{headers[name]}, {value}" if name in headers else value
            seen = Seen(len(self.seen) + 1, handler.command, handler.path, headers)
            self.seen.append(seen)
            self._now += 1
            self.most_at_once = max(self.most_at_once, self._now)
        try:
            self._answer(handler, seen, body)
        finally:
            with self._lock:
                self._now -= 1

    def _answer(self, handler: BaseHTTPRequestHandler, seen: Seen, body: bytes) -> None:
        fault = self.fault(seen)
        if fault and fault.status:
            self._send(handler, fault.status, fault.headers, fault.body)
        elif fault and (fault.reset or fault.hang):
            time.sleep(fault.hang)
            self._break(handler)
        else:
            status, headers, content = self.respond(seen, body)
            if fault and fault.truncate and content:
                self._send(handler, status, headers, content, cut=len(content) // 2)
                self._break(handler)
            else:
                self._send(handler, status, headers, content)

    def respond(self, seen: Seen, body: bytes) -> tuple[int, Mapping[str, str], bytes]:
        """Status, headers and body that the gate answers with when nothing is broken."""
        if self.tokens is not None:
            refused = self._ask_token(seen)
            if refused is not None:
                return refused
        return self.forward(seen, body)

    def forward(self, seen: Seen, body: bytes) -> tuple[int, Mapping[str, str], bytes]:
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

    def _ask_token(self, seen: Seen) -> tuple[int, Mapping[str, str], bytes] | None:
        assert self.tokens is not None
        parts = urlsplit(seen.path)
        if parts.path == "/token":
            given = seen.headers.get("Authorization", "")
            status, content = self.tokens.issue(parts.query, given)
            return status, {"Content-Type": "application/json"}, json.dumps(content).encode()
        given = seen.headers.get("Authorization", "")
        base = parts.path == "/v2/" and given.removeprefix("Bearer ") in self.tokens.issued
        if base or self.tokens.allows(given, seen.method):
            return None
        challenge = f'Bearer realm="{self.url}/token",service="{self.address}"'
        errors = {"errors": [{"code": "UNAUTHORIZED", "message": "authentication required"}]}
        return 401, {"WWW-Authenticate": challenge}, json.dumps(errors).encode()

    def _send(
        self, handler: BaseHTTPRequestHandler, status: int, headers: Mapping[str, str],
        body: bytes, cut: int | None = None,
    ) -> None:  # fmt: skip
        handler.send_response(status)
        for key, value in headers.items():
            handler.send_header(key, value)
        if "Content-Length" not in headers and status not in {204, 304}:
            handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        if handler.command != "HEAD":
            handler.wfile.write(body[:cut])
        handler.wfile.flush()

    def _break(self, handler: BaseHTTPRequestHandler) -> None:
        """Reset the connection, as a crashed peer or a firewall does."""
        linger = struct.pack("ii", 1, 0)
        handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        handler.close_connection = True
        os.close(handler.connection.detach())


@contextlib.contextmanager
def gate_before(upstream: str, tokens: TokenServer | None = None) -> Iterator[Gate]:
    """A running gate before ``upstream`` (``http://127.0.0.1:port``)."""
    with Gate(upstream, tokens) as gate:
        yield gate
