"""Kernels with sparse results that a good user of Numba would write: two passes (count, fill), rows shared out by work,
one dense accumulator per thread (Gustavson 1978), merges of sorted rows for sums and products of elements.

Rows of a product are left unsorted, as SciPy and MKL leave them. Conversions count per share of the elements, so that
all shares write without conflict.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

from benchmarks.harness import Run
from benchmarks.sparse_results import Compressed

SHARES_PER_THREAD = 8

_jit = numba.njit(parallel=True, fastmath=True, nogil=True)
_serial = numba.njit(fastmath=True, nogil=True)


@_serial
def _by_work(a_indptr, a_indices, b_indptr, shares):  # type: ignore[no-untyped-def]
    """Row bounds of `shares` shares with about the same number of multiplications."""
    rows = a_indptr.shape[0] - 1
    work = np.empty(rows + 1, np.int64)
    total = 0
    for i in range(rows):
        work[i] = total
        total += 1
        for p in range(a_indptr[i], a_indptr[i + 1]):
            total += b_indptr[a_indices[p] + 1] - b_indptr[a_indices[p]]
    work[rows] = total
    bounds = np.empty(shares + 1, np.int64)
    for s in range(shares + 1):
        bounds[s] = np.searchsorted(work, total * s // shares)
    bounds[shares] = rows
    return bounds


@_jit
def _count(a_indptr, a_indices, b_indptr, b_indices, bounds, cols, counts):  # type: ignore[no-untyped-def]
    for s in numba.prange(bounds.shape[0] - 1):
        mark = np.full(cols, -1, np.int32)
        for i in range(bounds[s], bounds[s + 1]):
            found = 0
            for p in range(a_indptr[i], a_indptr[i + 1]):
                k = a_indices[p]
                for q in range(b_indptr[k], b_indptr[k + 1]):
                    j = b_indices[q]
                    if mark[j] != i:
                        mark[j] = i
                        found += 1
            counts[i + 1] = found


@_jit
def _fill(a_indptr, a_indices, a, b_indptr, b_indices, b, bounds, cols, indptr, indices, data):  # type: ignore[no-untyped-def]
    for s in numba.prange(bounds.shape[0] - 1):
        mark = np.full(cols, -1, np.int32)
        total = np.zeros(cols, a.dtype)
        for i in range(bounds[s], bounds[s + 1]):
            begin = indptr[i]
            end = begin
            for p in range(a_indptr[i], a_indptr[i + 1]):
                k, x = a_indices[p], a[p]
                for q in range(b_indptr[k], b_indptr[k + 1]):
                    j = b_indices[q]
                    if mark[j] != i:
                        mark[j] = i
                        indices[end] = j
                        end += 1
                        total[j] = x * b[q]
                    else:
                        total[j] += x * b[q]
            for t in range(begin, end):
                data[t] = total[indices[t]]


@_jit
def _refill(a_indptr, a_indices, a, b_indptr, b_indices, b, bounds, cols, indptr, indices, data):  # type: ignore[no-untyped-def]
    """The values alone, on a pattern that is known."""
    for s in numba.prange(bounds.shape[0] - 1):
        total = np.zeros(cols, a.dtype)
        for i in range(bounds[s], bounds[s + 1]):
            for p in range(a_indptr[i], a_indptr[i + 1]):
                k, x = a_indices[p], a[p]
                for q in range(b_indptr[k], b_indptr[k + 1]):
                    total[b_indices[q]] += x * b[q]
            for t in range(indptr[i], indptr[i + 1]):
                j = indices[t]
                data[t] = total[j]
                total[j] = 0


@_jit
def _masked(m_indptr, m_indices, m, a_indptr, a_indices, a, b_indptr, b_indices, b, bounds, cols, data):  # type: ignore[no-untyped-def]
    for s in numba.prange(bounds.shape[0] - 1):
        wanted = np.full(cols, -1, np.int32)
        total = np.zeros(cols, a.dtype)
        for i in range(bounds[s], bounds[s + 1]):
            if m_indptr[i] == m_indptr[i + 1]:
                continue
            for t in range(m_indptr[i], m_indptr[i + 1]):
                wanted[m_indices[t]] = i
                total[m_indices[t]] = 0
            for p in range(a_indptr[i], a_indptr[i + 1]):
                k, x = a_indices[p], a[p]
                for q in range(b_indptr[k], b_indptr[k + 1]):
                    j = b_indices[q]
                    if wanted[j] == i:
                        total[j] += x * b[q]
            for t in range(m_indptr[i], m_indptr[i + 1]):
                data[t] = m[t] * total[m_indices[t]]


@_jit
def _count_merged(a_indptr, a_indices, b_indptr, b_indices, bounds, both, counts):  # type: ignore[no-untyped-def]
    """Elements of the union of the rows' columns, or with `both` of the intersection."""
    for s in numba.prange(bounds.shape[0] - 1):
        for i in range(bounds[s], bounds[s + 1]):
            p, a_end, q, b_end = a_indptr[i], a_indptr[i + 1], b_indptr[i], b_indptr[i + 1]
            shared, length = 0, a_end - p + b_end - q
            while p < a_end and q < b_end:
                j, k = a_indices[p], b_indices[q]
                shared += j == k
                p += j <= k
                q += k <= j
            counts[i + 1] = shared if both else length - shared


