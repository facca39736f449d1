"""What repeated calls return, whatever the function's results look like: numbers, several arrays, nested; by native calls."""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp

import polyai as pa

Pair = namedtuple("Pair", ["left", "right"])

FUNCTIONS: dict[str, tuple[Callable[..., Any], bool]] = {
    "number": (lambda A, x: x @ (A @ x), True),
    "integer": (lambda A, x: pa.sum(A @ x > 0), True),
    "truth": (lambda A, x: pa.any(A @ x > 0), True),
    "pair": (lambda A, x: (A @ x, x + 1), True),
    "loss and residual": (lambda A, x: (pa.mean((A @ x - x) ** 2), A @ x - x), True),
    "dict": (lambda A, x: {"y": A @ x, "norm": pa.sqrt(x @ x)}, True),
    "nested": (lambda A, x: [(A @ x,), {"a": x * 2, "b": [pa.sum(A)]}], True),
    "named": (lambda A, x: Pair(A @ x, x - 1), True),
    "one in a list": (lambda A, x: [A @ x], True),
    "the same twice": (lambda A, x: (lambda y: (y, y))(A @ x), True),
    "an argument": (lambda A, x: (x, A @ x), False),
    "a size": (lambda A, x: (A @ x, A.shape[0]), False),
    "along a pattern": (lambda A, x: (A * 2.0, A @ x), True),
    "two along a pattern": (lambda A, x: {"double": A * 2.0, "size": [abs(A)]}, True),
}


def leaves(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [x for v in value.values() for x in leaves(v)]
    return [x for v in value for x in leaves(v)] if isinstance(value, (tuple, list)) else [value]


def form(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: form(v) for k, v in value.items()}
    return (type(value), [form(v) for v in value]) if isinstance(value, (tuple, list)) else type(value)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_each_call_returns_what_the_first_one_did(name: str) -> None:
    fn, native = FUNCTIONS[name]
    function = pa.jit(fn)
    rng = np.random.default_rng(0)
    kept = []
    for n in (7, 7, 7, 12, 0, 1, 12):
        A = sp.random_array((n, n), density=0.3, format="csr", rng=rng)
        x = rng.standard_normal(n)
        if n == 0 and name == "loss and residual":
            continue
        expected = fn(A, x)
        given = function(A, x)
        kept.append((given, expected))
        if n:
            assert form(given) == form(function(A, x))
    for given, expected in kept:  # no call wrote to what an earlier one returned
        for mine, theirs in zip(leaves(given), leaves(expected), strict=True):
            mine, theirs = (v.toarray() if sp.issparse(v) else v for v in (mine, theirs))
            np.testing.assert_allclose(mine, theirs, rtol=1e-12, atol=1e-14)
    report = function.report()
    assert (report.fast >= 4) == native, f"{report.fast} of {report.hits} calls were native"


def test_numbers_are_numpys() -> None:
    function = pa.jit(lambda x: (pa.sum(x), pa.max(x), x[0] > 0))
    for _ in range(4):
        total, most, positive = function(np.array([1.0, 2.0], np.float32))
        assert (type(total), type(most), type(positive)) == (np.float32, np.float32, np.bool_)
        assert (total, most, positive) == (3.0, 2.0, True)


def test_several_results_with_out() -> None:
    function = pa.jit(lambda x: (x + 1, x * 2))
    x, out = np.arange(3.0), (np.zeros(3), np.zeros(3))
    for n in range(4):
        x[0] = n
        given = function(x, out=out)
        assert given[0] is out[0] and given[1] is out[1]
        np.testing.assert_array_equal(np.stack(out), [x + 1, x * 2])
        np.testing.assert_array_equal(np.stack(function(x)), [x + 1, x * 2])


def test_results_along_a_pattern_share_nothing_and_are_checked() -> None:
    function = pa.jit(lambda A: (A * 2.0, abs(A)))
    A = sp.random_array((6, 6), density=0.5, format="csr", rng=np.random.default_rng(1))
    for _ in range(4):
        double, size = function(A)
        for made in (double, size):
            assert not any(np.shares_memory(made.indices, other.indices) for other in (A, double, size) if other is not made)
    A.indices[2] = 77
    with pytest.raises(pa.errors.PolyAIError, match="77"):
        function(A)


def test_bad_arguments_after_good_calls() -> None:
    function = pa.jit(lambda A, x: (A @ x, pa.sum(A)))
    A = sp.random_array((6, 6), density=0.5, format="csr", rng=np.random.default_rng(1))
    for _ in range(4):
        function(A, np.ones(6))
    with pytest.raises(pa.errors.ShapeError):
        function(A, np.ones(5))
    A.indices[2] = 77
    with pytest.raises(pa.errors.PolyAIError, match="77"):
        function(A, np.ones(6))
    A.indices[2] = 1
    A.indptr[3] = 1000
    with pytest.raises(pa.errors.PolyAIError):
        function(A, np.ones(6))
