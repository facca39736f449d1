"""Arguments, results, captured values, index notation, control flow, and what tracing refuses."""

from __future__ import annotations

import enum
import subprocess
import sys
import time
from collections import namedtuple
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp

from polyai.errors import DTypeError, ShapeError, TraceError, UnsupportedError
from polyai.frontend import arguments as ar
from polyai.frontend.lazy import LazyArray
from polyai.frontend.surface import functions as pa
from polyai.frontend.trace import trace
from polyai.frontend.traced import ConstOut
from polyai.tensor import nodes as tn
from polyai.tensor.show import show
from tests.frontend.helpers import compare, execute, traced_run

RNG = np.random.default_rng(11)
A, B, V = RNG.standard_normal((4, 5)), RNG.standard_normal((4, 5)), RNG.standard_normal(5)
S = sp.csr_array(np.where(RNG.random((4, 5)) < 0.5, A, 0))
Pair = namedtuple("Pair", "left right")


def test_inputs_say_where_they_come_from() -> None:
    def f(params: Any, *xs: Any, scale: Any) -> Any:
        return xs[0] @ params["w"][0] + xs[1] * scale

    traced = trace(f, ({"w": [A.T], "name": "linear"}, A, 1.0), {"scale": 2})
    assert [(i.name, i.text, i.path, i.kind) for i in traced.inputs] == [
        ("params_w_0", "params['w'][0]", (0, "w", 0), "array"),
        ("xs_0", "xs[0]", (1,), "array"),
        ("xs_1", "xs[1]", (2,), "scalar"),
        ("scale", "scale", ("scale",), "scalar"),
    ]
    assert [(s.text, s.value) for s in traced.statics] == [("params['name']", "linear")]
    assert tuple(i.name for i in traced.inputs) == tuple(i.name for i in traced.program.inputs)


@pytest.mark.usefixtures("engine")
def test_static_arguments() -> None:
    def f(x: Any, axis: Any, mode: str, shape: Any) -> Any:
        return x.sum(axis=axis).reshape(shape) if mode == "sum" else x

    traced = trace(f, (A, 0, "sum", (5, 1)), {}, static=frozenset({"axis"}))
    assert {s.text for s in traced.statics} == {"axis", "mode", "shape"}
    np.testing.assert_allclose(execute(traced, (A, 0, "sum", (5, 1))), A.sum(0).reshape(5, 1))


class Colour(enum.Enum):
    RED = 1


@pytest.mark.parametrize(
    ("value", "kind"),
    [(A, "array"), (np.float32(1), "array"), (1, "scalar"), (True, "scalar"), (1j, "scalar"), ("s", "static"), (None, "static"), ((1, 2), "static"),
     (np.sum, "static"), (np.float32, "static"), (slice(1), "static"), (Colour.RED, "static"), (S, "sparse"), ([1], ""), ((1.0, 2), ""), ({}, ""), (object(), "")],
)  # fmt: skip
def test_kinds_of_leaves(value: Any, kind: str) -> None:
    assert ar.kind_of(value) == kind


def test_signatures_differ_where_a_trace_may() -> None:
    def key(*args: Any) -> Any:
        return ar.signature(ar.leaves(lambda a, b: None, args, {}))

    assert key(A, 1) == key(B, 2) == key(np.ones((7, 7)), 3)
    assert len({key(A, 1), key(A, 1.0), key(V, 1), key(A.astype(np.float32), 1), key(A, "s"), key(A, "t"), key(S, 1), key(S.tocsc(), 1)}) == 8
    assert key(sp.csr_matrix(S), 1) != key(S, 1)


@pytest.mark.usefixtures("engine")
def test_structures_of_arguments_and_results() -> None:
    compare(lambda p: Pair(p.right, [p.left, {"k": p.left * 2}]), lambda p: Pair(p.right, [p.left, {"k": p.left * 2}]), Pair(A, V))
    compare(lambda x: (), lambda x: (), A)
    traced = trace(lambda x: (1, "a", None, np.ones(2)), (A,), {})
    assert all(isinstance(o, ConstOut) for o in traced.outputs) and traced.program.outputs == ()


def test_an_output_named_twice_is_one_output() -> None:
    traced = trace(lambda x: (y := x * 2, y, x), (A,), {})
    assert len(traced.program.outputs) == 2 and len(traced.outputs) == 3


def test_unused_steps_are_dropped() -> None:
    traced = trace(lambda x: (x @ x.T, x * 2)[1], (A,), {})
    assert len(traced.program.body) == 1


