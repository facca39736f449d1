"""Wrong, hostile and odd input to expressions over several sparse arrays: a typed error that says why, or the right result.

What PolyAI does not compile yet is tested for its refusal; when it is taken out of refused.txt the rest of each test holds it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp

import polyai as pa
from polyai.errors import DTypeError, PolyAIError, ShapeError, SparseStructureError, UnsupportedError
from tests.frontend.helpers import dense
from tests.sparse_suite import cases
from tests.sparse_suite import model as oracle
from tests.sparse_suite.data import model_of

REFUSED = cases.refused()
Fn = Callable[..., Any]

PAIRS: dict[str, tuple[str, Fn]] = {
    "A + B": ("two: A + B", lambda pa, a, b: a + b), "A - B": ("two: A - B", lambda pa, a, b: a - b), "A * B": ("two: A * B", lambda pa, a, b: a * b),
    "maximum": ("two: maximum(A, B)", lambda pa, a, b: pa.maximum(a, b)), "A != B": ("two: A != B", lambda pa, a, b: a != b),
    "A @ B.T": ("two: A @ B.T", lambda pa, a, b: a @ b.T), "sum(A * B)": ("two: sum(A * B)", lambda pa, a, b: (a * b).sum()),
    "A @ x + B @ x": ("two and dense: A @ x + B @ x", lambda pa, a, b: a @ np.ones(5) + b @ np.ones(5)),
    "(A + B) @ x": ("two and dense: (A + B) @ x", lambda pa, a, b: (a + b) @ np.ones(5)),
}  # fmt: skip
ONES = {"A @ x + B @ x": lambda pa, a, b: a.sum(axis=1) + b.sum(axis=1), "(A + B) @ x": lambda pa, a, b: (a + b).sum(axis=1)}
FUNCTIONS = {name: pa.jit(lambda a, b, fn=fn: fn(pa, a, b), name="pair") for name, (_, fn) in PAIRS.items()}


def refused(name: str, formats: str = "csr,csr") -> bool:
    return f"{PAIRS[name][0]} [{formats}]" in REFUSED


def wanted(name: str, a: Any, b: Any) -> Any:
    return ONES.get(name, PAIRS[name][1])(oracle, model_of(a), model_of(b)).values


def pair(seed: int = 0, kind: str = "csr") -> tuple[Any, Any]:
    rng = np.random.default_rng(seed)
    out = []
    for _ in range(2):
        full = np.where(rng.random((6, 5)) < 0.5, rng.integers(1, 5, (6, 5)), 0).astype(float)
        full[:2, :2] = 1.0
        out.append(getattr(sp, f"{kind}_array")(full))
    return out[0], out[1]


def call(name: str, a: Any, b: Any) -> Any:
    """The result, or None if this is not compiled yet."""
    if refused(name):
        with pytest.raises(UnsupportedError):
            FUNCTIONS[name](a, b)
        return None
    return FUNCTIONS[name](a, b)


# --- rows that end first -----------------------------------------------------------------------------------------------------

TAILS = {
    "the first ends first": ([0, 1], [0, 1, 2, 3, 4]), "the second ends first": ([0, 1, 2, 3, 4], [0, 1]), "the first begins last": ([3, 4], [0, 1, 4]),
    "nothing in common, first before": ([0, 1], [2, 3, 4]), "nothing in common, first after": ([2, 3, 4], [0, 1]), "alternating": ([0, 2, 4], [1, 3]),
    "one in the middle": ([2], [0, 1, 2, 3, 4]), "equal ends": ([0, 4], [4]), "the first is empty": ([], [0, 2]), "the second is empty": ([1, 4], []),
}  # fmt: skip


@pytest.mark.parametrize("name", list(PAIRS))
def test_tails(name: str) -> None:
    """Each row is one way in which two lists of coordinates may end, each also as the only row and as the last one."""
    rows = list(TAILS.values())
    for chosen in (rows, rows[::-1], *([row] for row in rows)):
        a, b = (
            sp.csr_array((np.arange(1.0, 1 + sum(map(len, c))), np.array([j for r in c for j in r], np.int32), np.cumsum([0, *map(len, c)])), shape=(len(c), 5))
            for c in ([r[0] for r in chosen], [r[1] for r in chosen])
        )
        got = call(name, a, b)
        if got is not None:
            np.testing.assert_allclose(dense(got), wanted(name, a, b), err_msg=str(chosen))


# --- shapes and types ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(5, 6), (6, 4), (7, 5), (0, 5), (6, 0), (2, 6, 5)])
@pytest.mark.parametrize("name", ["A + B", "A - B", "A * B", "maximum", "A != B", "sum(A * B)"])
def test_shapes_that_do_not_fit(name: str, shape: tuple[int, ...]) -> None:
    a, b = pair()
    other = sp.csr_array(np.ones(shape)) if len(shape) == 2 else sp.coo_array(np.ones(shape))
    call(name, a, b)
    for first, second in ((a, other), (other, a)):
        with pytest.raises((ShapeError, UnsupportedError) if refused(name) or len(shape) == 3 else ShapeError):
            FUNCTIONS[name](first, second)
    call(name, a, b)


@pytest.mark.parametrize(("left", "right"), [((6, 5), (4, 3)), ((6, 5), (6, 5)), ((0, 5), (6, 3)), ((1, 1), (5, 5))])
def test_products_that_do_not_fit(left: tuple[int, int], right: tuple[int, int]) -> None:
    a, b = (sp.csr_array(np.ones(s)) for s in (left, right))
    product = pa.jit(lambda a, b: a @ b)
    listed = "two to multiply: A @ B [csr,csr]" in REFUSED
    for _ in range(2):
        with pytest.raises((ShapeError, UnsupportedError) if listed else ShapeError):
            product(a, b)


def test_sparse_and_dense_that_do_not_fit() -> None:
    a, _ = pair()
    for fn, other in [
        (lambda a, d: a * d, np.ones((5, 6))), (lambda a, d: a + d, np.ones((6, 4))), (lambda a, d: a / d, np.ones((7, 1))), (lambda a, d: a @ d, np.ones((6, 2))),
        (lambda a, d: d @ a, np.ones((2, 5))), (lambda a, d: a.multiply(d), np.ones(6)), (lambda a, d: d - a, np.ones(4)),
    ]:  # fmt: skip
        function = pa.jit(fn)
        for _ in range(2):
            with pytest.raises(ShapeError):
                function(a, other)


def test_complex_numbers_have_no_order() -> None:
    a, b = (m.astype(complex) for m in pair())
    for fn in (lambda a, b: pa.maximum(a, a * 2), lambda a, b: pa.relu(a), lambda a, b: a > 0, lambda a, b: a.max()):
        with pytest.raises(DTypeError):
            pa.jit(fn)(a, b)
    for fn in (lambda a, b: pa.maximum(a, b), lambda a, b: a < b):
        with pytest.raises((DTypeError, UnsupportedError)):
            pa.jit(fn)(a, b)


# --- masks ----------------------------------------------------------------------------------------------------------------------

MASKED: dict[str, Fn] = {
    "sddmm": lambda m: pa.jit(lambda q, k, m: pa.sddmm(q, k, m))(np.ones((6, 3)), np.ones((5, 3)), m),
    "attention": lambda m: pa.jit(lambda q, k, v, m: pa.sparse_attention(q, k, v, mask=m))(np.ones((6, 3)), np.ones((5, 3)), np.ones((5, 2)), m),
    "times a product": lambda m: pa.jit(lambda q, k, m: m * (q @ k.T))(np.ones((6, 3)), np.ones((5, 3)), m),
    "where": lambda m: pa.jit(lambda m, a: pa.where(m, a, 0.0))(m, np.ones((6, 5))),
}  # fmt: skip


@pytest.mark.parametrize("shape", [(5, 6), (6, 4), (5, 5), (7, 5), (0, 0)])
@pytest.mark.parametrize("name", list(MASKED))
def test_masks_of_the_wrong_shape(name: str, shape: tuple[int, int]) -> None:
    MASKED[name](sp.csr_array(np.ones((6, 5))))
    for kind in ("csr", "csc", "coo"):
        with pytest.raises(ShapeError):
            MASKED[name](getattr(sp, f"{kind}_array")(np.ones(shape)))


@pytest.mark.parametrize("shape", [(5, 6), (6, 4), (1, 1)])
def test_masks_of_products_of_the_wrong_shape(shape: tuple[int, int]) -> None:
    a, b, mask = sp.csr_array(np.ones((6, 4))), sp.csr_array(np.ones((4, 5))), sp.csr_array(np.ones(shape))
    group = next(g for g in cases.groups() if g.expression.name == "masked product")
    if cases.missing(group.expression):
        assert str(group) in REFUSED
        return
    for complement in (False, True):
        with pytest.raises(ShapeError):
            pa.jit(lambda a, b, m, c=complement: pa.matmul(a, b, mask=m, complement=c))(a, b, mask)  # type: ignore[call-arg]


# --- arrays changed in place --------------------------------------------------------------------------------------------------

CHANGES: dict[str, Callable[[Any], Any]] = {
    "a column too large": lambda a: a.indices.__setitem__(3, 77),
    "a column far too large": lambda a: a.indices.__setitem__(3, 2**31 - 1),
    "a negative column": lambda a: a.indices.__setitem__(0, -1),
    "a pointer too large": lambda a: a.indptr.__setitem__(2, 10**6),
    "pointers that fall": lambda a: a.indptr.__setitem__(3, 0),
    "a negative pointer": lambda a: a.indptr.__setitem__(2, -3),
    "the first pointer": lambda a: a.indptr.__setitem__(0, 1),
    "the last pointer": lambda a: a.indptr.__setitem__(-1, 10**6),
    "fewer indices": lambda a: setattr(a, "indices", a.indices[:2]),
    "fewer values": lambda a: setattr(a, "data", a.data[:2]),
    "fewer pointers": lambda a: setattr(a, "indptr", a.indptr[:3]),
    "pointers of another type": lambda a: setattr(a, "indptr", a.indptr.astype(np.float32)),
}  # fmt: skip


@pytest.mark.parametrize("change", list(CHANGES))
@pytest.mark.parametrize("name", list(PAIRS))
def test_operands_changed_after_a_good_call(name: str, change: str) -> None:
    for which in (0, 1):
        operands = pair()
        first = call(name, *operands)
        if first is None:
            return
        np.testing.assert_allclose(dense(call(name, *operands)), wanted(name, *operands))
        CHANGES[change](operands[which])
        for _ in range(2):
            with pytest.raises(PolyAIError):
                call(name, *operands)
        np.testing.assert_allclose(dense(call(name, *pair())), wanted(name, *pair()))


@pytest.mark.parametrize("kind", ["csr", "csc", "coo", "bsr", "dia", "lil", "dok"])
@pytest.mark.parametrize("name", ["A @ x + B @ x", "A + B", "A * B", "A @ B.T"])
def test_every_kind_of_scipy_gives_the_same(name: str, kind: str) -> None:
    a, b = pair()
    other = pair(kind=kind)
    try:
        got = FUNCTIONS[name](*other)
    except UnsupportedError as error:
        assert refused(name) or (kind == "dia" and error.remedy), error
        return
    np.testing.assert_allclose(dense(got), wanted(name, a, b))
    mixed = FUNCTIONS[name](a, other[1])
    np.testing.assert_allclose(dense(mixed), wanted(name, a, b))


# --- order and repetition -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", list(PAIRS))
def test_unsorted_and_repeated_entries_stay_as_they_are(name: str) -> None:
    a, b = pair()
    backwards = a.copy()
    for row in range(6):
        part = slice(backwards.indptr[row], backwards.indptr[row + 1])
        backwards.indices[part], backwards.data[part] = backwards.indices[part][::-1].copy(), backwards.data[part][::-1].copy()
    twice = sp.csr_array((np.repeat(a.data, 2), np.repeat(a.indices, 2), a.indptr * 2), shape=a.shape)
    for given, meaning in ((backwards, a), (twice, a * 2.0)):
        before = (given.data.copy(), given.indices.copy(), given.indptr.copy())
        for operands, clean in (((given, b), (meaning, b)), ((b, given), (b, meaning)), ((given, given), (meaning, meaning))):
            try:
                got = FUNCTIONS[name](*operands)
            except UnsupportedError:
                assert refused(name)
            except SparseStructureError as error:
                assert given is twice and "sum_duplicates" in str(error)
            else:
                np.testing.assert_allclose(dense(got), wanted(name, *clean))
        for now, then in zip((given.data, given.indices, given.indptr), before):
            np.testing.assert_array_equal(now, then)


# --- who owns what ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["A + B", "A * B", "A @ B.T"])
def test_results_share_no_memory_with_operands(name: str) -> None:
    a, b = pair()
    got = call(name, a, b)
    if got is None:
        return
    for mine in (got.data, got.indices, got.indptr):
        for theirs in (a.data, a.indices, a.indptr, b.data, b.indices, b.indptr):
            assert not np.may_share_memory(mine, theirs)
    want = dense(got).copy()
    a.data[:], b.data[:] = 0, 0
    np.testing.assert_array_equal(dense(got), want)


@pytest.mark.parametrize("name", list(PAIRS))
def test_an_operand_with_itself(name: str) -> None:
    a, b = pair()
    shared = sp.csr_array((b.data[: a.nnz] if b.nnz >= a.nnz else np.ones(a.nnz), a.indices, a.indptr), shape=a.shape)
    for operands in ((a, a), (a, shared)):
        got = call(name, *operands)
        if got is not None:
            np.testing.assert_allclose(dense(got), wanted(name, *operands))


# --- numbers ------------------------------------------------------------------------------------------------------------------


def test_values_that_are_not_numbers() -> None:
    a = sp.csr_array(np.array([[np.inf, np.nan, 0, 2.0], [0, 1.0, -np.inf, 0], [np.nan, 0, 0, np.inf]]))
    b = sp.csr_array(np.array([[-np.inf, 1.0, np.nan, 0], [np.inf, 0, np.inf, 0], [0, 0, 5.0, np.nan]]))
    for name in ("A + B", "A - B", "A * B", "maximum", "A != B"):
        got = call(name, a, b)
        if got is not None:
            np.testing.assert_array_equal(dense(got), wanted(name, a, b), err_msg=name)
    scaled = pa.jit(lambda a: a * 2)(a)
    np.testing.assert_array_equal(scaled.toarray(), a.toarray() * 2)


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int16, np.int32])
def test_integers_wrap(dtype: Any) -> None:
    top = np.iinfo(dtype).max
    a, b = sp.csr_array(np.array([[top, 1, 0]], dtype)), sp.csr_array(np.array([[1, 0, top]], dtype))
    with np.errstate(all="ignore"):
        for name, reference in (("A + B", np.add), ("A - B", np.subtract), ("A * B", np.multiply)):
            got = call(name, a, b)
            if got is not None:
                assert got.dtype == dtype
                np.testing.assert_array_equal(got.toarray(), reference(a.toarray(), b.toarray()))
        np.testing.assert_array_equal(pa.jit(lambda a: a + a)(a).toarray(), a.toarray() + a.toarray())


# --- sizes beyond memory --------------------------------------------------------------------------------------------------------

HUGE = 2**40


def lists() -> tuple[Any, Any]:
    return (
        sp.coo_array((np.array([1.0, 2.0, 3.0]), (np.array([0, 5, HUGE - 1]), np.array([HUGE - 1, 7, 0]))), shape=(HUGE, HUGE)),
        sp.coo_array((np.array([4.0, 5.0]), (np.array([5, 9]), np.array([7, 7]))), shape=(HUGE, HUGE)),
    )


def wide() -> tuple[Any, Any]:
    return (
        sp.csr_array((np.array([1.0, 2, 3]), np.array([0, 2**39, HUGE - 1]), np.array([0, 1, 1, 3])), shape=(3, HUGE)),
        sp.csr_array((np.array([1.0, 2, 3]), np.array([0, 1, HUGE - 1]), np.array([0, 2, 2, 3])), shape=(3, HUGE)),
    )


@pytest.mark.parametrize("operands", [lists, wide], ids=["lists", "wide"])
def test_virtual_shapes_cost_nothing_where_results_are_sparse(operands: Callable[[], tuple[Any, Any]]) -> None:
    a, b = operands()
    kind = a.format
    for fn, reference in ((lambda a: a * 2, lambda a: a * 2), (lambda a: abs(-a), abs), (lambda a: a.T, lambda a: a.T), (lambda a: pa.relu(a), lambda a: a)):
        got, want = pa.jit(fn)(a).tocoo(), reference(a).tocoo()
        assert got.shape == want.shape
        np.testing.assert_array_equal(got.data, want.data)
        np.testing.assert_array_equal(np.stack(got.coords), np.stack(want.coords))
    assert pa.jit(lambda a: (a.sum(), a.max(), a.min(), a.count_nonzero()))(a) == (6.0, 3.0, 0.0, 3)
    for name in ("A + B", "A * B", "maximum"):
        if refused(name, f"{kind},{kind}"):
            with pytest.raises(UnsupportedError):
                FUNCTIONS[name](a, b)
            continue
        try:
            got = FUNCTIONS[name](a, b).tocoo()
        except ShapeError as error:  # row pointers of so many rows: refused before they are made
            assert kind == "coo" and "bytes" in str(error) and error.remedy
            continue
        want = (a * b if name == "A * B" else a.maximum(b) if name == "maximum" else a + b).tocoo()
        order = np.lexsort(got.coords[::-1])
        np.testing.assert_array_equal(np.stack(got.coords)[:, order], np.stack(want.coords)[:, np.lexsort(want.coords[::-1])])


@pytest.mark.parametrize("fn", [
    lambda a: a.toarray(), lambda a: a.sum(axis=0), lambda a: a.T.sum(axis=1), lambda a: a + pa.ones((a.shape[0], a.shape[1])), lambda a: a.max(axis=0),
], ids=["toarray", "columns", "rows of the transpose", "plus dense", "largest of columns"])  # fmt: skip
@pytest.mark.parametrize("operands", [lists, wide], ids=["lists", "wide"])
def test_dense_results_beyond_memory_are_errors(operands: Callable[[], tuple[Any, Any]], fn: Fn) -> None:
    a, _ = operands()
    function = pa.jit(fn)
    for _ in range(2):
        with pytest.raises((PolyAIError, MemoryError)):
            function(a)


@pytest.mark.parametrize("operands", [lists, wide], ids=["lists", "wide"])
def test_products_of_huge_shapes(operands: Callable[[], tuple[Any, Any]]) -> None:
    """A product may refuse for want of memory; it may not take it, nor be wrong."""
    a, b = operands()
    try:
        got = pa.jit(lambda a, b: a @ b.T)(a, b)
    except (PolyAIError, MemoryError):
        return
    want = {(int(i), int(k)): float(x * y) for i, j, x in zip(*a.tocoo().coords, a.tocoo().data) for k, m, y in zip(*b.tocoo().coords, b.tocoo().data) if j == m}
    plain = got.tocoo()
    assert {(int(i), int(k)): float(v) for i, k, v in zip(*plain.coords, plain.data)} == want


def test_nothing_stored_at_all() -> None:
    for shape in ((0, 0), (0, 7), (7, 0), (1, 1), (HUGE, HUGE)):
        a = sp.coo_array(shape)
        assert pa.jit(lambda a: a * 2)(a).nnz == 0
        assert pa.jit(lambda a: a.sum())(a) == 0.0
        for name in ("A + B", "A * B"):
            if not refused(name, "coo,coo") and shape != (HUGE, HUGE):
                assert FUNCTIONS[name](a, a.copy()).nnz == 0


def test_out_takes_no_sparse_result() -> None:
    a, b = pair()
    with pytest.raises(ShapeError, match="out cannot receive a sparse result"):
        pa.jit(lambda a: a * 2)(a, out=np.zeros((6, 5)))
    if not refused("A + B"):
        with pytest.raises(ShapeError, match="out cannot receive a sparse result"):
            FUNCTIONS["A + B"](a, b, out=np.zeros((6, 5)))


HANDED_ON: dict[str, Fn] = {
    "tril": lambda a: pa.tril(a), "triu": lambda a: pa.triu(a), "columns": lambda a: a[:, 10:40], "mask": lambda a: a[:, np.arange(60) % 2 == 0],
    "permuted": lambda a: a[np.arange(59, -1, -1)], "reshape": lambda a: a.reshape((30, 120)), "kron": lambda a: pa.kron(a, sp.csr_array(np.eye(2))),
    "transposed": lambda a: pa.asformat(a, "csc"), "stacked": lambda a: pa.vstack([a, a]),
}  # fmt: skip


@pytest.mark.parametrize("wrong", [2**30, -5, 60])
@pytest.mark.parametrize("name", HANDED_ON)
def test_coordinates_that_are_only_handed_on_are_checked(name: str, wrong: int) -> None:
    """No array is read at them: a result would hold them, or silently lack an element."""
    good = sp.random_array((60, 60), density=0.1, format="csr", rng=np.random.default_rng(0))
    function = pa.jit(HANDED_ON[name])
    want = [plain.toarray() for _ in range(3) if (plain := function(good)) is not None]
    broken = good.copy()
    broken.indices[7] = wrong
    for _ in range(2):
        with pytest.raises(PolyAIError, match=str(wrong)):
            function(broken)
    np.testing.assert_array_equal(function(good).toarray(), want[0])
