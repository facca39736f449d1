"""Ragged batches, end to end: each result against NumPy, row by row, in float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

import polyai as pa
from polyai.errors import DTypeError, PolyAIError, ShapeError, UnsupportedError

RNG = np.random.default_rng(11)
LENGTHS = (3, 0, 17, 1, 16, 0, 40)
D = 6


def rows_of(lengths: Any = LENGTHS, item: tuple[int, ...] = (D,), dtype: Any = np.float64) -> list[np.ndarray]:
    drawn = [RNG.standard_normal((n, *item)) * 3 for n in lengths]
    return [r.astype(dtype) for r in drawn]


def close(result: Any, wanted: list[np.ndarray], tolerance: float = 1e-10) -> None:
    assert isinstance(result, pa.Ragged)
    found = result.to_list()
    assert [f.shape for f in found] == [w.shape for w in wanted]
    for f, w in zip(found, wanted):
        np.testing.assert_allclose(f, w, rtol=tolerance, atol=tolerance)


def softmax(x: np.ndarray, axis: int) -> np.ndarray:
    if not x.shape[axis]:
        return x
    e = np.exp(x - x.max(axis, keepdims=True))
    return e / e.sum(axis, keepdims=True)


def layer_norm(x: np.ndarray) -> np.ndarray:
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)


def attended(q: np.ndarray, k: np.ndarray, v: np.ndarray, causal: bool = False) -> np.ndarray:
    """One row: (n, d) or (n, heads, d)."""
    if q.ndim == 2:
        return attended(q[:, None], k[:, None], v[:, None], causal)[:, 0]
    if not len(k):
        return np.zeros((len(q), *v.shape[1:]))
    score = np.einsum("ihd,jhd->hij", q.astype(np.float64), k) / np.sqrt(q.shape[-1])
    if causal:
        score = np.where(np.tri(len(q), dtype=bool), score, -np.inf)
    return np.einsum("hij,jhe->ihe", softmax(score, 2), v)


W, BIAS = RNG.standard_normal((D, 4)), RNG.standard_normal(D)
PER_ROW = RNG.standard_normal((len(LENGTHS), 1, D))

ONE: list[tuple[str, Callable[[Any], Any], Callable[[np.ndarray], np.ndarray]]] = [
    ("relu(x) * 2 + 1", lambda x: pa.relu(x) * 2 + 1, lambda x: np.maximum(x, 0) * 2 + 1),
    ("1 - x", lambda x: 1 - x, lambda x: 1 - x),
    ("np.exp(x) / (1 + np.exp(x))", lambda x: np.exp(x) / (1 + np.exp(x)), lambda x: np.exp(x) / (1 + np.exp(x))),
    ("-abs(x)", lambda x: -abs(x), lambda x: -abs(x)),
    ("where(x > 0, x, 0)", lambda x: pa.where(x > 0, x, 0), lambda x: np.where(x > 0, x, 0)),
    ("x == x", lambda x: pa.where(x == x, 1.0, 2.0), np.ones_like),
    ("x + bias", lambda x: x + BIAS, lambda x: x + BIAS),
    ("bias - x", lambda x: BIAS - x, lambda x: BIAS - x),
    ("np_bias * x", lambda x: np.multiply(BIAS, x), lambda x: BIAS * x),
    ("x @ W", lambda x: x @ W, lambda x: x @ W),
    ("x @ w", lambda x: x @ W[:, 0], lambda x: x @ W[:, 0]),
    ("linear", lambda x: pa.linear(x, W.T, W[0]), lambda x: x @ W + W[0]),
    ("layer_norm", lambda x: pa.layer_norm(x), layer_norm),
    ("rms_norm", lambda x: pa.rms_norm(x, BIAS), lambda x: x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-6) * BIAS),
    ("softmax over features", lambda x: pa.softmax(x), lambda x: softmax(x, -1)),
    ("softmax over rows", lambda x: pa.softmax(x, axis=1), lambda x: softmax(x, 0)),
    ("log_softmax over rows", lambda x: pa.exp(pa.log_softmax(x, axis=1)), lambda x: softmax(x, 0)),
    ("sum over features", lambda x: x.sum(axis=-1), lambda x: x.sum(-1)),
    ("mean, keepdims", lambda x: x - x.mean(axis=2, keepdims=True), lambda x: x - x.mean(-1, keepdims=True)),
    ("x - mean of row", lambda x: x - x.mean(axis=1, keepdims=True), lambda x: x - x.mean(0) if len(x) else x),
    ("x / max of row", lambda x: x / pa.max(x, axis=1, keepdims=True), lambda x: x / x.max(0) if len(x) else x),
    ("slice", lambda x: x[:, :, 1:3], lambda x: x[:, 1:3]),
    ("slice from the end", lambda x: x[..., 0], lambda x: x[:, 0]),
    ("reshape", lambda x: x.reshape(*x.shape[:2], 2, D // 2).sum(axis=2), lambda x: x.reshape(len(x), 2, D // 2).sum(1)),
    ("concat", lambda x: pa.concat([x, 2 * x], axis=-1), lambda x: np.concatenate([x, 2 * x], -1)),
    ("with_values", lambda x: x.with_values(pa.tanh(x.values)), np.tanh),
    ("astype", lambda x: x.astype(np.float32), lambda x: x.astype(np.float32)),
]  # fmt: skip


@pytest.mark.parametrize("name, ours, theirs", ONE, ids=[c[0] for c in ONE])
def test_row_by_row(name: str, ours: Any, theirs: Any) -> None:
    rows = rows_of()
    close(pa.jit(ours)(pa.ragged(rows)), [theirs(r) for r in rows])


REDUCED: list[tuple[str, Callable[[Any], Any], Callable[[np.ndarray], Any]]] = [
    ("sum", lambda x: x.sum(axis=1), lambda x: x.sum(0)),
    ("sum, keepdims", lambda x: pa.sum(x, axis=1, keepdims=True)[:, 0], lambda x: x.sum(0)),
    ("sum over both", lambda x: x.sum(axis=(1, 2)), np.sum),
    ("np.sum", lambda x: np.sum(x, axis=1), lambda x: x.sum(0)),
    ("prod", lambda x: x.prod(axis=1), lambda x: x.prod(0)),
    ("mean", lambda x: x.mean(axis=1), lambda x: x.mean(0) if len(x) else np.full(D, np.nan)),
    ("mean over both", lambda x: x.mean(axis=(1, 2)), lambda x: x.mean() if len(x) else np.nan),
    ("var", lambda x: x.var(axis=1), lambda x: x.var(0) if len(x) else np.full(D, np.nan)),
    ("std", lambda x: pa.std(x, axis=1), lambda x: x.std(0) if len(x) else np.full(D, np.nan)),
    ("max", lambda x: x.max(axis=1), lambda x: x.max(0) if len(x) else np.full(D, -np.inf)),
    ("min", lambda x: x.min(axis=1), lambda x: x.min(0) if len(x) else np.full(D, np.inf)),
    ("any", lambda x: (x > 3).any(axis=1), lambda x: (x > 3).any(0)),
    ("all", lambda x: (x > -3).all(axis=1), lambda x: (x > -3).all(0)),
    ("lengths", lambda x: x.lengths, len),
]


@pytest.mark.parametrize("name, ours, theirs", REDUCED, ids=[c[0] for c in REDUCED])
def test_one_value_for_each_row(name: str, ours: Any, theirs: Any) -> None:
    rows = rows_of()
    found = pa.jit(ours)(pa.ragged(rows))
    assert isinstance(found, np.ndarray)
    np.testing.assert_allclose(found, np.stack([theirs(r) for r in rows]), rtol=1e-10, atol=1e-12)


def test_everything_at_once() -> None:
    rows = rows_of()
    x = pa.ragged(rows)
    np.testing.assert_allclose(pa.jit(lambda x: x.sum())(x), sum(r.sum() for r in rows))
    np.testing.assert_allclose(pa.jit(lambda x: x.mean(axis=(0, 1)))(x), np.concatenate(rows).mean(0))
    assert pa.jit(lambda x: x.sum(keepdims=True))(x).shape == (1, 1, 1)


def test_two_batches_with_equal_offsets_meet() -> None:
    a, b = rows_of(), rows_of()
    close(pa.jit(lambda x, y: x * y + y)(pa.ragged(a), pa.ragged(b)), [x * y + y for x, y in zip(a, b)])


def test_one_entry_for_each_row_goes_to_its_elements() -> None:
    rows = rows_of()
    close(pa.jit(lambda x, y: x * y)(pa.ragged(rows), PER_ROW), [r * y for r, y in zip(rows, PER_ROW[:, 0])])


def test_batches_in_containers_and_by_name() -> None:
    a, b = rows_of(), rows_of((2, 5), (3,))

    @pa.jit
    def both(batch: Any, *, scale: Any, flag: bool = False) -> Any:
        return {"x": batch["x"] * scale, "y": [batch["rest"][0].sum(axis=1), batch["rest"][0] + 1]}

    out = both({"x": pa.ragged(a), "rest": [pa.ragged(b)]}, scale=np.float64(2))
    close(out["x"], [2 * r for r in a])
    np.testing.assert_allclose(out["y"][0], [r.sum(0) for r in b])
    close(out["y"][1], [r + 1 for r in b])


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int32, np.int64, np.uint8, np.bool_])
def test_element_types(dtype: Any) -> None:
    rows = rows_of((2, 0, 5), (), dtype)
    x = pa.ragged(rows)
    total = pa.jit(lambda x: x.sum(axis=1))(x)
    assert total.dtype == np.sum(rows[0]).dtype
    np.testing.assert_allclose(total, [r.sum() for r in rows], rtol=1e-6)
    out = pa.jit(lambda x: pa.where(x > 0, x, x))(x)
    assert out.dtype == dtype
    close(out, rows)


def test_rows_without_items_have_a_softmax() -> None:
    rows = rows_of(LENGTHS, ())
    close(pa.jit(lambda x: pa.softmax(x, axis=1))(pa.ragged(rows)), [softmax(r, 0) for r in rows])


def test_functions_outside_of_a_trace() -> None:
    rows = rows_of()
    close(pa.softmax(pa.ragged(rows), axis=1), [softmax(r, 0) for r in rows])
    close(pa.relu(pa.ragged(rows)), [np.maximum(r, 0) for r in rows])
    np.testing.assert_allclose(pa.sum(pa.ragged(rows), axis=1), [r.sum(0) for r in rows])


def test_embedding() -> None:
    ids = [np.array([1, 2, 1]), np.array([], np.int64), np.array([0])]
    table = RNG.standard_normal((3, 4))
    close(pa.jit(lambda t, i: pa.embedding(t, i))(table, pa.ragged(ids)), [table[i] for i in ids])


# -- attention


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("item", [(8,), (1, 8), (3, 8)])
def test_attention(item: tuple[int, ...], causal: bool) -> None:
    q, k, v = (rows_of(item=item) for _ in range(3))
    found = pa.jit(lambda q, k, v: pa.attention(q, k, v, causal=causal))(*map(pa.ragged, (q, k, v)))
    close(found, [attended(*r, causal) for r in zip(q, k, v)])


def test_attention_to_rows_of_other_lengths() -> None:
    q, k, v = rows_of((3, 5, 0, 2), (8,)), rows_of((4, 0, 2, 33), (8,)), rows_of((4, 0, 2, 33), (5,))
    found = pa.jit(lambda q, k, v: pa.attention(q, k, v))(*map(pa.ragged, (q, k, v)))
    close(found, [attended(*r) for r in zip(q, k, v)])
    np.testing.assert_array_equal(found[1], 0)  # sees nothing


def test_attention_in_f32_with_a_scale() -> None:
    q, k, v = (rows_of(item=(8,), dtype=np.float32) for _ in range(3))
    found = pa.jit(lambda q, k, v: pa.attention(q, k, v, scale=8**-0.5))(*map(pa.ragged, (q, k, v)))
    assert found.dtype == np.float32
    close(found, [attended(*r) for r in zip(q, k, v)], 2e-5)


def test_attention_of_large_scores_does_not_overflow() -> None:
    q = [r * 100 for r in rows_of(item=(8,))]
    close(pa.jit(lambda q: pa.attention(q, q, q))(pa.ragged(q)), [attended(r, r, r) for r in q])


def test_a_transformer_block() -> None:
    x = rows_of(item=(16,))
    wq, wk, wv, wo, w1, w2 = (RNG.standard_normal(s) / 4 for s in ((16, 16),) * 4 + ((16, 32), (32, 16)))

    @pa.jit
    def block(x: Any, wq: Any, wk: Any, wv: Any, wo: Any, w1: Any, w2: Any) -> Any:
        n = pa.layer_norm(x)
        q, k, v = ((n @ w).reshape(*x.shape[:2], 2, 8) for w in (wq, wk, wv))
        x = x + pa.attention(q, k, v).reshape(*x.shape[:2], 16) @ wo
        return x + pa.relu(pa.layer_norm(x) @ w1) @ w2

    def row(x: np.ndarray) -> np.ndarray:
        n = layer_norm(x)
        q, k, v = ((n @ w).reshape(-1, 2, 8) for w in (wq, wk, wv))
        x = x + attended(q, k, v).reshape(-1, 16) @ wo
        return x + np.maximum(layer_norm(x) @ w1, 0) @ w2

    close(block(pa.ragged(x), wq, wk, wv, wo, w1, w2), [row(r) for r in x], 1e-9)


# -- any lengths, one kernel


def test_one_kernel_serves_all_lengths() -> None:
    @pa.jit
    def f(x: Any, w: Any) -> Any:
        h = pa.softmax(x @ w, axis=1)
        return pa.attention(h, h, h).mean(axis=1)

    for lengths in ((3, 4), (1,), (0, 0, 5), (7,) * 9, (0,), (), (64, 1), (1, 1)):
        rows = rows_of(lengths)
        found = f(pa.ragged(np.concatenate([np.zeros((0, D)), *rows]), lengths=np.array(lengths, np.int64)), W)
        wanted = [attended(h, h, h).mean(0) if len(h) else np.full(4, np.nan) for h in (softmax(r @ W, 0) for r in rows)]
        np.testing.assert_allclose(found, np.array(wanted).reshape(-1, 4), rtol=1e-10)
    assert len(f.report().kernels) == 1, f.reasons


@settings(max_examples=40, deadline=None)
@given(st.lists(st.one_of(st.integers(0, 3), st.integers(0, 40)), max_size=8), st.integers(0, 2**32 - 1), st.booleans())
def test_random_lengths(lengths: list[int], seed: int, causal: bool) -> None:
    values = np.random.default_rng(seed).standard_normal((sum(lengths), 2, 4))
    x = pa.ragged(values, lengths=np.array(lengths, np.int64))
    rows = x.to_list()
    close(_attention[causal](x), [attended(r, r, r, causal) for r in rows], 1e-9)
    close(_centred(x), [r - r.mean(0) if len(r) else r for r in rows])
    np.testing.assert_allclose(_largest(x), np.array([r.max(0, initial=-np.inf) for r in rows]).reshape(-1, 2, 4))
    assert all(len(f.report().kernels) == 1 for f in (_attention[causal], _centred, _largest))


_attention = {c: pa.jit(lambda x, c=c: pa.attention(x, x, x, causal=c), name=f"attention_{c}") for c in (False, True)}
_centred = pa.jit(lambda x: x - x.mean(axis=1, keepdims=True), name="centred")
_largest = pa.jit(lambda x: x.max(axis=1), name="largest")


@pytest.mark.parametrize("threads", [1, 2])
def test_threads_do_not_change_results(threads: int) -> None:
    x = pa.ragged(rows_of((200, 3, 90, 1, 64), (2, 8)))
    f = pa.jit(lambda x: pa.attention(x, x, x))
    with pa.options(num_threads=1):
        alone = f(x)
    with pa.options(num_threads=threads):
        np.testing.assert_array_equal(f(x).values, alone.values)


@pytest.mark.parametrize("item", [(4,), (2, 4)])
def test_calls_are_dispatched_natively(item: tuple[int, ...]) -> None:
    x = pa.ragged(rows_of(item=item))
    f = pa.jit(lambda x: pa.attention(x, x, x) + x.sum(axis=1, keepdims=True))
    for _ in range(4):
        f(x)
    assert "3 of them dispatched natively" in str(f.report())


def test_explain_shows_the_level() -> None:
    text = str(pa.jit(lambda x: x.sum(axis=1)).explain(pa.ragged(rows_of())))
    assert "within x_pieces(" in text


def test_attention_keeps_no_matrix_of_pairs() -> None:
    x = pa.ragged(rows_of((300, 5), (8,)))
    text = str(pa.jit(lambda x: pa.attention(x, x, x)).explain(x))
    assert "one parallel loop over" in text and "for q // 64" in text and "jam=4 for q" in text
    memory = text.partition("\nmemory\n")[2].partition("\n\n")[0]
    assert "weight: f64 8 x x_seen_0_0_False_max1 x 16, one per thread" in memory, memory  # steps of eight rows at a time


# -- block-diagonal batches


def test_graphs_of_any_size_share_a_kernel() -> None:
    @pa.jit
    def layer(A: Any, x: Any, w: Any) -> Any:
        return pa.relu(A @ (x @ w)).mean(axis=1)

    for sizes in ((3, 1, 8), (5,), (2, 2, 2, 2), (1,), (12, 30)):
        graphs = [sp.random_array((n, n), density=0.4, format="csr", rng=RNG) for n in sizes]
        features = rows_of(sizes)
        A, offsets, columns = pa.block_diagonal(graphs)
        np.testing.assert_array_equal(A.toarray(), sp.block_diag(graphs).toarray())
        np.testing.assert_array_equal(columns, offsets)
        found = layer(A, pa.ragged(np.concatenate(features), offsets), W)
        np.testing.assert_allclose(found, [np.maximum(g @ (x @ W), 0).mean(0) for g, x in zip(graphs, features)], rtol=1e-10)
    assert len(layer.report().kernels) == 1


# -- bad input

CALLS: list[tuple[str, Callable[[], Any], type[Exception], str]] = [
    ("other offsets", lambda: _run(lambda x, y: x + y, rows_of(), rows_of((3, 4))), ShapeError, "rows of different lengths"),
    ("other ranks", lambda: _run(lambda x, y: x + y, rows_of(), rows_of(item=())), ShapeError, "x[..., None]"),
    ("dense along the rows", lambda: _run(lambda x: x + np.zeros((7, D)), rows_of()), ShapeError, "y[:, None]"),
    ("too many rows", lambda: _run(lambda x: x + np.zeros((8, 1, D)), rows_of()), ShapeError, "8 rows"),
    ("features", lambda: _run(lambda x: x + np.zeros(D + 1), rows_of()), ShapeError, "do not match"),
    ("matmul", lambda: _run(lambda x: x @ np.zeros((D + 1, 2)), rows_of()), ShapeError, "matmul"),
    ("weights on the left", lambda: _run(lambda x: np.zeros((2, D)) @ x, rows_of()), UnsupportedError, "x @ W"),
    ("across rows", lambda: _run(lambda x: x.sum(axis=0), rows_of()), UnsupportedError, "over its rows"),
    ("an axis outside", lambda: _run(lambda x: x.sum(axis=3), rows_of()), ShapeError, "axis 3"),
    ("one row", lambda: _run(lambda x: x[0], rows_of()), UnsupportedError, "x[:, :, k]"),
    ("no meaning", lambda: _run(lambda x: pa.flip(x, 1), rows_of()), UnsupportedError, "x.values"),
    ("NumPy without a meaning", lambda: _run(lambda x: np.flip(x), rows_of()), UnsupportedError, "flip"),
    ("attention, dense", lambda: _run(lambda x: pa.attention(x, x, x.values), rows_of()), ShapeError, "make all of q, k, v ragged"),
    ("attention, other v", lambda: _run(lambda x, y: pa.attention(x, x, y), rows_of(), rows_of((3, 4))), ShapeError, "different lengths"),
    ("attention, rows", lambda: _run(lambda x, y: pa.attention(x, y, y), rows_of(), rows_of((3, 4))), ShapeError, "7 and 2 rows"),
    ("causal, other lengths", lambda: _run(lambda x, y: pa.attention(x, y, y, causal=True), rows_of((3, 3)), rows_of((3, 4))), UnsupportedError, "causal"),
    ("attention of scalars", lambda: _run(lambda x: pa.attention(x, x, x), rows_of(item=())), ShapeError, "heads"),
    ("attention, masked", lambda: _run(lambda x: pa.attention(x, x, x, mask=np.ones(3)), rows_of()), UnsupportedError, "mask"),
    ("attention, depths", lambda: _run(lambda x, y: pa.attention(x, y, y), rows_of(), rows_of(item=(D + 1,))), ShapeError, "last dimension"),
    ("layer_norm along rows", lambda: _run(lambda x: pa.layer_norm(x, axis=1), rows_of()), UnsupportedError, "axis=-1"),
    ("bool", lambda: _run(lambda x: x if x else -x, rows_of()), PolyAIError, "where"),
    ("iteration", lambda: _run(lambda x: list(x), rows_of()), PolyAIError, "iterate outside"),
    ("element types", lambda: _run(lambda x: x + 1, [np.array(["a"])]), DTypeError, ""),
]


def _run(fn: Callable[..., Any], *batches: Any) -> Any:
    return pa.jit(fn)(*map(pa.ragged, batches))


@pytest.mark.parametrize("name, call, error, text", CALLS, ids=[c[0] for c in CALLS])
def test_refused(name: str, call: Callable[[], Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error) as caught:
        call()
    assert text in str(caught.value)


# Calls like the one before go a short way


def self_attended(q: np.ndarray, k: np.ndarray, v: np.ndarray) -> np.ndarray:
    return softmax(q @ k.T / np.sqrt(q.shape[1]), 1) @ v


def test_later_batches_may_have_other_rows_values_and_sharing() -> None:
    f = pa.jit(lambda q, k, v: pa.attention(q, k, v))
    for lengths in ((3, 5, 0, 20), (3, 5, 0, 20), (1,), (40, 2, 7), ()):
        rows = [rows_of(lengths) for _ in range(3)]
        batch = pa.ragged(np.concatenate([*rows[0], np.zeros((0, D))]), lengths=lengths)
        again = [batch.with_values(np.concatenate([*r, np.zeros((0, D))])) for r in rows]
        for _ in range(2):
            close(f(*again), [self_attended(*qkv) for qkv in zip(*rows)])
        apart = [pa.ragged(x.values, lengths=lengths) for x in again]  # equal offsets, but not the same object
        close(f(*apart), [self_attended(*qkv) for qkv in zip(*rows)])
    single = [pa.ragged(rows_of((4, 9), dtype=np.float32)) for _ in range(3)]
    assert f(*single).dtype == np.float32


def test_offsets_that_turn_out_equal_share_their_rows() -> None:
    f = pa.jit(lambda q, k: pa.attention(q, k, k))
    q, k = rows_of((3, 4)), rows_of((5, 2))
    for _ in range(3):
        close(f(pa.ragged(q), pa.ragged(k)), [self_attended(a, b, b) for a, b in zip(q, k)])
    for _ in range(2):
        same = rows_of((3, 4))
        close(f(pa.ragged(q), pa.ragged(same)), [self_attended(a, b, b) for a, b in zip(q, same)])
    with pytest.raises(ShapeError, match="batches of 2 and 3 rows"):
        f(pa.ragged(q), pa.ragged(rows_of((1, 2, 3))))


def test_a_short_way_is_left_for_calls_of_another_form() -> None:
    f = pa.jit(lambda x, w: x * w)
    rows, w = rows_of(), RNG.standard_normal(D)
    for _ in range(3):
        close(f(pa.ragged(rows), w), [r * w for r in rows])
    np.testing.assert_allclose(f(rows[0], w), rows[0] * w)
    close(f(pa.ragged(rows), 2.0), [r * 2 for r in rows])
    close(f(w=w, x=pa.ragged(rows)), [r * w for r in rows])
    close(f(pa.ragged(rows), pa.ragged(rows)), [r * r for r in rows])
    several = pa.jit(lambda x: (x * 2, pa.sum(x, axis=1)))
    for _ in range(3):
        doubled, sums = several(pa.ragged(rows))
        close(doubled, [r * 2 for r in rows])
        np.testing.assert_allclose(sums, [r.sum(0) for r in rows], atol=1e-10)
