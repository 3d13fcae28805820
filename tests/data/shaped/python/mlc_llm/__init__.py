"""Test data: on import the library is loaded and folders are made, as upstream does both."""

import ctypes
import os
from pathlib import Path

import psutil
import tvm

from .libinfo import __version__, find_lib_path

__all__ = ["__version__", "built", "total"]

HOME = Path(os.environ.get("MLC_LLM_HOME") or Path.home() / ".cache" / "mlc_llm")
(HOME / "model_weights").mkdir(parents=True, exist_ok=True)

PROCESSORS = psutil.cpu_count()
TVM = tvm.RUNTIME  # loaded first: the library below gets this one, not that of the wheel
LIBRARY = ctypes.CDLL(find_lib_path("mlc_llm_module"))
LIBRARY.mlc_step.restype = LIBRARY.mlc_tokens.restype = ctypes.c_long
LIBRARY.mlc_built.restype = ctypes.c_char_p
THREADS = ctypes.CDLL(find_lib_path("mlc_llm_threads"))
THREADS.mlc_sum.restype = ctypes.c_long


def total(count: int) -> int:
    """Sum of the squares below ``count``, computed by the library."""
    return int(THREADS.mlc_sum(count))


def built() -> str:
    """Path, time, commit and prefix of the library's compilation."""
    return str(LIBRARY.mlc_built().decode())
