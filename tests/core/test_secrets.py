"""Secrets hide themselves and are masked."""

import base64
import json
import urllib.parse

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tools.core import secrets
from tools.core.secrets import MASK, Secret, redact


@pytest.fixture(autouse=True)
def forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test made secret is no secret in the next one."""
    monkeypatch.setattr(secrets, "_known", set())


def test_it_never_shows_itself() -> None:
    """Neither str, repr, format nor a containing object shows the value."""
    value = Secret(" hunter2-token\n")
    shown = f"{value} {value!r} {[value]} {dict(a=value)} %s" % value
    assert "hunter2" not in shown and MASK in shown
    assert value.reveal() == "hunter2-token"
    assert value and not Secret() and not Secret(" \n")


values = st.text(min_size=8, max_size=40).filter(lambda t: t == t.strip() and MASK not in t)


@given(values, st.text(max_size=20), st.text(max_size=20))
def test_masked_in_every_form(value: str, before: str, after: str) -> None:
    """As it is, in Base64, in JSON and in a URL: none gets through."""
    secrets._known.clear()
    Secret(value)
    raw = value.encode()
    for form in (
        value,
        base64.b64encode(raw).decode(),
        json.dumps(value)[1:-1],
        urllib.parse.quote(raw, safe=""),
    ):
        assert form not in redact(f"{before}{form}{after}")


@pytest.mark.parametrize(
    ("known", "text", "shown"),
    [
        (["the"], "the other", "the other"),  # would blank out words everywhere
        (["-----first-line\nsecond-line-----"], "a second-line----- b", f"a {MASK} b"),
        (["token", "token-with-tail"], "token-with-tail token", f"{MASK} {MASK}"),
        (["odd\udce9bytes"], "odd\udce9bytes", MASK),
    ],
)
def test_what_is_masked(known: list[str], text: str, shown: str) -> None:
    """Not short words; each line alone; the longest first; what is not UTF-8 too."""
    for value in known:
        Secret(value)
    assert redact(text) == shown
