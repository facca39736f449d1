"""Every pass keeps what a kernel means, for sizes around the widths of vectors and jammed loops."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from polyai.loop import build as b
from polyai.loop.interp import run
from polyai.loop.nodes import (
    Alloc,
    Apply,
    Block,
    Check,
    Const,
    For,
    If,
    Kernel,
    Kind,
    Let,
    Load,
    Param,
    Site,
    Space,
    Stmt,
    Store,
    Var,
)
from polyai.loop.passes.bind import bind
from polyai.loop.passes.flatten import flatten
from polyai.loop.passes.jam import jam, widths
from polyai.loop.passes.order import lower_loops, passes
from polyai.loop.passes.rebase import rebase
from polyai.loop.passes.simplify import simplify
from polyai.loop.passes.vectorize import vectorize
from polyai.loop.show import show_expr, show_stmt
from polyai.loop.verify import verify
from polyai.loop.walks import all_exprs, all_stmts, expressions
from polyai.scalar import dtype as dt
from polyai.term.node import rewrite
from tests.loop import kernels


def fresh(args: dict[str, Any]) -> dict[str, Any]:
    return {k: a.copy() if isinstance(a, np.ndarray) else a for k, a in args.items()}


def same_after_every_pass(kernel: Kernel, args: dict[str, Any], *, vector_bits: int = 512, code: int = 0, rtol: float = 1e-5) -> None:
    """Run `kernel` after each pass and compare outputs and result code with those before."""
    verify(kernel)
    first = fresh(args)
    assert run(kernel, first) == code
    outputs = [p.name for p in kernel.params if p.role == "output"]
    notes: list[str] = []
    for name, change in passes(vector_bits=vector_bits, notes=notes):
        kernel = change(kernel)
        verify(kernel, flat=name not in ("simplify", "quotients", "spare", "gathered", "stretch", "heavy", "staged", "twins"))
        mine = fresh(args)
        assert run(kernel, mine, backwards=True) == code, name
        for o in outputs if code == 0 else []:
            np.testing.assert_allclose(mine[o], first[o], rtol=rtol, atol=1e-5, err_msg=name)
    assert not [s for s in _loops(kernel.body) if s.kind in (Kind.VECTOR, Kind.JAM)]


def _loops(stmt: Stmt) -> list[For]:
    return [s for s in all_stmts(stmt) if isinstance(s, For)]


@pytest.mark.parametrize("w", [0, 1, 15, 16, 17, 64, 100, 129])
def test_spmm(w: int) -> None:
    rng = np.random.default_rng(w)
    a, x, bias = kernels.csr(5, 7, 0.6, w), rng.standard_normal((7, w)).astype(np.float32), rng.standard_normal(w).astype(np.float32)
    same_after_every_pass(kernels.spmm(), {**kernels.csr_args(a), "w": w, "X": x, "bias": bias, "Y": np.full((5, w), np.nan, np.float32)})


@pytest.mark.parametrize("vector_bits", [128, 256, 512])
def test_spmv_with_short_and_long_rows(vector_bits: int) -> None:
    a = kernels.csr(40, 60, 0.4, 11, np.float64)
    args = {**kernels.csr_args(a), "x": np.random.default_rng(0).standard_normal(60), "y": np.full(40, np.nan)}
    same_after_every_pass(kernels.spmv(), args, vector_bits=vector_bits, rtol=1e-12)


@pytest.mark.parametrize(("position", "bad"), [(0, 60), (3, -1), (-1, 1 << 30)])
def test_a_bad_column_is_found_in_every_lane(position: int, bad: int) -> None:
    a = kernels.csr(12, 60, 0.9, 12, np.float64)
    a.indices[position] = bad
    same_after_every_pass(kernels.spmv(), {**kernels.csr_args(a), "x": np.ones(60), "y": np.zeros(12)}, code=2)


@pytest.mark.parametrize("position", [4, 5, 6])
def test_a_bad_column_is_found_in_the_rest_of_a_row(position: int) -> None:
    a = sp.csr_matrix(np.ones((2, 7)))
    a.indices[position] = 7
    same_after_every_pass(kernels.spmv(), {**kernels.csr_args(a), "x": np.ones(7), "y": np.zeros(2)}, code=2, vector_bits=256)


def test_a_loop_over_a_fibre_counts_positions() -> None:
    kernel = rebase(bind(flatten(simplify(kernels.spmv()))))
    (loop,) = [s for s in _loops(kernel.body) if s.kind is Kind.VECTOR]
    assert (show_expr(loop.lower), show_expr(loop.upper)) == ("A_begin1", "A_end1")
    assert {show_expr(x) for s in all_stmts(loop.body) for e in expressions(s) for x in all_exprs(e) if isinstance(x, Load) and x.indices} == {"A.crd1[q]", "A.val[q]", "x[k]"}
    verify(kernel, flat=True)


def test_loops_that_use_their_variable_alone_keep_it() -> None:
    q, begin, end = b.var("q"), b.var("begin"), b.var("end")
    length = Let("len", b.sub(end, begin))
    at = b.load("X", (b.add(begin, q),), dt.f32)

    def of(value: Any, upper: str = "len", *more: Stmt) -> For:
        steps = Block((*more, Store("Y", (b.add(begin, q),), value)))
        kernel = Kernel("k", (), Block((length, For("q", b.ZERO, b.var(upper), steps, Kind.VECTOR))), ())
        return next(s for s in _loops(rebase(kernel).body))

    assert of(at).lower == begin and of(at).upper == end
    assert of(b.apply("mul", (at, b.convert(q, dt.f32)), dt.f32)).lower == b.ZERO  # the number itself
    assert of(b.load("X", (b.add(b.var("other"), q),), dt.f32)).lower == b.ZERO  # from two begins
    assert of(at, "n").lower == b.ZERO  # as long as something else
    assert of(at, "len", Let("begin", b.const(3))).lower == b.ZERO  # another begin in each step


def test_a_sum_that_begins_with_nothing_takes_the_sum_of_its_lanes() -> None:
    text = show_stmt(lower_loops(kernels.spmv(), 256, 16).body)
    assert " = lanes_add(" in text and "+ lanes_add(" not in text
    assert "+ lanes_add(" in show_stmt(lower_loops(kernels.spmv(start=1.5), 256, 16).body)


def test_the_rest_of_a_sum_that_gathers_is_branches_inside_each_other() -> None:
    kernel = vectorize(flatten(simplify(kernels.spmv())), 256, 16)
    (row,) = [s for s in _loops(kernel.body) if s.var == "i"]
    assert len([s for s in all_stmts(row.body) if isinstance(s, For)]) == 1  # the whole vectors
    branches = [s for s in all_stmts(row.body) if isinstance(s, If) and not any(isinstance(x, For) for x in all_stmts(s))]
    assert [sum(isinstance(x, Check) for x in all_stmts(s)) for s in branches] == [3, 2, 1]  # four lanes leave at most three


@pytest.mark.parametrize("m", [0, 1, 3, 4, 7, 8, 13])
def test_the_rest_of_a_loop_of_indexed_loads_is_branches_where_no_instruction_loads_them(m: int) -> None:
    k = kernels.v("k")
    index = b.convert(b.load("crd", (k,), dt.i32), dt.i64)
    loop = For("k", b.ZERO, kernels.v("m"), Store("y", (k,), b.load("x", (index,), dt.f64)), Kind.VECTOR)
    params = (Param("m", dt.i64, "size"), Param("crd", dt.i32, "input", (kernels.v("m"),)), Param("x", dt.f64, "input", (b.const(20),)), Param("y", dt.f64, "output", (kernels.v("m"),)))
    narrow, wide = (vectorize(flatten(Kernel("g", params, loop)), bits, 16) for bits in (256, 512))
    assert ("exists" in show_stmt(narrow.body), "exists" in show_stmt(wide.body)) == (False, True)
    for kernel in (narrow, wide):
        verify(kernel)
        args = {"m": m, "crd": np.arange(m, dtype=np.int32)[::-1].copy(), "x": np.arange(20.0), "y": np.zeros(m)}
        assert run(kernel, args) == 0
        np.testing.assert_array_equal(args["y"], np.arange(m)[::-1])


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.integers(0, 14), st.integers(0, 5), st.sampled_from([0, 1, 15, 16, 33, 50, 70]), st.sampled_from([1, 2, 3, 6]))
def test_matmul(m: int, depth: int, w: int, copies: int) -> None:
    rng = np.random.default_rng(m * 100 + w)
    a, c = rng.standard_normal((m, depth)).astype(np.float32), rng.standard_normal((depth, w)).astype(np.float32)
    args = {"m": m, "l": depth, "w": w, "A": a, "B": c, "C": np.full((m, w), np.nan, np.float32)}
    same_after_every_pass(kernels.matmul(jam=copies), args)


def constant(kernel: Kernel, sizes: dict[str, int]) -> Kernel:
    """`kernel` for fixed sizes."""

    def change(item: object) -> object:
        return b.const(sizes[item.name]) if isinstance(item, Var) and item.name in sizes else item

    params = tuple(dataclasses.replace(p, extents=tuple(rewrite(e, change) for e in p.extents)) if p.extents else p for p in kernel.params)
    return dataclasses.replace(kernel, params=params, body=rewrite(kernel.body, change))


@pytest.mark.parametrize(("m", "w"), [(0, 3), (1, 1), (4, 16), (5, 47), (6, 64), (13, 130), (8, 0)])
def test_constant_sizes(m: int, w: int) -> None:
    rng = np.random.default_rng(m)
    args = {"m": m, "l": 3, "w": w, "A": rng.standard_normal((m, 3)), "B": rng.standard_normal((3, w)), "C": np.full((m, w), np.nan)}
    same_after_every_pass(constant(kernels.matmul(dt.f64), {"m": m, "l": 3, "w": w}), args, rtol=1e-12)
    x = rng.standard_normal((m, w)).astype(np.float32) if w else np.zeros((m, 0), np.float32)
    same_after_every_pass(constant(kernels.softmax(), {"m": m, "w": w}), {"m": m, "w": w, "X": x, "Y": np.full((m, w), np.nan, np.float32)})


@pytest.mark.parametrize("w", [1, 8, 16, 63, 64, 65, 130])
def test_softmax(w: int) -> None:
    x = np.random.default_rng(w).standard_normal((3, w)).astype(np.float32)
    same_after_every_pass(kernels.softmax(), {"m": 3, "w": w, "X": x, "Y": np.full((3, w), np.nan, np.float32)})


@pytest.mark.parametrize("m", [0, 1, 16, 63, 65, 200])
def test_counting_reduces_integers(m: int) -> None:
    x = np.random.default_rng(m).standard_normal(m).astype(np.float32)
    same_after_every_pass(kernels.count_above(), {"m": m, "a": np.array(0.1, np.float32), "x": x, "n": np.zeros((), np.int64)})


@pytest.mark.parametrize("monoid", ["add", "mul", "max", "min"])
@pytest.mark.parametrize("m", [0, 1, 7, 8, 31, 40])
def test_every_monoid_and_nan(monoid: str, m: int) -> None:
    x = np.random.default_rng(m).standard_normal(m)
    if m > 8:
        x[5] = np.nan
    identity = {"add": 0.0, "mul": 1.0, "max": -np.inf, "min": np.inf}[monoid]
    body = b.block(
        Alloc("T", dt.f64, (), Space.REGISTER),
        Store("T", (), Const(identity, dt.f64)),
        For("i", b.ZERO, kernels.v("m"), kernels.acc("T", dt.f64, Load("x", (kernels.v("i"),), dt.f64), monoid), Kind.VECTOR),
        Store("s", (), Load("T", (), dt.f64)),
    )
    params = (kernels.size("m"), kernels.array("x", dt.f64, kernels.v("m")), kernels.array("s", dt.f64, role="output"))
    same_after_every_pass(Kernel("reduce", params, body), {"m": m, "x": x, "s": np.zeros(())}, rtol=1e-12)


def test_indices_under_a_lazy_branch_and_values_of_indices_in_a_reduction() -> None:
    """sum of x[k] + k where k is read from memory and x[k] only where k is even."""
    k = kernels.v("k")
    even = b.compare("eq", b.mod(k, b.const(2)), b.ZERO)
    picked = Apply("where", (even, Load("x", (k,), dt.f64), Const(0.5, dt.f64)), dt.f64)  # type: ignore[arg-type]
    body = b.block(
        Alloc("T", dt.f64, (), Space.REGISTER),
        Store("T", (), Const(0.0, dt.f64)),
        For(
            "i",
            b.ZERO,
            kernels.v("m"),
            b.block(
                Let("k", b.convert(Load("idx", (kernels.v("i"),), dt.i32), dt.i64)),
                Check(b.below(k, kernels.v("m")), 0, k),
                kernels.acc("T", dt.f64, Apply("add", (picked, b.convert(k, dt.f64)), dt.f64)),  # type: ignore[arg-type]
            ),
            Kind.VECTOR,
        ),
        Store("s", (), Load("T", (), dt.f64)),
    )
    params = (kernels.size("m"), kernels.array("x", dt.f64, kernels.v("m")), kernels.array("idx", dt.i32, kernels.v("m")), kernels.array("s", dt.f64, role="output"))  # fmt: skip
    kernel = Kernel("gathered", params, body, (Site("IndexOutOfRangeError", "x"),))
    for m in (0, 1, 3, 4, 13):
        idx = np.random.default_rng(m).integers(0, max(m, 1), m).astype(np.int32)
        args = {"m": m, "x": np.arange(float(m)), "idx": idx, "s": np.zeros(())}
        same_after_every_pass(kernel, args, rtol=1e-12)
        if m:
            idx[m // 2] = m
            same_after_every_pass(kernel, args, code=1)


def _elementwise(store: Stmt, *more: Stmt) -> Kernel:
    """for i in 0..m vector over x, y: f64[m] and z: f64[2 * m]."""
    m = kernels.v("m")
    arrays = [kernels.array(n, dt.f64, m) for n in ("x", "idx")]
    outs = [kernels.array("y", dt.f64, m, role="output"), kernels.array("z", dt.f64, b.mul(m, b.const(2)), role="output")]
    return Kernel("e", (kernels.size("m"), *arrays, *outs), For("i", b.ZERO, m, b.block(*more, store), Kind.VECTOR), (Site("IndexOutOfRangeError", "x"),))


def _run(kernel: Kernel, m: int = 21, code: int = 0) -> list[str]:
    x = np.random.default_rng(1).standard_normal(m)
    args = {"m": m, "x": x, "idx": np.arange(m)[::-1].astype(float), "y": np.zeros(m), "z": np.zeros(2 * m)}
    same_after_every_pass(kernel, args, code=code)
    notes: list[str] = []
    lower_loops(kernel, notes=notes)
    return notes


AT, X = kernels.v("i"), Load("x", (kernels.v("i"),), dt.f64)


def test_a_gather_in_lanes_is_checked_in_lanes() -> None:
    k = b.convert(Load("idx", (AT,), dt.f64), dt.i64)
    stmts = (Let("k", k), Check(b.below(kernels.v("k"), kernels.v("m")), 0, kernels.v("k")))
    assert _run(_elementwise(Store("y", (AT,), Load("x", (kernels.v("k"),), dt.f64)), *stmts)) == []


def test_a_branch_that_lanes_take_or_not_becomes_a_mask() -> None:
    test = Apply("gt", (X, Const(0.0, dt.f64)), dt.bool_)
    assert _run(_elementwise(If(test, Store("y", (AT,), X), Store("y", (AT,), Const(2.0, dt.f64))))) == []


def test_a_uniform_branch_stays_a_branch() -> None:
    test = b.compare("gt", kernels.v("m"), b.const(20))
    kernel = _elementwise(If(test, Store("y", (AT,), X)))
    assert _run(kernel) == []
    assert _run(kernel, m=19) == []


def test_what_cannot_run_in_lanes_stays_serial_and_is_noted() -> None:
    strided = Store("z", (b.mul(AT, b.const(2)),), X)
    assert _run(_elementwise(strided)) == ["loop i stays serial: iterations write elements of z that are not consecutive"]
    ragged = For("r", b.ZERO, AT, Store("y", (AT,), X))
    assert _run(_elementwise(ragged)) == ["loop i stays serial: the length of the loop over r differs between iterations"]


def test_index_values_become_ramps() -> None:
    value = b.convert(b.mul(b.add(AT, b.const(3)), b.const(2)), dt.f64)
    assert _run(_elementwise(Store("y", (AT,), value))) == []


def test_jam_runs_uneven_inner_loops_one_after_another() -> None:
    inner = For("j", b.ZERO, AT, kernels.acc("T", dt.f64, Load("x", (kernels.v("j"),), dt.f64)))
    body = b.block(Alloc("T", dt.f64, (), Space.REGISTER), Store("T", (), Const(0.0, dt.f64)), inner, Store("y", (AT,), Load("T", (), dt.f64)))
    kernel = Kernel("t", _elementwise(body).params, For("i", b.ZERO, kernels.v("m"), body, Kind.JAM, jam=4))
    assert _run(kernel) == []


def test_versions_of_a_jammed_loop() -> None:
    assert widths(6, tile=True) == [6, 2, 1]
    assert widths(2, tile=True) == [2, 1]
    assert widths(4, tile=False) == [4, 1]
    assert widths(1, tile=False) == [1]


def test_simplify_folds_and_drops() -> None:
    body = b.block(
        Let("a", b.apply("add", (b.apply("mul", (kernels.v("m"), b.ONE), dt.i64), b.ZERO), dt.i64)),
        Let("unread", Load("x", (b.ZERO,), dt.f64)),
        For("i", b.ZERO, kernels.v("a"), For("j", b.ZERO, b.ONE, Store("y", (b.apply("add", (AT, kernels.v("j")), dt.i64),), X))),
        For("n", b.ONE, b.ONE, Store("y", (b.ZERO,), Const(5.0, dt.f64))),
        Check(b.apply("lt", (b.convert(b.ONE, dt.u64), b.convert(b.const(3), dt.u64)), dt.bool_), 0),
    )
    kernel = Kernel("s", _elementwise(body).params, body, (Site("IndexOutOfRangeError", "x"),))
    verify(kernel)
    assert show_stmt(simplify(kernel).body) == "for i in 0..m:\n  y[i] = x[i]"


def test_flatten_names_one_index() -> None:
    assert "B[k * w + j]" in show_stmt(flatten(kernels.matmul()).body)
    assert "n[0] = T" in show_stmt(flatten(kernels.count_above()).body)


def test_bind_moves_what_a_loop_does_not_change() -> None:
    kernel = bind(flatten(kernels.spmm()))
    assert show_stmt(kernel.body) == """\
