"""Runs of equal coordinates, and rows that threads own: the same sums for lists in any order; what is not such a list stays."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from polyai.loop import build as b
from polyai.loop.interp import run
from polyai.loop.nodes import Check, Const, For, Kernel, Kind, Let, LoopExpr, Param, Site, Stmt, Store, While
from polyai.loop.passes.order import lower_loops
from polyai.loop.passes.owners import owners
from polyai.loop.passes.runs import runs
from polyai.loop.verify import verify
from polyai.loop.walks import all_stmts
from polyai.scalar import dtype as dt

LISTS = (("I", "K"),)
SHORT = {"n": 100, "rows": 50, "columns": 50, "w": 16}
LONG = {"n": 100_000, "rows": 5, "columns": 50, "w": 16}


def coordinate(name: str, array: str, extent: str, site: int) -> list[Stmt]:
    value = b.convert(b.load(array, (b.var("q"),), dt.i32), dt.i64)
    return [Let(name, value), Check(b.below(b.var(name), b.var(extent)), site, b.var(name))]


def kernel(kept: str = "i", shared: bool = False, op: str = "add", clear: bool = False) -> Kernel:
    """Y[i * w + j] op= V[q] * A[i * w + j] * B[k * w + j] along a list; `kept` names the coordinate in place of i. `shared`: by columns."""
    q, w, j = b.var("q"), b.var("w"), b.var("j")

    def at(name: str) -> tuple[LoopExpr, ...]:
        return (b.add(b.mul(b.var(name), w), j),)

    value: LoopExpr = b.load("V", (q,), dt.f64)
    for array, name in (("A", "i"), ("B", "k")):
        value = b.apply("mul", (value, b.load(array, at(name), dt.f64)), dt.f64)
    update = Store("Y", at(kept), b.apply(op, (b.load("Y", at(kept), dt.f64), value), dt.f64))
    first = b.mul(b.var("c"), b.const(16)) if shared else b.ZERO
    last = b.smallest(w, b.mul(b.var("c_end"), b.const(16))) if shared else w
    steps = [*coordinate("k", "K", "columns", 1), *coordinate("i", "I", "rows", 0)]
    body: Stmt = For("q", b.ZERO, b.var("n"), Block(*steps, For("j", first, last, update, Kind.VECTOR)))
    if shared:
        pieces = b.floordiv(b.add(w, b.const(15)), b.const(16))
        body = For("c", b.ZERO, pieces, Block(body), Kind.PARALLEL, cost=1000, stretch="c_end")
    extent = b.var("rows" if kept == "i" else "columns")
    if clear:
        zero = Store("Y", (b.add(b.mul(b.var("r"), w), b.var("e")),), Const(0.0, dt.f64))
        body = Block(For("r", b.ZERO, extent, Block(For("e", b.ZERO, w, Block(zero), Kind.VECTOR)), Kind.PARALLEL), body)
    sizes = tuple(Param(n, dt.i64, "size") for n in ("n", "rows", "columns", "w"))
    lists = tuple(Param(n, dt.i32, "input", (b.var("n"),)) for n in ("I", "K"))
    dense = tuple(Param(n, dt.f64, "input", (b.mul(b.var(e), w),)) for n, e in (("A", "rows"), ("B", "columns")))
    params = (*sizes, *lists, Param("V", dt.f64, "input", (b.var("n"),)), *dense, Param("Y", dt.f64, "output", (b.mul(extent, w),)))
    return Kernel("list", params, body, (Site("IndexOutOfRangeError", "i {value}"), Site("IndexOutOfRangeError", "k {value}")))


def Block(*stmts: Stmt) -> Stmt:
    return b.block(*stmts)


def arguments(n: int, order: str, rows: int = 7, columns: int = 5, w: int = 6) -> dict[str, Any]:
    rng = np.random.default_rng(n)
    i, k = rng.integers(0, rows, n).astype(np.int32), rng.integers(0, columns, n).astype(np.int32)
    if order == "one row":
        i[:] = rows - 2
    if order != "any":
        by = np.lexsort((k, i))
        i, k = i[by], k[by]
    return {
        "n": n, "rows": rows, "columns": columns, "w": w, "I": i, "K": k, "V": rng.standard_normal(n),
        "A": rng.standard_normal(rows * w), "B": rng.standard_normal(columns * w),
    }  # fmt: skip


def expected(given: dict[str, Any], kept: str, op: str, start: float) -> np.ndarray[Any, Any]:
    w = given["w"]
    A, B = given["A"].reshape(-1, w), given["B"].reshape(-1, w)
    out = np.full((given["rows" if kept == "i" else "columns"], w), start)
    which = np.add if op == "add" else np.maximum
    which.at(out, given["I" if kept == "i" else "K"], given["V"][:, None] * A[given["I"]] * B[given["K"]])
    return out.reshape(-1)


def results(changed: Kernel, given: dict[str, Any], start: float = 0.0) -> list[np.ndarray[Any, Any]]:
    """What a kernel computes, with its parallel loops forwards and backwards."""
    verify(changed)
    out = []
    for backwards in (False, True):
        length = given["w"] * given["rows" if changed.params[-1].extents == (b.mul(b.var("rows"), b.var("w")),) else "columns"]
        args = {**given, "Y": np.full(length, start)}
        assert run(changed, args, backwards=backwards) == 0
        out.append(args["Y"])
    return out


@pytest.mark.parametrize("order", ["sorted", "any", "one row"])
@pytest.mark.parametrize("n", [0, 1, 2, 9, 16, 60])
@pytest.mark.parametrize("kept", ["i", "k"])
@pytest.mark.parametrize("sizes", [SHORT, LONG], ids=["short", "long"])
def test_runs_sum_the_same(order: str, n: int, kept: str, sizes: dict[str, int]) -> None:
    given = arguments(n, order)
    want = expected(given, kept, "add", 1.5)
    for change in (lambda k: runs(k, sizes, LISTS), lambda k: lower_loops(k, vector_bits=256, sizes=sizes, lists=LISTS)):
        for got in results(change(kernel(kept)), given, 1.5):
            np.testing.assert_allclose(got, want, rtol=1e-12, atol=1e-12)


def test_a_maximum_has_runs_but_no_factors() -> None:
    given = arguments(40, "sorted")
    changed = runs(kernel(op="max"), LONG, LISTS)
    assert any(isinstance(s, While) for s in all_stmts(changed.body))
    for got in results(changed, given, -1.0):
        np.testing.assert_array_equal(got, expected(given, "i", "max", -1.0))


def test_long_runs_are_cut_into_runs_and_short_ones_are_not() -> None:
    def loops(sizes: dict[str, int], kept: str = "i") -> int:
        return sum(isinstance(s, While) and "_at" in str(s.condition) for s in all_stmts(runs(kernel(kept), sizes, LISTS).body))

    assert loops(LONG) == 2  # 400 elements for each row and column
    assert loops(SHORT) == 1  # runs of the place always
    assert loops(LONG, "k") == 2  # a factor for each run of rows
    assert loops(SHORT, "k") == 0
    assert runs(kernel(), LONG, ()) == kernel()
    assert runs(kernel(), LONG, (("K", "I"),)) != kernel()


def test_a_list_that_the_loop_writes_has_no_runs() -> None:
    k = kernel()
    assert isinstance(k.body, For)
    written = dataclasses.replace(k.body, body=Block(*b.statements(k.body.body), Store("I", (b.var("q"),), Const(0, dt.i32))))
    assert runs(dataclasses.replace(k, body=written), LONG, LISTS) == dataclasses.replace(k, body=written)


@pytest.mark.parametrize("bad", [-1, 7, 1 << 20])
@pytest.mark.parametrize("at", [0, 5, 59])
@pytest.mark.parametrize("array", ["I", "K"])
def test_each_coordinate_is_still_checked(bad: int, at: int, array: str) -> None:
    given = arguments(60, "sorted")
    given[array][at] = bad
    for sizes in (SHORT, LONG):
        for k in (kernel(), kernel(shared=True), kernel(shared=True, clear=True)):
            changed = lower_loops(k, vector_bits=256, sizes=sizes, lists=LISTS)
            assert run(changed, {**given, "Y": np.zeros(42)}) != 0


@pytest.mark.parametrize("order", ["sorted", "any", "one row"])
@pytest.mark.parametrize("n", [0, 1, 9, 60])
@pytest.mark.parametrize("kept", ["i", "k"])
@pytest.mark.parametrize("clear", [False, True])
def test_rows_are_shared_by_their_owners(order: str, n: int, kept: str, clear: bool) -> None:
    given = arguments(n, order)
    want = expected(given, kept, "add", 0.0)
    for change in (lambda k: owners(k, SHORT, LISTS), lambda k: lower_loops(k, vector_bits=256, sizes=SHORT, lists=LISTS)):
        changed = change(kernel(kept, shared=True, clear=clear))
        for got in results(changed, given, np.nan if clear else 0.0):
            np.testing.assert_allclose(got, want, rtol=1e-12, atol=1e-12)


def test_only_narrow_rows_are_shared_and_only_sorted_ones_are_cleared_on_the_way() -> None:
    def parallel(k: Kernel) -> list[str]:
        return [s.var for s in all_stmts(k.body) if isinstance(s, For) and s.kind is Kind.PARALLEL]

    assert parallel(owners(kernel(shared=True), SHORT, LISTS)) == ["piece"]
    assert parallel(owners(kernel(shared=True), {**SHORT, "w": 64}, LISTS)) == ["c"]
    assert parallel(owners(kernel(shared=True), {}, LISTS)) == ["c"]
    assert parallel(owners(kernel(shared=True, clear=True), SHORT, LISTS)) == ["piece"]
    assert parallel(owners(kernel("k", shared=True, clear=True), SHORT, LISTS)) == ["r", "piece"]
    assert parallel(owners(kernel(shared=True, clear=True), SHORT, ())) == ["r", "piece"]


def test_rows_that_start_from_something_else_are_not_cleared() -> None:
    k = kernel(shared=True, clear=True)
    other = Store("Y", (b.add(b.mul(b.var("r"), b.var("w")), b.var("e")),), Const(1.0, dt.f64))
    first, loop = b.statements(k.body)
    assert isinstance(first, For)
    lanes = b.statements(first.body)[0]
    assert isinstance(lanes, For)
    changed = dataclasses.replace(first, body=Block(dataclasses.replace(lanes, body=Block(other))))
    made = owners(dataclasses.replace(k, body=Block(changed, loop)), SHORT, LISTS)
    given = arguments(60, "sorted")
    for got in results(made, given, np.nan):
        np.testing.assert_allclose(got, expected(given, "i", "add", 1.0), rtol=1e-12)
