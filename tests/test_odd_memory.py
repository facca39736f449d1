"""Calls with arrays that lie oddly in memory: strided, unaligned, read-only, shared with results, larger than 32 bits count."""

from __future__ import annotations

import mmap
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp

import polyai as pa
from polyai.errors import (
    AliasError,
    DTypeError,
    PolyAIError,
    ShapeError,
    SparseStructureError,
)
from tests.malformed import KINDS, dense
from tests.test_bad_input import FUNCTIONS, matrix

RNG = np.random.default_rng(32)
spmm, spmv = FUNCTIONS["spmm"], FUNCTIONS["spmv"]


def x(*shape: int) -> Any:
    return RNG.standard_normal(shape)


# --- layouts of memory -----------------------------------------------------------------------------------------------------------


def _unaligned(a: Any) -> Any:
    raw = np.zeros(a.nbytes + 1, np.uint8)[1:].view(a.dtype).reshape(a.shape)
    raw[...] = a
    return raw


def _read_only(a: Any) -> Any:
    a = a.copy()
    a.flags.writeable = False
    return a


class Marked(np.ndarray):
    """A subclass that adds nothing."""


LAYOUTS: dict[str, tuple[Callable[[Any], Any], int]] = {
    "contiguous": (lambda a: a.copy(), 0), "Fortran": (np.asfortranarray, 1), "strided": (lambda a: np.repeat(np.repeat(a, 2, 0), 3, 1)[::2, ::3], 1),
    "backwards": (lambda a: a[::-1].copy()[::-1], 1), "other byte order": (lambda a: a.astype(a.dtype.newbyteorder()), 1), "unaligned": (_unaligned, 1),
    "read-only": (_read_only, 0), "subclass": (lambda a: a.copy().view(Marked), 0), "a part": (lambda a: np.vstack([a, a])[len(a) :], 0),
    "stretched": (lambda a: np.broadcast_to(a[:1], a.shape), 1),
}  # fmt: skip


@pytest.mark.parametrize("layout", list(LAYOUTS))
def test_layouts_of_memory(layout: str) -> None:
    change, copies = LAYOUTS[layout]
    a, operand = matrix().build(), change(x(5, 4))
    plain = np.array(operand, np.float64)
    sums = pa.jit(lambda x: x.sum(axis=0) + x[0])
    for _ in range(3):
        before = pa.stats()["copies"]
        np.testing.assert_allclose(spmm(a, operand), a @ plain)
        np.testing.assert_allclose(sums(operand), plain.sum(axis=0) + plain[0])
        assert pa.stats()["copies"] - before == 2 * copies
    np.testing.assert_array_equal(operand, plain)


@pytest.mark.parametrize("layout", ["Fortran", "strided", "backwards", "other byte order", "unaligned"])
def test_calls_with_copies_are_native(layout: str) -> None:
    a, operand = matrix().build(), LAYOUTS[layout][0](x(5, 4))
    product = pa.jit(lambda a, x: a @ x)
    for _ in range(5):
        np.testing.assert_allclose(product(a, operand), a @ np.array(operand, np.float64))
    assert product.report().fast >= 3
    with pytest.raises(pa.errors.ShapeError):
        product(a, LAYOUTS[layout][0](x(4, 4)))


@pytest.mark.parametrize("layout", ["strided", "other byte order", "unaligned", "read-only"])
def test_layouts_of_index_arrays(layout: str) -> None:
    change, _ = LAYOUTS[layout]
    for kind in KINDS:
        parts, operand = matrix(kind=kind), x(5, 3)
        want = dense(parts.build()) @ operand
        for name in ("values", "minor", "pointers", "major"):
            array = getattr(parts, name)
            if array is not None:
                setattr(parts, name, change(array[None])[0])
        for _ in range(2):
            np.testing.assert_allclose(spmm(parts.build(), operand), want)


# --- results and arguments that share memory -----------------------------------------------------------------------------------


def test_out_may_be_an_argument() -> None:
    shifted = pa.jit(lambda a, b: a[::-1] + b)
    a, b = x(40, 7), x(40, 7)
    want = a[::-1] + b
    for target in ("a", "b"):
        given = {"a": a.copy(), "b": b.copy()}
        got = shifted(given["a"], given["b"], out=given[target])
        assert got is given[target]
        np.testing.assert_allclose(got, want)
    big = np.zeros((50, 7))
    big[:40] = a
    np.testing.assert_allclose(shifted(big[:40], b, out=big[5:45]), want)


