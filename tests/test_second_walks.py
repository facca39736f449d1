"""Values along a pattern that two walks of it read, dense results of padded formats, vectors that are indexed, and small things users meet."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp

import polyai as pa
from polyai.errors import TraceError
from tests.test_values_along_arguments import operands, same, stored

Function = Callable[..., Any]


def tanh(a: Any) -> Any:
    return np.tanh(a) if isinstance(a, np.ndarray) else pa.tanh(a)


WALKS: dict[str, Function] = {
    "square": lambda A, B, x: tanh(A) @ tanh(A),
    "left": lambda A, B, x: tanh(A) @ A,
    "right": lambda A, B, x: A @ tanh(A),
    "scaled": lambda A, B, x: (A * x) @ (A * x[:, None]),
    "gram": lambda A, B, x: tanh(A).T @ tanh(A),
    "masked": lambda A, B, x: ((tanh(A) @ tanh(A) * A), tanh(A)),
    "summed": lambda A, B, x: ((tanh(A) @ tanh(A)) * tanh(A)).sum(),
    "symmetric": lambda A, B, x: (A * x) + (A * x).T,
    "merged": lambda A, B, x: ((A + B) * x) @ ((A + B) * x),
    "product": lambda A, B, x: (tanh(A @ B) * x) @ (tanh(A @ B) * x),
    "fourth": lambda A, B, x: (tanh(A) @ tanh(A)) @ (tanh(A) @ tanh(A)),
}


@pytest.mark.parametrize("name", ["csr", "coo", "bsr", "ell"])
@pytest.mark.parametrize("program", WALKS)
def test_values_along_a_pattern_that_is_walked_twice(program: str, name: str) -> None:
    a, b, x = operands()
    compiled = pa.jit(WALKS[program])
    for _ in range(2):
        same(compiled(stored(a, name), sp.csr_array(b), x), WALKS[program](a, b, x))


WITH_DENSE: dict[str, Function] = {
    "greater": lambda A, D: A > D,
    "less": lambda A, D: A < D,
    "divided": lambda A, D: A / (2 + D),
    "by itself": lambda A, D: A / (A + 2 * np.ones_like(D)),
    "selected": lambda A, D: (A > D) & (A != 0 * D),
}


@pytest.mark.parametrize("name", ["csr", "coo", "bsr", "dia", "ell", "bitmap", "banded"])
@pytest.mark.parametrize("program", WITH_DENSE)
def test_comparisons_and_quotients_with_dense_arrays(program: str, name: str) -> None:
    a, b, _ = operands()
    same(pa.jit(WITH_DENSE[program])(stored(a, name), b), WITH_DENSE[program](a, b))


@pytest.mark.parametrize("name", ["csr", "csc", "coo", "bsr", "dia"])
@pytest.mark.parametrize("axis", [None, 0, 1])
def test_extremes_of_booleans(name: str, axis: int | None) -> None:
    a, _, _ = operands()
    A = stored(a, name)
    same(pa.jit(lambda A: pa.max(A > 0.1, axis=axis))(A), (a > 0.1).max(axis=axis))
    same(pa.jit(lambda A: pa.min(A > 0.1, axis=axis))(A), (a > 0.1).min(axis=axis))
    same(pa.jit(lambda A: pa.all(A, axis=axis))(A), a.all(axis=axis))
    full = stored(a + 2, name)
    same(pa.jit(lambda A: (pa.all(A, axis=axis), pa.min(A > 1, axis=axis)))(full), ((a + 2).all(axis=axis), (a + 2 > 1).min(axis=axis)))


INDEXED: dict[str, Function] = {
    "element": lambda v: v[3],
    "last": lambda v: v[-1],
    "slice": lambda v: v[1:5],
    "reversed": lambda v: v[::-1],
    "several": lambda v: v[np.array([3, 1, -1])],
    "mask": lambda v: v[np.arange(20) % 3 == 0],
    "computed": lambda v: (v * 2)[2:7] + v[1:6],
    "reduced": lambda v: v[3] + v[1:5].sum(),
}


@pytest.mark.parametrize("program", INDEXED)
def test_sparse_vectors_are_indexed(program: str) -> None:
    rng = np.random.default_rng(0)
    x = np.where(rng.random(20) < 0.5, rng.random(20), 0.0)
    same(pa.jit(INDEXED[program])(sp.coo_array(x)), INDEXED[program](x))


def test_functions_of_python_numbers_and_lists() -> None:
    assert pa.abs(-2.0) == 2.0 and pa.maximum(2, 3.5) == 3.5 and pa.sqrt(2) == np.sqrt(2)
    assert pa.sum([1, 2, 3]) == 6 and pa.where(True, 1.0, 2.0) == 1.0
    np.testing.assert_array_equal(pa.sum([[1, 2], [3, 4]], 0), [4, 6])
    np.testing.assert_array_equal(pa.zeros(3), np.zeros(3))
    with pytest.raises(TraceError, match="needs a traced array"):
        pa.abs(None)


OUTS: dict[str, tuple[Function, Function, int]] = {
    "an argument": (lambda A, x: x, lambda a, x: (x,), 1),
    "beside an argument": (lambda A, x: (x, x * 2), lambda a, x: (x, x * 2), 2),
    "twice": (lambda A, x: (x * 2, x, x * 2), lambda a, x: (x * 2, x, x * 2), 3),
    "after a loop": (lambda A, x: (pa.fori_loop(0, 2, lambda i, z: A @ z, x), x), lambda a, x: (a @ (a @ x), x), 2),
    "several kernels": (lambda A, x: ((A @ A).sum(axis=0), x, pa.sort(-x)), lambda a, x: ((a @ a).sum(axis=0), x, np.sort(-x)), 3),
}


@pytest.mark.parametrize("program", OUTS)
def test_every_array_given_as_out_is_written(program: str) -> None:
    a, _, x = operands()
    ours, numpy, count = OUTS[program]
    compiled = pa.jit(ours)
    for _ in range(3):
        given = [np.full(len(x), 7.0) for _ in range(count)]
        compiled(sp.csr_array(a), x, out=tuple(given) if count > 1 else given[0])
        same(tuple(given), numpy(a, x))


@pytest.mark.parametrize("dtype", [np.bool_, np.int32, np.complex128])
@pytest.mark.parametrize("offset", [0, 1, -1])
def test_diagonals_keep_their_type(dtype: Any, offset: int) -> None:
    dense = (np.arange(20).reshape(4, 5) % 3).astype(dtype)
    found = pa.jit(lambda A: A.diagonal(offset))(sp.csr_array(dense))
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, dense.diagonal(offset))
