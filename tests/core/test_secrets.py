"""Secrets hide themselves and are masked."""

from __future__ import annotations

import base64
import json
import urllib.parse
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tools.core import secrets
from tools.core.secrets import MASK, Secret, redact


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    """What a test made secret is no secret in the next one."""
    before = set(secrets._known)
    yield
    secrets._known.clear()
    secrets._known.update(before)


def test_it_never_shows_itself() -> None:
    """Neither str, repr, format nor a containing object shows the value."""
    value = Secret("hunter2-token")
    shown = f"{value} {value!r} {[value]} {dict(a=value)} %s" % value
    assert "hunter2" not in shown and MASK in shown
    assert value.reveal() == "hunter2-token"


def test_empty_is_false() -> None:
    """`if secret:` asks whether it was given; blanks are nothing."""
    assert not Secret() and not Secret(" \n") and Secret("x")
    assert repr(Secret()) == "Secret()"


def test_equality_is_by_value() -> None:
    """Secrets compare and hash as their values do."""
    assert Secret("abcd") == Secret("abcd ") != Secret("abce")
    assert len({Secret("abcd"), Secret("abcd")}) == 1
    assert Secret("abcd") != "abcd"


def test_short_values_are_not_masked() -> None:
    """A secret of three characters would blank out words everywhere."""
    Secret("the")
    assert redact("the other") == "the other"


values = st.text(min_size=8, max_size=40).filter(lambda t: t == t.strip() and MASK not in t)


@given(values, st.text(max_size=20), st.text(max_size=20))
def test_masked_in_every_form(value: str, before: str, after: str) -> None:
    """As it is, in Base64, in JSON and in a URL: none gets through."""
    Secret(value)
    raw = value.encode()
    for form in (
        value,
        base64.b64encode(raw).decode(),
        json.dumps(value)[1:-1],
        urllib.parse.quote(raw, safe=""),
    ):
        assert form not in redact(f"{before}{form}{after}")


def test_lines_of_a_secret_are_masked_alone() -> None:
    """Output is masked line by line, so a secret of several lines must be too."""
    Secret("-----first-line\nsecond-line-----")
    assert redact("a second-line----- b") == f"a {MASK} b"


def test_the_longest_goes_first() -> None:
    """A secret that contains another leaves no tail behind."""
    Secret("token")
    Secret("token-with-tail")
    assert redact("token-with-tail token") == f"{MASK} {MASK}"


def test_a_value_that_is_not_utf8() -> None:
    """An environment variable of odd bytes is a secret like any other."""
    Secret("odd\udce9bytes")
    assert redact("odd\udce9bytes") == MASK
