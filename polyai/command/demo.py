"""The demonstration: SpMV, SpMM, SDDMM, a two-layer graph network and sparse attention on real matrices.

Each result is checked against a float64 reference before it is timed against the same program in SciPy and NumPy.
"""

from __future__ import annotations

import math
import time
import zlib
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np

import polyai as pa
from polyai.errors import SparseStructureError
from polyai.measure import Measured, excess, gamma, interleaved, median_ratio
from polyai.term.node import node

COLUMNS, FEATURES, HIDDEN, CLASSES, HEAD = 64, 128, 64, 16, 64
Array = np.ndarray[Any, Any]


def product(A: Any, X: Any) -> Any:
    """A @ X: SpMV or SpMM."""
    return A @ X


def sampled(A: Any, U: Any, V: Any) -> Any:
    """A times U @ V.T, only where A stores something."""
    return A * (U @ V.T)


def network(A: Any, X: Any, W1: Any, b1: Any, W2: Any, b2: Any) -> Any:
    """Two graph convolutions, the first with relu, the second with softmax over the classes."""
    H = pa.relu(A @ (X @ W1) + b1)
    return pa.softmax(A @ (H @ W2) + b2, axis=1)


def attention(mask: Any, Q: Any, K: Any, V: Any) -> Any:
    """softmax(Q K^T / sqrt(d)) V, each row over the stored coordinates of the mask."""
    return pa.sparse_attention(Q, K, V, mask=mask)


@node
class Problem:
    """A program on one set of arguments. `peer` is the same in SciPy and NumPy; `reference` gives float64 values and a bound
    on the rounding error; `value` reads an array out of what the program returns."""

    name: str
    program: Callable[..., Any]
    arguments: tuple[Any, ...]
    peer: Callable[[], Any]
    reference: Callable[[], tuple[Array, Array]]
    flops: float
    bytes: float
    value: Callable[[Any], Any] = np.asarray


def _random(name: str, *shape: int, dtype: Any = np.float32) -> Array:
    return np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape).astype(dtype)


def _as(A: Any, dtype: Any) -> Any:
    """`A` as CSR with values of `dtype`."""
    return A.tocsr().astype(dtype)


def _stored(A: Any) -> int:
    return int(A.data.nbytes + A.indices.nbytes + A.indptr.nbytes)


def _per_row(A: Any) -> Array:
    lengths: Array = np.diff(A.indptr).astype(np.float64)
    return lengths


def spmv(name: str, matrix: Any) -> Problem:
    A = _as(matrix, np.float64)
    x = _random(name, A.shape[1], dtype=np.float64)

    def reference() -> tuple[Array, Array]:
        return A @ x, 2 * gamma(_per_row(A) + 2, np.float64) * (abs(A) @ np.abs(x))

    size = _stored(A) + 8 * sum(A.shape)
    return Problem(f"SpMV f64  {name}", product, (A, x), lambda: A @ x, reference, 2 * A.nnz, size)


def spmm(name: str, matrix: Any) -> Problem:
    A = _as(matrix, np.float32)
    X = _random(name, A.shape[1], COLUMNS)

    def reference() -> tuple[Array, Array]:
        wide, x = A.astype(np.float64), X.astype(np.float64)
        return wide @ x, gamma(_per_row(A)[:, None] + 2, np.float32) * (abs(wide) @ np.abs(x))

    size = _stored(A) + 4 * COLUMNS * sum(A.shape)
    return Problem(f"SpMM f32 x{COLUMNS}  {name}", product, (A, X), lambda: A @ X, reference, 2 * A.nnz * COLUMNS, size)


def _gathered(A: Any, U: Array, V: Array) -> tuple[Array, Array]:
    """(U V^T) at the stored coordinates of A, and the sum of magnitudes, in float64."""
    rows = np.repeat(np.arange(A.shape[0]), np.diff(A.indptr))
    values, scale = np.empty(A.nnz), np.empty(A.nnz)
    for begin in range(0, A.nnz, 1 << 18):
        at = slice(begin, begin + (1 << 18))
        u, v = U[rows[at]].astype(np.float64), V[A.indices[at]].astype(np.float64)
        values[at], scale[at] = np.einsum("pk,pk->p", u, v), np.einsum("pk,pk->p", np.abs(u), np.abs(v))
    return values, scale


