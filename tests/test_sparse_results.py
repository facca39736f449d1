"""Masked products, semirings, assembled patterns, conversions between formats: against oracles of numbers and structure."""

from __future__ import annotations

import itertools
import math
import operator
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp

import polyai as pa

RINGS = {
    ("min", "add"): (min, lambda x, y: x + y, math.inf),
    ("max", "min"): (max, min, -math.inf),
    ("max", "mul"): (max, lambda x, y: x * y, -math.inf),
    ("add", "first"): (lambda x, y: x + y, lambda x, y: x, 0.0),
    ("mul", "second"): (lambda x, y: x * y, lambda x, y: y, 1.0),
}
OF_USERS: dict[str, tuple[Any, Any, Any, Any, float]] = {
    "python's": (max, operator.mul, max, operator.mul, -math.inf),
    "numpy's": (np.minimum, np.add, min, operator.add, math.inf),
    "distances": (operator.add, lambda x, y: pa.abs(x - y), operator.add, lambda x, y: abs(x - y), 0.0),
    "lambdas": (lambda x, y: pa.maximum(y, x), lambda x, y: pa.where(x > y, x, 0.5 * y) + 1.0, max, lambda x, y: (x if x > y else 0.5 * y) + 1.0, -math.inf),
    "counts": ("add", lambda x, y: 1.0, operator.add, lambda x, y: 1.0, 0.0),
}
KINDS = ("csr", "csc", "coo", "bsr", "dia", "lil", "dok")


def matrix(rows: int, columns: int, density: float, seed: int) -> Any:
    rng = np.random.default_rng(seed)
    out = sp.random_array((rows, columns), density=density, format="csr", rng=rng)
    out.sort_indices()
    return out


def stored(a: Any) -> np.ndarray:
    """Where a matrix stores something."""
    out = np.zeros(a.shape, bool)
    out[a.tocoo().coords] = True
    return out


def over_ring(a: Any, b: Any, add: Any, mul: Any, nothing: float) -> tuple[np.ndarray, np.ndarray]:
    """The product by its definition, and where some stored pair decides it."""
    left, right, here, there = a.toarray(), b.toarray(), stored(a), stored(b)
    out, touched = np.full((a.shape[0], b.shape[1]), nothing), np.zeros((a.shape[0], b.shape[1]), bool)
    for i, k, j in itertools.product(range(a.shape[0]), range(a.shape[1]), range(b.shape[1])):
        if here[i, k] and there[k, j]:
            out[i, j], touched[i, j] = add(out[i, j], mul(left[i, k], right[k, j])), True
    return out, touched


@pytest.mark.parametrize("ring", RINGS, ids=lambda r: "-".join(r))
@pytest.mark.parametrize("kind", ["csr", "csc", "coo"])
def test_a_product_over_a_semiring(ring: tuple[str, str], kind: str) -> None:
    a, b, mask = matrix(13, 9, 0.3, 0), matrix(9, 11, 0.3, 1), matrix(13, 11, 0.4, 2)
    chosen = pa.semiring(*ring)
    want, touched = over_ring(a, b, *RINGS[ring])
    got = pa.jit(lambda x, y: pa.matmul(x, y, semiring=chosen))(a.asformat(kind), b.asformat(kind))
    np.testing.assert_array_equal(stored(got), touched)
    np.testing.assert_allclose(got.toarray()[touched], want[touched])
    under = pa.jit(lambda x, y, m: pa.matmul(x, y, semiring=chosen, mask=m))(a.asformat(kind), b.asformat(kind), mask)
    np.testing.assert_array_equal(stored(under), stored(mask))
    values = under.tocoo()
    np.testing.assert_allclose(values.data, want[values.coords])


@pytest.mark.parametrize("name", OF_USERS)
@pytest.mark.parametrize("kind", ["csr", "csc", "coo"])
def test_a_product_over_functions_of_the_user(name: str, kind: str) -> None:
    add, mul, *theirs = OF_USERS[name]
    a, b, mask = matrix(13, 9, 0.3, 0), matrix(9, 11, 0.3, 1), matrix(13, 11, 0.4, 2)
    want, touched = over_ring(a, b, *theirs)
    before = pa.stats()["externs"]

    def product(x: Any, y: Any, m: Any = None) -> Any:
        return pa.matmul(x, y, semiring=pa.semiring(add, mul), mask=m)

    got = pa.jit(product)(a.asformat(kind), b.asformat(kind))
    np.testing.assert_array_equal(stored(got), touched)
    np.testing.assert_allclose(got.toarray()[touched], want[touched])
    values = pa.jit(product)(a.asformat(kind), b.asformat(kind), mask).tocoo()
    np.testing.assert_allclose(values.data, want[values.coords])
    assert pa.stats()["externs"] == before