for i in 0..m parallel weight=A.pos1:
  let A_begin1 = i64(A.pos1[i])
  let A_end1 = i64(A.pos1[i + 1])
  check u64(A_begin1) <= u64(A_end1) and u64(A_end1) <= u64(A.nnz) else site 0 (A_end1)
  let A_len1 = A_end1 - A_begin1
  let i_w = i * w
  for j in 0..w vector:
    alloc T: f32 register
    T = f32(0.0)
    for q in 0..A_len1:
      let add_value = A_begin1 + q
      let k = i64(A.crd1[add_value])
      check u64(k) < u64(n) else site 1 (k)
      T = T + A.val[add_value] * X[k * w + j]
    let add_value_1 = T + bias[j]
    Y[i_w + j] = where(add_value_1 > f32(0.0), add_value_1, f32(0.0))"""


def test_bind_moves_a_load_out_of_a_loop_where_an_array_of_its_length_was_read_at_its_index() -> None:
    """`x` has as many elements as `idx`, whose element i was read outside of the loop over j; `z` has others."""
    i, j = kernels.v("i"), kernels.v("j")
    place = b.convert(Load("idx", (i,), dt.f64), dt.i64)
    longer = b.load("z", (b.add(i, b.const(1)),), dt.f64)
    inner = For("j", b.ZERO, kernels.v("p"), Store("y", (j,), Apply("add", (b.load("x", (i,), dt.f64), longer), dt.f64)))
    body = For("i", kernels.v("m"), b.mul(kernels.v("m"), b.const(2)), b.block(Let("p", place), inner))  # not below the extents of `x` for certain
    text = show_stmt(bind(flatten(Kernel("w", _elementwise(body).params, body))).body)
    before, after = text.split("for j in")
    assert "x[i]" in before and "x[i]" not in after and "z[i + 1]" in after


def test_bind_keeps_a_value_in_the_loop_of_another_it_equals() -> None:
    """`again` is p; what is computed from it must not move out of the loop that reads it."""
    p, q = kernels.v("p"), kernels.v("again")
    index = b.convert(Load("idx", (AT,), dt.f64), dt.i64)
    body = b.block(Let("p", index), Store("y", (AT,), b.convert(p, dt.f64)), Let("again", index), Store("z", (AT,), b.convert(b.mul(q, kernels.v("m")), dt.f64)))
    kernel = Kernel("a", _elementwise(body).params, For("i", b.ZERO, kernels.v("m"), body))
    assert _run(kernel, m=5) == []


def test_bind_does_not_reuse_a_load_across_a_write() -> None:
    y = Load("y", (b.ZERO,), dt.f64)
    twice = Apply("add", (y, y), dt.f64)
    body = b.block(Store("y", (b.ZERO,), twice), Store("y", (b.ONE,), twice))
    kernel = Kernel("w", _elementwise(body).params, body)
    out = {"m": 4, "x": np.zeros(4), "idx": np.zeros(4), "y": np.ones(4), "z": np.zeros(8)}
    assert run(bind(flatten(kernel)), out) == 0
    assert out["y"][:2].tolist() == [2.0, 4.0]


def test_bind_keeps_a_load_behind_its_check_and_in_its_loop() -> None:
    at = b.const(100)
    body = For("i", kernels.v("m"), kernels.v("m"), Store("y", (AT,), b.load("x", (at,), dt.f64)))
    kernel = Kernel("w", _elementwise(body).params, body)
    assert run(bind(flatten(kernel)), {"m": 4, "x": np.zeros(4), "idx": np.zeros(4), "y": np.ones(4), "z": np.zeros(8)}) == 0


def test_bind_sees_a_stored_value_through_memory() -> None:
    text = show_stmt(bind(flatten(kernels.softmax())).body)
    assert "S = S + exp_value" in text
    assert "E[j] = exp_value" in text


def test_vectorize_shows_a_register_tile() -> None:
    kernel = vectorize(bind(flatten(kernels.spmv())))
    assert "T_lanes = T_lanes + A.val[ramp(add_value, 4)] * pack(x[k], x[k_1], x[k_2], x[k_3])" in show_stmt(kernel.body)
    jammed = lower_loops(kernels.matmul())
    text = show_stmt(jammed.body)
    assert text.count("f32 x 16 register") == sum(rows * c for rows in (6,) for c in (4, 2, 1))  # the last tile repeats its last row


def test_jam_keeps_a_loop_it_cannot_jam() -> None:
    chain = For("i", b.ZERO, kernels.v("m"), Store("T", (), Apply("square", (Load("T", (), dt.f64),), dt.f64)), Kind.JAM, jam=4)
    body = b.block(Alloc("T", dt.f64, (), Space.REGISTER), Store("T", (), Const(2.0, dt.f64)), chain, Store("y", (b.ZERO,), Load("T", (), dt.f64)))
    kernel, notes = Kernel("c", _elementwise(body).params, body), list[str]()
    assert jam(kernel, notes) is not None
    assert notes == ["loop i is not jammed: it carries a value that is no plain reduction"]
    _run(kernel, m=3)


@pytest.mark.parametrize("n", [0, 1, 2, 17, 40])
def test_a_loop_that_ends_before_it_begins_does_nothing(n: int) -> None:
    at = b.var("i")
    body = Store("Y", (at,), b.load("X", (b.sub(at, b.ONE),), dt.f32))
    params = (kernels.size("n"), kernels.array("X", dt.f32, b.var("n")), kernels.array("Y", dt.f32, b.var("n"), role="output"))
    kernel = Kernel("shifted", params, For("i", b.const(3), b.sub(b.var("n"), b.ONE), body, Kind.VECTOR))
    x = np.arange(n, dtype=np.float32)
    same_after_every_pass(kernel, {"n": n, "X": x, "Y": np.zeros(n, np.float32)})