def sddmm(name: str, matrix: Any) -> Problem:
    A = _as(matrix, np.float32)
    U, V = _random(name + " U", A.shape[0], HEAD), _random(name + " V", A.shape[1], HEAD)
    rows = np.repeat(np.arange(A.shape[0]), np.diff(A.indptr))

    def reference() -> tuple[Array, Array]:
        values, scale = _gathered(A, U, V)
        data = A.data.astype(np.float64)
        return data * values, gamma(HEAD + 2, np.float32) * np.abs(data) * scale

    return Problem(
        f"SDDMM f32 k={HEAD}  {name}",
        sampled,
        (A, U, V),
        lambda: A.data * np.einsum("pk,pk->p", U[rows], V[A.indices]),
        reference,
        2 * A.nnz * HEAD,
        _stored(A) + 4 * A.nnz + 4 * HEAD * sum(A.shape),
        lambda Z: Z.data,
    )


def normalised(graph: Any) -> Any:
    """D^-1/2 (A + A^T) D^-1/2 with unit weights: the adjacency of a graph convolution."""
    both = (abs(graph) + abs(graph.T)).tocsr()
    both.data = np.ones_like(both.data, dtype=np.float64)
    degree = np.maximum(np.asarray(both.sum(axis=1)).ravel(), 1)
    root = 1 / np.sqrt(degree)
    both.data = root[np.repeat(np.arange(both.shape[0]), np.diff(both.indptr))] * root[both.indices]
    return both


def _network_in_numpy(A: Any, X: Array, W1: Array, b1: Array, W2: Array, b2: Array) -> Array:
    H = np.maximum(A @ (X @ W1) + b1, 0)
    logits = A @ (H @ W2) + b2
    e = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(e / e.sum(axis=1, keepdims=True))


def graph_network(name: str, graph: Any) -> Problem:
    """The network with random features and weights."""
    X = _random(name, graph.shape[0], FEATURES)
    W1, b1 = _random("W1", FEATURES, HIDDEN) / np.float32(FEATURES**0.5), _random("b1", HIDDEN)
    W2, b2 = _random("W2", HIDDEN, CLASSES) / np.float32(HIDDEN**0.5), _random("b2", CLASSES)
    return _network_problem(name, _as(normalised(graph), np.float32), X, W1, b1, W2, b2)


def fitted_network(name: str, graph: Any, features: Any, labels: Any) -> tuple[Problem, Callable[[Array], float]]:
    """The network on a graph with features and labels, and a function from its result to the accuracy on held-out nodes.

    The first layer is random; the second is fitted by least squares to the labels of every fifth node."""
    A, classes = _as(normalised(graph), np.float32), int(labels.max()) + 1
    X = features.astype(np.float32) / np.float32(max(1.0, float(features.max())))
    W1, b1 = _random("W1", X.shape[1], HIDDEN) / np.float32(X.shape[1] ** 0.5), 0.1 * _random("b1", HIDDEN)
    seen = np.arange(len(labels)) % 5 == 0
    hidden = (A @ np.maximum(A @ (X @ W1) + b1, 0)).astype(np.float64)[seen]
    hidden = np.hstack([hidden, np.ones((len(hidden), 1))])
    wanted = np.eye(classes)[labels[seen]] * 8 - 4  # logits of a confident answer
    ridge = hidden.T @ hidden + 1e-3 * np.eye(hidden.shape[1])
    W2 = np.linalg.solve(ridge, hidden.T @ wanted).astype(np.float32)

    def accuracy(probabilities: Array) -> float:
        return float(np.mean(np.argmax(probabilities, axis=1)[~seen] == labels[~seen]))

    return _network_problem(name, A, X, W1, b1, np.ascontiguousarray(W2[:-1]), W2[-1].copy()), accuracy


