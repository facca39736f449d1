"""SuiteSparse:GraphBLAS through its C interface (cffi): products, sums, element-wise products, masks.

Operands are imported before the clock starts; a call ends when the result is complete with sorted rows (GrB_MATERIALIZE).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import scipy.sparse as sp
import suitesparse_graphblas
from suitesparse_graphblas import ffi, lib

from benchmarks.harness import Run, Unavailable

if not suitesparse_graphblas.is_initialized():
    suitesparse_graphblas.initialize(blocking=False, memory_manager="c")

_SUFFIX = {np.dtype("f4"): "FP32", np.dtype("f8"): "FP64"}
_C_TYPE = {"FP32": "float *", "FP64": "double *"}


def _call(status: int, name: str) -> None:
    if status != lib.GrB_SUCCESS:
        raise RuntimeError(f"{name} returned status {status}")


def _uint64(array: np.ndarray) -> Any:
    return ffi.cast("GrB_Index *", ffi.from_buffer(array))


class Matrix:
    """A GrB_Matrix, freed with this object."""

    def __init__(self, shape: tuple[int, int], suffix: str) -> None:
        self.shape, self.suffix = shape, suffix
        self.pointer = ffi.new("GrB_Matrix *")
        _call(lib.GrB_Matrix_new(self.pointer, getattr(lib, f"GrB_{suffix}"), *shape), "GrB_Matrix_new")

    @classmethod
    def of(cls, A: Any) -> Matrix:
        """A copy of a SciPy CSR matrix."""
        suffix = _SUFFIX.get(A.dtype)
        if suffix is None:
            raise Unavailable(f"the GraphBLAS adapter has no {A.dtype}")
        out = cls.__new__(cls)
        out.shape, out.suffix, out.pointer = A.shape, suffix, ffi.new("GrB_Matrix *")
        indptr, indices, data = A.indptr.astype(np.uint64), A.indices.astype(np.uint64), np.ascontiguousarray(A.data)
        status = getattr(lib, f"GrB_Matrix_import_{suffix}")(
            out.pointer, getattr(lib, f"GrB_{suffix}"), *A.shape, _uint64(indptr), _uint64(indices),
            ffi.cast(_C_TYPE[suffix], ffi.from_buffer(data)), len(indptr), len(indices), len(data), lib.GrB_CSR_FORMAT,
        )  # fmt: skip
        _call(status, "GrB_Matrix_import")
        out.finish()
        return out

    def __del__(self) -> None:
        lib.GrB_Matrix_free(self.pointer)

    def finish(self) -> Matrix:
        """Complete all work put off, sorting included."""
        _call(lib.GrB_Matrix_wait(self.pointer[0], lib.GrB_MATERIALIZE), "GrB_Matrix_wait")
        return self

    def scipy(self) -> Any:
        sizes = [ffi.new("GrB_Index *") for _ in range(3)]
        _call(lib.GrB_Matrix_exportSize(*sizes, lib.GrB_CSR_FORMAT, self.pointer[0]), "GrB_Matrix_exportSize")
        indptr, indices = (np.empty(n[0], np.uint64) for n in sizes[:2])
        data = np.empty(sizes[2][0], np.float32 if self.suffix == "FP32" else np.float64)
        status = getattr(lib, f"GrB_Matrix_export_{self.suffix}")(
            _uint64(indptr), _uint64(indices), ffi.cast(_C_TYPE[self.suffix], ffi.from_buffer(data)),
            *sizes, lib.GrB_CSR_FORMAT, self.pointer[0],
        )  # fmt: skip
        _call(status, "GrB_Matrix_export")
        return sp.csr_array((data, indices.astype(np.int32), indptr.astype(np.int32)), shape=self.shape)


def _producing(shape: tuple[int, int], suffix: str, call: Callable[[Any], int], keep: Any) -> Run:
    def run() -> Matrix:
        out = Matrix(shape, suffix)
        _call(call(out.pointer[0]), "GraphBLAS")
        return out.finish()

    run.keep = keep  # type: ignore[attr-defined]
    return run


def _mxm(mask: Any, descriptor: Any, A: Any, B: Any) -> Run:
    a, b = Matrix.of(A), Matrix.of(B)
    semiring = getattr(lib, f"GrB_PLUS_TIMES_SEMIRING_{a.suffix}")
    m = ffi.NULL if mask is None else mask.pointer[0]
    shape = (A.shape[0], B.shape[1])
    left, right = a.pointer[0], b.pointer[0]
    return _producing(
        shape, a.suffix, lambda c: int(lib.GrB_mxm(c, m, ffi.NULL, semiring, left, right, descriptor)), (a, b, mask)
    )  # fmt: skip


def spgemm(A: Any, B: Any) -> Run:
    return _mxm(None, ffi.NULL, A, B)


def masked_spgemm(M: Any, A: Any, B: Any) -> Run:
    """C<M> = A B by the structure of M alone: for masks of ones."""
    if not np.all(M.data == 1):
        raise Unavailable("a mask of GraphBLAS has no values")
    return _mxm(Matrix.of(M), lib.GrB_DESC_S, A, B)


def _elementwise(function: str, operator: str, A: Any, B: Any) -> Run:
    a, b = Matrix.of(A), Matrix.of(B)
    f, op = getattr(lib, f"GrB_Matrix_{function}_BinaryOp"), getattr(lib, f"GrB_{operator}_{a.suffix}")
    left, right = a.pointer[0], b.pointer[0]
    return _producing(
        A.shape, a.suffix, lambda c: int(f(c, ffi.NULL, ffi.NULL, op, left, right, ffi.NULL)), (a, b)
    )  # fmt: skip


def sparse_add(A: Any, B: Any) -> Run:
    return _elementwise("eWiseAdd", "PLUS", A, B)


def sparse_multiply(A: Any, B: Any) -> Run:
    return _elementwise("eWiseMult", "TIMES", A, B)


class GraphBlas:
    name = "graphblas"
    kernels = {"spgemm": spgemm, "masked_spgemm": masked_spgemm, "sparse_add": sparse_add, "sparse_multiply": sparse_multiply}

    def version(self) -> str:
        return str(suitesparse_graphblas.__version__)

    @contextmanager
    def threads(self, count: int) -> Iterator[None]:
        _call(lib.GrB_Global_set_INT32(lib.GrB_GLOBAL, count, lib.GxB_NTHREADS), "GrB_Global_set_INT32")
        yield


PEER = GraphBlas()
