"""Register tiles as functions: the bits of the loops they stand for, whatever the number of rows and iterations."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

import polyai as pa
from polyai.loop import build as b
from polyai.loop import nodes as lp
from polyai.loop.passes.order import lower_loops
from polyai.machine import cpu, emit, stmt, tile
from polyai.scalar import dtype as dt
from tests.loop.test_panels import arguments, product
from tests.machine.harness import Compiled, array, const, op, plus, size, times, var


def made(depth: int, rows: int = 6, known: int | None = None) -> lp.Kernel:
    kernel = lower_loops(product(depth, rows=rows, known=known), vector_bits=256, registers=16)
    return dataclasses.replace(kernel, name=f"p{depth}_{rows}")


def ran(kernel: lp.Kernel, m: int, n: int, depth: int) -> tuple[np.ndarray, np.ndarray]:
    args, want = arguments(m, n, depth)
    assert Compiled(kernel)(m, n, args["X"], args["P"], args["Y"]) == 0
    return args["Y"], want


@pytest.mark.parametrize("depth", [64, 256, 257, 259])
@pytest.mark.parametrize("m", [1, 2, 4, 5, 6, 7, 8, 10, 13, 37])
def test_the_bits_of_the_loop(depth: int, m: int, monkeypatch: pytest.MonkeyPatch) -> None:
    found, want = ran(made(depth), m, 33, depth)
    np.testing.assert_allclose(found, want, atol=1e-3)
    monkeypatch.setattr(tile, "tile", lambda *_: False)
    plain, _ = ran(made(depth), m, 33, depth)
    np.testing.assert_array_equal(found, plain)


def functions(text: str) -> list[str]:
    return [line.split("@")[1].split("(")[0] for line in text.split("\n") if line.startswith(f"define internal void @{tile.NAME}")]


def test_loops_of_one_form_share_their_functions() -> None:
    """One function for each height, and none for short panels."""
    text = emit.emit(made(256), cpu.host())
    assert len(functions(text)) == 1 + len(tile._heights(6)) == 3
    twice = pa.jit(lambda x, w, v: (x @ w) @ v, constant=("w", "v"))
    w, v = np.ones((256, 256), np.float32), np.ones((256, 512), np.float32)
    code = str(twice.explain(np.ones((37, 256), np.float32), w, v)["code"])
    assert code.count("call void %") == 2 and len(functions(code)) == 3, "two products, one set of functions"
    assert not functions(emit.emit(made(64), cpu.host()))
    assert len(functions(emit.emit(made(256, known=12), cpu.host()))) == 1, "no row is read twice, so there is one height"


@pytest.mark.parametrize("rows", [1, 3, 4, 5, 6])
def test_rows_that_are_read_twice_are_computed_once(rows: int) -> None:
    """The function for fewer rows is chosen by where rows are read, not by how many there are."""
    text = emit.emit(made(256), cpu.host())
    assert text.count("icmp eq ptr") == 3 and text.count("select i1") >= 2
    found, want = ran(made(256), rows, 16, 256)
    np.testing.assert_allclose(found, want, atol=1e-3)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(1, 16, 5), (7, 40, 33), (12, 17, 64), (25, 100, 50), (64, 300, 70)])
@pytest.mark.parametrize("threads", [1, 2])
def test_operands_of_any_width(dtype: Any, shape: tuple[int, int, int], threads: int) -> None:
    m, k, n = shape
    rng = np.random.default_rng(m)
    a, w = rng.standard_normal((m, k)).astype(dtype), rng.standard_normal((k, n)).astype(dtype)
    want = a.astype(np.float64) @ w.astype(np.float64)
    with pa.options(num_threads=threads, blas="never"):
        general, fixed, turned = pa.jit(lambda a, w: a @ w), pa.jit(lambda a, w: a @ w, dynamic="none"), pa.jit(lambda a, w: a @ w.T)
        for found in (general(a, w), fixed(a, w), turned(a, np.ascontiguousarray(w.T))):
            np.testing.assert_allclose(found, want, atol=k * 8 * np.finfo(dtype).eps)


def sums(count: int, value: Any, extra: tuple[lp.Stmt, ...] = (), dtype: Any = dt.f32, hint: bool = True) -> lp.Kernel:
    """T_n = T_n + value(n) for each of n rows of X, over k below n, stored to Y."""
    lanes = 8
    names = [f"T{n}" for n in range(count)]
    body = b.block(*extra, *(lp.Store(x, (), op("add", lp.Load(x, (), dtype), value(n))) for n, x in enumerate(names)))
    start = [s for x in names for s in (lp.Alloc(x, dtype, (), lp.Space.REGISTER, lanes), lp.Store(x, (), lp.Const(0.0, dtype)))]
    end = [lp.Store("Y", (lp.Ramp(const(lanes * n), 1, lanes),), lp.Load(x, (), dtype)) for n, x in enumerate(names)]
    if hint:
        body = b.block(body, lp.Prefetch("P", plus(times(var("k"), var("n")), const(64)), near=False))
    loop = lp.For("k", b.ZERO, var("n"), b.block(*b.statements(body)))
    return lp.Kernel("sums", (size("n"), array("X", dtype), array("P", dtype), array("Y", dtype, "output")), b.block(*start, loop, *end))


def scalar(n: int) -> lp.LoopExpr:
    return lp.Load("X", (plus(times(var("n"), const(n)), var("k")),), dt.f32)


def vector(stride: lp.LoopExpr) -> lp.LoopExpr:
    return lp.Load("P", (lp.Ramp(times(var("k"), stride), 1, 8),), dt.f32)


OTHERS = {
    "few sums": sums(7, lambda n: op("mul", scalar(n), vector(const(8)))),
    "no product": sums(8, lambda n: vector(const(8))),
    "two vectors": sums(8, lambda n: op("mul", vector(const(8)), vector(const(8)))),
    "an index that does not grow evenly": sums(8, lambda n: op("mul", scalar(n), vector(var("k")))),
    "no hint": sums(8, lambda n: op("mul", scalar(n), vector(const(8))), hint=False),
    "vectors that lie apart": sums(8, lambda n: op("mul", scalar(n), vector(var("n")))),
    "a store among the steps": sums(8, lambda n: op("mul", scalar(n), vector(const(8))), (lp.Store("Y", (var("k"),), lp.Const(0.0, dt.f32)),)),
}


@pytest.mark.parametrize("name", list(OTHERS))
def test_other_loops_stay_loops(name: str) -> None:
    assert not functions(emit.emit(OTHERS[name], cpu.host()))


def test_a_loop_written_by_hand() -> None:
    n, rng = 21, np.random.default_rng(0)
    x, p, y = rng.standard_normal((8, n)).astype(np.float32), rng.standard_normal((n, 8)).astype(np.float32), np.zeros((8, 8), np.float32)
    kernel = sums(8, lambda r: op("mul", scalar(r), vector(const(8))))
    assert len(functions(emit.emit(kernel, cpu.host()))) == 1 + len(tile._heights(8))
    assert Compiled(kernel)(n, x, p, y) == 0
    np.testing.assert_allclose(y, x.astype(np.float64) @ p, atol=1e-5)
    assert Compiled(kernel)(0, x, p, y) == 0 and not y.any()


def test_pieces_of_a_sum_that_are_short_stay_loops() -> None:
    """A product of few rows streams its matrix, a few rows of it at a time: calls would cost more than they do."""
    few = pa.jit(lambda a, w: a @ w)
    a, w = np.ones((5, 2048), np.float32), np.ones((2048, 2048), np.float32)
    with pa.options(blas="never"):
        explained = few.explain(a, w)
    assert "at a time, in runs of" in str(explained["decisions"]) and not functions(str(explained["code"]))


def test_the_statement_writer_uses_them() -> None:
    assert stmt.tile is tile
