import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings

from polyai.errors import ShapeError
from polyai.sparse.stats import gini, show_stats, stats

from .strategies import matrices


@given(matrices(kinds=("csr", "csc", "coo")))
@settings(max_examples=150, deadline=None, derandomize=True)
def test_against_dense(matrix):
    found = stats(matrix)
    pattern = (matrix.toarray() != 0).astype(int)  # values are positive, so nothing cancels
    row, column = np.nonzero(pattern)
    lengths = pattern.sum(axis=1)
    assert found.nnz == matrix.nnz and found.nnz - found.duplicates == len(row)
    assert found.empty_rows == (lengths == 0).sum() and found.empty_columns == (pattern.sum(axis=0) == 0).sum()
    assert found.symmetric == (pattern.shape[0] == pattern.shape[1] and (pattern == pattern.T).all())
    if len(row):
        assert (found.below, found.above) == ((row - column).max(), (column - row).max())
        two = {(r // 2, c // 2) for r, c in zip(row.tolist(), column.tolist())}
        assert dict(found.block_fill)[2] == pytest.approx(len(row) / (4 * len(two)))
    if not found.duplicates:
        assert found.row_max == lengths.max(initial=0) and found.row_mean == pytest.approx(lengths.mean() if len(lengths) else 0)


def test_shapes_of_interest():
    blocks = stats(sp.kron(sp.eye(8), np.ones((4, 4)), format="csr"))
    assert blocks.block == 4 and blocks.row_length == 4 and blocks.symmetric and blocks.bandwidth == 3
    star = sp.csr_array((np.ones(99), (np.zeros(99, int), np.arange(1, 100))), shape=(100, 100))
    assert stats(star).is_skewed and stats(star).gini > 0.9 and stats(star).row_length is None
    empty = stats(sp.csr_array((0, 0)))
    assert empty.density == 0 and empty.bandwidth == 0 and empty.block == 1
    assert "4x4 100 %" in show_stats(blocks)


def test_gini():
    assert gini(np.array([3, 3, 3])) == pytest.approx(0)
    assert gini(np.array([0, 0, 0, 8])) == pytest.approx(0.75)
    assert gini(np.zeros(3, int)) == 0


def test_only_matrices():
    with pytest.raises(ShapeError, match="stats needs a sparse matrix"):
        stats(np.eye(3))


@given(matrices(kinds=("csr", "csc", "coo")))
@settings(max_examples=100, deadline=None, derandomize=True)
def test_more_facts_against_dense(matrix):
    found = stats(matrix)
    pattern = matrix.toarray() != 0
    n, m = pattern.shape
    row, column = np.nonzero(pattern)
    assert found.diagonals == len(set((column - row).tolist()))
    for offset, fill in found.fullest:
        assert fill == pytest.approx(np.diagonal(pattern, offset).mean())
    assert found.profile == sum(max(0, i - int(np.flatnonzero(r)[0])) for i, r in enumerate(pattern) if r.any())
    assert sum(found.histogram) == n and (not n or not found.histogram or found.histogram[0] == found.empty_rows)
    if not found.duplicates:
        assert found.mirrored == pytest.approx((pattern & pattern.T).sum() / max(1, pattern.sum()) if n == m and len(row) else float(n == m))
        assert found.triangle == ("" if (np.tril(pattern, -1).any() and np.triu(pattern, 1).any()) or not len(row) else found.triangle)
        lengths = pattern.sum(axis=1)
        padded = sum(8 * int(lengths[k : k + 8].max()) for k in range(0, n, 8))
        assert found.padding[0] == pytest.approx(padded / len(row) if len(row) else 1.0)
    if found.triangle == "lower":
        assert not np.triu(pattern, 1).any()


def test_large_matrices_are_sampled_and_say_so():
    rng = np.random.default_rng(0)
    n, each = 40000, 6
    column = np.sort(rng.integers(0, n, (n, each)), axis=1).ravel()
    big = sp.csr_array((rng.standard_normal(n * each), column, np.arange(0, n * each + 1, each)), shape=(n, n))
    found = stats(big)
    assert found.sampled < 0.7 and "% of the entries" in show_stats(found)
    assert not found.symmetric and found.row_length == each and found.distinct > 256
    both = stats(big + big.T)
    assert both.symmetric and both.equal_values and "symmetric, values too" in show_stats(both)


def test_order_values_and_triangles():
    unsorted = stats(sp.csr_array((np.array([1.0, 2.0]), np.array([1, 0]), np.array([0, 2, 2])), shape=(2, 2)))
    assert not unsorted.is_sorted and unsorted.distinct == 2 and "unsorted" in show_stats(unsorted)
    assert stats(sp.eye_array(5)).triangle == "diagonal" and stats(sp.eye_array(5)).distinct == 1
    assert stats(sp.csr_array(np.tril(np.ones((4, 4))))).triangle == "lower"
    assert "lower triangular" in show_stats(stats(sp.csr_array(np.tril(np.ones((4, 4))))))
    skew = sp.csr_array(np.array([[0.0, 1.0], [-1.0, 0.0]]))
    assert stats(skew).symmetric and not stats(skew).equal_values