def test_a_function_sees_the_sum_of_what_repeats() -> None:
    a = matrix(6, 6, 0.4, 7).tocoo()
    twice = sp.coo_array((np.tile(a.data, 2), tuple(np.tile(c, 2) for c in a.coords)), shape=a.shape)
    ring = pa.semiring("max", lambda x, y: x * y + 1.0)
    want, touched = over_ring(2 * a, 2 * a, max, lambda x, y: x * y + 1.0, -math.inf)
    got = pa.jit(lambda a: pa.matmul(a, a, semiring=ring))(twice)
    np.testing.assert_allclose(got.toarray()[touched], want[touched])


def test_functions_that_are_no_addition_or_product_are_refused() -> None:
    a = matrix(5, 5, 0.5, 1)
    for add, mul, words in ((lambda x, y: x - y, "mul", "add is a function that is none of"), ("min", lambda x, y: [x], "mul gives list")):
        with pytest.raises(pa.errors.PolyAIError, match=words):
            pa.jit(partial(pa.matmul, a, semiring=pa.semiring(add, mul)))(a)


def test_shortest_paths_of_a_vector() -> None:
    a, x = matrix(13, 9, 0.3, 0), np.random.default_rng(3).random(9)
    chosen = pa.semiring("min", "add")
    got = pa.jit(lambda a, x: pa.matmul(a, x, semiring=chosen))(a, x)
    dense = np.where(stored(a), a.toarray(), np.inf)
    np.testing.assert_allclose(got, (dense + x).min(axis=1))


@pytest.mark.parametrize(("add", "mul"), [("sub", "mul"), ("add", "div"), ("", "")])
def test_unknown_operations_are_refused(add: str, mul: str) -> None:
    with pytest.raises(pa.errors.UnsupportedError, match="semiring"):
        pa.semiring(add, mul)


@pytest.mark.parametrize("kinds", list(itertools.product(("csr", "csc", "coo"), repeat=2)), ids="-".join)
def test_a_masked_product_has_the_masks_pattern(kinds: tuple[str, str]) -> None:
    a, b, mask = matrix(20, 15, 0.2, 4), matrix(15, 17, 0.2, 5), matrix(20, 17, 0.3, 6)
    got = pa.jit(lambda x, y, m: pa.matmul(x, y, mask=m))(a.asformat(kinds[0]), b.asformat(kinds[1]), mask.asformat(kinds[0]))
    np.testing.assert_array_equal(stored(got), stored(mask))
    np.testing.assert_allclose(got.toarray(), np.where(stored(mask), (a @ b).toarray(), 0), atol=1e-15)


def test_what_lies_outside_the_mask_is_not_seen() -> None:
    a = sp.csr_array(np.array([[1.0, np.inf]]))
    b = sp.csr_array(np.array([[1.0, 2.0], [0.0, np.nan]]))
    mask = sp.csr_array(np.array([[1.0, 0.0]]))
    got = pa.jit(lambda x, y, m: pa.matmul(x, y, mask=m))(a, b, mask)
    assert got.nnz == 1 and got.toarray()[0, 0] == 1.0


def test_a_mask_of_another_shape_is_refused() -> None:
    with pytest.raises(pa.errors.ShapeError, match=r"mask|size"):
        pa.jit(lambda x, y, m: pa.matmul(x, y, mask=m))(matrix(4, 4, 0.5, 0), matrix(4, 4, 0.5, 1), matrix(5, 4, 0.5, 2))


