"""SciPy's sparse matrices and NumPy: what the same program costs without any compiler. SciPy's sparse kernels use one thread."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import scipy
from scipy import special

from benchmarks.harness import Run
from benchmarks.peers import scipy_sparse
from benchmarks.peers.openblas_peer import PEER as OPENBLAS


def spmv(A: Any, x: np.ndarray) -> Run:
    return lambda: A @ x


def spmm(A: Any, X: np.ndarray) -> Run:
    return lambda: A @ X


def sddmm(A: Any, U: np.ndarray, V: np.ndarray) -> Run:
    """The gather idiom: A.data * sum(U[rows] * V[cols]), with the row of each entry known in advance."""
    rows = np.repeat(np.arange(A.shape[0]), np.diff(A.indptr))
    return lambda: A.data * np.einsum("pk,pk->p", U[rows], V[A.indices])


def attention(mask: Any, Q: np.ndarray, K: np.ndarray, V: np.ndarray) -> Run:
    """Gathered scores, softmax by np.add.reduceat over rows, then CSR @ V. Rows without entries give zero."""
    rows = np.repeat(np.arange(mask.shape[0]), np.diff(mask.indptr))
    filled = np.flatnonzero(np.diff(mask.indptr))
    starts = mask.indptr[filled]
    scale = Q.dtype.type(1 / np.sqrt(Q.shape[1]))
    weights = mask.copy().astype(Q.dtype)

    def run() -> np.ndarray:
        score = np.einsum("pk,pk->p", Q[rows], K[mask.indices]) * scale
        top = np.zeros(mask.shape[0], Q.dtype)
        top[filled] = np.maximum.reduceat(score, starts)
        e = np.exp(score - top[rows])
        total = np.ones(mask.shape[0], Q.dtype)
        total[filled] = np.add.reduceat(e, starts)
        weights.data = e / total[rows]
        return weights @ V

    return run


def gcn(A: Any, X: np.ndarray, W: np.ndarray, b: np.ndarray) -> Run:
    return lambda: np.maximum(A @ (X @ W) + b, 0)


def rowwise(X: np.ndarray, gamma: np.ndarray, beta: np.ndarray, eps: float) -> Run:
    """softmax(gelu(layernorm(X))) over the last axis."""
    half = X.dtype.type(0.5)
    root = X.dtype.type(np.sqrt(0.5))

    def run() -> np.ndarray:
        centred = X - X.mean(axis=1, keepdims=True)
        normal = centred / np.sqrt((centred * centred).mean(axis=1, keepdims=True) + X.dtype.type(eps)) * gamma + beta
        active = half * normal * (1 + special.erf(normal * root))
        e = np.exp(active - active.max(axis=1, keepdims=True))
        return e / e.sum(axis=1, keepdims=True)

    return run


def ttm(T: Any, C: np.ndarray, mode: int, unfolded: Any) -> Run:
    return spmm(unfolded, C)


class Scipy:
    name = "scipy"
    kernels = {"ttm": ttm, "spmv": spmv, "spmm": spmm, "sddmm": sddmm, "attention": attention, "gcn": gcn, "rowwise": rowwise} | scipy_sparse.KERNELS

    def version(self) -> str:
        return f"{scipy.__version__} (NumPy {np.__version__})"

    @contextmanager
    def threads(self, count: int) -> Iterator[None]:
        with OPENBLAS.threads(count):
            yield


PEER = Scipy()
