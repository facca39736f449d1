"""A table of calls on dense arrays: each traced, verified, run by the interpreter and compared with NumPy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy import special

from polyai.frontend.surface import functions as pa
from tests.frontend.helpers import compare

pytestmark = pytest.mark.usefixtures("engine")
RNG = np.random.default_rng(3)
A, B = RNG.standard_normal((4, 5)), RNG.standard_normal((4, 5))
P = RNG.uniform(0.1, 0.9, (4, 5))
V, W = RNG.standard_normal(5), RNG.standard_normal(4)
C = RNG.standard_normal((2, 3, 4, 5))
K, J = RNG.integers(-9, 9, (4, 5)), RNG.integers(1, 6, (4, 5))
U = RNG.integers(0, 200, (4, 5)).astype(np.uint8)
S = RNG.integers(-100, 100, (4, 5)).astype(np.int8)
T = RNG.random((4, 5)) < 0.5
F = A.astype(np.float32)
Z = A + 1j * B
N = np.where(T, A, np.nan)

UNARY = [
    ("abs", A), ("abs", Z), ("abs", K), ("negative", A), ("positive", A), ("sign", A), ("sign", K), ("square", A), ("conj", Z), ("real", Z),
    ("imag", Z), ("floor", A), ("ceil", A), ("trunc", A), ("round", A), ("sqrt", P), ("exp", A), ("exp2", A), ("expm1", A), ("reciprocal", A),
    ("log", P), ("log2", P), ("log10", P), ("log1p", P), ("sin", A), ("cos", A), ("tan", A), ("sinh", A), ("cosh", A), ("tanh", A),
    ("arcsin", P), ("arccos", P), ("arctan", A), ("arcsinh", A), ("arctanh", P), ("isnan", N), ("isinf", A), ("isfinite", N),
    ("logical_not", K), ("deg2rad", A), ("rad2deg", A), ("exp", K), ("exp", F), ("sqrt", Z), ("nan_to_num", N),
]  # fmt: skip


@pytest.mark.parametrize(("name", "x"), UNARY, ids=[f"{n}-{x.dtype}" for n, x in UNARY])
def test_unary(name: str, x: Any) -> None:
    compare(getattr(pa, name), getattr(np, name), x, tolerance=1e-6 if x.dtype == np.float32 else 1e-12)


BINARY = [
    ("add", A, B), ("subtract", A, B), ("multiply", A, B), ("divide", A, B), ("floor_divide", A, B), ("remainder", A, B), ("power", P, B),
    ("maximum", A, B), ("minimum", A, B), ("maximum", N, A), ("arctan2", A, B), ("hypot", A, B), ("logaddexp", A, B), ("fmod", A, B),
    ("heaviside", A, B), ("equal", K, J), ("not_equal", K, J), ("less", A, B), ("less_equal", A, B), ("greater", A, B),
    ("greater_equal", A, B), ("logical_and", K, T), ("logical_or", K, T), ("logical_xor", K, T), ("bitwise_and", K, J),
    ("bitwise_or", K, J), ("bitwise_xor", K, J), ("bitwise_and", T, ~T), ("left_shift", K, J), ("right_shift", K, J),
    ("add", A, V), ("add", A, W[:, None]), ("multiply", K, A), ("add", U, S), ("add", F, K), ("add", F, S), ("divide", K, J), ("floor_divide", K, J),
    ("remainder", K, J), ("add", T, T), ("maximum", T, ~T), ("multiply", Z, A), ("divide", Z, A), ("add", U, U), ("multiply", S, S),
    ("add", A, 2), ("add", F, 2.5), ("multiply", K, 2.5), ("add", K, True), ("subtract", 1, A), ("divide", 1, J), ("power", A, 2),
    ("power", A, 3), ("power", P, 0.5), ("power", A, -1), ("power", A, -2), ("power", K, 2), ("power", 2.0, A), ("add", F, np.float64(1.5)),
    ("less", S, 1000), ("equal", U, -1), ("power", F, 2.0), ("power", A, 0), ("add", T, 1), ("multiply", U, 1.5), ("add", A, 1j),
    ("greater", U.astype(np.uint64), -1), ("equal", U.astype(np.uint64), -3), ("less", K, 2**63), ("greater_equal", -1, U.astype(np.uint64)),
]  # fmt: skip


@pytest.mark.parametrize(("name", "x", "y"), BINARY, ids=[f"{n[0]}-{i}" for i, n in enumerate(BINARY)])
def test_binary(name: str, x: Any, y: Any) -> None:
    f, g = getattr(pa, name), getattr(np, name)
    single = np.float32 in (getattr(x, "dtype", None), getattr(y, "dtype", None))
    tolerance = 1e-6 if single else 1e-12
    if isinstance(y, np.ndarray) and isinstance(x, np.ndarray):
        compare(f, g, x, y, tolerance=tolerance)
    elif isinstance(x, np.ndarray):
        compare(lambda a: f(a, y), lambda a: g(a, y), x, tolerance=tolerance)
    else:
        compare(lambda b: f(x, b), lambda b: g(x, b), y, tolerance=tolerance)


@pytest.mark.parametrize("y", [2, 2.5, True, 1j, np.float32(3), np.int8(2), np.float64(2)], ids=repr)
@pytest.mark.parametrize("x", [A, F, K, S, T], ids=lambda x: str(x.dtype))
def test_scalar_arguments_are_weak_as_in_numpy(x: Any, y: Any) -> None:
    compare(lambda a, b: a + b, lambda a, b: a + b, x, y, tolerance=1e-6)
    compare(lambda a, b: a * b, lambda a, b: a * b, x, y, tolerance=1e-6)


REDUCTIONS = [
    ("sum", A, {}), ("sum", A, {"axis": 0}), ("sum", A, {"axis": -1, "keepdims": True}), ("sum", C, {"axis": (1, 3)}), ("sum", S, {}), ("sum", U, {"axis": 0}),
    ("sum", T, {"axis": 1}), ("sum", F, {"axis": 1}), ("sum", A, {"dtype": np.float32}), ("sum", Z, {}), ("prod", P, {"axis": 1}), ("prod", J, {}),
    ("max", A, {}), ("max", A, {"axis": 0}), ("max", K, {"axis": 1, "keepdims": True}), ("max", T, {"axis": 0}), ("min", A, {"axis": 1}),
    ("min", N, {"axis": 0}), ("mean", A, {}), ("mean", K, {"axis": 0}), ("mean", F, {"axis": 1}), ("mean", T, {}), ("mean", C, {"axis": (0, 2), "keepdims": True}),
    ("var", A, {}), ("var", A, {"axis": 0, "ddof": 1}), ("var", Z, {"axis": 0}), ("std", A, {"axis": 1, "keepdims": True}), ("std", K, {}),
    ("any", T, {}), ("any", K, {"axis": 0}), ("all", T, {"axis": 1}), ("all", A, {}), ("count_nonzero", K, {"axis": 1}), ("argmax", A, {}),
    ("argmax", A, {"axis": 0}), ("argmax", K, {"axis": 1}), ("argmax", N, {"axis": 0}), ("argmin", A, {"axis": -1}), ("argmin", C, {"axis": 2}),
    ("argmax", A, {"axis": 1, "keepdims": True}), ("ptp", A, {"axis": 0}), ("cumulative_sum", A, {"axis": 0}), ("cumulative_sum", A, {"axis": 1, "include_initial": True}), ("cumulative_prod", K, {"axis": 0, "include_initial": True}), ("cumulative_sum", K, {"axis": 1}),
    ("cumulative_prod", A, {"axis": 1}), ("cumulative_sum", V, {}), ("nansum", N, {"axis": 0}), ("average", A, {"axis": 1}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "x", "options"), REDUCTIONS, ids=[f"{n[0]}-{i}" for i, n in enumerate(REDUCTIONS)])
def test_reductions(name: str, x: Any, options: dict[str, Any]) -> None:
    tolerance = 1e-5 if x.dtype == np.float32 or options.get("dtype") is np.float32 else 1e-12
    compare(lambda a: getattr(pa, name)(a, **options), lambda a: getattr(np, name)(a, **options), x, tolerance=tolerance)


def test_half_precision_is_accumulated_in_single() -> None:
    x = np.full((3, 4000), 0.1, np.float16)
    compare(lambda a: a.sum(axis=1), lambda a: a.astype(np.float32).sum(axis=1).astype(np.float16), x, tolerance=1e-3)
    compare(lambda a: a @ a.T, lambda a: (a.astype(np.float32) @ a.T.astype(np.float32)).astype(np.float16), x, tolerance=1e-3)


Call = Callable[..., Any]
CALLS: list[tuple[str, Call, Call | None, tuple[Any, ...]]] = [
    # operators and methods: the same function is traced and run by NumPy
    ("operators", lambda a, b: (a + b) * 2 - a / b + (-a) ** 2 - abs(b), None, (A, B)),
    ("reflected", lambda a: 1 - a + 2 * a + 3 / a + (2.0**a), None, (P,)),
    ("floor and mod", lambda a, b: (a // b, a % b, 7 // b, 7 % b), None, (K, J)),
    ("divmod", lambda a, b: divmod(a, b), None, (K, J)),
    ("comparisons", lambda a, b: ((a < b) & ~(a == b)) | (a >= 2), None, (A, B)),
    ("bits", lambda a, b: ((a & b) | 3) ^ (b << 2) >> 1, None, (K, J)),
    ("NumPy on the left", lambda a: B + a - B * a, None, (A,)),
    ("scalar of NumPy", lambda a: np.float32(2) * a + np.float64(1), None, (F,)),
    ("closure", lambda a: a @ B.T + V[:4], None, (A,)),
    ("list as operand", lambda a: a + np.array([1, 2, 3, 4, 5]), None, (A,)),
    ("astype", lambda a: (a.astype(np.float32), a.astype(int), a.astype(bool)), None, (A,)),
    ("size and shape in arithmetic", lambda a: a.sum(axis=0) / a.shape[0] + a.ndim, None, (A,)),
    ("root of a size", lambda a: a / np.sqrt(a.shape[-1]), None, (A,)),
    ("ufuncs", lambda a, b: np.exp(a) + np.maximum(a, b) + np.tanh(b) - np.square(a), None, (A, B)),
    ("ufunc reduce", lambda a: (np.add.reduce(a), np.maximum.reduce(a, axis=1), np.multiply.reduce(a, axis=1)), None, (A,)),
    ("ufunc outer", lambda a, b: np.subtract.outer(a, b), None, (V, W)),
    ("ufunc accumulate", lambda a: np.add.accumulate(a, axis=1), None, (A,)),
    ("np functions", lambda a: np.sum(a, axis=1) + np.mean(a, axis=1) - np.max(a, axis=1) + np.std(a, axis=1), None, (A,)),
    ("np.where clip", lambda a, b: np.where(a > b, np.clip(a, -1, 1), 0.0), None, (A, B)),
    ("np.concatenate", lambda a, b: np.concatenate([a, b, a], axis=1), None, (A, B)),
    ("np.stack", lambda a, b: (np.stack([a, b]), np.stack([a, b, a], axis=-1), np.vstack([a, b]), np.hstack([a, b])), None, (A, B)),
    ("np.linalg.norm", lambda a: (np.linalg.norm(a), np.linalg.norm(a, axis=1), np.linalg.norm(a, 1, axis=0), np.linalg.norm(a, np.inf, axis=0)), None, (A,)),
    ("np.einsum", lambda a, b: np.einsum("ij,kj->ik", a, b), None, (A, B)),
    ("np.cumsum flat", lambda a: np.cumsum(a), None, (A,)),
    ("np.take", lambda a: (np.take(a, [2, 0, -1], axis=1), np.take(a, [7, 19])), None, (A,)),
    ("np.isclose", lambda a: (np.isclose(a, a + 1e-9), np.allclose(a, a), np.array_equal(a, a)), None, (A,)),
    ("round decimals", lambda a: np.round(a, 2), None, (A,)),
    # products
    ("matmul", lambda a, b: a @ b.T, None, (A, B)),
    ("matvec", lambda a, v: a @ v, None, (A, V)),
    ("vecmat", lambda v, a: v @ a, None, (W, A)),
    ("inner product", lambda v: v @ v, None, (V,)),
    ("batched matmul", lambda c, b: c @ b.T, None, (C, B)),
    ("broadcast matmul", lambda c, b: c @ b, None, (C, RNG.standard_normal((3, 5, 2)))),
    ("stretched batch", lambda c, b: c @ b, None, (C, RNG.standard_normal((1, 5, 2)))),
    ("integer matmul", lambda a, b: a @ b.T, None, (S, S)),
    ("bool matmul", lambda a, b: a @ b.T, None, (T, T)),
    ("mixed matmul", lambda a, b: a @ b.T, None, (K, A)),
    ("dot", lambda a, c: np.dot(a, np.swapaxes(c, -1, -2)), None, (A, C)),
    ("vdot", lambda a, b: np.vdot(a, b), None, (Z, Z + 1)),
    ("inner", lambda a, b: np.inner(a, b), None, (A, B)),
    ("outer", lambda v, w: np.outer(v, w), None, (V, W)),
    ("tensordot", lambda a, c: (np.tensordot(a, c, axes=([0, 1], [2, 3])), np.tensordot(c, a, axes=([3], [1]))), None, (A, C)),
    ("tensordot number", lambda c, a: np.tensordot(c, a, axes=2), None, (C, RNG.standard_normal((4, 5, 3)))),
    ("vecdot", pa.vecdot, np.vecdot, (A, B)),
    ("matrix_power", lambda a: np.linalg.matrix_power(a, 5), None, (A[:, :4],)),
    ("cross", lambda a, b: np.cross(a, b), None, (A[:, :3], B[:, :3])),
    ("diagonal", lambda a: (np.diagonal(a), np.diagonal(a, 1), np.diagonal(a, -2), np.trace(a), np.diag(a)), None, (A,)),
    ("diag of a vector", lambda v: (np.diag(v), np.diag(v, 2), np.diag(v, -1)), None, (V,)),
    # shapes
    ("transpose", lambda a, c: (a.T, c.transpose(1, 0, 3, 2), np.moveaxis(c, 0, -1), np.swapaxes(c, 0, 2), c.mT), None, (A, C)),
    ("reshape", lambda a, c: (a.reshape(20), a.reshape(5, 4), a.reshape(2, -1), c.reshape(6, 4, 5), c.reshape(2, 3, 20), c.reshape(-1)), None, (A, C)),
    ("reshape with ones", lambda a: (a.reshape(4, 1, 5), a.reshape(1, 20), a.reshape((2, 2, 5, 1)), a[None].reshape(4, 5)), None, (A,)),
    ("reshape many", lambda c: (c.reshape(4, 30), c.reshape(3, 2, 5, 4), c.reshape(2, 12, -1), c.reshape(8, 15)), None, (C,)),
    ("reshape by shape", lambda a: a.reshape(a.shape[0] * a.shape[1]).reshape(a.shape), None, (A,)),
    ("expand and squeeze", lambda a: (np.expand_dims(a, (0, 2)), a[:, None], np.squeeze(a[None, :, None]), a[..., None].squeeze(-1)), None, (A,)),
    ("broadcast_to", lambda v: np.broadcast_to(v, (3, 5)), None, (V,)),
    ("broadcast_arrays", lambda v, w: tuple(np.broadcast_arrays(v, w[:, None])), None, (V, W)),
    ("flip and roll", lambda a: (np.flip(a), np.flip(a, 1), np.roll(a, 2, axis=1), np.roll(a, -1, axis=0), np.roll(a, 3), np.roll(a, (1, -2), axis=(0, 1))), None, (A,)),
    ("roll far", lambda v: (np.roll(v, 12), np.roll(v, 0), np.roll(v, 5)), None, (V,)),
    ("repeat and tile", lambda a: (np.repeat(a, 3, axis=1), np.repeat(a, 2), np.tile(a, 2), np.tile(a, (2, 1, 3))), None, (A,)),
    ("triangles", lambda a: (np.tril(a), np.triu(a, 1), np.tril(a, -1), np.triu(a, -2)), None, (A,)),
    ("split", lambda a: (np.split(a, 2), np.split(a, [1, 3], axis=1), np.split(a, [2, 9], axis=1)), None, (A,)),
    ("unstack", pa.unstack, lambda a: tuple(a), (A,)),
    ("diff", lambda a: (np.diff(a), np.diff(a, 2, axis=0)), None, (A,)),
    ("meshgrid", lambda v, w: (list(np.meshgrid(v, w)), list(np.meshgrid(v, w, indexing="ij"))), None, (V, W)),
    ("pad", lambda a: (np.pad(a, 1), np.pad(a, ((1, 2), (0, 3))), np.pad(a, (1, 2), constant_values=7.0)), None, (A,)),
    ("pad modes", lambda a: (np.pad(a, 2, mode="edge"), np.pad(a, 3, mode="reflect"), np.pad(a, 7, mode="wrap"), np.pad(a, ((9, 8), (1, 1)), mode="reflect")), None, (A,)),
    # indexing
    ("integers", lambda a: (a[1], a[-1, 2], a[0, -5], a[:, 3]), None, (A,)),
    ("slices", lambda a: (a[1:3], a[:, ::2], a[::-1], a[-2:], a[:-1, 1:-1], a[5:1:-2, ::-2], a[10:], a[:100], a[3:1], a[-100:2]), None, (A,)),
    ("None and ellipsis", lambda c: (c[..., 0], c[0, ..., 1], c[:, None, ..., 2:4], c[..., None]), None, (C,)),
    ("integer arrays", lambda a: (a[[0, 2, -1]], a[:, [4, 0]], a[[0, 1], [1, 2]], a[[[0, 1], [2, 3]]]), None, (A,)),
    ("mixed arrays", lambda c: (c[0, :, [1, 2]], c[:, [0, 1], [1, 2]], c[[0, 1], :, [1, 2]], c[[0, 1], 1, :, 2], c[:, 0, [1, 3], 1:4]), None, (C,)),
    ("traced indices", lambda a, i: (a[i], a[i, 1], a[i, i], a[:, i], a[i[:, None], i]), None, (A, np.array([0, -1, 2, 2]))),
    ("small index types", lambda a, i: a[i], None, (A, np.array([0, 1, 2], np.uint8))),
    ("symbolic indices", lambda a: (a[a.shape[0] - 1], a[: a.shape[0] // 2], a[a.shape[0] // 2 :]), None, (A,)),
    ("take_along_axis", lambda a, i: np.take_along_axis(a, i, 1), None, (A, RNG.integers(0, 5, (4, 3)))),
    ("iteration", lambda a: sum(row * n for n, row in enumerate(a)), None, (A,)),
    ("loop over a size", lambda a: sum(a[n] for n in range(a.shape[0])), None, (A,)),
    # made from sizes
    ("zeros_like", lambda a: (np.zeros_like(a), np.ones_like(a, dtype=np.int32), np.full_like(a, 3.5)), None, (A,)),
    ("zeros", lambda a: (pa.zeros(a.shape), pa.ones((a.shape[1], 2), np.float32), pa.full(a.shape, 3)), lambda a: (np.zeros(a.shape), np.ones((5, 2), np.float32), np.full(a.shape, 3)), (A,)),
    ("eye", lambda a: (pa.eye(a.shape[0]), pa.eye(a.shape[0], a.shape[1], 1), pa.tri(a.shape[0], a.shape[1], -1)), lambda a: (np.eye(4), np.eye(4, 5, 1), np.tri(4, 5, -1)), (A,)),
    ("arange", lambda a: (pa.arange(a.shape[1]), pa.arange(1, a.shape[1], 2), pa.arange(a.shape[0], 0, -3)), lambda a: (np.arange(5), np.arange(1, 5, 2), np.arange(4, 0, -3)), (A,)),
    ("linspace", lambda a: (pa.linspace(0.0, 1.0, a.shape[0]), pa.linspace(2, 5, a.shape[1], endpoint=False)), lambda a: (np.linspace(0, 1, 4), np.linspace(2, 5, 5, endpoint=False)), (A,)),
    ("one_hot", lambda i: pa.one_hot(i, 7), lambda i: np.eye(7)[i], (J,)),
    # sums and their relatives
    ("logsumexp", lambda a: (pa.logsumexp(a), pa.logsumexp(a, axis=0), pa.logsumexp(a, axis=1, keepdims=True)), lambda a: (special.logsumexp(a), special.logsumexp(a, axis=0), special.logsumexp(a, axis=1, keepdims=True)), (A * 300,)),
    ("logsumexp of infinities", lambda a: pa.logsumexp(a), lambda a: special.logsumexp(a), (np.array([-np.inf, -np.inf]),)),
    ("weighted average", lambda a, w: pa.average(a, axis=1, weights=w), lambda a, w: np.average(a, axis=1, weights=w), (A, V**2)),
    ("methods", lambda a: (a.sum(0), a.mean(), a.max(1), a.min(), a.argmax(0), a.std(0), a.var(), a.prod(1), a.cumsum(0), a.any(), a.all(), a.trace(), a.clip(0, 1), a.round(1)), None, (A,)),
    ("cumulative extremes", lambda a: (pa.cumulative_max(a, 0), pa.cumulative_min(a, 1)), lambda a: (np.maximum.accumulate(a, 0), np.minimum.accumulate(a, 1)), (A,)),
    # structures
    ("structures", lambda p, n: {"a": [p["w"] * n, (p["b"][0],)], "n": n, "k": 3, "s": "x", "none": None}, None, ({"w": A, "b": [V]}, 2.0)),
    ("sizes returned", lambda a: (a.shape[0], a.size, a.shape, len(a)), None, (A,)),
    ("the argument itself", lambda a: (a, a.copy()), None, (A,)),
    ("at", lambda a: (a.at[1].set(0.0), a.at[:, 2].add(1), a.at[[0, 0, 1]].add(1.0), a.at[1:3, ::2].mul(2), a.at[0].max(V), a.at[[1, -1]].min(V)), lambda a: _updates(a), (A,)),
    ("at mask", lambda a: a.at[a > 0].set(-1.0), lambda a: np.where(a > 0, -1.0, a), (A,)),
    ("bincount", lambda i: pa.bincount(i, minlength=6), lambda i: np.bincount(i, minlength=6), (J.ravel(),)),
    ("bincount weights", lambda i, w: pa.bincount(i, w, 6), lambda i, w: np.bincount(i, w, 6), (J.ravel(), A.ravel())),
    ("segment_sum", lambda a, s: (pa.segment_sum(a, s, 3), pa.segment_max(a, s, 3)), lambda a, s: _segments(a, s), (A, np.array([2, 0, 2, 1]))),
    ("embedding", lambda t, i: pa.embedding(t, i), lambda t, i: t[i], (A, np.array([[0, 3], [1, 1]]))),
    ("convolve", lambda v, w: (np.convolve(v, w), np.convolve(v, w, "same"), np.convolve(v, w, "valid")), None, (V, W)),
]  # fmt: skip


def _updates(a: Any) -> tuple[Any, ...]:
    out = [a.copy() for _ in range(6)]
    out[0][1] = 0.0
    out[1][:, 2] += 1
    np.add.at(out[2], [0, 0, 1], 1.0)
    out[3][1:3, ::2] *= 2
    out[4][0] = np.maximum(out[4][0], V)
    out[5][[1, -1]] = np.minimum(out[5][[1, -1]], V)
    return tuple(out)


def _segments(a: Any, s: Any) -> tuple[Any, ...]:
    total, best = np.zeros((3, 5)), np.full((3, 5), -np.inf)
    np.add.at(total, s, a)
    np.maximum.at(best, s, a)
    return total, best


@pytest.mark.parametrize(("fn", "reference", "args"), [c[1:] for c in CALLS], ids=[c[0] for c in CALLS])
def test_calls(fn: Call, reference: Call | None, args: tuple[Any, ...]) -> None:
    compare(fn, reference or fn, *args)


EINSUMS = [
    ("ij,jk->ik", (A, B.T)), ("ij,jk", (A, B.T)), ("ii->i", (A[:, :4],)), ("ii", (A[:, :4],)), ("ij->ji", (A,)), ("ij->j", (A,)), ("ij->", (A,)),
    ("i,j->ij", (W, V)), ("i,i->", (V, V)), ("ij,ij->ij", (A, B)), ("ij,j", (A, V)), ("abij,cj->abic", (C, B)), ("...ij,kj->...ik", (C, B)),
    ("...ij->...ji", (C,)), ("...,...->...", (C, V)), ("...j,j", (C, V)), ("i...->...", (C,)), ("ij,kj,km->im", (A, B, B)), ("ba", (A,)),
    ("ij,ik,jk->", (A, RNG.standard_normal((4, 3)), RNG.standard_normal((5, 3)))), ("iij->j", (RNG.standard_normal((3, 3, 2)),)),
    ("a...b,b...->a...", (C, RNG.standard_normal((5, 3, 4)))), (",ij->ij", (np.float64(2), A)), ("ij,jk,kl,li->", (A, B.T, A, B.T)),
    ("i,i,i->i", (V, V, V)), ("ij->i", (K,)), ("ij,jk", (T, T.T)),
]  # fmt: skip


@pytest.mark.parametrize(("text", "operands"), EINSUMS, ids=[e[0] for e in EINSUMS])
def test_einsum(text: str, operands: tuple[Any, ...]) -> None:
    compare(lambda *xs: pa.einsum(text, *xs), lambda *xs: np.einsum(text, *xs), *operands)


def test_einsum_with_lists() -> None:
    compare(lambda a, b: pa.einsum(a, [0, 1], b, [2, 1], [0, 2]), lambda a, b: np.einsum(a, [0, 1], b, [2, 1], [0, 2]), A, B)


def test_einsum_multiplies_in_a_cheap_order() -> None:
    from polyai.frontend.trace import trace

    big = np.ones((30, 30))
    traced = trace(lambda a, b, c: pa.einsum("ij,jk,kl->il", a, b, c), (big, big, big), {})
    assert len(traced.program.body) == 2


@pytest.mark.parametrize("n", [0, 1, 2])
@pytest.mark.parametrize("m", [0, 1, 3])
def test_sizes_zero_and_one_are_ordinary(n: int, m: int) -> None:
    x, y = RNG.standard_normal((n, m)), RNG.standard_normal((n, m))
    compare(lambda a, b: (a + b) * 2, lambda a, b: (a + b) * 2, x, y)
    compare(lambda a, b: a @ b.T, lambda a, b: a @ b.T, x, y)
    compare(lambda a, b: a.sum(axis=0) + b.sum(axis=0), lambda a, b: a.sum(axis=0) + b.sum(axis=0), x, y)
    compare(lambda a, b: np.concatenate([a, b], axis=1), lambda a, b: np.concatenate([a, b], axis=1), x, y)
    compare(lambda a, b: (a.reshape(-1), a[1:], a[:, :-1], a[::-1]), lambda a, b: (a.reshape(-1), a[1:], a[:, :-1], a[::-1]), x, y)
    compare(lambda a, b: pa.cumulative_sum(a, 0), lambda a, b: np.cumsum(a, 0), x, y)
