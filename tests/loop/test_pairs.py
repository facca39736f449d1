"""Loops full of functions run in pairs of vectors where they are long; copies of an index share its name."""

from __future__ import annotations

import numpy as np
import pytest

from polyai.loop import build as b
from polyai.loop.interp import run
from polyai.loop.nodes import For, Kernel, Kind, Let, Load, LoopExpr, Param, Ramp, Store
from polyai.loop.passes.jam import jam
from polyai.loop.passes.vectorize import vectorize
from polyai.loop.walks import all_exprs, all_stmts, expressions
from polyai.scalar import dtype as dt


def _map(op: str, upper: LoopExpr) -> Kernel:
    j = b.var("j")
    loop = For("j", b.ZERO, upper, Store("y", (j,), b.apply(op, (b.load("x", (j,), dt.f32),), dt.f32)), Kind.VECTOR)
    n = b.var("n")
    return Kernel("map", (Param("n", dt.i64, "size"), Param("x", dt.f32, "input", (n,)), Param("y", dt.f32, "output", (n,))), loop)


def _lanes(kernel: Kernel) -> set[int]:
    return {x.lanes for s in all_stmts(kernel.body) for e in expressions(s) for x in all_exprs(e) if isinstance(x, Ramp)}


@pytest.mark.parametrize(
    ("op", "bits", "sizes", "lanes"),
    [
        ("exp", 256, {"n": 4096}, 16),
        ("exp", 256, {"n": 100}, 8),  # short: the rest would take longer
        ("exp", 256, {}, 8),  # not known to be long
        ("exp", 512, {"n": 4096}, 16),  # one vector of such a machine
        ("neg", 256, {"n": 4096}, 8),  # nothing to wait for
    ],
)
def test_functions_of_long_rows_run_in_pairs(op: str, bits: int, sizes: dict[str, int], lanes: int) -> None:
    assert _lanes(vectorize(_map(op, b.var("n")), bits, 16, None, sizes)) == {lanes}


@pytest.mark.parametrize("n", [0, 1, 15, 16, 17, 300])
def test_pairs_compute_the_same(n: int) -> None:
    x = np.random.default_rng(n).standard_normal(n).astype(np.float32)
    y = np.full(n, np.nan, np.float32)
    assert run(vectorize(_map("exp", b.var("n")), 256, 16, None, {"n": 4096}), {"n": n, "x": x, "y": y}) == 0
    np.testing.assert_allclose(y, np.exp(x.astype(float)), rtol=1e-6)


def _rows(width: LoopExpr) -> Kernel:
    """y[4 m * width] from rows of `width` elements, flat, four rows at once."""
    i, j, m = (b.var(name) for name in "ijm")
    at = Let("at", b.add(b.mul(i, width), b.const(3)))
    store = Store("y", (b.add(b.var("at"), j),), b.load("x", (b.add(b.var("at"), j),), dt.f32))
    loop = For("i", b.ZERO, b.const(4), b.block(at, For("j", b.ZERO, b.const(5), store)), Kind.JAM, jam=4)
    size = b.var("size")
    params = (Param("m", dt.i64, "size"), Param("size", dt.i64, "size"), Param("x", dt.f32, "input", (size,)), Param("y", dt.f32, "output", (size,)))
    return Kernel("rows", params, b.block(Let("unused", m), loop))


@pytest.mark.parametrize(("width", "names"), [(b.const(40), 1), (b.var("m"), 4)])
def test_copies_a_number_apart_share_one_name(width: LoopExpr, names: int) -> None:
    kernel = jam(_rows(width))
    lets = [s for s in all_stmts(kernel.body) if isinstance(s, Let) and s.name.startswith("at")]
    assert len(lets) == names
    loads = {x for s in all_stmts(kernel.body) for e in expressions(s) for x in all_exprs(e) if isinstance(x, Load) and x.array == "x"}
    assert len(loads) == 4
    x = np.random.default_rng(0).standard_normal(200).astype(np.float32)
    y = np.zeros(200, np.float32)
    assert run(kernel, {"m": 40, "size": 200, "x": x, "y": y}) == 0
    want = np.zeros(200, np.float32)
    for row in range(4):
        want[row * 40 + 3 : row * 40 + 8] = x[row * 40 + 3 : row * 40 + 8]
    assert np.array_equal(y, want)