FUNCTIONS = {
    "product": lambda a, b: a @ b,
    "sum": lambda a, b: a + b,
    "chain": lambda a, b: pa.relu(a @ b) * 2.0,
    "cube": lambda a, b: a @ b @ a,
    "mixed": lambda a, b: (a + b) * (a @ b),
}


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("kind", ["csr", "csc"])
def test_an_assembled_pattern_serves_new_values(name: str, kind: str) -> None:
    a, b = (matrix(15, 15, 0.2, s).asformat(kind) for s in (7, 8))
    handle, rng = pa.pattern(FUNCTIONS[name], a, b), np.random.default_rng(9)
    for _ in range(3):
        for x in (a, b):
            x.data[:] = rng.standard_normal(x.nnz)
        got, want = handle(a, b), pa.jit(FUNCTIONS[name])(a, b)
        np.testing.assert_array_equal(stored(got), stored(want))
        np.testing.assert_allclose(got.toarray(), want.toarray(), atol=1e-13)
        with pytest.raises(ValueError, match="read-only"):
            got.indices[:] = 0  # they are the handle's
        got = got.copy()
        got.indices[:] = 0


def test_another_pattern_is_refused() -> None:
    a, b = matrix(15, 15, 0.2, 7), matrix(15, 15, 0.2, 8)
    handle = pa.pattern(FUNCTIONS["product"], a, b)
    with pytest.raises(pa.errors.SparseStructureError, match="another pattern"):
        handle(b, a)
    with pytest.raises(pa.errors.UnsupportedError, match="assembles no sparse result"):
        pa.pattern(lambda a: a * 2.0, a)


@pytest.mark.parametrize("threads", [1, 2])
def test_a_handle_called_often_takes_what_is_alike_and_refuses_the_rest(threads: int) -> None:
    a, b = matrix(60, 40, 0.2, 7), matrix(40, 50, 0.2, 8)
    with pa.options(num_threads=threads):
        handle, rng = pa.pattern(FUNCTIONS["product"], a, b), np.random.default_rng(9)
        for _ in range(4):  # the first call makes the quick way, the others take it
            a.data[:] = rng.standard_normal(a.nnz)
            got = handle(a, b)
            np.testing.assert_allclose(got.toarray(), (a @ b).toarray(), atol=1e-12)
            assert got.has_canonical_format and got.copy().indices.flags.writeable and not got.indices.flags.writeable
        longer = sp.csr_array((np.append(a.data, 7.0), np.append(a.indices, np.int32(3)), a.indptr), shape=a.shape)
        np.testing.assert_allclose(handle(longer, b).toarray(), (a @ b).toarray(), atol=1e-12)
        wide = sp.csr_array((a.data, a.indices.astype(np.int64), a.indptr.astype(np.int64)), shape=a.shape)
        strided = sp.csr_array((a.data, a.indices, a.indptr), shape=a.shape)
        strided.data = np.repeat(a.data, 2)[::2]
        np.testing.assert_allclose(handle(strided, b).toarray(), (a @ b).toarray(), atol=1e-12)
        for bad, error in ((wide, "SparseStructureError"), (a.astype(np.float32), "PolyAIError"), (a[:, :39], "PolyAIError"), (a.tocsc(), "PolyAIError")):
            with pytest.raises(getattr(pa.errors, error)):
                handle(bad, b)
        narrow = b.copy()
        narrow._shape = (40, 5)  # with columns outside, which nobody looks at again
        with pytest.raises(pa.errors.SparseStructureError, match="has the shape"):
            handle(a, narrow)
        broken = a.copy()
        broken.indices[0] = 10**6
        with pytest.raises(pa.errors.SparseStructureError, match="another pattern"):
            handle(broken, b)
        np.testing.assert_allclose(handle(a, b).toarray(), (a @ b).toarray(), atol=1e-12)


@pytest.mark.parametrize("ring", [("min", "add"), ("or", "and"), ("add", "mul"), ("mul", "second")], ids="-".join)
@pytest.mark.parametrize("rows", [1, 40])
def test_a_handle_over_a_semiring(ring: tuple[str, str], rows: int) -> None:
    """Rows of sums are zero between uses, those of others begin anew; also where a single row has no loop."""
    a, b = matrix(rows, 30, 0.2, 7), matrix(30, 50, 0.2, 8)
    if ring[0] == "or":
        a, b = a.astype(bool), b.astype(bool)
    chosen = pa.semiring(*ring)
    product, rng = (lambda x, y: pa.matmul(x, y, semiring=chosen)), np.random.default_rng(9)
    handle = pa.pattern(product, a, b)
    for _ in range(3):
        a.data[:] = rng.integers(0, 2, a.nnz) if ring[0] == "or" else rng.standard_normal(a.nnz)
        got, want = handle(a, b), pa.jit(product)(a, b)
        np.testing.assert_array_equal(stored(got), stored(want))
        np.testing.assert_allclose(got.toarray(), want.toarray(), atol=1e-12)