@_jit
def _add(a_indptr, a_indices, a, b_indptr, b_indices, b, bounds, indptr, indices, data):  # type: ignore[no-untyped-def]
    for s in numba.prange(bounds.shape[0] - 1):
        for i in range(bounds[s], bounds[s + 1]):
            p, a_end, q, b_end, t = a_indptr[i], a_indptr[i + 1], b_indptr[i], b_indptr[i + 1], indptr[i]
            while p < a_end and q < b_end:
                j, k = a_indices[p], b_indices[q]
                if j == k:
                    indices[t], data[t] = j, a[p] + b[q]
                    p += 1
                    q += 1
                elif j < k:
                    indices[t], data[t] = j, a[p]
                    p += 1
                else:
                    indices[t], data[t] = k, b[q]
                    q += 1
                t += 1
            while p < a_end:
                indices[t], data[t] = a_indices[p], a[p]
                p += 1
                t += 1
            while q < b_end:
                indices[t], data[t] = b_indices[q], b[q]
                q += 1
                t += 1


@_jit
def _multiply(a_indptr, a_indices, a, b_indptr, b_indices, b, bounds, indptr, indices, data):  # type: ignore[no-untyped-def]
    for s in numba.prange(bounds.shape[0] - 1):
        for i in range(bounds[s], bounds[s + 1]):
            p, a_end, q, b_end, t = a_indptr[i], a_indptr[i + 1], b_indptr[i], b_indptr[i + 1], indptr[i]
            while p < a_end and q < b_end:
                j, k = a_indices[p], b_indices[q]
                if j == k:
                    indices[t], data[t] = j, a[p] * b[q]
                    t += 1
                p += j <= k
                q += k <= j


@_jit
def _count_columns(bounds, indices, counts):  # type: ignore[no-untyped-def]
    for s in numba.prange(bounds.shape[0] - 1):
        for p in range(bounds[s], bounds[s + 1]):
            counts[s, indices[p]] += 1


@_jit
def _starts(counts, indptr):  # type: ignore[no-untyped-def]
    """Counts per (share, column) become where each share writes in each column; `indptr` the bounds of the columns."""
    shares, cols = counts.shape
    for j in numba.prange(cols):
        total = 0
        for s in range(shares):
            total += counts[s, j]
        indptr[j + 1] = total
    indptr[0] = 0
    for j in range(cols):
        indptr[j + 1] += indptr[j]
    for j in numba.prange(cols):
        at = indptr[j]
        for s in range(shares):
            length = counts[s, j]
            counts[s, j] = at
            at += length


