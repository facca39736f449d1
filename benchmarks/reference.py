"""float64 results with a bound on the error that rounding in the operands' precision explains (Higham 2002, ch. 3):
gamma(n) = n u / (1 - n u), times the sum of magnitudes. What exceeds the bound is a wrong result, not rounding."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from scipy import special

from benchmarks.sparse_results import on_pattern

Bounded = tuple[np.ndarray, np.ndarray]


def gamma(count: Any, dtype: Any) -> Any:
    """Growth of `count` roundings."""
    u = np.finfo(dtype).eps / 2
    return count * u / (1 - count * u)


def underflow(count: Any, dtype: Any) -> Any:
    """What `count` products below the smallest normal number may lose."""
    return count * np.finfo(dtype).tiny


def _wide(array: np.ndarray) -> np.ndarray:
    return array.astype(np.float64)


def _lengths(A: Any, rank: int) -> np.ndarray:
    lengths = np.diff(A.indptr).astype(np.float64)
    return lengths if rank == 1 else lengths[:, None]


def matvec(A: Any, X: np.ndarray) -> Bounded:
    wide, x = A.astype(np.float64), _wide(X)
    count = _lengths(A, X.ndim) + 2
    return wide @ x, gamma(count, X.dtype) * (abs(wide) @ np.abs(x)) + underflow(count, X.dtype)


def sddmm(A: Any, U: np.ndarray, V: np.ndarray) -> Bounded:
    """Values A.data * (U @ V.T) at the stored coordinates, in blocks so that the gathered rows stay small."""
    rows = np.repeat(np.arange(A.shape[0]), np.diff(A.indptr))
    values, scale = np.empty(A.nnz), np.empty(A.nnz)
    for begin in range(0, A.nnz, 1 << 18):
        at = slice(begin, begin + (1 << 18))
        u, v = _wide(U[rows[at]]), _wide(V[A.indices[at]])
        values[at] = np.einsum("pk,pk->p", u, v)
        scale[at] = np.einsum("pk,pk->p", np.abs(u), np.abs(v))
    data = _wide(A.data)
    return data * values, gamma(U.shape[1] + 2, U.dtype) * np.abs(data) * scale + underflow(U.shape[1] + 2, U.dtype)


def attention(mask: Any, Q: np.ndarray, K: np.ndarray, V: np.ndarray) -> Bounded:
    """softmax over stored coordinates of Q K^T / sqrt(d), times V. A row without coordinates is zero."""
    pattern = mask.astype(np.float64)
    pattern.data = np.ones(mask.nnz)
    score, slack = sddmm(pattern, Q, K)
    scale, eps = 1 / math.sqrt(Q.shape[1]), float(np.finfo(Q.dtype).eps)
    rows, lengths = np.repeat(np.arange(mask.shape[0]), np.diff(mask.indptr)), np.diff(mask.indptr)
    filled, top, total = np.flatnonzero(lengths), np.zeros(mask.shape[0]), np.ones(mask.shape[0])
    worst = np.zeros(mask.shape[0])
    starts = mask.indptr[filled]
    score = score * scale
    top[filled] = np.maximum.reduceat(score, starts)
    worst[filled] = np.maximum.reduceat(slack * scale + 2 * eps * np.abs(score), starts)
    weights = np.exp(score - top[rows])
    total[filled] = np.add.reduceat(weights, starts)
    pattern.data = weights / total[rows]
    relative = 2 * worst + (lengths + 16) * eps
    return pattern @ _wide(V), relative[:, None] * (pattern @ np.abs(_wide(V)))


def gcn(A: Any, X: np.ndarray, W: np.ndarray, b: np.ndarray) -> Bounded:
    wide, x, w = A.astype(np.float64), _wide(X), _wide(W)
    scale = abs(wide) @ (np.abs(x) @ np.abs(w)) + np.abs(_wide(b))
    return np.maximum(wide @ (x @ w) + _wide(b), 0), gamma(_lengths(A, 2) + X.shape[1] + 4, X.dtype) * scale


def mttkrp(T: Any, factors: list[np.ndarray], mode: int) -> Bounded:
    """sum over stored elements of value times the rows of all factors, at the coordinate of `mode`, in blocks."""
    others = [d for d in range(T.ndim) if d != mode]
    rank = factors[0].shape[1]
    values, scale = np.zeros((2, T.shape[mode], rank))
    for begin in range(0, T.nnz, 1 << 18):
        at = slice(begin, begin + (1 << 18))
        term = np.broadcast_to(_wide(T.data[at])[:, None], (len(T.data[at]), rank)).copy()
        for d, factor in zip(others, factors):
            term *= _wide(factor[T.coords[d][at]])
        np.add.at(values, T.coords[mode][at], term)
        np.add.at(scale, T.coords[mode][at], np.abs(term))
    count = np.bincount(T.coords[mode], minlength=T.shape[mode])[:, None] + T.ndim + 2
    return values, gamma(count, factors[0].dtype) * scale + underflow(count, factors[0].dtype)


def gemm(A: np.ndarray, B: np.ndarray) -> Bounded:
    a, b = _wide(A), _wide(B)
    return a @ b, gamma(A.shape[1] + 1, A.dtype) * (np.abs(a) @ np.abs(b))


def rowwise(X: np.ndarray, gamma_: np.ndarray, beta: np.ndarray, eps: float) -> Bounded:
    """softmax(gelu(layernorm(X))). The bound takes 32 roundings of the widest normalised value, as relative error."""
    x = _wide(X)
    centred = x - x.mean(axis=1, keepdims=True)
    normal = centred / np.sqrt((centred**2).mean(axis=1, keepdims=True) + eps) * gamma_ + beta
    active = normal * special.ndtr(normal)
    e = np.exp(active - active.max(axis=1, keepdims=True))
    y = e / e.sum(axis=1, keepdims=True)
    unit = float(np.finfo(X.dtype).eps)
    return y, y * 32 * unit * np.maximum(1, np.abs(normal).max(axis=1, keepdims=True))


EPS, HEADS = 1e-5, 4
"""Of the transformer block."""


def _gelu(x: np.ndarray) -> np.ndarray:
    return x * special.ndtr(x)


def _norm(x: np.ndarray, scale: np.ndarray, shift: np.ndarray) -> np.ndarray:
    centred = x - x.mean(axis=1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(axis=1, keepdims=True) + EPS) * scale + shift


def mlp(X: np.ndarray, weights: dict[str, np.ndarray]) -> Bounded:
    """gelu(X @ w1 + b1) @ w2 + b2. The bound takes 64 roundings of the largest element, as relative error."""
    w = {k: _wide(v) for k, v in weights.items()}
    y = _gelu(_wide(X) @ w["w1"] + w["b1"]) @ w["w2"] + w["b2"]
    return y, np.full(y.shape, 64 * np.finfo(X.dtype).eps * np.abs(y).max(initial=1.0))


def block(X: np.ndarray, weights: dict[str, np.ndarray]) -> Bounded:
    """One transformer block over one sequence. The bound takes 64 roundings of the largest element, as relative error."""
    w, x = {k: _wide(v) for k, v in weights.items()}, _wide(X)
    n, width = x.shape
    a = _norm(x, w["g1"], w["n1"])
    q, k, v = ((a @ w[name]).reshape(n, HEADS, width // HEADS).transpose(1, 0, 2) for name in ("wq", "wk", "wv"))
    score = q @ k.transpose(0, 2, 1) / np.sqrt(width // HEADS)
    e = np.exp(score - score.max(axis=-1, keepdims=True))
    h = x + (e / e.sum(axis=-1, keepdims=True) @ v).transpose(1, 0, 2).reshape(n, width) @ w["wo"]
    y = h + _gelu(_norm(h, w["g2"], w["n2"]) @ w["w1"] + w["b1"]) @ w["w2"] + w["b2"]
    return y, np.full(y.shape, 64 * np.finfo(X.dtype).eps * np.abs(y).max(initial=1.0))


SparseBounded = tuple[Any, np.ndarray]
"""(values on the pattern that structure allows, as canonical CSR; a bound for each stored element)"""


def _ones(A: Any) -> Any:
    out = A.astype(np.float64)
    out.data = np.ones(A.nnz)
    return out


def _sorted(A: Any) -> Any:
    A.sort_indices()
    return A


def spgemm(A: Any, B: Any) -> SparseBounded:
    """A @ B on the pattern that structure allows: SciPy drops what cancels, which is put back."""
    a, b = A.astype(np.float64), B.astype(np.float64)
    values = _sorted(_ones(A) @ _ones(B))
    scale = on_pattern(abs(a) @ abs(b), values)
    values.data = on_pattern(a @ b, values)
    count = np.repeat(_lengths(A, 1) + 2, np.diff(values.indptr))
    return values, gamma(count, A.dtype) * scale + underflow(count, A.dtype)


def masked_spgemm(M: Any, A: Any, B: Any) -> SparseBounded:
    """M * (A @ B) on the pattern of M."""
    product, bound = spgemm(A, B)
    slack = product.copy()
    slack.data = bound
    values, wide = M.astype(np.float64), M.astype(np.float64)
    values.data = on_pattern(wide * product, M)
    limit = on_pattern(abs(wide) * slack, M)
    return values, limit + gamma(1, M.dtype) * np.abs(values.data) + underflow(1, M.dtype)


def sparse_add(A: Any, B: Any) -> SparseBounded:
    """A + B on the union of the patterns: SciPy drops what cancels, which is put back."""
    values = _sorted(_ones(A) + _ones(B))
    a, b = A.astype(np.float64), B.astype(np.float64)
    scale = on_pattern(abs(a) + abs(b), values)
    values.data = on_pattern(a + b, values)
    return values, gamma(1, A.dtype) * scale


def sparse_multiply(A: Any, B: Any) -> SparseBounded:
    """A * B element by element, on the intersection of the patterns."""
    values = _sorted(_ones(A) * _ones(B))
    values.data = on_pattern(A.astype(np.float64) * B.astype(np.float64), values)
    return values, gamma(1, A.dtype) * np.abs(values.data) + underflow(1, A.dtype)