@pytest.mark.usefixtures("engine")
def test_a_captured_array_is_an_input_by_reference() -> None:
    held = np.ones(5)
    traced = trace(lambda x: x + held, (A,), {})
    held[:] = 7
    np.testing.assert_allclose(execute(traced, (A,)), A + 7)


def test_the_text_of_a_program() -> None:
    traced = trace(lambda A, X, b: pa.relu(A @ X + b), (S, A.T, np.ones(4)), {}, name="layer")
    assert show(traced.program) == (
        "program layer\n"
        "  input A[A_d0, A_d1] f64 csr\n"
        "  input X[A_d1, X_d1] f64\n"
        "  input b[X_d1] f64\n"
        "  matmul[i: A_d0, j: X_d1] f64 = sum(k: A_d1) A[i, k] * X[k, j]   within A(i, k)\n"
        "  add[i_1: A_d0, j_1: X_d1] f64 = matmul[i_1, j_1] + b[j_1]\n"
        "  relu[i_2: A_d0, j_2: X_d1] f64 = max(add[i_2, j_2], 0.0)\n"
        "  output relu"
    )


def test_traces_are_deterministic() -> None:
    def f(A: Any, x: Any) -> Any:
        return pa.softmax(pa.dropout(A @ x, 0.5, 3)), pa.sparse_attention(x, x, x, A)

    one, two = (trace(f, (sp.csr_array(np.eye(5)), A.T), {}) for _ in range(2))
    assert one.program == two.program and one.guards == two.guards


def test_tracing_is_fast_and_light() -> None:
    def gcn(A: Any, X: Any, W: Any, b: Any) -> Any:
        return pa.relu(A @ (X @ W) + b)

    args = (S.T @ S, RNG.standard_normal((5, 3)), RNG.standard_normal((3, 2)), np.ones(2))
    best = min(_timed(lambda: trace(gcn, args, {})) for _ in range(20))
    assert best < 3e-3
    code = "import sys, polyai.frontend.trace; print([m for m in ('scipy', 'sympy', 'islpy', 'llvmlite') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


def _timed(call: Any) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


# -- index notation


@pytest.mark.usefixtures("engine")
def test_index_notation() -> None:
    i, j, k = pa.indices("i j k")
    compare(lambda a, b: pa.comprehension((i, j), pa.sum(k, a[i, k] * b[j, k])), lambda a, b: a @ b.T, A, B)
    compare(lambda a: pa.comprehension((j, i), a[i, j] + 1), lambda a: a.T + 1, A)
    compare(lambda a: pa.comprehension(i, pa.max(j, pa.exp(a[i, j]))), lambda a: np.exp(a).max(1), A)
    compare(lambda a: pa.comprehension((), pa.sum((i, j), a[i, j] ** 2)), lambda a: (a**2).sum(), A)
    compare(lambda v: pa.comprehension(i, pa.where(i > 0, v[i - 1], 0.0) + v[i]), lambda v: np.r_[0, v[:-1]] + v, V)
    compare(lambda t, n: pa.comprehension((i, j), t[n[i], j]), lambda t, n: t[n], A, np.array([3, 0, 0]))
    compare(lambda a, v: pa.comprehension((i, j), a[i, j] - pa.sum(k, a[i, k]) * v[j]), lambda a, v: a - a.sum(1, keepdims=True) * v, A, V)
    r = pa.index("r", 3)
    compare(lambda v: pa.comprehension(pa.index("i", v.shape[0] - 2), 0.0 + v[0]), lambda v: np.full(3, v[0]), V)

    def stencil(v: Any) -> Any:
        p = pa.index("p", v.shape[0] - 2)
        return pa.comprehension(p, pa.sum(r, v[p + r]))

    compare(stencil, lambda v: v[:-2] + v[1:-1] + v[2:], V)


@pytest.mark.usefixtures("engine")
def test_index_notation_on_patterns() -> None:
    i, j, k = pa.indices("i j k")
    q, x = RNG.standard_normal((4, 3)), RNG.standard_normal((5, 3))
    compare(lambda s, q, x: pa.comprehension((i, j), s[i, j] * pa.sum(k, q[i, k] * x[j, k]), within=s[i, j]), lambda s, q, x: s * (q @ x.T), S, q, x)
    compare(lambda s, x: pa.comprehension((i, k), pa.sum(j, s[i, j] * x[j, k])), lambda s, x: s @ x, S, x)
    compare(lambda s: pa.comprehension(i, pa.max(j, s[i, j], within=s[i, j])), lambda s: np.where(s.toarray() != 0, s.toarray(), -np.inf).max(1), S)
    compare(lambda s: pa.comprehension((j, i), 2 * s[i, j], within=s[i, j]), lambda s: (2 * s).T, S)


