"""Conversions between orders, compared with SciPy: real and random matrices, all types, malformed and changing input, any number of threads."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp

import polyai as pa
from polyai.calls import phased
from polyai.errors import ShapeError, SparseStructureError, UnsupportedError
from polyai.frontend.trace import trace
from polyai.lower import grouping
from polyai.runtime import staging
from polyai.runtime.kernel import Kernel
from polyai.runtime.launch import Runtime
from polyai.sparse.verify import verify
from tests.lower import staged
from tests.programs import SparseValue

THREADS = (1, 2, 3)


def list_of(rows: int, columns: int, count: int, seed: int, dtype: Any = np.float64, index: Any = np.int32) -> Any:
    """COO in any order, with coordinates that repeat; values whose sums are exact."""
    rng = np.random.default_rng(seed)
    coords = tuple(rng.integers(0, max(n, 1), count if rows and columns else 0).astype(index) for n in (rows, columns))
    values = rng.integers(-8, 9, len(coords[0]))
    data = values > 0 if dtype is np.bool_ else values.astype(dtype) * (1 + 2j if np.issubdtype(dtype, np.complexfloating) else 1)
    return sp.coo_array((data.astype(dtype), coords), shape=(rows, columns))


def tidy(a: Any, target: str) -> Any:
    """What SciPy makes of `a`, in order and without repeats."""
    out = a.asformat(target, copy=True)
    out.sum_duplicates()
    out.sort_indices()
    return out


def same(got: Any, want: Any) -> None:
    assert got.format == want.format and got.shape == want.shape and got.dtype == want.dtype
    for part in ("indptr", "indices", "data"):
        np.testing.assert_array_equal(getattr(got, part), getattr(want, part))


WAYS = {
    "groups": {"LEAST": 8},
    "slots": {"LEAST": 8, "MANY_GROUPS": 2, "MANY_BYTES": 1, "WIDE": 2, "FAR": -1, "SLOTS": 4},
}
"""Limits under which small matrices are stored straight to groups, or to slots first, in several pieces."""


@pytest.fixture(params=list(WAYS))
def to(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Any]:
    """Conversions compiled under the limits of a way to store; no cache key holds these, so that each has names of its own."""
    for name, value in WAYS[request.param].items():
        monkeypatch.setattr(grouping, name, value)
    return lambda target: pa.jit(lambda a: pa.asformat(a, target), name=f"{request.param}_to_{target}")


SHAPES = ((0, 0, 0), (0, 5, 0), (4, 0, 0), (1, 1, 3), (6, 5, 0), (1, 40, 60), (40, 1, 60), (37, 53, 400), (50, 8, 1000))


@pytest.mark.parametrize("source", ["csr", "csc", "coo"])
@pytest.mark.parametrize("target", ["csr", "csc"])
def test_conversions_are_those_of_scipy(source: str, target: str, to: Callable[[str], Any]) -> None:
    convert = to(target)
    for threads in THREADS:
        with pa.options(num_threads=threads):
            for rows, columns, count in SHAPES:
                a = list_of(rows, columns, count, rows + threads).asformat(source)
                if source == target:
                    a.sum_duplicates()  # what has the order already is returned as it is
                same(convert(a), tidy(a, target))


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.complex64, np.complex128, np.int8, np.int16, np.int32, np.int64, np.uint8, np.uint64, np.bool_])
@pytest.mark.parametrize("index", [np.int32, np.int64])
def test_every_type_and_index_width(dtype: Any, index: Any) -> None:
    for source, target in (("csr", "csc"), ("coo", "csr"), ("coo", "csc")):
        a = list_of(30, 41, 300, 1, dtype, index)
        want = tidy(a, target)
        given = a if source == "coo" else tidy(a, source)
        if source == "csr":
            given.indices, given.indptr = given.indices.astype(index), given.indptr.astype(index)
        got = pa.asformat(given, target)
        same(got, want)
        assert got.indices.dtype == index and got.indptr.dtype == index


@pytest.mark.parametrize("target", ["csr", "csc"])
def test_rows_in_any_order_and_coordinates_that_repeat(target: str, to: Callable[[str], Any]) -> None:
    """CSR as SciPy allows it: unsorted, with repeats, with room behind the last element."""
    rng = np.random.default_rng(3)
    indptr = np.concatenate(([0], np.cumsum(rng.integers(0, 9, 40)))).astype(np.int32)
    count = int(indptr[-1])
    other = {"csr": "csc", "csc": "csr"}[target]
    make = getattr(sp, f"{other}_array")
    room = 7
    indices = rng.integers(0, 6, count + room).astype(np.int32)
    a = make((np.arange(count + room, dtype=np.float64), indices, indptr), shape=(40, 6) if other == "csr" else (6, 40))
    want = make((a.data[:count], a.indices[:count], indptr), shape=a.shape)
    for threads in THREADS:
        with pa.options(num_threads=threads):
            same(to(target)(a), tidy(want, target))
            same(pa.asformat(a, target), tidy(want, target))


@pytest.mark.parametrize("target", ["csr", "csc"])
def test_lists_in_order_take_one_pass_and_others_are_noticed(target: str) -> None:
    a = tidy(list_of(60, 70, 900, 5), target)
    listed = a.tocoo()
    order = np.lexsort(listed.coords[:: -1 if target == "csr" else 1])
    listed = sp.coo_array((listed.data[order], tuple(c[order].astype(np.int32) for c in listed.coords)), shape=a.shape)
    same(pa.asformat(listed, target), a)
    twice = sp.coo_array((np.repeat(listed.data, 2), tuple(np.repeat(c, 2) for c in listed.coords)), shape=a.shape)
    same(pa.asformat(twice, target), tidy(twice, target))
    swapped = np.arange(listed.nnz)  # what a sample of neighbours does not see
    swapped[[10, 700]] = swapped[[700, 10]]
    mixed = sp.coo_array((listed.data[swapped], tuple(c[swapped] for c in listed.coords)), shape=a.shape)
    same(pa.asformat(mixed, target), a)


def _outside(a: Any) -> None:
    a.indices[3] = a.shape[1]


def _negative(a: Any) -> None:
    a.indices[-1] = -1


def _huge(a: Any) -> None:
    a.indices[5] = 2**31 - 1


def _backwards(a: Any) -> None:
    a.indptr[4] = a.indptr[6] + 1


def _beyond(a: Any) -> None:
    a.indptr[3] = 10**9


def _below(a: Any) -> None:
    a.indptr[2] = -5


@pytest.mark.parametrize("change", [_outside, _negative, _huge, _backwards, _beyond, _below])
def test_broken_rows_are_refused(change: Callable[[Any], None], to: Callable[[str], Any]) -> None:
    for threads in THREADS:
        with pa.options(num_threads=threads):
            a = tidy(list_of(30, 20, 300, 2), "csr")
            change(a)
            with pytest.raises(SparseStructureError, match=r"index|indptr"):
                to("csc")(a)


@pytest.mark.parametrize("target", ["csr", "csc"])
@pytest.mark.parametrize("dimension", [0, 1])
@pytest.mark.parametrize("bad", [-1, 30, 2**31 - 1])
def test_broken_lists_are_refused(target: str, dimension: int, bad: int, to: Callable[[str], Any]) -> None:
    a = list_of(30, 30, 200, 4)
    a.coords[dimension][17] = bad
    for convert in (to(target), lambda a: pa.asformat(a, target)):
        with pytest.raises(SparseStructureError, match=f"index {bad} of .* is outside"):
            convert(a)


@pytest.mark.parametrize("source", ["csr", "coo"])
@pytest.mark.parametrize("what", ["rows", "columns", "pointers"])
def test_an_argument_that_changes_between_kernels_does_no_harm(source: str, what: str, to: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """An error, or a sound result: never a store outside."""
    original = Runtime.launch
    a = list_of(25, 25, 300, 6) if source == "coo" else tidy(list_of(25, 25, 300, 6), "csr")
    struck: list[bool] = []

    def launch(self: Runtime, kernel: Kernel, *rest: Any) -> Any:
        out = original(self, kernel, *rest)
        struck.append(True)
        if source == "coo":
            a.coords[what == "columns"][:] = 24
        elif what == "pointers":
            a.indptr[1:-1] = a.indptr[-1]
        else:
            a.indices[:] = 24
        return out

    monkeypatch.setattr(phased, "native", lambda *_: None)  # calls of one kernel after another, in Python
    convert = to("csc")
    convert(a.copy())
    monkeypatch.setattr(Runtime, "launch", launch)
    try:
        got = convert(a)
    except SparseStructureError:
        return
    assert struck
    got.check_format(full_check=True)


@pytest.mark.parametrize("source", ["csr", "csc", "coo"])
@pytest.mark.parametrize("index", [np.int32, np.int64])
def test_calls_after_the_first_take_the_quick_way(source: str, index: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """So do matrices that were pickled: the types of their arrays are equal to NumPy's own and not the same objects."""
    a = list_of(40, 50, 500, 9, index=index)
    a = a if source == "coo" else tidy(a, source)
    for part in ("indptr", "indices"):
        if source != "coo":
            setattr(a, part, getattr(a, part).astype(index))
    for target in {"csr": ("csc",), "csc": ("csr",), "coo": ("csr", "csc")}[source]:
        want, convert = tidy(a, target), pa.jit(lambda x, target=target: pa.asformat(x, target))
        convert(a)
        with monkeypatch.context() as patch:
            patch.setattr(staging, "run", None)
            first, second = convert(a), convert(pickle.loads(pickle.dumps(a)))
        for got in (first, second):
            same(got, want)
            assert got.indices.dtype == index and got.has_canonical_format
        first.data[:] = 0
        same(second, want)


