"""Building blocks of neural networks against plain NumPy formulas; PyTorch's definitions where they are the custom."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.lib.stride_tricks import sliding_window_view
from scipy import special

from polyai.errors import ShapeError
from polyai.frontend.surface import functions as pa
from polyai.frontend.trace import trace
from tests.frontend.helpers import compare, same, traced_run

pytestmark = pytest.mark.usefixtures("engine")
RNG = np.random.default_rng(7)
A = RNG.standard_normal((4, 6))
C = RNG.standard_normal((2, 3, 5, 4))


def softmax(x: Any, axis: int = -1) -> Any:
    return special.softmax(x, axis=axis)


ACTIVATIONS = [
    ("sigmoid", lambda x: special.expit(x)), ("silu", lambda x: x * special.expit(x)), ("relu", lambda x: np.maximum(x, 0)),
    ("relu6", lambda x: np.clip(x, 0, 6)), ("leaky_relu", lambda x: np.where(x > 0, x, 0.01 * x)),
    ("elu", lambda x: np.where(x > 0, x, np.expm1(x))), ("softplus", lambda x: np.logaddexp(x, 0)),
    ("log_sigmoid", lambda x: -np.logaddexp(-x, 0)), ("gelu", lambda x: 0.5 * x * (1 + special.erf(x / np.sqrt(2)))), ("erf", special.erf),
]  # fmt: skip


@pytest.mark.parametrize(("name", "reference"), ACTIVATIONS, ids=[a[0] for a in ACTIVATIONS])
def test_activations(name: str, reference: Any) -> None:
    compare(getattr(pa, name), reference, A * 4)
    compare(getattr(pa, name), lambda x: reference(x.astype(np.float64)).astype(np.float32), A.astype(np.float32), tolerance=1e-5)


def test_activations_do_not_overflow() -> None:
    x = np.array([-1e4, -800.0, 0.0, 800.0, 1e4])
    compare(pa.sigmoid, special.expit, x)
    compare(pa.softplus, lambda v: np.logaddexp(v, 0), x)
    compare(pa.softmax, softmax, x)


def test_gelu_tanh() -> None:
    compare(
        lambda x: pa.gelu(x, approximate="tanh"), lambda x: 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))), A
    )


@pytest.mark.parametrize("axis", [-1, 0])
def test_softmax(axis: int) -> None:
    compare(lambda x: pa.softmax(x, axis), lambda x: softmax(x, axis), A * 100)
    compare(lambda x: pa.log_softmax(x, axis), lambda x: special.log_softmax(x, axis=axis), A * 100)


def test_layer_norm() -> None:
    w, b = RNG.standard_normal(6), RNG.standard_normal(6)

    def reference(x: Any, w: Any, b: Any) -> Any:
        return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5) * w + b

    compare(pa.layer_norm, reference, A, w, b)
    compare(lambda x: pa.layer_norm(x, axis=(1, 2, 3)), lambda x: reference(x.reshape(2, -1), 1, 0).reshape(x.shape), C)
    compare(lambda x, w: pa.rms_norm(x, w), lambda x, w: x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6) * w, A, w)


def test_layer_norm_of_half_precision_keeps_statistics_in_single() -> None:
    x = (A * 50 + 100).astype(np.float16)
    want = x.astype(np.float64)
    want = (want - want.mean(-1, keepdims=True)) / np.sqrt(want.var(-1, keepdims=True) + 1e-5)
    compare(pa.layer_norm, lambda v: want.astype(np.float16), x, tolerance=2e-3)


def test_batch_and_group_norm() -> None:
    mean, var, w, b = (RNG.random(3) + 0.5 for _ in range(4))
    at = (None, slice(None), None, None)
    compare(pa.batch_norm, lambda x, m, v, w, b: (x - m[at]) / np.sqrt(v[at] + 1e-5) * w[at] + b[at], C, mean, var, w, b)
    x, w, b = RNG.standard_normal((2, 6, 3)), RNG.standard_normal(6), RNG.standard_normal(6)
    g = x.reshape(2, 2, -1)
    want = ((g - g.mean(-1, keepdims=True)) / np.sqrt(g.var(-1, keepdims=True) + 1e-5)).reshape(x.shape) * w[:, None] + b[:, None]
    compare(lambda x, w, b: pa.group_norm(x, 2, w, b), lambda x, w, b: want, x, w, b)
    with pytest.raises(ShapeError, match="divide the channels"):
        trace(lambda x: pa.group_norm(x, 4), (x,), {})


def test_linear() -> None:
    w, b = RNG.standard_normal((3, 4)), RNG.standard_normal(3)
    compare(pa.linear, lambda x, w, b: x @ w.T + b, C, w, b)


def convolution(x: Any, w: Any, stride: int, pad: int, dilation: int, groups: int) -> Any:
    x = np.pad(x, ((0, 0), (0, 0)) + ((pad, pad),) * (x.ndim - 2))
    spatial = w.shape[2:]
    windows = sliding_window_view(x, tuple(dilation * (k - 1) + 1 for k in spatial), axis=tuple(range(2, x.ndim)))
    rank = len(spatial)
    windows = windows[(slice(None),) * 2 + (slice(None, None, stride),) * rank + (slice(None, None, dilation),) * rank]
    out = []
    for g in range(groups):
        part = windows[:, g * w.shape[1] : (g + 1) * w.shape[1]]
        filters = w[g * w.shape[0] // groups : (g + 1) * w.shape[0] // groups]
        out.append(np.einsum("nchwkl,ockl->nohw" if rank == 2 else "nclk,ock->nol", part, filters))
    return np.concatenate(out, axis=1)


@pytest.mark.parametrize(("stride", "pad", "dilation", "groups"), [(1, 0, 1, 1), (2, 1, 1, 1), (1, 2, 2, 1), (2, 1, 1, 2), (1, 1, 1, 4)])
def test_convolution(stride: int, pad: int, dilation: int, groups: int) -> None:
    options = {"stride": stride, "padding": pad, "dilation": dilation, "groups": groups}
    x, w = RNG.standard_normal((2, 4, 7, 6)), RNG.standard_normal((8, 4 // groups, 3, 2))
    compare(lambda x, w: pa.conv2d(x, w, **options), lambda x, w: convolution(x, w, stride, pad, dilation, groups), x, w)
    x, w = RNG.standard_normal((2, 4, 9)), RNG.standard_normal((8, 4 // groups, 3))
    compare(lambda x, w: pa.conv1d(x, w, **options), lambda x, w: convolution(x, w, stride, pad, dilation, groups), x, w)


def test_convolution_with_bias_and_same_padding() -> None:
    x, w, b = RNG.standard_normal((1, 2, 6, 5)), RNG.standard_normal((3, 2, 3, 3)), RNG.standard_normal(3)
    compare(
        lambda x, w, b: pa.conv2d(x, w, b, padding="same"), lambda x, w, b: convolution(x, w, 1, 1, 1, 1) + b[:, None, None], x, w, b
    )
    with pytest.raises(ShapeError, match="channels of x and w differ"):
        trace(lambda x, w: pa.conv2d(x, w), (x, w[:, :1]), {})
    with pytest.raises(ShapeError, match="window does not fit"):
        trace(lambda x, w: pa.conv2d(x[:, :, :2], w), (x, w), {})


@pytest.mark.parametrize(("kernel", "stride", "pad"), [(2, None, 0), (3, 1, 1), (3, 2, 0)])
def test_pooling(kernel: int, stride: int | None, pad: int) -> None:
    s = stride or kernel

    def windows(x: Any, fill: float) -> Any:
        padded = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)), constant_values=fill)
        return sliding_window_view(padded, (kernel, kernel), axis=(2, 3))[:, :, ::s, ::s]

    compare(lambda x: pa.max_pool2d(x, kernel, stride, pad), lambda x: windows(x, -np.inf).max((-1, -2)), C)
    compare(lambda x: pa.avg_pool2d(x, kernel, stride, pad), lambda x: windows(x, 0).mean((-1, -2)), C)
    compare(
        lambda x: pa.avg_pool2d(x, kernel, stride, pad, count_include_pad=False), lambda x: np.nanmean(windows(x, np.nan), (-1, -2)), C
    )
    compare(lambda x: pa.max_pool1d(x, kernel, stride), lambda x: sliding_window_view(x, kernel, -1)[..., ::s, :].max(-1), C)
    compare(lambda x: pa.avg_pool1d(x, kernel, stride), lambda x: sliding_window_view(x, kernel, -1)[..., ::s, :].mean(-1), C)


def test_attention() -> None:
    q, k, v = RNG.standard_normal((2, 3, 5, 4)), RNG.standard_normal((2, 3, 6, 4)), RNG.standard_normal((2, 3, 6, 2))
    mask, bias = RNG.random((5, 6)) < 0.7, RNG.standard_normal((3, 5, 6))
    mask[:, 0] = True

    def reference(q: Any, k: Any, v: Any, m: Any) -> Any:
        return softmax(q @ np.swapaxes(k, -1, -2) / 2.0 + m) @ v

    compare(pa.attention, lambda q, k, v: reference(q, k, v, 0), q, k, v)
    compare(lambda q, k, v: pa.attention(q, k, v, causal=True), lambda q, k, v: reference(q, k, v, np.where(np.tri(5, 6), 0, -np.inf)), q, k, v)
    compare(lambda q, k, v, m: pa.attention(q, k, v, mask=m), lambda q, k, v, m: reference(q, k, v, np.where(m, 0, -np.inf)), q, k, v, mask)
    compare(lambda q, k, v, m: pa.attention(q, k, v, m), reference, q, k, v, bias)
    compare(lambda q, k, v: pa.attention(q, k, v, scale=0.5), lambda q, k, v: reference(q, k, v, 0), q, k[0, 0], v[0, 0])


def test_dropout_depends_on_key_and_position_only() -> None:
    x = np.ones((200, 300))

    def f(x: Any, key: int) -> Any:
        return pa.dropout(x, 0.25, key)

    one, again, other = (traced_run(f, x, k) for k in (3, 3, 4))
    assert (one == again).all() and (one != other).mean() > 0.2
    assert set(np.unique(one)) == {0.0, 1 / 0.75}
    assert abs((one == 0).mean() - 0.25) < 0.01
    for rows in (one, one.T):
        assert abs((rows == 0).mean(axis=1) - 0.25).max() < 0.15
    static = traced_run(lambda x: pa.dropout(x, 0.25, 3), x)
    same(static, one)
    assert (traced_run(lambda x, r: pa.dropout(x, r, 3), x, 0.25) == one).all()
    assert (traced_run(lambda x: pa.dropout(x, 1, 3), x) == 0).all()


def test_random_numbers() -> None:
    u = traced_run(lambda k: pa.uniform(k, (100, 100)), 5)
    assert u.min() >= 0 and u.max() < 1 and abs(u.mean() - 0.5) < 0.01 and abs(u.var() - 1 / 12) < 0.002
    assert len(np.unique(u)) > 9990
    single = traced_run(lambda k: pa.uniform(k, (50,), np.float32, -1.0, 1.0), 5)
    assert single.dtype == np.float32 and single.min() >= -1 and single.max() < 1
    z = traced_run(lambda k: pa.normal(k, (100, 100)), 6)
    assert abs(z.mean()) < 0.05 and abs(z.std() - 1) < 0.05
    assert traced_run(lambda k: pa.random_bits(k, (7,)), 1).dtype == np.uint32
