"""Matrices where one row among many stores much of all: all threads walk it, against SciPy and NumPy in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp

import polyai as pa
from polyai.errors import SparseStructureError
from polyai.sparse.samples import heavy_row

ROWS, COLUMNS, LONG = 300, 90_000, 50_000


def matrix(heavy: tuple[int, ...] = (77,), dtype: Any = np.float64, longest: int = LONG) -> Any:
    """CSR with sorted rows of three elements, but the heavy ones, and one that is empty."""
    rng = np.random.default_rng(len(heavy))
    lengths = np.full(ROWS, 3)
    lengths[5] = 0
    lengths[list(heavy)] = longest
    indptr = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    indices = np.concatenate([np.sort(rng.choice(COLUMNS, k, replace=False)) for k in lengths]).astype(np.int32)
    return sp.csr_array((rng.standard_normal(indptr[-1]).astype(dtype), indices, indptr), shape=(ROWS, COLUMNS))


def same_for_any_threads(function: Any, *args: Any) -> Any:
    compiled, found = pa.jit(function), []
    for threads in (1, 2, 3):
        with pa.options(num_threads=threads):
            found.append(np.asarray(compiled(*args)))
    for other in found[1:]:
        np.testing.assert_array_equal(other, found[0])
    text = str(compiled.explain(*args))
    assert "<= heavy" in text and "for piece in 0..16 parallel" in text
    return found[0]


def attention(a: Any, q: Any, k: Any, v: Any) -> Any:
    return pa.sparse_attention(q, k, v, mask=a)


def expected_attention(a: Any, q: Any, k: Any, v: Any) -> Any:
    out = np.zeros((a.shape[0], v.shape[1]))
    for i in range(a.shape[0]):
        c = a.indices[a.indptr[i] : a.indptr[i + 1]]
        if len(c):
            s = k[c] @ q[i] / np.sqrt(q.shape[1])
            w = np.exp(s - s.max())
            out[i] = w @ v[c] / w.sum()
    return out


@pytest.mark.parametrize("heavy", [(0,), (77,), (ROWS - 1,), (3, 4, 200)])
def test_products(heavy: tuple[int, ...]) -> None:
    a = matrix(heavy)
    x = np.random.default_rng(1).standard_normal((COLUMNS, 19))
    np.testing.assert_allclose(same_for_any_threads(lambda a, x: a @ x, a, x[:, 0].copy()), a @ x[:, 0], rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(same_for_any_threads(lambda a, x: pa.relu(a @ x + 1), a, x), np.maximum(a @ x + 1, 0), rtol=1e-9, atol=1e-9)


def test_single_precision() -> None:
    a = matrix(dtype=np.float32)
    x = np.random.default_rng(1).standard_normal((COLUMNS, 8)).astype(np.float32)
    np.testing.assert_allclose(same_for_any_threads(lambda a, x: a @ x, a, x), a.astype(float) @ x.astype(float), rtol=2e-4, atol=2e-3)


def test_attention_whose_steps_read_what_others_left() -> None:
    a, rng = matrix(), np.random.default_rng(2)
    q, k, v = rng.standard_normal((ROWS, 6)), rng.standard_normal((COLUMNS, 6)), rng.standard_normal((COLUMNS, 5))
    np.testing.assert_allclose(same_for_any_threads(attention, a, q, k, v), expected_attention(a, q, k, v), rtol=1e-9, atol=1e-12)


def test_reductions() -> None:
    a = matrix()
    dense = np.where(np.diff(a.indptr) > 0, 1.0, 0.0)
    np.testing.assert_allclose(same_for_any_threads(lambda a: pa.sum(a * a, axis=1), a), a.multiply(a).sum(axis=1), rtol=1e-11)
    np.testing.assert_array_equal(same_for_any_threads(lambda a: pa.max(a, axis=1), a), a.max(axis=1).toarray().ravel())
    np.testing.assert_allclose(same_for_any_threads(lambda a: pa.sum(pa.softmax(a, axis=1), axis=1), a), dense, rtol=1e-12)


def test_the_kernel_serves_other_matrices() -> None:
    f, x = pa.jit(lambda a, x: a @ x), np.random.default_rng(1).standard_normal(COLUMNS)
    for a in (matrix(), matrix(()), matrix((1, 2)), matrix(longest=40), sp.csr_array((ROWS, COLUMNS))):
        np.testing.assert_allclose(f(a, x), a @ x, rtol=1e-9, atol=1e-9)
    g, y = pa.jit(lambda a, x: a @ x), np.random.default_rng(1).standard_normal((COLUMNS, 0))
    assert g(matrix(), y).shape == (ROWS, 0)


@pytest.mark.parametrize("at", [77 * 3 - 3, 77 * 3 + LONG // 2, 77 * 3 + LONG - 4])
@pytest.mark.parametrize("bad", [-1, COLUMNS])
def test_coordinates_of_the_row_are_checked(at: int, bad: int) -> None:
    a, x = matrix(), np.ones((COLUMNS, 4))
    f = pa.jit(lambda a, x: a @ x)
    f(a, x)
    a.indices[at] = bad
    for given in (x, x[:, 0].copy()):
        with pytest.raises(SparseStructureError, match=f"column index {bad} of a"):
            pa.jit(lambda a, x: a @ x)(a, given)


@pytest.mark.parametrize(("row", "value"), [(78, 1 << 30), (78, -5), (77, 1 << 30), (77, -1 << 30), (ROWS - 1, 1 << 30)])
def test_positions_of_the_row_are_checked(row: int, value: int) -> None:
    a, x = matrix(), np.ones(COLUMNS)
    f = pa.jit(lambda a, x: a @ x)
    f(a, x)
    a.indptr[row] = value
    with pytest.raises(SparseStructureError, match="indptr of a"):
        f(a, x)


def test_what_a_heavy_row_is() -> None:
    a = matrix()
    assert heavy_row(a.indptr) == LONG
    assert heavy_row(matrix((3, 4, 200)).indptr) == LONG
    assert heavy_row(matrix(()).indptr) == heavy_row(matrix(longest=20_000).indptr) == 0
    assert heavy_row(np.arange(0, 10_000_000, 1000, dtype=np.int32)) == 0  # long rows, none longer than the others
    assert heavy_row(np.zeros(1, np.int32)) == heavy_row(np.zeros(0, np.int32)) == heavy_row(np.zeros(9, np.int32)) == 0
    for broken in (np.array([0, -7, 1 << 30, 5], np.int32), np.array([5, 1 << 30, 0, 1 << 20], np.int64)):
        heavy_row(broken)
