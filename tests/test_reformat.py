"""Conversions between formats, compared with SciPy: every pair, types, index widths, repeats, any order, malformed arrays, every level."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp

import polyai as pa
from polyai.api import reformat
from polyai.errors import ShapeError, SparseStructureError, UnsupportedError
from polyai.frontend.surface import merging
from polyai.frontend.trace import trace
from polyai.sparse import format as fm
from polyai.sparse.verify import verify
from tests.lower import staged
from tests.malformed import fenced
from tests.programs import SparseValue
from tests.test_conversions import THREADS, list_of, tidy

SOURCES = ("csr", "csc", "coo", "bsr", "dia", "lil", "dok")
COPIED = ("dia", "lil", "dok")
"""Kinds that no kernel reads by rows."""
TARGETS: dict[str, tuple[str, dict[str, Any]]] = {
    "csr": ("csr", {}), "csc": ("csc", {}), "coo": ("coo", {}), "dcsr": ("dcsr", {}), "dcsc": ("dcsc", {}), "bitmap": ("bitmap", {}), "csl": ("csl", {}), "ell": ("ell", {}), "dia": ("dia", {}),
    "csf": ("csf", {}), "csf by columns": ("csf", {"order": (1, 0)}), "bsr 4x3": ("bsr", {"blocksize": (4, 3)}), "bsr 1x1": ("bsr", {"blocksize": (1, 1)}),
    "wide csr": ("csr", {"index_bits": 64}), "wide bsr": ("bsr", {"blocksize": (2, 6), "index_bits": 64}),
}  # fmt: skip
SHAPES = ((0, 0, 0), (0, 6, 0), (4, 0, 0), (4, 6, 3), (16, 12, 40), (120, 96, 1500))
INDEX = {"csr": ("indices", "indptr"), "csc": ("indices", "indptr"), "bsr": ("indices", "indptr")}


def stored_as(a: Any, kind: str, index: Any) -> Any:
    """`a` in a kind of SciPy's, its index arrays of a type; of BSR in blocks of 4 x 3."""
    if kind == "coo":
        return a
    out = sp.bsr_array(a.tocsr(), blocksize=(4, 3) if min(a.shape) else None) if kind == "bsr" else a.asformat(kind)
    for name in INDEX.get(kind, ()):
        setattr(out, name, getattr(out, name).astype(index))
    return out


@pytest.mark.filterwarnings("ignore::scipy.sparse.SparseEfficiencyWarning")
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("source", SOURCES)
def test_every_pair_of_formats(source: str, target: str) -> None:
    name, more = TARGETS[target]
    for rows, columns, count in SHAPES:
        if name == "dia" and rows > 20:
            continue
        a = stored_as(list_of(rows, columns, count, 3), source, np.int32)
        before = pa.stats()["conversions"]
        got = pa.asformat(a, name, **more)
        assert pa.stats()["conversions"] - before == (source in COPIED or name in ("dia", "bitmap")), "what no kernel does is counted"
        np.testing.assert_array_equal(got.toarray(), a.toarray())
        assert got.shape == a.shape and got.dtype == a.dtype
        if isinstance(got, pa.SparseArray):
            assert got.format.name == name and got.format.index_bits == more.get("index_bits", 32)
            verify(got.storage)
            assert not any(np.shares_memory(array, a.data) for array in got.storage.arrays.values() if source in INDEX)
        else:
            assert got.format == name and got.has_canonical_format
            got.check_format(full_check=True)
        if name in ("csr", "csc", "coo") and source not in ("dia", "bsr"):  # which store zeros
            assert got.nnz == tidy(a, "csr").nnz


@pytest.mark.parametrize(("dtype", "index"), [(np.bool_, np.int32), (np.int8, np.int64), (np.int64, np.int32), (np.float32, np.int32), (np.complex128, np.int64)])
def test_types_stay(dtype: Any, index: Any) -> None:
    listed = list_of(40, 48, 500, 9, dtype, index)
    for source, names in {"csr": ("bsr 4x3", "coo", "dcsr", "ell"), "bsr": ("csr", "csc"), "csc": ("csf by columns",)}.items():
        a = stored_as(listed, source, index)
        for target in names:
            name, more = TARGETS[target]
            got = pa.asformat(a, name, **more)
            assert got.dtype == np.dtype(dtype)
            np.testing.assert_array_equal(got.toarray(), a.toarray())


@pytest.mark.parametrize("blocks", [(1, 1), (2, 3), (4, 8), (40, 48), (8, 1)])
@pytest.mark.parametrize("threads", THREADS)
def test_blocks_are_those_of_scipy(blocks: tuple[int, int], threads: int) -> None:
    """Rows in any order, with repeats, on any number of threads: the same blocks, in order, and back."""
    a = list_of(40, 48, 500, 9).tocsr()
    order = np.concatenate([np.arange(b, e)[::-1] for b, e in zip(a.indptr[:-1], a.indptr[1:])])
    a = sp.csr_array((np.repeat(a.data[order], 2), np.repeat(a.indices[order], 2), a.indptr * 2), shape=a.shape)
    want = tidy(a, "csr").tobsr(blocks)
    want.sort_indices()
    with pa.options(num_threads=threads):
        got = pa.asformat(a, "bsr", blocksize=blocks)
        back = pa.asformat(want, "csr")
    np.testing.assert_array_equal(got.storage.arrays["pos1"], want.indptr)
    np.testing.assert_array_equal(got.storage.arrays["crd1"], want.indices)
    np.testing.assert_array_equal(got.data, want.data.reshape(-1))
    stored = want.tocsr()
    for part in ("indptr", "indices", "data"):
        np.testing.assert_array_equal(getattr(back, part), getattr(stored, part))