def test_arrays_that_a_kernel_cannot_read_in_place_are_converted_all_the_same() -> None:
    a = list_of(40, 50, 500, 9)
    want = tidy(a, "csr")
    same(pa.asformat(a, "csr"), want)
    spread = sp.coo_array((a.data, a.coords), shape=a.shape)
    spread.coords = tuple(np.repeat(c, 2)[::2] for c in a.coords)
    spread.data = np.repeat(a.data, 2)[::2]
    assert not spread.data.flags.c_contiguous
    same(pa.asformat(spread, "csr"), want)
    short = sp.coo_array((a.data, a.coords), shape=a.shape)
    short.coords = (a.coords[0][:-1], a.coords[1])
    with pytest.raises(SparseStructureError, match="entries"):
        pa.asformat(short, "csr")


@pytest.mark.parametrize(("rows", "columns", "count"), [(300, 20_000, 60_000), (20_000, 300, 60_000)])
@pytest.mark.parametrize("threads", [2, 5])
def test_several_pieces_begin_where_those_before_them_end(rows: int, columns: int, count: int, threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grouping, "LEAST", 64)
    a = list_of(rows, columns, count, 3)
    with pa.options(num_threads=threads):
        for target, given in (("csc", tidy(a, "csr")), ("csr", a)):
            same(pa.jit(lambda x, target=target: pa.asformat(x, target), name=f"pieces_to_{target}")(given), tidy(a, target))


