"""Library information, with a version of its own, as upstream's has."""

from pathlib import Path

__version__ = "0.1.dev0"


def find_lib_path(name: str) -> str:
    """The path of a library of this package."""
    return str(Path(__file__).parent / f"lib{name}.so")
