"""Programs as text."""

from __future__ import annotations

import dataclasses

from polyai.scalar import dtype as dt
from polyai.shapes.expr import symbol
from polyai.sparse.format import csc
from polyai.tensor.nodes import Cond, Extern, Fact, Input, Program, While
from polyai.tensor.passes import canonical, fuse
from polyai.tensor.show import show, show_body, show_step, show_type
from tests.programs import PROGRAMS
from tests.words import at, define, dense, lit, m, mul, n, op, program, reduce, sparse, stored, v, within


def text_of(name: str, *passes: object) -> str:
    p = PROGRAMS[name]().program
    for change in passes:
        p = change(p)  # type: ignore[operator]
    return show(p)


def test_a_graph_layer_reads_as_mathematics() -> None:
    assert text_of("spmm_bias_relu") == """\
program spmm_bias_relu
  input A[n, c] f32 csr
  input X[c, m] f32
  input b[m] f32
  T[i: n, j: m] f32 = sum(k: c) A[i, k] * X[k, j]   within A(i, k)
  Y[i_1: n, j_1: m] f32 = max(T[i_1, j_1] + b[j_1], 0.0)
  output Y"""


def test_sparse_attention_after_all_passes() -> None:
    assert text_of("sparse_attention", canonical.run, fuse.run) == """\
program sparse_attention
  input A[n, m] f32 csr
  input Q[n, d] f32
  input K[m, d] f32
  input V[m, h] f32
  S_sum[i_1: n, j_1: m within A(i_1, j_1)] f32 = sum(q: d) Q[i_1, q] * K[j_1, q]
  M[i_a: n] f32 = max(j_a: m) S_sum[i_a, j_a] * 0.25   within A(i_a, j_a)
  E[i_b: n, j_b: m within A(i_b, j_b)] f32 = exp(S_sum[i_b, j_b] * 0.25 - M[i_b])
  Z[i_c: n] f32 = sum(j_c: m) E[i_c, j_c]   within A(i_c, j_c)
  P[i_d: n, j_d: m within A(i_d, j_d)] f32 = E[i_d, j_d] / Z[i_d]
  O[io: n, jo: h] f32 = sum(ko: m) P[io, ko] * V[ko, jo]   within A(io, ko)
  output O"""


def test_scatters_say_what_they_start_from() -> None:
    p = PROGRAMS["scatter_add"]().program
    assert show_step(p.body[0]) == "Y[ids[i], j] f32 += X[i, j]   for [i: n, j: m] from base"
    assert show_step(dataclasses.replace(p.body[0], monoid=None)).startswith("Y[ids[i], j] f32 = X[i, j]   for")
    assert show_step(dataclasses.replace(p.body[0], monoid="max")).startswith("Y[ids[i], j] f32 max= X[i, j]")


def test_nested_reductions_stand_in_brackets_and_say_within_what() -> None:
    inner = reduce("max", {"k": m}, at("A", "i", "k"), within("A", "i", "k"))
    body = reduce("add", {"j": m}, op("sub", at("X", "i", "j"), inner))
    assert show_body(body) == "sum(j: m) (X[i, j] - (max(k: m within A(i, k)) A[i, k]))"
    assert show_body(mul(inner, lit(2.0))) == "(max(k: m within A(i, k)) A[i, k]) * 2.0"
    assert show_body(reduce("or", {"j": m}, reduce("and", {"k": n}, lit(True, dt.bool_)))) == "any(j: m) (all(k: n) True)"


def test_types_with_borrowed_patterns() -> None:
    straight = stored("s", {"i": n, "j": m}, at("A", "i", "j"), "A", "i", "j")
    turned = stored("s", {"j": m, "i": n}, at("A", "i", "j"), "A", "i", "j")
    assert show_type(straight.type) == "[n, m] f32 like A"
    assert show_type(turned.type) == "[m, n] f32 like A(1,0)"
    assert show_type(sparse("A", csc(), n, m).type) == "[n, m] f32 csc"


def test_control_flow_shows_its_regions() -> None:
    scalar = dense(dtype=dt.f64)
    x = Input("x", scalar)
    value = at("x", dtype=dt.f64)
    double = Program("double", (x,), (define("r", {}, op("add", value, value)),), ("r",))
    small = Program("small", (x,), (define("t", {}, op("lt", value, lit(9.0, dt.f64))),), ("t",))
    p = Program(
        "control",
        (x, Input("c", dense(dtype=dt.bool_))),
        (
            Cond(("y",), (scalar,), "c", ("x",), double, small),
            While(("z",), (scalar,), ("y",), (), small, double),
            Extern(("w",), (scalar,), "power", ("z",), (("exponent", 2),)),
        ),
        ("w",),
        (Fact(symbol("n") - 1, "nonnegative"), Fact(symbol("n") % 8, "zero")),
    )
    assert show(p) == """\
program control
  input x[] f64
  input c[] bool
  fact n - 1 >= 0
  fact ((n) mod (8)) == 0
  y[] f64 = cond c (x)
    then program double
    then   input x[] f64
    then   r[] f64 = x[] + x[]
    then   output r
    else program small
    else   input x[] f64
    else   t[] bool = x[] < 9.0
    else   output t
  z[] f64 = while (y; )
    test program small
    test   input x[] f64
    test   t[] bool = x[] < 9.0
    test   output t
    next program double
    next   input x[] f64
    next   r[] f64 = x[] + x[]
    next   output r
  w[] f64 = extern power(z, exponent=2)
  output w"""


def test_text_is_the_same_each_time() -> None:
    assert all(show(make().program) == show(make().program) for make in PROGRAMS.values())
    assert show(program("p", [], [define("y", {"i": n}, v("i"))], "y")).endswith("y[i: n] i64 = i\n  output y")
