"""Sizes: what stays symbolic, which relations become guards, what the guards say and when they hold."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from polyai.errors import GuardError, IndexOutOfRangeError, ShapeError, TraceError
from polyai.frontend.core import Array
from polyai.frontend.spec import csr, dim, f32, f64, i64
from polyai.frontend.surface import functions as pa
from polyai.frontend.trace import trace
from polyai.frontend.traced import Traced
from polyai.shapes.expr import show
from polyai.tensor.interp import run
from polyai.tensor.show import show as show_program
from polyai.tensor.verify import verify
from tests.frontend.helpers import execute, same

X, Y, Z = np.ones((4, 3)), np.ones((3, 5)), np.ones((4, 3))


def guards(traced: Traced) -> list[str]:
    return [str(g) for g in traced.guards]


def shapes(traced: Traced) -> list[str]:
    return [",".join(show(s) for s in i.type.shape) for i in traced.program.inputs]


def test_a_contraction_unifies_its_sizes() -> None:
    traced = trace(lambda X, Y: X @ Y, (X, Y), {})
    assert guards(traced) == ["X.shape[1] == Y.shape[0]"]
    assert shapes(traced) == ["X_d0,X_d1", "X_d1,Y_d1"]


@pytest.mark.usefixtures("engine")
def test_one_trace_serves_other_sizes() -> None:
    def f(X: Any, Y: Any) -> Any:
        return pa.softmax(X @ Y) * X.shape[0]

    traced = trace(f, (X, Y), {})
    rng = np.random.default_rng(0)
    for n, k, m in ((1, 1, 1), (0, 3, 2), (7, 2, 9), (5, 0, 3)):
        x, y = rng.standard_normal((n, k)), rng.standard_normal((k, m))
        e = np.exp(x @ y - (x @ y).max(axis=1, initial=-np.inf, keepdims=True))
        same(execute(traced, (x, y)), e / e.sum(axis=1, keepdims=True) * n)


def test_guards_are_checked_from_the_sizes_of_a_call() -> None:
    traced = trace(lambda X, Y: X @ Y, (X, Y), {})
    good = traced.values({"X": np.ones((2, 9)), "Y": np.ones((9, 1))})
    assert traced.broken_guard(good) is None
    bad = traced.values({"X": np.ones((2, 9)), "Y": np.ones((8, 1))})
    assert str(traced.broken_guard(bad)) == "X.shape[1] == Y.shape[0]"
    with pytest.raises(GuardError, match=r"X.shape\[1\] = 9, Y.shape\[0\] = 8"):
        traced.check(bad)


def test_broadcasting_a_size_one_is_guarded_and_folded() -> None:
    traced = trace(lambda X, Y: X + Y, (X, np.ones((1, 3))), {})
    assert guards(traced) == ["Y.shape[0] == 1", "X.shape[1] == Y.shape[1]"]
    assert shapes(traced) == ["X_d0,X_d1", "1,X_d1"]


def test_two_sizes_one_stay_symbolic() -> None:
    traced = trace(lambda X, Y: X * Y, (np.ones((1, 3)), np.ones((1, 3))), {})
    assert guards(traced) == ["X.shape[0] == Y.shape[0]", "X.shape[1] == Y.shape[1]"]
    assert shapes(traced) == ["X_d0,X_d1"] * 2


def test_a_comparison_in_an_if_is_a_guard() -> None:
    def f(X: Any) -> Any:
        return X * 2 if X.shape[0] > 3 else X

    assert guards(trace(f, (X,), {})) == ["X.shape[0] > 3"]
    assert guards(trace(f, (X.T,), {})) == ["X.shape[0] <= 3"]


def test_equality_in_an_if_unifies() -> None:
    traced = trace(lambda X, Z: X @ Z.T if X.shape == Z.shape else X, (X, Z), {})
    assert guards(traced) == ["X.shape[0] == Z.shape[0]", "X.shape[1] == Z.shape[1]"]
    traced = trace(lambda X: X if X.shape[0] == 7 else X * 2, (X,), {})
    assert guards(traced) == ["X.shape[0] != 7"]


def test_what_is_always_true_needs_no_guard() -> None:
    def f(X: Any) -> Any:
        n = X.shape[0]
        assert n >= 0 and n + 1 > n and 2 * n >= n and n // 2 <= n + 1 and n % 4 < 4 and n == n and n != n + 1
        return X

    assert guards(trace(f, (X,), {})) == []


def test_what_was_learned_decides_later_questions() -> None:
    def f(X: Any) -> Any:
        if X.shape[0] >= 2:
            assert X.shape[0] > 1 and X.shape[0] != 0 and X.shape[0] + X.shape[1] >= 2
        return X[1:, :]

    assert guards(trace(f, (X,), {})) == ["X.shape[0] >= 2"]


def test_conversion_to_int_fixes_a_size() -> None:
    traced = trace(lambda X: X * sum(range(X.shape[0])), (X,), {})
    assert guards(traced) == ["X.shape[0] == 4"] and shapes(traced) == ["4,X_d1"]


@pytest.mark.usefixtures("engine")
def test_arithmetic_stays_symbolic() -> None:
    seen: list[str] = []

    def f(X: Any) -> Any:
        n, m = X.shape
        assert isinstance(n * 0.5, Array) and isinstance(n / 2, Array)
        seen.extend(show(v.size) for v in (n * m, 2 * n - 1, n // 2, n % 3, -n, n**2, 10 - m, (n * m) // m))
        assert isinstance(n * 0, int)
        return pa.zeros(2 * n)

    traced = trace(f, (X,), {})
    assert seen[:2] == ["X_d0*X_d1", "2*X_d0 - 1"] and seen[7] == "X_d0"
    assert guards(traced) == ["X.shape[1] >= 1"]
    same(execute(traced, (np.ones((9, 2)),)), np.zeros(18))


def test_slices_guard_what_they_clamp() -> None:
    traced = trace(lambda X: (X[1:], X[:, :-1], X[:100]), (X,), {})
    assert guards(traced) == ["X.shape[0] >= 1", "X.shape[1] >= 1", "X.shape[0] < 100"]
    facts = {show(f.size) for f in traced.program.facts}
    assert {"X_d0 - 1", "-X_d0 + 99"} <= facts


@pytest.mark.usefixtures("engine")
def test_a_size_expression_can_equal_a_symbol() -> None:
    traced = trace(lambda X, Y: X[1:] + Y, (X, np.ones((3, 3))), {})
    assert "X.shape[0] - 1 == Y.shape[0]" in guards(traced)
    assert shapes(traced) == ["X_d0,X_d1", "X_d0 - 1,X_d1"]
    same(execute(traced, (np.ones((6, 2)), np.ones((5, 2)))), np.full((5, 2), 2.0))


@pytest.mark.usefixtures("engine")
def test_reshape_guards_the_counts() -> None:
    traced = trace(lambda X: X.reshape(2, 2, -1), (X,), {})
    assert guards(traced) == ["X.shape[0] == 4"] and shapes(traced) == ["4,X_d1"]
    traced = trace(lambda X, Y: X.reshape(Y.shape), (X, np.ones((3, 4))), {})
    same(execute(traced, (np.arange(12.0).reshape(2, 6), np.ones((6, 2)))), np.arange(12.0).reshape(6, 2))
    traced = trace(lambda X: X.reshape(-1, 2), (X,), {})
    same(execute(traced, (np.arange(20.0).reshape(5, 4),)), np.arange(20.0).reshape(10, 2))


def test_a_split_into_quotients_is_fixed() -> None:
    def heads(X: Any) -> Any:
        n, d = X.shape
        return X.reshape(n, 4, d // 4).transpose(1, 0, 2)

    traced = trace(heads, (np.ones((5, 8)),), {})
    assert shapes(traced) == ["X_d0,8"] and guards(traced) == ["X.shape[1] == 8"]
    x = np.arange(24.0).reshape(3, 8)
    same(execute(traced, (x,)), heads(x))
    traced = trace(heads, (f64[dim("n"), dim("d", multiple_of=8)],), {})
    same(run(traced.program, {"X": x})[traced.program.outputs[0]], heads(x))


def test_sizes_can_be_fixed() -> None:
    traced = trace(lambda X, Y: X @ Y, (X, Y), {}, dynamic="none")
    assert shapes(traced) == ["4,3", "3,5"]
    assert "X.shape[0] == 4" in guards(traced)
    traced = trace(lambda X, Y: X @ Y, (X, Y), {}, dynamic={"X": (0,)})
    assert shapes(traced) == ["X_d0,3", "3,5"]


@pytest.mark.usefixtures("engine")
def test_an_integer_argument_can_become_a_size() -> None:
    traced = trace(lambda X, n: X[:n] * n, (X, 2), {})
    assert guards(traced) == ["n == 2", "X.shape[0] >= 2"]
    same(execute(traced, (np.ones((7, 1)), 2)), np.full((2, 1), 2.0))
    values = traced.values({"X": X, "n": 3})
    assert str(traced.broken_guard(values)) == "n == 2"
    assert guards(trace(lambda X, flag: X * 2 if flag else X, (X, True), {})) == ["flag == 1"]


ERRORS = [
    (lambda X, Y: X @ X, ShapeError, r"matmul: X has X.shape\[0\] = 4 in dimension 0, X.shape\[1\] = 3 is needed"),
    (lambda X, Y: X + Y, ShapeError, r"add: sizes X.shape\[0\] = 4 and Y.shape\[0\] = 3 do not match\n  why: X: \(4, 3\); Y: \(3, 5\)"),
    (lambda X, Y: np.concatenate([X, Y]), ShapeError, "concat along axis 0: sizes of axis 1 differ"),
    (lambda X, Y: X.reshape(5, 5), ShapeError, r"reshape to \(5, 5\)\n  why: X: \(4, 3\) has 12 elements, not 25"),
    (lambda X, Y: X.reshape(5, -1), ShapeError, "does not come out even"),
    (lambda X, Y: X[4], IndexOutOfRangeError, r"index 4 of dimension 0 of X\n  why: its size is X.shape\[0\] = 4"),
    (lambda X, Y: X[:, [0, 3]], IndexOutOfRangeError, "index 3 of dimension 1 of X"),
    (lambda X, Y: X[0, 0, 0], ShapeError, "3 indices for 2 dimensions"),
    (lambda X, Y: X[Y > 0], ShapeError, r"a mask of shape \(Y.shape\[0\] = 3, Y.shape\[1\] = 5\) for dimension 0 of X"),
    (lambda X, Y: X[X], TraceError, "index array of type f64"),
    (lambda X, Y: X if X.sum() > 0 else Y, TraceError, r"bool\(\) of the result of greater"),
    (lambda X, Y: X * float(Y.sum()), TraceError, r"float\(\) of the result of sum"),
    (lambda X, Y: [X for _ in range(Y.sum())], TraceError, r"int\(\) of the result of sum"),
    (lambda X, Y: np.array(X), TraceError, r"array\(\) of X"),
    (lambda X, Y: X.sum(axis=2), ShapeError, "sum: axis 2 of an array with 2 dimensions"),
    (lambda X, Y: X.sum(axis=(0, 0)), ShapeError, "an axis is named twice"),
    (lambda X, Y: X[:0].max(), ShapeError, "max over axis 0, which is empty"),
    (lambda X, Y: pa.einsum("ij,jk->iq", X, Y), ShapeError, "unknown indices"),
    (lambda X, Y: pa.einsum("ij->i", X, Y), ShapeError, "names 1 operands"),
    (lambda X, Y: pa.einsum("ijk->i", X), ShapeError, "names 3 dimensions, the operand has 2"),
    (lambda X, Y: X.squeeze(0), ShapeError, "only sizes 1 can be dropped"),
    (lambda X, Y: X.transpose(0, 0), ShapeError, "no permutation"),
    (lambda X, Y: X.at[0].set(Y), ShapeError, "does not fit the place|do not match"),
    (lambda X, Y: np.split(X, 3), ShapeError, "split of X"),
    (lambda X, Y: pa.matmul(X.sum(), Y), ShapeError, "matmul of a scalar"),
]


@pytest.mark.parametrize(("fn", "error", "text"), ERRORS, ids=range(len(ERRORS)))
def test_errors_speak_of_the_arguments(fn: Any, error: Any, text: str) -> None:
    with pytest.raises(error, match=text):
        trace(fn, (X, Y), {})


# -- specs


def test_specs_stand_for_arguments() -> None:
    n, m = dim("n"), dim("m", min=1, max=100, multiple_of=4)
    traced = trace(lambda A, X: pa.relu(A @ X[:, 1:]), (csr[n, n], f32[n, m]), {}, name="layer")
    verify(traced.program)
    assert shapes(traced) == ["n,n", "n,m"]
    assert guards(traced)[:2] == ["m >= 1", "m <= 100"]
    assert traced.hints == {}
    assert "fact m - 1 >= 0" in show_program(traced.program)
    assert any(f.relation == "zero" for f in traced.program.facts)


def test_a_kernel_from_specs_runs() -> None:
    n = dim("n", min=1)
    traced = trace(lambda x, y: x[1:] @ y, (f64[n, 3], f64[3, n + 1]), {})
    x, y = np.random.default_rng(0).standard_normal((4, 3)), np.random.default_rng(1).standard_normal((3, 5))
    values = traced.values({"x": x, "y": y})
    assert traced.broken_guard(values) is None
    same(run(traced.program, {"x": x, "y": y})[traced.program.outputs[0]], x[1:] @ y)
    assert str(traced.broken_guard(traced.values({"x": x, "y": y[:, :4]}))) == "y.shape[1] == n + 1"


def test_declared_sizes_are_never_guessed_equal() -> None:
    n, m = dim("n"), dim("m")
    with pytest.raises(ShapeError, match="declare them as the same size"):
        trace(lambda x, y: x + y, (f64[n], f64[m]), {})
    with pytest.raises(TraceError, match="n >= 1 is neither always true nor always false"):
        trace(lambda x: x[1:], (f64[n],), {})
    with pytest.raises(TraceError, match="the number n is needed"):
        trace(lambda x: [x for _ in range(x.shape[0])], (f64[n],), {})
    with pytest.raises(ShapeError, match="size n cannot be found"):
        trace(lambda x: x, (f64[n * n],), {})
    assert guards(trace(lambda x: x[1:], (f64[dim("n", min=1)],), {})) == ["n >= 1"]


def test_specs_of_scalars_and_constants() -> None:
    traced = trace(lambda x, k: x * k, (f64[4], i64[()]), {})
    assert shapes(traced) == ["4", ""] and guards(traced) == ["x.shape[0] == 4"]
    for make in (lambda: f32[-1], lambda: f32["n"], lambda: csr[3], lambda: dim("a b"), lambda: dim("n", min=3, max=2)):
        with pytest.raises(ShapeError):
            make()
