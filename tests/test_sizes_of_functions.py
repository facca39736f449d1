"""The functions of the operator surface at sizes 0, 1, 2, the greatest and one beyond, several to a program: one kernel, the results of NumPy."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import polyai as pa
from polyai.errors import GuardError

MAX = 21
N = pa.dim("n", 0, MAX)
D, I = pa.f64, pa.i64  # noqa: E741


def x(*shape: int) -> Any:
    return np.random.default_rng(sum(shape)).uniform(0.1, 0.9, shape)


def whole(*shape: int) -> Any:
    return np.random.default_rng(sum(shape)).integers(0, 5, shape)


def same(*names: str) -> dict[str, tuple[Callable[..., Any], Callable[..., Any]]]:
    """Functions that NumPy has under the same name."""
    return {name: (getattr(pa, name), getattr(np, name)) for name in names}


def sigmoid(a: Any) -> Any:
    return 1 / (1 + np.exp(-a))


erf = np.vectorize(math.erf, otypes=[np.float64])
Args = tuple[Any, ...]
Group = tuple[dict[str, tuple[Callable[..., Any], Callable[..., Any]]], Args, Callable[[int], Args]]
GROUPS: dict[str, Group] = {
    "elements": (
        same("abs", "negative", "positive", "square", "sqrt", "reciprocal", "sign", "ceil", "floor", "trunc", "round", "isfinite", "isinf", "isnan", "logical_not", "nan_to_num", "real", "conj"),
        (D[N, 3],),
        lambda n: (x(n, 3),),
    ),
    "exponentials": (same("exp", "exp2", "expm1", "log", "log2", "log10", "log1p", "sinh", "cosh", "tanh", "asinh", "atanh"), (D[N, 3],), lambda n: (x(n, 3),)),
    "angles": (same("sin", "cos", "tan", "asin", "acos", "atan", "deg2rad", "rad2deg"), (D[N, 3],), lambda n: (x(n, 3),)),
    "activations": (
        {
            "relu": (pa.relu, lambda a: np.maximum(a, 0)),
            "relu6": (pa.relu6, lambda a: np.clip(a, 0, 6)),
            "sigmoid": (pa.sigmoid, sigmoid),
            "silu": (pa.silu, lambda a: a * sigmoid(a)),
            "softplus": (pa.softplus, lambda a: np.log1p(np.exp(a))),
            "elu": (pa.elu, lambda a: np.where(a > 0, a, np.expm1(a))),
            "leaky_relu": (pa.leaky_relu, lambda a: np.where(a > 0, a, 0.01 * a)),
            "erf": (pa.erf, erf),
            "gelu": (pa.gelu, lambda a: a * 0.5 * (1 + erf(a / math.sqrt(2)))),
            "log_softmax": (lambda a: pa.log_softmax(a, axis=1), lambda a: a - np.log(np.exp(a).sum(1, keepdims=True))),
            "logsumexp": (lambda a: pa.logsumexp(a, axis=1), lambda a: np.log(np.exp(a).sum(1))),
        },
        (D[N, 3],),
        lambda n: (x(n, 3) - 0.5,),
    ),
    "two operands": (
        same("add", "subtract", "multiply", "divide", "floor_divide", "remainder", "fmod", "pow", "maximum", "minimum", "hypot", "atan2", "logaddexp", "heaviside"),
        (D[N, 3], D[N, 3]),
        lambda n: (x(n, 3), x(n, 3)[::-1].copy()),
    ),
    "comparisons": (
        same("equal", "not_equal", "less", "less_equal", "greater", "greater_equal", "logical_and", "logical_or", "logical_xor", "isclose"),
        (D[N, 3], D[N, 3]),
        lambda n: (whole(n, 3) * 1.0, whole(n, 3)[::-1] * 1.0),
    ),
    "integers": (same("bitwise_and", "bitwise_or", "bitwise_xor", "left_shift", "right_shift"), (I[N, 3], I[N, 3]), lambda n: (whole(n, 3), whole(n, 3)[::-1].copy())),
    "along rows": (
        {
            name: (lambda a, name=name: getattr(pa, name)(a, axis=1), lambda a, name=name: getattr(np, name)(a, axis=1))
            for name in ("sum", "mean", "prod", "max", "min", "std", "var", "argmax", "argmin", "any", "all", "count_nonzero", "nansum", "cumulative_sum", "diff", "ptp")
        },
        (D[N, 3],),
        lambda n: (x(n, 3),),
    ),
    "down columns": (
        {name: (lambda a, name=name: getattr(pa, name)(a, axis=0), lambda a, name=name: getattr(np, name)(a, axis=0)) for name in ("sum", "prod", "any", "all", "count_nonzero", "nansum", "cumulative_sum", "cumulative_prod")},
        (D[N, 3],),
        lambda n: (x(n, 3),),
    ),
    "shapes": (
        {
            "expand_dims": (lambda a: pa.expand_dims(a, axis=1) + 1, lambda a: np.expand_dims(a, axis=1) + 1),
            "matrix_transpose": (lambda a: pa.matrix_transpose(a) + 1, lambda a: np.matrix_transpose(a) + 1),
            "moveaxis": (lambda a: pa.moveaxis(a, 0, 1) + 1, lambda a: np.moveaxis(a, 0, 1) + 1),
            "permute_dims": (lambda a: pa.permute_dims(a, (1, 0)) + 1, lambda a: np.permute_dims(a, (1, 0)) + 1),
            "broadcast_to": (lambda a: pa.broadcast_to(a, (2, *a.shape)) + 1, lambda a: np.broadcast_to(a, (2, *a.shape)) + 1),
            "hstack": (lambda a: pa.hstack([a, a]), lambda a: np.hstack([a, a])),
            "vstack": (lambda a: pa.vstack([a, a]), lambda a: np.vstack([a, a])),
            "tile": (lambda a: pa.tile(a, (2, 1)), lambda a: np.tile(a, (2, 1))),
            "triu": (pa.triu, np.triu),
            "zeros_like": (pa.zeros_like, np.zeros_like),
            "ones_like": (pa.ones_like, np.ones_like),
            "full_like": (lambda a: pa.full_like(a, 2.5), lambda a: np.full_like(a, 2.5)),
            "squeeze": (lambda a: pa.squeeze(a[:, :1], axis=1) + 1, lambda a: a[:, 0] + 1),
        },
        (D[N, 3],),
        lambda n: (x(n, 3),),
    ),
    "made from a size": (
        {
            "zeros": (lambda a: pa.zeros((a.shape[0], 2)) + 1, lambda a: np.zeros((len(a), 2)) + 1),
            "ones": (lambda a: pa.ones((a.shape[0],)) + a[:, 0], lambda a: np.ones(len(a)) + a[:, 0]),
            "full": (lambda a: pa.full((a.shape[0],), 3.0) + a[:, 0], lambda a: np.full(len(a), 3.0) + a[:, 0]),
            "eye": (lambda a: pa.eye(a.shape[0]) + a[:, :1], lambda a: np.eye(len(a)) + a[:, :1]),
            "arange": (lambda a: pa.arange(a.shape[0]) + a[:, 0], lambda a: np.arange(len(a)) + a[:, 0]),
        },
        (D[N, 3],),
        lambda n: (x(n, 3),),
    ),
    "products": (
        {
            "dot": (pa.dot, np.dot),
            "inner": (pa.inner, np.inner),
            "vdot": (pa.vdot, np.vdot),
            "vecdot": (pa.vecdot, np.vecdot),
            "outer": (pa.outer, np.outer),
            "kron": (lambda a, b: pa.kron(a[:, None], b[None, :]), lambda a, b: np.kron(a[:, None], b[None, :])),
            "tensordot": (lambda a, b: pa.tensordot(a, b, axes=1), lambda a, b: np.tensordot(a, b, axes=1)),
        },
        (D[N], D[N]),
        lambda n: (x(n), x(n + 1)[:n].copy()),
    ),
}


@pytest.mark.parametrize("group", list(GROUPS))
def test_sizes_0_1_2_max_and_beyond(group: str) -> None:
    functions, specs, make = GROUPS[group]
    compiled = pa.compile(lambda *args: tuple(ours(*args) for ours, _ in functions.values()), *specs)
    before = pa.stats()["compiles"]
    for n in (0, 1, 2, MAX):
        args = make(n)
        for name, found, (_, reference) in zip(functions, compiled(*args), functions.values()):
            with np.errstate(all="ignore"):
                want = np.asarray(reference(*args))
            assert np.shape(found) == want.shape, (name, n)
            np.testing.assert_allclose(found, want, rtol=1e-11, atol=1e-11, err_msg=f"{name} at {n}")
    with pytest.raises(GuardError, match=rf"dimension n is {MAX + 1}, outside its range"):
        compiled(*make(MAX + 1))
    assert pa.stats()["compiles"] == before
