"""Named tensor programs with arguments and the results that NumPy gives, shared by the tests of all rooms."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from polyai.scalar import dtype as dt
from polyai.scalar.expr import Cast
from polyai.shapes.expr import Size
from polyai.sparse.format import Format, coo, csc, csf, csr
from polyai.sparse.levels.dense import Dense
from polyai.tensor.interp import SparseValue
from polyai.tensor.nodes import Body, Comprehension, Index, Input, Program, Scatter
from tests.words import (
    add,
    at,
    c,
    d,
    define,
    dense,
    h,
    k,
    lit,
    m,
    mul,
    n,
    op,
    program,
    reduce,
    relu,
    sparse,
    stored,
    v,
    where,
    within,
)


@dataclass(frozen=True)
class Case:
    """A program, arguments for it, and the outputs that it must have (dense, also where an output is sparse)."""

    program: Program
    arguments: dict[str, Any]
    expected: dict[str, np.ndarray[Any, Any]]


PROGRAMS: dict[str, Callable[[], Case]] = {}


def _case(build: Callable[[], Case]) -> Callable[[], Case]:
    PROGRAMS[build.__name__] = build
    return build


def random_sparse(
    rng: np.random.Generator, rows: int, cols: int, density: float = 0.2, dtype: Any = np.float32, order: tuple[int, int] = (0, 1)
) -> SparseValue:
    """Random coordinates sorted as a format with dimension order `order` stores them; row 0 is empty, row 1 is full."""
    mask = rng.random((rows, cols)) < density
    if rows > 1:
        mask[0], mask[1] = False, True
    at = np.nonzero(mask if order == (0, 1) else mask.T)
    coords = (at[0], at[1]) if order == (0, 1) else (at[1], at[0])
    return SparseValue(coords, rng.standard_normal(len(at[0])).astype(dtype), (rows, cols))


def _normal(rng: np.random.Generator, *shape: int, dtype: Any = np.float32) -> np.ndarray[Any, Any]:
    return rng.standard_normal(shape).astype(dtype)


def _f64(value: Any) -> np.ndarray[Any, Any]:
    return np.asarray(value.todense() if isinstance(value, SparseValue) else value, np.float64)


@_case
def spmv() -> Case:
    """y = A x in f64, A CSR."""
    rng = np.random.default_rng(1)
    p = program(
        "spmv",
        [sparse("A", csr(), n, c, dtype=dt.f64), Input("x", dense(c, dtype=dt.f64))],
        [define("y", {"i": n}, reduce("add", {"k": c}, mul(at("A", "i", "k", dtype=dt.f64), at("x", "k", dtype=dt.f64)), within("A", "i", "k")))],
        "y",
    )
    a, x = random_sparse(rng, 17, 23, dtype=np.float64), _normal(rng, 23, dtype=np.float64)
    return Case(p, {"A": a, "x": x}, {"y": a.todense() @ x})


def _spmm(name: str, format: Format, order: tuple[int, int], seed: int) -> Case:
    rng = np.random.default_rng(seed)
    p = program(
        name,
        [sparse("A", format, n, c), Input("X", dense(c, m))],
        [define("Y", {"i": n, "j": m}, reduce("add", {"k": c}, mul(at("A", "i", "k"), at("X", "k", "j")), within("A", "i", "k")))],
        "Y",
    )
    a, x = random_sparse(rng, 19, 13, order=order), _normal(rng, 13, 21)
    return Case(p, {"A": a, "X": x}, {"Y": _f64(a) @ _f64(x)})


@_case
def spmm_csr() -> Case:
    """Y = A X, A CSR."""
    return _spmm("spmm_csr", csr(), (0, 1), 2)


@_case
def spmm_csc() -> Case:
    """Y = A X, A CSC."""
    return _spmm("spmm_csc", csc(), (1, 0), 3)


@_case
def spmm_coo() -> Case:
    """Y = A X, A COO."""
    return _spmm("spmm_coo", coo(), (0, 1), 4)


@_case
def spmm_transposed() -> Case:
    """Y = A^T X, A CSR."""
    rng = np.random.default_rng(5)
    p = program(
        "spmm_transposed",
        [sparse("A", csr(), c, n), Input("X", dense(c, m))],
        [define("Y", {"i": n, "j": m}, reduce("add", {"k": c}, mul(at("A", "k", "i"), at("X", "k", "j")), within("A", "k", "i")))],
        "Y",
    )
    a, x = random_sparse(rng, 11, 14), _normal(rng, 11, 9)
    return Case(p, {"A": a, "X": x}, {"Y": _f64(a).T @ _f64(x)})


@_case
def spmm_bias_relu() -> Case:
    """Y = relu(A X + b), A CSR."""
    rng = np.random.default_rng(6)
    p = program(
        "spmm_bias_relu",
        [sparse("A", csr(), n, c), Input("X", dense(c, m)), Input("b", dense(m))],
        [
            define("T", {"i": n, "j": m}, reduce("add", {"k": c}, mul(at("A", "i", "k"), at("X", "k", "j")), within("A", "i", "k"))),
            define("Y", {"i_1": n, "j_1": m}, relu(add(at("T", "i_1", "j_1"), at("b", "j_1")))),
        ],
        "Y",
    )
    a, x, b = random_sparse(rng, 18, 15), _normal(rng, 15, 33), _normal(rng, 33)
    return Case(p, {"A": a, "X": x, "b": b}, {"Y": np.maximum(_f64(a) @ _f64(x) + b, 0)})


@_case
def gcn_two_layer() -> Case:
    """Y = A relu(A (X W1)) W2, A CSR and square."""
    rng = np.random.default_rng(7)

    def times(target: str, a: str, b: str, extents: tuple[Size, Size, Size], tag: str) -> Comprehension:
        i, q, j = f"i{tag}", f"k{tag}", f"j{tag}"
        restricted = (within("A", i, q),) if a == "A" else ()
        return define(
            target, {i: extents[0], j: extents[2]}, reduce("add", {q: extents[1]}, mul(at(a, i, q), at(b, q, j)), *restricted)
        )

    p = program(
        "gcn_two_layer",
        [sparse("A", csr(), n, n), Input("X", dense(n, d)), Input("W1", dense(d, h)), Input("W2", dense(h, c))],
        [
            times("XW", "X", "W1", (n, d, h), "_1"),
            times("AXW", "A", "XW", (n, n, h), "_2"),
            define("H", {"i": n, "j": h}, relu(at("AXW", "i", "j"))),
            times("HW", "H", "W2", (n, h, c), "_3"),
            times("Y", "A", "HW", (n, n, c), "_4"),
        ],
        "Y",
    )
    a, x, w1, w2 = random_sparse(rng, 16, 16), _normal(rng, 16, 12), _normal(rng, 12, 20), _normal(rng, 20, 7)
    hidden = np.maximum(_f64(a) @ (_f64(x) @ w1), 0)
    return Case(p, {"A": a, "X": x, "W1": w1, "W2": w2}, {"Y": _f64(a) @ (hidden @ w2)})


@_case
def sddmm() -> Case:
    """S = A * (Q K^T) at the stored coordinates of A; the inner product is nested."""
    rng = np.random.default_rng(8)
    inner = reduce("add", {"q": d}, mul(at("Q", "i", "q"), at("K", "j", "q")))
    p = program(
        "sddmm",
        [sparse("A", csr(), n, m), Input("Q", dense(n, d)), Input("K", dense(m, d))],
        [stored("S", {"i": n, "j": m}, mul(at("A", "i", "j"), inner), "A", "i", "j")],
        "S",
    )
    a, q, keys = random_sparse(rng, 14, 17), _normal(rng, 14, 16), _normal(rng, 17, 16)
    return Case(p, {"A": a, "Q": q, "K": keys}, {"S": _f64(a) * (_f64(q) @ _f64(keys).T)})


def _dense_softmax(scores: np.ndarray[Any, Any], mask: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    shifted = np.where(mask, scores, -np.inf)
    top = np.max(shifted, axis=1, keepdims=True, initial=-1e300)
    e = np.where(mask, np.exp(np.where(mask, scores - top, 0)), 0)
    total = e.sum(axis=1, keepdims=True)
    return np.divide(e, total, out=np.zeros_like(e), where=total > 0)


def _mask(a: SparseValue) -> np.ndarray[Any, Any]:
    return SparseValue(a.coords, np.ones(a.nnz, bool), a.shape).todense()


def _row_softmax(scores: str, tag: str = "") -> list[Comprehension]:
    """P = softmax of `scores` along its stored rows; names M, E, Z, P."""
    i, j = f"i{tag}", f"j{tag}"
    return [
        define("M", {f"{i}a": n}, reduce("max", {f"{j}a": m}, at(scores, f"{i}a", f"{j}a"), within("A", f"{i}a", f"{j}a"))),
        stored("E", {f"{i}b": n, f"{j}b": m}, op("exp", op("sub", at(scores, f"{i}b", f"{j}b"), at("M", f"{i}b"))), "A", f"{i}b", f"{j}b"),
        define("Z", {f"{i}c": n}, reduce("add", {f"{j}c": m}, at("E", f"{i}c", f"{j}c"), within("A", f"{i}c", f"{j}c"))),
        stored("P", {f"{i}d": n, f"{j}d": m}, op("div", at("E", f"{i}d", f"{j}d"), at("Z", f"{i}d")), "A", f"{i}d", f"{j}d"),
    ]


@_case
def sparse_softmax() -> Case:
    """Softmax over the stored elements of each row."""
    rng = np.random.default_rng(9)
    p = program("sparse_softmax", [sparse("A", csr(), n, m)], list(_row_softmax("A")), "P")
    a = random_sparse(rng, 12, 15)
    return Case(p, {"A": a}, {"P": _dense_softmax(_f64(a), _mask(a))})


@_case
def sparse_attention() -> Case:
    """O = softmax(Q K^T / sqrt(d) where A is stored) V."""
    rng = np.random.default_rng(10)
    inner = reduce("add", {"q": d}, mul(at("Q", "i", "q"), at("K", "j", "q")))
    p = program(
        "sparse_attention",
        [sparse("A", csr(), n, m), Input("Q", dense(n, d)), Input("K", dense(m, d)), Input("V", dense(m, h))],
        [
            stored("S", {"i": n, "j": m}, mul(inner, lit(0.25)), "A", "i", "j"),
            *_row_softmax("S", "_"),
            define("O", {"io": n, "jo": h}, reduce("add", {"ko": m}, mul(at("P", "io", "ko"), at("V", "ko", "jo")), within("A", "io", "ko"))),
        ],
        "O",
    )
    a, q, keys, values = random_sparse(rng, 13, 11), _normal(rng, 13, 16), _normal(rng, 11, 16), _normal(rng, 11, 24)
    weights = _dense_softmax(_f64(q) @ _f64(keys).T * 0.25, _mask(a))
    return Case(p, {"A": a, "Q": q, "K": keys, "V": values}, {"O": weights @ values})


def _gelu(x: Body) -> Body:
    root = lit(float(np.float32(np.sqrt(0.5))))
    return mul(mul(lit(0.5), x), add(lit(1.0), op("erf", mul(x, root))))


@_case
def matmul_bias_gelu() -> Case:
    """Y = gelu(X W + b), dense."""
    from scipy.special import erf

    rng = np.random.default_rng(11)
    p = program(
        "matmul_bias_gelu",
        [Input("X", dense(n, k)), Input("W", dense(k, m)), Input("b", dense(m))],
        [
            define("T", {"i": n, "j": m}, reduce("add", {"q": k}, mul(at("X", "i", "q"), at("W", "q", "j")))),
            define("Y", {"i_1": n, "j_1": m}, _gelu(add(at("T", "i_1", "j_1"), at("b", "j_1")))),
        ],
        "Y",
    )
    x, w, b = _normal(rng, 9, 31), _normal(rng, 31, 37), _normal(rng, 37)
    t = _f64(x) @ w + b
    return Case(p, {"X": x, "W": w, "b": b}, {"Y": 0.5 * t * (1 + erf(t / np.sqrt(2)))})


@_case
def softmax() -> Case:
    """Dense softmax along rows, with its reductions nested in one body."""
    rng = np.random.default_rng(12)
    top = reduce("max", {"q": m}, at("X", "i", "q"))
    bottom = reduce("add", {"r": m}, op("exp", op("sub", at("X", "i", "r"), reduce("max", {"s": m}, at("X", "i", "s")))))
    p = program(
        "softmax",
        [Input("X", dense(n, m))],
        [define("Y", {"i": n, "j": m}, op("div", op("exp", op("sub", at("X", "i", "j"), top)), bottom))],
        "Y",
    )
    x = _normal(rng, 10, 45)
    e = np.exp(_f64(x) - _f64(x).max(1, keepdims=True))
    return Case(p, {"X": x}, {"Y": e / e.sum(1, keepdims=True)})


@_case
def layernorm() -> Case:
    """Y = (X - mean) / sqrt(var + eps) * g + b along rows."""
    rng = np.random.default_rng(13)
    count = Cast(v("m"), dt.f32)
    centred = op("sub", at("X", "i_3", "j_3"), at("mean", "i_3"))
    p = program(
        "layernorm",
        [Input("X", dense(n, m)), Input("g", dense(m)), Input("b", dense(m))],
        [
            define("mean", {"i_1": n}, op("div", reduce("add", {"j_1": m}, at("X", "i_1", "j_1")), count)),
            define(
                "var",
                {"i_2": n},
                op("div", reduce("add", {"j_2": m}, op("square", op("sub", at("X", "i_2", "j_2"), at("mean", "i_2")))), count),
            ),
            define(
                "Y",
                {"i_3": n, "j_3": m},
                add(mul(op("div", centred, op("sqrt", add(at("var", "i_3"), lit(1e-5)))), at("g", "j_3")), at("b", "j_3")),
            ),
        ],
        "Y",
    )
    x, g, b = _normal(rng, 8, 50), _normal(rng, 50), _normal(rng, 50)
    wide = _f64(x)
    normal = (wide - wide.mean(1, keepdims=True)) / np.sqrt(wide.var(1, keepdims=True) + 1e-5)
    return Case(p, {"X": x, "g": g, "b": b}, {"Y": normal * g + b})


@_case
def conv2d_padded() -> Case:
    """3x3 convolution of an image with c channels to d, zero padding 1."""
    rng = np.random.default_rng(14)
    y, x = op("sub", add(v("y"), v("ky")), lit(1, dt.i64)), op("sub", add(v("x"), v("kx")), lit(1, dt.i64))
    inside = op("and", op("and", op("ge", y, lit(0, dt.i64)), op("lt", y, v("n"))), op("and", op("ge", x, lit(0, dt.i64)), op("lt", x, v("m"))))
    p = program(
        "conv2d_padded",
        [Input("I", dense(c, n, m)), Input("F", dense(d, c, 3, 3))],
        [
            define(
                "O",
                {"o": d, "y": n, "x": m},
                reduce(
                    "add",
                    {"ch": c, "ky": 3, "kx": 3},
                    mul(where(inside, at("I", "ch", y, x), lit(0.0)), at("F", "o", "ch", "ky", "kx")),
                ),
            )
        ],
        "O",
    )
    image, kernel = _normal(rng, 3, 7, 9), _normal(rng, 4, 3, 3, 3)
    padded = np.pad(_f64(image), ((0, 0), (1, 1), (1, 1)))
    views = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))
    return Case(p, {"I": image, "F": kernel}, {"O": np.einsum("cyxab,ocab->oyx", views, _f64(kernel))})


@_case
def concat() -> Case:
    """Y = X followed by Z along rows: the branch not taken is out of range."""
    rng = np.random.default_rng(15)
    p = program(
        "concat",
        [Input("X", dense(n, m)), Input("Z", dense(k, m))],
        [
            define(
                "Y",
                {"i": n + k, "j": m},
                where(op("lt", v("i"), v("n")), at("X", "i", "j"), at("Z", op("sub", v("i"), v("n")), "j")),
            )
        ],
        "Y",
    )
    x, z = _normal(rng, 4, 6), _normal(rng, 5, 6)
    return Case(p, {"X": x, "Z": z}, {"Y": np.concatenate([x, z])})


@_case
def cumsum() -> Case:
    """Running sums along rows: a recurrence."""
    rng = np.random.default_rng(16)
    before = at("S", "i", op("sub", v("j"), lit(1, dt.i64)), dtype=dt.f64)
    p = program(
        "cumsum",
        [Input("X", dense(n, m, dtype=dt.f64))],
        [define("S", {"i": n, "j": m}, add(where(op("gt", v("j"), lit(0, dt.i64)), before, lit(0.0, dt.f64)), at("X", "i", "j", dtype=dt.f64)))],
        "S",
    )
    x = _normal(rng, 5, 12, dtype=np.float64)
    return Case(p, {"X": x}, {"S": np.cumsum(x, axis=1)})


@_case
def gather_embedding() -> Case:
    """Y[i] = E[ids[i]]."""
    rng = np.random.default_rng(17)
    p = program(
        "gather_embedding",
        [Input("E", dense(c, m)), Input("ids", dense(n, dtype=dt.i32))],
        [define("Y", {"i": n, "j": m}, at("E", at("ids", "i", dtype=dt.i32), "j"))],
        "Y",
    )
    table, ids = _normal(rng, 30, 8), rng.integers(0, 30, 12).astype(np.int32)
    return Case(p, {"E": table, "ids": ids}, {"Y": table[ids]})


@_case
def scatter_add() -> Case:
    """Y = base, then Y[ids[i]] += X[i]."""
    rng = np.random.default_rng(18)
    p = program(
        "scatter_add",
        [Input("base", dense(c, m)), Input("ids", dense(n, dtype=dt.i64)), Input("X", dense(n, m))],
        [
            Scatter(
                "Y",
                dense(c, m),
                "base",
                "add",
                (Index("i", n), Index("j", m)),
                (at("ids", "i", dtype=dt.i64), v("j")),
                at("X", "i", "j"),
            )
        ],
        "Y",
    )
    base, ids, x = _normal(rng, 6, 5), rng.integers(0, 6, 20), _normal(rng, 20, 5)
    expected = _f64(base)
    np.add.at(expected, ids, x)
    return Case(p, {"base": base, "ids": ids, "X": x}, {"Y": expected})


@_case
def argmax() -> Case:
    """The first position of the largest element of each row, in two steps."""
    rng = np.random.default_rng(19)
    found = op("eq", at("X", "i_1", "j_1"), at("M", "i_1"))
    p = program(
        "argmax",
        [Input("X", dense(n, m))],
        [
            define("M", {"i": n}, reduce("max", {"j": m}, at("X", "i", "j"))),
            define("Y", {"i_1": n}, reduce("min", {"j_1": m}, where(found, v("j_1"), v("m")))),
        ],
        "Y",
    )
    x = rng.integers(0, 9, (14, 22)).astype(np.float32)
    return Case(p, {"X": x}, {"Y": x.argmax(1)})


@_case
def batched_matmul() -> Case:
    """C[b] = X[b] Y[b]."""
    rng = np.random.default_rng(20)
    p = program(
        "batched_matmul",
        [Input("X", dense(h, n, k)), Input("Y", dense(h, k, m))],
        [define("C", {"b": h, "i": n, "j": m}, reduce("add", {"q": k}, mul(at("X", "b", "i", "q"), at("Y", "b", "q", "j"))))],
        "C",
    )
    x, y = _normal(rng, 3, 6, 11), _normal(rng, 3, 11, 18)
    return Case(p, {"X": x, "Y": y}, {"C": _f64(x) @ _f64(y)})


@_case
def sparse_times_dense() -> Case:
    """S = 2 A * D with the pattern of A, A CSC; D is not read elsewhere."""
    rng = np.random.default_rng(21)
    p = program(
        "sparse_times_dense",
        [sparse("A", csc(), n, m), Input("D", dense(n, m))],
        [stored("S", {"i": n, "j": m}, mul(mul(lit(2.0), at("A", "i", "j")), at("D", "i", "j")), "A", "i", "j")],
        "S",
    )
    a, dense_one = random_sparse(rng, 9, 13, order=(1, 0)), _normal(rng, 9, 13)
    return Case(p, {"A": a, "D": dense_one}, {"S": 2 * _f64(a) * dense_one})


@_case
def dense_plus_sparse() -> Case:
    """Y = D + exp(A): A is read where it is not stored."""
    rng = np.random.default_rng(22)
    p = program(
        "dense_plus_sparse",
        [sparse("A", csr(), n, m), Input("D", dense(n, m))],
        [define("Y", {"i": n, "j": m}, add(at("D", "i", "j"), op("exp", at("A", "i", "j"))))],
        "Y",
    )
    a, dense_one = random_sparse(rng, 9, 13), _normal(rng, 9, 13)
    return Case(p, {"A": a, "D": dense_one}, {"Y": dense_one + np.exp(_f64(a))})


def _mttkrp(name: str, format: Format, seed: int) -> Case:
    rng = np.random.default_rng(seed)
    product = mul(at("T", "i", "k", "l"), at("B", "k", "j"), at("C", "l", "j"))
    p = program(
        name,
        [sparse("T", format, n, c, h), Input("B", dense(c, m)), Input("C", dense(h, m))],
        [define("Y", {"i": n, "j": m}, reduce("add", {"k": c, "l": h}, product, within("T", "i", "k", "l")))],
        "Y",
    )
    mask = rng.random((7, 6, 5)) < 0.3
    mask[0], mask[1] = False, True
    found = np.nonzero(mask)
    by = np.lexsort([found[d] for d in format.order][::-1])
    t = SparseValue(tuple(x[by] for x in found), _normal(rng, len(by)), mask.shape)
    b, c_ = _normal(rng, 6, 21), _normal(rng, 5, 21)
    return Case(p, {"T": t, "B": b, "C": c_}, {"Y": np.einsum("ikl,kj,lj->ij", _f64(t), _f64(b), _f64(c_))})


@_case
def mttkrp() -> Case:
    """Y = T_(0) (B x C by columns), T a tree of fibres that starts with the mode that is kept."""
    return _mttkrp("mttkrp", csf(3), 23)


@_case
def mttkrp_of_the_middle() -> Case:
    """The same where the kept mode lies between the others: each fibre is summed before it is scattered."""
    return _mttkrp("mttkrp_of_the_middle", csf(3, order=(1, 0, 2)), 24)


@_case
def mttkrp_by_dense_rows() -> Case:
    """The same with a dense level of rows above two compressed ones."""
    form = csf(3)
    return _mttkrp("mttkrp_by_dense_rows", dataclasses.replace(form, name="rows", levels=(Dense(), *form.levels[1:])), 25)
