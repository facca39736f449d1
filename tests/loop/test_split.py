"""Vector loops are cut where their conditions become true, and mean what they meant."""

from __future__ import annotations

import numpy as np
import pytest

from polyai.loop import build as b
from polyai.loop.interp import run
from polyai.loop.nodes import For, Kernel, Kind, Let, MaskedLoad, Param, Stmt, Store, Var
from polyai.loop.passes.order import lower_loops
from polyai.loop.passes.split import split
from polyai.loop.verify import verify
from polyai.loop.walks import all_exprs, all_stmts, expressions
from polyai.scalar import dtype as dt


def shifted(offset: int, kind: Kind = Kind.VECTOR) -> Kernel:
    """Y[i] = where(0 <= i + offset < m, X[i + offset], 0)."""
    i, m = b.var("i"), b.var("m")
    at = b.add(i, b.const(offset))
    inside = b.both(b.compare("ge", at, b.ZERO), b.compare("lt", at, m))
    read = MaskedLoad("X", (at,), Var("inside", dt.bool_), dt.f32)
    store = Store("Y", (i,), b.where(Var("inside", dt.bool_), read, b.convert(b.const(0), dt.f32)))
    body: Stmt = b.block(Let("inside", inside), store)
    params = (Param("n", dt.i64, "size"), Param("m", dt.i64, "size"), Param("X", dt.f32, "input", (m,)), Param("Y", dt.f32, "output", (b.var("n"),)))
    return Kernel("shifted", params, For("i", b.ZERO, b.var("n"), body, kind))


def masks(stmt: Stmt) -> int:
    return sum(isinstance(x, MaskedLoad) for s in all_stmts(stmt) for e in expressions(s) for x in all_exprs(e))


@pytest.mark.parametrize("offset", [-9, -3, -1, 0, 1, 4, 20])
@pytest.mark.parametrize(("n", "m"), [(0, 0), (0, 7), (5, 0), (1, 1), (16, 16), (33, 12), (12, 33), (70, 64)])
def test_the_result_is_the_same(offset: int, n: int, m: int) -> None:
    kernel = shifted(offset)
    cut = split(kernel)
    verify(cut, flat=False)
    x = np.arange(1, m + 1, dtype=np.float32)
    wanted = np.array([x[i + offset] if 0 <= i + offset < m else 0 for i in range(n)], np.float32)
    for made in (kernel, cut, lower_loops(kernel, vector_bits=256)):
        y = np.full(n, np.nan, np.float32)
        assert run(made, {"n": n, "m": m, "X": x, "Y": y}) == 0
        np.testing.assert_array_equal(y, wanted)


def test_the_middle_has_no_mask() -> None:
    loops = [s for s in all_stmts(split(shifted(-2)).body) if isinstance(s, For)]
    assert len(loops) == 3 and [masks(s.body) for s in loops] == [1, 0, 1]


def test_other_loops_stay_whole() -> None:
    serial = shifted(-2, Kind.SERIAL)
    assert split(serial) is serial