def test_index_notation_says_what_is_missing() -> None:
    i, j = pa.indices("i, j")
    for body, error, text in [
        (lambda a: pa.comprehension(i, a[i, j]), TraceError, "index j is neither a target nor reduced"),
        (lambda a: pa.comprehension(i, a[0, i + 1]), TraceError, "index i has no extent"),
        (lambda a: pa.comprehension(i, a[i, i]), ShapeError, "index i runs over a.shape"),
        (lambda a: pa.comprehension((i, j), a[i, j] + a), TraceError, "index the array as well"),
        (lambda a: pa.comprehension(i, a[i]), ShapeError, "one index per dimension"),
        (lambda a: pa.comprehension((i, j), a[i, j], within=a[i, j]), TraceError, "within needs a sparse array"),
        (lambda a: a[i, j], TraceError, "an element in index notation"),
        (lambda a: pa.comprehension((i, j), 1.0 if a[i, j] > 0 else 0.0), TraceError, "no truth value"),
    ]:
        with pytest.raises(error, match=text):
            trace(body, (A,), {})


# -- control flow


@pytest.mark.usefixtures("engine")
def test_cond() -> None:
    def f(x: Any, y: Any) -> Any:
        return pa.cond(x.sum() > 0, lambda: (x * 2, y.sum()), lambda: (y, x[0, 0]))

    for sign in (1, -1):
        x = sign * abs(A)
        compare(f, lambda x, y: (x * 2, y.sum()) if x.sum() > 0 else (y, x[0, 0]), x, B)
    compare(lambda x: pa.cond(x[0] > 0, lambda v: v, lambda v: 1, x[0]), lambda x: x[0] if x[0] > 0 else np.float64(1), V)
    traced = trace(f, (A, B), {})
    assert isinstance(traced.program.body[-1], tn.Cond)
    assert trace(lambda x: pa.cond(True, lambda: x, lambda: x * 2), (A,), {}).program.body == ()


@pytest.mark.usefixtures("engine")
def test_while_loop() -> None:
    def newton(a: Any) -> Any:
        return pa.while_loop(lambda s: pa.abs(s * s - a) > 1e-10, lambda s: (s + a / s) / 2, a)

    compare(newton, np.sqrt, 2.0, tolerance=1e-9)

    def power(A: Any, x: Any) -> Any:
        def step(state: Any) -> Any:
            n, v = state
            w = A @ v
            return n + 1, w / pa.norm(w)

        return pa.while_loop(lambda s: s[0] < 4, step, (0, x))

    def reference(A: Any, x: Any) -> Any:
        for _ in range(4):
            x = A @ x / np.linalg.norm(A @ x)
        return np.int64(4), x

    compare(power, reference, sp.csr_array(A.T @ A), V)
    compare(power, reference, A.T @ A, V)


@pytest.mark.usefixtures("engine")
def test_fori_loop_and_scan() -> None:
    compare(lambda x: pa.fori_loop(0, x.shape[0], lambda i, s: s + x[i], 0.0), lambda x: x.sum(), V)
    compare(lambda x: pa.fori_loop(2, 5, lambda i, s: s.at[i].set(0.0), x), lambda x: np.r_[x[:2], np.zeros(3)], V)
    compare(lambda x: pa.scan(lambda c, v: (c + v, c * v), 0.0, x), lambda x: (x.sum(), (np.cumsum(x) - x) * x), V)
    compare(lambda x: pa.scan(lambda c, r: (c + r.sum(), (r * 2, c)), 0, x), lambda x: (x.sum(), (x * 2, np.r_[0, np.cumsum(x.sum(1))[:-1]])), A)
    compare(lambda x: pa.scan(lambda c, _: (c * 2, c), x, length=3), lambda x: (x * 8, np.stack([x, x * 2, x * 4])), V)


@pytest.mark.usefixtures("engine")
def test_nested_control_flow() -> None:
    def f(x: Any) -> Any:
        return pa.fori_loop(0, 3, lambda i, s: pa.cond(i % 2 == 0, lambda: s + x, lambda: s * 2), x)

    compare(f, lambda x: (x + x) * 2 + x, V)


