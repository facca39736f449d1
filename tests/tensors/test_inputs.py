"""Sparse tensors of one to five modes as arguments: SciPy's COO, SparseArray, and other libraries' tensors."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp

import polyai as pa
from polyai.errors import DTypeError, PolyAIError, ShapeError, SparseStructureError, UnsupportedError
from polyai.sparse import foreign, interop
from polyai.sparse.format import csf

SHAPES = [(7,), (5, 6), (5, 4, 6), (3, 4, 2, 5), (3, 2, 4, 2, 3)]


def random(shape: tuple[int, ...], density: float = 0.3, seed: int = 0, dtype: Any = np.float64) -> np.ndarray[Any, Any]:
    rng = np.random.default_rng(seed)
    out: np.ndarray[Any, Any] = np.where(rng.random(shape) < density, rng.standard_normal(shape), 0).astype(dtype)
    return out


@dataclass
class Listed:
    """What pydata/sparse's COO looks like."""

    coords: np.ndarray[Any, Any]
    data: np.ndarray[Any, Any]
    shape: tuple[int, ...]
    fill_value: float = 0.0


def listed(dense: np.ndarray[Any, Any]) -> Listed:
    found = np.nonzero(dense)
    return Listed(np.array(found), dense[found], dense.shape)


@pa.jit
def total(A):
    return A.sum()


@pa.jit
def last_times(A, x):
    return pa.einsum("...a,a->...", A, x)


def test_fill_values_are_read() -> None:
    assert total(Listed(np.zeros((2, 1), int), np.full(1, 5.0), (2, 2), 1.0)) == 8.0


@pytest.mark.parametrize("shape", SHAPES, ids=len)
@pytest.mark.parametrize("index", [np.int32, np.int64])
def test_coo_of_any_rank_is_read_in_place(shape: tuple[int, ...], index: Any) -> None:
    D, x = random(shape), np.random.default_rng(1).standard_normal(shape[-1])
    found = np.nonzero(D)
    A = sp.coo_array((D[found], tuple(c.astype(index) for c in found)), shape=shape)
    A.coords = tuple(c.astype(index) for c in A.coords)
    before = pa.stats()
    np.testing.assert_allclose(np.asarray(last_times(A, x)), D @ x, atol=1e-12)
    np.testing.assert_allclose(total(A), D.sum(), atol=1e-12)
    after = pa.stats()
    assert (after["conversions"], after["copies"]) == (before["conversions"], before["copies"])
    described = interop.describe(A)
    assert described is not None and described.format.index_bits == np.dtype(index).itemsize * 8
    arrays = interop.arrays_of(A, described)
    assert all(np.shares_memory(arrays[f"crd{n}"], c) for n, c in enumerate(A.coords)) and np.shares_memory(arrays["val"], A.data)


@pytest.mark.parametrize("shape", SHAPES, ids=len)
def test_results_along_a_pattern_keep_its_format(shape: tuple[int, ...]) -> None:
    D = random(shape)
    A = sp.coo_array(D)
    turned = pa.jit(lambda A: pa.relu(A.T * 2.0))
    for given in (A, pa.sparse_array(D, "csf"), listed(D)):
        got = turned(given)
        np.testing.assert_array_equal(got.toarray(), np.maximum(2 * D.T, 0))
        assert isinstance(got, sp.coo_array if given is A else pa.SparseArray)


def test_unsorted_entries_and_duplicates_add_up() -> None:
    rng = np.random.default_rng(2)
    shape = (4, 3, 5)
    coords = tuple(rng.integers(0, n, 60) for n in shape)
    values = rng.standard_normal(60)
    D = np.zeros(shape)
    np.add.at(D, coords, values)
    B, C = rng.standard_normal((3, 6)), rng.standard_normal((5, 6))
    f = pa.jit(lambda A, B, C: (pa.einsum("ijk,jr,kr->ir", A, B, C), A.sum(0), A.toarray()))
    for given in (sp.coo_array((values, coords), shape=shape), Listed(np.array(coords), values, shape)):
        first, second, third = f(given, B, C)
        np.testing.assert_allclose(first, np.einsum("ijk,jr,kr->ir", D, B, C), atol=1e-12)
        np.testing.assert_allclose(second, D.sum(0), atol=1e-12)
        np.testing.assert_allclose(third, D, atol=1e-12)
        with pytest.raises(SparseStructureError, match="more than once"):
            pa.jit(lambda A: pa.relu(A))(given)


