"""Indexing and shape of sparse matrices under tracing, against SciPy: slices, index arrays, blocks, triangles, other shapes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp

from polyai.errors import IndexOutOfRangeError, PolyAIError, ShapeError, TraceError, UnsupportedError
from polyai.frontend.surface import functions as pa
from polyai.frontend.surface.semiring import semiring
from polyai.frontend.trace import trace
from tests.frontend.helpers import compare, traced_run

pytestmark = pytest.mark.usefixtures("engine")
RNG = np.random.default_rng(11)
FORMATS = ["csr", "csc", "coo"]
Call = Callable[..., Any]


def matrix(n: int = 6, m: int = 5, format: str = "csr", dtype: Any = np.float64) -> Any:
    """Random, with an empty row and an empty column."""
    values = RNG.integers(-4, 5, (n, m)).astype(dtype)
    if np.issubdtype(dtype, np.complexfloating):
        values = values * (1 + 2j)
    d = np.where(RNG.random((n, m)) < 0.5, values, 0).astype(dtype)
    if n > 1 and m > 1:
        d[1], d[:, 2 % m] = 0, 0
    return getattr(sp, f"{format}_array")(d)


ROWS, COLUMNS, MASK = np.array([3, 0, -1, 3]), np.array([1, -1, 1, 4, 0]), np.array([True, False, True, True, False, False])

SLICES: list[tuple[str, Call]] = [
    ("rows", lambda A: (A[1:4], A[::2], A[::-1], A[4:1:-2], A[-3:], A[3:3], A[1:4][0:2])),
    ("columns", lambda A: (A[:, 1:3], A[:, ::2], A[:, 1::3], A[:, ::-1], A[:, -2:], A[:, 3:3])),
    ("both", lambda A: (A[::2, 1:4], A[1:4, ::-2], A[::-1, ::-1], A[2:, :3])),
    ("lines", lambda A: (A[2], A[-1], A[:, 1], A[:, -1], A[1:4, 1], A[3, 1:4], A[3, ::-1], A[3, 2:2])),
    ("elements", lambda A: (A[3, 1], A[-1, -1], A[1, 2], A[[0, 3], [1, 1]].sum())),
    ("constant index arrays", lambda A: (A[[0, 3]], A[:, [1, 1]], A[np.array([4, -1])], A[MASK], A[:, MASK[:5]], A[[0, 3], 1:3], A[[[0], [3]], [1, 2]])),
]


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("fn", [c[1] for c in SLICES], ids=[c[0] for c in SLICES])
def test_indexing_gives_what_scipy_gives(fn: Call, format: str) -> None:
    compare(fn, fn, matrix(format=format))


@pytest.mark.parametrize("format", FORMATS)
def test_index_arrays_are_arguments(format: str) -> None:
    A = matrix(format=format)

    def fn(A: Any, r: Any, c: Any) -> Any:
        return A[r], A[:, c], A[r][:, c], A[r, 1:4], A[r[:3] % 5, c[:3]]

    compare(fn, lambda A, r, c: (A[r], A[:, c], A[r][:, c], A[r, 1:4], np.asarray(A.tocsr()[r[:3] % 5, c[:3]])), A, ROWS, COLUMNS)


@pytest.mark.parametrize("dtype", [np.float32, np.int32, np.int8, np.complex128, np.bool_])
def test_types_stay(dtype: Any) -> None:
    A, r = matrix(dtype=dtype), ROWS
    compare(lambda A, r: (A[1:4], A[r], A[:, ::-1], A[2], A[3, 1], A.T.tocsr()), lambda A, r: (A[1:4], A[r], A[:, ::-1], A[2], A[3, 1], A.T), A, r)


@pytest.mark.parametrize("shape", [(0, 0), (0, 3), (3, 0), (1, 1), (2, 4)])
def test_sizes_zero_and_one(shape: tuple[int, int]) -> None:
    A, none = sp.csr_array(RNG.standard_normal(shape)), np.zeros(0, np.int64)
    compare(lambda A, r: (A[::-1], A[:, 1:], A[r], A[:, r], A[:0]), lambda A, r: (A[::-1], A[:, 1:], A[r], A[:, r], A[:0]), A, none)


def test_what_stores_nothing() -> None:
    A = sp.csr_array((4, 3))
    compare(lambda A: (A[1:3], A[[0, 0]], A[2], A[:, 1:], A[1, 1], A.reshape(2, 6)), lambda A: (A[1:3], A[[0, 0]], A[2], A[:, 1:], A[1, 1], A.reshape(2, 6)), A)


@pytest.mark.parametrize("format", FORMATS)
def test_selected_rows_in_products(format: str) -> None:
    A, X, y = matrix(format=format), RNG.standard_normal((5, 3)), RNG.standard_normal(4)

    def fn(A: Any, r: Any, X: Any, y: Any) -> Any:
        return A[r] @ X, y @ A[r], A[r].T @ y, A[1:4] @ X, A[r] @ A.T, A[r].sum(axis=1), A[::-2] @ X[:, 0], A[:, 1:] @ X[1:]

    compare(fn, fn, A, ROWS, X, y, tolerance=1e-11)


def test_selected_rows_are_walked_where_they_are() -> None:
    traced = trace(lambda A, r, X: A[r] @ X, (matrix(), ROWS, RNG.standard_normal((5, 3))), {})
    assert [type(s).__name__ for s in traced.program.body] == ["Select", "Comprehension"] and not traced.merged


def test_results_are_in_order_and_repeats_add_up(engine: str) -> None:
    if engine == "interp":
        pytest.skip("the interpreter takes coordinates that do not repeat")
    twice = sp.csr_array((np.array([1.0, 2.0, 3.0, 4.0]), np.array([1, 0, 1, 0]), np.array([0, 3, 4])), shape=(2, 2))
    full = twice.toarray()
    got = traced_run(lambda A: (A[::-1], A[:, ::-1], A[0, 1], A[0], A[:, 0], pa.tril(A)), twice)
    for g, w in zip(got, (full[::-1], full[:, ::-1], full[0, 1], full[0], full[:, 0], np.tril(full)), strict=True):
        np.testing.assert_array_equal(g.todense() if hasattr(g, "todense") else g, w)


@pytest.mark.parametrize("bad", [[6], [-7], [0, 99]])
@pytest.mark.parametrize("fn", [lambda A, r: A[r], lambda A, r: A[:, r], lambda A, r: A[r] @ A.T, lambda A, r: A[r, 0], lambda A, r: A[r, r]])
def test_index_arrays_are_checked(fn: Call, bad: list[int]) -> None:
    with pytest.raises(IndexOutOfRangeError, match=r"index (-?\d+)|selects outside"):
        traced_run(fn, matrix(6, 6), np.array(bad))


REFUSED: list[tuple[str, Call, type[PolyAIError], str]] = [
    ("row", lambda A: A[7], IndexOutOfRangeError, "index 7 of dimension 0 of A"),
    ("column", lambda A: A[0, -6], IndexOutOfRangeError, "index -6 of dimension 1 of A"),
    ("index array", lambda A: A[[9]], IndexOutOfRangeError, "index 9 of dimension 0 of A"),
    ("three indices", lambda A: A[0, 0, 0], ShapeError, "3 indices for 2 dimensions"),
    ("mask of another length", lambda A: A[np.array([True, False])], ShapeError, r"a mask of shape \(2,\)"),
    ("matrix of indices", lambda A: A[np.zeros((2, 2), int)], UnsupportedError, "index arrays of several dimensions"),
    ("floats", lambda A: A[[0.5]], TraceError, "an index array of type f64"),
    ("step 0", lambda A: A[::0], ShapeError, "step 0"),
    ("blocks that do not fit", lambda A: pa.hstack([A, A.T]), ShapeError, "sizes of blocks differ"),
    ("an empty column of blocks", lambda A: pa.block_array([[A, None]]), ShapeError, "stores nothing"),
    ("rows of blocks", lambda A: pa.block_array([[A, A], [A]]), ShapeError, "different numbers of blocks"),
    ("dense block", lambda A: pa.vstack([A, A.toarray()]), UnsupportedError, "would store all of it"),
    ("uneven reshape", lambda A: A.reshape(7, 5), ShapeError, "30 elements"),
    ("kron with dense", lambda A: pa.kron(A, A.toarray()), UnsupportedError, "kron with a dense matrix"),
    ("stretched sum", lambda A: A + A[:1], UnsupportedError, "stretches the sparse"),
    ("semiring", lambda A: pa.einsum("ij,ij->", A, A, semiring=semiring("min", "add")), UnsupportedError, "no product of two matrices"),
    ("complement of a dense product", lambda A: pa.matmul(A, A.T.toarray(), mask=A @ A.T, complement=True), UnsupportedError, "the result would be dense"),
]  # fmt: skip


@pytest.mark.parametrize(("fn", "error", "text"), [r[1:] for r in REFUSED], ids=[r[0] for r in REFUSED])
def test_what_is_refused_says_why(fn: Call, error: type[PolyAIError], text: str) -> None:
    with pytest.raises(error, match=text):
        trace(fn, (matrix(),), {})


@pytest.mark.parametrize("format", FORMATS)
def test_triangles_and_diagonals(format: str) -> None:
    A, x = matrix(format=format), RNG.standard_normal(5)

    def fn(pa: Any, A: Any, x: Any) -> Any:
        lines = (A.diagonal(), A.diagonal(1), A.diagonal(-2), A.diagonal(4), A.trace(), A.trace(1))
        return (pa.tril(A), pa.triu(A, 1), pa.tril(A, -2), pa.tril(A) @ x, pa.triu(A).sum(axis=0), *lines)

    compare(lambda A, x: fn(pa, A, x), lambda A, x: fn(sp, A, x), A, x)


def test_a_triangle_stores_what_it_holds() -> None:
    A = sp.csr_array(np.array([[1.0, 2, 0], [0, 3, 4], [5, 0, 6]]))
    got = traced_run(lambda A: pa.tril(A), A)
    assert got.nnz == sp.tril(A).nnz == 4


@pytest.mark.parametrize("format", FORMATS)
def test_blocks(format: str) -> None:
    A, B, S = matrix(format=format), matrix(format=format), matrix(5, 4, format)

    def fn(pa: Any, A: Any, B: Any, S: Any) -> Any:
        return pa.vstack([A, B]), pa.hstack([A, B, A]), pa.vstack([A, B, A, B]), pa.block_diag([A, S]), pa.block_array([[A, None], [B, A]])

    compare(lambda *a: fn(pa, *a), lambda *a: fn(sp, *a), A, B, S)


@pytest.mark.parametrize("format", FORMATS)
def test_kronecker_products_and_other_shapes(format: str) -> None:
    A, S = matrix(format=format), matrix(3, 4, format)

    def fn(pa: Any, A: Any, S: Any) -> Any:
        return pa.kron(A, S), pa.kron(S.T, A), A.reshape(5, 6), A.reshape(-1, 10), A.reshape(30, 1), A.reshape(30)

    compare(lambda *a: fn(pa, *a), lambda *a: fn(sp, *a), A, S)


@pytest.mark.parametrize("format", FORMATS)
def test_masks_with_complement(format: str) -> None:
    A, B, M = matrix(format=format), matrix(5, 4, format), matrix(6, 4, format)
    ring = semiring("max", "mul")

    def fn(A: Any, B: Any, M: Any) -> Any:
        return pa.matmul(A, B, mask=M, complement=True), pa.matmul(A, B, mask=M, complement=True, semiring=ring)

    def reference(A: Any, B: Any, M: Any) -> Any:
        a, b, free = A.toarray(), B.toarray(), M.toarray() == 0
        pairs = np.where((a != 0)[:, :, None] & (b != 0)[None], a[:, :, None] * b[None], -np.inf).max(1)
        return sp.csr_array(np.where(free, a @ b, 0)), sp.csr_array(np.where(free & np.isfinite(pairs), pairs, 0))

    compare(fn, reference, A, B, M)


@pytest.mark.parametrize("format", FORMATS)
def test_sparse_rows_columns_and_vectors(format: str) -> None:
    A, R, C = matrix(format=format), matrix(1, 5, format), matrix(6, 1, format)
    u, v = sp.coo_array(np.array([0, 2.0, 0, 3, 1])), sp.coo_array(np.array([1.0, 0, 0, 2, 0]))

    def fn(A: Any, R: Any, C: Any, u: Any, v: Any) -> Any:
        return A * R, C * A, (A * R) @ u.toarray(), A * R + A, u + v, u - v, u * v, A[2] + A[3], (A[2] + A[3]) * 2, A[2] * u, u @ v

    def reference(A: Any, R: Any, C: Any, u: Any, v: Any) -> Any:
        a = A.tocsr()
        return a.multiply(R), a.multiply(C), a.multiply(R) @ u.toarray(), a.multiply(R) + a, u + v, u - v, u * v, a[[2]].toarray()[0] + a[[3]].toarray()[0], 2 * (a[[2]] + a[[3]]).toarray()[0], a[[2]].toarray()[0] * u.toarray(), u @ v

    compare(fn, reference, A, R, C, u, v)


def test_infinities_beside_what_is_not_stored_count_for_nothing() -> None:
    A, u = matrix(), sp.coo_array(np.array([0, 2.0, 0, 3, 1]))
    A.data[0] = np.inf
    dense = A.toarray()
    there = u.toarray() != 0
    with np.errstate(invalid="ignore"):
        product = np.where(there & (dense != 0), dense * u.toarray(), 0)
    compare(lambda A, u: (A * u, A @ u, pa.einsum("ij,j->ij", A, u)), lambda A, u: (product, product.sum(1), product), A, u)


@pytest.mark.parametrize("format", FORMATS)
def test_products_in_a_triangle(format: str) -> None:
    A, B, C = matrix(format=format), matrix(5, 4, format), matrix(6, 4, format)
    Q = matrix(7, 7, format)

    def fn(xp: Any, A: Any, B: Any, C: Any, Q: Any) -> Any:
        return xp.einsum("ij,jk,ik->", A, B, C), xp.einsum("ij,jk,ik->ik", A, B, C), xp.einsum("ij,jk,ki->i", A, B, C.T), xp.einsum("ij,jk,ki->", Q, Q, Q)

    compare(lambda *a: fn(pa, *a), lambda *a: fn(np, *(x.toarray() for x in a)), A, B, C, Q)


def test_einsum_over_a_semiring() -> None:
    G, ring = abs(matrix(6, 6)), semiring("max", "mul")
    want = (G.toarray()[:, :, None] * G.toarray()[None]).max(1)
    compare(lambda G: (pa.einsum("ij,jk->ik", G, G, semiring=ring), pa.einsum("ji,kj->ik", G.T, G.T, semiring=ring)), lambda G: (want, want), G)


def test_comparisons_with_dense_arrays_are_dense() -> None:
    A, D = matrix(), RNG.standard_normal((6, 5))
    compare(lambda A, D: (A > D, A != D, D <= A, A.maximum(D)), lambda A, D: (A > D, A != D, A.toarray() >= D, A.maximum(D)), A, D)


def test_norms() -> None:
    A, norm = matrix(), sp.linalg.norm
    compare(lambda A: (pa.norm(A), pa.norm(A, 1), pa.norm(A, np.inf), pa.norm(A, -1)), lambda A: (norm(A), norm(A, 1), norm(A, np.inf), norm(A, -1)), A)


def test_arg_extremes_find_what_is_not_stored() -> None:
    d = np.array([[-1.0, -2, -3, -1], [0, 0, 0, 0], [-1, -1, 0, -1], [0, -1, -1, 2], [3, 1, 3, 0], [-1, -1, -1, 0]])
    compare(
        lambda A: (A.argmax(axis=1), A.argmin(axis=0), A.argmax(), A.nanmax(), A.nanmin(axis=1)),
        lambda A: (d.argmax(1), d.argmin(0), d.argmax(), d.max(), d.min(1)),
        sp.csr_array(d),
    )
