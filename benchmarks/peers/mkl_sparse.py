"""MKL's inspector-executor functions with sparse results: products, sums, conversions, and products with blocks and transposes.

Operands become handles before the clock starts; a call makes a new result handle and frees the one before, as a loop would.
Rows of a product come out unsorted; `mkl_sparse_order` is not called, to MKL's advantage.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from ctypes import byref, c_int, c_void_p
from typing import Any

import numpy as np
import scipy.sparse as sp

from benchmarks.harness import Run, Unavailable
from benchmarks.peers.mkl_library import (
    BASE_ZERO,
    DESCR,
    EXPECTED_CALLS,
    LETTER,
    LIB,
    MEMORY_AGGRESSIVE,
    NON_TRANSPOSE,
    ROW_MAJOR,
    Handle,
    address,
    call,
    dense_product,
)

TRANSPOSE, COLUMN_MAJOR = 11, 102
FULL, FINALIZE, FULL_NO_VALUES, COUNT = 90, 92, 93, 91  # sparse_request_t
MEMORY_NONE = 80


class Result:
    """A sparse_matrix_t that MKL allocated, freed with this object. `form` is csr, csc or bsr."""

    def __init__(self, letter: str, shape: tuple[int, int], form: str = "csr") -> None:
        self.letter, self.shape, self.form = letter, shape, form
        self.pointer = c_void_p()

    def __del__(self) -> None:
        if self.pointer:
            LIB.mkl_sparse_destroy(self.pointer)

    def scipy(self) -> Any:
        """A copy as a SciPy matrix."""
        base, rows, cols, block, layout = c_int(), c_int(), c_int(), c_int(1), c_int()
        begin, end, indices, data = (c_void_p() for _ in range(4))
        sizes = (rows, cols) if self.form != "bsr" else (layout, rows, cols, block)
        call(
            f"mkl_sparse_{self.letter}_export_{self.form}",
            self.pointer, byref(base), *(byref(s) for s in sizes), byref(begin), byref(end), byref(indices), byref(data),
        )  # fmt: skip
        count = cols.value if self.form == "csc" else rows.value
        starts, ends = _array(begin, count, np.int32) - base.value, _array(end, count, np.int32) - base.value
        indptr = np.append(starts, ends[-1] if count else 0)
        if not np.array_equal(indptr[1:], ends):
            raise RuntimeError("MKL's result has gaps between its rows")
        nnz = int(indptr[-1])
        crd = _array(indices, nnz, np.int32) - base.value
        real = np.float32 if self.letter == "s" else np.float64
        values = _array(data, nnz * block.value**2, real)
        if self.form == "bsr":
            blocks = values.reshape(nnz, block.value, block.value)
            blocks = blocks.transpose(0, 2, 1) if layout.value == COLUMN_MAJOR else blocks
            return sp.bsr_array((np.ascontiguousarray(blocks), crd, indptr), shape=self.shape)
        make = sp.csc_array if self.form == "csc" else sp.csr_array
        return make((values, crd, indptr), shape=self.shape)


def _array(pointer: c_void_p, count: int, dtype: Any) -> np.ndarray:
    if not count:
        return np.zeros(0, dtype)
    size = count * np.dtype(dtype).itemsize
    return np.frombuffer((ctypes.c_char * size).from_address(pointer.value or 0), dtype).copy()


def _producing(name: str, letter: str, shape: tuple[int, int], form: str, args: Callable[[Any], tuple[Any, ...]], keep: Any) -> Run:
    """A run that calls `name` with args(reference to a fresh result handle)."""
    function = getattr(LIB, name)

    def run() -> Result:
        result = Result(letter, shape, form)
        status = function(*args(byref(result.pointer)))
        if status:
            raise RuntimeError(f"{name} returned status {status}")
        return result

    run.keep = keep  # type: ignore[attr-defined]
    return run


def spgemm(A: Any, B: Any) -> Run:
    """mkl_sparse_spmm: count and fill in one call."""
    a, b = Handle(A), Handle(B)
    return _producing(
        "mkl_sparse_spmm", a.letter, (A.shape[0], B.shape[1]), "csr",
        lambda out: (c_int(NON_TRANSPOSE), a.pointer, b.pointer, out), (a, b),
    )  # fmt: skip


def _sp2m(a: Handle, b: Handle, request: int, out: Any) -> tuple[Any, ...]:
    return (c_int(NON_TRANSPOSE), DESCR, a.pointer, c_int(NON_TRANSPOSE), DESCR, b.pointer, c_int(request), out)


def spgemm_two_stage(A: Any, B: Any) -> Run:
    """mkl_sparse_sp2m: the number of stored elements first, the rest second, as when the caller allocates."""
    a, b = Handle(A), Handle(B)
    function = LIB.mkl_sparse_sp2m

    def run() -> Result:
        result = Result(a.letter, (A.shape[0], B.shape[1]))
        for request in (COUNT, FINALIZE):
            status = function(*_sp2m(a, b, request, byref(result.pointer)))
            if status:
                raise RuntimeError(f"mkl_sparse_sp2m, request {request}, returned status {status}")
        return result

    return run


def spgemm_reuse(A: Any, B: Any, A2: Any, B2: Any) -> Run:
    """mkl_sparse_sp2m with the pattern made once; each call computes the values again, into the same result."""
    a, b = Handle(A, own=True), Handle(B, own=True)
    result = Result(a.letter, (A.shape[0], B.shape[1]))
    out = byref(result.pointer)
    call("mkl_sparse_sp2m", *_sp2m(a, b, FULL_NO_VALUES, out))
    a.data[:], b.data[:] = A2.data, B2.data  # the handles read these arrays: new values of the same pattern
    args, function = _sp2m(a, b, FINALIZE, out), LIB.mkl_sparse_sp2m

    def run() -> Result:
        status = function(*args)
        if status:
            raise RuntimeError(f"mkl_sparse_sp2m returned status {status}")
        return result

    run.keep = a, b  # type: ignore[attr-defined]
    return run


def sparse_add(A: Any, B: Any) -> Run:
    a, b = Handle(A), Handle(B)
    one = a.real(1)
    return _producing(
        f"mkl_sparse_{a.letter}_add", a.letter, A.shape, "csr",
        lambda out: (c_int(NON_TRANSPOSE), a.pointer, one, b.pointer, out), (a, b),
    )  # fmt: skip


def csr_to_csc(A: Any) -> Run:
    """The transpose as CSR holds the same arrays as CSC; that conversion is the faster of MKL's two."""
    a = Handle(A)
    return _producing(
        "mkl_sparse_convert_csc", a.letter, A.shape, "csc", lambda out: (a.pointer, c_int(NON_TRANSPOSE), out), a
    )  # fmt: skip


