"""Vectors that lie wholly inside lose their masks, and mean what they meant."""

from __future__ import annotations

import numpy as np
import pytest

from polyai.loop import build as b
from polyai.loop.interp import run
from polyai.loop.nodes import Apply, Const, For, If, Kernel, Kind, Let, LoopExpr, MaskedLoad, Param, Ramp, Stmt, Store, Var
from polyai.loop.passes.order import lower_loops, passes
from polyai.loop.passes.unmask import unmask
from polyai.loop.verify import verify
from polyai.loop.walks import all_exprs, all_stmts, expressions
from polyai.scalar import dtype as dt


def both_ends(at: LoopExpr) -> LoopExpr:
    return b.both(b.compare("ge", at, b.ZERO), b.compare("lt", at, b.var("m")))


def shifted(offset: int, kind: Kind = Kind.VECTOR, *, whole: bool = True) -> Kernel:
    """Y[i] = where(0 <= i + offset < m, X[i + offset], 0); without `whole`, only the upper end is tested."""
    i, m = b.var("i"), b.var("m")
    at = b.add(i, b.const(offset))
    inside = both_ends(at) if whole else b.compare("lt", at, m)
    read = MaskedLoad("X", (at,), Var("inside", dt.bool_), dt.f32)
    store = Store("Y", (i,), b.where(Var("inside", dt.bool_), read, b.convert(b.const(0), dt.f32)))
    body: Stmt = b.block(Let("inside", inside), store)
    params = (Param("n", dt.i64, "size"), Param("m", dt.i64, "size"), Param("X", dt.f32, "input", (m,)), Param("Y", dt.f32, "output", (b.var("n"),)))
    return Kernel("shifted", params, For("i", b.ZERO, b.var("n"), body, kind))


def in_lanes(kernel: Kernel) -> Kernel:
    """`kernel` as it is before masks go."""
    for name, change in passes(vector_bits=256):
        if name == "unmask":
            return kernel
        kernel = change(kernel)
    raise AssertionError("there is no such pass")


def masks(stmt: Stmt) -> int:
    return sum(isinstance(x, MaskedLoad) for s in all_stmts(stmt) for e in expressions(s) for x in all_exprs(e))


@pytest.mark.parametrize("offset", [-9, -3, -1, 0, 1, 4, 20])
@pytest.mark.parametrize(("n", "m"), [(0, 0), (0, 7), (5, 0), (1, 1), (16, 16), (33, 12), (12, 33), (70, 64)])
def test_the_result_is_the_same(offset: int, n: int, m: int) -> None:
    for kernel in (shifted(offset), *([shifted(offset, whole=False)] if offset >= 0 else [])):
        fast = unmask(in_lanes(kernel))
        verify(fast)
        x = np.arange(1, m + 1, dtype=np.float32)
        wanted = np.array([x[i + offset] if 0 <= i + offset < m else 0 for i in range(n)], np.float32)
        for made in (kernel, fast, lower_loops(kernel, vector_bits=256)):
            y = np.full(n, np.nan, np.float32)
            assert run(made, {"n": n, "m": m, "X": x, "Y": y}) == 0
            np.testing.assert_array_equal(y, wanted)


@pytest.mark.parametrize("whole", [True, False])
def test_vectors_in_the_middle_have_no_mask_and_the_rest_of_the_loop_stays_as_it_is(whole: bool) -> None:
    slow = in_lanes(shifted(2, whole=whole))
    stores = [s for s in all_stmts(slow.body) if isinstance(s, Store)]
    whole_vectors, rest = [s for s in stores if s.mask is None], [s for s in stores if s.mask is not None]
    fast = unmask(slow)
    with_mask: list[Stmt] = []
    for s in all_stmts(fast.body):
        if isinstance(s, If) and s.orelse is not None:
            assert masks(s.then) == 0
            with_mask += [t for t in all_stmts(s.orelse) if isinstance(t, Store)]
    assert with_mask == whole_vectors and whole_vectors
    assert [s for s in all_stmts(fast.body) if isinstance(s, Store) and s.mask is not None] == rest and rest


def test_one_test_of_the_outermost_ends_serves_several_masks() -> None:
    i = b.var("i")
    total: LoopExpr = b.convert(b.const(0), dt.f32)
    lets = []
    for n, offset in enumerate((-7, -1, 0, 3)):
        at = b.add(i, b.const(offset))
        lets.append(Let(f"inside_{n}", both_ends(at)))
        mask = Var(f"inside_{n}", dt.bool_)
        total = b.apply("add", (total, b.where(mask, MaskedLoad("X", (at,), mask, dt.f32), b.convert(b.const(0), dt.f32))), dt.f32)
    params = (Param("n", dt.i64, "size"), Param("m", dt.i64, "size"), Param("X", dt.f32, "input", (b.var("m"),)), Param("Y", dt.f32, "output", (b.var("n"),)))
    kernel = Kernel("stencil", params, For("i", b.ZERO, b.var("n"), b.block(*lets, Store("Y", (i,), total)), Kind.VECTOR))
    found = [s for s in all_stmts(unmask(in_lanes(kernel)).body) if isinstance(s, If) and s.orelse is not None]
    assert found
    for s in found:
        assert masks(s.then) == 0
        assert sum(isinstance(x, Apply) and x.op in ("ge", "lt") for x in all_exprs(s.condition)) == 2


def test_other_loops_stay_whole() -> None:
    serial = in_lanes(shifted(-2, Kind.SERIAL))
    assert unmask(serial) == serial


def test_vectors_inside_lose_their_masks() -> None:
    """Both versions compute the same, at both ends and in the middle."""
    n = b.var("n")
    lanes = Ramp(b.add(b.var("i"), b.var("o")), 1, 4)
    inside = b.both(Apply("ge", (lanes, b.ZERO), dt.bool_), Apply("lt", (lanes, n), dt.bool_))
    value = Apply("where", (Var("inside", dt.bool_), MaskedLoad("x", (lanes,), Var("inside", dt.bool_), dt.f64), Const(0.0, dt.f64)), dt.f64)
    body = b.block(Let("inside", inside), Store("y", (Ramp(b.var("i"), 1, 4),), value))
    params = (Param("n", dt.i64, "size"), Param("o", dt.i64, "size"), Param("x", dt.f64, "input", (n,)), Param("y", dt.f64, "output", (n,)))
    kernel = Kernel("shift", params, For("i", b.ZERO, n, body, step=4))
    fast = unmask(kernel)
    found = next(s for s in all_stmts(fast.body) if isinstance(s, If))
    assert masks(found.then) == 0
    x = np.arange(1.0, 13.0)
    for offset in (-5, -1, 0, 2, 20):
        ys = [np.full(12, 77.0) for _ in range(2)]
        for k, y in zip((kernel, fast), ys):
            assert run(k, {"n": 12, "o": offset, "x": x, "y": y}) == 0
        want = [x[i + offset] if 0 <= i + offset < 12 else 0.0 for i in range(12)]
        for y in ys:
            np.testing.assert_array_equal(y, want)
