"""Loops over the rows of a matrix and their elements become one loop over all elements, and sums of it run in pieces."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp

import polyai as pa
from polyai.loop import build as b
from polyai.loop.interp import run
from polyai.loop.nodes import Alloc, Block, Check, Const, For, Kernel, Kind, Let, LoopExpr, Param, Site, Space, Stmt, Store
from polyai.loop.passes.gathered import gathered
from polyai.loop.passes.order import lower_loops
from polyai.loop.passes.pieces import LEAST, MOST, pieces
from polyai.loop.verify import verify
from polyai.loop.walks import all_stmts
from polyai.scalar import dtype as dt

LARGE = {"n": 1 << 16, "nnz": 1 << 22}


def kernel(value: LoopExpr | None = None, ok: LoopExpr | None = None, extent: LoopExpr | None = None, after: Stmt | None = None) -> Kernel:
    """s = the sum of `value`, val[begin + q] if None, over all rows i in 0..n and their elements q."""
    n, nnz, i, q, begin, end = (b.var(name) for name in ("n", "nnz", "i", "q", "begin", "end"))
    value = b.load("val", (b.add(begin, q),), dt.f64) if value is None else value
    ok = b.both(b.at_most(begin, end), b.at_most(end, nnz)) if ok is None else ok
    total = b.load("acc", (), dt.f64)
    inner = For("q", b.ZERO, b.var("len"), b.block(Store("acc", (), b.apply("add", (total, value), dt.f64)), after), Kind.VECTOR)
    rows = b.block(
        Let("begin", b.convert(b.load("pos", (i,), dt.i32), dt.i64)), Let("end", b.convert(b.load("pos", (b.add(i, b.ONE),), dt.i32), dt.i64)),
        Check(ok, 0, end), Let("len", b.sub(end, begin)), inner,
    )  # fmt: skip
    body = b.block(
        Alloc("acc", dt.f64, (), Space.REGISTER), Store("acc", (), Const(0.0, dt.f64)), For("i", b.ZERO, n, rows, Kind.JAM, jam=4),
        Store("s", (b.ZERO,), total),
    )  # fmt: skip
    params = (
        Param("n", dt.i64, "size"), Param("nnz", dt.i64, "size"), Param("pos", dt.i32, "input", (b.add(n, b.ONE) if extent is None else extent,)),
        Param("val", dt.f64, "input", (nnz,)), Param("x", dt.f64, "input", (n,)), Param("s", dt.f64, "output", (b.ONE,)),
    )  # fmt: skip
    return Kernel("total", params, body, (Site("SparseStructureError", "{value}"),))


def loops(k: Kernel) -> int:
    """How deep the deepest loop is."""

    def depth(s: Stmt) -> int:
        inside = s.stmts if isinstance(s, Block) else b.statements(getattr(s, "body", None))
        return max((depth(x) for x in inside), default=0) + isinstance(s, For)

    return max(depth(s) for s in b.statements(k.body))


def given(lengths: list[int], start: int = 0) -> dict[str, Any]:
    pos = np.cumsum([start, *lengths]).astype(np.int32)
    return {"n": len(lengths), "nnz": int(pos[-1]), "pos": pos, "val": np.arange(1.0, pos[-1] + 1), "x": np.arange(float(len(lengths)))}


@pytest.mark.parametrize("lengths", [[], [0], [3], [0, 2, 0, 0, 5, 1, 0], [1] * 40], ids=str)
@pytest.mark.parametrize("start", [0, 2])
def test_the_sum_is_that_of_the_rows(lengths: list[int], start: int) -> None:
    if not lengths and start:
        return  # an empty matrix with elements is broken
    args = given(lengths, start)
    one = gathered(kernel(), {})
    for new in (one, pieces(one, LARGE), lower_loops(kernel(), vector_bits=256, sizes=LARGE)):
        verify(new)
        for backwards in (False, True):
            mine = {**args, "s": np.zeros(1)}
            assert run(new, mine, backwards=backwards) == 0
            assert mine["s"][0] == args["val"][start:].sum()
    assert loops(kernel()) == 2 and loops(gathered(kernel(), {})) == 1


@pytest.mark.parametrize("pos", [[0, 3, 2, 4], [0, 2, 9, 4], [0, -1, 2, 4], [-1, 0, 2, 4], [0, 1, 2, 5]], ids=str)
def test_rows_out_of_order_are_reported(pos: list[int]) -> None:
    args = {"n": 3, "nnz": 4, "pos": np.array(pos, np.int32), "val": np.ones(4), "x": np.ones(3), "s": np.zeros(1)}
    for new in (gathered(kernel(), {}), lower_loops(kernel(), vector_bits=256, sizes=LARGE)):
        assert run(new, args) == 1


i, q, begin, end = (b.var(name) for name in ("i", "q", "begin", "end"))
element = b.load("val", (b.add(begin, q),), dt.f64)
OTHERS: dict[str, Kernel] = {
    "the row": kernel(b.apply("mul", (element, b.load("x", (i,), dt.f64)), dt.f64)),
    "the place in the row": kernel(b.load("val", (q,), dt.f64)),
    "the length of the row": kernel(b.apply("mul", (element, b.convert(b.var("len"), dt.f64)), dt.f64)),
    "another array": kernel(extent=b.var("n")),
    "no order": kernel(ok=b.at_most(end, b.var("nnz"))),
    "perhaps no order": kernel(ok=b.either(b.at_most(begin, end), b.at_most(end, b.var("nnz")))),
}


@pytest.mark.parametrize("other", OTHERS)
def test_rows_that_are_asked_for_more_stay(other: str) -> None:
    assert gathered(OTHERS[other], {}) == OTHERS[other]


def test_what_is_stored_elsewhere_or_read_keeps_one_loop() -> None:
    assert pieces(kernel(after=Store("s", (b.ZERO,), element)), LARGE) == kernel(after=Store("s", (b.ZERO,), element))
    running = kernel(after=Store("acc", (), b.apply("add", (b.load("acc", (), dt.f64), b.load("acc", (), dt.f64)), dt.f64)))
    assert pieces(running, LARGE) == running
    mixed = kernel(after=Store("acc", (), b.apply("max", (b.load("acc", (), dt.f64), element), dt.f64)))
    assert pieces(mixed, LARGE) == mixed


def test_pieces_follow_sizes_and_threads_change_no_bit() -> None:
    (alloc,) = (s for s in all_stmts(pieces(gathered(kernel(), {}), LARGE).body) if isinstance(s, Alloc) and s.space is Space.KERNEL)
    assert alloc.extents == (b.const(MOST),)
    A = sp.random_array((3000, 5000), density=2.5 * LEAST / 15e6, format="csr", rng=np.random.default_rng(3))
    total = pa.jit(lambda A: A.sum())
    results = []
    for threads in (1, 2, 3):
        with pa.options(num_threads=threads):
            results.append(float(total(A)))
    assert len(set(results)) == 1
    np.testing.assert_allclose(results[0], A.data.sum(), rtol=1e-12)


FUNCTIONS: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "sum": (lambda A, y: A.sum(), lambda D, y: D.sum()),
    "max": (lambda A, y: A.max(), lambda D, y: D.max()),
    "min": (lambda A, y: A.min(), lambda D, y: D.min()),
    "squares": (lambda A, y: (A * A).sum(), lambda D, y: (D * D).sum()),
    "quadratic form": (lambda A, y: y @ (A @ y), lambda D, y: y @ D @ y),
    "columns": (lambda A, y: A.sum(axis=0), lambda D, y: D.sum(axis=0)),
    "two at once": (lambda A, y: A.sum() / (1 + abs(A).max()), lambda D, y: D.sum() / (1 + abs(D).max())),
    "any": (lambda A, y: pa.any(A > 0.5), lambda D, y: np.any(D > 0.5)),
    "residual": (lambda A, y: pa.mean((A @ y - y) ** 2), lambda D, y: np.mean((D @ y - y) ** 2)),
}


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("density", [0, 0.001, 0.3])
@pytest.mark.parametrize("index", [np.int32, np.int64])
def test_functions_of_whole_matrices(name: str, density: float, index: Any) -> None:
    rng = np.random.default_rng(5)
    A = sp.random_array((700, 700), density=density, format="csr", rng=rng, data_sampler=rng.standard_normal)
    A.indptr, A.indices = A.indptr.astype(index), A.indices.astype(index)
    y = rng.standard_normal(700)
    mine, theirs = FUNCTIONS[name]
    np.testing.assert_allclose(pa.jit(mine)(A, y), theirs(A.toarray(), y), rtol=1e-10, atol=1e-12)


def test_sums_that_other_steps_read() -> None:
    """Totals beside arrays: rows side by side must not each add to the total that was there before."""
    rng = np.random.default_rng(2)
    for n, m in ((3, 4), (5, 6), (40, 50), (1, 3), (4, 1)):
        W, x, y = rng.standard_normal((n, m)), rng.standard_normal((6, n)), rng.standard_normal(7)
        np.testing.assert_allclose(pa.jit(lambda x, W: x @ W + pa.sum(W))(x, W), x @ W + W.sum())
        np.testing.assert_allclose(pa.jit(lambda W, y: y * W.sum())(W, y), y * W.sum())
        np.testing.assert_allclose(pa.jit(lambda x, W: (x * 2).sum(axis=0) + (x @ W).sum())(x, W), (x * 2).sum(axis=0) + (x @ W).sum())
        np.testing.assert_allclose(pa.jit(lambda W: pa.std(W) + pa.var(W))(W), W.std() + W.var())
