"""Every kind of operation at sizes 0, 1, 2, the greatest and one beyond: one kernel, the results of NumPy and SciPy, the same refusal."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp

import polyai as pa
from polyai.errors import GuardError

MAX = 37
N = pa.dim("n", 0, MAX)
D = pa.f64


def x(*shape: int) -> Any:
    return np.random.default_rng(sum(shape) + len(shape)).standard_normal(shape)


def matrix(n: int, m: int, format: str = "csr") -> Any:
    return sp.random_array((n, m), density=0.4, rng=np.random.default_rng(n + 2 * m), format=format)


def dense(result: Any) -> Any:
    return result.toarray() if sp.issparse(result) else np.asarray(result)


def softmax(a: Any) -> Any:
    e = np.exp(a - a.max(axis=-1, keepdims=True, initial=-np.inf))
    return e / e.sum(axis=-1, keepdims=True)


def recurrence(a: Any) -> Any:
    state, out = np.zeros(a.shape[1:]), np.zeros(a.shape)
    for k, row in enumerate(a):
        state = out[k] = np.tanh(0.5 * state + row)
    return out


def convolved(a: Any, w: Any) -> Any:
    out = np.zeros((a.shape[0], w.shape[0], a.shape[2] - 2, a.shape[3] - 2))
    for i in range(3):
        for j in range(3):
            out += np.einsum("nchw,oc->nohw", a[:, :, i : i + out.shape[2], j : j + out.shape[3]], w[:, :, i, j])
    return out


def steps(a: Any) -> Any:
    def step(state: Any, row: Any) -> Any:
        new = pa.tanh(0.5 * state + row)
        return new, new

    return pa.scan(step, pa.zeros((3,)), a)[1]


Args = tuple[Any, ...]
NUMPY: dict[str, tuple[Callable[..., Any], Args, Callable[[int], Args]]] = {
    "mean": (lambda p, a: a.mean(axis=1), (D[N, 3],), lambda n: (x(n, 3),)),
    "variance": (lambda p, a: a.var(axis=1), (D[N, 3],), lambda n: (x(n, 3),)),
    "clip": (lambda p, a: p.clip(a, -0.5, 0.5), (D[N, 3],), lambda n: (x(n, 3),)),
    "all of a condition": (lambda p, a: (a > -1).all(axis=1), (D[N, 3],), lambda n: (x(n, 3),)),
    "running product": (lambda p, a: p.cumulative_prod(a, axis=0), (D[N, 3],), lambda n: (x(n, 3),)),
    "slice with a step": (lambda p, a: a[::2] * 2, (D[N, 3],), lambda n: (x(n, 3),)),
    "slice of half": (lambda p, a: a[: a.shape[0] // 2] * 2, (D[N, 3],), lambda n: (x(n, 3),)),
    "reversed": (lambda p, a: p.flip(a, axis=0), (D[N, 3],), lambda n: (x(n, 3),)),
    "rolled": (lambda p, a: p.roll(a, 1, axis=1), (D[N, 3],), lambda n: (x(n, 3),)),
    "concatenated": (lambda p, a, b: p.concat([a, b, a], axis=0), (D[N, 3], D[2, 3]), lambda n: (x(n, 3), x(2, 3))),
    "stacked": (lambda p, a: p.stack([a, 2 * a], axis=1), (D[N, 3],), lambda n: (x(n, 3),)),
    "transposed": (lambda p, a: a.T * 1.5, (D[N, 3],), lambda n: (x(n, 3),)),
    "reshaped": (lambda p, a: a.reshape(-1) + 1, (D[N, 4],), lambda n: (x(n, 4),)),
    "lower triangle": (lambda p, a: p.tril(a), (D[N, N],), lambda n: (x(n, n),)),
    "taken": (lambda p, a, i: p.take(a, i, axis=0), (D[5, 3], pa.i64[N]), lambda n: (x(5, 3), np.arange(n) % 5)),
    "indexed": (lambda p, a, i: a[i] * 2, (D[5], pa.i64[N]), lambda n: (x(5), np.arange(n) % 5)),
    "vector times vector": (lambda p, a, b: a @ b, (D[N], D[N]), lambda n: (x(n), x(n))),
    "sum of a product": (lambda p, a, b: a @ b, (D[4, N], D[N, 3]), lambda n: (x(4, n), x(n, 3))),
    "both along the sum": (lambda p, a, b: a @ b.T, (D[N, 40], D[N, 40]), lambda n: (x(n, 40), x(n, 40))),
    "a sum of this length, both along it": (lambda p, a, b: a @ b.T, (D[20, N], D[30, N]), lambda n: (x(20, n), x(30, n))),
    "batched, both along the sum": (lambda p, a, b: a @ b.transpose(0, 2, 1), (D[4, N, 16], D[4, N, 16]), lambda n: (x(4, n, 16), x(4, n, 16))),
    "as many batches, both along the sum": (lambda p, a, b: a @ b.transpose(0, 2, 1), (D[N, 20, 16], D[N, 24, 16]), lambda n: (x(n, 20, 16), x(n, 24, 16))),
    "heads of rows": (
        lambda p, a, b: a.reshape(a.shape[0], 4, 16).transpose(1, 0, 2) @ b.reshape(a.shape[0], 4, 16).transpose(1, 2, 0),
        (D[N, 64], D[N, 64]),
        lambda n: (x(n, 64), x(n, 64)),
    ),
    "einsum": (lambda p, a, b: p.einsum("nij,nkj->ik", a, b), (D[N, 3, 4], D[N, 5, 4]), lambda n: (x(n, 3, 4), x(n, 5, 4))),
}  # fmt: skip

OTHERS: dict[str, tuple[Callable[..., Any], Callable[..., Any], Args, Callable[[int], Args]]] = {
    "recurrence": (steps, recurrence, (D[N, 3],), lambda n: (x(n, 3),)),
    "convolution": (pa.conv2d, convolved, (D[N, 2, 6, 5], D[3, 2, 3, 3]), lambda n: (x(n, 2, 6, 5), x(3, 2, 3, 3))),
    "attention": (
        lambda q, k, v: pa.softmax(q @ k.T, axis=-1) @ v,
        lambda q, k, v: softmax(q @ k.T) @ v,
        (D[N, 16], D[N, 16], D[N, 5]),
        lambda n: (x(n, 16), x(n, 16), x(n, 5)),
    ),
    "mask": (lambda a: a[a > 0], lambda a: a[a > 0], (D[N],), lambda n: (x(n),)),
    "nonzero": (lambda a: pa.nonzero(a > 0)[0], lambda a: np.nonzero(a > 0)[0], (D[N],), lambda n: (x(n),)),
    "repeat": (lambda a, c: pa.repeat(a, c), np.repeat, (D[N], pa.i64[N]), lambda n: (x(n), np.arange(n) % 3)),
    "unique": (pa.unique, np.unique, (pa.i64[N],), lambda n: (np.arange(n) % 4,)),
    "sorted": (lambda a: pa.sort(a), np.sort, (D[N],), lambda n: (x(n),)),
    "sum of sparse": (lambda a, b: a + b, lambda a, b: a + b, (pa.csr[N, 5], pa.csr[N, 5]), lambda n: (matrix(n, 5), matrix(n, 5))),
    "product of sparse, by element": (lambda a, b: a * b, lambda a, b: a * b, (pa.csr[N, 5], pa.csr[N, 5]), lambda n: (matrix(n, 5), matrix(n, 5))),
    "sparse times sparse": (lambda a, b: a @ b, lambda a, b: a @ b, (pa.csr[N, 5], pa.csr[5, N]), lambda n: (matrix(n, 5), matrix(5, n))),
    "transposed sparse times dense": (lambda a, b: a.T @ b, lambda a, b: a.T @ b, (pa.csr[N, 5], D[N, 3]), lambda n: (matrix(n, 5), x(n, 3))),
    "columns": (lambda a, b: a @ b, lambda a, b: a @ b, (pa.csc[N, 5], D[5, 3]), lambda n: (matrix(n, 5, "csc"), x(5, 3))),
    "coordinates": (lambda a, b: a @ b, lambda a, b: a @ b, (pa.coo[N, 5], D[5, 3]), lambda n: (matrix(n, 5, "coo"), x(5, 3))),
    "sampled product": (lambda a, u, v: a * (u @ v), lambda a, u, v: a * (u @ v), (pa.csr[N, 5], D[N, 3], D[3, 5]), lambda n: (matrix(n, 5), x(n, 3), x(3, 5))),
    "sums of sparse rows": (lambda a: a.sum(axis=1), lambda a: a.sum(axis=1), (pa.csr[N, 5],), lambda n: (matrix(n, 5),)),
}  # fmt: skip


def one_kernel(compiled: Any, reference: Callable[..., Any], make: Callable[[int], Args]) -> None:
    before = pa.stats()["compiles"]
    for n in (0, 1, 2, MAX):
        args = make(n)
        got, want = dense(compiled(*args)), dense(reference(*args))
        assert got.shape == want.shape
        np.testing.assert_allclose(got, want, rtol=1e-11, atol=1e-11)
    with pytest.raises(GuardError, match=rf"dimension n is {MAX + 1}, outside its range"):
        compiled(*make(MAX + 1))
    assert pa.stats()["compiles"] == before


@pytest.mark.parametrize("name", list(NUMPY))
def test_as_numpy(name: str) -> None:
    fn, specs, make = NUMPY[name]
    one_kernel(pa.compile(lambda *args: fn(pa, *args), *specs), lambda *args: fn(np, *args), make)


@pytest.mark.parametrize("name", list(OTHERS))
def test_as_a_reference(name: str) -> None:
    fn, reference, specs, make = OTHERS[name]
    one_kernel(pa.compile(fn, *specs), reference, make)


def decisions(fn: Callable[..., Any], *args: Any) -> str:
    return str(pa.jit(fn).explain(*args)["decisions"])


def test_an_operand_that_lies_along_the_sum_is_turned_around() -> None:
    """Just before it is used where there are batches enough for the threads, else before all; not for a few rows."""

    def scores(a: Any, b: Any) -> Any:
        return a @ b.transpose(0, 2, 1)

    assert "b_panels: copied just before they are read" in decisions(scores, x(8, 40, 32), x(8, 50, 32))
    assert "b_panels: all panels first" in decisions(scores, x(2, 40, 32), x(2, 50, 32))
    assert "panels" not in decisions(scores, x(8, 4, 32), x(8, 50, 32))
    assert "w_panels" in decisions(lambda a, w: a @ w.T, x(40, 300), x(200, 300))
