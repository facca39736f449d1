"""Loop kernels written by hand, in the form `lower.poly_to_loop` gives, and their meaning in NumPy and SciPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp

from polyai.loop import build as b
from polyai.loop.nodes import (
    Alloc,
    Apply,
    Cast,
    Check,
    Const,
    For,
    Kernel,
    Kind,
    Let,
    Load,
    LoopExpr,
    Param,
    Site,
    Space,
    Stmt,
    Store,
    Var,
)
from polyai.scalar import dtype as dt
from polyai.scalar.dtype import DType

SITES = (
    Site("SparseStructureError", "row pointers of A are not monotone: {value}"),
    Site("SparseStructureError", "column index {value} of A is out of range"),
)


def v(name: str) -> Var:
    return Var(name, dt.i64)


def size(name: str) -> Param:
    return Param(name, dt.i64, "size")


def array(name: str, dtype: DType, *extents: LoopExpr, role: str = "input") -> Param:
    return Param(name, dtype, role, extents)


def op(name: str, *args: LoopExpr, dtype: DType | None = None) -> LoopExpr:
    return b.apply(name, args, dtype or b.dtype_of(args[0]))


def acc(name: str, dtype: DType, value: LoopExpr, monoid: str = "add") -> Stmt:
    """register = register monoid value"""
    return Store(name, (), op(monoid, Load(name, (), dtype), value))


def fibre(index: DType) -> list[Stmt]:
    """Begin, end and length of row i of A, checked."""
    begin, end = Load("A.pos1", (v("i"),), index), b.load("A.pos1", (b.add(v("i"), b.ONE),), index)
    ok = b.both(b.at_most(v("A_begin1"), v("A_end1")), b.at_most(v("A_end1"), v("A.nnz")))
    return [
        Let("A_begin1", b.convert(begin, dt.i64)),
        Let("A_end1", b.convert(end, dt.i64)),
        Check(ok, 0, v("A_end1")),
        Let("A_len1", b.sub(v("A_end1"), v("A_begin1"))),
    ]


def column(index: DType) -> list[Stmt]:
    """The checked coordinate k of position q."""
    return [
        Let("k", b.convert(b.load("A.crd1", (b.add(v("A_begin1"), v("q")),), index), dt.i64)),
        Check(b.below(v("k"), v("n")), 1, v("k")),
    ]


def csr_params(dtype: DType, index: DType) -> list[Param]:
    return [
        array("A.pos1", index, b.add(v("m"), b.ONE)),
        array("A.crd1", index, v("A.nnz")),
        array("A.val", dtype, v("A.nnz")),
    ]


def spmm(dtype: DType = dt.f32, index: DType = dt.i32, vector: bool = True) -> Kernel:
    """Y = relu(A @ X + bias), A CSR of m rows and n columns, X dense n x w."""
    value = b.load("A.val", (b.add(v("A_begin1"), v("q")),), dtype)
    total = op("add", Load("T", (), dtype), Load("bias", (v("j"),), dtype))
    zero = Const(0.0, dtype)
    inner = b.block(
        Alloc("T", dtype, (), Space.REGISTER),
        Store("T", (), zero),
        For(
            "q", b.ZERO, v("A_len1"), b.block(*column(index), acc("T", dtype, op("mul", value, Load("X", (v("k"), v("j")), dtype))))
        ),
        Store("Y", (v("i"), v("j")), op("where", op("gt", total, zero, dtype=dt.bool_), total, zero, dtype=dtype)),
    )
    row = b.block(*fibre(index), For("j", b.ZERO, v("w"), inner, Kind.VECTOR if vector else Kind.SERIAL))
    body = For("i", b.ZERO, v("m"), row, Kind.PARALLEL, weight="A.pos1", cost=4)
    params = [size(s) for s in ("A.nnz", "m", "n", "w")] + csr_params(dtype, index)
    params += [array("X", dtype, v("n"), v("w")), array("bias", dtype, v("w")), array("Y", dtype, v("m"), v("w"), role="output")]
    return Kernel("spmm", tuple(params), body, SITES)


def sddmm(jam: int = 4, rows: Kind = Kind.PARALLEL) -> Kernel:
    """Y[p] = sum of U[i, e] X[k, e] at the stored elements p = (i, k) of A."""
    product = op("mul", Load("U", (v("i"), v("e")), dt.f32), Load("X", (v("k"), v("e")), dt.f32))
    inner = b.block(
        *column(dt.i32),
        Alloc("T", dt.f32, (), Space.REGISTER),
        Store("T", (), Const(0.0, dt.f32)),
        For("e", b.ZERO, v("w"), acc("T", dt.f32, product), Kind.VECTOR),
        Store("Y", (b.add(v("A_begin1"), v("q")),), Load("T", (), dt.f32)),
    )
    row = b.block(*fibre(dt.i32), For("q", b.ZERO, v("A_len1"), inner, Kind.JAM, jam=jam))
    params = [size(s) for s in ("A.nnz", "m", "n", "w")] + csr_params(dt.f32, dt.i32)
    params += [array("U", dt.f32, v("m"), v("w")), array("X", dt.f32, v("n"), v("w")), array("Y", dt.f32, v("A.nnz"), role="output")]
    return Kernel("sddmm", tuple(params), For("i", b.ZERO, v("m"), row, rows, weight="A.pos1" if rows is Kind.PARALLEL else None, cost=4), SITES)


def spmv(dtype: DType = dt.f64, index: DType = dt.i32, start: float = 0.0) -> Kernel:
    """y = start + A @ x, A CSR."""
    value = b.load("A.val", (b.add(v("A_begin1"), v("q")),), dtype)
    loop = For("q", b.ZERO, v("A_len1"), b.block(*column(index), acc("T", dtype, op("mul", value, Load("x", (v("k"),), dtype)))), Kind.VECTOR)
    row = b.block(
        *fibre(index),
        Alloc("T", dtype, (), Space.REGISTER),
        Store("T", (), Const(start, dtype)),
        loop,
        Store("y", (v("i"),), Load("T", (), dtype)),
    )
    params = [size(s) for s in ("A.nnz", "m", "n")] + csr_params(dtype, index)
    params += [array("x", dtype, v("n")), array("y", dtype, v("m"), role="output")]
    return Kernel("spmv", tuple(params), For("i", b.ZERO, v("m"), row, Kind.PARALLEL, weight="A.pos1", cost=2), SITES)


def matmul(dtype: DType = dt.f32, jam: int = 6, vector: bool = True) -> Kernel:
    """C = A @ B, dense m x l times l x w."""
    product = op("mul", Load("A", (v("i"), v("k")), dtype), Load("B", (v("k"), v("j")), dtype))
    inner = b.block(
        Alloc("T", dtype, (), Space.REGISTER),
        Store("T", (), Const(0.0, dtype)),
        For("k", b.ZERO, v("l"), acc("T", dtype, product)),
        Store("C", (v("i"), v("j")), Load("T", (), dtype)),
    )
    columns = For("j", b.ZERO, v("w"), inner, Kind.VECTOR if vector else Kind.SERIAL)
    lower = b.mul(v("ib"), b.const(jam))
    rows = For("i", lower, b.smallest(b.add(lower, b.const(jam)), v("m")), columns, Kind.JAM, jam=jam)
    blocks = For("ib", b.ZERO, b.floordiv(b.add(v("m"), b.const(jam - 1)), b.const(jam)), rows, Kind.PARALLEL, cost=4)
    params = (*(size(s) for s in ("l", "m", "w")), array("A", dtype, v("m"), v("l")), array("B", dtype, v("l"), v("w")))
    return Kernel("matmul", (*params, array("C", dtype, v("m"), v("w"), role="output")), blocks)


def softmax(dtype: DType = dt.f32) -> Kernel:
    """Y = softmax(X) along rows, with a row buffer."""
    x = Load("X", (v("i"), v("j")), dtype)
    e = Load("E", (v("j"),), dtype)
    shifted = op("exp", op("sub", x, Load("M", (), dtype)))
    body = b.block(
        Alloc("M", dtype, (), Space.REGISTER),
        Alloc("S", dtype, (), Space.REGISTER),
        Alloc("E", dtype, (v("w"),), Space.THREAD),
        Store("M", (), Const(float("-inf"), dtype)),
        For("j", b.ZERO, v("w"), acc("M", dtype, x, "max"), Kind.VECTOR),
        Store("S", (), Const(0.0, dtype)),
        For("j", b.ZERO, v("w"), b.block(Store("E", (v("j"),), shifted), acc("S", dtype, e)), Kind.VECTOR),
        For("j", b.ZERO, v("w"), Store("Y", (v("i"), v("j")), op("div", e, Load("S", (), dtype))), Kind.VECTOR),
    )
    params = (size("m"), size("w"), array("X", dtype, v("m"), v("w")), array("Y", dtype, v("m"), v("w"), role="output"))
    return Kernel("softmax", params, For("i", b.ZERO, v("m"), body, Kind.PARALLEL, cost=40))


def count_above(dtype: DType = dt.f32) -> Kernel:
    """n = how many elements of x exceed a scalar: a scalar input, a scalar output, bools and integers."""
    hit = Cast(Apply("gt", (Load("x", (v("i"),), dtype), Load("a", (), dtype)), dt.bool_), dt.i64)
    body = b.block(
        Alloc("T", dt.i64, (), Space.REGISTER),
        Store("T", (), b.ZERO),
        For("i", b.ZERO, v("m"), acc("T", dt.i64, hit), Kind.VECTOR),
        Store("n", (), Load("T", (), dt.i64)),
    )
    params = (size("m"), array("a", dtype), array("x", dtype, v("m")), array("n", dt.i64, role="output"))
    return Kernel("count_above", params, body)


def csr(rows: int, columns: int, density: float, seed: int, dtype: Any = np.float32) -> sp.csr_matrix:
    """A random matrix with int32 indices; some rows are empty, some are long."""
    rng = np.random.default_rng(seed)
    full = rng.random((rows, columns)) < density * rng.choice([0.0, 0.5, 2.5], size=(rows, 1))
    a = sp.csr_matrix(np.where(full, rng.standard_normal((rows, columns)), 0.0).astype(dtype))
    a.indices, a.indptr = a.indices.astype(np.int32), a.indptr.astype(np.int32)
    return a


def csr_args(a: sp.csr_matrix) -> dict[str, Any]:
    return {"A.nnz": a.nnz, "m": a.shape[0], "n": a.shape[1], "A.pos1": a.indptr, "A.crd1": a.indices, "A.val": a.data}
