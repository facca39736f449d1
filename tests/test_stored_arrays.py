"""`A.data`, `A.indices`, `A.indptr` inside compiled functions, read and put back, and diagonals: what the same function gives on SciPy's arrays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp

import polyai as pa
from polyai.errors import ShapeError, TraceError, UnsupportedError

RNG = np.random.default_rng(3)
D, E = RNG.random(7) + 1, RNG.random(5) + 1


def same(f: Callable[..., Any], *formats: str, others: tuple[Any, ...] = ()) -> None:
    for form in formats or ("csr", "csc", "coo"):
        a = sp.random_array((7, 5), density=0.4, format=form, rng=RNG)
        kept = a.data.copy()
        found, wanted = pa.jit(f)(a, *others), f(a.copy(), *others)
        np.testing.assert_array_equal(a.data, kept)
        for one, other in zip(*(v if isinstance(v, tuple) else (v,) for v in (found, wanted)), strict=True):
            assert sp.issparse(one) == sp.issparse(other)
            x, y = (np.asarray(v.toarray() if sp.issparse(v) else v) for v in (one, other))
            assert x.dtype == y.dtype
            np.testing.assert_allclose(x, y, rtol=1e-12, err_msg=form)


def test_what_is_stored_is_read_in_the_order_of_storage() -> None:
    same(lambda A: (A.data, A.data.sum(), (A.data * 2 + 1).max()))
    same(lambda A: (A.indices, A.indptr, np.diff(A.indptr)), "csr", "csc")
    same(lambda A: (A.row, A.col, A.coords[0]), "coo")
    same(lambda A: (A + A.multiply(A)).data.sum(), "csr")


def test_vectors_along_the_pattern_are_put_back() -> None:
    def mapped(A: Any) -> Any:
        B = A.copy()
        B.data = np.exp(B.data) - A.data
        return B

    def scaled(A: Any) -> Any:
        B = A.copy()
        B.data *= 2
        B.data += 1
        return B, A, B.sum(axis=0)

    def filled(A: Any) -> Any:
        B = A * 3
        B.data[:] = 1.0
        return B @ np.ones(5)

    def cut(A: Any) -> Any:
        B = A.copy()
        d = B.data
        d[d < 0.5] = 0
        return B, d.sum()

    def computed(A: Any) -> Any:
        C = A.tocsr() @ A.T
        C.data = np.sqrt(C.data) / A.data.sum()
        return C

    for f in (mapped, scaled, filled, cut, computed):
        same(f)


def test_what_a_vector_gathers_along_the_pattern_is_put_back() -> None:
    def columns(A: Any, e: Any) -> Any:
        B = A.copy()
        B.data = B.data / e[B.indices]
        return B

    def both(A: Any, d: Any, e: Any) -> Any:
        B = A.copy()
        B.data = d[B.row] * B.data * e[B.col]
        return B

    same(columns, "csr", others=(E,))
    same(both, "coo", others=(D, E))


def test_diagonals_are_set_in_copies() -> None:
    def number(A: Any) -> Any:
        B = A.copy()
        B.setdiag(3.0)
        B.setdiag(1.0, -2)
        return B, B.sum(axis=1)

    def vector(A: Any) -> Any:
        B = A * 2
        B.setdiag(E[:4], k=1)
        return B

    for f in (number, vector):
        same(f, "csr", "csc")


@pytest.mark.parametrize("kind", ("ordered", "by columns", "list", "backwards", "repeated", "empty"))
@pytest.mark.parametrize("name", ("eliminate_zeros", "sum_duplicates", "sort_indices"))
def test_copies_are_put_in_order_and_lose_their_zeros(name: str, kind: str) -> None:
    a = sp.random_array((7, 5), density=0.6, format="csr", rng=np.random.default_rng(3))
    a.data[::3] = 0
    given: Any = {
        "ordered": lambda: a, "by columns": a.tocsc, "list": a.tocoo, "empty": lambda: sp.csr_array((3, 0)),
        "backwards": lambda: sp.csr_array((a.data[::-1].copy(), a.indices[::-1].copy(), a.nnz - a.indptr[::-1]), shape=a.shape),
        "repeated": lambda: sp.csr_array((np.array([1.0, 2.0, -1.0, 0.0, 4.0]), np.array([2, 2, 0, 0, 1]), np.array([0, 2, 4, 5, 5, 5, 5, 5])), shape=a.shape),
    }[kind]()  # fmt: skip
    x = np.random.default_rng(4).standard_normal(given.shape[1])

    def program(A: Any, x: Any) -> Any:
        B = A.copy()
        getattr(B, name)()
        return B, B @ x, B.nnz

    before = given.copy()
    found, product, count = pa.jit(program)(given, x)
    wanted = given.tocsr(copy=True)
    wanted.sum_duplicates()
    if name == "eliminate_zeros":
        wanted.eliminate_zeros()
    np.testing.assert_allclose(found.toarray(), wanted.toarray())
    np.testing.assert_allclose(product, wanted @ x, atol=1e-12)
    assert found.has_canonical_format and found.nnz == int(count) == wanted.nnz
    np.testing.assert_array_equal(given.data, before.data)


def test_what_would_change_an_argument_or_has_no_place_is_refused() -> None:
    a = sp.random_array((7, 5), density=0.4, format="csr", rng=RNG)

    def argument(A: Any) -> Any:
        A.data *= 2
        return A

    def strange(A: Any) -> Any:
        B = A.copy()
        B.data = np.cumsum(B.data)
        return B

    def one(A: Any) -> Any:
        B = A.copy()
        B.data[2] = 1
        return B

    def long(A: Any) -> Any:
        B = A.copy()
        B.setdiag(D)
        return B

    for f, error, text in (
        (argument, UnsupportedError, "it is an argument"),
        (lambda A: A.eliminate_zeros(), UnsupportedError, "it is an argument"),
        (lambda A: A.sum_duplicates(), UnsupportedError, "it is an argument"),
        (strange, UnsupportedError, "does not lie along its pattern"),
        (one, TraceError, r"B\.data\[B\.data < 0\] = 0"),
        (long, ShapeError, "setdiag"),
    ):
        with pytest.raises(error, match=text):
            pa.jit(f)(a)
    assert not pa.jit(lambda A: pa.sum(A) if hasattr(A, "blocksize") else pa.sum(A) * 0)(a)


def test_the_number_of_elements_of_a_result_is_returned() -> None:
    a = sp.random_array((7, 5), density=0.4, format="csr", rng=RNG)
    count, mean = pa.jit(lambda A: ((A @ A.T).nnz, (A @ A.T).sum() / (A @ A.T).nnz))(a)
    product = a @ a.T
    assert count == product.nnz
    np.testing.assert_allclose(mean, product.sum() / product.nnz)