def test_duplicates_of_a_vector_add_up() -> None:
    coords, values = np.array([2, 0, 2, 2]), np.array([1.0, 2.0, 3.0, 4.0])
    x = sp.coo_array((values, (coords,)), shape=(4,))
    y = np.arange(3.0)
    np.testing.assert_array_equal(pa.einsum("i,j->ij", x, y), np.outer([2, 0, 8, 0], y))


@pytest.mark.parametrize("level", [0, 1, 2])
@pytest.mark.parametrize("kind", ["scipy", "csf", "listed"])
@pytest.mark.parametrize("bad", [-1, 100])
def test_indices_out_of_range_are_refused(kind: str, level: int, bad: int) -> None:
    D = random((5, 4, 6))
    B, C = np.ones((4, 3)), np.ones((6, 3))
    f = pa.jit(lambda A, B, C: pa.einsum("ijk,jr,kr->ir", A, B, C))
    A: Any = {"scipy": sp.coo_array, "csf": lambda d: pa.sparse_array(d, "csf"), "listed": listed}[kind](D)
    f(A, B, C)
    crd = {"scipy": lambda: A.coords[level], "csf": lambda: A.storage.arrays[f"crd{level}"], "listed": lambda: A.coords[level]}[kind]()
    crd[0] = bad
    with pytest.raises(SparseStructureError, match=f"{bad}"):
        f(A, B, C)


@pytest.mark.parametrize("name", ["pos0", "pos1", "pos2"])
def test_positions_changed_in_place_are_refused(name: str) -> None:
    A = pa.sparse_array(random((5, 4, 6)), "csf")
    total(A)
    for bad in (-3, 1 << 30):
        changed = pa.SparseArray(A.format, A.shape, {n: a.copy() for n, a in A.storage.arrays.items()})
        for at in (-1, 0):
            changed.storage.arrays[name][at] = bad
            with pytest.raises(SparseStructureError):
                total(changed)


@pytest.mark.parametrize("shape", [(0,), (0, 3), (3, 0, 2), (1, 1, 1), (2, 1, 0, 1), (1, 1, 1, 1, 1)])
def test_sizes_zero_and_one(shape: tuple[int, ...]) -> None:
    D = np.ones(shape)
    for given in (sp.coo_array(D), pa.sparse_array(D, "csf"), pa.sparse_array(np.zeros(shape), "csf", shape=shape)):
        want = given.toarray()
        np.testing.assert_array_equal(pa.einsum("...a,a->...", given, np.ones(shape[-1])), want @ np.ones(shape[-1]))
        assert total(given) == want.sum()


def test_sparse_array_takes_what_people_have() -> None:
    D = random((3, 4, 5))
    found = np.nonzero(D)
    conversions = pa.stats()["conversions"]
    made = [
        pa.sparse_array((D[found], found), shape=D.shape),
        pa.sparse_array(D),
        pa.sparse_array(sp.coo_array(D)),
        pa.sparse_array(listed(D)),
        pa.sparse_array(pa.sparse_array(D, "csf"), "coo"),
    ]
    assert pa.stats()["conversions"] == conversions + 6
    assert all(m.format.name == "coo" and m.format.index_bits == 32 for m in made)
    for m in made:
        np.testing.assert_array_equal(m.toarray(), D)
    for order in itertools.permutations(range(3)):
        A = pa.asformat(made[0], "csf", order=order)
        assert A.format == csf(3, 32, order)
        np.testing.assert_array_equal(A.toarray(), D)
    assert pa.asformat(A, "csf", order=order) is A
    for name in ("csl", "csr"):
        B = pa.asformat(made[0], name, order=(2, 0, 1))
        assert B.format.name == {"csl": "csl", "csr": "rows"}[name] and B.format.order == (2, 0, 1)
        np.testing.assert_array_equal(B.toarray(), D)
    for name in ("csr", "csc", "dcsr"):
        assert pa.sparse_array(D[0], name).format.name == name
    assert pa.sparse_array(([1.0], ([2], [3]))).shape == (3, 4)
    assert pa.sparse_array(([1.0], ([2], [3])), index_bits=64).format.index_bits == 64


