"""A simulated GitHub: an HTTP server on loopback with the endpoints that we use.

Endpoints are functions in tables of :class:`Route`; another module adds its own::

    server = GitHubServer(folder, routes=[*releases.ROUTES, *packages.ROUTES])

Operations are named as in GitHub's own OpenAPI document (``repos/create-release``), and
faults are scripted by these names. It answers at ``/`` as api.github.com does, and at
``/api/v3`` and ``/api/uploads`` as GitHub Enterprise Server does. By hand::

    python -m tests.services.github --folder /tmp/github --repository owner/name
"""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import select
import socket
import ssl
import struct
import sys
import threading
import time
import urllib.parse
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.services.faults import Fault, Faults
from tests.services.store import Store

DOCS = "https://docs.github.com/rest"
STALL_LIMIT = 60.0


class Refusal(Exception):
    """An answer of 400 or more, with GitHub's error body."""

    def __init__(
        self,
        status: int,
        message: str,
        errors: Sequence[Mapping[str, Any]] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.headers = dict(headers or {})
        self.data: dict[str, Any] = {"message": message}
        if errors:
            self.data["errors"] = [dict(error) for error in errors]
        self.data |= {"documentation_url": DOCS, "status": str(status)}


@dataclass
class Answer:
    """What an endpoint answers: JSON ``data``, or ``raw`` bytes, or a ``file``."""

    status: int = 200
    data: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    raw: bytes | None = None
    file: Path | None = None


@dataclass(frozen=True)
class Route:
    """An endpoint: method, path with ``{names}`` (``{name*}`` with slashes), name, function."""

    method: str
    path: str
    name: str
    run: Callable[[Call], Answer]

    def match(self, method: str, path: str) -> dict[str, str] | None:
        """The values of the path's names, if the request is for this endpoint."""
        pattern = re.sub(r"\{(\w+)\*\}", r"(?P<\1>.+)", self.path)
        pattern = re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", pattern)
        found = re.fullmatch(pattern, path) if method == self.method else None
        if found is None:
            return None
        return {name: urllib.parse.unquote(value) for name, value in found.groupdict().items()}


@dataclass
class Token:
    """A token and what it may do.

    Attributes:
        login: Whose it is.
        kind: ``classic``, ``fine-grained`` or ``installation`` (of Actions).
        scopes: Of a classic one.
        permissions: Of the others, such as ``{"contents": "write"}``.
        expires: Seconds since the epoch; None for never.
    """

    login: str = "octocat"
    kind: str = "classic"
    scopes: tuple[str, ...] = ("repo", "write:packages", "delete:packages")
    permissions: Mapping[str, str] = field(default_factory=dict)
    expires: float | None = None

    @property
    def expired(self) -> bool:
        """Whether its time is over."""
        return self.expires is not None and self.expires < time.time()

    def may(self, permission: str, level: str) -> bool:
        """Whether it may read or write something."""
        if self.kind == "classic":
            scope = {"contents": "repo", "metadata": "repo"}.get(permission, "")
            wanted = {scope} if scope else {f"{level}:packages"}
            return level == "read" or bool(wanted & set(self.scopes))
        return self.permissions.get(permission) in {level, "write"}


@dataclass
class Call:
    """A request, as an endpoint sees it."""

    server: GitHubServer
    handler: _Handler
    values: dict[str, str]
    query: dict[str, str]
    token: Token | None
    base: str
    uploads: str

    @property
    def store(self) -> Store:
        """The server's state."""
        return self.server.store

    @property
    def length(self) -> int:
        """Bytes of the body."""
        return int(self.handler.headers.get("Content-Length") or 0)

    def header(self, name: str) -> str:
        """A header of the request, or an empty string."""
        return self.handler.headers.get(name) or ""

    def json(self) -> dict[str, Any]:
        """The body, parsed; 400 if it is no JSON object."""
        text = self.handler.read_body()
        if not text:
            return {}
        try:
            found = json.loads(text)
        except ValueError as error:
            raise Refusal(400, "Problems parsing JSON") from error
        if not isinstance(found, dict):
            raise Refusal(400, "Body should be a JSON object")
        return found

    def need(self, permission: str, level: str) -> None:
        """Refuse what the token may not do, in the way that its kind is refused."""
        if self.token is None:
            raise Refusal(401, "Requires authentication")
        if self.token.may(permission, level):
            return
        if self.token.kind == "classic":
            # GitHub hides what a token without the scope may not touch.
            scope = "repo" if permission == "contents" else f"{level}:{permission}"
            raise Refusal(404, "Not Found", headers={"x-accepted-oauth-scopes": scope})
        whose = {"installation": "integration"}.get(self.token.kind, "personal access token")
        raise Refusal(
            403,
            f"Resource not accessible by {whose}",
            headers={"x-accepted-github-permissions": f"{permission}={level}"},
        )

    def page(self, items: list[Any]) -> Answer:
        """One page of a list with its ``Link`` header."""
        size = min(100, max(1, int(self.query.get("per_page") or 30)))
        number = max(1, int(self.query.get("page") or 1))
        last = max(1, -(-len(items) // size))
        links = []
        path = self.handler.path.partition("?")[0]
        for name, target, there in (
            ("prev", number - 1, number > 1),
            ("next", number + 1, number < last),
            ("last", last, number < last),
            ("first", 1, number > 1),
        ):
            if there:
                query = urllib.parse.urlencode({**self.query, "page": target})
                links.append(f'<{self.server.origin}{path}?{query}>; rel="{name}"')
        headers = {"Link": ", ".join(links)} if links and self.server.links else {}
        return Answer(200, items[(number - 1) * size : number * size], headers)


class _Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    server: _Listener
    unread = 0

    def log_message(self, *_: object) -> None:
        """Nothing on stderr: tests read :attr:`GitHubServer.log`."""

    def setup(self) -> None:
        super().setup()
        self.server.owner.connections.add(self.connection)

    def finish(self) -> None:
        self.server.owner.connections.discard(self.connection)
        with contextlib.suppress(OSError, ValueError):
            super().finish()

    def handle(self) -> None:
        with contextlib.suppress(ConnectionError, ssl.SSLError, TimeoutError, ValueError):
            super().handle()

    def read_body(self, limit: int | None = None) -> bytes:
        """What is left of the body, or ``limit`` bytes of it at most."""
        wanted = self.unread if limit is None else min(limit, self.unread)
        found = self.rfile.read(wanted) if wanted else b""
        self.unread -= len(found)
        if len(found) < wanted:
            raise ConnectionError("the client went away")
        return found

    def reset(self) -> None:
        """End the connection with a TCP reset."""
        self.close_connection = True
        with contextlib.suppress(OSError):
            linger = struct.pack("ii", 1, 0)
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        raw = self.connection
        with contextlib.suppress(OSError, ValueError):
            self.rfile.close()
        with contextlib.suppress(OSError):
            if isinstance(raw, ssl.SSLSocket):
                raw = raw.detach()  # type: ignore[assignment]
                socket.socket(fileno=raw).close()  # type: ignore[arg-type]
            else:
                # The files over the socket hold it open; closing the descriptor resets.
                socket.socket(fileno=raw.detach()).close()
        raise ConnectionError("reset")

    def stall(self) -> None:
        """Wait, without an answer, until the client gives up."""
        until = time.monotonic() + STALL_LIMIT
        while time.monotonic() < until and not self.server.owner.stopping.is_set():
            if select.select([self.connection], [], [], 0.05)[0]:
                if not self.connection.recv(65536):
                    break
        self.close_connection = True
        raise ConnectionError("stalled")

    def respond(self) -> None:
        """Answer one request."""
        self.unread = int(self.headers.get("Content-Length") or 0)
        self.server.answer(self)

    do_GET = do_POST = do_PATCH = do_PUT = do_DELETE = do_HEAD = respond  # noqa: N815

    def write(self, answer: Answer, headers: Mapping[str, str], half: bool = False) -> None:
        """Write an answer, or half of its body."""
        body = answer.raw if answer.raw is not None else b""
        if answer.data is not None:
            body = json.dumps(answer.data).encode()
        size = answer.file.stat().st_size if answer.file else len(body)
        self.send_response_only(answer.status)
        json_type = {"Content-Type": "application/json; charset=utf-8"}
        given = json_type if answer.data is not None else {}
        for name, value in {**given, **headers, **answer.headers}.items():
            self.send_header(name, value)
        if answer.status not in {204, 304}:
            self.send_header("Content-Length", str(size))
        if self.unread or half:
            # The rest of the body would be taken for the next request.
            self.close_connection = True
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            if answer.file and not half:
                with answer.file.open("rb") as source:
                    while piece := source.read(1 << 20):
                        self.wfile.write(piece)
            else:
                self.wfile.write(body[: len(body) // 2] if half else body)
        self.wfile.flush()


class _Listener(ThreadingHTTPServer):
    """A listening socket of a simulated GitHub."""

    daemon_threads = True
    request_queue_size = 128
    owner: GitHubServer
    answer: Callable[[_Handler], None]

    def handle_error(self, *_: object) -> None:
        """A client that went away is no news; other errors are kept for the test."""
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            self.owner.errors.append(error)


class GitHubServer:
    """A simulated GitHub.

    Args:
        folder: Where its state lives; an existing one is continued.
        routes: Endpoints; those of releases if not given.
        faults: What goes wrong.
        latency: Seconds before each request is acted on.
        port: Port; 0 for any.
        tls: Certificate and key files, for https.

    Attributes:
        url: Address as ``GITHUB_API_URL``.
        log: One entry a request: when, operation, status, seconds.
        leaks: Requests to the storage host that bore a token.
        errors: Exceptions in endpoints; a test should find none.
    """

    def __init__(
        self,
        folder: Path,
        routes: Sequence[Route] | None = None,
        faults: Sequence[Fault] = (),
        *,
        latency: float = 0.0,
        port: int = 0,
        tls: tuple[Path, Path] | None = None,
    ) -> None:
        if routes is None:
            from tests.services.releases import ROUTES

            routes = ROUTES
        self.store = Store(folder)
        self.routes = list(routes)
        self.faults = Faults(list(faults))
        self.latency = latency
        self.log: list[dict[str, Any]] = []
        self.leaks: list[str] = []
        self.errors: list[BaseException | None] = []
        self.connections: set[socket.socket] = set()
        self.stopping = threading.Event()
        self.limit = 5000
        self.links = True  # whether lists name their other pages: a proxy may take that away
        self.no_digests = False  # as for assets from before GitHub took digests
        self.used = 0
        self._log_file = (folder / "requests.jsonl").open("a", encoding="utf-8")
        self._main = self._listen(port, tls, self._answer)
        self._storage = self._listen(0, tls, self._answer_storage)
        scheme = "https" if tls else "http"
        self.origin = f"{scheme}://127.0.0.1:{self._main.server_address[1]}"
        self.storage = f"{scheme}://127.0.0.1:{self._storage.server_address[1]}"

    def _listen(
        self, port: int, tls: tuple[Path, Path] | None, answer: Callable[[_Handler], None]
    ) -> _Listener:
        made = _Listener(("127.0.0.1", port), _Handler)
        made.owner = self
        made.answer = answer
        if tls:
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            context.load_cert_chain(*tls)
            made.socket = context.wrap_socket(
                made.socket, server_side=True, do_handshake_on_connect=False
            )
        return made

    def __enter__(self) -> GitHubServer:
        for listener in (self._main, self._storage):
            threading.Thread(
                target=listener.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
            ).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopping.set()
        for listener in (self._main, self._storage):
            listener.shutdown()
            listener.server_close()
        for connection in list(self.connections):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self._log_file.close()
        self.store.close()

    @property
    def url(self) -> str:
        """Address of the API, as ``GITHUB_API_URL``."""
        return self.origin

    # --- state that tests set up ------------------------------------------------

    def add_token(self, value: str, token: Token | None = None) -> str:
        """Make a token known; returns its value."""
        made = token or Token()
        self.store.put("tokens", value, {**vars(made), "permissions": dict(made.permissions)})
        return value

    def add_repository(
        self, name: str, tags: Mapping[str, str] | None = None, **more: Any
    ) -> None:
        """Make a repository known, with its git tags (name -> commit)."""
        value = {
            "full_name": name,
            "tags": dict(tags or {}),
            "private": False,
            "immutable": False,
        }
        self.store.put("repositories", name.lower(), {**value, **more})

    # --- answering --------------------------------------------------------------

    def _token(self, handler: _Handler) -> Token | None:
        given = handler.headers.get("Authorization") or ""
        if not given:
            return None
        found = self.store.get("tokens", given.partition(" ")[2].strip())
        token = Token(**{**found, "scopes": tuple(found["scopes"])}) if found else None
        if token is None or token.expired:
            raise Refusal(401, "Bad credentials")
        return token

    def _headers(self, token: Token | None) -> dict[str, str]:
        """Headers that every answer has."""
        self.used += 1
        found = {
            "Date": formatdate(usegmt=True),
            "Server": "github.com",
            "x-github-request-id": uuid.uuid4().hex[:16].upper(),
            "x-github-media-type": "github.v3; format=json",
            "x-ratelimit-limit": str(self.limit),
            "x-ratelimit-remaining": str(max(0, self.limit - self.used)),
            "x-ratelimit-used": str(self.used),
            "x-ratelimit-reset": str(int(time.time()) + 3600),
            "x-ratelimit-resource": "core",
        }
        if token and token.kind == "classic":
            found["x-oauth-scopes"] = ", ".join(token.scopes)
            found["x-accepted-oauth-scopes"] = ""
        if token and token.expires is not None:
            moment = datetime.fromtimestamp(token.expires, UTC)
            expiration = moment.strftime("%Y-%m-%d %H:%M:%S UTC")
            found["github-authentication-token-expiration"] = expiration
        return found

    def _find(self, handler: _Handler) -> tuple[Route | None, dict[str, str], str, str]:
        """The endpoint, its values, and the bases of addresses in its answer."""
        path = handler.path.partition("?")[0]
        base, uploads = self.origin, f"{self.origin}/api/uploads"
        if path.startswith("/api/v3/"):
            path, base = path.removeprefix("/api/v3"), f"{self.origin}/api/v3"
        elif path == "/api/graphql":
            path = "/graphql"
        method = handler.command
        if path.startswith("/api/uploads/"):
            path, method = path.removeprefix("/api/uploads"), f"UPLOAD {method}"
        for route in self.routes:
            values = route.match("GET" if method == "HEAD" else method, path)
            if values is not None:
                return route, values, base, uploads
        return None, {}, base, uploads

    def _answer(self, handler: _Handler) -> None:
        started = time.time()
        route, values, base, uploads = self._find(handler)
        kind = route.name if route else "unknown"
        entry = {"t": started, "kind": kind, "method": handler.command, "path": handler.path}
        self.log.append(entry)
        try:
            self._play(handler, route, values, base, uploads, entry, self.faults.next(kind))
        finally:
            entry["seconds"] = time.time() - started
            with contextlib.suppress(ValueError):
                self._log_file.write(json.dumps(entry) + "\n")
                self._log_file.flush()

    def _play(
        self,
        handler: _Handler,
        route: Route | None,
        values: dict[str, str],
        base: str,
        uploads: str,
        entry: dict[str, Any],
        faults: Sequence[Fault],
    ) -> None:
        """Act on a request and answer, with what goes wrong on the way."""
        if self.latency:
            time.sleep(self.latency)
        by_action = {fault.action: fault for fault in faults}
        self._before(handler, by_action)
        token: Token | None = None
        try:
            if "status" in by_action:
                fault = by_action["status"]
                handler.read_body()
                data = fault.data or {"message": "Server Error", "status": str(fault.status)}
                answer = Answer(fault.status, data, dict(fault.headers))
            else:
                token = self._token(handler)
                if not handler.headers.get("User-Agent"):
                    raise Refusal(403, "Request forbidden by administrative rules.")
                if route is None:
                    raise Refusal(404, "Not Found")
                text = handler.path.partition("?")[2]
                query = dict(urllib.parse.parse_qsl(text, keep_blank_values=True))
                call = Call(self, handler, values, query, token, base, uploads)
                if "half-read" in by_action:
                    handler.half = call.length // 2  # type: ignore[attr-defined]
                answer = route.run(call)
        except Refusal as refusal:
            answer = Answer(refusal.status, refusal.data, refusal.headers)
        entry["status"] = answer.status
        self._after(handler, by_action)
        handler.write(answer, self._headers(token), half="half-answer" in by_action)

    def _before(self, handler: _Handler, faults: Mapping[str, Fault]) -> None:
        if "delay" in faults:
            time.sleep(faults["delay"].seconds)
        if "call-before" in faults and faults["call-before"].hook:
            faults["call-before"].hook()
        if "reset-before" in faults:
            handler.reset()
        if "stall-before" in faults:
            handler.stall()

    def _after(self, handler: _Handler, faults: Mapping[str, Fault]) -> None:
        if "call-after" in faults and faults["call-after"].hook:
            faults["call-after"].hook()
        if "reset-after" in faults:
            handler.reset()
        if "stall-after" in faults:
            handler.stall()

    def _answer_storage(self, handler: _Handler) -> None:
        """The host that assets are downloaded from: no token should come here."""
        if handler.headers.get("Authorization"):
            self.leaks.append(handler.path)
        path = self.store.folder / "blobs" / handler.path.rsplit("/", 1)[-1]
        found = path.is_file()
        answer = Answer(200, file=path) if found else Answer(404, raw=b"no such object")
        handler.write(answer, {"Content-Type": "application/octet-stream"})


def main() -> None:
    """Run until interrupted; one JSON line on stdout says where."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--latency", type=float, default=0.0)
    parser.add_argument("--repository", default="owner/name")
    parser.add_argument("--tag", action="append", default=[], help="NAME=COMMIT")
    parser.add_argument("--token", default="simulated-token")
    parser.add_argument("--tls", type=Path, nargs=2, metavar=("CERTIFICATE", "KEY"))
    parser.add_argument("--faults", type=Path, help="JSON list of faults")
    given = parser.parse_args()
    faults = json.loads(given.faults.read_text()) if given.faults else []
    tls = tuple(given.tls) if given.tls else None
    with GitHubServer(
        given.folder,
        faults=[Fault(**fault) for fault in faults],
        latency=given.latency,
        port=given.port,
        tls=tls,
    ) as server:
        if not server.store.get("repositories", given.repository.lower()):
            server.add_token(given.token)
            tags = dict(tag.split("=", 1) for tag in given.tag)
            server.add_repository(given.repository, tags)
        print(json.dumps({"url": server.url, "token": given.token}), flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            threading.Event().wait()


if __name__ == "__main__":
    # This module exists twice when it is run by name; the endpoints know the other one.
    from tests.services import github

    github.main()