@_jit
def _scatter_rows(row_bounds, indptr, indices, data, at, rows, out):  # type: ignore[no-untyped-def]
    for s in numba.prange(row_bounds.shape[0] - 1):
        for i in range(row_bounds[s], row_bounds[s + 1]):
            for p in range(indptr[i], indptr[i + 1]):
                j = indices[p]
                t = at[s, j]
                at[s, j] = t + 1
                rows[t], out[t] = i, data[p]


@_jit
def _scatter_coordinates(bounds, major, minor, data, at, indices, out):  # type: ignore[no-untyped-def]
    for s in numba.prange(bounds.shape[0] - 1):
        for p in range(bounds[s], bounds[s + 1]):
            i = major[p]
            t = at[s, i]
            at[s, i] = t + 1
            indices[t], out[t] = minor[p], data[p]


@_jit
def _sort_rows(indptr, indices, data):  # type: ignore[no-untyped-def]
    for i in numba.prange(indptr.shape[0] - 1):
        begin, end = indptr[i], indptr[i + 1]
        if end - begin <= 32:
            for p in range(begin + 1, end):
                j, x, q = indices[p], data[p], p - 1
                while q >= begin and indices[q] > j:
                    indices[q + 1], data[q + 1] = indices[q], data[q]
                    q -= 1
                indices[q + 1], data[q + 1] = j, x
        else:
            order = np.argsort(indices[begin:end])
            indices[begin:end], data[begin:end] = indices[begin:end][order], data[begin:end][order]


@_jit
def _bsr_spmm(indptr, indices, data, X, Y):  # type: ignore[no-untyped-def]
    block = data.shape[1]
    for i in numba.prange(indptr.shape[0] - 1):
        Y[i * block : (i + 1) * block] = 0
        for p in range(indptr[i], indptr[i + 1]):
            for r in range(block):
                row = Y[i * block + r]
                for c in range(block):
                    x, source = data[p, r, c], X[indices[p] * block + c]
                    for j in range(row.shape[0]):
                        row[j] += x * source[j]


def _shares() -> int:
    return int(SHARES_PER_THREAD * numba.get_num_threads())


def _even(count: int, shares: int) -> np.ndarray:
    return np.linspace(0, count, shares + 1).astype(np.int64)


def _offsets(counts: np.ndarray) -> np.ndarray:
    """Row bounds from counts that stand one place to the right; 32-bit where they fit."""
    indptr = np.cumsum(counts)
    return indptr.astype(np.int32) if indptr[-1] < 2**31 else indptr


def _symbolic(A: Any, B: Any) -> tuple[np.ndarray, np.ndarray]:
    """Shares of the rows and the bounds of the rows of A @ B."""
    bounds = _by_work(A.indptr, A.indices, B.indptr, numba.get_num_threads())
    counts = np.zeros(A.shape[0] + 1, np.int64)
    _count(A.indptr, A.indices, B.indptr, B.indices, bounds, B.shape[1], counts)
    return bounds, _offsets(counts)


def spgemm(A: Any, B: Any) -> Run:
    shape = (A.shape[0], B.shape[1])

    def run() -> Compressed:
        bounds, indptr = _symbolic(A, B)
        indices, data = np.empty(indptr[-1], np.int32), np.empty(indptr[-1], A.dtype)
        _fill(A.indptr, A.indices, A.data, B.indptr, B.indices, B.data, bounds, shape[1], indptr, indices, data)
        return Compressed(shape, indptr, indices, data)

    return run


def spgemm_reuse(A: Any, B: Any, A2: Any, B2: Any) -> Run:
    first = spgemm(A, B)().scipy()
    first.sort_indices()
    indptr, indices, bounds = first.indptr, first.indices, _symbolic(A, B)[0]

    def run() -> Compressed:
        data = np.empty(indptr[-1], A.dtype)
        _refill(A.indptr, A.indices, A2.data, B.indptr, B.indices, B2.data, bounds, B.shape[1], indptr, indices, data)
        return Compressed(first.shape, indptr, indices, data)

    return run