def test_blocks_in_any_order_that_repeat_add_up() -> None:
    a = list_of(40, 48, 300, 2).tocsr().tobsr((4, 3))
    order = np.concatenate([np.arange(b, e)[::-1] for b, e in zip(a.indptr[:-1], a.indptr[1:])])
    b = sp.bsr_array((np.repeat(a.data[order], 2, axis=0), np.repeat(a.indices[order], 2), a.indptr * 2), shape=a.shape)
    for target in ("csr", "csc"):
        got = pa.asformat(b, target)
        assert got.has_canonical_format
        got.check_format(full_check=True)
        np.testing.assert_array_equal(got.toarray(), b.toarray())


@pytest.mark.parametrize("spare", [0, 3])
def test_blocks_in_any_order_are_put_in_order_without_a_sort_in_numpy(spare: int) -> None:
    a = list_of(40, 48, 300, 2).tocsr().tobsr((4, 3))
    order = np.concatenate([np.arange(b, e)[::-1] for b, e in zip(a.indptr[:-1], a.indptr[1:])])
    b = sp.bsr_array((a.data[order], a.indices[order], a.indptr), shape=a.shape)
    b.data, b.indices = np.concatenate([b.data, b.data[:spare]]), np.concatenate([b.indices, b.indices[:spare]])
    before = pa.stats()["copies"]
    got = pa.asformat(b, "csr")
    assert pa.stats()["copies"] == before
    assert got.has_canonical_format
    np.testing.assert_array_equal(got.toarray(), a.toarray())


@pytest.mark.parametrize("outer", ["csr", "csc"])
@pytest.mark.parametrize("target", ["csr", "csc"])
def test_a_list_in_order_of_rows_or_of_columns_takes_one_pass(outer: str, target: str) -> None:
    a = tidy(list_of(40, 48, 700, 3), outer).tocoo()
    before = pa.stats()["calls"]
    got = pa.asformat(a, target)
    assert pa.stats()["calls"] == before + 1
    want = tidy(a, target)
    for part in ("indptr", "indices", "data"):
        np.testing.assert_array_equal(getattr(got, part), getattr(want, part))


@pytest.mark.parametrize("source", ["csr", "csc"])
def test_a_list_of_coordinates_has_arrays_of_its_own(source: str) -> None:
    a = tidy(list_of(40, 48, 300, 2), source)
    got = pa.asformat(a, "coo")
    for array in got.storage.arrays.values():
        assert not any(np.shares_memory(array, theirs) for theirs in (a.data, a.indices, a.indptr))
    rows = a.tocsr()
    np.testing.assert_array_equal(got.storage.arrays["crd0"], rows.tocoo().coords[0])
    np.testing.assert_array_equal(got.storage.arrays["crd1"], rows.indices)
    np.testing.assert_array_equal(got.data, rows.data)


def test_later_calls_are_native_and_give_new_arrays() -> None:
    a = tidy(list_of(40, 48, 500, 9), "csr")
    first, second = (pa.asformat(a, "bsr", blocksize=(4, 3)) for _ in range(2))
    before = pa.stats()
    third = pa.asformat(a * 2, "bsr", blocksize=(4, 3))
    after = pa.stats()
    assert after["compiles"] == before["compiles"]
    first.data[:] = 0
    np.testing.assert_array_equal(second.toarray() * 2, third.toarray())
    taller = pa.asformat(tidy(list_of(80, 96, 900, 1), "csr"), "bsr", blocksize=(4, 3))
    assert taller.shape == (80, 96) and pa.stats()["compiles"] == after["compiles"]


BREAKS = ("index above", "index below", "short values", "pointer", "falling pointers")
BROKEN = [
    (source, target, what)
    for source in ("csr", "bsr", "csc", "coo")
    for target in ("bsr 4x3", "coo", "dcsr", "ell", "csr", "csc")
    for what in BREAKS[: 3 if source == "coo" else None]
    if source != target
]