def test_out_may_share_memory_with_a_matrix() -> None:
    parts = matrix(5, 5)
    memory = np.zeros((5, 5))
    memory.ravel()[: len(parts.values)] = parts.values
    want = dense(parts.build()) @ np.eye(5)
    parts.values = memory.ravel()[: len(parts.values)]
    assert spmm(parts.build(), np.eye(5), out=memory) is memory
    np.testing.assert_allclose(memory, want)


def test_out_that_is_an_argument_survives_sorting() -> None:
    """The kernel stops where the order of coordinates is wrong, and runs again on a sorted copy."""
    function = FUNCTIONS["relu"]
    parts = matrix(40, 40, seed=3)
    last = slice(parts.pointers[-2], parts.pointers[-1])
    assert last.stop - last.start > 1
    operand = x(40, 40)
    want = np.maximum(dense(parts.build()), 0) @ operand
    parts.values[last], parts.minor[last] = parts.values[last][::-1].copy(), parts.minor[last][::-1].copy()
    got = function(parts.build(), operand, out=operand)
    np.testing.assert_allclose(got, want)


def test_one_array_as_two_arguments() -> None:
    a = x(9, 9)
    np.testing.assert_allclose(pa.jit(lambda a, b: a @ b + a * b)(a, a), a @ a + a * a)
    s = matrix(5, 5).build()
    np.testing.assert_allclose(spmv(s, s.data[:5]), s @ s.data[:5])


def test_out_that_does_not_fit() -> None:
    a, operand = matrix().build(), x(5, 3)
    frozen = np.empty((6, 3))
    frozen.flags.writeable = False
    for out, error, text in [
        (np.empty((6, 4)), ShapeError, r"out has shape \(6, 4\)\n  why: the result has shape \(6, 3\)"), (np.empty(18), ShapeError, "out has shape"),
        (np.empty((6, 3), np.float32), DTypeError, "out has dtype float32"), (np.empty((6, 3), ">f8"), DTypeError, "out has dtype >f8"),
        (np.empty((3, 6)).T, ShapeError, "out is not contiguous"), (frozen, AliasError, "out is read-only"), ([1.0], DTypeError, "out is a float"),
        (np.broadcast_to(np.zeros(3), (6, 3)), PolyAIError, "out is"), ((np.empty((6, 3)), np.empty((6, 3))), ShapeError, "out has 2 arrays"),
        (np.ma.masked_array(np.empty((6, 3))), DTypeError, "out is a MaskedArray"),
    ]:  # fmt: skip
        with pytest.raises(error, match=text):
            spmm(a, operand, out=out)
    both = np.empty((6, 3))
    with pytest.raises(AliasError, match="two outputs share memory"):
        pa.jit(lambda x: (x * 2, x * 3))(x(6, 3), out=(both, both))
    with pytest.raises(ShapeError, match="out cannot receive a sparse result"):
        pa.jit(lambda a: a * 2)(a, out=np.empty((6, 5)))


def test_results_do_not_share_memory_with_arguments() -> None:
    a, s = x(4, 4), matrix().build()
    got = pa.jit(lambda a: (a, a.reshape(16), a[:2], a.T))(a)
    assert not any(np.shares_memory(g, a) for g in got)
    doubled, same = pa.jit(lambda s: (s * 2, s))(s)
    for result in (doubled, same):
        assert not any(np.shares_memory(getattr(result, n), getattr(s, n)) for n in ("data", "indices", "indptr"))


# --- more than 2**31 ------------------------------------------------------------------------------------------------------------


MAP_NORESERVE = 0x4000


def reserved(shape: tuple[int, ...], dtype: Any) -> Any:
    """Zeros that take memory only where they are written."""
    count = int(np.prod(shape, dtype=np.int64))
    memory = mmap.mmap(-1, count * np.dtype(dtype).itemsize, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_NORESERVE)
    return np.frombuffer(memory, dtype, count).reshape(shape)


