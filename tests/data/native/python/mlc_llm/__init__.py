"""Test data: the library is loaded on import, as upstream loads its own."""

import ctypes
import sys
from pathlib import Path

# A second place for the version, as upstream's libinfo.py is.
__version__ = "0.0.1.dev0"

_NAME = "mlc_llm.dll" if sys.platform == "win32" else "libmlc_llm.so"
LIBRARY = ctypes.CDLL(str(Path(__file__).parent / _NAME))
LIBRARY.mlc_sum.restype = ctypes.c_long
LIBRARY.mlc_built.restype = ctypes.c_char_p


def total(count: int) -> int:
    """Sum of the squares below ``count``, computed by the library."""
    return int(LIBRARY.mlc_sum(count))


def built() -> str:
    """Source path and time of the library's compilation."""
    return str(LIBRARY.mlc_built().decode())
