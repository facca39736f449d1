"""What calls do with input that is wrong, hostile, odd or extreme: an error that says why, or NumPy's and SciPy's result."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp

import polyai as pa
from polyai.errors import (
    DTypeError,
    IndexOutOfRangeError,
    PolyAIError,
    ShapeError,
    SparseStructureError,
    TraceError,
    UnsupportedError,
)
from tests import malformed
from tests.malformed import KINDS, OPERATIONS, Parts, dense, good

RNG = np.random.default_rng(31)
FUNCTIONS = {name: pa.jit(o.fn, name=name.replace(" ", "_")) for name, o in OPERATIONS.items()}
spmm, spmv = FUNCTIONS["spmm"], FUNCTIONS["spmv"]


def x(*shape: int) -> Any:
    return RNG.standard_normal(shape)


def matrix(n: int = 6, m: int = 5, kind: str = "csr", index: Any = np.int32, seed: int = 0) -> Parts:
    """A valid matrix with at least two entries in the row and column 1, sorted, without repeated entries."""
    rng = np.random.default_rng(seed)
    full = np.where(rng.random((n, m)) < 0.4, rng.standard_normal((n, m)), 0)
    full[1, :2] = full[:2, 1] = 1.5
    made = getattr(sp, f"{kind}_array")(full)
    if kind == "coo":
        return Parts(kind, (n, m), made.data, made.coords[1].astype(index), None, made.coords[0].astype(index))
    return Parts(kind, (n, m), made.data, made.indices.astype(index), made.indptr.astype(index))


# --- random calls -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
def test_random_calls(seed: int) -> None:
    fuzz = malformed.Fuzz(seed)
    for _ in range(750):
        fuzz.call()
    assert fuzz.seen["results"] > 300 and fuzz.seen["SparseStructureError"] > 100 and fuzz.seen["ShapeError"] > 5


def test_more_random_calls(request: pytest.FixtureRequest) -> None:
    """As many as `--fuzz N` asks for, from a seed that nobody chose; 50 otherwise."""
    calls = request.config.getoption("--fuzz") or 50
    seed = int.from_bytes(os.urandom(4), "little") if calls > 50 else 99
    print(f"python -m tests.malformed {calls} {seed}")
    fuzz = malformed.Fuzz(seed)
    for _ in range(calls):
        fuzz.call()
    assert sum(fuzz.seen.values()) >= calls


def test_a_process_survives_random_calls() -> None:
    run = subprocess.run([sys.executable, "-X", "faulthandler", "-m", "tests.malformed", "1000", "77"], capture_output=True, text=True)
    assert (run.returncode, run.stderr) == (0, "")
    assert run.stdout.startswith("1000 calls:")


# --- broken matrices, one by one -------------------------------------------------------------------------------------------

Change = Callable[[Parts], None]


def _set(name: str, at: int, value: int) -> Change:
    def change(p: Parts) -> None:
        getattr(p, name)[at] = value

    return change


def _replace(name: str, value: Callable[[Any], Any]) -> Change:
    return lambda p: setattr(p, name, value(getattr(p, name)))


BROKEN: list[tuple[str, str, Change, str]] = [
    ("column too large", "csr", _set("minor", 1, 5), r"column index 5 of a is outside"),
    ("column far too large", "csr", _set("minor", 1, 2**31 - 1), r"column index 2147483647 of a is outside"),
    ("column negative", "csr", _set("minor", 1, -1), r"column index -1 of a is outside"),
    ("row too large", "csc", _set("minor", 1, 6), r"row index 6 of a is outside"),
    ("row negative", "coo", _set("major", 0, -7), r"row index -7 of a is outside"),
    ("column of a list", "coo", _set("minor", -1, 99), r"column index 99 of a is outside"),
    ("pointers fall", "csr", _set("pointers", 2, 0), r"out of order or out of range"),
    ("pointer too large", "csr", _set("pointers", 3, 10_000), r"out of order or out of range"),
    ("pointer overflows", "csr", _set("pointers", 3, 2**31 - 1), r"out of order or out of range"),
    ("pointer negative", "csc", _set("pointers", 3, -4), r"out of order or out of range"),
    ("last pointer too large", "csr", _set("pointers", -1, 1000), r"csr: indptr\[-1\] is 1000\n  why: but there are \d+ indices and \d+ values"),
    ("last pointer negative", "csr", _set("pointers", -1, -1), r"csr: indptr\[-1\] is -1"),
    ("first pointer", "csr", _set("pointers", 0, 1), r"csr: indptr\[0\] is 1\n  why: the first row starts at 0"),
    ("pointers too short", "csr", _replace("pointers", lambda a: a[:-1]), r"csr: indptr has 6 entries\n  why: 6 rows need 7"),
    ("pointers too long", "csc", _replace("pointers", lambda a: np.append(a, a[-1])), r"csc: indptr has 7 entries\n  why: 5 columns need 6"),
    ("indices too short", "csr", _replace("minor", lambda a: a[:-1]), r"but there are \d+ indices"),
    ("values too short", "csr", _replace("values", lambda a: a[:-1]), r"but there are \d+ indices and \d+ values"),
    ("list too short", "coo", _replace("major", lambda a: a[:-1]), r"coo: coords\[0\] has \d+ entries\n  why: data has \d+"),
    ("indices of two dimensions", "csr", _replace("minor", lambda a: a[None]), r"csr: indices has 2 dimensions"),
    ("values of two dimensions", "csr", _replace("values", lambda a: a[:, None]), r"csr: data has 2 dimensions"),
    ("indices are floats", "csr", _replace("minor", lambda a: a * 1.0), r"csr: indices has dtype float64\n  why: indices are integers"),
    ("fewer columns than indices", "csr", lambda p: setattr(p, "shape", (6, 2)), r"column index [234] of a is outside"),
]  # fmt: skip


@pytest.mark.parametrize("index", [np.int32, np.int64])
@pytest.mark.parametrize(("kind", "change", "text"), [b[1:] for b in BROKEN], ids=[b[0] for b in BROKEN])
def test_broken_matrices_are_refused(kind: str, change: Change, text: str, index: Any) -> None:
    parts = matrix(kind=kind, index=index)
    operand = x(5, 3)
    np.testing.assert_allclose(spmm(parts.build(), operand), dense(parts.build()) @ operand)
    change(parts)
    for _ in range(2):
        with pytest.raises(SparseStructureError, match=text):
            spmm(parts.build(), operand[: parts.shape[1]])
    again = matrix(kind=kind, index=index)
    np.testing.assert_allclose(spmm(again.build(), operand), dense(again.build()) @ operand)


@pytest.mark.parametrize("name", list(OPERATIONS))
@pytest.mark.parametrize("kind", KINDS)
def test_every_operation_refuses_an_index_out_of_range(name: str, kind: str) -> None:
    parts = matrix(kind=kind)
    shapes = {"n": 6, "m": 5, "k": 3, "l": 2}
    operands = [x(*(shapes[s] for s in shape)) for shape in OPERATIONS[name].operands]
    FUNCTIONS[name](parts.build(), *operands)
    for bad in (-1, 17, 2**31 - 1, -(2**31)):
        parts = matrix(kind=kind)
        parts.minor[2] = bad
        with pytest.raises(SparseStructureError):
            FUNCTIONS[name](parts.build(), *operands)


CHANGES: list[tuple[str, Callable[[Any], None]]] = [
    ("an index", lambda a: a.indices.__setitem__(3, 77)),
    ("a negative index", lambda a: a.indices.__setitem__(0, -1)),
    ("a pointer", lambda a: a.indptr.__setitem__(2, 10**6)),
    ("the last pointer", lambda a: a.indptr.__setitem__(-1, 10**6)),
    ("shorter indices", lambda a: setattr(a, "indices", a.indices[:2])),
    ("shorter values", lambda a: setattr(a, "data", a.data[:2])),
    ("shorter pointers", lambda a: setattr(a, "indptr", a.indptr[:3])),
    ("a larger shape", lambda a: setattr(a, "_shape", (100, 5))),
    ("a narrower shape", lambda a: setattr(a, "_shape", (6, 3))),
    ("pointers of another type", lambda a: setattr(a, "indptr", a.indptr.astype(np.float32))),
    ("a list in place of indices", lambda a: setattr(a, "data", a.data.reshape(1, -1))),
]


@pytest.mark.parametrize("fast", [True, False], ids=["dispatcher", "Python"])
@pytest.mark.parametrize("change", [c[1] for c in CHANGES], ids=[c[0] for c in CHANGES])
def test_a_matrix_changed_after_a_good_call(change: Callable[[Any], None], fast: bool) -> None:
    a, operand = matrix().build(), x(5, 3)
    kwargs: dict[str, Any] = {} if fast else {"out": np.empty((6, 3))}
    want = a.toarray() @ operand
    for _ in range(3):
        np.testing.assert_allclose(spmm(a, operand, **kwargs), want)
    change(a)
    for _ in range(3):
        with pytest.raises(PolyAIError):
            spmm(a, operand, **kwargs)
    np.testing.assert_allclose(spmm(matrix().build(), operand, **kwargs), want)


@pytest.mark.parametrize("kind", KINDS)
def test_changes_that_keep_a_matrix_valid_are_seen(kind: str) -> None:
    parts, operand = matrix(kind=kind), x(5, 3)
    a = parts.build()
    for step in range(4):
        np.testing.assert_allclose(spmm(a, operand), dense(parts.build()) @ operand)
        a.data *= -1.5
        parts.minor[:] = np.roll(parts.minor, step) if kind == "coo" else parts.minor
        operand[step] = 7.0
    if kind != "coo":
        a.resize((4, 5))
        np.testing.assert_allclose(spmm(a, operand), a.toarray() @ operand)


# --- repeated and unsorted coordinates --------------------------------------------------------------------------------------


def _shuffled(parts: Parts) -> Parts:
    """Every row's entries in descending order."""
    if parts.pointers is None:
        assert parts.major is not None
        return Parts(parts.kind, parts.shape, parts.values[::-1].copy(), parts.minor[::-1].copy(), None, parts.major[::-1].copy())
    order = np.concatenate([np.arange(a, b)[::-1] for a, b in zip(parts.pointers, parts.pointers[1:])])
    return Parts(parts.kind, parts.shape, parts.values[order], parts.minor[order], parts.pointers)