def csr_to_bsr(A: Any, block: int) -> Run:
    a = Handle(A)
    return _producing(
        "mkl_sparse_convert_bsr", a.letter, A.shape, "bsr",
        lambda out: (a.pointer, c_int(block), c_int(ROW_MAJOR), c_int(NON_TRANSPOSE), out), a,
    )  # fmt: skip


class CooHandle:
    """A sparse_matrix_t over the arrays of a SciPy COO matrix."""

    def __init__(self, A: Any) -> None:
        self.letter = LETTER[A.data.dtype][0]
        self.rows, self.cols = (np.ascontiguousarray(c, dtype=np.int32) for c in A.coords)
        self.data = np.ascontiguousarray(A.data)
        self.pointer = c_void_p()
        call(
            f"mkl_sparse_{self.letter}_create_coo",
            byref(self.pointer), c_int(BASE_ZERO), c_int(A.shape[0]), c_int(A.shape[1]), c_int(A.nnz),
            address(self.rows), address(self.cols), address(self.data),
        )  # fmt: skip

    def __del__(self) -> None:
        if getattr(self, "pointer", None):
            LIB.mkl_sparse_destroy(self.pointer)


def coo_to_csr(A: Any) -> Run:
    a = CooHandle(A)
    return _producing(
        "mkl_sparse_convert_csr", a.letter, A.shape, "csr", lambda out: (a.pointer, c_int(NON_TRANSPOSE), out), a
    )  # fmt: skip


class BsrHandle:
    """A sparse_matrix_t over the arrays of a SciPy BSR matrix with square blocks, hinted for products of `columns` columns."""

    def __init__(self, A: Any, columns: int) -> None:
        block, other = A.blocksize
        if block != other:
            raise Unavailable("MKL's blocks are square")
        self.letter, self.real = LETTER[A.data.dtype]
        self.arrays = (A.indptr.astype(np.int32), A.indices.astype(np.int32), np.ascontiguousarray(A.data))
        indptr, indices, data = self.arrays
        self.pointer = c_void_p()
        call(
            f"mkl_sparse_{self.letter}_create_bsr",
            byref(self.pointer), c_int(BASE_ZERO), c_int(ROW_MAJOR), c_int(A.shape[0] // block), c_int(A.shape[1] // block),
            c_int(block), address(indptr), c_void_p(indptr.ctypes.data + 4), address(indices), address(data),
        )  # fmt: skip
        hint = (c_int(NON_TRANSPOSE), DESCR, c_int(ROW_MAJOR), c_int(columns), c_int(EXPECTED_CALLS))
        LIB.mkl_sparse_set_mm_hint(self.pointer, *hint)
        LIB.mkl_sparse_optimize(self.pointer)

    def __del__(self) -> None:
        if getattr(self, "pointer", None):
            LIB.mkl_sparse_destroy(self.pointer)


def bsr_spmm(A: Any, X: np.ndarray) -> Run:
    return dense_product(BsrHandle(A, X.shape[1]), X, np.empty((A.shape[0], X.shape[1]), X.dtype))


def spmm_transposed(A: Any, X: np.ndarray, memory: int = MEMORY_NONE) -> Run:
    """A^T X with the operation, not the matrix, transposed; hinted, without leave to keep a second copy of A."""
    handle = Handle(A)
    LIB.mkl_sparse_set_mm_hint(
        handle.pointer, c_int(TRANSPOSE), DESCR, c_int(ROW_MAJOR), c_int(X.shape[1]), c_int(EXPECTED_CALLS)
    )
    LIB.mkl_sparse_set_memory_hint(handle.pointer, c_int(memory))
    call("mkl_sparse_optimize", handle.pointer)
    return dense_product(handle, X, np.empty((A.shape[1], X.shape[1]), X.dtype), TRANSPOSE)


def spmm_transposed_copied(A: Any, X: np.ndarray) -> Run:
    """The same with leave to keep a second copy: the inspector stores the transpose, and is much faster for it."""
    return spmm_transposed(A, X, MEMORY_AGGRESSIVE)


KERNELS = {
    "spgemm": spgemm, "spgemm_two_stage": spgemm_two_stage, "spgemm_reuse": spgemm_reuse, "sparse_add": sparse_add,
    "csr_to_csc": csr_to_csc, "coo_to_csr": coo_to_csr, "csr_to_bsr": csr_to_bsr, "bsr_spmm": bsr_spmm,
    "spmm_transposed": spmm_transposed, "spmm_transposed_copied": spmm_transposed_copied,
}  # fmt: skip
