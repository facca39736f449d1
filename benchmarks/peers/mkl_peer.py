"""Intel MKL through ctypes: the inspector-executor sparse interface (hinted and optimised, preparation untimed) and BLAS.

On processors of other makers MKL takes its general code (libmkl_def: 128-bit vectors in the sparse functions, kernels of their
own for Zen in the dense product); no documented setting changes that.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterator
from contextlib import contextmanager
from ctypes import c_float, c_int
from typing import Any

import numpy as np

from benchmarks.harness import Run, Unavailable
from benchmarks.peers import mkl_sparse
from benchmarks.peers.mkl_library import (
    CBLAS_NO_TRANS,
    CBLAS_ROW_MAJOR,
    DESCR,
    LIB,
    NON_TRANSPOSE,
    Handle,
    address,
    dense_product,
)


def spmv(A: Any, x: np.ndarray) -> Run:
    handle = Handle(A)
    handle.hint_mv()
    y = np.empty(A.shape[0], x.dtype)
    function = getattr(LIB, f"mkl_sparse_{handle.letter}_mv")
    args = (c_int(NON_TRANSPOSE), handle.real(1), handle.pointer, DESCR, address(x), handle.real(0), address(y))

    def run() -> np.ndarray:
        function(*args)
        return y

    run.keep = handle, x  # type: ignore[attr-defined]
    return run


def spmm(A: Any, X: np.ndarray) -> Run:
    handle = Handle(A)
    handle.hint_mm(X.shape[1])
    return dense_product(handle, X, np.empty((A.shape[0], X.shape[1]), X.dtype))


def prepared_spmv(A: Any, X: np.ndarray, prepared: Any = None) -> Run:
    """MKL prepares a matrix in any case; what PolyAI prepared is not for it."""
    return spmv(A, X)


def prepared_spmm(A: Any, X: np.ndarray, prepared: Any = None) -> Run:
    return spmm(A, X)


def _sgemm(A: np.ndarray, B: np.ndarray, C: np.ndarray) -> Run:
    (m, k), n = A.shape, B.shape[1]
    args = (
        c_int(CBLAS_ROW_MAJOR), c_int(CBLAS_NO_TRANS), c_int(CBLAS_NO_TRANS), c_int(m), c_int(n), c_int(k),
        c_float(1), address(A), c_int(k), address(B), c_int(n), c_float(0), address(C), c_int(n),
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
    project, aggregate = _sgemm(X, W, H), dense_product(handle, H, Y)

    def run() -> np.ndarray:
        project()
        aggregate()
        np.add(Y, b, out=Y)
        return np.maximum(Y, 0, out=Y)

    return run


def ttm(T: Any, C: np.ndarray, mode: int, unfolded: Any) -> Run:
    return spmm(unfolded, C)


class Mkl:
    name = "mkl"
    kernels = {
        "spmv": spmv, "spmm": spmm, "ttm": ttm, "prepared_spmv": prepared_spmv, "prepared_spmm": prepared_spmm, "gemm": gemm, "gcn": gcn,
        **mkl_sparse.KERNELS,
    }  # fmt: skip

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
