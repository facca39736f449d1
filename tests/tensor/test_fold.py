"""Folding of steps: shared, dropped, and reductions that are none. Scalar rules are tested in tests/scalar."""

from __future__ import annotations

from polyai.scalar import dtype as dt
from polyai.tensor.nodes import Cond, Input, Program, Scatter
from polyai.tensor.passes import fold
from polyai.tensor.show import show_step
from polyai.tensor.verify import verify
from tests.words import add, at, define, dense, lit, m, mul, n, op, program, reduce, v, where

X = Input("X", dense(n, m))


def steps(p: Program) -> list[str]:
    verify(p)
    out = fold.run(p)
    verify(out)
    return [show_step(s) for s in out.body]


def test_steps_that_differ_in_names_only_are_shared() -> None:
    p = program(
        "p",
        [X],
        [
            define("a", {"i": n}, reduce("max", {"j": m}, at("X", "i", "j"))),
            define("b", {"k": n}, reduce("max", {"l": m}, at("X", "k", "l"))),
            define("c", {"q": n}, reduce("min", {"r": m}, at("X", "q", "r"))),
            define("y", {"s": n}, add(at("a", "s"), at("b", "s"), at("c", "s"))),
        ],
        "y",
    )
    assert steps(p) == [
        "a[i: n] f32 = max(j: m) X[i, j]",
        "c[q: n] f32 = min(r: m) X[q, r]",
        "y[s: n] f32 = a[s] + a[s] + c[s]",
    ]


def test_an_output_keeps_its_step() -> None:
    p = program(
        "p",
        [X],
        [define("a", {"i": n, "j": m}, op("neg", at("X", "i", "j"))), define("b", {"k": n, "l": m}, op("neg", at("X", "k", "l")))],
        "a",
        "b",
    )
    assert len(steps(p)) == 2


def test_what_no_output_needs_is_dropped() -> None:
    p = program(
        "p",
        [X, Input("z", dense(n))],
        [
            define("dead", {"i": n}, lit(1.0)),
            define("base", {"k": n}, lit(0.0)),
            Scatter("y", dense(n), "base", "add", define("", {"q": n}, lit(0.0)).indices, (v("q"),), at("z", "q")),
        ],
        "y",
    )
    assert [s.split("[")[0] for s in steps(p)] == ["base", "y"]


def test_a_reduction_over_one_value_is_its_body() -> None:
    p = program("p", [Input("X", dense(n, 1, m))], [define("y", {"i": n}, reduce("add", {"o": 1, "j": m}, at("X", "i", "o", "j")))], "y")
    assert steps(p) == ["y[i: n] f32 = sum(j: m) X[i, 0, j]"]
    p = program("p", [Input("X", dense(n, 1))], [define("y", {"i": n}, reduce("max", {"o": 1}, at("X", "i", "o")))], "y")
    assert steps(p) == ["y[i: n] f32 = X[i, 0]"]


def test_a_sum_of_zeros_is_zero_and_a_maximum_of_zeros_is_not() -> None:
    p = program("p", [X], [define("y", {"i": n}, reduce("add", {"j": m}, lit(0.0)))], "y")
    assert steps(p) == ["y[i: n] f32 = 0.0"]
    p = program("p", [X], [define("y", {"i": n}, reduce("max", {"j": m}, lit(0.0)))], "y")
    assert steps(p) == ["y[i: n] f32 = max(j: m) 0.0"]  # -inf if m is 0


def test_scalars_inside_reductions_and_indices_are_folded() -> None:
    shifted = at("X", "i", add(v("j"), lit(0, dt.i64)))
    inner = mul(where(op("lt", lit(1, dt.i64), lit(2, dt.i64)), shifted, lit(7.0)), lit(1.0))
    p = program("p", [X], [define("y", {"i": n}, reduce("add", {"j": m}, inner))], "y")
    assert steps(p) == ["y[i: n] f32 = sum(j: m) X[i, j]"]


def test_regions_are_folded_and_keep_what_their_step_reads() -> None:
    scalar = dense(dtype=dt.f64)
    x = Input("x", scalar)
    value = at("x", dtype=dt.f64)
    then = Program("then", (x,), (define("dead", {}, value), define("r", {}, mul(value, lit(1.0, dt.f64)))), ("r",))
    p = program(
        "p",
        [x],
        [define("t", {}, op("gt", value, lit(0.0, dt.f64))), Cond(("y",), (scalar,), "t", ("x",), then, then)],
        "y",
    )
    assert steps(p)[1].count("r[] f64 = x[]") == 2 and "dead" not in steps(p)[1]
