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
import math
import re
import shutil
import socket
import ssl
import sys
import threading
import time
import urllib.parse
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.services.faults import Fault, Faults, reset
from tests.services.store import Store


class Refusal(Exception):
    """An answer of 400 or more, with GitHub's error body."""

    def __init__(self, status: int, message: str, errors: Any = (), headers: Any = ()) -> None:
        super().__init__(message)
        data = {"message": message, **({"errors": errors} if errors else {})}
        data |= {"documentation_url": "https://docs.github.com/rest", "status": str(status)}
        self.answer = Answer(status, data, dict(headers))


@dataclass
class Answer:
    """What an endpoint answers: JSON ``data``, or a ``file``."""

    status: int = 200
    data: Any = None
    headers: dict[str, str] = field(default_factory=dict)
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
    """A token and what it may do."""

    login: str = "octocat"  # whose it is
    kind: str = "classic"  # or fine-grained, or installation (of Actions)
    scopes: tuple[str, ...] = ("repo", "write:packages", "delete:packages")  # of a classic one
    permissions: Mapping[str, str] = field(default_factory=dict)  # such as contents: write
    expires: float | None = None  # seconds since the epoch; None for never

    def may(self, permission: str, level: str) -> bool:
        """Whether it may read or write something."""
        if self.kind == "classic":
            scope = f"{level}:packages" if permission == "packages" else "repo"
            return level == "read" or scope in self.scopes
        return self.permissions.get(permission) in {level, "write"}


