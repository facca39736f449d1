"""Steps of a row that run for several rows each: the result is that of the rows one by one, and other loops stay."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp

from polyai.loop import build as b
from polyai.loop.interp import run
from polyai.loop.nodes import Alloc, Block, Check, For, Kernel, Kind, Let, Site, Space, Stmt, Store
from polyai.loop.passes.order import lower_loops
from polyai.loop.passes.staged import ROWS, staged
from polyai.loop.show import show
from polyai.loop.verify import verify
from polyai.loop.walks import all_stmts
from polyai.scalar import dtype as dt
from tests.loop import kernels

LONG = {"n": 1000, "A_len1": 100}


def kernel(*, held: bool = False) -> Kernel:
    """y[i] = sum of S[q] x[crd[q]] with S[q] = val[q] val[q]. `held`: a register that the first loop fills scales the result."""
    n, q = b.var("n"), b.var("q")
    position = b.add(b.var("begin"), q)
    value = b.load("A.val", (position,), dt.f64)
    first: list[Stmt] = [Store("S", (q,), b.apply("mul", (value, value), dt.f64))]
    if held:
        first.append(Store("M", (), b.apply("max", (b.load("M", (), dt.f64), value), dt.f64)))
    column = b.convert(b.load("A.crd1", (position,), dt.i32), dt.i64)
    product = b.apply("mul", (b.load("S", (q,), dt.f64), b.load("x", (b.var("c"),), dt.f64)), dt.f64)
    second = b.block(
        Let("c", column),
        Check(b.below(b.var("c"), n), 0, b.var("c")),
        Store("T", (), b.apply("add", (b.load("T", (), dt.f64), product), dt.f64)),
    )
    scale = b.load("M", (), dt.f64) if held else b.load("A.val", (b.ZERO,), dt.f64)
    body = Block((
        Alloc("S", dt.f64, (b.var("n"),), Space.THREAD),
        Alloc("T", dt.f64, (), Space.REGISTER),
        Alloc("M", dt.f64, (), Space.REGISTER),
        Store("T", (), b.apply("mul", (b.load("A.val", (b.ZERO,), dt.f64), kernels.Const(0.0, dt.f64)), dt.f64)),
        Store("M", (), kernels.Const(0.0, dt.f64)),
        Let("begin", b.convert(b.load("A.pos1", (b.var("i"),), dt.i32), dt.i64)),
        Let("end", b.convert(b.load("A.pos1", (b.add(b.var("i"), b.ONE),), dt.i32), dt.i64)),
        Check(b.both(b.at_most(b.var("begin"), b.var("end")), b.at_most(b.var("end"), b.var("A.nnz"))), 0, b.var("end")),
        Let("len", b.sub(b.var("end"), b.var("begin"))),
        For("q", b.ZERO, b.var("len"), Block(tuple(first)), Kind.VECTOR),
        For("q", b.ZERO, b.var("len"), second),
        Store("y", (b.var("i"),), b.apply("mul", (b.load("T", (), dt.f64), scale), dt.f64)),
    ))  # fmt: skip
    loop = For("i", b.ZERO, n, body, Kind.PARALLEL, weight="A.pos1")
    arrays = (
        kernels.array("A.pos1", dt.i32, b.add(n, b.ONE)), kernels.array("A.crd1", dt.i32, b.var("A.nnz")), kernels.array("A.val", dt.f64, b.var("A.nnz")),
        kernels.array("x", dt.f64, n), kernels.array("y", dt.f64, n, role="output"),
    )  # fmt: skip
    return Kernel("steps", (kernels.size("n"), kernels.size("A.nnz"), *arrays), loop, (Site("IndexOutOfRangeError", "{value}"),))


def arguments(n: int) -> tuple[dict[str, Any], np.ndarray]:
    a = sp.random_array((n, n), density=0.3, format="csr", rng=np.random.default_rng(n))
    a.data[:1] = 1.0
    x = np.random.default_rng(n + 1).standard_normal(n)
    given = {"n": n, "A.nnz": a.nnz, "A.pos1": a.indptr.astype(np.int32), "A.crd1": a.indices.astype(np.int32), "A.val": a.data, "x": x, "y": np.zeros(n)}
    return given, (a.multiply(a).tocsr()) @ x


@pytest.mark.parametrize("n", [2, ROWS - 1, ROWS, ROWS + 1, 3 * ROWS + 2])
def test_the_result_is_that_of_the_rows_one_by_one(n: int) -> None:
    for change in (lambda k: staged(k, LONG), lambda k: lower_loops(k, vector_bits=256, sizes=LONG)):
        for backwards in (False, True):
            args, expected = arguments(n)
            new = change(kernel())
            verify(new, flat=change(kernel()) != staged(kernel(), LONG))
            assert run(new, args, backwards=backwards) == 0
            np.testing.assert_allclose(args["y"], expected)


def test_each_step_has_a_loop_over_the_rows_of_a_block() -> None:
    text = show(staged(kernel(), LONG))
    assert f"for i_block in 0..n step {ROWS} parallel weight=A.pos1" in text
    assert text.count(f"for i in i_block..min(i_block + {ROWS}, n)") == 2
    assert f"alloc S: f64[{ROWS}, n] thread" in text and "S[i - i_block, q]" in text
    assert text.index("T = A.val[0]") > text.index("S[i - i_block, q] = ")  # what starts a register goes with those who use it


@pytest.mark.parametrize("sizes", [{}, {"n": 1000}, {"n": 1000, "A_len1": 4}, {"n": 1000, "A_len1": 5000}, {"n": 20, "A_len1": 100}])
def test_rows_of_other_lengths_and_few_rows_stay(sizes: dict[str, int]) -> None:
    assert staged(kernel(), sizes) == kernel()


def test_a_loop_is_not_cut_where_a_register_holds_a_value() -> None:
    assert staged(kernel(held=True), LONG) == kernel(held=True)


def test_loops_without_weight_or_with_steps_stay() -> None:
    for change in ({"weight": None}, {"kind": Kind.SERIAL}, {"step": 2}):
        other = dataclasses.replace(kernel(), body=dataclasses.replace(next(s for s in all_stmts(kernel().body) if isinstance(s, For)), **change))
        assert staged(other, LONG) == other
