"""Test data: loads TVM's library, and so decides which one others get by its name."""

import ctypes
from pathlib import Path

import tvm_ffi

FFI = tvm_ffi.__version__  # importing it has loaded libtvm_ffi.so

RUNTIME = ctypes.CDLL(
    str(Path(__file__).parent / "lib" / "libtvm_runtime.so"), ctypes.RTLD_GLOBAL
)
