"""n:m sparsity: of m neighbouring columns at most n are stored."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import polyai as pa
from polyai.errors import ShapeError, SparseStructureError
from polyai.sparse.format import csr, structured

CASES = [((2, 4), (8, 12)), ((1, 4), (7, 10)), ((2, 4), (5, 3)), ((3, 8), (6, 50)), ((4, 4), (3, 9)), ((2, 4), (0, 8)), ((2, 4), (4, 0))]


def pruned(groups: tuple[int, int], shape: tuple[int, int]) -> np.ndarray:
    """The n largest of each m elements of a row, some of them zero."""
    rng = np.random.default_rng(5)
    full, out = rng.standard_normal(shape), np.zeros(shape)
    for row in range(shape[0]):
        for start in range(0, shape[1], groups[1]):
            kept = start + np.argsort(-np.abs(full[row, start : start + groups[1]]))[: groups[0]]
            out[row, kept] = full[row, kept]
    out[rng.random(shape) < 0.2] = 0
    return out


@pytest.mark.parametrize(("groups", "shape"), CASES)
def test_what_is_stored_comes_back(groups: tuple[int, int], shape: tuple[int, int]) -> None:
    dense = pruned(groups, shape)
    stored = pa.SparseArray.from_dense(dense, structured(*groups))
    np.testing.assert_array_equal(stored.toarray(), dense)
    np.testing.assert_array_equal(stored.convert(csr()).toarray(), dense)
    assert len(stored.storage.arrays["crd1"]) == shape[0] * -(-shape[1] // groups[1]) * groups[0] and stored.storage.arrays["crd1"].dtype == np.int8


PROGRAMS: list[tuple[Callable[..., Any], Callable[[np.ndarray, np.ndarray], Any]]] = [
    (lambda a, x: a @ x, lambda d, x: d @ x),
    (lambda a, x: pa.relu(a @ x.T), lambda d, x: np.maximum(d @ x.T, 0)),
    (lambda a, x: a.T @ (a @ x), lambda d, x: d.T @ (d @ x)),
    (lambda a, x: pa.sum(a * a, axis=0) @ x, lambda d, x: (d * d).sum(axis=0) @ x),
]


@pytest.mark.parametrize(("groups", "shape"), CASES)
@pytest.mark.parametrize("number", range(len(PROGRAMS)))
def test_programs_read_it_in_place(groups: tuple[int, int], shape: tuple[int, int], number: int) -> None:
    dense = pruned(groups, shape)
    program, wanted = PROGRAMS[number]
    x = np.random.default_rng(6).standard_normal((shape[1], shape[1]) if number in (1, 3) else (shape[1], 3))
    before = pa.stats()["conversions"]
    found = pa.jit(program)(pa.SparseArray.from_dense(dense, structured(*groups)), x)
    np.testing.assert_allclose(found, wanted(dense, x), atol=1e-12)
    assert pa.stats()["conversions"] == before


def test_sums_and_products_of_two_are_sparse() -> None:
    dense = pruned((2, 4), (9, 16))
    stored = pa.SparseArray.from_dense(dense, structured(2, 4))
    for program, wanted in ((lambda a: a + a, 2 * dense), (lambda a: a * a, dense * dense), (lambda a: a @ a.T, dense @ dense.T)):
        np.testing.assert_allclose(pa.jit(program)(stored).toarray(), wanted, atol=1e-12)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(SparseStructureError, match="no room for 3 elements among the coordinates 4 to 7"):
        pa.SparseArray.from_dense(np.array([[1, 0, 0, 1, 1, 1, 1, 0.0]]), structured(2, 4))
    with pytest.raises(SparseStructureError, match="places among 4 are listed"):
        pa.SparseArray(structured(2, 4), (1, 8), {"crd1": np.array([0, 4, 0, 1], np.int8), "val": np.ones(4)})
    with pytest.raises(SparseStructureError):
        pa.SparseArray(structured(2, 4), (1, 8), {"crd1": np.array([1, 0, 0, 1], np.int8), "val": np.ones(4)})
    for n, m, bits in ((0, 4, 8), (5, 4, 8), (2, 200, 8)):
        with pytest.raises(ShapeError):
            structured(n, m, bits)
    assert structured(2, 200, 16).levels[1] == structured(2, 200, 32).levels[1]
