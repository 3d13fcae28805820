"""Logging in to a registry: the challenge it sends, and the tokens it asks for.

Source: RFC 9110 section 11 (challenges), and distribution's "Token Authentication
Specification": a 401 names realm and service; a GET there, with the login as Basic
credentials where one is known, yields a Bearer token for a scope.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from urllib.parse import urlencode, urlsplit

from tools.core.secrets import Secret, remember
from tools.registry.manifest import is_loopback

# What the specification supposes where a token server gives no expiry, in seconds.
DEFAULT_LIFETIME = 60
# Tokens are renewed this long before they expire, in seconds: a request takes time.
MARGIN = 10

_SCHEME = re.compile(r"\s*([A-Za-z][A-Za-z0-9-]*)\s+(?=[\w-]+\s*=)|\s*(Basic|Bearer)\s*(?:,|$)")
_PARAMETER = re.compile(r'\s*([\w-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))\s*,?')


@dataclass(frozen=True)
class Challenge:
    """What a registry asks for: ``scheme`` (``bearer``, ``basic``) and its parameters."""

    scheme: str
    realm: str = ""
    service: str = ""
    scope: str = ""
    error: str = ""


def parse_challenges(header: str) -> list[Challenge]:
    """All challenges of a ``WWW-Authenticate`` header, in their order."""
    found: list[Challenge] = []
    position = 0
    while position < len(header):
        match = _SCHEME.match(header, position)
        if not match:
            break
        scheme = (match.group(1) or match.group(2)).lower()
        position = match.end()
        parameters: dict[str, str] = {}
        while pair := _PARAMETER.match(header, position):
            quoted = pair.group(2)
            value = pair.group(3) if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
            parameters[pair.group(1).lower()] = value
            position = pair.end()
        known = {k: v for k, v in parameters.items() if k in Challenge.__dataclass_fields__}
        found.append(Challenge(scheme=scheme, **known))
    return found


def choose_challenge(header: str) -> Challenge | None:
    """The challenge to answer: Bearer before Basic; None if neither is offered."""
    offered = {challenge.scheme: challenge for challenge in reversed(parse_challenges(header))}
    return offered.get("bearer") or offered.get("basic")


def basic(user: str, password: Secret) -> str:
    """The value of an ``Authorization`` header for a login."""
    value = base64.b64encode(f"{user}:{password.reveal()}".encode()).decode()
    remember(value)
    return f"Basic {value}"


def may_send_login(realm: str) -> bool:
    """Whether a login may go to ``realm``: over TLS, or on this machine."""
    parts = urlsplit(realm)
    return parts.scheme == "https" or (parts.scheme == "http" and is_loopback(parts.netloc))


def token_address(challenge: Challenge, scope: str) -> str:
    """The address that a token for ``scope`` is fetched from."""
    query = {"service": challenge.service, "scope": scope}
    given = urlencode({key: value for key, value in query.items() if value})
    return f"{challenge.realm}{'&' if '?' in challenge.realm else '?'}{given}"


def granted_actions(token: str, name: str) -> set[str] | None:
    """What a token allows on the repository ``name``; None where it doesn't tell.

    Token servers grant less than was asked for without an error; a token that is a JWT
    says what it grants (distribution, "Token Authentication Implementation", claim
    ``access``). Others are opaque.
    """
    parts = token.split(".")
    if len(parts) != 3:
        return None
    try:
        padded = parts[1] + "=" * (-len(parts[1]) % 4)
        claims = json.loads(base64.urlsafe_b64decode(padded))
        access = claims.get("access")
        if not isinstance(access, list):
            return None
        mine = [entry for entry in access if entry.get("name") == name]
        return {str(action) for entry in mine for action in entry.get("actions", ())}
    except (ValueError, binascii.Error, AttributeError):
        return None


class Tokens:
    """Bearer tokens by scope, each fetched once however many threads want it.

    Args:
        fetch: Fetches the token server's JSON answer for a scope.
        clock: Seconds, monotonic.
    """

    def __init__(
        self,
        fetch: Callable[[str], Mapping[str, object]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._fetch = fetch
        self._clock = clock
        self._lock = threading.Lock()
        self._locks: dict[str, threading.Lock] = {}
        self._kept: dict[str, tuple[str, float]] = {}

    def get(self, scope: str, refused: str = "") -> str:
        """A token for ``scope``; not the one that was just ``refused``.

        Raises:
            ValueError: The token server's answer holds no token.
        """
        with self._lock:
            lock = self._locks.setdefault(scope, threading.Lock())
        with lock:
            token, until = self._kept.get(scope, ("", 0.0))
            if token and token != refused and self._clock() < until:
                return token
            asked = self._clock()
            answer = self._fetch(scope)
            token = str(answer.get("token") or answer.get("access_token") or "")
            if not token:
                raise ValueError("the answer holds no token")
            remember(token)
            lifetime = answer.get("expires_in")
            seconds = lifetime if isinstance(lifetime, int | float) else DEFAULT_LIFETIME
            # A lifetime below the margin still serves the request that it is fetched for.
            self._kept[scope] = (token, asked + max(seconds - MARGIN, seconds / 2))
            return token
