"""Rows that list the same coordinates: what runs for several of them at once gives what SciPy gives in float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp

import polyai as pa
from polyai.errors import PolyAIError

RNG = 20


def in_blocks(rows: int, columns: int, seed: int = RNG, block: int = 4, dtype: Any = np.float64) -> Any:
    """CSR of blocks of rows that are alike, with a row of its own here and there, an empty block, and a row that holds everything."""
    rng = np.random.default_rng(seed)
    dense = np.repeat(rng.random((-(-rows // block), columns)) < 0.3, block, axis=0)[:rows]
    dense[block : 2 * block] = False
    dense[9 * block + 1 :: 11 * block, 1] ^= True
    dense[rows // 2] = True
    a = sp.csr_array(dense.astype(dtype))
    a.data = rng.standard_normal(a.nnz).astype(dtype)
    a.data[::7] = 0  # stored zeros
    return a


def attention(mask: Any, q: np.ndarray, k: np.ndarray, v: np.ndarray) -> np.ndarray:
    q, k, v = (x.astype(np.float64) for x in (q, k, v))
    out = np.zeros((mask.shape[0], v.shape[1]))
    for i in range(mask.shape[0]):
        columns = mask.indices[mask.indptr[i] : mask.indptr[i + 1]]
        if len(columns):
            scores = k[columns] @ q[i] / np.sqrt(q.shape[1])
            weight = np.exp(scores - scores.max())
            out[i] = weight @ v[columns] / weight.sum()
    return out


def runs_together(fn: Callable[..., Any], *args: Any) -> bool:
    return "alike" in next(s.text for s in pa.jit(fn).explain(*args).sections if s.title == "tidy")


def close(found: Any, wanted: Any, dtype: Any) -> None:
    np.testing.assert_allclose(found, wanted, rtol=1e-10 if dtype == np.float64 else 2e-4, atol=1e-10 if dtype == np.float64 else 2e-4)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("d", [1, 7, 63, 64, 65])
def test_attention(dtype: Any, d: int) -> None:
    mask = in_blocks(130, 40, dtype=dtype)
    q, k, v = (np.random.default_rng(d).standard_normal((n, d)).astype(dtype) for n in (130, 40, 40))
    fn = lambda m, q, k, v: pa.sparse_attention(q, k, v, mask=m)  # noqa: E731
    assert runs_together(fn, mask, q, k, v)
    close(pa.jit(fn)(mask, q, k, v), attention(mask, q, k, v), dtype)


@pytest.mark.parametrize("rows", [1024, 1026])
def test_attention_whose_steps_run_for_several_rows(rows: int) -> None:
    mask = sp.csr_array(in_blocks(rows, 300, dtype=np.float32))
    q, k, v = (np.random.default_rng(1).standard_normal((n, 16)).astype(np.float32) for n in (rows, 300, 300))
    fn = lambda m, q, k, v: pa.sparse_attention(q, k, v, mask=m)  # noqa: E731
    assert runs_together(fn, mask, q, k, v)
    for threads in (1, 2):
        with pa.options(num_threads=threads):
            close(pa.jit(fn)(mask, q, k, v), attention(mask, q, k, v), np.float32)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("rows", [4, 5, 126, 127, 128])
@pytest.mark.parametrize("columns", [1, 7, 32, 65])
def test_products(dtype: Any, rows: int, columns: int) -> None:
    a = in_blocks(rows, 40, dtype=dtype)
    X = np.random.default_rng(columns).standard_normal((40, columns)).astype(dtype)
    fn = lambda a, x: a @ x  # noqa: E731
    close(pa.jit(fn)(a, X), a.astype(np.float64) @ X.astype(np.float64), dtype)
    close(pa.jit(fn)(a, X[:, 0]), a.astype(np.float64) @ X[:, 0].astype(np.float64), dtype)
    if rows > 100:
        assert runs_together(fn, a, X)
        assert runs_together(fn, a, X[:, 0])


def test_columns_of_csc_that_are_alike() -> None:
    a = sp.csc_array(in_blocks(128, 40).T)
    X = np.random.default_rng(0).standard_normal((a.shape[0], 5))
    fn = lambda a, x: a.T @ x  # noqa: E731
    close(pa.jit(fn)(a, X), a.T @ X, np.float64)


def test_numbers_that_are_none_stay_in_their_rows() -> None:
    a = in_blocks(128, 40)
    X = np.random.default_rng(0).standard_normal((40, 9))
    X[3], X[17], X[5, 2] = np.nan, np.inf, -np.inf
    with np.errstate(invalid="ignore"):
        wanted = a @ X
    np.testing.assert_allclose(pa.jit(lambda a, x: a @ x)(a, X), wanted)
    np.testing.assert_allclose(pa.jit(lambda a, x: a @ x)(a, X[:, 2].copy()), wanted[:, 2])


def test_sampled_products_of_rows() -> None:
    a = in_blocks(128, 40)
    u, v = (np.random.default_rng(n).standard_normal((n, 6)) for n in (128, 40))
    found = pa.jit(lambda a, u, v: a * (u @ v.T))(a, u, v)
    np.testing.assert_allclose(found.toarray(), a.toarray() * (u @ v.T), rtol=1e-10)


def test_a_kernel_serves_rows_that_are_not_alike() -> None:
    fn = pa.jit(lambda a, x: a @ x)
    X = np.random.default_rng(0).standard_normal((40, 16))
    a, other = in_blocks(128, 40), sp.random_array((128, 40), density=0.2, format="csr", rng=np.random.default_rng(4))
    close(fn(a, X), a @ X, np.float64)
    close(fn(other, X), other @ X, np.float64)
    assert len(fn.report().kernels) == 1


@pytest.mark.parametrize("what", ["high", "low", "falls", "beyond"])
def test_broken_rows_are_refused(what: str) -> None:
    fn = pa.jit(lambda a, x: a @ x)
    X = np.random.default_rng(0).standard_normal((40, 16))
    fn(in_blocks(128, 40), X)
    a = in_blocks(128, 40)
    if what in ("high", "low"):
        begin, end = a.indptr[8], a.indptr[9]
        a.indices.reshape(-1)[[a.indptr[8 + k] + (end - begin) // 2 for k in range(4)]] = 40 if what == "high" else -1
    elif what == "falls":
        a.indptr[9] = a.indptr[8] - 1
    else:
        a.indptr[8:12] += 10 * a.nnz
    with pytest.raises(PolyAIError):
        fn(a, X)
