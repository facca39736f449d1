"""Operands of programs with sparse results, and cases whose result is compared on its structural pattern."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Any

import numpy as np
import scipy.sparse as sp

from benchmarks import generated, matrices
from benchmarks.harness import Case, Settings
from benchmarks.matrices import Matrix, canonical
from benchmarks.reference import SparseBounded
from benchmarks.sparse_results import most_stored, on_pattern
from benchmarks.suites.operands import facts, normal, structure
from polyai.runtime.staging import memory_available

MOST_BYTES = 4_000_000_000
"""Of a product, by an upper bound on its stored elements."""
COPIES = 12
"""How much more memory a case takes than its product: the exact values, their bound, each library's result."""

WEIGHTS = ("dlmc", "nn_pruned")


def sparse_case(
    name: str,
    kernel: str,
    operands: Mapping[str, Any],
    expected: Callable[[], SparseBounded],
    flops: float,
    read: float,
    about: Mapping[str, Any],
) -> Case:
    """A case whose contenders return sparse matrices. `expected` is computed once, when first asked for."""
    once = cache(expected)

    def reference() -> tuple[np.ndarray, np.ndarray]:
        values, bound = once()
        return values.data, bound

    return Case(name, kernel, operands, reference, flops, read, about, lambda result: on_pattern(result, once()[0]))


def unlike(matrix: Matrix) -> Any:
    """The matrix with values that tell its elements apart: random ones where all are alike."""
    A = matrix.csr.copy()
    if A.nnz and (A.data == A.data[0]).all():
        A.data = normal(matrix.name, A.nnz, dtype=A.data.dtype)
    return A


def again(name: str, A: Any) -> Any:
    """`A` with new values."""
    out = A.copy()
    out.data = normal(f"{name} again", A.nnz, dtype=A.data.dtype)
    return out


def shifted(name: str, A: Any) -> Any:
    """`A` with each column moved one place to the right, the last to the front, and new values: another pattern of the same kind."""
    coo = again(name, A).tocoo()
    return canonical(sp.coo_array((coo.data, (coo.coords[0], (coo.coords[1] + 1) % max(A.shape[1], 1))), shape=A.shape))


def sources(settings: Settings, most: int = 0) -> Iterator[Matrix]:
    """Matrices of the data folder that are not weights, each once; then stencils and R-MAT graphs."""
    seen = set()
    if settings.data is not None:
        for matrix in matrices.load(settings, most=most):
            key = (matrix.csr.shape, matrix.csr.nnz, matrix.csr.indices[:1000].tobytes())
            if not matrix.name.startswith(WEIGHTS) and key not in seen:
                seen.add(key)
                yield matrix
    side, cube, edges = (100, 15, (30_000,)) if settings.quick else (700, 45, (300_000, 1_000_000))
    yield Matrix(f"generated/5-point {side}x{side}", generated.stencil(5, (side, side)))
    yield Matrix(f"generated/27-point {cube}^3", generated.stencil(27, (cube, cube, cube)))
    for count in edges:
        yield Matrix(f"generated/rmat {count}", generated.rmat(count))


def products(settings: Settings) -> Iterator[tuple[str, Any, Any]]:
    """(name, A, B) in f64: A A for square matrices, A A^T for others, where the product fits MOST_BYTES."""
    for matrix in sources(settings):
        A = unlike(matrix)
        square = A.shape[0] == A.shape[1]
        B = A if square else canonical(A.T)
        stored = most_stored(A, B) * 12
        if stored * COPIES > (memory_available() or math.inf):
            print(f"{matrix.name}: left out, its product of up to {stored:,} bytes and what checks it need {COPIES} times as much", flush=True)
        elif stored <= MOST_BYTES:
            yield f"{matrix.name} A {'A' if square else 'At'}", A, B


def pairs(settings: Settings) -> Iterator[tuple[str, Any, Any]]:
    """(name, A, B) in f64: two matrices of the same pattern, and two of different ones."""
    for matrix in sources(settings, most=16):
        A = unlike(matrix)
        yield f"{matrix.name} same pattern", A, again(matrix.name, A)
        yield f"{matrix.name} shifted", A, shifted(matrix.name, A)


def both(A: Any, B: Any) -> dict[str, Any]:
    return facts(A) | {"nnz of B": int(B.nnz)}


def read_bytes(A: Any, B: Any) -> int:
    """Bytes of two operands, once if they are the same."""
    return structure(A) if A is B else structure(A) + structure(B)
