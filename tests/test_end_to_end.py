"""Whole programs through the front door, of sizes where tiles, tasks and vector tails all occur, against NumPy and SciPy."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from scipy import special

import polyai as pa

RNG = np.random.default_rng(2024)
F32 = 3e-5


def x(*shape: int, dtype: Any = np.float32) -> Any:
    return RNG.standard_normal(shape).astype(dtype)


def graph(n: int, m: int | None = None, per_row: float = 9.0, dtype: Any = np.float32) -> Any:
    """Rows of very different lengths, some empty, some nearly full, with sorted columns."""
    m = n if m is None else m
    lengths = np.minimum(RNG.geometric(1 / per_row, n) - 1, m)
    lengths[RNG.integers(0, n, 3)] = int(m * 0.7)
    indptr = np.concatenate([[0], np.cumsum(lengths)])
    indices = np.concatenate([np.sort(RNG.permutation(m)[:k]) for k in lengths])
    return sp.csr_array((x(len(indices), dtype=dtype), indices.astype(np.int32), indptr.astype(np.int32)), shape=(n, m))


def close(got: Any, want: Any, tolerance: float = F32) -> None:
    got, want = (v.toarray() if sp.issparse(v) else np.asarray(v) for v in (got, want))
    assert got.shape == want.shape
    scale = max(1.0, float(np.abs(want).max(initial=0)))
    np.testing.assert_allclose(got / scale, want / scale, rtol=0, atol=tolerance)


def masked_softmax(a: Any, scores: Any) -> Any:
    stored = a.toarray() != 0
    shifted = np.where(stored, scores, -np.inf)
    with np.errstate(all="ignore"):
        e = np.where(stored, np.exp(shifted - shifted.max(1, keepdims=True)), 0)
        return np.nan_to_num(e / e.sum(1, keepdims=True))


def gat(a: Any, h: Any, left: Any, right: Any) -> Any:
    scores = pa.map_stored(lambda e, u, v: pa.leaky_relu(u + v, 0.2), a, (h @ left)[:, None], h @ right)
    return pa.softmax(scores) @ h


def gat_reference(a: Any, h: Any, left: Any, right: Any) -> Any:
    s = (h @ left)[:, None] + h @ right
    return masked_softmax(a, np.where(s > 0, s, 0.2 * s)) @ h


def block(tokens: Any, wq: Any, wk: Any, wv: Any, wo: Any, w1: Any, b1: Any, w2: Any, g: Any, b: Any) -> Any:
    """A transformer block of one head."""
    normal = pa.layer_norm(tokens, g, b)
    mixed = tokens + pa.attention(normal @ wq, normal @ wk, normal @ wv) @ wo
    return mixed + pa.gelu(pa.layer_norm(mixed, g, b) @ w1 + b1) @ w2


def block_reference(tokens: Any, wq: Any, wk: Any, wv: Any, wo: Any, w1: Any, b1: Any, w2: Any, g: Any, b: Any) -> Any:
    def norm(v: Any) -> Any:
        return (v - v.mean(-1, keepdims=True)) / np.sqrt(v.var(-1, keepdims=True) + 1e-5) * g + b

    t = norm(tokens)
    weights = special.softmax((t @ wq) @ np.swapaxes(t @ wk, -1, -2) / np.sqrt(wk.shape[1]), axis=-1)
    mixed = tokens + weights @ (t @ wv) @ wo
    hidden = norm(mixed) @ w1 + b1
    return mixed + 0.5 * hidden * (1 + special.erf(hidden / np.sqrt(2))) @ w2


def pagerank(links: Any, damping: float) -> Any:
    n = links.shape[0]

    def step(state: Any) -> Any:
        rank, _ = state
        new = damping * (links @ rank) + (1 - damping) / n
        return new, pa.sum(pa.abs(new - rank))

    return pa.while_loop(lambda s: s[1] > 1e-10, step, (pa.full(n, 1.0) / n, 1.0))[0]


def pagerank_reference(links: Any, damping: float) -> Any:
    n = links.shape[0]
    rank, change = np.full(n, 1.0 / n), 1.0
    while change > 1e-10:
        new = damping * (links @ rank) + (1 - damping) / n
        rank, change = new, np.abs(new - rank).sum()
    return rank


def heat(u: Any) -> Any:
    return pa.fori_loop(0, 7, lambda t, v: v.at[1:-1, 1:-1].set(0.25 * (v[:-2, 1:-1] + v[2:, 1:-1] + v[1:-1, :-2] + v[1:-1, 2:])), u)


def heat_reference(u: Any) -> Any:
    u = u.copy()
    for _ in range(7):
        u[1:-1, 1:-1] = 0.25 * (u[:-2, 1:-1] + u[2:, 1:-1] + u[1:-1, :-2] + u[1:-1, 2:])
    return u


def stochastic(n: int) -> Any:
    a = abs(graph(n, dtype=np.float64)) + sp.eye_array(n, format="csr")
    return (a.multiply(1 / a.sum(axis=0)[None, :])).tocsr()


Program = tuple[Callable[..., Any], Callable[..., Any], Callable[[int], tuple[Any, ...]], float]
PROGRAMS: dict[str, Program] = {
    "spmv": (lambda a, v: a @ v, lambda a, v: a @ v, lambda n: (graph(n), x(n)), F32),
    "spmv f64": (lambda a, v: a @ v, lambda a, v: a @ v, lambda n: (graph(n, dtype=np.float64), x(n, dtype=np.float64)), 1e-14),
    "spmm": (lambda a, b: a @ b, lambda a, b: a @ b, lambda n: (graph(n), x(n, 37)), F32),
    "spmm csc": (lambda a, b: a @ b, lambda a, b: a @ b, lambda n: (graph(n).tocsc(), x(n, 37)), F32),
    "spmm coo": (lambda a, b: a @ b, lambda a, b: a @ b, lambda n: (graph(n).tocoo(), x(n, 5)), F32),
    "transposed": (lambda a, b: a.T @ b, lambda a, b: a.T @ b, lambda n: (graph(n, n // 2 + 1), x(n, 19)), F32),
    "from the left": (lambda a, b: b @ a, lambda a, b: b @ a, lambda n: (graph(n), x(3, n)), F32),
    "normal equations": (lambda a, v: a.T @ (a @ v), lambda a, v: a.T @ (a @ v), lambda n: (graph(n), x(n)), 1e-4),
    "gcn": (lambda a, h, w1, w2: a @ pa.relu(a @ (h @ w1)) @ w2, lambda a, h, w1, w2: a @ np.maximum(a @ (h @ w1), 0) @ w2, lambda n: (graph(n), x(n, 33), x(33, 16), x(16, 7)), F32),
    "gat": (gat, gat_reference, lambda n: (graph(n), x(n, 24), x(24), x(24)), F32),
    "sddmm": (lambda a, q, k: pa.sddmm(q, k, a), lambda a, q, k: a * (q @ k.T), lambda n: (graph(n), x(n, 20), x(n, 20)), F32),
    "sparse attention": (lambda a, q, k, v: pa.sparse_attention(q, k, v, a), lambda a, q, k, v: masked_softmax(a, q @ k.T / 4) @ v, lambda n: (graph(n), x(n, 16), x(n, 16), x(n, 40)), F32),
    "row softmax": (lambda a: pa.softmax(a), lambda a: masked_softmax(a, a.toarray()), lambda n: (graph(n),), F32),
    "transformer block": (block, block_reference, lambda n: (x(n, 32), x(32, 24) / 6, x(32, 24) / 6, x(32, 24) / 6, x(24, 32) / 6, x(32, 64) / 6, x(64), x(64, 32) / 6, x(32), x(32)), F32),
    "batched matmul": (lambda a, b: a @ b, lambda a, b: a @ b, lambda n: (x(3, n, 33), x(3, 33, 17)), F32),
    "matmul": (lambda a, b: a @ b, lambda a, b: a @ b, lambda n: (x(n, n + 5), x(n + 5, n + 3)), F32),
    "matmul f64": (lambda a, b: a @ b, lambda a, b: a @ b, lambda n: (x(n, 65, dtype=np.float64), x(65, n, dtype=np.float64)), 1e-14),
    "thin matmul": (lambda a, b: pa.tanh(a @ b), lambda a, b: np.tanh(a @ b), lambda n: (x(4, n), x(n, 2 * n) / 9), F32),
    "norms": (lambda a: pa.softmax(pa.gelu(pa.layer_norm(a))), lambda a: special.softmax(_gelu((a - a.mean(1, keepdims=True)) / np.sqrt(a.var(1, keepdims=True) + 1e-5)), axis=1), lambda n: (x(n, 100),), F32),
    "covariance": (lambda a: (a - a.mean(axis=0)).T @ (a - a.mean(axis=0)) / (a.shape[0] - 1), lambda a: np.cov(a.T), lambda n: (x(n, 12, dtype=np.float64),), 1e-12),
    "distances": (lambda a, b: pa.sqrt(pa.sum((a[:, None, :] - b[None, :, :]) ** 2, axis=-1)), lambda a, b: np.sqrt(((a[:, None] - b[None]) ** 2).sum(-1)), lambda n: (x(n, 3), x(41, 3)), F32),
    "cumulative sums": (lambda a: pa.cumsum(a, axis=1), lambda a: np.cumsum(a, axis=1), lambda n: (x(50, n, dtype=np.float64),), 1e-12),
    "largest places": (lambda a: (pa.argmax(a, axis=1), pa.max(a, axis=0)), lambda a: (a.argmax(1), a.max(0)), lambda n: (x(n, 77),), 1e-7),
    "page rank": (pagerank, pagerank_reference, lambda n: (stochastic(n), 0.85), 1e-9),
    "heat": (heat, heat_reference, lambda n: (x(n, 30, dtype=np.float64),), 1e-13),
    "histogram": (lambda i, w: pa.bincount(i, w, 64), lambda i, w: np.bincount(i, w, 64), lambda n: (RNG.integers(0, 64, n), x(n, dtype=np.float64)), 1e-12),
    "embedding": (lambda t, i, w: pa.relu(t[i] @ w), lambda t, i, w: np.maximum(t[i] @ w, 0), lambda n: (x(n, 16), RNG.integers(-n, n, 300), x(16, 9)), F32),
    "convolution": (lambda i, w: pa.relu(pa.conv2d(i, w, padding=1)), lambda i, w: np.maximum(_conv(i, w), 0), lambda n: (x(2, 3, n // 4 + 3, 11), x(5, 3, 3, 3)), F32),
}  # fmt: skip


def _gelu(v: Any) -> Any:
    return 0.5 * v * (1 + special.erf(v / np.sqrt(2)))


def _conv(i: Any, w: Any) -> Any:
    padded = np.pad(i, ((0, 0), (0, 0), (1, 1), (1, 1)))
    views = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))
    return np.einsum("ncyxab,ocab->noyx", views, w)


def wide(value: Any) -> Any:
    """Arguments of the reference in double precision."""
    return value.astype(np.float64) if getattr(value, "dtype", None) == np.float32 else value


def parts(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,)


@pytest.mark.parametrize("name", list(PROGRAMS))
def test_programs(name: str) -> None:
    """One kernel for all sizes; on 1, 2 and 5 threads the same bits."""
    fn, reference, make, tolerance = PROGRAMS[name]
    function = pa.jit(fn, name=name.replace(" ", "_"))
    for n in (300, 64, 17, 3):
        args = make(n)
        want = reference(*map(wide, args))
        results = []
        for threads in (1, 2, 5):
            with pa.options(num_threads=threads):
                got = function(*args)
                assert function(*args) is not got
            for g, w in zip(parts(got), parts(want), strict=True):
                close(g, w, tolerance)
            results.append([g.toarray() if sp.issparse(g) else np.asarray(g) for g in parts(got)])
        for other in results[1:]:
            for g, w in zip(results[0], other):
                np.testing.assert_array_equal(g, w)


@pytest.mark.parametrize("name", ["spmm", "gcn", "sparse attention", "transformer block", "norms"])
def test_schedules_of_isl_and_narrow_vectors(name: str) -> None:
    fn, reference, make, tolerance = PROGRAMS[name]
    args = make(70)
    want = reference(*map(wide, args))
    for changes in ({"scheduler": "isl"}, {"vector_bits": 64}, {"vector_bits": 128}, {"blas": "never"}):
        with pa.options(**changes):
            close(pa.jit(fn)(*args), want, tolerance)


def test_many_threads_call_one_function() -> None:
    function, a = pa.jit(lambda a, b: pa.relu(a @ b)), graph(200)
    operands = [x(200, k) for k in (1, 5, 16, 33)] * 3
    wrong: list[str] = []

    def work(b: Any) -> None:
        want = np.maximum(a @ b, 0)
        for _ in range(30):
            if not np.allclose(function(a, b), want, atol=1e-4):
                wrong.append("result")

    threads = [threading.Thread(target=work, args=(b,)) for b in operands]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert wrong == [] and len(function.reasons) == 1


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_kernels_run_in_a_forked_process() -> None:
    function, a, b = pa.jit(lambda a, b: a @ b), graph(500), x(500, 8)
    want = function(a, b)
    child = os.fork()
    if child == 0:
        ok = bool(np.array_equal(function(a, b), want) and np.allclose(pa.jit(lambda v: pa.exp(v))(b), np.exp(b)))
        os._exit(0 if ok else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    np.testing.assert_array_equal(function(a, b), want)


def test_methods_and_decorators() -> None:
    class Model:
        def __init__(self) -> None:
            self.scale = 3.0

        @pa.jit
        def static_scale(params: Any, v: Any) -> Any:
            return v * params.scale

    @pa.jit(static=("flag",))
    def chosen(v: Any, flag: bool) -> Any:
        """Documented."""
        return v + 1 if flag else v - 1

    v = x(5)
    np.testing.assert_array_equal(chosen(v, True), v + 1)
    np.testing.assert_array_equal(chosen(v, flag=False), v - 1)
    assert chosen.__doc__ == "Documented." and chosen.__name__ == "chosen"
    model = Model()
    np.testing.assert_array_equal(model.static_scale(v), v * 3)
    model.scale = 5.0
    np.testing.assert_array_equal(model.static_scale(v), v * 5)


def test_results_are_written_where_they_are_wanted() -> None:
    function, a, b = pa.jit(lambda a, b: (a @ b, (a @ b).sum(axis=0))), graph(120), x(120, 21)
    first, second = np.full((120, 21), np.nan, np.float32), np.full(21, np.nan, np.float32)
    got = function(a, b, out=(first, second))
    assert got[0] is first and got[1] is second
    close(first, a @ b)
    close(second, (a @ b).sum(axis=0), 1e-4)


def test_explanations_show_every_stage() -> None:
    fn, _, make, _ = PROGRAMS["gcn"]
    explained = pa.jit(fn, name="gcn").explain(*make(40))
    for title in ("mathematics", "guards", "decisions", "costs", "memory", "fuse", "statements", "schedule", "loops", "tidy", "code", "object"):
        assert explained[title].strip()
    assert "within a(" in explained["mathematics"] and "define i64" in explained["code"]
    assert str(explained).startswith("gcn:") and explained.html().startswith("<!doctype html>")


def test_element_types() -> None:
    product = pa.jit(lambda a, b: a @ b)
    for left in (np.float32, np.float64, np.int8, np.int32, np.int64, np.complex64, np.complex128, np.bool_):
        for right in (np.float32, np.int16, np.complex128):
            a = graph(30, dtype=np.float64) * 3
            a = sp.csr_array((a.data.astype(left), a.indices, a.indptr), shape=a.shape)
            b = (x(30, 4) * 3).astype(right)
            got, want = product(a, b), a @ b
            assert got.dtype == want.dtype, (left, right)
            close(got, want, 2e-5)