def test_a_handle_does_not_see_changes_of_the_first_operands() -> None:
    a = matrix(30, 30, 0.2, 7)
    handle, kept = pa.pattern(FUNCTIONS["product"], a, a), a.copy()
    handle(a, a)
    a.indices[:] = 10**6
    np.testing.assert_allclose(handle(kept, kept).toarray(), (kept @ kept).toarray(), atol=1e-12)
    with pytest.raises(pa.errors.SparseStructureError, match="another pattern"):
        handle(kept, a)


def test_a_broken_matrix_has_no_handle() -> None:
    a = matrix(30, 30, 0.2, 7)
    a.indices[3] = 10**6
    with pytest.raises(pa.errors.SparseStructureError):
        pa.pattern(FUNCTIONS["product"], a, a)


@pytest.mark.parametrize("threads", [1, 2])
def test_conversions_called_often(threads: int) -> None:
    convert, rng = pa.jit(lambda a: pa.asformat(a, "csc")), np.random.default_rng(3)
    with pa.options(num_threads=threads):
        for k in range(4):
            a = matrix(40, 30, 0.1 + 0.1 * k, k)
            got, want = convert(a), a.tocsc()
            for part in ("indptr", "indices", "data"):
                np.testing.assert_array_equal(getattr(got, part), getattr(want, part))
            twice = sp.csr_array((rng.standard_normal(2 * a.nnz), np.repeat(a.indices, 2), 2 * a.indptr), shape=a.shape)
            np.testing.assert_allclose(convert(twice).toarray(), twice.toarray(), atol=1e-12)
            assert convert(twice).nnz == a.nnz
        a.indices[0] = 10**6
        with pytest.raises(pa.errors.SparseStructureError, match="outside"):
            convert(a)
        a.indices[0] = 0
        a.indptr[1] = 10**6
        with pytest.raises(pa.errors.SparseStructureError):
            convert(a)
        assert convert(sp.csr_array((0, 5))).shape == (0, 5)


@pytest.mark.parametrize("source", ["csr", "csc", "coo"])
@pytest.mark.parametrize("target", ["csr", "csc"])
def test_conversions_are_exact(source: str, target: str) -> None:
    for rows, columns, density in ((0, 0, 0.0), (1, 7, 0.5), (7, 1, 0.5), (30, 20, 0.2), (5, 5, 0.0)):
        a = matrix(rows, columns, density, 1)
        got, want = pa.asformat(a.asformat(source), target), a.asformat(target)
        want.sort_indices()
        for part in ("indptr", "indices", "data"):
            np.testing.assert_array_equal(getattr(got, part), getattr(want, part))


def test_a_conversion_adds_up_what_repeats() -> None:
    a = sp.coo_array((np.array([1.0, 2.0, 4.0]), (np.array([1, 0, 1]), np.array([2, 1, 2]))), shape=(2, 3))
    np.testing.assert_array_equal(pa.asformat(a, "csr").toarray(), a.toarray())
    np.testing.assert_array_equal(pa.asformat(a, "csc").toarray(), a.toarray())


@pytest.mark.parametrize("kinds", list(itertools.product(KINDS, repeat=2)), ids="-".join)
def test_every_format_meets_every_other(kinds: tuple[str, str]) -> None:
    a, b = matrix(12, 12, 0.2, 0), matrix(12, 12, 0.2, 1)
    x, y = (m.tobsr(blocksize=(2, 3)) if k == "bsr" else m.asformat(k) for m, k in zip((a, b), kinds))
    for f in (lambda a, b: a + b, lambda a, b: a * b, lambda a, b: a @ b, lambda a, b: a.T @ b):
        np.testing.assert_allclose(pa.jit(f)(x, y).toarray(), f(a, b).toarray(), atol=1e-14)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("op", ["add", "mul", "matmul"])
