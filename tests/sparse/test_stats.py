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
