"""Intel MKL through ctypes: the inspector-executor sparse interface (hinted and optimised, preparation untimed) and BLAS.

32-bit integers (LP64). `pip install mkl` is enough; the library is found in the environment's lib folder.
"""

from __future__ import annotations

import ctypes
import importlib.metadata
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from ctypes import byref, c_double, c_float, c_int, c_void_p
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness import Run, Unavailable

NON_TRANSPOSE, BASE_ZERO, ROW_MAJOR = 10, 0, 101
GENERAL, FULL, NON_UNIT = 20, 42, 50
CBLAS_ROW_MAJOR, CBLAS_NO_TRANS = 101, 111
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
_LETTER = {np.dtype("f4"): ("s", c_float), np.dtype("f8"): ("d", c_double)}


def _call(name: str, *args: Any) -> None:
    status = getattr(LIB, name)(*args)
    if status:
        raise RuntimeError(f"{name} returned status {status}")


def _at(array: np.ndarray) -> c_void_p:
    return c_void_p(array.ctypes.data)


class Handle:
    """A sparse_matrix_t over the arrays of a SciPy CSR matrix, which it keeps alive."""

    def __init__(self, A: Any) -> None:
        if A.data.dtype not in _LETTER:
            raise Unavailable(f"the MKL adapter has no {A.data.dtype}")
        self.letter, self.real = _LETTER[A.data.dtype]
        self.indptr = np.ascontiguousarray(A.indptr, dtype=np.int32)
        self.indices = np.ascontiguousarray(A.indices, dtype=np.int32)
        self.data = np.ascontiguousarray(A.data)
        self.rows, self.cols = A.shape
        self.pointer = c_void_p()
        end = c_void_p(self.indptr.ctypes.data + 4)
        _call(
            f"mkl_sparse_{self.letter}_create_csr",
            byref(self.pointer), c_int(BASE_ZERO), c_int(self.rows), c_int(self.cols),
            _at(self.indptr), end, _at(self.indices), _at(self.data),
        )  # fmt: skip

    def __del__(self) -> None:
        if getattr(self, "pointer", None):
            LIB.mkl_sparse_destroy(self.pointer)

    def hint_mv(self) -> None:
        LIB.mkl_sparse_set_mv_hint(self.pointer, c_int(NON_TRANSPOSE), DESCR, c_int(EXPECTED_CALLS))
        LIB.mkl_sparse_set_memory_hint(self.pointer, c_int(51))  # aggressive: the inspector may copy the matrix
        _call("mkl_sparse_optimize", self.pointer)

    def hint_mm(self, columns: int) -> None:
        LIB.mkl_sparse_set_mm_hint(
            self.pointer, c_int(NON_TRANSPOSE), DESCR, c_int(ROW_MAJOR), c_int(columns), c_int(EXPECTED_CALLS)
        )
        LIB.mkl_sparse_set_memory_hint(self.pointer, c_int(51))
        _call("mkl_sparse_optimize", self.pointer)


def spmv(A: Any, x: np.ndarray) -> Run:
    handle = Handle(A)
    handle.hint_mv()
    y = np.empty(A.shape[0], x.dtype)
    function = getattr(LIB, f"mkl_sparse_{handle.letter}_mv")
    args = (c_int(NON_TRANSPOSE), handle.real(1), handle.pointer, DESCR, _at(x), handle.real(0), _at(y))

    def run() -> np.ndarray:
        function(*args)
        return y

    run.keep = handle, x  # type: ignore[attr-defined]
    return run


def _mm(handle: Handle, X: np.ndarray, Y: np.ndarray) -> Run:
    function, columns = getattr(LIB, f"mkl_sparse_{handle.letter}_mm"), c_int(X.shape[1])
    args = (
        c_int(NON_TRANSPOSE), handle.real(1), handle.pointer, DESCR, c_int(ROW_MAJOR),
        _at(X), columns, columns, handle.real(0), _at(Y), columns,
    )  # fmt: skip

    def run() -> np.ndarray:
        function(*args)
        return Y

    run.keep = handle, X  # type: ignore[attr-defined]
    return run


def spmm(A: Any, X: np.ndarray) -> Run:
    handle = Handle(A)
    handle.hint_mm(X.shape[1])
    return _mm(handle, X, np.empty((A.shape[0], X.shape[1]), X.dtype))


def _sgemm(A: np.ndarray, B: np.ndarray, C: np.ndarray) -> Run:
    (m, k), n = A.shape, B.shape[1]
    args = (
        c_int(CBLAS_ROW_MAJOR), c_int(CBLAS_NO_TRANS), c_int(CBLAS_NO_TRANS), c_int(m), c_int(n), c_int(k),
        c_float(1), _at(A), c_int(k), _at(B), c_int(n), c_float(0), _at(C), c_int(n),
    )  # fmt: skip

    def run() -> np.ndarray:
        LIB.cblas_sgemm(*args)
        return C

    run.keep = A, B  # type: ignore[attr-defined]
    return run


def gemm(A: np.ndarray, B: np.ndarray) -> Run:
    if A.dtype != np.float32:
        raise Unavailable("the MKL adapter multiplies float32")
    return _sgemm(A, B, np.empty((A.shape[0], B.shape[1]), np.float32))


def gcn(A: Any, X: np.ndarray, W: np.ndarray, b: np.ndarray) -> Run:
    """relu(A @ (X @ W) + b): cblas_sgemm, mkl_sparse_s_mm, NumPy for the element-wise tail, all into arrays made once."""
    handle = Handle(A)
    handle.hint_mm(W.shape[1])
    H = np.empty((X.shape[0], W.shape[1]), np.float32)
    Y = np.empty((A.shape[0], W.shape[1]), np.float32)
    project, aggregate = _sgemm(X, W, H), _mm(handle, H, Y)

    def run() -> np.ndarray:
        project()
        aggregate()
        np.add(Y, b, out=Y)
        return np.maximum(Y, 0, out=Y)

    return run


class Mkl:
    name = "mkl"
    kernels = {"spmv": spmv, "spmm": spmm, "gemm": gemm, "gcn": gcn}

    def version(self) -> str:
        return importlib.metadata.version("mkl")

    @contextmanager
    def threads(self, count: int) -> Iterator[None]:
        LIB.MKL_Set_Dynamic(c_int(0))
        LIB.MKL_Set_Num_Threads(c_int(count))
        LIB.MKL_Set_Num_Threads_Local(c_int(count))  # what torch.set_num_threads may have set wins over the global number
        if LIB.MKL_Get_Max_Threads() != count:
            raise Unavailable(f"MKL did not take {count} threads")
        yield


PEER = Mkl()
