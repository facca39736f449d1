"""Calls with keywords, nested arguments, static values and closures: told by their leaves they are served by native code, and
every change of what the kernel was made for still finds another one, or an error."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp

import polyai as pa
from polyai.calls.spread import Baked, Nested, paths, rebuilt, spread

RNG = np.random.default_rng(11)


def matrix(n: int = 9, dtype: Any = np.float64) -> sp.csr_array:
    return sp.random_array((n, n), density=0.4, format="csr", dtype=dtype, rng=RNG)


def test_the_structure_of_a_call() -> None:
    A, x = matrix(), np.ones(9)
    found = spread(lambda A, p, *, axis: None, (A, {"w": [x, 2.0], "b": ()}), {"axis": None, "n": (1, 2)}, frozenset())
    assert found is not None
    structure, leaves = found
    nested = Nested(dict, ("w", "b"), (Nested(list, (), (None, None)), Nested(tuple, (), ())))
    assert structure == ((None, nested), (("axis", Baked(type(None), None)), ("n", Baked(tuple, (1, 2)))))
    assert leaves[0] is A and leaves[1] is x and leaves[2] == 2.0
    assert paths(structure) == [(0,), (1, "w", 0), (1, "w", 1)]
    args, kwargs = rebuilt(structure, leaves)
    assert args[0] is A and args[1]["w"][0] is x and args[1]["b"] == () and kwargs == {"axis": None, "n": (1, 2)}


def test_what_only_a_trace_can_tell_is_left_to_it() -> None:
    x = np.ones(3)
    assert spread(lambda b: None, (pa.ragged([x, x]),), {}, frozenset()) is None
    assert spread(lambda m: None, (np.ma.masked_array(x),), {}, frozenset()) is None
    assert spread(lambda o: None, (object(),), {}, frozenset()) is None
    found = spread(lambda x, n: None, (x, 3), {}, frozenset(["n"]))
    assert found is not None and found[0] == ((None, Baked(int, 3)), ()) and len(found[1]) == 1


def check(function: Any, plain: Any, calls: list[tuple[tuple[Any, ...], dict[str, Any]]], fast: int) -> None:
    for args, kwargs in calls:
        np.testing.assert_allclose(function(*args, **kwargs), plain(*args, **kwargs), rtol=1e-6, atol=1e-9)
    assert function.report().fast >= fast


def test_keywords() -> None:
    def plain(A: Any, x: Any, scale: Any = 1.0) -> Any:
        return A @ x * scale

    calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
    for n in (9, 9, 9, 4, 0, 1):
        A, x = matrix(n), RNG.standard_normal(n)
        calls += [((A,), {"x": x}), ((), {"A": A, "x": x}), ((), {"x": x, "A": A}), ((A, x), {"scale": 0.5}), ((A,), {"scale": 2.5, "x": x})]
    check(pa.jit(plain), plain, calls, 10)
    others: list[tuple[tuple[Any, ...], dict[str, Any]]] = [((matrix(7, np.float32),), {"x": np.ones(7, np.float32)}), ((matrix(7),), {"x": np.ones((7, 2))}), ((matrix(7).tocoo(),), {"x": np.ones(7)})]
    check(pa.jit(plain), plain, [*calls, *others, *others, *others], 10)


def test_nested_arguments() -> None:
    def plain(A: Any, params: Any, both: Any) -> Any:
        return A @ (params["w"] @ params["layers"][0]) + both[0] * both[1]

    calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
    for n, k in ((9, 3), (9, 3), (9, 3), (5, 1), (9, 4)):
        params = {"w": RNG.standard_normal((n, k)), "layers": [RNG.standard_normal((k, 2))]}
        calls.append(((matrix(n), params, (RNG.standard_normal(2), 0.5)), {}))
    check(pa.jit(plain), plain, calls, 2)
    function = pa.jit(plain)
    for args, _ in calls[:3]:
        function(*args)
    A, params, both = calls[0][0]
    with pytest.raises(pa.errors.PolyAIError):
        function(A, {**params, "w": np.ones((8, 3))}, both)
    with pytest.raises(KeyError):
        function(A, {"w": params["w"]}, both)
    np.testing.assert_allclose(function(A, {"layers": params["layers"], "w": params["w"]}, both), plain(A, params, both))


def test_static_values_choose_their_kernel() -> None:
    def plain(A: Any, x: Any, how: str) -> Any:
        return A.T @ x if how == "turned" else A @ x

    A, x = matrix(), RNG.standard_normal(9)
    check(pa.jit(plain), plain, [((A, x, how), {}) for how in ("turned", "straight", "turned", "turned", "straight", "straight", "turned")], 3)

    def powers(x: Any, n: Any) -> Any:
        for _ in range(n):
            x = x * x
        return x

    check(pa.jit(powers, static=("n",)), powers, [((x, n), {}) for n in (1, 2, 1, 2, 1, 2, 3, 3, 3)], 3)
    check(pa.jit(powers, static=("n",)), powers, [((x,), {"n": n}) for n in (1, 2, 1, 2, True, 1, 2, 1)], 2)


def test_closures_and_globals() -> None:
    A, b = matrix(), RNG.standard_normal(9)

    def plain(x: Any) -> Any:
        return A @ x + b

    check(pa.jit(plain), plain, [((RNG.standard_normal(9),), {}) for _ in range(5)], 3)
    function = pa.jit(plain)
    x = RNG.standard_normal(9)
    for _ in range(4):
        function(x)
    b[3] = 100.0  # what a closure holds is read at each call
    np.testing.assert_allclose(function(x), plain(x))
    with pytest.raises(pa.errors.PolyAIError):
        function(np.ones(8))
    A.indices[0] = 50
    with pytest.raises(pa.errors.PolyAIError, match="50"):
        function(x)


def test_numpy_numbers() -> None:
    def plain(x: Any, a: Any) -> Any:
        return x * a

    x = RNG.standard_normal(5)
    check(pa.jit(plain), plain, [((x, np.float64(k)), {}) for k in range(5)], 3)
    check(pa.jit(plain), plain, [((x, k), {}) for k in (np.float32(2), np.float64(2), 2, 2.5, np.int8(3), np.float32(2.5), np.float32(3.5), np.float32(3))], 1)


def test_methods_see_new_values() -> None:
    class Layer:
        def __init__(self) -> None:
            self.A, self.b = matrix(), np.zeros(9)

        @pa.jit
        def __call__(self, x: Any) -> Any:
            return self.A @ x + self.b

    layer, x = Layer(), RNG.standard_normal(9)
    for k in range(6):
        layer.b = np.full(9, float(k))
        np.testing.assert_allclose(layer(x), layer.A @ x + k)
    layer.A = matrix().tocsc()
    np.testing.assert_allclose(layer(x), layer.A @ x + 5)


def test_sparse_results_and_options() -> None:
    def plain(pair: Any) -> Any:
        return pair[0] + pair[1]

    function = pa.jit(plain)
    for n in (9, 9, 9, 9, 4):
        A, B = matrix(n), matrix(n)
        np.testing.assert_allclose(function((A, B)).toarray(), (A + B).toarray())
    for threads in (1, 2, 1, 2):
        with pa.options(num_threads=threads):
            np.testing.assert_allclose(function((A, B)).toarray(), (A + B).toarray())


def test_inside_another_trace() -> None:
    inner = pa.jit(lambda p: p["a"] + p["b"])
    x = np.ones(3)
    for _ in range(4):
        inner({"a": x, "b": x})
    np.testing.assert_array_equal(pa.jit(lambda x: inner({"a": x, "b": 2 * x}))(x), 3 * x)
