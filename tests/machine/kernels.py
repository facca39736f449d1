"""Flat, vectorised kernels written by hand, as `loop.passes` makes them."""

from __future__ import annotations

from polyai.loop import nodes as lp
from polyai.scalar import dtype as dt
from polyai.scalar.dtype import DType
from tests.machine.harness import array, const, op, plus, size, times, var

Stmts = list[lp.Stmt]


def less(a: lp.LoopExpr, b: lp.LoopExpr, name: str = "lt") -> lp.Apply:
    return op(name, a, b, dtype=dt.bool_)


def both(*tests: lp.LoopExpr) -> lp.LoopExpr:
    out = tests[0]
    for t in tests[1:]:
        out = lp.Apply("and", (out, t), dt.bool_)
    return out


def wide(e: lp.LoopExpr) -> lp.Cast:
    return lp.Cast(e, dt.i64)


def register(name: str, dtype: DType, lanes: int, first: float | complex = 0.0) -> Stmts:
    return [lp.Alloc(name, dtype, (), lp.Space.REGISTER, lanes), lp.Store(name, (), const(first, dtype))]


def row(index: DType) -> Stmts:
    """The bounds of row i, checked."""
    begin, end = lp.Load("A.pos1", (var("i"),), index), lp.Load("A.pos1", (plus(var("i"), const(1)),), index)
    ok = both(less(const(0), var("b"), "le"), less(var("b"), var("e"), "le"), less(var("e"), var("A.nnz"), "le"))
    return [lp.Let("b", wide(begin)), lp.Let("e", wide(end)), lp.Check(ok, 0, var("e"))]


def spmm(dtype: DType = dt.f32, index: DType = dt.i32, lanes: int = 16, copies: int = 4) -> lp.Kernel:
    """Y = max(A X, 0) for CSR A and a number of columns that is a multiple of lanes * copies; j in vectors outside q."""
    position = plus(var("b"), var("q"))
    inner: Stmts = []
    for c in range(copies):
        inner += register(f"T{c}", dtype, lanes)
    entry: Stmts = [
        lp.Let("k", wide(lp.Load("A.crd1", (position,), index))),
        lp.Check(both(less(const(0), var("k"), "le"), less(var("k"), var("m"))), 1, var("k")),
        lp.Let("a", lp.Load("A.val", (position,), dtype)),
    ]
    for c in range(copies):
        at = lp.Ramp(plus(times(var("k"), var("n")), plus(var("j"), const(lanes * c))), 1, lanes)
        product = op("mul", var("a", dtype), lp.Load("X", (at,), dtype))
        entry.append(lp.Store(f"T{c}", (), op("add", lp.Load(f"T{c}", (), dtype), product)))
    inner.append(lp.For("q", const(0), op("sub", var("e"), var("b")), lp.Block(tuple(entry))))
    for c in range(copies):
        at = plus(times(var("i"), var("n")), lp.Ramp(plus(var("j"), const(lanes * c)), 1, lanes))
        result: lp.LoopExpr = lp.Load(f"T{c}", (), dtype)
        inner.append(lp.Store("Y", (at,), result if dtype.is_complex else op("max", result, const(0.0, dtype))))
    columns = lp.For("j", const(0), var("n"), lp.Block(tuple(inner)), step=lanes * copies)
    body = lp.For("i", const(0), var("rows"), lp.Block((*row(index), columns)), lp.Kind.PARALLEL, weight="A.pos1", cost=64)
    params = (
        size("rows"), size("m"), size("n"), size("A.nnz"), array("A.pos1", index), array("A.crd1", index),
        array("A.val", dtype), array("X", dtype), array("Y", dtype, "output"),
    )  # fmt: skip
    sites = (lp.Site("SparseStructureError", "row pointers"), lp.Site("SparseStructureError", "column {value}"))
    return lp.Kernel("spmm", params, body, sites)


def reduction(monoid: str, dtype: DType, lanes: int, first: float | complex) -> lp.Kernel:
    """Y[0] = all X combined, in partial vectors and a tail under a mask."""
    ramp = lp.Ramp(var("i"), 1, lanes)
    mask = less(ramp, var("n"))
    value = op("where", mask, lp.MaskedLoad("X", (ramp,), mask, dtype), const(first, dtype), dtype=dtype)
    step = lp.Store("T", (), op(monoid, lp.Load("T", (), dtype), value, dtype=dtype))
    body = [
        *register("T", dtype, lanes, first),
        lp.For("i", const(0), var("n"), step, step=lanes),
        lp.Store("Y", (const(0),), lp.Horizontal(monoid, lp.Load("T", (), dtype), dtype)),
    ]
    return lp.Kernel("reduce", (size("n"), array("X", dtype), array("Y", dtype, "output")), lp.Block(tuple(body)))


def row_buffers(lanes: int = 1) -> lp.Kernel:
    """Y[i] = sum of the squares of row i of X, by way of a buffer that each thread has of its own."""
    at = plus(times(var("i"), var("m")), var("j"))
    square = op("mul", lp.Load("X", (at,), dt.f64), lp.Load("X", (at,), dt.f64))
    body: Stmts = [
        lp.Alloc("R", dt.f64, (var("m"),), lp.Space.THREAD),
        lp.For("j", const(0), var("m"), lp.Store("R", (var("j"),), square)),
        *register("T", dt.f64, 1),
        lp.For("j", const(0), var("m"), lp.Store("T", (), op("add", lp.Load("T", (), dt.f64), lp.Load("R", (var("j"),), dt.f64)))),
        lp.Store("Y", (var("i"),), lp.Load("T", (), dt.f64)),
    ]
    loop = lp.For("i", const(0), var("n"), lp.Block(tuple(body)), lp.Kind.PARALLEL, cost=100_000)
    return lp.Kernel("rows", (size("n"), size("m"), array("X", dt.f64), array("Y", dt.f64, "output")), loop)


def visits(index: DType, step: int = 1) -> lp.Kernel:
    """V[i] += 1 for every step-th i in low..high, split by weight."""
    body = lp.Store("V", (var("i"),), op("add", lp.Load("V", (var("i"),), dt.i64), const(1)))
    loop = lp.For("i", var("low"), var("high"), body, lp.Kind.PARALLEL, step=step, weight="P", cost=100_000)
    return lp.Kernel("visits", (size("low"), size("high"), array("P", index), array("V", dt.i64, "output")), loop)
