"""The interpreter against NumPy and SciPy; the verifier against broken kernels."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from polyai.errors import VerifyError
from polyai.loop import build as b
from polyai.loop.interp import run
from polyai.loop.nodes import Alloc, Check, Const, For, Horizontal, Kernel, Kind, Let, Load, MaskedLoad, Ramp, Space, Store
from polyai.loop.show import show
from polyai.loop.verify import verify
from polyai.scalar import dtype as dt
from polyai.term.node import rewrite
from tests.loop import kernels


@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize(("m", "n", "w"), [(0, 3, 2), (1, 1, 1), (7, 5, 3), (4, 9, 0)])
def test_spmm_equals_scipy(m: int, n: int, w: int, backwards: bool) -> None:
    kernel = kernels.spmm()
    verify(kernel)
    rng = np.random.default_rng(1)
    a, x, bias = kernels.csr(m, n, 0.5, 2), rng.standard_normal((n, w)).astype(np.float32), rng.standard_normal(w).astype(np.float32)
    y = np.full((m, w), np.nan, np.float32)
    assert run(kernel, {**kernels.csr_args(a), "w": w, "X": x, "bias": bias, "Y": y}, backwards=backwards) == 0
    np.testing.assert_allclose(y, np.maximum(a.astype(np.float64) @ x.astype(np.float64) + bias, 0), rtol=1e-5, atol=1e-5)


def test_bad_column_leaves_with_its_site_and_culprit() -> None:
    a = kernels.csr(6, 5, 0.6, 3, np.float64)
    a.indices[2] = 77
    culprits: list[int] = []
    assert run(kernels.spmv(), {**kernels.csr_args(a), "x": np.ones(5), "y": np.zeros(6)}, culprits=culprits) == 2
    assert culprits == [77]


def test_bad_row_pointer_leaves_with_its_site() -> None:
    a = kernels.csr(6, 5, 0.6, 3, np.float64)
    a.indptr[3] = 1000
    assert run(kernels.spmv(), {**kernels.csr_args(a), "x": np.ones(5), "y": np.zeros(6)}) == 1


def test_without_its_check_a_bad_column_is_a_defect() -> None:
    kernel = kernels.spmv()

    def drop(stmt: object) -> object:
        return b.block() if isinstance(stmt, Check) and stmt.site == 1 else stmt

    broken = dataclasses.replace(kernel, body=rewrite(kernel.body, drop))
    a = kernels.csr(6, 5, 0.6, 3, np.float64)
    a.indices[2] = 77
    with pytest.raises(VerifyError, match="x is accessed at"):
        run(broken, {**kernels.csr_args(a), "x": np.ones(5), "y": np.zeros(6)})


def test_matmul_softmax_and_counting() -> None:
    rng = np.random.default_rng(5)
    a, c = rng.standard_normal((7, 4)), rng.standard_normal((4, 5))
    out = np.empty((7, 5))
    verify(kernels.matmul(dt.f64))
    assert run(kernels.matmul(dt.f64), {"m": 7, "l": 4, "w": 5, "A": a, "B": c, "C": out}) == 0
    np.testing.assert_allclose(out, a @ c)
    soft = np.empty((7, 4))
    verify(kernels.softmax(dt.f64))
    assert run(kernels.softmax(dt.f64), {"m": 7, "w": 4, "X": a, "Y": soft}) == 0
    e = np.exp(a - a.max(1, keepdims=True))
    np.testing.assert_allclose(soft, e / e.sum(1, keepdims=True))
    n = np.zeros((), np.int64)
    verify(kernels.count_above(dt.f64))
    assert run(kernels.count_above(dt.f64), {"m": 7, "a": np.array(0.25), "x": a[:, 1].copy(), "n": n}) == 0
    assert n == (a[:, 1] > 0.25).sum()


def test_vectors_masks_and_horizontal() -> None:
    i = kernels.v("i")
    lanes = Ramp(i, 1, 4)
    mask = b.compare("lt", lanes, kernels.v("m"))
    body = For(
        "i",
        b.ZERO,
        kernels.v("m"),
        b.block(
            Let("x4", MaskedLoad("x", (lanes,), mask, dt.f64)),
            Store("y", (lanes,), b.apply("add", (b.apply("mul", (b.Var("x4", dt.f64), Const(2.0, dt.f64)), dt.f64), Const(1.0, dt.f64)), dt.f64), mask),
            Store("T", (), b.apply("add", (Load("T", (), dt.f64), b.Var("x4", dt.f64)), dt.f64)),
        ),
        step=4,
    )
    total = Store("s", (), Horizontal("add", Load("T", (), dt.f64), dt.f64))
    register = Alloc("T", dt.f64, (), Space.REGISTER, 4)
    params = (kernels.size("m"), kernels.array("x", dt.f64, kernels.v("m")), kernels.array("y", dt.f64, kernels.v("m"), role="output"))
    kernel = Kernel("v", (*params, kernels.array("s", dt.f64, role="output")), b.block(register, Store("T", (), Const(0.0, dt.f64)), body, total))
    verify(kernel)
    x, y, s = np.arange(7.0), np.zeros(7), np.zeros(())
    assert run(kernel, {"m": 7, "x": x, "y": y, "s": s}) == 0
    np.testing.assert_array_equal(y, 2 * x + 1)
    assert s == 21.0


def _kernel(*stmts: object) -> Kernel:
    params = (kernels.size("m"), kernels.array("x", dt.f64, kernels.v("m")), kernels.array("y", dt.f32, kernels.v("m"), role="output"))
    return Kernel("bad", params, b.block(*stmts))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("kernel", "message"),
    [
        (_kernel(Let("a", kernels.v("z"))), "z is not defined"),
        (_kernel(Let("a", b.ONE), Let("a", b.ONE)), "defined twice"),
        (_kernel(Store("x", (b.ZERO,), Const(1.0, dt.f64))), "is an input"),
        (_kernel(Store("y", (b.ZERO,), Const(1.0, dt.f64))), "holds f32 and gets f64"),
        (_kernel(Store("y", (b.ZERO, b.ZERO), Const(1.0, dt.f32))), "2 indices"),
        (_kernel(Check(b.ONE, 0)), "a check of dtype"),
        (_kernel(Check(b.TRUE, 0)), "site 0 of 0"),
        (_kernel(Let("a", b.apply("add", (b.ONE, Const(1.0, dt.f64)), dt.f64))), "add of"),
        (_kernel(Let("a", b.apply("add", (Ramp(b.ZERO, 1, 4), Ramp(b.ZERO, 1, 8)), dt.i64))), "4 lanes meet 8"),
        (_kernel(Let("a", Load("x", (), dt.f64))), "0 indices"),
        (_kernel(Store("y", (b.ZERO,), b.load("y", (Ramp(b.ZERO, 1, 4),), dt.f32))), "4 lanes stored to 1"),
        (_kernel(For("i", b.ZERO, b.ONE, For("j", b.ZERO, b.ONE, b.block(), Kind.PARALLEL), Kind.VECTOR)), "not at host level"),
        (
            _kernel(Alloc("T", dt.f32, (), Space.REGISTER), For("i", b.ZERO, b.ONE, Store("T", (), Const(0.0, dt.f32)), Kind.PARALLEL)),
            "declared outside of",
        ),
        (_kernel(For("i", b.ZERO, b.ONE, b.block(Alloc("T", dt.f32, (b.ONE,), Space.KERNEL)), Kind.PARALLEL)), "in a parallel loop"),
    ],
)
def test_verify_names_the_broken_rule(kernel: Kernel, message: str) -> None:
    with pytest.raises(VerifyError, match=message):
        verify(kernel)


def test_show() -> None:
    assert show(kernels.spmv()) == """\
kernel spmv(A.nnz, m, n, input A.pos1: i32[m + 1], input A.crd1: i32[A.nnz], input A.val: f64[A.nnz], input x: f64[n], output y: f64[m]):
  for i in 0..m parallel weight=A.pos1:
    let A_begin1 = i64(A.pos1[i])
    let A_end1 = i64(A.pos1[i + 1])
    check u64(A_begin1) <= u64(A_end1) and u64(A_end1) <= u64(A.nnz) else site 0 (A_end1)
    let A_len1 = A_end1 - A_begin1
    alloc T: f64 register
    T = 0.0
    for q in 0..A_len1 vector:
      let k = i64(A.crd1[A_begin1 + q])
      check u64(k) < u64(n) else site 1 (k)
      T = T + A.val[A_begin1 + q] * x[k]
    y[i] = T
site 0: SparseStructureError: row pointers of A are not monotone: {value}
site 1: SparseStructureError: column index {value} of A is out of range
"""