big = pytest.mark.usefixtures("sixty_four_bits")


@pytest.fixture
def sixty_four_bits() -> None:
    assert sys.platform == "linux" and sys.maxsize > 2**40


@big
def test_sparse_matrices_with_more_columns_than_memory() -> None:
    wide = sp.csr_array((np.array([1.0, -2.0, 4.0, 3.0]), np.array([5, 2**40 - 1, 7, 2**33], np.int64), np.array([0, 2, 2, 4], np.int64)), shape=(3, 2**40))
    sums = pa.jit(lambda a: (a.sum(axis=1), a.sum(), a * 2, pa.relu(a)))
    rows, total, doubled, positive = sums(wide)
    np.testing.assert_allclose(rows, [-1.0, 0.0, 7.0])
    assert total == 6.0 and doubled.shape == (3, 2**40)
    np.testing.assert_array_equal(doubled.data, 2 * wide.data)
    np.testing.assert_array_equal(doubled.indices, wide.indices)
    np.testing.assert_array_equal(positive.data, [1.0, 0.0, 4.0, 3.0])
    tall = wide.T.tocsc()
    np.testing.assert_allclose(pa.jit(lambda a: a.sum(axis=0))(tall), [-1.0, 0.0, 7.0])
    both = sp.coo_array((np.ones(2), (np.array([2**41, 3]), np.array([0, 2**42]))), shape=(2**42, 2**43))
    assert pa.jit(lambda a: a.sum())(both) == 2.0
    wide.indices[1] = 2**40
    with pytest.raises(SparseStructureError):
        sums(wide)


@big
@pytest.mark.parametrize("index", [np.int32, np.int64])
def test_offsets_beyond_32_bits(index: Any) -> None:
    columns = 2**28 + 11
    operand = reserved((columns, 9), np.float32)  # 2**31 elements and more
    places = np.array([0, 2**27, columns - 2, columns - 1])
    operand[places] = x(4, 9)
    a = sp.csr_array((np.arange(1.0, 7.0, dtype=np.float32), places[[0, 2, 3, 1, 2, 3]].astype(index), np.array([0, 3, 3, 6], index)), shape=(3, columns))
    a.indices, a.indptr = a.indices.astype(index), a.indptr.astype(index)
    small = sp.csr_array((a.data, np.searchsorted(places, a.indices), a.indptr), shape=(3, 4))
    np.testing.assert_allclose(spmm(a, operand), small @ operand[places], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(spmv(a, operand.reshape(-1)[:columns]), _rows(a, operand.reshape(-1)), rtol=1e-5, atol=1e-6)
    taken = pa.jit(lambda t, i: t[i])(operand, places.astype(index))
    np.testing.assert_array_equal(taken, operand[places])
    a.indices[-1] = columns
    with pytest.raises(SparseStructureError):
        spmm(a, operand)


def _rows(a: Any, v: Any) -> Any:
    return np.array([(a.data[s:e] * v[a.indices[s:e]]).sum() for s, e in zip(a.indptr, a.indptr[1:])])


@big
def test_vectors_beyond_32_bits() -> None:
    v = reserved((2**31 + 100,), np.float64)
    places = np.array([3, 2**29 + 1, 2**30 - 1, 2**31 - 1, 2**31, 2**31 + 99])
    v[places] = x(6)
    a = sp.csr_array((x(12), np.tile(places, 2), np.array([0, 6, 12])), shape=(2, len(v)))
    a.indices, a.indptr = a.indices.astype(np.int64), a.indptr.astype(np.int64)
    np.testing.assert_allclose(spmv(a, v), _rows(a, v))
    assert pa.jit(lambda v: v[2**31 + 99] + v[-1])(v) == 2 * v[-1]
    np.testing.assert_array_equal(pa.jit(lambda v, i: v[i])(v, places), v[places])


def test_results_too_large_to_have() -> None:
    outer = pa.jit(lambda a: pa.broadcast_to(a, (2**40, 2**40)))
    with pytest.raises(ShapeError, match="bytes"):
        outer(np.ones(1))
    with pytest.raises(ShapeError, match="bytes at most"):
        pa.jit(lambda a: pa.broadcast_to(a, (2**30, 2**24)) + 1)(np.ones(1))
