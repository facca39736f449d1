"""Matrices of a few long rows: what a row stores is shared by the threads, against SciPy in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp

import polyai as pa
from polyai.errors import PolyAIError

COLUMNS = 150_000


def long_rows(rows: int, dtype: Any = np.float64) -> Any:
    """CSR; of several rows one is empty, one holds one element."""
    rng = np.random.default_rng(rows)
    dense = np.where(rng.random((rows, COLUMNS)) < 0.5, rng.standard_normal((rows, COLUMNS)), 0)
    if rows > 2:
        dense[1] = 0
        dense[2, 1:] = 0
    return sp.csr_array(dense.astype(dtype))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("rows", [1, 2, 5, 15])
def test_products_with_a_vector(rows: int, dtype: Any) -> None:
    a, x = long_rows(rows, dtype), np.random.default_rng(1).standard_normal(COLUMNS).astype(dtype)
    wanted = a.astype(np.float64) @ x.astype(np.float64)
    f = pa.jit(lambda a, x: a @ x)
    found = []
    for threads in (1, 2):
        with pa.options(num_threads=threads):
            found.append(f(a, x))
        np.testing.assert_allclose(found[-1], wanted, rtol=1e-9 if dtype == np.float64 else 2e-3, atol=1e-9 if dtype == np.float64 else 2e-2)
    np.testing.assert_array_equal(*found)  # the pieces do not depend on how many threads there are
    assert "for t in 0..8 parallel" in str(f.explain(a, x))


def test_rows_that_are_reduced() -> None:
    a = long_rows(3)
    np.testing.assert_allclose(pa.jit(lambda a: pa.sum(a, axis=1))(a), a.sum(axis=1))
    np.testing.assert_allclose(pa.jit(lambda a: pa.max(a, axis=1))(a), a.max(axis=1).toarray().ravel())


def test_numbers_that_are_none_stay_in_their_rows() -> None:
    a, x = long_rows(5), np.ones(COLUMNS)
    x[a.indices[3]] = np.nan
    x[a.indices[-1]] = np.inf
    with np.errstate(invalid="ignore"):
        wanted = a @ x
    np.testing.assert_allclose(pa.jit(lambda a, x: a @ x)(a, x), wanted)


def test_steps_that_read_what_others_left_along_a_row() -> None:
    """A softmax and attention over few long rows: each element meets its own weight."""
    a, n = long_rows(3), 4
    a.data[:] = np.random.default_rng(3).standard_normal(a.nnz)
    q, k, v = (np.random.default_rng(m).standard_normal((m, n)) for m in (3, COLUMNS, COLUMNS))
    found, weights = pa.jit(lambda q, k, v, a: pa.sparse_attention(q, k, v, mask=a))(q, k, v, a), pa.jit(lambda a: pa.softmax(a, axis=1))(a)
    for i in range(3):
        row = slice(a.indptr[i], a.indptr[i + 1])
        columns = a.indices[row]
        if len(columns):
            weight = np.exp(k[columns] @ q[i] / np.sqrt(n))
            np.testing.assert_allclose(found[i], weight @ v[columns] / weight.sum(), rtol=1e-8, atol=1e-12)
            np.testing.assert_allclose(weights.data[row], np.exp(a.data[row]) / np.exp(a.data[row]).sum(), rtol=1e-8)


def test_other_matrices_run_the_same_code() -> None:
    f = pa.jit(lambda a, x: a @ x)
    f(long_rows(1), np.ones(COLUMNS))
    for a in (sp.random_array((300, 70), density=0.1, format="csr", rng=np.random.default_rng(0)), sp.csr_array((0, 4)), sp.csr_array((3, 0)), sp.csr_array((2, 9))):
        x = np.random.default_rng(2).standard_normal(a.shape[1])
        np.testing.assert_allclose(f(a, x), a @ x)


@pytest.mark.parametrize("value", [-1, COLUMNS])
def test_a_coordinate_out_of_range_is_reported(value: int) -> None:
    f, a = pa.jit(lambda a, x: a @ x), long_rows(1)
    f(a, np.ones(COLUMNS))
    a.indices[a.nnz // 2] = value
    with pytest.raises(PolyAIError, match="column index"):
        f(a, np.ones(COLUMNS))
