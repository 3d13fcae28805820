"""Secret values: they hide themselves, and are masked in all that we print."""

import base64
import json
import re
import threading
import urllib.parse

MASK = "***"

_lock = threading.Lock()
_known: set[str] = set()


class Secret:
    """A value that shows itself only when asked with :meth:`reveal`; false when empty."""

    __slots__ = ("_value",)  # no vars(), which JSON is made of

    def __init__(self, value: str = "") -> None:
        self._value = value.strip()
        remember(self._value)

    def reveal(self) -> str:
        """The value itself; never print it, put it in argv or in an exception."""
        return self._value

    def __bool__(self) -> bool:
        return bool(self._value)

    def __repr__(self) -> str:
        return f"Secret({MASK if self._value else ''})"


def remember(value: str) -> None:
    """Mask ``value`` in everything that passes :func:`redact`.

    So are its forms in an Authorization header, in JSON and in a URL, and each of its lines,
    as output is masked line by line. What has fewer than four characters is not: it would
    blank out words that have nothing to do with it.
    """
    raw = value.encode(errors="surrogateescape")
    forms = {value, json.dumps(value)[1:-1], urllib.parse.quote(raw, safe="")}
    forms |= {base64.b64encode(raw).decode(), *value.splitlines()}
    if len(value) >= 4:
        with _lock:
            _known.update(form for form in forms if len(form) >= 4)


def forget(value: str) -> None:
    """Mask ``value`` no more, because it is public: part of an image's name."""
    with _lock:
        _known.discard(value)


def remember_userinfo(address: str) -> str:
    """Mask name and password in ``https://name:password@host``, which is returned."""
    for userinfo in re.findall(r"://([^/\s]+)@", address):
        for value in userinfo.split(":", 1):
            remember(value)
            remember(urllib.parse.unquote(value))
    return address


def redact(text: str) -> str:
    """``text`` with every known secret value replaced by ``***``."""
    with _lock:
        values = sorted(_known, key=len, reverse=True)
    for value in values:
        text = text.replace(value, MASK)
    return text
