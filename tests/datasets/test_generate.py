import numpy as np
import pytest

from polyai.datasets import bigbird, digits, flights, load_demo, rmat, stencil
from polyai.errors import OptionError, ShapeError
from polyai.sparse.ordering import has_duplicates, is_sorted
from polyai.sparse.stats import stats


@pytest.mark.parametrize("make", [lambda: rmat(9), lambda: bigbird(333), lambda: stencil(27, (4, 5, 6))])
def test_seeded_and_canonical(make):
    a, b = make(), make()
    assert (a != b).nnz == 0 and a.nnz
    assert is_sorted(a) and not has_duplicates(a) and a.indices.dtype == np.int32


def test_rmat():
    a = rmat(10, 5000, seed=3)
    assert a.shape == (1024, 1024) and 3500 < a.nnz <= 5000 and a.dtype == np.float32
    assert (rmat(10, 5000, seed=4) != a).nnz
    assert stats(a).gini > 0.5 > stats(rmat(10, 5000, probabilities=(0.25, 0.25, 0.25))).gini
    assert rmat(0).shape == (1, 1) and rmat(4, 0).nnz == 0
    with pytest.raises(OptionError, match="rmat"):
        rmat(5, probabilities=(0.6, 0.3, 0.3))


def test_bigbird():
    pattern = bigbird(100, block=8, window=3, global_blocks=1, random_blocks=0).toarray()
    block = np.arange(100) // 8
    want = (abs(block[:, None] - block) <= 1) | (block[:, None] == 0) | (block == 0)
    np.testing.assert_array_equal(pattern, want)
    rows = np.diff(bigbird(1000, random_blocks=3).indptr)
    assert (rows > 0).all() and rows[-1] > np.diff(bigbird(1000, random_blocks=0).indptr)[-1]
    assert bigbird(0).shape == (0, 0) and bigbird(1).toarray().tolist() == [[1]]
    with pytest.raises(OptionError, match="bigbird"):
        bigbird(10, block=0)


@pytest.mark.parametrize(("points", "shape"), [(3, (7,)), (5, (3, 4)), (9, (4, 3)), (7, (2, 3, 4)), (27, (3, 3, 3)), (5, (1, 1)), (5, (0, 4))])
def test_stencils_against_loops(points, shape):
    total, corners = int(np.prod(shape)), points in (9, 27)
    want = np.zeros((total, total))
    cells = list(np.ndindex(shape))
    for p, x in enumerate(cells):
        for q, y in enumerate(cells):
            distance = np.abs(np.subtract(x, y))
            if p == q:
                want[p, q] = points - 1
            elif distance.max() <= 1 and (corners or distance.sum() == 1):
                want[p, q] = -1
    np.testing.assert_array_equal(stencil(points, shape).toarray(), want)


def test_stencil_refuses():
    with pytest.raises(OptionError, match="points is one of"):
        stencil(6, (3, 3))
    with pytest.raises(ShapeError, match="2 dimensions"):
        stencil(5, (3, 3, 3))


def test_shipped():
    graph = digits()
    a = graph.adjacency
    assert a.shape == (1797, 1797) and (abs(a - a.T) > 0).nnz == 0 and a.diagonal().sum() == 0
    assert a.data.min() > 0 and a.data.max() <= 1 and np.diff(a.indptr).min() >= 10
    assert graph.features.shape == (1797, 64) and graph.features.max() == 16 and np.bincount(graph.labels).tolist() == [
        178, 182, 177, 183, 181, 182, 181, 179, 174, 180,
    ]  # fmt: skip
    row, column = a.nonzero()
    assert (graph.labels[row] == graph.labels[column]).mean() > 0.95
    planes = flights()
    assert planes.shape == (4043, 3843) and planes.sum() == 334264 and planes.dtype == np.uint16


def test_demo_matrices():
    found = load_demo()
    assert len(found) == 5
    for matrix in found.values():
        assert matrix.dtype == np.float32 and matrix.format == "csr" and not has_duplicates(matrix)
