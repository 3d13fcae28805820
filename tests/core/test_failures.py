"""Tables of other programs' failures."""

from __future__ import annotations

from tools.core.errors import PipelineError
from tools.core.failures import Failure, explain

TABLE = (
    Failure(r"^no space on (?P<disk>\S+)$", "The disk {disk} is full.", "Empty {disk}."),
    Failure(r"refused", "{host} refused.", ""),
)


def test_the_first_row_that_matches_explains():
    """A message names what the output and the caller name; the output's end is kept."""
    otherwise = PipelineError("It failed.", "Read above.")
    full = explain("step 1\nno space on sda1\nrefused", TABLE, otherwise, host="hub")
    assert (full.message, full.remedy) == ("The disk sda1 is full.", "Empty sda1.")
    assert full.detail.endswith("refused")
    assert explain("{it} refused", TABLE, otherwise, host="hub").message == "hub refused."
    other = explain("\n".join("abcdefghijklmnop"), TABLE, otherwise)
    assert str(other) == "It failed. Read above."
    assert other.detail.splitlines()[0] == "e"
