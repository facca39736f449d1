"""Sparse arrays with a value other than zero where they store nothing, against dense NumPy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp

import polyai as pa
from polyai.errors import DTypeError, SparseStructureError, TraceError, UnsupportedError
from polyai.sparse.format import Format, bitmap, coo, csc, csf, csr, ell, with_fill

rng = np.random.default_rng(0)
A = sp.random_array((6, 7), density=0.4, format="csr", rng=rng)
B = sp.random_array((6, 7), density=0.4, format="csr", rng=rng)
S = sp.random_array((6, 6), density=0.4, format="csr", rng=rng)
D = rng.random((6, 7))
DA, DB = A.toarray(), B.toarray()


def full(matrix: Any, fill: float) -> Any:
    """The dense array of what a matrix stores, `fill` elsewhere."""
    dense = matrix.toarray()
    return np.where(dense != 0, dense, fill)


def dense_of(found: Any) -> Any:
    return found.toarray() if hasattr(found, "toarray") else np.asarray(found)


F = pa.filled
ONE: dict[str, tuple[Callable[[Any], Any], Any, int | None]] = {
    "A + 1": (lambda a: F(a, 0) + 1, DA + 1, 17),
    "1 - A": (lambda a: 1 - F(a, 0), 1 - DA, 17),
    "exp(A)": (lambda a: pa.exp(F(a, 0)), np.exp(DA), 17),
    "np.exp(A)": (lambda a: np.exp(F(a, 0)), np.exp(DA), 17),
    "A > -1": (lambda a: F(a, 0) > -1, DA > -1, 17),
    "A == 0": (lambda a: F(a, 0) == 0, DA == 0, 17),
    "A / 0": (lambda a: F(a, 1.0) / 0.0, np.where(DA != 0, DA, 1.0) * np.inf, 17),
    "nothing is NaN": (lambda a: pa.isnan(F(a, np.nan)), DA == 0, 17),
    "of itself": (lambda a: pa.exp(F(a, 0)) * (F(a, 0) + 2), np.exp(DA) * (DA + 2), 17),
    "transposed": (lambda a: F(a, 3.0).T * 2, full(A, 3.0).T * 2, 17),
    "another type": (lambda a: F(a, 3.0).astype(np.float32), full(A, 3.0).astype(np.float32), 17),
    "filled again": (lambda a: F(F(a, 3.0), 4.0) + 1, full(A, 4.0) + 1, 17),
    "dense": (lambda a: F(a, 3.0).toarray(), full(A, 3.0), None),
    "sum": (lambda a: pa.sum(F(a, 2.0)), full(A, 2.0).sum(), None),
    "sum of columns": (lambda a: pa.sum(F(a, 2.0), axis=0), full(A, 2.0).sum(0), None),
    "sum of rows kept": (lambda a: F(a, 2.0).sum(axis=1, keepdims=True), full(A, 2.0).sum(1, keepdims=True), None),
    "mean": (lambda a: np.mean(F(a, 2.0), axis=1), full(A, 2.0).mean(1), None),
    "largest": (lambda a: pa.max(F(a, 0.3), axis=1), full(A, 0.3).max(1), None),
    "smallest": (lambda a: pa.min(F(a, 0.3)), full(A, 0.3).min(), None),
    "product": (lambda a: pa.prod(F(a, 2.0), axis=1), full(A, 2.0).prod(1), None),
    "any": (lambda a: pa.any(F(a, 0) > 0.5, axis=1), (DA > 0.5).any(1), None),
    "all": (lambda a: pa.all(F(a, 0) > -1), True, None),
}


@pytest.mark.parametrize("name", ONE)
def test_one_array(name: str) -> None:
    ours, wanted, stored = ONE[name]
    fn = pa.jit(ours)
    for _ in range(3):  # the last ones by a shorter way, if there is one
        found = fn(A)
        np.testing.assert_allclose(dense_of(found), wanted, rtol=1e-12)
        assert stored is None or (isinstance(found, pa.SparseArray) and found.nnz == stored)


TWO: dict[str, tuple[Callable[[Any, Any], Any], Any, int | None]] = {
    "sum": (lambda a, b: a + b, full(A, np.inf) + full(B, np.inf), 24),
    "least": (lambda a, b: pa.minimum(a, b), np.minimum(full(A, np.inf), full(B, np.inf)), 24),
    "largest, where both are": (lambda a, b: pa.maximum(a, b), np.maximum(full(A, np.inf), full(B, np.inf)), 10),
    "compared": (lambda a, b: a < b, full(A, np.inf) < full(B, np.inf), None),
    "one plain": (lambda a, b: pa.exp(-a) * F(b, 0), np.exp(-full(A, np.inf)) * DB, None),
    "both mapped": (lambda a, b: pa.exp(-a) + pa.cos(F(b, 0)), np.exp(-full(A, np.inf)) + np.cos(DB), 24),
}


@pytest.mark.parametrize("name", TWO)
def test_two_arrays(name: str) -> None:
    ours, wanted, stored = TWO[name]
    fn = pa.jit(ours)
    a, b = (pa.filled(m, np.inf) for m in (A, B))
    for _ in range(3):
        found = fn(a, b)
        np.testing.assert_allclose(dense_of(found), wanted, rtol=1e-12)
        assert stored is None or found.nnz == stored


def test_with_dense_arrays() -> None:
    a = pa.filled(A, np.inf)
    kept = pa.jit(lambda a, d: pa.maximum(a, d))(a, D)
    assert isinstance(kept, pa.SparseArray) and kept.fill_value == np.inf and kept.nnz == A.nnz
    np.testing.assert_allclose(kept.toarray(), np.maximum(full(A, np.inf), D))
    np.testing.assert_allclose(pa.jit(lambda a, d: pa.maximum(a, d))(a, D[0]).toarray(), np.maximum(full(A, np.inf), D[0]))
    for fn, wanted in ((lambda a, d: pa.minimum(a, d), np.minimum(full(A, np.inf), D)), (lambda a, d: a + d, full(A, np.inf) + D), (lambda a, d: d * a, D * full(A, np.inf))):
        found = pa.jit(fn)(a, D)
        assert isinstance(found, np.ndarray)
        np.testing.assert_allclose(found, wanted)


def test_shortest_paths() -> None:
    dense = full(S, np.inf)
    steps = (dense[:, :, None] + dense[None]).min(1)
    ring = pa.semiring("min", "add")
    fn = pa.jit(lambda a: pa.minimum(a, pa.matmul(a, a, semiring=ring)))
    found = fn(pa.filled(S, np.inf))
    assert found.fill_value == np.inf
    np.testing.assert_allclose(found.toarray(), np.minimum(dense, steps))
    x = np.arange(6.0)
    np.testing.assert_allclose(pa.jit(lambda a, x: pa.matmul(a, x, semiring=ring))(pa.filled(S, np.inf), x), (dense + x).min(1))


@pytest.mark.parametrize("form", [csr(), csc(), coo(), ell(), bitmap(), csr(64)], ids=lambda f: f"{f.name}{f.index_bits}")
def test_formats(form: Format) -> None:
    given = pa.SparseArray.from_dense(full(A, 5.0), form, fill_value=5.0)
    assert given.fill_value == 5.0 and given.nnz == A.nnz
    np.testing.assert_array_equal(given.toarray(), full(A, 5.0))
    found = pa.jit(lambda a: a * 2 + 1)(given)
    assert found.fill_value == 11.0
    np.testing.assert_allclose(found.toarray(), full(A, 5.0) * 2 + 1)
    again = found.convert(csc())
    assert again.fill_value == 11.0
    np.testing.assert_allclose(again.toarray(), found.toarray())


def test_tensors() -> None:
    T = rng.random((3, 4, 5)) * (rng.random((3, 4, 5)) < 0.3)
    U = T[::-1].copy()
    found = pa.jit(lambda t, u: pa.exp(F(t, 0)) + pa.cos(F(u, 0)))(sp.coo_array(T), sp.coo_array(U))
    assert found.fill_value == 2.0
    np.testing.assert_allclose(found.toarray(), np.exp(T) + np.cos(U))
    tree = pa.SparseArray.from_dense(np.where(T != 0, T, -1.0), csf(3), fill_value=-1.0)
    np.testing.assert_allclose(pa.jit(lambda t: pa.sum(t, axis=2))(tree), np.where(T != 0, T, -1.0).sum(2))


def test_a_fill_value_is_part_of_the_signature() -> None:
    fn = pa.jit(lambda a: a + 1.0 if hasattr(a, "fill_value") else a * 1.0)
    for fill in (3.0, 4.0, np.nan, 4.0, 3.0, np.nan):
        np.testing.assert_allclose(fn(pa.filled(A, fill)).toarray(), full(A, fill) + 1)
    assert with_fill(csr(), np.nan) is with_fill(csr(), float("nan"))


def test_several_results_keep_their_own_fill() -> None:
    one, two, plain = pa.jit(lambda a: (F(a, 1.0), F(a, 2.0), a))(A)
    assert one.fill_value == 1.0 and two.fill_value == 2.0 and sp.issparse(plain)
    for found, fill in ((one, 1.0), (two, 2.0)):
        np.testing.assert_array_equal(found.toarray(), full(A, fill))


def test_results_filled_with_zero_are_plain() -> None:
    found = pa.jit(lambda a: pa.exp(F(a, 0)) - 1)(A)
    assert sp.issparse(found)
    np.testing.assert_allclose(found.toarray(), np.exp(DA) - 1)


def test_outside_of_functions_arrays_are_shared() -> None:
    a = pa.filled(A, 2.0)
    assert np.shares_memory(a.data, A.data) and a.fill_value == 2.0 and "else 2.0" in repr(a)
    np.testing.assert_allclose(pa.exp(a).toarray(), np.exp(full(A, 2.0)))
    assert a.astype(np.float32).fill_value.dtype == np.float32


def test_a_coo_array_of_pydata_keeps_its_fill() -> None:
    class COO:
        """What pydata/sparse's COO looks like."""

        def __init__(self) -> None:
            self.coords, self.data, self.shape, self.fill_value = np.stack(A.tocoo().coords), A.tocoo().data, A.shape, np.float64(7.0)
            self.ndim, self.dtype = 2, A.dtype

    found = pa.jit(lambda a: a + 1)(COO())
    np.testing.assert_allclose(found.toarray(), full(A, 7.0) + 1)


