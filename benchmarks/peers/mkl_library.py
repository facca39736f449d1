"""The MKL library through ctypes, and handles of its inspector-executor sparse interface.

32-bit integers (LP64). `pip install mkl` is enough; the library is found in the environment's lib folder.
"""

from __future__ import annotations

import ctypes
import sys
from ctypes import byref, c_double, c_float, c_int, c_void_p
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness import Run, Unavailable

NON_TRANSPOSE, BASE_ZERO, ROW_MAJOR = 10, 0, 101
GENERAL, FULL, NON_UNIT = 20, 42, 50
CBLAS_ROW_MAJOR, CBLAS_NO_TRANS = 101, 111
MEMORY_AGGRESSIVE = 81
EXPECTED_CALLS = 1000


class Descr(ctypes.Structure):
    """struct matrix_descr of mkl_spblas.h."""

    _fields_ = [("type", c_int), ("mode", c_int), ("diag", c_int)]


DESCR = Descr(GENERAL, FULL, NON_UNIT)


def _open() -> ctypes.CDLL:
    folders = [Path(sys.prefix) / "lib", *(Path(p) for p in ("/opt/intel/oneapi/mkl/latest/lib",))]
    for folder in folders:
        for path in sorted(folder.glob("libmkl_rt.so*"), reverse=True):
            return ctypes.CDLL(str(path), mode=ctypes.RTLD_LOCAL)
    raise OSError(f"no libmkl_rt.so in {', '.join(map(str, folders))}; pip install mkl")


LIB = _open()
LIB.MKL_Set_Interface_Layer(c_int(0))  # LP64
_INTEL, _GNU = 0, 3


def _threading_layer() -> int:
    """Two OpenMP runtimes in one process make MKL compute half a result with two threads (seen with PyTorch's libgomp beside
    libiomp5), so MKL follows the runtime that is loaded already."""
    maps = Path("/proc/self/maps")
    return _GNU if maps.exists() and "libgomp" in maps.read_text() else _INTEL


LIB.MKL_Set_Threading_Layer(c_int(_threading_layer()))
LETTER = {np.dtype("f4"): ("s", c_float), np.dtype("f8"): ("d", c_double)}


def call(name: str, *args: Any) -> None:
    status = getattr(LIB, name)(*args)
    if status:
        raise RuntimeError(f"{name} returned status {status}")


def address(array: np.ndarray) -> c_void_p:
    return c_void_p(array.ctypes.data)


class Handle:
    """A sparse_matrix_t over the arrays of a SciPy CSR matrix, which it keeps alive; over a copy of its values with `own`."""

    def __init__(self, A: Any, *, own: bool = False) -> None:
        if A.data.dtype not in LETTER:
            raise Unavailable(f"the MKL adapter has no {A.data.dtype}")
        self.letter, self.real = LETTER[A.data.dtype]
        self.indptr = np.ascontiguousarray(A.indptr, dtype=np.int32)
        self.indices = np.ascontiguousarray(A.indices, dtype=np.int32)
        self.data = A.data.copy() if own else np.ascontiguousarray(A.data)
        self.rows, self.cols = A.shape
        self.pointer = c_void_p()
        end = c_void_p(self.indptr.ctypes.data + 4)
        call(
            f"mkl_sparse_{self.letter}_create_csr",
            byref(self.pointer), c_int(BASE_ZERO), c_int(self.rows), c_int(self.cols),
            address(self.indptr), end, address(self.indices), address(self.data),
        )  # fmt: skip

    def __del__(self) -> None:
        if getattr(self, "pointer", None):
            LIB.mkl_sparse_destroy(self.pointer)

    def hint_mv(self) -> None:
        LIB.mkl_sparse_set_mv_hint(self.pointer, c_int(NON_TRANSPOSE), DESCR, c_int(EXPECTED_CALLS))
        LIB.mkl_sparse_set_memory_hint(self.pointer, c_int(MEMORY_AGGRESSIVE))  # the inspector may copy the matrix
        call("mkl_sparse_optimize", self.pointer)

    def hint_mm(self, columns: int) -> None:
        LIB.mkl_sparse_set_mm_hint(
            self.pointer, c_int(NON_TRANSPOSE), DESCR, c_int(ROW_MAJOR), c_int(columns), c_int(EXPECTED_CALLS)
        )
        LIB.mkl_sparse_set_memory_hint(self.pointer, c_int(MEMORY_AGGRESSIVE))
        call("mkl_sparse_optimize", self.pointer)


def dense_product(handle: Any, X: np.ndarray, Y: np.ndarray, operation: int = NON_TRANSPOSE) -> Run:
    """Y = op(A) X for a handle with `pointer`, `letter` and `real`."""
    function, columns = getattr(LIB, f"mkl_sparse_{handle.letter}_mm"), c_int(X.shape[1])
    args = (
        c_int(operation), handle.real(1), handle.pointer, DESCR, c_int(ROW_MAJOR),
        address(X), columns, columns, handle.real(0), address(Y), columns,
    )  # fmt: skip

    def run() -> np.ndarray:
        function(*args)
        return Y

    run.keep = handle, X  # type: ignore[attr-defined]
    return run