def test_control_flow_keeps_types_and_regions() -> None:
    leaked: list[Any] = []
    for body, error, text in [
        (lambda x: pa.while_loop(lambda s: s.sum() < 9, lambda s: s[1:], x), ShapeError, "changes its shape"),
        (lambda x: pa.while_loop(lambda s: s.sum() < 9, lambda s: s > 0, x), DTypeError, "changes its type"),
        (lambda x: pa.cond(x[0] > 0, lambda: x, lambda: x[1:]), ShapeError, "two shapes"),
        (lambda x: pa.cond(x[0] > 0, lambda: x, lambda: x > 0), DTypeError, "two types"),
        (lambda x: pa.cond(x[0] > 0, lambda: x, lambda: (x,)), TraceError, "different structures"),
        (lambda x: pa.cond(x > 0, lambda: x, lambda: x), TraceError, "must be a scalar"),
        (lambda x: (pa.cond(x[0] > 0, lambda: leaked.append(x * 2) or x, lambda: x), leaked[0] + 1), TraceError, "used outside the then"),
    ]:
        with pytest.raises(error, match=text):
            trace(body, (V,), {})


# -- refusals


@pytest.mark.parametrize("name", ["median", "quantile", "searchsorted"])
def test_what_is_not_compiled_says_so(name: str) -> None:
    with pytest.raises(UnsupportedError, match=f"{name} is not compiled"):
        trace(lambda x: getattr(pa, name)(x), (V,), {})
    if name == "median":
        with pytest.raises(UnsupportedError, match=f"{name} is not compiled"):
            trace(lambda x: getattr(np, name)(x), (V,), {})


def test_refusals() -> None:
    kept: list[Any] = []
    trace(lambda x: kept.append(x) or x, (V,), {})
    for body, error, text in [
        (lambda x: np.linalg.svd(x[None]), UnsupportedError, "svd is not compiled"),
        (lambda x: np.interp(x, x, x), UnsupportedError, "np.interp is not compiled"),
        (lambda x: np.add(x, x, out=np.ones(5)), UnsupportedError, "with out is not compiled"),
        (lambda x: np.sum(x, where=x > 0), TypeError, "where"),
        (lambda x: x.__setitem__(0, 1), TraceError, r"x.at\[...\].set"),
        (lambda x: x + kept[0], TraceError, "arrays of two traces meet"),
        (lambda x: x + "a", TraceError, "'a' is no number"),
        (lambda x: -(x > 0), DTypeError, "neg is not defined for bool"),
        (lambda x: x.astype(np.uint8) + 300, DTypeError, "300 cannot be u8"),
        (lambda x: x.astype(int) ** -1, DTypeError, "negative integer powers"),
        (lambda x: x.astype("M8[s]"), DTypeError, "datetime64"),
        (lambda x: x.astype("nothing"), DTypeError, "is no element type"),
        (lambda x: x & 1, DTypeError, "bitand is not defined for f64"),
    ]:
        with pytest.raises(error, match=text):
            trace(body, (V,), {})
    with pytest.raises(TraceError, match="its type is set"):
        trace(lambda x: x, ({1},), {})
    with pytest.raises(DTypeError, match="x has dtype object"):
        trace(lambda x: x, (np.array([None]),), {})
    with pytest.raises(TraceError, match="needs a traced array"):
        pa.exp(V)


def test_plain_sizes_give_numpy_arrays() -> None:
    assert isinstance(pa.zeros((2, 3), np.float32), np.ndarray)
    np.testing.assert_array_equal(pa.arange(3), np.arange(3))
    np.testing.assert_array_equal(pa.one_hot([1, 0], 2), np.eye(2)[[1, 0]])
    np.testing.assert_array_equal(pa.eye(2), np.eye(2))


def test_arrays_describe_themselves() -> None:
    def f(x: Any, s: Any) -> Any:
        assert isinstance(x, LazyArray) and x.dtype == np.float64 and x.ndim == 2 and s.format == "csr" and s.T.format == "csc"
        assert repr(x) == "<f64 x: (4, 5)>" and repr(s) == "<sparse f64 s: (4, 5)>" and repr(x.shape[0]) == "x.shape[0] = 4"
        assert x.__array_namespace__() is pa
        return x

    trace(f, (A, S), {})


def test_nested_calls_are_recognised() -> None:
    seen: list[bool] = []
    trace(lambda x: seen.append(ar.has_traced(({"a": [x]},), {})) or x, (A,), {})
    assert seen == [True] and not ar.has_traced((A, [1]), {"k": {"v": A}})
    with pytest.raises(TraceError, match="a traced array of another call"):
        trace(lambda x: trace(lambda y: y, (x,), {}), (A,), {})


@pytest.mark.usefixtures("engine")
def test_half_precision_stays() -> None:
    x = A.astype(np.float16)
    assert traced_run(lambda v: v * 2 + 1, x).dtype == np.float16
