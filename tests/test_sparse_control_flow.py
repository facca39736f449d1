"""Sparse results and states of cond, while_loop, fori_loop and scan: values along a pattern that is known before."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp

import polyai as pa
from polyai.errors import UnsupportedError

rng = np.random.default_rng(0)
A = sp.random_array((7, 7), density=0.4, format="csr", rng=rng)
B = sp.random_array((7, 7), density=0.4, format="csr", rng=rng)
DA, DB = A.toarray(), B.toarray()
x = rng.random(7)
T3 = rng.random((3, 4, 5)) * (rng.random((3, 4, 5)) < 0.3)

Case = tuple[Callable[..., Any], Callable[[], Any]]


def powers(S: Any, k: Any) -> Any:
    return pa.fori_loop(0, k, lambda i, s: s * 2 + s * s, S)


def powers_of(D: Any) -> Any:
    for _ in range(3):
        D = D * 2 + D * D
    return D


CASES: dict[str, Case] = {
    "chosen": (lambda a, b, v: pa.cond(v[0] > 0, lambda: a * 2, lambda: a * 3), lambda: DA * 2),
    "not chosen": (lambda a, b, v: pa.cond(v[0] < 0, lambda: a * 2, lambda: pa.sqrt(a)), lambda: np.sqrt(DA)),
    "as it is": (lambda a, b, v: pa.cond(v[0] > 0, lambda: a, lambda: a * 3), lambda: DA),
    "beside a dense one": (lambda a, b, v: pa.cond(v[0] > 0, lambda: (a * 2, v), lambda: (a, v * 2))[0] @ v, lambda: DA * 2 @ x),
    "looped": (lambda a, b, v: powers(a, 3), lambda: powers_of(DA)),
    "of a map": (lambda a, b, v: powers(pa.sqrt(a), 3), lambda: powers_of(np.sqrt(DA))),
    "until": (lambda a, b, v: pa.while_loop(lambda s: pa.sum(s) < 100, lambda s: s * 1.5, a), lambda: DA * 1.5 ** np.ceil(np.log(100 / DA.sum()) / np.log(1.5))),
    "reads what is outside": (lambda a, b, v: pa.fori_loop(0, 3, lambda i, s: s + a * v, a), lambda: DA + 3 * DA * x),
    "two states": (lambda a, b, v: pa.fori_loop(0, 3, lambda i, s: (s[0] * 0.5, s[0] @ s[1]), (a, v))[1], lambda: (DA / 4) @ (DA / 2) @ DA @ x),
    "scanned": (lambda a, b, v: pa.scan(lambda s, w: (s * w, pa.sum(s)), a, v)[0], lambda: DA * np.prod(x)),
    "stacked": (lambda a, b, v: pa.scan(lambda c, w: (c, a * w), 0.0, v)[1], lambda: DA[None] * x[:, None, None]),
    "of a sum": (lambda a, b, v: powers(a + b, 3), lambda: powers_of(DA + DB)),
    "of a product": (lambda a, b, v: powers(a @ b, 3), lambda: powers_of(DA @ DB)),
    "then a sum": (lambda a, b, v: powers(a, 3) + b, lambda: powers_of(DA) + DB),
    "then a product": (lambda a, b, v: powers(a, 3) @ b, lambda: powers_of(DA) @ DB),
    "a number, then a sum": (lambda a, b, v: a * pa.cond(v[0] > 0, lambda: pa.sum(a), lambda: pa.sum(b)) + b, lambda: DA * DA.sum() + DB),
    "a number of a sum, then along it": (lambda a, b, v: (a + b) * pa.fori_loop(0, 3, lambda i, s: s * 0.5, pa.sum(a + b)), lambda: (DA + DB) * (DA + DB).sum() / 8),
    "then a product with a part": (lambda a, b, v: ((a + b) * pa.fori_loop(0, 3, lambda i, s: s * 0.5, pa.sum(a + b))) @ a, lambda: (DA + DB) * (DA + DB).sum() / 8 @ DA),
    "between sums": (lambda a, b, v: powers(powers(a, 3) + b, 3) @ a, lambda: powers_of(powers_of(DA) + DB) @ DA),
}


@pytest.mark.parametrize("name", CASES)
def test_results_are_those_of_dense_arrays(name: str) -> None:
    ours, theirs = CASES[name]
    fn = pa.jit(ours)
    for _ in range(2):
        found = fn(A, B, x)
        np.testing.assert_allclose(found.toarray() if sp.issparse(found) else found, theirs(), rtol=1e-12)


@pytest.mark.parametrize("format", ["csr", "csc", "coo"])
def test_formats_and_kinds_stay(format: str) -> None:
    for given in (A.asformat(format), sp.csr_matrix(A).asformat(format)):
        found = pa.jit(lambda s, k: pa.fori_loop(0, k, lambda i, s: pa.sqrt(s) * 2, s))(given, 2)
        assert type(found) is type(given)
        np.testing.assert_allclose(found.toarray(), np.sqrt(np.sqrt(DA) * 2) * 2)


def test_the_product_of_matrices_is_that_in_loops_too() -> None:
    with pytest.raises(UnsupportedError, match="sparse array inside body"):
        pa.jit(powers)(sp.csr_matrix(A), 3)


@pytest.mark.parametrize("format", ["coo", "csf", "csl", "csr"])
def test_tensors(format: str) -> None:
    found = pa.jit(powers)(pa.sparse_array(T3, format), 3)
    assert found.format.name == pa.sparse_array(T3, format).format.name
    np.testing.assert_allclose(found.toarray(), powers_of(T3))


def test_what_cannot_stay_along_one_pattern_is_refused() -> None:
    for fn in (
        lambda a, b: pa.cond(pa.sum(a) > 0, lambda: a * 2, lambda: b * 2),
        lambda a, b: pa.cond(pa.sum(a) > 0, lambda: a * 2, lambda: a.toarray()),
        lambda a, b: pa.fori_loop(0, 3, lambda i, s: s @ s, a),
        lambda a, b: pa.fori_loop(0, 3, lambda i, s: s + b, a),
        lambda a, b: pa.fori_loop(0, 3, lambda i, s: s.T, a),
    ):
        with pytest.raises(UnsupportedError) as caught:
            pa.jit(fn)(A, B)
        assert "try:" in str(caught.value)


def test_an_argument_that_repeats_coordinates_is_refused_where_that_matters() -> None:
    twice = sp.csr_array((np.ones(3), np.array([0, 0, 1]), np.array([0, 2, 3])), shape=(2, 2))
    with pytest.raises(pa.errors.SparseStructureError):
        pa.jit(powers)(twice, 3)


def test_rows_broken_in_place_are_errors() -> None:
    fn, broken = pa.jit(lambda a, v: powers(a, 3) @ v), A.copy()
    fn(broken, x)
    broken.indices[3] = 99
    with pytest.raises((pa.errors.SparseStructureError, pa.errors.IndexOutOfRangeError)):
        fn(broken, x)
    broken = A.copy()
    broken.indptr[2] = 10**6
    with pytest.raises(pa.errors.SparseStructureError):
        fn(broken, x)