@pytest.mark.parametrize("source", ["csr", "csc", "coo"])
@pytest.mark.parametrize("blocks", [(1, 1), (2, 3), (4, 8)])
def test_blocks_of_rows_in_any_order_hold_sums_of_what_repeats(source: str, blocks: tuple[int, int]) -> None:
    listed = list_of(40, 48, 500, 9)
    a = listed if source == "coo" else tidy(listed, source)
    if source == "csr":
        order = np.concatenate([np.arange(b, e)[::-1] for b, e in zip(a.indptr[:-1], a.indptr[1:])])
        a = sp.csr_array((np.repeat(a.data[order], 2), np.repeat(a.indices[order], 2), a.indptr * 2), shape=a.shape)
    got = pa.asformat(a, "bsr", blocksize=blocks)
    verify(got.storage)  # rows of blocks in order, each block once
    want = tidy(a, "csr").tobsr(blocks)
    np.testing.assert_array_equal(got.toarray(), want.toarray())
    assert len(got.storage.arrays["crd1"]) == len(want.indices)
    assert not np.shares_memory(got.data, a.data)
    if source == "csr":
        a.indices[7] = 48
        with pytest.raises(SparseStructureError, match="indices"):
            pa.asformat(a, "bsr", blocksize=blocks)


@pytest.mark.parametrize("op", ["sum", "product"])
def test_a_merge_is_grouped_where_it_stands(op: str) -> None:
    a, b = (tidy(list_of(20, 30, 150, s), "csr") for s in (1, 2))
    function: Any = (lambda x, y: x + y) if op == "sum" else (lambda x, y: x * y)
    for threads in THREADS:
        with pa.options(num_threads=threads):
            got = pa.jit(lambda x, y: pa.asformat(function(x, y), "csc"), name=f"grouped_{op}")(a, b)
            np.testing.assert_array_equal(got.toarray(), function(a.toarray(), b.toarray()))
            assert got.format == "csc" and got.has_sorted_indices