def _repeated(parts: Parts) -> Parts:
    """The second entry becomes a copy of the first."""
    parts.minor[1] = parts.minor[0]
    if parts.major is not None:
        parts.major[1] = parts.major[0]
    else:
        assert parts.pointers is not None
        parts.pointers[1] = max(2, parts.pointers[1])
    return parts


@pytest.mark.parametrize("index", [np.int32, np.int64])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", list(OPERATIONS))
def test_repeated_and_unsorted_coordinates(name: str, kind: str, index: Any) -> None:
    operation, function, shapes = OPERATIONS[name], FUNCTIONS[name], {"n": 6, "m": 5, "k": 3, "l": 2}
    operands = [x(*(shapes[s] for s in shape)) for shape in operation.operands]
    unsorted = _shuffled(matrix(kind=kind, index=index))
    for _ in range(2):
        a = unsorted.build()
        found = unsorted.coordinates()
        assert found is not None
        np.testing.assert_allclose(dense(function(a, *operands)), operation.meaning(*found, unsorted.shape, *operands))
        np.testing.assert_array_equal(a.data, unsorted.values)  # sorting happens in a copy
    repeated = _repeated(matrix(kind=kind, index=index))
    found = repeated.coordinates()
    assert found is not None
    if operation.linear:
        np.testing.assert_allclose(dense(function(repeated.build(), *operands)), operation.meaning(*found, repeated.shape, *operands))
    else:
        with pytest.raises(SparseStructureError, match=r"stores a coordinate more than once\n.*not linear in the stored values.*\n.*sum_duplicates"):
            function(repeated.build(), *operands)


