import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polyai.scalar import dtype as dt
from polyai.scalar.build import apply, cast, const
from polyai.scalar.expr import Apply, Cast, Const, Load, Var
from polyai.scalar.fold import fold
from polyai.scalar.interp import evaluate
from polyai.scalar.show import show
from polyai.term.node import node

from .strategies import environment, expressions

X, Y, N, B = Var("x", dt.f64), Var("y", dt.f32), Var("n", dt.i64), Var("b", dt.bool_)
A = Load("A", (N,), dt.f64)


def f(value):
    return const(value, dt.f64)


def k(value):
    return const(value, dt.i64)


@given(expressions, st.integers(0, 3))
@settings(max_examples=400, deadline=None, derandomize=True)
def test_folding_changes_no_bit(expr, seed):
    env, arrays = environment(seed)
    before, after = evaluate(expr, env, arrays), evaluate(fold(expr), env, arrays)
    assert after.dtype == before.dtype
    before, after = np.broadcast_arrays(before, after)
    same = (before == after) & (np.signbit(before) == np.signbit(after)) if before.dtype.kind == "f" else before == after
    assert (same | ((before != before) & (after != after))).all(), f"{show(expr)} -> {show(fold(expr))}"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (apply("add", apply("mul", A, f(1.0)), apply("mul", f(2.0), f(3.0))), apply("add", A, f(6.0))),
        (apply("where", const(True, dt.bool_), X, A), X),
        (apply("where", B, X, X), X),
        (apply("div", X, f(8.0)), apply("mul", X, f(0.125))),
        (apply("div", X, f(3.0)), apply("div", X, f(3.0))),
        (apply("pow", X, f(2.0)), apply("square", X)),
        (apply("pow", X, f(3.0)), apply("mul", apply("square", X), X)),
        (apply("pow", X, f(2.5)), apply("pow", X, f(2.5))),
        (apply("pow", N, k(-1)), apply("pow", N, k(-1))),
        (apply("mul", X, f(0.0)), apply("mul", X, f(0.0))),
        (apply("add", X, f(0.0)), apply("add", X, f(0.0))),
        (apply("add", X, f(-0.0)), X),
        (apply("sub", X, f(0.0)), X),
        (apply("mul", N, k(0)), k(0)),
        (apply("add", k(3), apply("add", N, k(4))), apply("add", N, k(7))),
        (apply("sub", N, N), k(0)),
        (apply("sub", X, X), apply("sub", X, X)),
        (apply("mod", N, k(1)), k(0)),
        (apply("floordiv", N, k(1)), N),
        (Cast(X, dt.f64), X),
        (cast(cast(Y, dt.f64), dt.f32), Y),
        (cast(cast(X, dt.f32), dt.f64), cast(cast(X, dt.f32), dt.f64)),
        (cast(f(2.0), dt.i32), const(2, dt.i32)),
        (cast(f(1e300), dt.i32), Cast(f(1e300), dt.i32)),
        (apply("not", apply("not", B)), B),
        (apply("not", apply("eq", X, A)), apply("ne", X, A)),
        (apply("and", B, const(True, dt.bool_)), B),
        (apply("abs", apply("neg", X)), apply("abs", X)),
        (apply("floor", N), N),
        (apply("isnan", N), const(False, dt.bool_)),
        (apply("exp", f(0.0)), f(1.0)),
        (apply("mul", Load("A", (N,), dt.i64), k(0)), apply("mul", Load("A", (N,), dt.i64), k(0))),
    ],
    ids=lambda e: show(e),
)
def test_rules(before, after):
    assert fold(before) == after


def test_unchanged_expressions_are_the_same_object():
    expr = apply("add", apply("exp", X), A)
    assert fold(expr) is expr


def test_other_nodes_are_folded_inside():
    @node
    class Box:
        body: object

    assert fold(Box(apply("add", k(1), k(2)))) == Box(k(3))


def test_bfloat16_constants_stay():
    half = Const(0.5, dt.bf16)
    assert fold(Apply("add", (half, half), dt.bf16)) == Apply("add", (half, half), dt.bf16)
