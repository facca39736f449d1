"""Sparse arrays and matrices of SciPy under tracing: what keeps a pattern, what becomes dense, what is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp

from polyai.errors import PolyAIError, TraceError, UnsupportedError
from polyai.frontend.surface import functions as pa
from polyai.frontend.trace import trace
from polyai.frontend.traced import ArrayOut
from tests.frontend.helpers import compare, same, traced_run

pytestmark = pytest.mark.usefixtures("engine")
RNG = np.random.default_rng(5)


def matrix(n: int = 6, m: int = 5, format: str = "csr", dtype: Any = np.float64) -> Any:
    """Random, with an empty row and an empty column."""
    d = np.where(RNG.random((n, m)) < 0.4, RNG.standard_normal((n, m)) * 3, 0).astype(dtype)
    if n > 1 and m > 1:
        d[1], d[:, 2 % m] = 0, 0
    return getattr(sp, f"{format}_array")(d)


X, Y, D, V, W = RNG.standard_normal((5, 3)), RNG.standard_normal((4, 6)), RNG.standard_normal((6, 5)), RNG.standard_normal(5), RNG.standard_normal(6)
FORMATS = ["csr", "csc", "coo"]

Call = Callable[..., Any]
CALLS: list[tuple[str, Call, Call | None, tuple[Any, ...]]] = [
    ("A @ X", lambda A, x: A @ x, None, (X,)),
    ("A @ v", lambda A, v: A @ v, None, (V,)),
    ("X @ A", lambda A, y: y @ A, None, (Y,)),
    ("v @ A", lambda A, w: w @ A, None, (W,)),
    ("A.T @ X", lambda A, d: A.T @ d, None, (D,)),
    ("dot", lambda A, x: A.dot(x), None, (X,)),
    ("A.T.T @ X", lambda A, x: A.T.T @ x, None, (X,)),
    ("batched", lambda A, c: pa.matmul(A, c), lambda A, c: A.toarray() @ c, (RNG.standard_normal((2, 5, 3)),)),
    ("GCN", lambda A, x, w: pa.relu(A @ (x @ w)), lambda A, x, w: np.maximum(A @ (x @ w), 0), (X, RNG.standard_normal((3, 2)))),
    ("A * D", lambda A, d: A * d, None, (D,)),
    ("D * A", lambda A, d: d * A, lambda A, d: A * d, (D,)),
    ("A * v", lambda A, v: A * v, None, (V,)),
    ("A * column", lambda A, w: A * w[:, None], None, (W,)),
    ("A / D", lambda A, d: A / d, None, (D,)),
    ("scaled", lambda A, d: (A * 2, 3.0 * A, A / 2, -A, A * d[0, 0], A * np.float32(2)), None, (D,)),
    ("A * A", lambda A: A * A - A * 2 + A.multiply(A), None, ()),
    ("own functions", lambda A: (abs(A), A.power(2), A**2, A.conj(), A.astype(np.float32), A.copy()), None, ()),
    ("zeros stay zeros", lambda A: (pa.sqrt(abs(A)), pa.sin(A), pa.tanh(A), pa.expm1(A), pa.sign(A), pa.floor(A)), lambda A: (np.sqrt(abs(A)), A.sin(), A.tanh(), A.expm1(), A.sign(), A.floor()), ()),
    ("relu", lambda A: pa.relu(A), lambda A: A.maximum(0), ()),
    ("threshold", lambda A: (A > 0.5, A != 0, A < 0), None, ()),
    ("where", lambda A: pa.where(A > 0, A, 0), lambda A: A.maximum(0), ()),
    ("gelu", lambda A: pa.gelu(A), lambda A: _gelu(A.toarray()), ()),
    ("sums", lambda A: (A.sum(), A.sum(axis=0), A.sum(axis=1), A.sum(axis=-1)), None, ()),
    ("means", lambda A: (A.mean(), A.mean(axis=0), A.mean(axis=1)), None, ()),
    ("extremes", lambda A: (A.max(), A.min()), None, ()),
    ("extremes of rows", lambda A: (A.max(axis=1), A.min(axis=0), A.max(axis=0)), lambda A: (A.toarray().max(1), A.toarray().min(0), A.toarray().max(0)), ()),
    ("A + D", lambda A, d: (A + d, d + A, A - d, d - A, A + d[0]), None, (D,)),
    ("toarray", lambda A: (A.toarray(), A.todense().sum(axis=1)), None, ()),
    ("transpose", lambda A: (A.T, (A * 2).T), None, ()),
    ("transposed product", lambda A: A.T * 2 + A.T, None, ()),
    ("diagonal", lambda A: (A.diagonal(), A.trace()), None, ()),
    ("shape", lambda A: (A.shape, A.ndim, A.nnz), None, ()),
    ("row normalised", lambda A: A / (A.sum(axis=1)[:, None] + 10.0), None, ()),
    ("softmax of rows", lambda A: pa.softmax(A), lambda A: _softmax(A, 1), ()),
    ("softmax of columns", lambda A: pa.softmax(A, axis=0), lambda A: _softmax(A, 0), ()),
    ("log_softmax", lambda A: pa.map_stored(lambda e: pa.exp(e), pa.log_softmax(A)), lambda A: _softmax(A, 1), ()),
    ("norm", lambda A: pa.norm(A), lambda A: np.float64(np.linalg.norm(A.toarray())), ()),
    ("tril", lambda A: (pa.tril(A), pa.triu(A, 1)), lambda A: (sp.tril(A), sp.triu(A, 1)), ()),
    ("sddmm", lambda A, q, k: pa.sddmm(q, k, A), lambda A, q, k: A * (q @ k.T), (RNG.standard_normal((6, 3)), X)),
    ("einsum spmm", lambda A, x: pa.einsum("ij,jk->ik", A, x), lambda A, x: A @ x, (X,)),
    ("einsum transposed", lambda A, x: pa.einsum("ji,jk->ik", A, x), lambda A, x: A.T @ x, (D,)),
    ("einsum second operand", lambda A, y: pa.einsum("ki,ij->kj", y, A), lambda A, y: y @ A, (Y,)),
    ("einsum sddmm", lambda A, q, k: pa.einsum("ij,ik,jk->ij", A, q, k), lambda A, q, k: A * (q @ k.T), (RNG.standard_normal((6, 3)), X)),
    ("einsum turned", lambda A, d: pa.einsum("ij,ij->ji", A, d), lambda A, d: (A * d).T, (D,)),
    ("einsum scalar", lambda A, d: pa.einsum("ij,ij->", A, d), lambda A, d: (A * d).sum(), (D,)),
    ("einsum outer", lambda A, v: pa.einsum("ij,k->ijk", A, v), lambda A, v: A.toarray()[..., None] * v, (V,)),
    ("einsum chain", lambda A, x, z: pa.einsum("ij,jk,kl->il", A, x, z), lambda A, x, z: A @ x @ z, (X, RNG.standard_normal((3, 2)))),
    ("einsum row sums", lambda A: pa.einsum("ij->i", A), lambda A: A.sum(axis=1), ()),
    ("quadratic form", lambda A, w, v: pa.einsum("i,ij,j->", w, A, v), lambda A, w, v: w @ (A @ v), (W, V)),
]  # fmt: skip


def _gelu(x: Any) -> Any:
    from scipy.special import erf

    return 0.5 * x * (1 + erf(x / np.sqrt(2)))


def _softmax(A: Any, axis: int) -> Any:
    stored = A.toarray() != 0
    masked = np.where(stored, A.toarray(), -np.inf)
    with np.errstate(all="ignore"):
        e = np.exp(masked - masked.max(axis=axis, keepdims=True))
        return np.where(stored, e / e.sum(axis=axis, keepdims=True), 0)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize(("fn", "reference", "args"), [c[1:] for c in CALLS], ids=[c[0] for c in CALLS])
def test_calls(fn: Call, reference: Call | None, args: tuple[Any, ...], format: str) -> None:
    A = matrix(format=format)
    if reference is None and format != "csr":
        reference = lambda a, *rest: fn(a.tocsr(), *rest)  # noqa: E731
    compare(fn, reference or fn, A, *args)


@pytest.mark.parametrize("dtype", [np.float32, np.int32, np.int8, np.complex128, np.bool_])
def test_types_follow_scipy(dtype: Any) -> None:
    A, x = matrix(dtype=dtype), X.astype(np.float32)
    if dtype != np.bool_:
        compare(lambda a, b: a @ b, lambda a, b: a @ b, A, x, tolerance=1e-5)
        compare(lambda a: a * 2, lambda a: a * 2, A)
    compare(lambda a: a.sum(axis=0), lambda a: np.asarray(a.sum(axis=0)).astype(np.sum(a.toarray()).dtype), A, tolerance=1e-5)


@pytest.mark.parametrize("shape", [(0, 0), (0, 3), (3, 0), (1, 1), (1, 4)])
def test_sizes_zero_and_one(shape: tuple[int, int]) -> None:
    A = sp.csr_array(RNG.standard_normal(shape))
    x = RNG.standard_normal((shape[1], 2))
    compare(lambda a, b: a @ b, lambda a, b: a @ b, A, x)
    compare(lambda a: (a * 2, a.sum(axis=0), a.T, pa.softmax(a)), lambda a: (a * 2, a.sum(axis=0), a.T, _softmax(a, 1) if a.nnz else a), A)


def test_results_that_keep_a_pattern_name_its_owner() -> None:
    traced = trace(lambda A, d: (pa.relu(A.T), A * d, A @ A.sum(axis=0)), (matrix(), D), {})
    first, second, third = traced.outputs
    assert isinstance(first, ArrayOut) and (first.owner, first.dims) == ("A", (1, 0))
    assert isinstance(second, ArrayOut) and (second.owner, second.dims) == ("A", (0, 1))
    assert isinstance(third, ArrayOut) and third.owner is None


def test_a_matrix_of_scipy_multiplies_by_star() -> None:
    A = sp.csr_matrix(matrix())
    compare(lambda a, x: a * x, lambda a, x: a * x, A, X)
    compare(lambda a, x: x * a, lambda a, x: x * a, A, Y)
    compare(lambda a: a * 2, lambda a: a * 2, A)
    compare(lambda a, d: a.multiply(d), lambda a, d: a.multiply(d), A, D)
    compare(lambda a: a.sum(axis=1), lambda a: np.asarray(a.sum(axis=1)), A)
    compare(lambda a: a.mean(axis=0), lambda a: np.asarray(a.mean(axis=0)), A)
    S = sp.csr_matrix(A.T @ A)
    compare(lambda a: a**2, lambda a: a**2, S)
    compare(lambda a: a**3, lambda a: a**3, S)
    with pytest.raises(UnsupportedError, match=r"exponent 0\.5"):
        trace(lambda a: a**0.5, (S,), {})


def test_products_with_an_implicit_zero_annihilate_infinities() -> None:
    d = D.copy()
    d[0, 0] = np.inf
    A = matrix()
    A = A - sp.csr_array(([A[0, 0]], ([0], [0])), shape=A.shape)
    A.eliminate_zeros()
    got = traced_run(lambda a, b: a * b, A, d).todense()
    assert np.isfinite(got).all()


def test_sparse_attention() -> None:
    A, q, k, v = matrix(7, 6), RNG.standard_normal((7, 4)), RNG.standard_normal((6, 4)), RNG.standard_normal((6, 3))

    def reference(A: Any, q: Any, k: Any, v: Any, bias: bool) -> Any:
        scores = q @ k.T / 2.0 + (A.toarray() if bias else 0)
        return _softmax(sp.csr_array(np.where(A.toarray() != 0, scores, 0)), 1) @ v

    for bias in (False, True):
        compare(lambda A, q, k, v, b=bias: pa.sparse_attention(q, k, v, A, bias=b), lambda A, q, k, v, b=bias: reference(A, q, k, v, b), A, q, k, v)
    compare(lambda A, q, k, v: pa.sparse_attention(q, k, v, mask=A, scale=0.5), lambda A, q, k, v: reference(A, q, k, v, False), A, q, k, v)
    assert trace(lambda A, q, k, v: pa.sparse_attention(q, k, v, A), (A, q, k, v), {}).needs_unique == ("A",)


def test_graph_attention_network() -> None:
    A, h, a, b = matrix(6, 6), RNG.standard_normal((6, 4)), RNG.standard_normal(4), RNG.standard_normal(4)

    def gat(A: Any, h: Any, a: Any, b: Any) -> Any:
        score = pa.map_stored(lambda e, x, y: pa.leaky_relu(x + y, 0.2), A, (h @ a)[:, None], h @ b)
        return pa.softmax(score) @ h

    def reference(A: Any, h: Any, a: Any, b: Any) -> Any:
        s = (h @ a)[:, None] + h @ b
        s = np.where(s > 0, s, 0.2 * s)
        return _softmax(sp.csr_array(np.where(A.toarray() != 0, s, 0)), 1) @ h

    compare(gat, reference, A, h, a, b)


def test_linear_operations_do_not_need_unique_coordinates() -> None:
    assert trace(lambda A, x: (A * 2) @ x + A.sum(), (matrix(), X), {}).needs_unique == ()
    for linear in (lambda A, x: A * x[:, 0] / 2, lambda A, x: A.T @ A.sum(axis=1), lambda A, x: pa.relu(A @ x), lambda A, x: A + A.mean(axis=0)):
        assert trace(linear, (matrix(), X), {}).needs_unique == ()
    for other in (lambda A, x: pa.relu(A) @ x, lambda A, x: A * A, lambda A, x: A.max(axis=0), lambda A, x: pa.softmax(A) @ x,
                  lambda A, x: pa.norm(A), lambda A, x: pa.count_nonzero(A), lambda A, x: pa.ones_where_stored(A),
                  lambda A, x: A.astype(np.int32), lambda A, x: pa.einsum("ij,ij->i", A, A * 2)):  # fmt: skip
        assert trace(other, (matrix(), X), {}).needs_unique == ("A",)


def test_a_captured_matrix_becomes_an_input() -> None:
    A = matrix()
    traced = trace(lambda x: pa.matmul(A, x), (X,), {})
    assert [i.kind for i in traced.inputs] == ["array", "sparse"]
    same(traced_run(lambda x: pa.matmul(A, x), X), A @ X)


TWO: list[tuple[str, Call, Call]] = [
    ("sums", lambda A, B, S: (A + B, A - B, A + 2 * B - A), lambda A, B, S: (A + B, A - B, 2 * B)),
    ("products", lambda A, B, S: (A * B, A.multiply(B), (A + B) * B), lambda A, B, S: (A * B, A * B, (A + B) * B)),
    ("extremes", lambda A, B, S: (np.maximum(A, B), A.minimum(B)), lambda A, B, S: (A.maximum(B), A.minimum(B))),
    ("comparisons", lambda A, B, S: (A != B, A < B, A > B), lambda A, B, S: (A != B, A < B, A > B)),
    ("where", lambda A, B, S: pa.where(A > 0, B, 0), lambda A, B, S: np.where((A > 0).toarray(), B.toarray(), 0)),
    ("products of matrices", lambda A, B, S: (A @ B.T, A @ A.T, A.T @ B), lambda A, B, S: (A @ B.T, A @ A.T, A.T @ B)),
    ("powers", lambda A, B, S: (S @ S, S @ S @ S), lambda A, B, S: (S @ S, S @ S @ S)),
    ("with itself turned", lambda A, B, S: S + S.T, lambda A, B, S: S + S.T),
    ("masked product", lambda A, B, S: (A @ B.T) * S, lambda A, B, S: (A @ B.T) * S),
    ("einsum", lambda A, B, S: (pa.einsum("ij,kj->ik", A, B), pa.einsum("ij,ij->", A, B)), lambda A, B, S: (A @ B.T, (A * B).sum())),
    ("einsum chain", lambda A, B, S: pa.einsum("ij,ki,kl->jl", A, S, S), lambda A, B, S: A.T @ (S.T @ S)),
    ("then dense", lambda A, B, S: ((A + B).sum(axis=1), (A @ B.T).sum(), (S @ S).diagonal()), lambda A, B, S: ((A + B).sum(axis=1), (A @ B.T).sum(), (S @ S).diagonal())),
    ("then a vector", lambda A, B, S: (A + B) @ A.sum(axis=0), lambda A, B, S: (A + B) @ A.sum(axis=0)),
    ("then relu", lambda A, B, S: (pa.relu(A + B), pa.relu(A @ B.T)), lambda A, B, S: ((A + B).maximum(0), (A @ B.T).maximum(0))),
    ("softmax of the union", lambda A, B, S: pa.softmax(A * A + B * B), lambda A, B, S: _softmax(A * A + B * B, 1)),
    ("outer", lambda A, B, S: pa.einsum("ij,kl->ijkl", A, B), lambda A, B, S: np.einsum("ij,kl->ijkl", A.toarray(), B.toarray())),
]  # fmt: skip


@pytest.mark.parametrize("formats", [("csr", "csr"), ("csc", "csc"), ("coo", "csr")], ids="+".join)
@pytest.mark.parametrize(("fn", "reference"), [t[1:] for t in TWO], ids=[t[0] for t in TWO])
def test_two_sparse_arrays(fn: Call, reference: Call, formats: tuple[str, str]) -> None:
    A, B, S = (matrix(*shape, format=f) for shape, f in zip(((6, 5), (6, 5), (6, 6)), (*formats, formats[0])))
    compare(lambda a, b, s: fn(a, b, s), lambda a, b, s: reference(*(x.tocsr() for x in (a, b, s))), A, B, S)


@pytest.mark.parametrize("dtype", [np.float32, np.int32, np.int8, np.complex128, np.bool_])
def test_types_of_two_sparse_arrays_follow_scipy(dtype: Any) -> None:
    A, B = matrix(dtype=dtype), matrix(dtype=np.float32)
    compare(lambda a, b: (a + b, a * b, a @ b.T, a + a.T.T, a @ a.T), lambda a, b: (a + b, a * b, a @ b.T, a + a, a @ a.T), A, B, tolerance=1e-5)


@pytest.mark.parametrize("shape", [(0, 0), (0, 3), (3, 0), (1, 1), (1, 4)])
def test_two_sparse_arrays_of_sizes_zero_and_one(shape: tuple[int, int]) -> None:
    A, B, none = sp.csr_array(RNG.standard_normal(shape)), sp.csr_array(RNG.standard_normal(shape)), sp.csr_array(shape)
    compare(lambda a, b, c: (a + b, a * b, a @ b.T, a + c, c * a), lambda a, b, c: (a + b, a * b, a @ b.T, a + c, c * a), A, B, none)


def test_star_of_two_matrices_of_scipy_is_their_product() -> None:
    A, B = sp.csr_matrix(matrix(6, 6)), sp.csr_matrix(matrix(6, 6))
    compare(lambda a, b: a * b, lambda a, b: a @ b, A, B)


def test_a_quotient_of_two_is_dense_as_scipys() -> None:
    """With NaN where neither stores anything; by a dense array it keeps the pattern."""
    A, B = matrix(), matrix()
    with np.errstate(all="ignore"):
        compare(lambda a, b: a / b, lambda a, b: a / b, A, B)


REFUSED: list[tuple[str, Call, type[PolyAIError], str]] = [
    ("A + 1", lambda A, B: A + 1, UnsupportedError, "implicit zero becomes 1"),
    ("exp(A)", lambda A, B: pa.exp(A), UnsupportedError, "implicit zero becomes 1.0"),
    ("1 / A", lambda A, B: 1.0 / A, UnsupportedError, "toarray"),
    ("A[None]", lambda A, B: A[None], UnsupportedError, "None as an index of the sparse A"),
    ("A.reshape", lambda A, B: A.reshape(2, 3, 5), UnsupportedError, "reshape of the sparse A"),
    ("tocoo", lambda A, B: A.tocoo(), UnsupportedError, "convert before the call"),
    ("stretched", lambda A, B: A * pa.zeros((2, A.shape[0], A.shape[1])), UnsupportedError, "stretches the sparse A"),
    ("A == B", lambda A, B: A == B, UnsupportedError, "implicit zero becomes True"),
    ("concatenate", lambda A, B: pa.concatenate([A, B.toarray()]), UnsupportedError, "of sparse arrays and the dense"),
    ("searched factor", lambda A, B: pa.einsum("ij,kj,ik,ij->ik", A, B, A @ B.T, B), UnsupportedError, "would be searched"),
    ("product in a branch", lambda A, B: pa.cond(A.sum() > 0, lambda: A @ B.T, lambda: B @ A.T), UnsupportedError, "makes a sparse array inside then"),
    ("sum in a branch", lambda A, B: pa.cond(A.sum() > 0, lambda a, b: a + b, lambda a, b: a - b, A, B), UnsupportedError, "result 0 has two patterns"),
    ("sparse state", lambda A, B: pa.while_loop(lambda x: x.sum() > 0, lambda x: x + B, A), UnsupportedError, "state 0 has two patterns"),
    ("nnz of dense", lambda A, B: (A @ A.sum(axis=0)).nnz, TraceError, "dense"),
]  # fmt: skip


@pytest.mark.parametrize(("fn", "error", "text"), [r[1:] for r in REFUSED], ids=[r[0] for r in REFUSED])
def test_what_is_refused_says_why(fn: Call, error: type[PolyAIError], text: str) -> None:
    with pytest.raises(error, match=text):
        trace(fn, (matrix(), matrix()), {})


@pytest.mark.parametrize("extent", [2**32, 2**33, 2**40, 2**62])
def test_more_elements_than_an_integer_counts(extent: int) -> None:
    values = np.array([-1.0, -2.0, -4.0])
    a = sp.coo_array((values, (np.array([0, 5, extent - 1]), np.array([extent - 1, 7, 0]))), shape=(extent, extent))
    compare(lambda a: (a.mean(), a.max(), (-a).min(), a.min(), a.sum()), lambda a: (np.float64(-7 / extent**2), 0.0, 0.0, -4.0, -7.0), a)