@pytest.mark.parametrize(("pointers", "indices"), [(np.int64, np.int32), (np.int32, np.int64), (np.uint32, np.int32), (np.int32, np.uint64), (np.int16, np.int16)])
def test_indices_of_mixed_widths(pointers: Any, indices: Any) -> None:
    for kind in ("csr", "csc"):
        parts = matrix(kind=kind)
        want = dense(parts.build())
        parts.pointers, parts.minor = parts.pointers.astype(pointers), parts.minor.astype(indices)
        operand = x(5, 3)
        np.testing.assert_allclose(spmm(parts.build(), operand), want @ operand)
        np.testing.assert_allclose(dense(FUNCTIONS["relu"](parts.build(), operand)), np.maximum(want, 0) @ operand)
        parts.minor[0] = np.iinfo(indices).max
        with pytest.raises(SparseStructureError):
            spmm(parts.build(), operand)


# --- shapes and types ----------------------------------------------------------------------------------------------------------

MISMATCHED: list[tuple[str, tuple[tuple[int, ...], ...]]] = [
    ("spmv", ((6,),)), ("spmv", ((4,),)), ("spmm", ((6, 2),)), ("spmm", ((0, 2),)), ("spmm", ((1, 2),)), ("transposed", ((5, 2),)), ("from the left", ((2, 5),)),
    ("sddmm", ((5, 3), (6, 3))), ("sddmm", ((6, 3), (5, 4))), ("sddmm", ((6, 3), (1, 3))), ("relu", ((6, 1),)), ("attention", ((6, 3), (5, 3), (6, 2))),
    ("attention", ((5, 3), (5, 3), (5, 2))), ("attention", ((6, 3), (5, 2), (5, 2))), ("attention", ((1, 3), (5, 3), (5, 2))), ("layer", ((5, 3), (2, 2))),
]  # fmt: skip