def _network_problem(name: str, A: Any, X: Array, W1: Array, b1: Array, W2: Array, b2: Array) -> Problem:
    arguments, n = (A, X, W1, b1, W2, b2), A.shape[0]
    features, hidden_size, classes = X.shape[1], W1.shape[1], W2.shape[1]

    def reference() -> tuple[Array, Array]:
        wide = [a.astype(np.float64) for a in arguments]
        a, x, w1, c1, w2, c2 = wide
        hidden = abs(a) @ (np.abs(x) @ np.abs(w1)) + np.abs(c1)
        logits = abs(a) @ (hidden @ np.abs(w2)) + np.abs(c2)
        count = 2 * float(_per_row(A).max(initial=0)) + features + hidden_size + 16
        slack = 2 * gamma(count, np.float32) * logits.max(axis=1, keepdims=True) + 16 * float(np.finfo(np.float32).eps)
        values = _network_in_numpy(*wide)
        return values, slack * values

    flops = 2 * n * hidden_size * (features + classes) + 2 * A.nnz * (hidden_size + classes)
    size = 2 * _stored(A) + 4 * n * (features + 2 * hidden_size + classes)
    return Problem(f"two-layer graph network f32  {name}", network, arguments, partial(_network_in_numpy, *arguments), reference, flops, size)


def sparse_attention(name: str, graph: Any) -> Problem:
    mask = _as(graph, np.float32)
    mask.data = np.ones_like(mask.data)
    n, scale = mask.shape[0], 1 / math.sqrt(HEAD)
    Q, K, V = (_random(f"{name} {t}", n, HEAD) for t in "QKV")
    lengths = np.diff(mask.indptr)
    rows, filled = np.repeat(np.arange(n), lengths), np.flatnonzero(lengths)
    starts = mask.indptr[filled]

    def softmax(score: Array) -> Array:
        top, total = np.zeros(n, score.dtype), np.ones(n, score.dtype)
        top[filled] = np.maximum.reduceat(score, starts)
        e = np.exp(score - top[rows])
        total[filled] = np.add.reduceat(e, starts)
        return np.asarray(e / total[rows])

    def chain() -> Any:
        weights = mask.copy()
        weights.data = softmax(np.einsum("pk,pk->p", Q[rows], K[mask.indices]) * np.float32(scale))
        return weights @ V

    def reference() -> tuple[Array, Array]:
        score, magnitude = _gathered(mask, Q, K)
        eps, weights = float(np.finfo(np.float32).eps), mask.astype(np.float64)
        weights.data = softmax(score * scale)
        worst = np.zeros(n)
        worst[filled] = np.maximum.reduceat(gamma(HEAD + 3, np.float32) * magnitude * scale, starts)
        wide = V.astype(np.float64)
        return weights @ wide, (2 * worst + (lengths + 16) * eps)[:, None] * (weights @ np.abs(wide))

    size = _stored(mask) - mask.data.nbytes + 16 * n * HEAD
    return Problem(f"sparse attention f32 d={HEAD}  {name}", attention, (mask, Q, K, V), chain, reference, mask.nnz * (4 * HEAD + 4), size)


def products(matrices: Mapping[str, Any]) -> list[Callable[[], Problem]]:
    """SpMV, SpMM and SDDMM on each matrix, to be made one at a time."""
    return [partial(make, name, matrix) for make in (spmv, spmm, sddmm) for name, matrix in matrices.items()]


def run(problem: Problem, rounds: int, peer: str = "scipy") -> Measured:
    """Compile, check and time one problem. Raises ArithmeticError if the result is further from float64 than rounding explains."""
    compiled = pa.jit(problem.program)
    begin = time.perf_counter()
    result = compiled(*problem.arguments)
    first = time.perf_counter() - begin
    error = excess(problem.value(result), *problem.reference())
    if not error <= 1:
        raise ArithmeticError(f"{problem.name}: the error is {error:.3g} times what rounding explains")
    times = interleaved({"polyai": lambda: compiled(*problem.arguments), peer: problem.peer}, rounds)
    seconds = tuple((name, float(np.median(values))) for name, values in times.items())
    ratio = median_ratio(times[peer], times["polyai"])
    return Measured(problem.name, seconds, ratio, first, error, problem.flops, problem.bytes)


def usable(matrices: Mapping[str, Any]) -> dict[str, Any]:
    """The two-dimensional real matrices, by name. Raises SparseStructureError if there is none."""
    out = {name: m for name, m in matrices.items() if getattr(m, "ndim", 2) == 2 and m.nnz and m.dtype.kind in "biuf"}
    if not out:
        raise SparseStructureError("no matrix to run on", "none of the files holds a real sparse matrix", "give a folder with .mtx or .npz files")
    return out
