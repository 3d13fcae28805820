"""Stand-in for MLC LLM: its name, package and command line, without its engine.

Its :class:`MLCEngine` has the real one's interface, and says one word.

Attributes:
    __version__: The version of the installed distribution.
    STAND_IN: True here; the real package has no such attribute, so
        ``getattr(mlc_llm, "STAND_IN", False)`` tells the two apart.
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

from mlc_llm.engine import MLCEngine

STAND_IN = True

try:
    __version__ = version("mlc_llm")
except PackageNotFoundError:  # run from a source folder that is not installed
    __version__ = "0.0.0"

__all__ = ["STAND_IN", "MLCEngine", "__version__"]