@pytest.mark.parametrize(("source", "target", "what"), BROKEN)
def test_malformed_arrays_are_errors(source: str, target: str, what: str) -> None:
    """In memory that ends where no one may read."""
    a = stored_as(tidy(list_of(40, 48, 500, 9), "csr").tocoo(), source, np.int32)
    lists = {n: fenced(np.array(getattr(a, n))) for n in ("indptr", "indices")} if source != "coo" else {n: fenced(np.array(c)) for n, c in zip(("indices", "rows"), a.coords[::-1])}
    data = fenced(a.data)
    if what == "index above":
        lists["indices"][7] = 48
    elif what == "index below":
        lists["indices"][7] = -1
    elif what == "pointer":
        lists["indptr"][3] = 100_000
    elif what == "falling pointers":
        lists["indptr"][3], lists["indptr"][4] = lists["indptr"][4] + 1, lists["indptr"][3]
    else:
        data = data[:-1]
    if source == "coo":
        a.coords, a.data = (lists["rows"], lists["indices"]), data
    else:
        a.indptr, a.indices, a.data = lists["indptr"], lists["indices"], data
    name, more = TARGETS[target]
    for _ in range(2):
        with pytest.raises(SparseStructureError):
            pa.asformat(a, name, **more)


def test_errors_speak_of_the_matrix_that_was_given() -> None:
    a = tidy(list_of(40, 48, 500, 9), "csr")
    pa.asformat(a, "bsr", blocksize=(4, 8))
    a.indices[7] = 48
    with pytest.raises(SparseStructureError, match=r"csr: indices\[7\] is 48"):
        pa.asformat(a, "bsr", blocksize=(4, 8))
    b = tidy(list_of(40, 48, 500, 9), "csr").tobsr((4, 8))
    b.indices[2] = 6
    with pytest.raises(SparseStructureError, match=r"bsr: indices\[2\] is 6"):
        pa.asformat(b, "csr")


@pytest.mark.parametrize(
    ("blocks", "error", "message"), [((7, 3), ShapeError, "dimension 0 has 40 elements"), ((4, 9), ShapeError, "dimension 1 has 48"), ((0, 1), ShapeError, "at least one row"), (None, UnsupportedError, "bsr without")]
)
def test_blocks_that_do_not_divide_are_refused(blocks: Any, error: type[Exception], message: str) -> None:
    for source in SOURCES[:4]:
        with pytest.raises(error, match=message):
            pa.asformat(stored_as(list_of(40, 48, 90, 9), source, np.int32), "bsr", blocksize=blocks)


def test_wide_rows_and_long_slots_are_left_to_numpy(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread would need too much memory, or nearly all slots were empty: counted, with the same result."""
    a = tidy(list_of(40, 48, 500, 9), "csr")
    monkeypatch.setattr(reformat, "DENSE_ROWS", 100)
    monkeypatch.setattr(reformat, "LARGEST_FILL", 0)
    for name, more in (("bsr", {"blocksize": (4, 8)}), ("ell", {})):
        before = pa.stats()["conversions"]
        got = pa.asformat(a, name, **more)  # type: ignore[arg-type]
        assert pa.stats()["conversions"] == before + 1
        np.testing.assert_array_equal(got.toarray(), a.toarray())


@pytest.mark.parametrize("level", staged.LEVELS)
def test_every_level_makes_the_same_blocks(level: str) -> None:
    a = tidy(list_of(8, 12, 40, 8), "csr")
    coo = a.tocoo()
    view = pa.SparseArray(reformat._cut_rows(32), (4, 2, 12), {"pos2": a.indptr, "crd2": a.indices, "val": a.data})
    program = trace(lambda x: merging.in_blocks(x, (2, 3)), (view,), {}, name="blocks").program
    given = {program.inputs[0].name: SparseValue((coo.coords[0] // 2, coo.coords[0] % 2, coo.coords[1]), coo.data, view.shape)}
    ((_, got),) = staged.run(program, given, level).items()
    ((_, meant),) = staged.tensors(program, given).items()
    want = fm.bsr(2, 3).put_together  # of level coordinates
    dense = np.zeros(a.shape)
    rows, columns = want((got.coords[0], got.coords[2], got.coords[1], got.coords[3]))
    np.add.at(dense, (rows, columns), got.values)
    np.testing.assert_array_equal(dense, a.toarray())
    assert len(got.values) == len(a.tobsr((2, 3)).data.reshape(-1))
    order = np.lexsort(got.coords[::-1])
    np.testing.assert_array_equal(meant.values, got.values[order])
    for d in range(4):
        np.testing.assert_array_equal(meant.coords[d], got.coords[d][order])


@pytest.mark.parametrize("level", staged.LEVELS)
def test_every_level_takes_blocks_apart(level: str) -> None:
    b = tidy(list_of(8, 12, 30, 8), "csr").tobsr((2, 3))
    b.sort_indices()
    coords = np.nonzero(np.ones_like(b.data))
    block = np.repeat(np.arange(4), np.diff(b.indptr))
    view = pa.SparseArray(reformat._blocks(32), (4, 2, 4, 3), {"pos1": b.indptr, "crd1": b.indices, "val": b.data.reshape(-1)})
    program = trace(lambda x: merging.out_of_blocks(x, (2, 3)), (view,), {}, name="rows").program
    value = SparseValue((block[coords[0]], coords[1], b.indices[coords[0]], coords[2]), b.data.reshape(-1), view.shape)
    ((_, got),) = staged.run(program, {program.inputs[0].name: value}, level).items()
    want = b.tocsr().tocoo()
    np.testing.assert_array_equal(got.coords, want.coords)
    np.testing.assert_array_equal(got.values, want.data)
