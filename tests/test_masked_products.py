"""`M * (A @ B)` and what is reduced over it, against SciPy in float64 (exact integers): values, stored elements, order."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp

import polyai as pa


def matrix(rows: int, columns: int, density: float, seed: int, dtype: Any = np.float64) -> Any:
    """Small integers, zeros among them: sums are exact, and what is stored may be zero."""
    rng = np.random.default_rng(seed)
    out = sp.random_array((rows, columns), density=density, format="csr", rng=rng)
    out.data = rng.integers(-3, 4, out.nnz)
    out.sort_indices()
    return out.astype(dtype)


def stored(a: Any) -> np.ndarray:
    out = np.zeros(a.shape, bool)
    out[a.tocoo().coords] = True
    return out


def agrees(got: Any, mask: Any, a: Any, b: Any) -> None:
    """The elements that the mask and the product both store, sorted, those that are zero too."""
    pairs = stored(a).astype(np.float32) @ stored(b).astype(np.float32) > 0
    want = mask.toarray() * (a.toarray() @ b.toarray())
    assert got.has_sorted_indices and got.has_canonical_format
    np.testing.assert_array_equal(stored(got), stored(mask) & pairs)
    np.testing.assert_array_equal(got.toarray(), want)
    assert got.dtype == want.dtype


def product(m: Any, a: Any, b: Any) -> Any:
    return m * (a @ b)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.complex128, np.int32, np.int64, np.bool_])
def test_types_of_elements(dtype: Any) -> None:
    mask, a, b = matrix(40, 70, 0.3, 0, dtype), matrix(40, 30, 0.2, 1, dtype), matrix(30, 70, 0.2, 2, dtype)
    agrees(pa.jit(product)(mask, a, b), mask, a, b)
    agrees(pa.jit(lambda m, a, b: (a @ b) * m)(mask, a, b), mask, a, b)


@pytest.mark.parametrize("index", [np.int32, np.int64])
@pytest.mark.parametrize("threads", [1, 3])
def test_many_rows_in_parts(index: Any, threads: int) -> None:
    operands = [matrix(3000, 3000, 0.004, seed) for seed in range(3)]
    for a in operands:
        a.indices, a.indptr = a.indices.astype(index), a.indptr.astype(index)
    with pa.options(num_threads=threads):
        agrees(pa.jit(product)(*operands), *operands)


def heavy() -> Any:
    """One row and one column that store everything, and empty rows."""
    out = sp.lil_array((300, 300))
    out[7, :], out[:, 250] = 2, 3
    out[100:140, :] = 0
    out = sp.csr_array(out)
    out.eliminate_zeros()
    return out


@pytest.mark.parametrize("shape", ["heavy row", "empty mask", "empty left", "no rows", "one row", "one column"])
def test_structures(shape: str) -> None:
    a = b = mask = heavy()
    if shape == "empty mask":
        mask = sp.csr_array(a.shape)
    elif shape == "empty left":
        a = sp.csr_array(a.shape)
    elif shape == "no rows":
        mask, a = mask[:0], a[:0]
    elif shape == "one row":
        mask, a = mask[7:8], a[7:8]
    elif shape == "one column":
        mask, b = sp.csr_array(mask[:, 250:251]), sp.csr_array(b[:, 250:251])
    agrees(pa.jit(product)(mask, a, b), mask, a, b)


def test_a_mask_whose_rows_are_not_sorted_or_repeat_a_column() -> None:
    a, b = matrix(5, 9, 0.5, 1), matrix(9, 6, 0.5, 2)
    f = pa.jit(product)
    plain = sp.csr_array((np.array([1.0, 2, 3]), np.array([0, 2, 5]), np.array([0, 3, 3, 3, 3, 3])), shape=(5, 6))
    turned = sp.csr_array((np.array([3.0, 1, 2]), np.array([5, 0, 2]), np.array([0, 3, 3, 3, 3, 3])), shape=(5, 6))
    twice = sp.csr_array((np.array([0.5, 2, 0.5, 3]), np.array([0, 2, 0, 5]), np.array([0, 4, 4, 4, 4, 4])), shape=(5, 6))
    for mask in (plain, turned, twice):
        agrees(f(mask, a, b), plain, a, b)
    np.testing.assert_array_equal(turned.indices, [5, 0, 2])  # the caller's own stays as it is


@pytest.mark.parametrize("kind", ["csr", "csc", "coo"])
def test_formats(kind: str) -> None:
    mask, a, b = matrix(20, 25, 0.3, 3), matrix(20, 15, 0.3, 4), matrix(15, 25, 0.3, 5)
    got = pa.jit(product)(mask.asformat(kind), a.asformat(kind), b.asformat(kind))
    np.testing.assert_array_equal(got.toarray(), mask.toarray() * (a @ b).toarray())


REDUCTIONS: dict[str, Callable[[Any], Any]] = {
    "all": lambda c: c.sum(),
    "rows": lambda c: c.sum(axis=1),
    "columns": lambda c: c.sum(axis=0),
}


@pytest.mark.parametrize("name", REDUCTIONS)
def test_reductions(name: str) -> None:
    mask, a, b = matrix(60, 80, 0.2, 6), matrix(60, 50, 0.1, 7), matrix(50, 80, 0.1, 8)
    reduced = REDUCTIONS[name]
    got = pa.jit(lambda m, a, b: reduced(m * (a @ b)))(mask, a, b)
    np.testing.assert_array_equal(got, reduced(mask.multiply(a @ b)))


def test_triangles_of_a_graph() -> None:
    rng = np.random.default_rng(9)
    graph = sp.random_array((200, 200), density=0.05, format="csr", rng=rng)
    graph = ((graph + graph.T) > 0).astype(np.int64).tolil()
    graph.setdiag(0)
    graph = sp.csr_array(graph)
    graph.eliminate_zeros()
    dense = graph.toarray()
    triangles = int(np.trace(dense @ dense @ dense)) // 6
    assert pa.jit(lambda g: (g * (g @ g)).sum())(graph) == 6 * triangles
    lower = sp.csr_array(sp.tril(graph, -1))
    assert pa.jit(lambda x: (x * (x @ x)).sum())(lower) == triangles
    assert pa.jit(lambda g: (lambda x: (x * (x @ x.T)).sum())(pa.tril(g, -1)))(graph) == triangles


def test_what_else_reads_the_product_or_the_mask() -> None:
    mask, a, b = matrix(30, 35, 0.3, 10), matrix(30, 20, 0.2, 11), matrix(20, 35, 0.2, 12)
    whole, part = a @ b, mask.multiply(a @ b).toarray()
    both = pa.jit(lambda m, a, b: (lambda p: (m * p, p))(a @ b))(mask, a, b)
    np.testing.assert_array_equal(both[0].toarray(), part)
    np.testing.assert_array_equal(both[1].toarray(), whole.toarray())
    total = pa.jit(lambda m, a, b: m * (a @ b) + m)(mask, a, b)
    np.testing.assert_array_equal(total.toarray(), part + mask.toarray())
    scaled, sums = pa.jit(lambda m, a, b: (lambda d: (2 * d, d.sum(axis=1)))(m * (a @ b)))(mask, a, b)
    np.testing.assert_array_equal(scaled.toarray(), 2 * part)
    np.testing.assert_array_equal(sums, part.sum(axis=1))
    beside = pa.jit(lambda m, a, b: (m * (a @ b)) @ np.ones((35, 3)))(mask, a, b)
    np.testing.assert_array_equal(beside, part @ np.ones((35, 3)))


def test_a_handle_keeps_the_patterns_that_it_needs() -> None:
    mask, a, b = matrix(30, 35, 0.3, 13), matrix(30, 20, 0.2, 14), matrix(20, 35, 0.2, 15)
    handle = pa.pattern(product, mask, a, b)
    for factor in (1, -2):
        agrees(handle(factor * mask, a, b), factor * mask, a, b)


@pytest.mark.parametrize(("add", "multiply"), [("min", "add"), ("max", "mul")])
def test_semirings_under_an_intersection(add: str, multiply: str) -> None:
    mask, a, b = matrix(30, 35, 0.3, 16), matrix(30, 20, 0.2, 17), matrix(20, 35, 0.2, 18)
    ring = pa.semiring(add, multiply)
    alone = pa.jit(lambda a, b: pa.matmul(a, b, semiring=ring))(a, b)
    got = pa.jit(lambda m, a, b: m * pa.matmul(a, b, semiring=ring))(mask, a, b)
    np.testing.assert_array_equal(stored(got), stored(mask) & stored(alone))
    rows, columns = np.nonzero(stored(got))
    np.testing.assert_array_equal(got.toarray()[rows, columns], (mask.toarray() * np.where(stored(alone), alone.toarray(), 0))[rows, columns])
