"""A.T @ X without a stored transpose: rows of the result have owners, whatever A stores and in whatever order, against SciPy in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp

import polyai as pa
from polyai.errors import SparseStructureError


def product(a: Any, x: Any) -> Any:
    return a.T @ x


def skewed(rows: int, columns: int, seed: int = 0) -> Any:
    """CSR: most elements lie in the first columns, rows are unsorted, elements repeat, every third row is empty."""
    rng = np.random.default_rng(seed)
    lengths = np.where(np.arange(rows) % 3 == 1, 0, rng.integers(0, 30, rows))
    indptr = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    indices = np.minimum(rng.integers(0, columns, indptr[-1]), rng.integers(0, columns, indptr[-1]) ** 2 // columns).astype(np.int32)
    return sp.csr_array((rng.standard_normal(indptr[-1]), indices, indptr), shape=(rows, columns))


@pytest.mark.parametrize("width", [2, 16, 33, 64, 130])
@pytest.mark.parametrize("shape", [(900, 1300), (1300, 7), (3, 40)])
def test_products_are_those_of_scipy_with_any_number_of_threads(shape: tuple[int, int], width: int) -> None:
    a, x = skewed(*shape), np.random.default_rng(1).standard_normal((shape[0], width))
    f = pa.jit(product)
    found = []
    for threads in (1, 2, 5):
        with pa.options(num_threads=threads):
            found.append(f(a, x))
    np.testing.assert_allclose(found[0], a.T @ x, rtol=1e-11, atol=1e-11)
    for other in found[1:]:
        np.testing.assert_array_equal(other, found[0])


@pytest.mark.parametrize(("shape", "width"), [((0, 9), 4), ((9, 0), 4), ((9, 9), 0), ((0, 0), 0)])
def test_nothing_to_add_up(shape: tuple[int, int], width: int) -> None:
    f = pa.jit(product)
    for a in (skewed(200, 100), sp.csr_array(shape), skewed(200, 100)):
        x = np.ones((a.shape[0], 32 if a.nnz else width))
        np.testing.assert_allclose(f(a, x), a.T @ x, rtol=1e-11, atol=1e-11)


def test_what_follows_reads_finished_rows() -> None:
    a, x = skewed(700, 500), np.random.default_rng(2).standard_normal((700, 24))
    np.testing.assert_allclose(pa.jit(lambda a, x: pa.relu(a.T @ x + 1.0))(a, x), np.maximum(a.T @ x + 1, 0), rtol=1e-11, atol=1e-11)
    v = np.random.default_rng(3).standard_normal((500, 24))
    np.testing.assert_allclose(pa.jit(lambda a, v: a.T @ (a @ v))(a, v), a.T @ (a @ v), rtol=1e-10, atol=1e-10)


def test_threads_share_rows_by_a_sample_of_the_coordinates() -> None:
    a, x = skewed(900, 1300), np.ones((900, 32))
    text = str(pa.jit(product).explain(a, x))
    assert "parallel weight=share stretch=piece_end" in text
    assert "if u64(a_crd1 - low) < u64(span)" in text
    assert "share" not in str(pa.jit(product).explain(a, np.ones((900, 8))))


@pytest.mark.parametrize("bad", [-1, 1300, 1 << 30])
@pytest.mark.parametrize("at", [0, 777, -1])
def test_a_coordinate_outside_is_an_error(bad: int, at: int) -> None:
    a, x = skewed(900, 1300), np.ones((900, 32))
    a.indices[at] = bad
    for threads in (1, 2):
        with pa.options(num_threads=threads), pytest.raises(SparseStructureError, match=f"column index {bad} of a"):
            pa.jit(product)(a, x)