@pytest.mark.parametrize("format", ["csr", "csc"])
def test_what_has_the_format_is_put_in_order(format: str) -> None:
    """A copy where it is in order already; sorted, and repeats added up, where it is not."""
    indptr, indices = np.array([0, 3, 3, 5], np.int32), np.array([4, 1, 4, 2, 0], np.int32)
    make = getattr(sp, f"{format}_array")
    a = make((np.arange(1.0, 6.0), indices, indptr), shape=(3, 5) if format == "csr" else (5, 3))
    got = pa.asformat(a, format)
    same(got, tidy(a, format))
    again = pa.asformat(got, format)
    same(again, got)
    assert not np.shares_memory(again.data, got.data) and a.indices.tolist() == [4, 1, 4, 2, 0]
    a.indices[2] = 5
    with pytest.raises(SparseStructureError, match=r"index 5 of .* is outside"):
        pa.asformat(a, format)
    b = make((np.zeros(0), np.zeros(0, np.int32), np.zeros(4, np.int32)), shape=a.shape)
    same(pa.asformat(b, format), b)


def test_nothing_is_converted_or_copied_outside_of_the_kernels() -> None:
    a = list_of(40, 50, 500, 9)
    before = pa.stats()
    for target in ("csr", "csc"):
        pa.asformat(a, target)
        pa.asformat(tidy(a, {"csr": "csc", "csc": "csr"}[target]), target)
    after = pa.stats()
    assert after["conversions"] == before["conversions"] and after["copies"] == before["copies"]


@pytest.mark.parametrize("level", staged.LEVELS)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("source", "target"), [("csr", "csc"), ("csc", "csr"), ("coo", "csr")])
def test_every_level_means_the_same(source: str, target: str, way: str, level: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in WAYS[way].items():
        monkeypatch.setattr(grouping, name, value)
    a = tidy(list_of(7, 9, 30, 8), "csr")
    program = trace(lambda x: pa.asformat(x, target), (a.asformat(source),), {}, name="regrouped").program
    listed = a.tocoo()
    given = {program.inputs[0].name: SparseValue(tuple(listed.coords), listed.data, a.shape)}
    ((name, got),) = staged.run(program, given, level).items()
    want = tidy(a, target).tocoo()
    np.testing.assert_array_equal(got.coords, want.coords)
    np.testing.assert_array_equal(got.values, want.data)
    ((_, meant),) = staged.tensors(program, given).items()
    order = np.lexsort(got.coords[::-1])
    np.testing.assert_array_equal(meant.values, got.values[order])


@pytest.mark.parametrize("source", ["csr", "csc", "coo", "bsr", "dia"])
def test_other_formats_hold_the_same(source: str) -> None:
    a = tidy(list_of(12, 9, 40, 1), "csr").asformat(source)
    for target, more in (("bsr", {"blocksize": (4, 3)}), ("dia", {}), ("ell", {}), ("coo", {}), ("dcsr", {}), ("dense", {})):
        before = pa.stats()["conversions"]
        got = pa.asformat(a, target, **more)
        dense = got if isinstance(got, np.ndarray) else got.toarray()
        np.testing.assert_array_equal(dense, a.toarray())
        assert (pa.stats()["conversions"] > before) == ("dia" in (source, target) and target != "dense")
        assert target == "dense" or got.format.name == target
    np.testing.assert_array_equal(pa.jit(lambda x: pa.asformat(x, "dense") + 1.0)(a), a.toarray() + 1)


@pytest.mark.parametrize(
    ("target", "more", "error", "message"),
    [
        ("bsr", {}, UnsupportedError, "bsr without blocksize"),
        ("csr", {"blocksize": (2, 2)}, UnsupportedError, "other formats have no blocks"),
        ("bsr", {"blocksize": (0, 2)}, ShapeError, "at least one row"),
        ("bsr", {"blocksize": (5, 3)}, ShapeError, "blocks of 5"),
        ("lil", {}, UnsupportedError, "the format 'lil'"),
    ],
)
def test_formats_that_are_refused(target: str, more: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        pa.asformat(tidy(list_of(12, 9, 40, 1), "csr"), target, **more)
    with pytest.raises(UnsupportedError, match="inside a compiled function"):
        pa.jit(lambda a: pa.asformat(a, "coo"))(tidy(list_of(12, 9, 40, 1), "csr"))