@dataclass
class Call:
    """A request, as an endpoint sees it."""

    server: GitHubServer
    handler: _Handler
    values: dict[str, str]  # of the names in the route's path
    query: dict[str, str]
    token: Token | None
    base: str  # of addresses in the answer
    uploads: str  # of addresses for uploads

    @property
    def store(self) -> Store:
        """The server's state."""
        return self.server.store

    def header(self, name: str) -> str:
        """A header of the request, or an empty string."""
        return self.handler.headers.get(name) or ""

    def json(self) -> dict[str, Any]:
        """The body, parsed."""
        found: dict[str, Any] = json.loads(self.handler.read_body() or "{}")
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
        headers = {"x-accepted-github-permissions": f"{permission}={level}"}
        raise Refusal(403, f"Resource not accessible by {whose}", headers=headers)

    def page(self, items: list[Any]) -> Answer:
        """One page of a list with its ``Link`` header."""
        size = min(100, max(1, int(self.query.get("per_page") or 30)))
        number = max(1, int(self.query.get("page") or 1))
        last = max(1, -(-len(items) // size))
        others = {"prev": number - 1, "first": 1} if number > 1 else {}
        others |= {"next": number + 1, "last": last} if number < last else {}
        path, links = self.handler.path.partition("?")[0], []
        for name, target in others.items():
            query = urllib.parse.urlencode({**self.query, "page": target})
            links.append(f'<{self.server.url}{path}?{query}>; rel="{name}"')
        headers = {"Link": ", ".join(links)} if links and self.server.links else {}
        return Answer(200, items[(number - 1) * size : number * size], headers)


class _Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    server: _Listener
    unread = 0  # bytes of the body
    half_read = False  # whether half of the body is all that is read

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

    def read_body(self, limit: int = sys.maxsize) -> bytes:
        """What is left of the body, or ``limit`` bytes of it at most."""
        if self.half_read:
            self.rfile.read(self.unread // 2)
            self.reset()
        size = min(limit, self.unread)
        found = self.rfile.read(size) if size else b""
        self.unread -= len(found)
        if len(found) < size:
            raise ConnectionError("the client went away")
        return found

    def reset(self) -> None:
        """End the connection with a TCP reset."""
        reset(self)
        raise ConnectionError("reset")

    def stall(self) -> None:
        """Wait, without an answer, until the client gives up, a minute at most."""
        self.close_connection = True
        self.connection.settimeout(60)
        while self.connection.recv(65536):
            pass
        raise ConnectionError("stalled")

    def respond(self) -> None:
        self.unread = int(self.headers.get("Content-Length") or 0)
        self.server.answer(self)

    do_GET = do_HEAD = do_POST = do_PATCH = do_PUT = do_DELETE = respond  # noqa: N815

    def write(self, answer: Answer, headers: Mapping[str, str], half: bool = False) -> None:
        """Write an answer, or half of its body."""
        given, body = {**headers, **answer.headers}, b""
        if answer.data is not None:
            body = json.dumps(answer.data).encode()
            given = {"Content-Type": "application/json; charset=utf-8", **given}
        self.send_response_only(answer.status)
        if answer.status not in {204, 304}:
            size = answer.file.stat().st_size if answer.file else len(body)
            given["Content-Length"] = str(size)
        if self.unread or half:
            # The rest of the body would be taken for the next request.
            self.close_connection = True
            given["Connection"] = "close"
        for name, value in given.items():
            self.send_header(name, value)
        self.end_headers()
        if answer.file:
            with answer.file.open("rb") as source:
                shutil.copyfileobj(source, self.wfile)
        elif self.command != "HEAD":
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
    """

    def __init__(
        self,
        folder: Path,
        routes: Sequence[Route] | None = None,
        faults: Sequence[Fault] = (),
        *,
        latency: float = 0.0,
        port: int = 0,
        tls: Sequence[Path] | None = None,
    ) -> None:
        if routes is None:
            from tests.services.releases import ROUTES

            routes = ROUTES
        self.store = Store(folder)
        self.routes = list(routes)
        self.faults = Faults(list(faults))
        self.latency = latency
        self.log: list[dict[str, Any]] = []  # a request: kind, method, path, status, seconds
        self.leaks: list[str] = []  # requests to the storage host that bore a token
        self.errors: list[BaseException | None] = []  # in endpoints: there should be none
        self.connections: set[socket.socket] = set()
        self.limit, self.used = 5000, 0  # requests an hour
        self.links = True  # whether lists name their other pages: a proxy may take that away
        self.no_digests = False  # as for assets from before GitHub took digests
        self._main = self._listen(port, tls, self._answer)
        self._storage = self._listen(0, tls, self._answer_storage)
        scheme = "https" if tls else "http"
        # The address of the API (GITHUB_API_URL), and of the host that has the assets.
        self.url = f"{scheme}://127.0.0.1:{self._main.server_address[1]}"
        self.storage = f"{scheme}://127.0.0.1:{self._storage.server_address[1]}"

    def _listen(
        self, port: int, tls: Sequence[Path] | None, answer: Callable[[_Handler], None]
    ) -> _Listener:
        new = _Listener(("127.0.0.1", port), _Handler)
        new.owner, new.answer = self, answer
        if tls:
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            context.load_cert_chain(*tls)
            # The handshake is for the connection's own thread.
            new.socket = context.wrap_socket(new.socket, True, do_handshake_on_connect=False)
        return new

    def __enter__(self) -> GitHubServer:
        for listener in (self._main, self._storage):
            threading.Thread(target=listener.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        for listener in (self._main, self._storage):
            listener.shutdown()
            listener.server_close()
        for connection in list(self.connections):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self.store.close()

    def add_token(self, value: str, token: Token | None = None) -> None:
        """Make a token known."""
        self.store.put("tokens", value, asdict(token or Token()))

    def add_repository(
        self,
        name: str,
        tags: Mapping[str, str] | None = None,
        immutable: bool = False,
        branches: Mapping[str, str] | None = None,
    ) -> None:
        """Make a repository known, with its git tags and branches (name -> commit);
        ``immutable`` is GitHub's setting for releases.
        """
        value = {"full_name": name, "tags": dict(tags or {}), "immutable": immutable}
        value["branches"] = dict(branches or {})
        self.store.put("repositories", name.lower(), value)

    # --- answering --------------------------------------------------------------

    def _token(self, authorization: str) -> Token | None:
        if not authorization:
            return None
        found = self.store.get("tokens", authorization.partition(" ")[2].strip())
        if not found or (found["expires"] or math.inf) < time.time():
            raise Refusal(401, "Bad credentials")
        return Token(**found)

    def _headers(self, token: Token | None) -> dict[str, str]:
        """Headers that every answer has."""
        self.used += 1
        found = {
            "x-github-request-id": uuid.uuid4().hex[:16].upper(),
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

    def _answer(self, handler: _Handler) -> None:
        """Act on a request and answer, with what goes wrong on the way."""
        started, (route, call) = time.time(), self._find(handler)
        kind = route.name if route else "unknown"
        entry = {"kind": kind, "method": handler.command, "path": handler.path}
        self.log.append(entry)
        faults = {fault.action: fault for fault in self.faults.next(kind)}
        handler.half_read = "half-read" in faults
        try:
            self._befall(handler, faults, "before")
            answer = self._act(route, call, faults.get("status"))
            entry["status"] = answer.status
            self._befall(handler, faults, "after")
            handler.write(answer, self._headers(call.token), half="half-answer" in faults)
        finally:
            entry["seconds"] = time.time() - started

    def _find(self, handler: _Handler) -> tuple[Route | None, Call]:
        """The endpoint of a request, and the request as it sees it."""
        path, _, text = handler.path.partition("?")
        method = handler.command.replace("HEAD", "GET")
        base = f"{self.url}/api/v3" if path.startswith("/api/v3/") else self.url
        if path.startswith("/api/uploads/"):
            method = f"UPLOAD {method}"
        path = re.sub(r"^/api(/v3|/uploads)?(?=/)", "", path)
        query = dict(urllib.parse.parse_qsl(text, keep_blank_values=True))
        call = Call(self, handler, {}, query, None, base, f"{self.url}/api/uploads")
        for route in self.routes:
            if (values := route.match(method, path)) is not None:
                call.values = values
                return route, call
        return None, call

    def _act(self, route: Route | None, call: Call, fault: Fault | None) -> Answer:
        """What an endpoint answers, or what a fault lets it answer."""
        if fault:
            call.handler.read_body()
            data = fault.data or {"message": "Server Error", "status": str(fault.status)}
            return Answer(fault.status, data, dict(fault.headers))
        try:
            call.token = self._token(call.header("Authorization"))
            if not call.header("User-Agent"):
                raise Refusal(403, "Request forbidden by administrative rules.")
            if route is None:
                raise Refusal(404, "Not Found")
            return route.run(call)
        except Refusal as refusal:
            return refusal.answer

    def _befall(self, handler: _Handler, faults: Mapping[str, Fault], when: str) -> None:
        """What goes wrong before a request is acted on, or after."""
        delay = faults["delay"].seconds if "delay" in faults else self.latency
        if delay and when == "before":
            time.sleep(delay)
        if (fault := faults.get(f"call-{when}")) and fault.hook:
            fault.hook()
        if f"reset-{when}" in faults:
            handler.reset()
        if f"stall-{when}" in faults:
            handler.stall()

    def _answer_storage(self, handler: _Handler) -> None:
        """The host that assets are downloaded from: no token should come here."""
        if handler.headers.get("Authorization"):
            self.leaks.append(handler.path)
        path = self.store.folder / "blobs" / handler.path.rsplit("/", 1)[-1]
        answer = Answer(file=path) if path.is_file() else Answer(404)
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
    given = parser.parse_args()
    options = {"latency": given.latency, "port": given.port, "tls": given.tls}
    with GitHubServer(given.folder, **options) as server:
        server.add_token(given.token)
        server.add_repository(given.repository, dict(tag.split("=", 1) for tag in given.tag))
        print(json.dumps({"url": server.url, "token": given.token}), flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            threading.Event().wait()


if __name__ == "__main__":
    # This module exists twice when it is run by name; the endpoints know the other one.
    from tests.services import github

    github.main()