@pytest.mark.parametrize(("name", "shapes"), MISMATCHED, ids=[f"{n}{s}" for n, s in MISMATCHED])
def test_shapes_that_do_not_fit(name: str, shapes: tuple[tuple[int, ...], ...]) -> None:
    sizes = {"n": 6, "m": 5, "k": 3, "l": 2}
    fitting = [x(*(sizes[s] for s in shape)) for shape in OPERATIONS[name].operands]
    a = matrix().build()
    for warm in (False, True):
        if warm:
            FUNCTIONS[name](a, *fitting)
        with pytest.raises(ShapeError):
            FUNCTIONS[name](a, *(x(*s) for s in shapes))


def test_ranks_that_do_not_fit() -> None:
    a = matrix().build()
    for operand in (np.float64(2), np.zeros(()), x(2, 3, 4, 5)):
        with pytest.raises(PolyAIError):
            spmm(a, operand)


REFUSED_VALUES: list[tuple[str, Any, type[Exception], str]] = [
    ("objects", np.array([[None, 1.0]], object), DTypeError, "x has dtype object"),
    ("texts", np.array([["a", "b"]]), DTypeError, "x has dtype <U1"),
    ("dates", np.array(["2020-01-01"], "M8[D]"), DTypeError, "x has dtype datetime64"),
    ("records", np.zeros(2, [("a", "f8")]), DTypeError, "x has dtype"),
    ("masked", np.ma.masked_array(np.ones((2, 2)), [[True, False], [False, False]]), UnsupportedError, "x is a masked array"),
    ("a set", {1.0, 2.0}, TraceError, "x cannot be traced\n.*its type is set"),
    ("an object", object(), TraceError, "x cannot be traced"),
    ("a generator", (i for i in range(3)), TraceError, "x cannot be traced"),
]  # fmt: skip


@pytest.mark.parametrize(("value", "error", "text"), [r[1:] for r in REFUSED_VALUES], ids=[r[0] for r in REFUSED_VALUES])
def test_values_that_are_no_arrays(value: Any, error: type[Exception], text: str) -> None:
    function = pa.jit(lambda x: x * 2)
    for _ in range(2):
        with pytest.raises(error, match=text):
            function(value)
        np.testing.assert_array_equal(function(np.ones(3)), np.full(3, 2.0))


def test_long_doubles_are_refused() -> None:
    if np.dtype(np.longdouble).itemsize > 8:
        with pytest.raises(DTypeError, match=r"x has dtype (float|complex)"):
            pa.jit(lambda x: x * 2)(np.ones(2, np.longdouble))


def test_types_that_do_not_combine() -> None:
    a = np.ones((2, 2))
    for fn, text in [
        (lambda a: a << 1, "not defined for f64"),
        (lambda a: a & True, "not defined for f64"),
        (lambda a: pa.bitwise_invert(a), "not defined for f64"),
        (lambda a: -(a > 0), "not defined for bool"),
        (lambda a: a.astype(complex) > 1, "c128"),
        (lambda a: pa.maximum(a * 1j, a), "c128"),
    ]:
        with pytest.raises(DTypeError, match=text):
            pa.jit(fn)(a)


# --- sizes 0 and 1, empty rows ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(0, 0), (0, 4), (4, 0), (1, 1), (1, 7), (7, 1), (5, 5)])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", list(OPERATIONS))
def test_empty_matrices_and_thin_ones(name: str, kind: str, shape: tuple[int, int]) -> None:
    n, m = shape
    operation = OPERATIONS[name]
    for k in (0, 1, 3):
        sizes = {"n": n, "m": m, "k": k, "l": 2}
        operands = [x(*(sizes[s] for s in wanted)) for wanted in operation.operands]
        for parts in (good(np.random.default_rng(k), kind, n, m, np.int32), Parts(kind, shape, np.zeros(0), np.zeros(0, np.int32), None if kind == "coo" else np.zeros((m if kind == "csc" else n) + 1, np.int32), np.zeros(0, np.int32))):
            r, c, v = parts.coordinates() or ((), (), ())
            if not operation.linear and len(set(zip(r, c))) != len(r):
                continue
            with np.errstate(all="ignore"):
                want = operation.meaning(r, c, v, shape, *operands)
            got = FUNCTIONS[name](parts.build(), *operands)
            assert got.shape == want.shape
            np.testing.assert_allclose(dense(got), want, atol=1e-12)


