"""Sparse arrays of three and more dimensions that meet: sums, products, mixtures, against dense NumPy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from numpy.typing import NDArray

import polyai as pa
from polyai.errors import ShapeError, SparseStructureError, UnsupportedError
from polyai.sparse.lists import as_lists, is_ordered

Array = NDArray[Any]


def tensor(shape: tuple[int, ...], seed: int, density: float = 0.2) -> Array:
    rng = np.random.default_rng(seed)
    return rng.standard_normal(shape) * (rng.random(shape) < density)


FUNCTIONS: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "sum": (lambda x, y, z: x + y, lambda x, y, z: x + y),
    "difference": (lambda x, y, z: x - 2 * y, lambda x, y, z: x - 2 * y),
    "product": (lambda x, y, z: x * y, lambda x, y, z: x * y),
    "mixture": (lambda x, y, z: (x + y) * z, lambda x, y, z: (x + y) * z),
    "three": (lambda x, y, z: x + y + z * x, lambda x, y, z: x + y + z * x),
    "four": (lambda x, y, z: pa.maximum(x, y) + pa.minimum(z, x * 2), lambda x, y, z: np.maximum(x, y) + np.minimum(z, 2 * x)),
    "mapped": (lambda x, y, z: pa.relu(x - y), lambda x, y, z: np.maximum(x - y, 0)),
    "compared": (lambda x, y, z: (x != 0) | (y != 0), lambda x, y, z: (x != 0) | (y != 0)),
}
SHAPES = [(3, 4, 5), (1, 6, 7), (6, 1, 1), (0, 3, 2), (2, 0, 3), (2, 3, 4, 5), (2, 1, 3, 2, 2)]


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_element_wise_results_are_those_of_dense_arrays(name: str, shape: tuple[int, ...]) -> None:
    ours, theirs = FUNCTIONS[name]
    dense = [tensor(shape, seed) for seed in range(3)]
    found = pa.jit(ours)(*map(sp.coo_array, dense))
    assert found.format == "coo" and found.has_canonical_format
    np.testing.assert_allclose(found.toarray(), theirs(*dense), atol=1e-14)


def test_the_union_stores_what_either_stores_in_order() -> None:
    A, B = tensor((4, 5, 6), 0), tensor((4, 5, 6), 1)
    found = pa.jit(lambda x, y: x + y)(sp.coo_array(A), sp.coo_array(B))
    np.testing.assert_array_equal(np.stack(found.coords), np.stack(np.nonzero((A != 0) | (B != 0))))
    both = pa.jit(lambda x, y: x * y)(sp.coo_array(A), sp.coo_array(B))
    np.testing.assert_array_equal(np.stack(both.coords), np.stack(np.nonzero((A != 0) & (B != 0))))


@pytest.mark.parametrize("left", ["coo", "csf", "csl", "csr"])
@pytest.mark.parametrize("right", ["coo", "csf"])
def test_any_formats_meet(left: str, right: str) -> None:
    A, B = tensor((5, 4, 3), 0), tensor((5, 4, 3), 1)
    found = pa.jit(lambda x, y: x + y)(pa.sparse_array(A, left), pa.sparse_array(B, right))
    assert isinstance(found, pa.SparseArray) and found.format.name == "rows"
    np.testing.assert_allclose(found.toarray(), A + B)
    assert pa.SparseArray(found.format, found.shape, found.storage.arrays).nnz == found.nnz  # what the constructor checks holds


def test_a_sum_is_read_on_where_it_was_made() -> None:
    A, B, D = tensor((5, 4, 3), 0), tensor((5, 4, 3), 1), tensor((5, 4, 3), 2, 1.0)
    P, Q = tensor((4, 2), 3, 1.0), tensor((3, 2), 4, 1.0)
    a, b = sp.coo_array(A), sp.coo_array(B)
    np.testing.assert_allclose(pa.jit(lambda x, y: pa.sum(x + y, axis=2))(a, b), (A + B).sum(2))
    np.testing.assert_allclose(pa.jit(lambda x, y, d: (x + y) * d)(a, b, D).toarray(), (A + B) * D)
    ours = pa.jit(lambda x, y, p, q: pa.einsum("ijk,jr,kr->ir", x + y, p, q))(a, b, P, Q)
    np.testing.assert_allclose(ours, np.einsum("ijk,jr,kr->ir", A + B, P, Q), atol=1e-12)


def test_transposed_results_have_the_order_of_their_axes() -> None:
    A, B = tensor((5, 4, 3), 0), tensor((5, 4, 3), 1)
    found = pa.jit(lambda x, y: (x + y).transpose(2, 0, 1))(sp.coo_array(A), sp.coo_array(B))
    np.testing.assert_allclose(found.toarray(), (A + B).transpose(2, 0, 1))


def test_lists_out_of_order_are_sorted_and_repeats_add_up() -> None:
    coords = (np.array([2, 0, 2, 0]), np.array([1, 1, 1, 3]), np.array([0, 2, 0, 1]))
    loose = sp.coo_array((np.array([1.0, 2.0, 4.0, 8.0]), coords), shape=(3, 4, 3))
    B = tensor((3, 4, 3), 1)
    found = pa.jit(lambda x, y: x + y)(loose, sp.coo_array(B))
    np.testing.assert_allclose(found.toarray(), loose.toarray() + B)
    assert found.has_canonical_format and loose.coords[0].tolist() == [2, 0, 2, 0]


def test_conversions_are_counted_and_slices_need_none() -> None:
    A, B = tensor((4, 3, 3), 0), tensor((4, 3, 3), 1)
    total = pa.jit(lambda x, y: x + y)
    before = pa.stats()["conversions"]
    total(sp.coo_array(A), sp.coo_array(B))
    assert pa.stats()["conversions"] == before + 2
    x, y = pa.sparse_array(A, "csr"), pa.sparse_array(B, "csr")
    before = pa.stats()["conversions"]
    total(x, y)
    assert pa.stats()["conversions"] == before


@pytest.mark.parametrize(("array", "value"), [("crd1", 99), ("crd1", -1), ("crd2", 77), ("crd2", -(2**31)), ("pos1", 10**6), ("pos1", -3)])
@pytest.mark.parametrize("function", ["sum", "product"])
def test_arrays_that_were_broken_in_place_are_errors(function: str, array: str, value: int) -> None:
    A, B = tensor((4, 5, 6), 0, 0.5), tensor((4, 5, 6), 1, 0.5)
    fn = pa.jit(FUNCTIONS[function][0])
    x, y, z = (pa.sparse_array(d, "csr") for d in (A, B, A))
    fn(x, y, z)
    x.storage.arrays[array][2] = value
    with pytest.raises(SparseStructureError):
        fn(x, y, z)


def test_coordinates_outside_a_coo_array_are_errors() -> None:
    A, B = sp.coo_array(tensor((4, 5, 6), 0)), sp.coo_array(tensor((4, 5, 6), 1))
    total = pa.jit(lambda x, y: x + y)
    total(A, B)
    A.coords[2][0] = 6
    with pytest.raises(SparseStructureError, match=r"coords\[2\]"):
        total(A, B)


def test_a_list_swapped_in_place_is_sorted_in_a_copy() -> None:
    A, B = tensor((2, 5, 6), 0, 0.5), tensor((2, 5, 6), 1, 0.5)
    total = pa.jit(lambda x, y: x + y)
    x, y = pa.sparse_array(A, "csr"), pa.sparse_array(B, "csr")
    for name in ("crd1", "crd2", "val"):
        x.storage.arrays[name][:2] = x.storage.arrays[name][1::-1].copy()
    before = pa.stats()["copies"]
    np.testing.assert_allclose(total(x, y).toarray(), A + B)
    assert pa.stats()["copies"] == before + 1


def test_more_places_than_numbers_is_an_error() -> None:
    huge = sp.coo_array((np.ones(1), (np.zeros(1, np.int64),) * 3), shape=(2, 2**40, 2**40))
    with pytest.raises(ShapeError, match="64-bit"):
        pa.jit(lambda x, y: x + y)(huge, huge * 2)


@pytest.mark.parametrize("format", ["coo", "csr", "csf"])
def test_orders_that_differ_are_brought_together(format: str) -> None:
    A, B = tensor((4, 3, 5), 0), tensor((5, 4, 3), 1)
    x, y = pa.sparse_array(A, format), pa.sparse_array(B, format)
    np.testing.assert_allclose(pa.jit(lambda x, y: x.transpose(2, 0, 1) + y)(x, y).toarray(), A.transpose(2, 0, 1) + B)
    found = pa.jit(lambda x, y: x.transpose(2, 0, 1) * y)(sp.coo_array(A), sp.coo_array(B))
    np.testing.assert_allclose(found.toarray(), A.transpose(2, 0, 1) * B)
    assert found.has_canonical_format


def test_two_orders_of_one_array_are_refused() -> None:
    A, B = sp.coo_array(tensor((4, 4, 4), 0)), sp.coo_array(tensor((4, 4, 4), 1))
    with pytest.raises(UnsupportedError, match="another order"):
        pa.jit(lambda x, y: (x + y) * (x.transpose(2, 1, 0) + y))(A, B)


def test_shapes_that_differ_are_refused() -> None:
    with pytest.raises((ShapeError, UnsupportedError)):
        pa.jit(lambda x, y: x + y)(sp.coo_array(tensor((4, 4, 4), 0)), sp.coo_array(tensor((4, 4, 5), 1)))


def test_wide_indices_stay_wide() -> None:
    A, B = sp.coo_array(tensor((4, 5, 6), 0)), sp.coo_array(tensor((4, 5, 6), 1))
    A.coords = tuple(c.astype(np.int64) for c in A.coords)
    found = pa.jit(lambda x, y: x + y)(pa.sparse_array(A, "csr", index_bits=64), pa.sparse_array(B, "csr"))
    assert found.format.index_bits == 64


def test_a_handle_keeps_the_pattern() -> None:
    A, B = tensor((4, 5, 6), 0), tensor((4, 5, 6), 1)
    handle = pa.pattern(lambda x, y: x + y, sp.coo_array(A), sp.coo_array(B))
    for factor in (1.0, 2.0, -3.0):
        np.testing.assert_allclose(handle(sp.coo_array(factor * A), sp.coo_array(B)).toarray(), factor * A + B)
    with pytest.raises(SparseStructureError):
        handle(sp.coo_array(B), sp.coo_array(A))


def test_threads_do_not_change_a_bit() -> None:
    A, B = tensor((40, 30, 50), 0), tensor((40, 30, 50), 1)
    total = pa.jit(lambda x, y: x * 1.7 + y)
    found = []
    for threads in (1, 2):
        with pa.options(num_threads=threads):
            found.append(total(sp.coo_array(A), sp.coo_array(B)))
    assert found[0].data.tobytes() == found[1].data.tobytes()
    np.testing.assert_allclose(found[0].toarray(), 1.7 * A + B)


def test_lists_of_any_order() -> None:
    rng = np.random.default_rng(0)
    coords = tuple(rng.integers(0, n, 50).astype(np.int32) for n in (3, 4, 5))
    values = rng.random(50)
    assert not is_ordered((3, 4, 5), coords)
    dense = np.zeros((3, 4, 5))
    np.add.at(dense, coords, values)
    made = as_lists((3, 4, 5), coords, values, (0, 1, 2))
    again = pa.SparseArray(made.format, made.shape, made.arrays)
    np.testing.assert_allclose(again.toarray(), dense)
    apart = tuple(c.astype(np.int32) for c in np.nonzero(dense))
    assert is_ordered((3, 4, 5), apart) and is_ordered((2**40, 2**40, 2**40), apart)
    assert not is_ordered((2**40, 2**40, 2**40), coords)