@pytest.mark.parametrize(
    ("call", "error", "what"),
    [
        (lambda: pa.sparse_array(([1.0], ([3],)), shape=(3,)), ShapeError, "coordinate 3"),
        (lambda: pa.sparse_array(([1.0], ([-1],)), shape=(3,)), ShapeError, "coordinate -1"),
        (lambda: pa.sparse_array(([1.0], ([0.5],))), SparseStructureError, "coordinates of type float64"),
        (lambda: pa.sparse_array(([1.0, 2.0], ([0],)), shape=(3,)), ShapeError, "has shape (1,)"),
        (lambda: pa.sparse_array(([1.0], ())), ShapeError, "without dimensions"),
        (lambda: pa.sparse_array(1.0), ShapeError, "without dimensions"),
        (lambda: pa.sparse_array(np.ones((2, 2)), shape=(3, 2)), ShapeError, "shape=(3, 2)"),
        (lambda: pa.sparse_array(np.ones((2, 2)), "elephant"), UnsupportedError, "elephant"),
        (lambda: pa.sparse_array(np.ones((2, 2, 2)), "csc"), UnsupportedError, "3 dimensions"),
        (lambda: pa.sparse_array(np.ones((2, 2)), "csf", order=(0, 0)), UnsupportedError, "order=(0, 0)"),
        (lambda: pa.sparse_array(np.ones((2, 2)), "coo", order=(1, 0)), UnsupportedError, "order=(1, 0)"),
        (lambda: pa.sparse_array(np.array(["a", "b"])), DTypeError, ""),
        (lambda: total(Listed(np.zeros((2, 2), int), np.ones(1), (2, 2))), SparseStructureError, "do not fit together"),
        (lambda: total(Listed(np.zeros((0, 1), int), np.ones(1), ())), UnsupportedError, "without dimensions"),
        (lambda: last_times(Listed(np.full((2, 1), 7), np.ones(1), (2, 2)), np.ones(2)), SparseStructureError, "7"),
    ],
)
def test_bad_input_is_refused_in_words(call: Any, error: type[PolyAIError], what: str) -> None:
    with pytest.raises(error) as caught:
        call()
    assert what in str(caught.value)


@pytest.mark.parametrize(
    "call",
    [lambda A: A[0], lambda A: A[:, 1:], lambda A: A[np.array([0, 1])], lambda A: A.reshape(-1), lambda A: pa.concatenate([A, A]), lambda A: pa.exp(A), lambda A: A + 1.0],
)
def test_what_is_not_compiled_for_tensors_says_so(call: Any) -> None:
    for A in (sp.coo_array(random((3, 4, 5))), pa.sparse_array(random((3, 4, 5)), "csf")):
        with pytest.raises(PolyAIError):
            pa.jit(call)(A)


def test_a_listed_tensor_shares_its_memory() -> None:
    given = listed(random((3, 4, 5)))
    stored = foreign.adopt(given)
    assert stored is not None and np.shares_memory(stored.values, given.data)
    assert all(np.shares_memory(stored.arrays[f"crd{n}"], given.coords) for n in range(3))
    assert not foreign.is_foreign(np.ones(3)) and not foreign.is_foreign(sp.coo_array(np.ones((2, 2, 2)))) and foreign.adopt(3) is None


@pytest.mark.filterwarnings("ignore:Sparse")
class TestTorch:
    """Sparse tensors of PyTorch, where it is installed."""

    torch = pytest.importorskip("torch")

    def test_coo(self) -> None:
        for shape in SHAPES:
            D = random(shape)
            A = self.torch.from_numpy(D).to_sparse()
            x = np.random.default_rng(3).standard_normal(shape[-1])
            np.testing.assert_allclose(last_times(A, x), D @ x, atol=1e-12)
            stored = foreign.adopt(A)
            assert stored is not None and stored.arrays["val"].ctypes.data == A._values().data_ptr()

    def test_entries_that_are_not_coalesced_add_up(self) -> None:
        A = self.torch.sparse_coo_tensor(np.array([[0, 0, 1], [1, 1, 2]]), np.array([1.0, 2.0, 4.0]), (2, 3))
        np.testing.assert_array_equal(last_times(A, np.array([1.0, 10.0, 100.0])), [30.0, 400.0])

    @pytest.mark.parametrize("layout", ["csr", "csc"])
    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    def test_matrices(self, layout: str, dtype: Any) -> None:
        D = random((5, 6), dtype=dtype)
        A = getattr(self.torch.from_numpy(D), f"to_sparse_{layout}")()
        X = random((6, 4), 1.0, dtype=dtype)
        got = pa.jit(lambda A, X: pa.relu(A @ X))(A, X)
        np.testing.assert_allclose(got, np.maximum(D @ X, 0), rtol=1e-5, atol=1e-6)
        scaled = pa.jit(lambda A: A * 2.0)(A)
        np.testing.assert_array_equal(scaled.toarray(), 2 * D)
        assert scaled.format.name == layout

    def test_what_is_refused(self) -> None:
        torch = self.torch
        for tensor in (
            torch.ones((4, 4)).to_sparse_bsr((2, 2)),
            torch.ones((2, 3, 4)).to_sparse(2),
            torch.ones((2, 4, 4)).to_sparse_csr(),
        ):
            with pytest.raises(UnsupportedError):
                total(tensor)