# --- infinities and NaN --------------------------------------------------------------------------------------------------------


def test_stored_values_follow_ieee_and_what_is_not_stored_annihilates() -> None:
    a = sp.csr_array(np.array([[1.0, 0, 0], [0, np.inf, 0], [np.nan, 0, 0], [0, 0, 0], [0, -np.inf, 2.0]]))
    operand = np.array([[1.0, np.inf], [0.0, 2.0], [np.nan, -1.0]])
    with np.errstate(all="ignore"):
        want = np.array([[1.0, np.inf], [np.nan, np.inf], [np.nan, np.nan], [0.0, 0.0], [np.nan, -np.inf]])
        np.testing.assert_array_equal(a @ operand, want)  # SciPy agrees
    for given in (a, a.tocsc(), a.tocoo()):
        np.testing.assert_array_equal(spmm(given, operand), want)
        np.testing.assert_array_equal(spmv(given, operand[:, 1].copy()), want[:, 1])
    stored = a * 1.0
    stored.data[0] = 0.0  # a stored zero takes part: 0 * inf is NaN
    np.testing.assert_array_equal(np.isnan(spmm(stored, operand)[0]), [False, True])


def test_nan_in_dense_functions() -> None:
    v = np.array([1.0, np.nan, -np.inf, np.inf, -0.0])
    for fn, reference in [
        (lambda v: pa.maximum(v, 0.0), lambda v: np.maximum(v, 0.0)), (lambda v: pa.minimum(v, 1.0), lambda v: np.minimum(v, 1.0)),
        (lambda v: pa.clip(v, -1, 1), lambda v: np.clip(v, -1, 1)), (lambda v: pa.sign(v), np.sign), (lambda v: v.max(), np.max), (lambda v: v.min(), np.min),
        (lambda v: v.sum(), np.sum), (lambda v: v * 0, lambda v: v * 0), (lambda v: pa.exp(v), np.exp), (lambda v: pa.sqrt(v), np.sqrt), (lambda v: pa.tanh(v), np.tanh),
        (lambda v: v == v, lambda v: v == v), (lambda v: pa.where(v > 0, v, 0), lambda v: np.where(v > 0, v, 0)), (lambda v: pa.relu(v), lambda v: np.maximum(v, 0)),
        (lambda v: pa.nan_to_num(v), np.nan_to_num), (lambda v: 1 / v, lambda v: 1 / v), (lambda v: pa.isnan(v) | pa.isinf(v), lambda v: np.isnan(v) | np.isinf(v)),
    ]:  # fmt: skip
        with np.errstate(all="ignore"):
            want = reference(v)
            got = pa.jit(fn)(v)
        np.testing.assert_allclose(got, want)
        np.testing.assert_array_equal(np.signbit(got), np.signbit(want)) if np.asarray(want).dtype.kind == "f" and not np.isnan(want).any() else None


def test_softmax_of_rows_that_are_empty_or_infinite() -> None:
    a = sp.csr_array((np.array([1.0, 2.0, -np.inf, 0.0, np.nan, 1.0, np.inf, 1.0]), np.array([0, 2, 0, 1, 1, 2, 0, 1]), np.array([0, 2, 2, 4, 6, 8])), shape=(5, 3))
    got = FUNCTIONS["softmax"](a)
    rows = [got.data[s:e] for s, e in zip(a.indptr, a.indptr[1:])]
    np.testing.assert_allclose(rows[0], np.exp([1.0, 2.0]) / np.exp([1.0, 2.0]).sum())
    assert len(rows[1]) == 0
    np.testing.assert_allclose(rows[2], [0.0, 1.0])
    assert np.isnan(rows[3]).all() and np.isnan(rows[4]).any()