@pytest.mark.parametrize(("rows", "columns"), [(1, 50), (50, 1), (1, 1)])
def test_declared_shapes_of_one_row_or_column(rows: int, columns: int, op: str, threads: int) -> None:
    """An index with one value is no loop: there are no rows to store one after another."""
    a = sp.random_array((rows, columns), density=0.4, format="csr", rng=1)
    b = sp.random_array((columns, 20) if op == "matmul" else (rows, columns), density=0.4, format="csr", rng=2)
    function = getattr(operator, op)
    compiled = pa.compile(function, pa.csr[rows, columns], pa.csr[b.shape])
    with pa.options(num_threads=threads):
        found = compiled(a, b)
    np.testing.assert_allclose(found.toarray(), function(a, b).toarray() if op != "mul" else (a * b).toarray(), atol=1e-12)


PRODUCTS_AND_MARGINS: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "columns scaled by sums": (lambda p, n: (p @ p.T) * pa.sum(p, axis=1)[None, :], lambda p, n: (p @ p.T) * p.sum(axis=1)[None, :]),
    "columns scaled by a function": (lambda p, n: (p @ p.T) * pa.sqrt(n)[None, :], lambda p, n: (p @ p.T) * np.sqrt(n)[None, :]),
    "Jaccard": (
        lambda p, n: (lambda s, d: pa.map_stored(lambda a, u, v: a / (u + v - a), s, d[:, None], d[None, :]))(p @ p.T, pa.sum(p * p, axis=1)),
        lambda p, n: (lambda s, d: np.where(s != 0, s / (d[:, None] + d[None, :] - s), 0))(p @ p.T, (p * p).sum(axis=1)),
    ),
    "cosine": (
        lambda p, n: (lambda d: (p @ p.T) / pa.sqrt(d[:, None] * d[None, :]))(pa.sum(p * p, axis=1) + 1),
        lambda p, n: (lambda d: (p @ p.T) / np.sqrt(d[:, None] * d[None, :]))((p * p).sum(axis=1) + 1),
    ),
    "two products": (lambda p, n: (p @ p.T) * pa.sum(p @ p.T, axis=0)[None, :], lambda p, n: (p @ p.T) * (p @ p.T).sum(axis=0)[None, :]),
    "parts of the whole": (lambda p, n: (lambda s: s / pa.sum(s))(p @ p.T), lambda p, n: (lambda s: s / s.sum())(p @ p.T)),
    "rows that sum to one": (lambda p, n: (lambda s: s / pa.sum(s, axis=1)[:, None])(p @ p.T + 1e-3 * p @ p.T), lambda p, n: (lambda s: s / s.sum(axis=1)[:, None])(p @ p.T * 1.001)),
    "rows times their sums": (lambda p, n: (lambda s: s * pa.sum(s, axis=1)[:, None])(p @ p.T), lambda p, n: (lambda s: s * s.sum(axis=1)[:, None])(p @ p.T)),
    "rows times two sums": (
        lambda p, n: (lambda s: s * pa.sum(s * s, axis=1)[:, None] * pa.sum(s, axis=1)[:, None] * n[None, :])(p @ p.T),
        lambda p, n: (lambda s: s * (s * s).sum(axis=1)[:, None] * s.sum(axis=1)[:, None] * n[None, :])(p @ p.T),
    ),
    "softmax of rows": (lambda p, n: pa.softmax(p @ p.T, axis=1), lambda p, n: (lambda e: e / np.maximum(e.sum(axis=1, keepdims=True), 1e-300))(np.where(p @ p.T != 0, np.exp(p @ p.T), 0))),
    "columns over their sums": (lambda p, n: (lambda s: s / (pa.sum(s, axis=0) + 1)[None, :])(p @ p.T), lambda p, n: (lambda s: s / (s.sum(axis=0) + 1)[None, :])(p @ p.T)),
    "over the trace": (lambda p, n: (lambda s: s / (1 + pa.trace(s)))(p @ p.T), lambda p, n: (lambda s: s / (1 + np.trace(s)))(p @ p.T)),
    "a sum over the sum": (lambda p, n: (lambda s: s / pa.sum(s))(p + p), lambda p, n: (lambda s: s / s.sum())(p + p)),
    "rows and columns": (lambda p, n: (p @ p.T) * pa.exp(n)[:, None] * pa.sum(p, axis=1)[None, :], lambda p, n: (p @ p.T) * np.exp(n)[:, None] * p.sum(axis=1)[None, :]),
}