def masked_spgemm(M: Any, A: Any, B: Any) -> Run:
    def run() -> Compressed:
        bounds = _by_work(A.indptr, A.indices, B.indptr, numba.get_num_threads())
        data = np.empty(M.nnz, M.dtype)
        left, right = (A.indptr, A.indices, A.data), (B.indptr, B.indices, B.data)
        _masked(M.indptr, M.indices, M.data, *left, *right, bounds, B.shape[1], data)
        return Compressed(M.shape, M.indptr, M.indices, data)

    return run


def _merging(A: Any, B: Any, both: bool) -> Run:
    fill = _multiply if both else _add
    left, right = (A.indptr, A.indices, A.data), (B.indptr, B.indices, B.data)

    def run() -> Compressed:
        share = np.linspace(0, A.nnz + B.nnz, _shares() + 1)
        bounds = np.searchsorted(A.indptr.astype(np.int64) + B.indptr, share)
        bounds[0], bounds[-1] = 0, A.shape[0]
        counts = np.zeros(A.shape[0] + 1, np.int64)
        _count_merged(A.indptr, A.indices, B.indptr, B.indices, bounds, both, counts)
        indptr = _offsets(counts)
        indices, data = np.empty(indptr[-1], np.int32), np.empty(indptr[-1], A.dtype)
        fill(*left, *right, bounds, indptr, indices, data)
        return Compressed(A.shape, indptr, indices, data)

    return run


def sparse_add(A: Any, B: Any) -> Run:
    return _merging(A, B, False)


def sparse_multiply(A: Any, B: Any) -> Run:
    return _merging(A, B, True)


def csr_to_csc(A: Any) -> Run:
    shape = (A.shape[1], A.shape[0])

    def run() -> Compressed:
        rows = np.searchsorted(A.indptr, np.linspace(0, A.nnz, numba.get_num_threads() + 1))
        rows[0], rows[-1] = 0, A.shape[0]
        at = np.zeros((len(rows) - 1, A.shape[1]), np.int32)
        _count_columns(A.indptr[rows], A.indices, at)
        indptr = np.empty(A.shape[1] + 1, np.int32)
        _starts(at, indptr)
        indices, data = np.empty(A.nnz, np.int32), np.empty(A.nnz, A.dtype)
        _scatter_rows(rows, A.indptr, A.indices, A.data, at, indices, data)
        return Compressed(shape, indptr, indices, data)

    return _transposed(run)


def _transposed(run: Run) -> Run:
    """The CSR of the transpose, read as the CSC it is."""

    class AsCsc:
        def __init__(self, made: Compressed) -> None:
            self.made = made

        def scipy(self) -> Any:
            return self.made.scipy().T

    return lambda: AsCsc(run())


def coo_to_csr(A: Any) -> Run:
    major, minor = (np.ascontiguousarray(c, dtype=np.int32) for c in A.coords)

    def run() -> Compressed:
        bounds = _even(A.nnz, numba.get_num_threads())
        at = np.zeros((len(bounds) - 1, A.shape[0]), np.int32)
        _count_columns(bounds, major, at)
        indptr = np.empty(A.shape[0] + 1, np.int32)
        _starts(at, indptr)
        indices, data = np.empty(A.nnz, np.int32), np.empty(A.nnz, A.dtype)
        _scatter_coordinates(bounds, major, minor, A.data, at, indices, data)
        _sort_rows(indptr, indices, data)
        return Compressed(A.shape, indptr, indices, data)

    return run


def bsr_spmm(A: Any, X: np.ndarray) -> Run:
    Y = np.empty((A.shape[0], X.shape[1]), X.dtype)

    def run() -> np.ndarray:
        _bsr_spmm(A.indptr, A.indices, A.data, X, Y)
        return Y

    return run


KERNELS = {
    "spgemm": spgemm, "spgemm_reuse": spgemm_reuse, "masked_spgemm": masked_spgemm, "sparse_add": sparse_add,
    "sparse_multiply": sparse_multiply, "csr_to_csc": csr_to_csc, "coo_to_csr": coo_to_csr, "bsr_spmm": bsr_spmm,
}  # fmt: skip