# --- gathers and scatters --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("index", [np.int32, np.int64, np.int8, np.uint8, np.uint64])
def test_gathered_indices(index: Any) -> None:
    take = pa.jit(lambda t, i: t[i])
    table, unsigned = x(9, 4), np.dtype(index).kind == "u"
    good_ones = np.array([0, 8, 3, 3, 5] if unsigned else [0, 8, -1, -9, 3], index)
    for _ in range(2):
        np.testing.assert_array_equal(take(table, good_ones), table[good_ones])
        for bad in (9, 100, np.iinfo(index).max) if unsigned else (9, -10, 100, np.iinfo(index).max, np.iinfo(index).min):
            for at in (0, 4):
                ids = good_ones.copy()
                ids[at] = bad
                with pytest.raises(IndexOutOfRangeError):
                    take(table, ids)
        np.testing.assert_array_equal(take(table, good_ones[:0]), table[good_ones[:0]])
        with pytest.raises(IndexOutOfRangeError):
            take(table[:0], good_ones)


INDEXED: list[tuple[str, Callable[..., Any], Callable[..., Any]]] = [
    ("rows", lambda t, i: t[i, 1], lambda t, i: t[i, 1]),
    ("embedding", lambda t, i: pa.embedding(t, i), lambda t, i: t[i]),
    ("take", lambda t, i: pa.take(t, i, axis=1), lambda t, i: np.take(t, i, axis=1)),
    ("pairs", lambda t, i: t[i, i], lambda t, i: t[i, i]),
    ("take_along_axis", lambda t, i: pa.take_along_axis(t, i[:, None], 1), lambda t, i: np.take_along_axis(t, i[:, None], 1)),
    ("set", lambda t, i: t.at[i, 0].add(1.0), lambda t, i: _added(t, i)),
    ("one row", lambda t, i: t[i[0]], lambda t, i: t[i[0]]),
    ("bincount", lambda t, i: pa.bincount(i, minlength=4) + 0.0 * t[0, 0], lambda t, i: np.bincount(i, minlength=4) + 0.0 * t[0, 0]),
    ("segments", lambda t, i: pa.segment_sum(t, i, 4), lambda t, i: _segments(t, i)),
]  # fmt: skip


def _added(t: Any, i: Any) -> Any:
    out = t.copy()
    np.add.at(out, (i, 0), 1.0)
    return out


def _segments(t: Any, i: Any) -> Any:
    out = np.zeros((4, t.shape[1]))
    np.add.at(out, i, t)
    return out


@pytest.mark.parametrize(("fn", "reference"), [i[1:] for i in INDEXED], ids=[i[0] for i in INDEXED])
def test_indices_out_of_range(fn: Callable[..., Any], reference: Callable[..., Any]) -> None:
    function, table = pa.jit(fn), x(4, 4)
    ids = np.array([3, 0, 1, 1])
    np.testing.assert_allclose(function(table, ids), reference(table, ids))
    for bad in (4, 1000, 2**31, 2**62, -5, -(2**40)):
        wrong = ids.copy()
        wrong[0] = bad
        with pytest.raises(IndexOutOfRangeError):
            function(table, wrong)
    np.testing.assert_allclose(function(table, ids), reference(table, ids))


def test_a_condition_on_values_does_not_hide_a_read_outside_of_an_array() -> None:
    """Nothing proves that `v` is zero wherever x ends: where it is not, the call raises, and nothing outside is read."""

    @pa.jit
    def shifted(v: Any, x: Any) -> Any:
        (i,) = pa.indices("i")
        return pa.comprehension((i,), pa.where(v[i] != 0, x[i + 3], 7.0))

    @pa.jit
    def both(v: Any, x: Any) -> Any:
        i = pa.index("i", v.shape[0])
        return pa.comprehension((i,), pa.where((v[i] != 0) & (i + 3 < x.shape[0]), x[i + 3], 7.0))

    for n in (5, 64, 9001):
        v, x = np.ones(n), np.arange(float(n))
        with pytest.raises(pa.errors.IndexOutOfRangeError, match=f"index {n} is out of range for dimension 0 of x"):
            shifted(v, x)
        exact = np.append(x[3:], [7.0] * 3)
        np.testing.assert_array_equal(both(v, x), exact)
        v[-3:] = 0
        np.testing.assert_array_equal(shifted(v, x), exact)
        np.testing.assert_array_equal(both(v, x), exact)
        if n > 5:
            v[n // 2] = 0
            exact[n // 2] = 7
            np.testing.assert_array_equal(shifted(v, x), exact)