@pytest.mark.parametrize("name", PRODUCTS_AND_MARGINS)
@pytest.mark.parametrize("threads", [1, 2])
def test_products_meet_what_is_computed_of_their_operands(name: str, threads: int) -> None:
    rng = np.random.default_rng(12)
    p, n = sp.random_array((60, 90), density=0.08, format="csr", rng=rng), rng.random(60) + 1
    ours, wanted = PRODUCTS_AND_MARGINS[name]
    with pa.options(num_threads=threads):
        found = pa.jit(ours)(p, n)
    np.testing.assert_allclose(found.toarray(), wanted(p.toarray(), n), atol=1e-12)


def test_a_product_and_what_is_computed_of_it_are_results_together() -> None:
    a = sp.random_array((50, 50), density=0.1, format="csr", rng=np.random.default_rng(13))
    wanted = (a @ a).toarray()
    function = pa.jit(lambda a: (lambda s: (s, pa.sum(s), pa.sum(s, axis=1), 2 * s, s / pa.max(s)))(a @ a))
    for _ in range(2):
        product, total, rows, twice, scaled = function(a)
        np.testing.assert_allclose(product.toarray(), wanted)
        np.testing.assert_allclose((total, *rows), (wanted.sum(), *wanted.sum(axis=1)))
        np.testing.assert_allclose(twice.toarray(), 2 * wanted)
        np.testing.assert_allclose(scaled.toarray(), wanted / wanted.max())


def test_what_nobody_needs_may_be_left_in_a_function() -> None:
    rng = np.random.default_rng(14)
    a, b = sp.random_array((20, 20), density=0.2, format="csc", rng=rng), sp.random_array((20, 20), density=0.2, format="coo", rng=rng)

    def function(a: Any, b: Any) -> Any:
        product = a * a
        a * b
        a @ b + b
        return product, b @ b

    compiled = pa.jit(function)
    for _ in range(2):
        for found, wanted in zip(compiled(a, b), (a * a, b @ b)):
            np.testing.assert_allclose(found.toarray(), wanted.toarray())


def test_rows_are_not_stored_in_blocks_of_another_result() -> None:
    rng = np.random.default_rng(15)
    a, b = (sp.random_array((20, 20), density=0.2, format="csr", rng=rng) for _ in range(2))
    x = rng.random(20)
    vector, found = pa.jit(lambda a, b, x: (pa.tanh(x), (a + b) * pa.tanh(x)[:, None]))(a, b, x)
    np.testing.assert_allclose(vector, np.tanh(x))
    np.testing.assert_allclose(found.toarray(), (a + b).toarray() * np.tanh(x)[:, None])


@pytest.mark.parametrize("same", [False, True])
@pytest.mark.parametrize("op", ["add", "mul", "sub"])
def test_an_element_that_is_used_twice_has_a_place_in_every_loop(op: str, same: bool) -> None:
    rng = np.random.default_rng(16)
    a = sp.random_array((30, 40), density=0.2, format="csr", rng=rng)
    b = 2 * a if same else sp.random_array((30, 40), density=0.2, format="csr", rng=rng)
    meet = {"add": operator.add, "mul": operator.mul, "sub": operator.sub}[op]
    wanted = meet(a.toarray(), b.toarray()) / 3
    found = pa.jit(lambda a, b: (lambda t: t * t + pa.tanh(t) * t)(meet(a, b) / 3.0))(a, b)
    np.testing.assert_allclose(found.toarray(), wanted * wanted + np.tanh(wanted) * wanted, atol=1e-14)


def test_an_empty_operand_beside_one_out_of_order() -> None:
    def program(a: Any, b: Any) -> Any:
        return pa.hstack([a / (1 + pa.abs(pa.sum(a, axis=1)))[:, None], pa.abs(b)]), pa.triu(a * pa.max(a, axis=1)[:, None], 1)

    ordered = matrix(3, 4, 1.0, 1)
    back = np.arange(ordered.nnz).reshape(3, 4)[:, ::-1].ravel()
    loose = type(ordered)((ordered.data[back], ordered.indices[back], ordered.indptr), shape=ordered.shape)
    both, upper = pa.jit(program)(sp.csr_array((3, 3)), loose)
    np.testing.assert_allclose(both.toarray(), np.hstack([np.zeros((3, 3)), abs(ordered.toarray())]))
    assert upper.nnz == 0
