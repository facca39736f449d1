"""One kernel for all sizes: every operation at sizes 0, 1, 2, max and max + 1; random sizes, relations and programs against fixed sizes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

import polyai as pa
from polyai.errors import GuardError, PolyAIError

MAX = 9
N = pa.dim("n", 0, MAX)


def x(*shape: int) -> Any:
    return np.random.default_rng(sum(shape) + len(shape)).standard_normal(shape)


def matrix(n: int, m: int) -> Any:
    return sp.random_array((n, m), density=0.5, rng=np.random.default_rng(n), format="csr")


def softmax(a: Any) -> Any:
    e = np.exp(a - a.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


OPERATIONS: dict[str, tuple[Callable[..., Any], Callable[..., Any], tuple[Any, ...], Callable[[int], tuple[Any, ...]]]] = {
    "elements": (lambda a: pa.exp(a) + a * 2, lambda a: np.exp(a) + a * 2, (pa.f64[N, 3],), lambda n: (x(n, 3),)),
    "two operands": (lambda a, b: a * b - b, lambda a, b: a * b - b, (pa.f64[N, 3], pa.f64[N, 3]), lambda n: (x(n, 3), x(n, 3))),
    "broadcast": (lambda a, b: a + b, lambda a, b: a + b, (pa.f64[N, 3], pa.f64[3]), lambda n: (x(n, 3), x(3))),
    "comparison": (lambda a: pa.where(a > 0, a, 0.0), lambda a: np.where(a > 0, a, 0.0), (pa.f64[N],), lambda n: (x(n),)),
    "sum": (lambda a: a.sum(), lambda a: a.sum(), (pa.f64[N, 3],), lambda n: (x(n, 3),)),
    "sum of rows": (lambda a: a.sum(axis=0), lambda a: a.sum(axis=0), (pa.f64[N, 3],), lambda n: (x(n, 3),)),
    "max in rows": (lambda a: a.max(axis=1), lambda a: a.max(axis=1), (pa.f64[N, 3],), lambda n: (x(n, 3),)),
    "product": (lambda a: a.prod(axis=0), lambda a: a.prod(axis=0), (pa.f64[N, 3],), lambda n: (x(n, 3),)),
    "any": (lambda a: (a > 0).any(axis=0), lambda a: (a > 0).any(axis=0), (pa.f64[N, 3],), lambda n: (x(n, 3),)),
    "argmax in rows": (lambda a: pa.argmax(a, axis=1), lambda a: a.argmax(axis=1), (pa.f64[N, 3],), lambda n: (x(n, 3),)),
    "running sum": (lambda a: pa.cumsum(a, axis=0), lambda a: a.cumsum(axis=0), (pa.f64[N, 3],), lambda n: (x(n, 3),)),
    "softmax": (pa.softmax, softmax, (pa.f64[N, 3],), lambda n: (x(n, 3),)),
    "matmul": (lambda a, b: a @ b, lambda a, b: a @ b, (pa.f64[N, 3], pa.f64[3, 5]), lambda n: (x(n, 3), x(3, 5))),
    "matmul over it": (lambda a, b: a @ b, lambda a, b: a @ b, (pa.f64[4, N], pa.f64[N, 5]), lambda n: (x(4, n), x(n, 5))),
    "square": (lambda a: a @ a.T, lambda a: a @ a.T, (pa.f64[N, 3],), lambda n: (x(n, 3),)),
    "vector": (lambda a, b: a @ b, lambda a, b: a @ b, (pa.f64[N, 3], pa.f64[3]), lambda n: (x(n, 3), x(3))),
    "inner": (lambda a, b: a @ b, lambda a, b: a @ b, (pa.f64[N], pa.f64[N]), lambda n: (x(n), x(n))),
    "einsum": (lambda a, b: pa.einsum("ij,kj->ki", a, b), lambda a, b: np.einsum("ij,kj->ki", a, b), (pa.f64[N, 3], pa.f64[2, 3]), lambda n: (x(n, 3), x(2, 3))),
    "transpose": (lambda a: a.T * 2, lambda a: a.T * 2, (pa.f64[N, 3],), lambda n: (x(n, 3),)),
    "reshape": (lambda a: a.reshape(-1, 2) + 1, lambda a: a.reshape(-1, 2) + 1, (pa.f64[N, 4],), lambda n: (x(n, 4),)),
    "concat": (lambda a, b: pa.concat([a, b]), lambda a, b: np.concatenate([a, b]), (pa.f64[N, 3], pa.f64[2, 3]), lambda n: (x(n, 3), x(2, 3))),
    "stack": (lambda a: pa.stack([a, a * 2]), lambda a: np.stack([a, a * 2]), (pa.f64[N],), lambda n: (x(n),)),
    "flip": (lambda a: pa.flip(a, axis=0), lambda a: a[::-1], (pa.f64[N, 3],), lambda n: (x(n, 3),)),
    "pad": (lambda a: pa.pad(a, 1), lambda a: np.pad(a, 1), (pa.f64[N, 3],), lambda n: (x(n, 3),)),
    "columns": (lambda a: a[:, 1:], lambda a: a[:, 1:], (pa.f64[N, 3],), lambda n: (x(n, 3),)),
    "a size": (lambda a: a * a.shape[0], lambda a: a * a.shape[0], (pa.f64[N, 3],), lambda n: (x(n, 3),)),
    "arange": (lambda a: a + pa.arange(a.shape[0]), lambda a: a + np.arange(len(a)), (pa.f64[N],), lambda n: (x(n),)),
    "outer": (lambda a: pa.outer(a, a), lambda a: np.outer(a, a), (pa.f64[N],), lambda n: (x(n),)),
    "layer norm": (lambda a: pa.layer_norm(a, eps=1e-5), lambda a: (a - a.mean(-1, keepdims=True)) / np.sqrt(a.var(-1, keepdims=True) + 1e-5), (pa.f64[N, 3],), lambda n: (x(n, 3),)),
    "loop": (lambda a: pa.fori_loop(0, 3, lambda i, s: s * 2 + i, a), lambda a: a * 8 + 4, (pa.f64[N],), lambda n: (x(n),)),
    "sparse product": (lambda s, a: s @ a, lambda s, a: s @ a, (pa.csr[N, 4], pa.f64[4, 2]), lambda n: (matrix(n, 4), x(4, 2))),
    "sparse over it": (lambda s, a: s @ a, lambda s, a: s @ a, (pa.csr[4, N], pa.f64[N, 2]), lambda n: (matrix(4, n), x(n, 2))),
}  # fmt: skip


@pytest.mark.parametrize("name", list(OPERATIONS))
def test_sizes_0_1_2_max_and_beyond(name: str) -> None:
    fn, reference, specs, make = OPERATIONS[name]
    compiled = pa.compile(fn, *specs)
    before = pa.stats()["compiles"]
    for n in (0, 1, 2, MAX):
        got, want = compiled(*make(n)), reference(*make(n))
        assert np.shape(got) == np.shape(want)
        np.testing.assert_allclose(got, want, rtol=1e-12, atol=1e-12)
    with pytest.raises(GuardError, match=rf"dimension n is {MAX + 1}, outside its range\n  why: .*shape\[[01]\] gave the value; declared is 0 <= n <= {MAX}"):
        compiled(*make(MAX + 1))
    assert pa.stats()["compiles"] == before


M, K = pa.dim("m", 0, 12), pa.dim("k", 0, 12)
RELATIONS: list[tuple[str, Any, Callable[[int, int, int], bool]]] = [
    ("n <= m", N <= M, lambda n, m, k: n <= m),
    ("m == n // 2", N // 2 == M, lambda n, m, k: m == n // 2),
    ("k == n + m", N + M == K, lambda n, m, k: k == n + m),
    ("n % 3 == 0", N % 3 == 0, lambda n, m, k: n % 3 == 0),
    ("k < n + 4", N + 4 > K, lambda n, m, k: k < n + 4),
    ("m == minimum(n, k)", pa.minimum(N, K) == M, lambda n, m, k: m == min(n, k)),
    ("2*m >= k", 2 * M >= K, lambda n, m, k: 2 * m >= k),
    ("k != 5", K != 5, lambda n, m, k: k != 5),
]
BODIES: list[Callable[[Any, Any, Any], Any]] = [
    lambda a, b, c: (a @ b) @ c,
    lambda a, b, c: pa.softmax(a @ b + 1) if hasattr(a, "tracer") else softmax(a @ b + 1),
    lambda a, b, c: (a * 2).sum(axis=0) + (b @ c).sum(),
    lambda a, b, c: c.T * (b.sum() + a.shape[0]),
]


@settings(max_examples=40, deadline=None)
@given(
    chosen=st.lists(st.sampled_from(range(len(RELATIONS))), max_size=3, unique=True),
    body=st.sampled_from(BODIES),
    sizes=st.lists(st.tuples(st.integers(0, MAX), st.integers(0, 12), st.integers(0, 12)), min_size=4, max_size=8),
)
def test_declared_sizes_mean_what_fixed_sizes_mean(chosen: list[int], body: Callable[..., Any], sizes: list[tuple[int, int, int]]) -> None:
    """Where a call fulfils the relations it gives what NumPy gives; where it does not it is refused."""
    where, holds = [RELATIONS[r][1] for r in chosen], [RELATIONS[r][2] for r in chosen]
    try:
        f = pa.compile(body, pa.f64[N, M], pa.f64[M, K], pa.f64[K, 2], where=where)
    except PolyAIError as error:
        # a body that needs a relation nobody promised, or relations that contradict each other
        assert "neither always true" in str(error) or "contradict" in str(error)
        assert not any(all(h(*s) for h in holds) for s in [(n, m, k) for n in range(MAX + 1) for m in range(13) for k in range(13)]) or "neither" in str(error)
        return
    for n, m, k in sizes:
        args = (x(n, m), x(m, k), x(k, 2))
        if k == 0 and body is BODIES[1]:
            continue  # NumPy has no maximum of nothing
        if all(h(n, m, k) for h in holds):
            np.testing.assert_allclose(f(*args), body(*args), rtol=1e-9, atol=1e-9)
        else:
            with pytest.raises(GuardError):
                f(*args)


@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize("shape", [(0, 0, 0), (2, 0, 3), (0, 3, 2), (3, 2, 1)])
def test_sizes_that_are_known_to_be_zero(shape: tuple[int, int, int], body: Callable[..., Any]) -> None:
    n, m, k = shape
    if k == 0 and body is BODIES[1]:
        return
    args = (x(n, m), x(m, k), x(k, 2))
    np.testing.assert_allclose(pa.jit(body, dynamic="none")(*args), pa.jit(body)(*args), rtol=1e-12, atol=1e-12)


@settings(max_examples=30, deadline=None)
@given(shape=st.tuples(*[st.integers(0, 7)] * 3), other=st.tuples(*[st.integers(0, 7)] * 3), body=st.sampled_from(BODIES))
def test_a_kernel_of_other_sizes_is_as_good_as_one_of_its_own(shape: tuple[int, int, int], other: tuple[int, int, int], body: Callable[..., Any]) -> None:
    general = pa.jit(body)
    for n, m, k in (other, shape):
        if k == 0 and body is BODIES[1]:
            return
        args = (x(n, m), x(m, k), x(k, 2))
        np.testing.assert_allclose(general(*args), pa.jit(body, dynamic="none")(*args), rtol=1e-12, atol=1e-12)
