"""Rows of sparse products that may hold many of the elements that there are: what was updated is told by the values, whatever these are."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp

import polyai as pa

ROWS, COLUMNS = 240, 330


def operand(m: int, n: int, seed: int, dtype: Any = np.float64) -> sp.csr_array:
    """A matrix with dense rows, rows of a few elements, and empty ones: small whole numbers, of which some are stored zeros."""
    rng = np.random.default_rng(seed)
    some = rng.random((m, n)) < rng.choice([0.0, 0.01, 0.3, 0.9], m)[:, None]
    out = sp.csr_array(some.astype(dtype))
    out.data = rng.integers(-3, 4, out.nnz).astype(dtype)
    return out


def same(got: sp.csr_array, A: sp.csr_array, B: sp.csr_array) -> None:
    """`got` is A @ B, with an element wherever a product is, sorted."""
    ones = [sp.csr_array((np.ones(x.nnz, np.int64), x.indices, x.indptr), shape=x.shape) for x in (A, B)]
    wanted = sp.csr_array(ones[0] @ ones[1])
    wanted.sort_indices()
    np.testing.assert_array_equal(got.indptr, wanted.indptr)
    np.testing.assert_array_equal(got.indices, wanted.indices)
    np.testing.assert_array_equal(got.toarray(), A.toarray() @ B.toarray())


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64, np.complex128])
@pytest.mark.parametrize("threads", [1, 2])
def test_rows_of_all_lengths(threads: int, dtype: Any) -> None:
    A, B = operand(ROWS, ROWS, 1, dtype), operand(ROWS, COLUMNS, 2, dtype)
    with pa.options(num_threads=threads):
        product = pa.jit(lambda A, B: A @ B)
        same(product(A, B), A, B)
        same(product(A[:7], B[:, :1]), A[:7], B[:, :1])  # a row shorter than a word
        wide = sp.hstack([B, sp.csr_array((ROWS, 5000), dtype=dtype)], format="csr")
        same(product(A, wide), A, wide)  # few of many columns: rows mark what they hold
        same(product(A[:, :0], B[:0]), A[:, :0], B[:0])


def test_elements_that_are_zero_are_stored() -> None:
    """Sums that cancel, products of stored zeros, and negative zeros alone."""
    A, B = operand(ROWS, ROWS, 3), operand(ROWS, ROWS, 4)
    A.data[:] = np.where(np.arange(A.nnz) % 2, 0.0, -0.0)
    product = pa.jit(lambda A, B: A @ B)
    same(product(A, B), A, B)
    A.data[:], B.data[:] = -0.0, 1.0
    got = product(A, B)
    same(got, A, B)
    assert not np.signbit(got.data).any()  # a sum begins at 0.0


def test_what_is_not_a_number_stays_in_its_row() -> None:
    A, B = operand(ROWS, ROWS, 5), operand(ROWS, COLUMNS, 6)
    rows = np.flatnonzero(np.diff(A.indptr) > 20)[:3]
    for row, value in zip(rows, (np.nan, np.inf, -np.inf)):
        A.data[A.indptr[row]] = value
    product = pa.jit(lambda A, B: A @ B)
    got = product(A, B)
    clean = A.copy()
    clean.data[~np.isfinite(clean.data)] = 1.0
    wanted = product(clean, B)
    np.testing.assert_array_equal(got.indices, wanted.indices)
    hit = np.isin(np.repeat(np.arange(ROWS), np.diff(got.indptr)), rows)
    np.testing.assert_array_equal(got.data[~hit], wanted.data[~hit])
    assert not np.isfinite(got.data[hit]).all()
    same(product(clean, B), clean, B)  # nothing of it is left behind


def test_chains_and_what_is_computed_along_products() -> None:
    A, B = operand(ROWS, ROWS, 7), operand(ROWS, ROWS, 8)
    C = pa.jit(lambda A, B: 2.0 * (A.T @ B) @ A)(A, B)
    np.testing.assert_array_equal(C.toarray(), 2.0 * (A.toarray().T @ B.toarray()) @ A.toarray())
    D, total = pa.jit(lambda A, B: (lambda C: (C * A, C.sum(axis=1)))(A @ B))(A, B)
    np.testing.assert_array_equal(D.toarray(), (A.toarray() @ B.toarray()) * A.toarray())
    np.testing.assert_array_equal(total, (A.toarray() @ B.toarray()).sum(axis=1))


def test_results_do_not_depend_on_how_a_row_is_marked() -> None:
    """The same sums, bit for bit, among few columns and among many."""
    rng = np.random.default_rng(9)
    A, B = operand(ROWS, ROWS, 10), operand(ROWS, COLUMNS, 11)
    A.data, B.data = rng.standard_normal(A.nnz), rng.standard_normal(B.nnz)
    product = pa.jit(lambda A, B: A @ B)
    wide = sp.hstack([B, sp.csr_array((ROWS, 5000))], format="csr")
    np.testing.assert_array_equal(product(A, B).data, product(A, wide).data)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64])
def test_products_under_a_mask(dtype: Any) -> None:
    """What the mask keeps of a product is stored where the product is, also where it is zero."""
    A, B, M = operand(ROWS, ROWS, 12, dtype), operand(ROWS, ROWS, 13, dtype), operand(ROWS, ROWS, 14, dtype)
    masked = pa.jit(lambda M, A, B: M * (A @ B))
    for values in (A.data.copy(), np.zeros_like(A.data), -np.zeros_like(A.data)):
        A.data[:] = values
        got = masked(M, A, B)
        ones = [sp.csr_array((np.ones(x.nnz, np.int64), x.indices, x.indptr), shape=x.shape) for x in (M, A, B)]
        wanted = sp.csr_array(ones[0] * (ones[1] @ ones[2]))
        wanted.sort_indices()
        np.testing.assert_array_equal(got.indptr, wanted.indptr)
        np.testing.assert_array_equal(got.indices, wanted.indices)
        np.testing.assert_array_equal(got.toarray(), M.toarray() * (A.toarray() @ B.toarray()))
