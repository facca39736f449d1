"""Levels, formats, packing and walking, against dense NumPy."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polyai.errors import IndexOutOfRangeError, ShapeError, SparseStructureError, UnsupportedError
from polyai.scalar import dtype as dt
from polyai.scalar.expr import Const
from polyai.sparse.format import Format, bsr, coo, csc, csf, csr, dcsc, dcsr
from polyai.sparse.interp import can_locate, dense, locate, walk
from polyai.sparse.level import Can
from polyai.sparse.levels.compressed import Compressed
from polyai.sparse.levels.dense import Dense
from polyai.sparse.levels.singleton import Singleton
from polyai.sparse.pack import convert, pack, unpack
from polyai.sparse.show import show, show_storage
from polyai.sparse.storage import Storage
from polyai.sparse.verify import lists_rise_in_each_fibre, verify, verify_format

from .strategies import dense_of, formats_of, tensors


@given(tensors(), st.data())
@settings(max_examples=300, deadline=None, derandomize=True)
def test_pack_and_walk_agree_with_dense(tensor, data):
    shape, coordinates, values = tensor
    format = data.draw(st.sampled_from(formats_of(shape)))
    storage = pack(format, shape, coordinates, values)
    verify(storage)
    want = dense_of(shape, coordinates, values)
    np.testing.assert_array_equal(dense(storage), want)
    found, stored = unpack(storage)
    np.testing.assert_array_equal(dense_of(shape, found, stored), want)
    if not any(level.full for level in format.levels):
        assert len(stored) == len(set(zip(*map(np.ndarray.tolist, coordinates))))
    other = data.draw(st.sampled_from(formats_of(shape)))
    np.testing.assert_array_equal(dense(convert(storage, other)), want)


@given(tensors())
@settings(max_examples=100, deadline=None, derandomize=True)
def test_repeated_entries_can_be_kept(tensor):
    shape, coordinates, values = tensor
    format = coo(len(shape))
    if len(shape) == 1:
        format = Format("list", (0,), (Compressed(unique=False),))
    storage = pack(format, shape, coordinates, values, merge=False)
    verify(storage)
    assert len(storage.values) == len(values)
    np.testing.assert_array_equal(dense(storage), dense_of(shape, coordinates, values))


def test_known_arrays():
    row, column, values = [2, 0, 0], [1, 3, 0], [5.0, 6.0, 7.0]
    arrays = {n: a.tolist() for n, a in pack(csr(), (3, 4), (row, column), values).arrays.items()}
    assert arrays == {"pos1": [0, 2, 2, 3], "crd1": [0, 3, 1], "val": [7, 6, 5]}
    arrays = {n: a.tolist() for n, a in pack(dcsr(), (3, 4), (row, column), values).arrays.items()}
    assert arrays == {"pos0": [0, 2], "crd0": [0, 2], "pos1": [0, 2, 3], "crd1": [0, 3, 1], "val": [7, 6, 5]}
    arrays = {n: a.tolist() for n, a in pack(coo(), (3, 4), (row, column), values).arrays.items()}
    assert arrays == {"pos0": [0, 3], "crd0": [0, 0, 2], "crd1": [0, 3, 1], "val": [7, 6, 5]}
    arrays = {n: a.tolist() for n, a in pack(csc(), (3, 4), (row, column), values).arrays.items()}
    assert arrays == {"pos1": [0, 1, 2, 2, 3], "crd1": [0, 2, 0], "val": [7, 5, 6]}


def test_index_width():
    assert pack(csr(64), (2, 2), ([0], [1]), [1.0]).arrays["crd1"].dtype == np.int64
    assert pack(csr(32), (2, 2), ([0], [1]), [1.0]).arrays["pos1"].dtype == np.int32


def test_locate():
    format = Format("dense", (1, 0), (Dense(), Dense()))
    assert can_locate(format) and not can_locate(csr())
    assert locate(format, (2, 3), (np.array([1, 0]), np.array([2, 2]))).tolist() == [5, 4]
    storage = pack(format, (2, 3), ([1, 0], [2, 1]), [7.0, 8.0])
    assert storage.values[locate(format, (2, 3), (np.array([1, 0]), np.array([2, 1])))].tolist() == [7, 8]
    with pytest.raises(UnsupportedError, match="compressed level cannot locate"):
        locate(csr(), (2, 3), (np.array([1]), np.array([2])))
    with pytest.raises(UnsupportedError, match="singleton level cannot locate"):
        Singleton().locate("A", 1, Const(0, dt.i64), Const(0, dt.i64), Const(1, dt.i64))


def test_capabilities_say_what_the_functions_do():
    zero = Const(0, dt.i64)
    for level in (Dense(), Compressed(), Singleton()):
        try:
            level.locate("A", 0, zero, zero, zero)
            located = True
        except UnsupportedError:
            located = False
        assert located == (Can.LOCATE in level.can)


def test_pack_refuses():
    with pytest.raises(ShapeError, match="coordinate 4 in dimension 1"):
        pack(csr(), (3, 4), ([0], [4]), [1.0])
    with pytest.raises(ShapeError, match="coordinate -1"):
        pack(csr(), (3, 4), ([-1], [0]), [1.0])
    with pytest.raises(ShapeError, match="csr has 2 dimensions"):
        pack(csr(), (3,), ([0],), [1.0])
    with pytest.raises(ShapeError, match=r"coordinates\[1\] has shape"):
        pack(csr(), (3, 4), ([0], [0, 1]), [1.0])
    with pytest.raises(SparseStructureError, match="csr cannot hold a coordinate twice"):
        pack(csr(), (3, 4), ([0, 0], [1, 1]), [1.0, 2.0], merge=False)


BROKEN_FORMATS = [
    (Format("a", (0, 0), (Dense(), Compressed())), "order"),
    (Format("b", (0, 1), (Dense(),)), "has 1 levels"),
    (Format("c", (0, 1), (Dense(), Compressed()), 24), "index_bits=24"),
    (Format("d", (0,), (Singleton(),)), "no list above"),
    (Format("e", (0, 1), (Dense(), Singleton())), "no list above"),
    (Format("f", (0, 1), (Compressed(unique=False), Dense())), "repeats coordinates"),
]


@pytest.mark.parametrize(("format", "text"), BROKEN_FORMATS)
def test_broken_formats(format, text):
    with pytest.raises(SparseStructureError, match=text):
        verify_format(format)


BROKEN_ARRAYS = [
    ({"crd1": [1, 0, 1]}, "entry 1 comes before entry 0"),
    ({"crd1": [1, 1, 1]}, "holds a coordinate twice"),
    ({"crd1": [0, 3, 1]}, r"crd1\[1\] is 3"),
    ({"crd1": [0, -1, 1]}, r"crd1\[1\] is -1"),
    ({"pos1": [0, 2, 1, 3]}, "pos1 decreases at 1"),
    ({"pos1": [1, 2, 2, 3]}, r"pos1\[0\] is 1"),
    ({"pos1": [0, 2, 3]}, "pos1 has shape"),
    ({"pos1": [0, 2, 2, 4]}, "crd1 has shape"),
    ({"val": [1.0]}, "val has shape"),
]


@pytest.mark.parametrize(("change", "text"), BROKEN_ARRAYS)
def test_broken_arrays(change, text):
    good = pack(csr(), (3, 3), ([0, 0, 2], [0, 1, 1]), [1.0, 2.0, 3.0])
    verify(good)
    types = {"val": np.float64}
    arrays = {**good.arrays, **{n: np.array(a, dtype=types.get(n, np.int32)) for n, a in change.items()}}
    with pytest.raises(SparseStructureError, match=text):
        verify(dataclasses.replace(good, arrays=arrays))


def test_other_broken_storages():
    good = pack(csr(), (3, 3), ([0], [0]), [1.0])
    with pytest.raises(SparseStructureError, match=r"arrays missing: .'crd1'"):
        verify(Storage(good.format, good.shape, {n: a for n, a in good.arrays.items() if n != "crd1"}))
    with pytest.raises(SparseStructureError, match="crd1 has dtype int64"):
        verify(Storage(good.format, good.shape, {**good.arrays, "crd1": good.arrays["crd1"].astype(np.int64)}))
    with pytest.raises(SparseStructureError, match="shape"):
        verify(Storage(good.format, (3,), good.arrays))
    with pytest.raises(SparseStructureError, match="runs from 1 to 0"):
        walk(csr(), (2, 2), {"pos1": np.array([0, 1, 0]), "crd1": np.array([0])})
    with pytest.raises(IndexOutOfRangeError, match=r"A\.crd1: index 1"):
        walk(csr(), (1, 2), {"pos1": np.array([0, 2]), "crd1": np.array([0])})


def test_text():
    assert show(csr()) == "csr(d0: dense, d1: compressed; int32)"
    assert show(csc(64)) == "csc(d1: dense, d0: compressed; int64)"
    assert show(coo()) == "coo(d0: compressed repeated, d1: singleton; int32)"
    assert show_storage(pack(csf(2), (2, 3), ([1], [2]), [4.0])) == (
        "2x3 float64 csf(d0: compressed, d1: compressed; int32)\n"
        "  pos0  0 1\n  crd0  1\n  pos1  0 1\n  crd1  2\n  val   4.0\n  [1, 2] = 4.0"
    )
    assert show_storage(pack(coo(1), (9,), (range(9),), np.ones(9)), limit=2).endswith("  [1] = 1.0\n  ... 7 more")


@pytest.mark.parametrize("make", [csr, csc, lambda: bsr(2, 3), lambda: csf(2), dcsr, dcsc, coo])
def test_order_fibre_by_fibre_is_order(make):
    """What lists tell by fibre is what a walk of all elements tells, for any lists."""
    rng = np.random.default_rng(5)
    found = set()
    for trial in range(60):
        dense = (rng.random((6, 6)) < 0.4) * 1.0
        good = pack(make(), dense.shape, np.nonzero(dense), dense[np.nonzero(dense)])
        lists = [n for n in good.arrays if n.startswith("crd") and len(good.arrays[n]) > 1]
        name = lists[trial % len(lists)]
        changed = good.arrays[name].copy()
        at = rng.integers(0, len(changed), 2)
        changed[at] = changed[at[::-1]] if trial % 3 else changed[at[0]]
        storage = dataclasses.replace(good, arrays={**good.arrays, name: changed})
        by_fibre = lists_rise_in_each_fibre(storage)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("polyai.sparse.verify.lists_rise_in_each_fibre", lambda _: False)
            try:
                verify(storage)
                by_walk = True
            except SparseStructureError:
                by_walk = False
        assert by_fibre == (by_walk and make is not coo)
        found.add(by_walk)
    assert found == {True, False}