REFUSED: dict[str, tuple[Callable[[Any], Any], type[Exception], str]] = {
    "a product": (lambda a: F(a, 1.0) @ np.ones(7), UnsupportedError, "toarray"),
    "a product over a semiring with another identity": (lambda a: pa.matmul(F(a, 1.0), np.ones(7), semiring=pa.semiring("min", "add")), UnsupportedError, "inf"),
    "no meaning": (lambda a: pa.cumulative_sum(F(a, 1.0), axis=1), UnsupportedError, "toarray"),
    "an index": (lambda a: F(a, 1.0)[0], UnsupportedError, "toarray"),
    "iteration": (lambda a: list(F(a, 1.0)), TraceError, "iterate outside"),
    "a result of a branch": (lambda a: pa.cond(pa.sum(a) > 0, lambda: F(a, 1.0), lambda: F(a, 2.0)), UnsupportedError, "x.with"),
    "a traced fill": (lambda a: F(a, pa.sum(a)), TraceError, "static"),
    "an array": (lambda a: F(a, np.ones(3)), TraceError, "number"),
    "dense": (lambda a: F(a.toarray(), 1.0), TraceError, "sparse"),
    "truth": (lambda a: 1 if F(a, 1.0) else 2, TraceError, "where"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_meaning_is_refused(name: str) -> None:
    fn, kind, text = REFUSED[name]
    with pytest.raises(kind, match=text):
        pa.jit(fn)(A)


def test_two_patterns_beside_a_dense_array_are_dense() -> None:
    found = pa.jit(lambda a, b, d: pa.clip(F(a, 1.0), F(b, 0.0), d))(A, B, D)
    np.testing.assert_allclose(found, np.clip(full(A, 1.0), DB, D))


def test_choosing_by_a_condition() -> None:
    found = pa.jit(lambda a: pa.where(F(a, 1.0) > 0.5, F(a, 2.0), -1.0))(A)
    np.testing.assert_allclose(found.toarray(), np.where(full(A, 1.0) > 0.5, full(A, 2.0), -1.0))


def test_fill_values_that_the_type_does_not_hold() -> None:
    whole = A.copy()
    whole.data = (whole.data * 10).astype(np.int64) + 1
    with pytest.raises(DTypeError):
        pa.jit(lambda a: F(a, 0.5))(whole)
    with pytest.raises(SparseStructureError):
        pa.filled(whole, 0.5)
    with pytest.raises(SparseStructureError):
        pa.filled(A, np.ones(2))
    np.testing.assert_array_equal(pa.jit(lambda a: F(a, 7) + 1)(whole).toarray(), np.where(whole.toarray() != 0, whole.toarray(), 7) + 1)


def test_scipy_has_no_fill_value() -> None:
    with pytest.raises(UnsupportedError, match="toarray"):
        pa.filled(A, 2.0).to_scipy()


def test_captured_arrays_have_none() -> None:
    a = pa.filled(A, 2.0)
    with pytest.raises(UnsupportedError, match="argument"):
        pa.jit(lambda x: x @ a)(np.ones(6))


def test_repeated_coordinates_are_refused() -> None:
    twice = sp.csr_array((np.ones(3), np.array([0, 0, 1]), np.array([0, 2, 3])), shape=(2, 2))
    with pytest.raises(SparseStructureError):
        pa.jit(lambda a: pa.exp(F(a, 0)))(twice)
