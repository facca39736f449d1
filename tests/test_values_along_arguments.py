"""Values along the pattern of an argument in every format: beside assembled results, in loops and branches, and in handles."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp

import polyai as pa
from polyai.errors import SparseStructureError, UnsupportedError
from polyai.sparse import format as fm

N = 12


def stored(dense: Any, name: str) -> Any:
    rows = sp.csr_array(dense)
    if name in ("ell", "dcsr", "bitmap", "banded"):
        form = {"ell": fm.ell(), "dcsr": fm.dcsr(), "bitmap": fm.bitmap(), "banded": fm.banded(N - 1, N - 1)}[name]
        return pa.SparseArray.from_dense(dense, form)
    if name == "bsr":
        return sp.bsr_array(rows, blocksize=(2, 3))
    if name == "wide":
        rows.indices, rows.indptr = rows.indices.astype(np.int64), rows.indptr.astype(np.int64)
    if name == "unsorted":
        for i in range(N):
            row = slice(rows.indptr[i], rows.indptr[i + 1])
            rows.indices[row], rows.data[row] = rows.indices[row][::-1].copy(), rows.data[row][::-1].copy()
        return sp.csr_array((rows.data, rows.indices, rows.indptr), shape=rows.shape)
    return rows if name in ("csr", "wide") else rows.asformat(name)


FORMATS = ("csr", "csc", "coo", "bsr", "dia", "ell", "dcsr", "bitmap", "banded", "wide", "unsorted")


def operands() -> tuple[Any, Any, Any]:
    rng = np.random.default_rng(3)
    a, b = (np.where(rng.random((N, N)) < 0.3, rng.random((N, N)) - 0.5, 0.0) for _ in range(2))
    a[4] = 0
    return a, b, rng.random(N)


def same(found: Any, wanted: Any) -> None:
    found, wanted = (v if isinstance(v, tuple) else (v,) for v in (found, wanted))
    assert len(found) == len(wanted)
    for one, other in zip(found, wanted):
        np.testing.assert_allclose(one.toarray() if hasattr(one, "toarray") else one, other, rtol=1e-12, atol=1e-12)


Function = Callable[..., Any]

BESIDE: dict[str, tuple[Function, Function]] = {
    "scaled": (lambda A, B, x: (A * 2, B + B.T), lambda A, B, x: (A * 2, B + B.T)),
    "itself": (lambda A, B, x: (A, B @ B, pa.abs(A)), lambda A, B, x: (A, B @ B, np.abs(A))),
    "turned": (lambda A, B, x: (B @ B, pa.tanh(A.T)), lambda A, B, x: (B @ B, np.tanh(A.T))),
    "divided": (lambda A, B, x: (A / (1 + x)[:, None], B @ B), lambda A, B, x: (A / (1 + x)[:, None], B @ B)),
    "reread": (lambda A, B, x: ((A * x) @ x, A * x, (A * x) @ B), lambda A, B, x: ((A * x) @ x, A * x, (A * x) @ B)),
}


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("program", BESIDE)
def test_results_along_an_argument_beside_assembled_ones(program: str, name: str) -> None:
    ours, numpy = BESIDE[program]
    a, b, x = operands()
    same(pa.jit(ours)(stored(a, name), sp.csr_array(b), x), numpy(a, b, x))


def looped(A: Any, B: Any, x: Any) -> Any:
    P = A / (1 + x)[:, None]
    return pa.fori_loop(0, 3, lambda i, z: P @ z + P.T @ z * 0.5, x), P


def looped_numpy(A: Any, B: Any, x: Any) -> Any:
    P, z = A / (1 + x)[:, None], x
    for _ in range(3):
        z = P @ z + P.T @ z * 0.5
    return z, P


def merged(A: Any, B: Any, x: Any) -> Any:
    S = (A + B) * x[:, None]
    return pa.fori_loop(0, 2, lambda i, z: S @ z, x), pa.cond(pa.sum(x) > 100, lambda: pa.sum(S, axis=0), lambda: pa.max(S, axis=1))


def merged_numpy(A: Any, B: Any, x: Any) -> Any:
    S = (A + B) * x[:, None]
    return S @ (S @ x), S.max(axis=1)


def product(A: Any, B: Any, x: Any) -> Any:
    S = (A @ B) * x[:, None]
    return pa.fori_loop(0, 2, lambda i, z: S @ z + pa.tanh(S).T @ z, x), S


def product_numpy(A: Any, B: Any, x: Any) -> Any:
    S, z = (A @ B) * x[:, None], x
    for _ in range(2):
        z = S @ z + np.tanh(S).T @ z
    return z, S


def nested(A: Any, B: Any, x: Any) -> Any:
    T = pa.tanh(A)

    def body(s: Any) -> Any:
        z, k = s
        return pa.cond(k > 1, lambda: T @ z, lambda: pa.sum(T * z[:, None], axis=0) + pa.sum(T + B, axis=1)), k + 1

    return pa.while_loop(lambda s: s[1] < 4, body, (x, 0))[0]


def nested_numpy(A: Any, B: Any, x: Any) -> Any:
    T, z = np.tanh(A), x
    for k in range(4):
        z = T @ z if k > 1 else (T * z[:, None]).sum(axis=0) + (T + B).sum(axis=1)
    return z


def merged_inside(A: Any, B: Any, x: Any) -> Any:
    total = A + B
    y = pa.fori_loop(0, 2, lambda i, z: pa.sum((A + B) * z[:, None], axis=0) + (A * B) @ z, x)
    return total, y, (A + B).T @ y


def merged_inside_numpy(A: Any, B: Any, x: Any) -> Any:
    y = x
    for _ in range(2):
        y = ((A + B) * y[:, None]).sum(axis=0) + (A * B) @ y
    return A + B, y, (A + B).T @ y


INSIDE: dict[str, tuple[Function, Function]] = {
    "looped": (looped, looped_numpy),
    "merged": (merged, merged_numpy),
    "product": (product, product_numpy),
    "nested": (nested, nested_numpy),
    "merged inside": (merged_inside, merged_inside_numpy),
}


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("program", INSIDE)
def test_computed_sparse_values_in_loops_and_branches(program: str, name: str) -> None:
    ours, numpy = INSIDE[program]
    a, b, x = operands()
    compiled = pa.jit(ours)
    for threads in (1, 2):
        with pa.options(num_threads=threads):
            same(compiled(stored(a, name), stored(b, "csr" if name == "banded" else name), x), numpy(a, b, x))


def test_scan_over_a_computed_sparse_array() -> None:
    def ours(A: Any, B: Any, x: Any, X: Any) -> Any:
        T = pa.tanh(A)
        return pa.scan(lambda c, row: ((T + B) @ c + row, pa.sum(T * c, axis=1)), x, X)

    a, b, x = operands()
    X = np.arange(2.0 * N).reshape(2, N)
    carry, rows = x, []
    for row in X:
        rows.append((np.tanh(a) * carry).sum(axis=1))
        carry = (np.tanh(a) + b) @ carry + row
    for name in ("csr", "csc", "coo"):
        same(pa.jit(ours)(stored(a, name), sp.csr_array(b), x, X), (carry, np.array(rows)))


def looped_over(times: int, step: Function, state: Any) -> Any:
    """A loop, of NumPy arrays in Python."""
    if not isinstance(state, np.ndarray):
        return pa.fori_loop(0, times, step, state)
    for i in range(times):
        state = step(i, state)
    return state


def after(A: Any, x: Any) -> Any:
    return looped_over(2, lambda i, z: A @ z, x)


SHUFFLED = np.arange(N)[::-1].copy()
AROUND: dict[str, Function] = {
    "rows in a loop": lambda A, B, x: after(A[::-1], x),
    "scaled rows in a loop": lambda A, B, x: (after(A[SHUFFLED] * x, x), A[SHUFFLED]),
    "stacked in a loop": lambda A, B, x: looped_over(2, lambda i, z: (np.vstack([A, A * 2]) @ z)[:N] + (np.vstack([A, A * 2]) @ z)[N:], x)
    if isinstance(A, np.ndarray)
    else (lambda T: pa.fori_loop(0, 2, lambda i, z: (T @ z)[:N] + (T @ z)[N:], x))(pa.vstack([A, A * 2])),
    "rows by a loop": lambda A, B, x: A[::-1] * after(A, x)[:, None],
    "sum by a loop": lambda A, B, x: ((A + B) * after(A, x) + A, after(A, x)),
    "product by a loop": lambda A, B, x: (A * after(A, x)) @ B,
    "loop of a product by it": lambda A, B, x: (lambda C: C * after(C, x))(A @ B),
    "loop of a sum by it": lambda A, B, x: (lambda C: (C * after(C, x) + B, C))(A + B),
    "rows that a loop selects": lambda A, B, x: A[after(A, x) > 0.1],
}


@pytest.mark.parametrize("name", ["csr", "csc", "coo"])
@pytest.mark.parametrize("program", AROUND)
def test_loops_around_assembled_arrays(program: str, name: str) -> None:
    a, b, x = operands()
    same(pa.jit(AROUND[program])(stored(a, name), sp.csr_array(b), x), AROUND[program](a, b, x))


def test_what_is_stored_inside_a_loop_is_refused_in_words() -> None:
    a, b, x = operands()
    with pytest.raises(UnsupportedError, match="made inside a branch or a loop"):
        pa.jit(lambda A, B, x: pa.fori_loop(0, 1, lambda i, z: pa.softmax((A + B) * z[:, None], axis=1) @ z, x))(sp.csr_array(a), sp.csr_array(b), x)


def test_rows_not_in_order_are_put_in_order_for_loops_too() -> None:
    a, _, x = operands()
    given = stored(a, "unsorted")
    before = given.indices.copy()
    found = pa.jit(lambda A, x: pa.fori_loop(0, 1, lambda i, z: A @ z, pa.max(A, axis=1)))(given, x)
    np.testing.assert_allclose(found, a @ a.max(axis=1))
    np.testing.assert_array_equal(given.indices, before)


DECIDED: dict[str, tuple[Function, Any, Any]] = {
    "rows": (lambda A, r: A[r] * 2, np.array([0, 2, 3]), np.array([1, 5, 2])),
    "columns": (lambda A, r: A[:, r] * 2, np.array([0, 2, 3]), np.array([1, 5, 2])),
    "product of rows": (lambda A, r: A[r] @ A, np.array([0, 2, 3]), np.array([1, 5, 2])),
    "triangle": (lambda A, k: pa.tril(A, k) + A, 1, 2),
    "sorted": (lambda A, x: (A @ A)[pa.argsort(x)], np.arange(N) * 1.0, np.arange(N)[::-1] * 1.0),
}


@pytest.mark.parametrize("program", DECIDED)
def test_handles_compare_what_decides_their_patterns(program: str) -> None:
    fn, first, second = DECIDED[program]
    A = sp.csr_array(operands()[0])
    handle = pa.pattern(fn, A, first)
    np.testing.assert_allclose(handle(A * 3, first).toarray(), pa.jit(fn)(A * 3, first).toarray())
    with pytest.raises(SparseStructureError, match=r"other values than when .* was assembled"):
        handle(A, second)
    np.testing.assert_allclose(handle(A, first).toarray(), pa.jit(fn)(A, first).toarray())


def test_handles_of_patterns_that_sparse_values_decide_are_refused() -> None:
    A = sp.csr_array(operands()[0])
    with pytest.raises(UnsupportedError, match="the values of A decide"):
        pa.pattern(lambda A: (A @ A)[pa.argsort(pa.sum(A, axis=1))], A)


def test_converted_arguments_keep_the_width_of_their_indices() -> None:
    columns = pa.jit(lambda A, r: A[:, r])
    rng = np.random.default_rng(0)
    for shape, density in (((7, 9), 0.5), ((2, 24), 0.0), ((40, 3), 0.3)):
        dense = np.where(rng.random(shape) < density, rng.random(shape), 0.0)
        rows = rng.integers(0, shape[1], 5)
        np.testing.assert_allclose(columns(pa.SparseArray.from_dense(dense, fm.ell()), rows).toarray(), dense[:, rows])
    assert len(columns.reasons) == 1
