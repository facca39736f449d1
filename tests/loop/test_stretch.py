"""Pieces of a loop that a thread runs as one: where each repeats work of loops around it, and only there."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from polyai.errors import VerifyError
from polyai.loop import build as b
from polyai.loop.interp import run
from polyai.loop.nodes import For, Kernel, Kind, Let, LoopExpr, Param, Stmt, Store
from polyai.loop.passes.order import lower_loops
from polyai.loop.passes.stretch import stretch
from polyai.loop.show import show
from polyai.loop.verify import verify
from polyai.loop.walks import all_stmts
from polyai.scalar import dtype as dt

PIECE = 4


def kernel(inner: bool = True, named: bool = False) -> Kernel:
    """Y[j] += X[k, j] for every k, columns in pieces; without `inner` the pieces are the innermost parallel loop's own."""
    n, m, k, j, c = (b.var(name) for name in "nmkjc")
    value: LoopExpr = b.load("X", (k, j) if inner else (b.ZERO, j), dt.f64)
    body: Stmt = Store("Y", (j,), b.apply("add", (b.load("Y", (j,), dt.f64), value), dt.f64))
    start = b.mul(c, b.const(PIECE))
    body = For("j", start, b.add(b.smallest(b.sub(m, b.ONE), b.add(start, b.const(PIECE - 1))), b.ONE), body, Kind.VECTOR)
    if inner:
        body = For("k", b.ZERO, n, body)
    if named:
        body = b.block(Let("first", start), body)
    count = b.add(b.floordiv(b.sub(m, b.ONE), b.const(PIECE)), b.ONE)
    pieces = For("c", b.ZERO, count, body, Kind.PARALLEL)
    sizes = (Param("n", dt.i64, "size"), Param("m", dt.i64, "size"))
    arrays = (Param("X", dt.f64, "input", (n, m)), Param("Y", dt.f64, "output", (m,)))
    return Kernel("sums", (*sizes, *arrays), pieces)


def outer(k: Kernel) -> For:
    return next(s for s in all_stmts(k.body) if isinstance(s, For) and s.kind is Kind.PARALLEL)


@pytest.mark.parametrize("m", [1, 3, 4, 5, 16, 31])
def test_the_result_is_that_of_the_pieces(m: int) -> None:
    x = np.random.default_rng(m).standard_normal((3, m))
    for change in (lambda k: k, lambda k: stretch(k, {}), lambda k: lower_loops(k, vector_bits=256)):
        for backwards in (False, True):
            args: dict[str, Any] = {"n": 3, "m": m, "X": x, "Y": np.zeros(m)}
            new = change(kernel())
            verify(new)
            assert run(new, args, backwards=backwards) == 0
            np.testing.assert_allclose(args["Y"], x.sum(0))


def test_a_piece_below_another_loop_is_stretched() -> None:
    text = show(stretch(kernel(), {"n": 1000}))
    assert "parallel stretch=c_end" in text and "for j in c * 4..min(m, c_end * 4) vector" in text
    assert outer(stretch(kernel(), {"n": 1000})).cost >= 1000 * PIECE


@pytest.mark.parametrize("other", [kernel(inner=False), kernel(named=True)], ids=["nothing is repeated", "the piece has a name"])
def test_other_loops_stay(other: Kernel) -> None:
    assert outer(stretch(other, {})).stretch is None


def test_the_end_of_a_stretch_is_defined_in_parallel_loops_of_step_one_only() -> None:
    good = stretch(kernel(), {})
    for change in ({"kind": Kind.SERIAL}, {"step": 2}, {"stretch": "m"}):
        with pytest.raises(VerifyError):
            verify(dataclasses.replace(good, body=dataclasses.replace(outer(good), **change)))
