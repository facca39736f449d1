"""Elements of buffers that a loop reduces into live in registers, and mean what they meant."""

from __future__ import annotations

import numpy as np
import pytest

from polyai.loop import build as b
from polyai.loop.interp import run
from polyai.loop.nodes import Alloc, For, If, Kernel, Kind, Load, LoopExpr, Param, Space, Stmt, Store
from polyai.loop.passes.order import lower_loops
from polyai.loop.passes.promote import promote
from polyai.loop.verify import verify
from polyai.loop.walks import all_stmts
from polyai.scalar import dtype as dt

N = 4
"""Elements of the buffer."""


def summed(place: LoopExpr, kind: Kind = Kind.SERIAL) -> Kernel:
    """T[k] = 1; T[place] += x[q] over q in a..m for each k; Y[k] = T[k]."""
    k, q = b.var("k"), b.var("q")
    start: Stmt = For("k", b.ZERO, b.const(N), Store("T", (k,), b.convert(b.const(1), dt.f64)))
    add = Store("T", (place,), b.apply("add", (b.load("T", (place,), dt.f64), b.load("x", (q,), dt.f64)), dt.f64))
    update: Stmt = For("k", b.ZERO, b.const(N), For("q", b.var("a"), b.var("m"), add), kind)
    out: Stmt = For("k", b.ZERO, b.const(N), Store("Y", (k,), b.load("T", (k,), dt.f64)))
    params = (
        Param("a", dt.i64, "size"), Param("m", dt.i64, "size"), Param("x", dt.f64, "input", (b.var("m"),)), Param("Y", dt.f64, "output", (b.const(N),)),
    )  # fmt: skip
    return Kernel("summed", params, b.block(Alloc("T", dt.f64, (b.const(N),), Space.THREAD), start, update, out))


def inner(kernel: Kernel) -> For:
    return next(s for s in all_stmts(kernel.body) if isinstance(s, For) and s.var == "q")


@pytest.mark.parametrize("kind", [Kind.SERIAL, Kind.VECTOR])
@pytest.mark.parametrize(("a", "m"), [(0, 0), (0, 1), (3, 9), (9, 3), (2, 2)])
def test_the_result_is_the_same(a: int, m: int, kind: Kind) -> None:
    kernel = summed(b.var("k"), kind)
    fast = promote(kernel)
    verify(fast)
    x = np.arange(1.0, m + 1)
    for made in (kernel, fast, lower_loops(kernel, vector_bits=256)):
        y = np.full(N, np.nan)
        assert run(made, {"a": a, "m": m, "x": x, "Y": y}) == 0
        np.testing.assert_array_equal(y, np.full(N, 1 + x[a:].sum() if a < m else 1))


def test_the_loop_touches_a_register_and_only_where_it_runs() -> None:
    fast = promote(summed(b.var("k")))
    (store,) = [s for s in all_stmts(inner(fast).body) if isinstance(s, Store)]
    assert store.array != "T" and not store.indices
    guard = next(s for s in all_stmts(fast.body) if isinstance(s, If) and any(x is inner(fast) for x in all_stmts(s)))
    assert guard.condition == b.compare("lt", b.var("a"), b.var("m"))


def test_another_element_in_each_iteration_stays_in_memory() -> None:
    kernel = summed(b.floordiv(b.var("q"), b.const(4)))
    assert promote(kernel) == kernel


def test_two_places_stay_in_memory() -> None:
    kernel = summed(b.var("k"))
    loop = inner(kernel)
    both = b.block(loop.body, Store("T", (b.ZERO,), Load("x", (b.var("q"),), dt.f64)))
    changed = Kernel(kernel.name, kernel.params, b.block(*(s for s in kernel.body.stmts[:2]), For("q", b.var("a"), b.var("m"), both)))  # type: ignore[union-attr]
    assert promote(changed) == changed


def test_what_others_see_stays_in_memory() -> None:
    kernel = summed(b.var("k"))
    body = b.block(*(Alloc("T", dt.f64, (b.const(N),), Space.KERNEL) if isinstance(s, Alloc) else s for s in kernel.body.stmts))  # type: ignore[union-attr]
    shared = Kernel(kernel.name, kernel.params, body)
    assert promote(shared) == shared


@pytest.mark.parametrize("kind", [Kind.JAM, Kind.VECTOR])
def test_what_copies_side_by_side_add_to_stays_in_memory(kind: Kind) -> None:
    """T[k] = T[k] + x[q] for all r: each copy would add to what T[k] held before."""
    kernel = summed(b.var("k"))
    around = lambda at: b.block(*(  # noqa: E731
        For("r", b.ZERO, b.const(N), For("q", b.var("a"), b.var("m"), Store("T", (at,), b.apply("add", (Load("T", (at,), dt.f64), Load("x", (b.var("q"),), dt.f64)), dt.f64))), kind, jam=4)
        if isinstance(s, For) and any(isinstance(x, For) and x.var == "q" for x in all_stmts(s)) else s for s in kernel.body.stmts  # type: ignore[union-attr]
    ))  # fmt: skip
    shared, apart = (Kernel(kernel.name, kernel.params, around(at)) for at in (b.ZERO, b.var("r")))
    assert promote(shared) == shared
    assert promote(apart) != apart
