"""How a registry asks for a login: the challenge in its refusal.

Source: RFC 9110 section 11 (challenges), and distribution's "Token Authentication
Specification": a 401 names realm and service; a GET there, with the login as Basic
credentials where one is known, yields a Bearer token for a scope.
"""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass
from urllib.parse import urlencode, urlsplit

from tools.core.secrets import Secret, remember
from tools.registry.manifest import is_loopback

# A parameter (``realm="..."``), or the word that begins a challenge (``Bearer``).
_PART = re.compile(r'([\w-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))|([A-Za-z][\w-]*)')


@dataclass(frozen=True)
class Challenge:
    """What a registry asks for: ``scheme`` (``bearer``, ``basic``) and where to get it."""

    scheme: str
    realm: str = ""
    service: str = ""

    @property
    def may_have_login(self) -> bool:
        """Whether a login may go to the realm: over TLS, or on this machine."""
        parts = urlsplit(self.realm)
        local = parts.scheme == "http" and is_loopback(parts.netloc)
        return parts.scheme == "https" or local

    def token_url(self, scope: str) -> str:
        """The address that a token for ``scope`` is fetched from."""
        query = {"service": self.service, "scope": scope}
        encoded = urlencode({key: value for key, value in query.items() if value})
        return f"{self.realm}{'&' if '?' in self.realm else '?'}{encoded}"


def choose_challenge(header: str) -> Challenge | None:
    """The challenge of a ``WWW-Authenticate`` header to answer: Bearer before Basic.

    Returns:
        None if neither is offered.
    """
    offered: dict[str, dict[str, str]] = {}
    parameters: dict[str, str] = {}
    for key, quoted, plain, scheme in _PART.findall(header):
        if scheme:
            parameters = {}
            offered.setdefault(scheme.lower(), parameters)
        else:
            parameters[key.lower()] = plain or re.sub(r"\\(.)", r"\1", quoted)
    for scheme in ("bearer", "basic"):
        if scheme in offered:
            found = offered[scheme]
            return Challenge(scheme, found.get("realm", ""), found.get("service", ""))
    return None


def basic(user: str, password: Secret) -> str:
    """The value of an ``Authorization`` header for a login; masked in what we print."""
    value = base64.b64encode(f"{user}:{password.reveal()}".encode()).decode()
    remember(value)
    return f"Basic {value}"
