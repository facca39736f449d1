"""Kernels a good user of Numba would write: prange over rows, fastmath, row buffers, contiguous inner loops.

Where fixing the feature count at compile time may help (SDDMM, attention), both variants are tried and the faster one kept.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import numba
import numpy as np

from benchmarks.harness import Run, Unavailable
from benchmarks.peers import numba_sparse, numba_tensors

_jit = numba.njit(parallel=True, fastmath=True, nogil=True)


@_jit
def _spmv(indptr, indices, data, x, y):  # type: ignore[no-untyped-def]
    for i in numba.prange(y.shape[0]):
        total = data.dtype.type(0)
        for p in range(indptr[i], indptr[i + 1]):
            total += data[p] * x[indices[p]]
        y[i] = total


@_jit
def _spmm(indptr, indices, data, X, Y):  # type: ignore[no-untyped-def]
    for i in numba.prange(Y.shape[0]):
        row = Y[i]
        row[:] = 0
        for p in range(indptr[i], indptr[i + 1]):
            a, source = data[p], X[indices[p]]
            for j in range(row.shape[0]):
                row[j] += a * source[j]


@cache
def _sddmm(size: int) -> Any:
    """`size` is the number of features, 0 if it is read from the arrays."""

    @_jit
    def kernel(indptr, indices, data, U, V, out):  # type: ignore[no-untyped-def]
        for i in numba.prange(indptr.shape[0] - 1):
            u = U[i]
            for p in range(indptr[i], indptr[i + 1]):
                v = V[indices[p]]
                total = data.dtype.type(0)
                for k in range(size if size else u.shape[0]):
                    total += u[k] * v[k]
                out[p] = data[p] * total

    return kernel


@cache
def _attention(size: int) -> Any:
    """`size` is the number of features of Q, K and V, 0 if it is read from the arrays."""

    @_jit
    def kernel(indptr, indices, Q, K, V, longest, scale, Y):  # type: ignore[no-untyped-def]
        for i in numba.prange(indptr.shape[0] - 1):
            begin, end = indptr[i], indptr[i + 1]
            weight = np.empty(longest, Q.dtype)
            q, row = Q[i], Y[i]
            row[:] = 0
            top = Q.dtype.type(-np.inf)
            for p in range(begin, end):
                key = K[indices[p]]
                total = Q.dtype.type(0)
                for c in range(size if size else q.shape[0]):
                    total += q[c] * key[c]
                total *= scale
                weight[p - begin] = total
                top = max(top, total)
            norm = Q.dtype.type(0)
            for t in range(end - begin):
                weight[t] = math.exp(weight[t] - top)
                norm += weight[t]
            for p in range(begin, end):
                w, value = weight[p - begin] / norm, V[indices[p]]
                for c in range(size if size else row.shape[0]):
                    row[c] += w * value[c]

    return kernel


@_jit
def _gcn_tail(indptr, indices, data, H, b, Y):  # type: ignore[no-untyped-def]
    for i in numba.prange(Y.shape[0]):
        row = Y[i]
        row[:] = b
        for p in range(indptr[i], indptr[i + 1]):
            a, source = data[p], H[indices[p]]
            for j in range(row.shape[0]):
                row[j] += a * source[j]
        for j in range(row.shape[0]):
            row[j] = max(row[j], Y.dtype.type(0))


def _fastest(runs: list[Run]) -> Run:
    """The run with the smallest time of a few calls."""
    best: list[float] = []
    for run in runs:
        run()
        times = []
        for _ in range(5):
            begin = time.perf_counter()
            run()
            times.append(time.perf_counter() - begin)
        best.append(min(times))
    return runs[best.index(min(best))]


def spmv(A: Any, x: np.ndarray) -> Run:
    y = np.empty(A.shape[0], x.dtype)

    def run() -> np.ndarray:
        _spmv(A.indptr, A.indices, A.data, x, y)
        return y

    return run


def spmm(A: Any, X: np.ndarray) -> Run:
    Y = np.empty((A.shape[0], X.shape[1]), X.dtype)

    def run() -> np.ndarray:
        _spmm(A.indptr, A.indices, A.data, X, Y)
        return Y

    return run


def sddmm(A: Any, U: np.ndarray, V: np.ndarray) -> Run:
    def variant(size: int) -> Run:
        out, kernel = np.empty_like(A.data), _sddmm(size)

        def run() -> np.ndarray:
            kernel(A.indptr, A.indices, A.data, U, V, out)
            return out

        return run

    return _fastest([variant(0), variant(U.shape[1])])


def attention(mask: Any, Q: np.ndarray, K: np.ndarray, V: np.ndarray) -> Run:
    longest = int(np.diff(mask.indptr).max(initial=0))
    scale = Q.dtype.type(1 / math.sqrt(Q.shape[1]))

    def variant(size: int) -> Run:
        Y, kernel = np.empty((mask.shape[0], V.shape[1]), Q.dtype), _attention(size)

        def run() -> np.ndarray:
            kernel(mask.indptr, mask.indices, Q, K, V, longest, scale, Y)
            return Y

        return run

    return _fastest([variant(0)] + ([variant(Q.shape[1])] if Q.shape[1] == V.shape[1] else []))


def gcn(A: Any, X: np.ndarray, W: np.ndarray, b: np.ndarray) -> Run:
    H = np.empty((X.shape[0], W.shape[1]), X.dtype)
    Y = np.empty((A.shape[0], W.shape[1]), X.dtype)

    def run() -> np.ndarray:
        np.matmul(X, W, out=H)
        _gcn_tail(A.indptr, A.indices, A.data, H, b, Y)
        return Y

    return run


def mttkrp(T: Any, factors: list[np.ndarray], mode: int) -> Run:
    return _fastest(numba_tensors.variants(T, factors, mode))


def ttm(T: Any, C: np.ndarray, mode: int, unfolded: Any) -> Run:
    return spmm(unfolded, C)


class Numba:
    name = "numba"
    kernels = {
        "spmv": spmv, "spmm": spmm, "sddmm": sddmm, "attention": attention, "gcn": gcn, "mttkrp": mttkrp, "ttm": ttm,
    } | numba_sparse.KERNELS  # fmt: skip

    def version(self) -> str:
        return str(numba.__version__)

    @contextmanager
    def threads(self, count: int) -> Iterator[None]:
        if count > numba.config.NUMBA_NUM_THREADS:
            raise Unavailable(f"Numba was started with {numba.config.NUMBA_NUM_THREADS} threads")
        before = numba.get_num_threads()
        numba.set_num_threads(count)
        try:
            yield
        finally:
            numba.set_num_threads(before)


PEER = Numba()
