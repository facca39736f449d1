"""Results along the pattern of an argument: by the native path as by the slow one, with index arrays of their own."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp

import polyai as pa


@pytest.mark.parametrize("cls", [sp.csr_array, sp.csc_array, sp.coo_array, sp.csr_matrix])
def test_fast_and_slow_calls_agree(cls: type) -> None:
    rng = np.random.default_rng(3)
    function = pa.jit(lambda a, d: abs(a).multiply(d), name="scaled")
    a = cls(sp.random_array((30, 20), density=0.2, rng=rng))
    d = rng.standard_normal((30, 20))
    results = [function(a, d) for _ in range(3)]
    expected = abs(a).toarray() * d
    for found in results:
        assert type(found) is cls
        np.testing.assert_allclose(found.toarray(), expected)
    slots = "coords" if cls is sp.coo_array else "indices"
    for found in results:
        mine, theirs = getattr(found, slots), getattr(a, slots)
        pairs = zip(mine, theirs) if slots == "coords" else [(mine, theirs)]
        assert not any(np.may_share_memory(x, y) for x, y in pairs)


def test_indices_longer_than_needed() -> None:
    a = sp.csr_array(np.eye(4))
    a.data, a.indices = np.append(a.data, 9.0), np.append(a.indices, np.int32(0))
    function = pa.jit(lambda a: abs(a) * 3.0)
    for _ in range(3):
        np.testing.assert_array_equal(function(a).toarray(), 3 * np.eye(4))


@pytest.mark.parametrize("axes", [(0, 1, 2), (2, 0, 1), (1, 2, 0), (2, 1, 0)])
def test_results_along_a_list_of_many_dimensions(axes: tuple[int, ...]) -> None:
    rng = np.random.default_rng(4)
    full = np.where(rng.random((3, 4, 5)) < 0.3, rng.standard_normal((3, 4, 5)), 0)
    a = sp.coo_array(full)
    for _ in range(3):
        scaled, moved = (f(a) for f in (pa.jit(lambda t: t.transpose(axes) * 2), pa.jit(lambda t: t.transpose(axes))))
        np.testing.assert_array_equal(scaled.toarray(), full.transpose(axes) * 2)
        np.testing.assert_array_equal(moved.toarray(), full.transpose(axes))


@pytest.mark.parametrize("shape", [(6, 4), (4, 6), (5, 5), (1, 3), (3, 1)])
def test_results_along_transposed_diagonals(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(5)
    full = np.where(rng.random(shape) < 0.5, rng.standard_normal(shape), 0)
    a = sp.dia_array(full)
    for fn, want in ((lambda a: a.T, full.T), (lambda a: a.T * 2 + a.T, 3 * full.T), (lambda a: abs(a.T), abs(full.T))):
        np.testing.assert_allclose(pa.jit(fn)(a).toarray(), want)


def test_blocks_are_merged_with_other_patterns() -> None:
    rng = np.random.default_rng(6)
    full = [np.kron(rng.random((3, 2)) < 0.6, np.ones((2, 3))) * rng.integers(1, 5, (6, 6)) for _ in range(2)]
    a, b = (sp.bsr_array(f, blocksize=(2, 3)) for f in full)
    for other in (b, b.tocsr()):
        for fn in (lambda a, b: a + b, lambda a, b: a * b, lambda a, b: a @ b, lambda a, b: a - b.T):
            np.testing.assert_allclose(pa.jit(fn)(a, other).toarray(), fn(a, other).toarray())
