"""Sparse attention and softmax on rows of a hundred elements, whose steps run for several rows each, against NumPy in float64."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp

import polyai as pa
from polyai.errors import PolyAIError


def mask(rows: int, columns: int) -> sp.csr_array:
    """About a hundred elements in a row; some rows are empty, some hold a few, one holds all."""
    rng = np.random.default_rng(rows)
    dense = rng.random((rows, columns)) < 100 / columns
    dense[::17] = False
    dense[5::31, 3:] = False
    dense[7] = True
    return sp.csr_array(np.where(dense, rng.standard_normal((rows, columns)), 0))


def weights(scores: np.ndarray, stored: np.ndarray) -> np.ndarray:
    """The softmax of each row over what is stored; zero elsewhere and in empty rows."""
    scores = np.where(stored, scores, -np.inf)
    peak = np.where(stored.any(1, keepdims=True), scores.max(1, keepdims=True, initial=-np.inf), 0)
    e = np.where(stored, np.exp(scores - peak), 0)
    return e / np.where(stored.any(1, keepdims=True), e.sum(1, keepdims=True), 1)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(("depth", "width"), [(64, 64), (20, 13)])
def test_sparse_attention(depth: int, width: int, threads: int) -> None:
    rng = np.random.default_rng(depth)
    A = mask(301, 400)
    q, k, v = rng.standard_normal((301, depth)), rng.standard_normal((400, depth)), rng.standard_normal((400, width))
    stored = A.toarray() != 0
    expected = weights(q @ k.T / np.sqrt(depth), stored) @ v
    f = pa.jit(lambda q, k, v, A: pa.sparse_attention(q, k, v, mask=A))
    with pa.options(num_threads=threads):
        np.testing.assert_allclose(f(q, k, v, A), expected, rtol=1e-9, atol=1e-12)
        q[3], q[4, 0] = np.nan, np.inf  # what is not a number stays in its row
        with np.errstate(invalid="ignore"):
            expected = weights(q @ k.T / np.sqrt(depth), stored) @ v
        got = f(q, k, v, A)
    others = np.delete(np.arange(301), [3, 4])
    np.testing.assert_allclose(got[others], expected[others], rtol=1e-9, atol=1e-12)
    assert np.isnan(got[3]).all() == stored[3].any()
    text = str(f.explain(q, k, v, A))
    assert "step 8 parallel weight=A.pos1" in text


def test_a_broken_row_is_reported_and_shorter_matrices_run_the_same_code() -> None:
    f = pa.jit(lambda q, k, v, A: pa.sparse_attention(q, k, v, mask=A))
    rng = np.random.default_rng(1)
    A = mask(301, 400)
    q, k, v = rng.standard_normal((301, 8)), rng.standard_normal((400, 8)), rng.standard_normal((400, 8))
    f(q, k, v, A)
    for n in (1, 2, 9):
        few = A[:n]
        expected = weights(q[:n] @ k.T / np.sqrt(8), few.toarray() != 0) @ v
        np.testing.assert_allclose(f(q[:n], k, v, few), expected, rtol=1e-9, atol=1e-12)
    A.indices[A.indptr[200]] = 400
    with pytest.raises(PolyAIError, match="400"):
        f(q, k, v, A)
