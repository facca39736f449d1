"""Scattered sums in pieces with copies: the same sums, in an order that typical sizes alone decide; other loops stay."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from polyai.loop import build as b
from polyai.loop.interp import run
from polyai.loop.nodes import Alloc, Check, Const, For, Kernel, Kind, Let, LoopExpr, Param, Site, Space, Stmt, Store
from polyai.loop.passes.order import lower_loops
from polyai.loop.passes.privatize import MOST, privatize
from polyai.loop.verify import verify
from polyai.loop.walks import all_stmts
from polyai.scalar import dtype as dt
from polyai.scalar.ops import MONOIDS

LARGE = {"n": 1 << 20, "m": 1 << 10}


def kernel(monoid: str = "add", value: LoopExpr | None = None, at: LoopExpr | None = None, after: Stmt | None = None) -> Kernel:
    """Y[I[k]] op= X[k] for k in 0..n, with a check of I[k]."""
    n, m, k, i = (b.var(name) for name in ("n", "m", "k", "i"))
    at = i if at is None else at
    value = b.load("X", (k,), dt.f64) if value is None else value
    new = b.apply(MONOIDS[monoid].op, (b.load("Y", (at,), dt.f64), value), dt.f64)
    body = b.block(Let("i", b.load("I", (k,), dt.i64)), Check(b.below(i, m), 0, i), Store("Y", (at,), new), after)
    params = (
        Param("n", dt.i64, "size"), Param("m", dt.i64, "size"), Param("I", dt.i64, "input", (n,)),
        Param("X", dt.f64, "input", (n,)), Param("Y", dt.f64, "output", (m,)),
    )  # fmt: skip
    return Kernel("scatter", params, For("k", b.ZERO, n, body), (Site("IndexOutOfRangeError", "{value}"),))


def copies(k: Kernel) -> list[Alloc]:
    return [s for s in all_stmts(k.body) if isinstance(s, Alloc) and s.space is Space.KERNEL]


@pytest.mark.parametrize("monoid", ["add", "max", "mul"])
@pytest.mark.parametrize("n", [0, 1, 7, 8, 9, 100])
def test_the_result_is_that_of_one_loop(monoid: str, n: int) -> None:
    rng = np.random.default_rng(n)
    given: dict[str, Any] = {"n": n, "m": 5, "I": rng.integers(0, 5, n), "X": rng.standard_normal(n) + 2}
    results = []
    for change in (lambda k: k, lambda k: privatize(k, LARGE), lambda k: lower_loops(k, vector_bits=256, sizes=LARGE)):
        for backwards in (False, True):
            new = change(kernel(monoid))
            verify(new)
            args = {**given, "Y": np.full(5, 1.5)}
            assert run(new, args, backwards=backwards) == 0
            results.append(args["Y"])
    for r in results[1:]:
        np.testing.assert_allclose(r, results[0], rtol=1e-12)
    np.testing.assert_array_equal(results[2], results[3])  # whichever piece is done first
    np.testing.assert_array_equal(results[4], results[5])


def test_a_bad_place_is_reported() -> None:
    args = {"n": 3, "m": 5, "I": np.array([0, 9, 1]), "X": np.ones(3), "Y": np.zeros(5)}
    culprits: list[int] = []
    assert run(privatize(kernel(), LARGE), args, culprits=culprits) == 1 and culprits == [9]


def test_pieces_follow_typical_sizes() -> None:
    def count(sizes: dict[str, int]) -> int:
        found = [s for s in all_stmts(privatize(kernel(), sizes).body) if isinstance(s, For) and s.kind is Kind.PARALLEL]
        assert len(found) in (0, 2)
        return b.number(found[0].upper) or 0 if found else 1

    assert count(LARGE) == MOST
    assert count({"n": 1 << 20, "m": 1 << 20}) == 1, "copies would cost more than the sums"
    assert count({"n": 100, "m": 4}) == 1, "too little to do"
    assert count({}) == 1 and copies(privatize(kernel(), {})) == []
    assert 1 < count({"n": 1 << 20, "m": 1 << 15}) < MOST


OTHERS = {
    "it reads what it writes": kernel(value=b.load("Y", (b.ZERO,), dt.f64)),
    "places are its own": kernel(at=b.var("k")),
    "it stores something else": kernel(after=Store("Y", (b.ZERO,), Const(0.0, dt.f64))),
    "two monoids": kernel(after=Store("Y", (b.var("i"),), b.apply("mul", (b.load("Y", (b.var("i"),), dt.f64), Const(2.0, dt.f64)), dt.f64))),
}


@pytest.mark.parametrize("why", list(OTHERS))
def test_other_loops_stay(why: str) -> None:
    assert privatize(OTHERS[why], LARGE) == OTHERS[why]


def test_the_outermost_loop_is_split_and_none_inside_one_that_stays() -> None:
    inner = kernel()
    around = For("t", b.ZERO, b.const(3), inner.body)
    split = privatize(dataclasses.replace(inner, body=around), LARGE)
    assert [s.var for s in all_stmts(split.body) if isinstance(s, For)][2] == "t"
    more = dataclasses.replace(around, body=b.block(inner.body, Store("Y", (b.ZERO,), Const(0.0, dt.f64))))
    stays = dataclasses.replace(inner, body=more)
    assert privatize(stays, LARGE) == stays
