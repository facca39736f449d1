"""Functions in the programs that users write: sparse arrays of the surrounding scope, pickling, copies, other processes."""

from __future__ import annotations

import copy
import multiprocessing
import operator
import pickle
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp

import polyai as pa
from polyai.errors import TraceError

A = sp.random_array((6, 6), density=0.4, format="csr", rng=np.random.default_rng(0))
B = sp.random_array((6, 6), density=0.4, format="csr", rng=np.random.default_rng(1))
X = np.random.default_rng(2).standard_normal((6, 6)) + 3.0
FORMATS = ["csr", "csc", "coo", "bsr", "dia", "lil", "dok"]
OPERATORS = [operator.matmul, operator.mul, operator.add, operator.sub, operator.truediv]


def full(value: Any) -> Any:
    return value.toarray() if sp.issparse(value) else np.asarray(value)


@pa.jit
def product(A: Any, x: Any) -> Any:
    return A @ x


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("operate", OPERATORS, ids=lambda o: o.__name__)
def test_operators_with_a_sparse_array_of_the_surrounding_scope(format: str, operate: Any) -> None:
    """SciPy's operators on the left leave the operation to the traced array on the right."""
    M = A.asformat(format)
    with np.errstate(divide="ignore", invalid="ignore"):
        np.testing.assert_allclose(full(pa.jit(lambda x: operate(M, x))(X)), full(operate(A, X)))
        np.testing.assert_allclose(full(pa.jit(lambda b: operate(M, b))(B)), full(operate(A, B)))
        np.testing.assert_allclose(full(pa.jit(lambda b: operate(b, M))(B)), full(operate(B, A)))


def test_the_star_of_a_matrix_of_the_surrounding_scope_is_the_matrix_product() -> None:
    M, x = sp.csr_matrix(A), X[0]
    np.testing.assert_allclose(pa.jit(lambda x: M * x)(x), M * x)
    np.testing.assert_allclose(pa.jit(lambda x: x * M)(x), x * M)
    np.testing.assert_allclose(full(pa.jit(lambda b: M * b)(sp.csr_matrix(B))), full(M * sp.csr_matrix(B)))


def test_a_change_in_place_of_the_surrounding_array_is_seen() -> None:
    M = A.copy()
    f = pa.jit(lambda x: M @ x)
    np.testing.assert_allclose(f(X), M @ X)
    M.data *= 2
    np.testing.assert_allclose(f(X), M @ X)


def test_functions_of_scipy_are_refused_with_a_remedy() -> None:
    with pytest.raises(TraceError, match=r"multiply\(\) of scipy.sparse on x while tracing[\s\S]*A @ x"):
        pa.jit(lambda x: A.multiply(x))(X)
    with pytest.raises(TraceError, match="array"):
        pa.jit(lambda x: np.asarray(x))(X)


def test_a_product_masked_by_its_own_operand_takes_the_fast_way() -> None:
    f = pa.jit(lambda A: pa.matmul(A, A, mask=A).sum(axis=1))
    for M in (A, B, A, sp.random_array((9, 9), density=0.3, format="csr", rng=np.random.default_rng(3))):
        D = M.toarray()
        np.testing.assert_allclose(f(M), ((D @ D) * (D != 0)).sum(axis=1), atol=1e-14)


def test_a_function_of_a_module_is_pickled_by_its_name() -> None:
    assert pickle.loads(pickle.dumps(product)) is product
    assert copy.deepcopy(product) is product and copy.copy(product) is product


def _twice(x: Any) -> Any:
    return 2 * x


def test_another_function_is_pickled_by_what_it_was_made_from() -> None:
    made = pa.jit(_twice, name="doubled", static=())
    again = pickle.loads(pickle.dumps(made))
    assert again is not made
    np.testing.assert_array_equal(again(X), 2 * X)
    np.testing.assert_array_equal(copy.deepcopy(pa.jit(lambda x: x + 1))(X), X + 1)
    held = pickle.loads(pickle.dumps(pa.jit(_twice, constant=("x",))))
    np.testing.assert_array_equal(held(X.copy()), 2 * X)


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_pool_of_processes_calls_it(method: str) -> None:
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"no {method} here")
    with multiprocessing.get_context(method).Pool(1) as pool:
        for n, got in enumerate(pool.starmap(product, [(A, X * n) for n in range(3)])):
            np.testing.assert_allclose(got, A @ (X * n))


KINDS = {"array": sp.csr_array, "matrix": sp.csr_matrix}


@pytest.mark.parametrize("left", KINDS)
@pytest.mark.parametrize("right", KINDS)
def test_the_left_sparse_operand_says_what_a_star_means(left: str, right: str) -> None:
    rng = np.random.default_rng(9)
    first, second = (make(rng.random((5, 5)) * (rng.random((5, 5)) < 0.5)) for make in (KINDS[left], KINDS[right]))
    wanted = (first * second).toarray()
    found = [
        pa.jit(lambda a, b: a * b)(first, second),
        pa.jit(lambda a: a * second)(first),
        pa.jit(lambda b: first * b)(second),
    ]
    for result in found:
        np.testing.assert_allclose(result.toarray(), wanted, atol=1e-14)


@pytest.mark.parametrize("key", [2, -1, -5, (slice(None), 3), (slice(1, 3), -2), (0, slice(2, 4)), (np.int64(1), slice(None, None, 2))], ids=str)
def test_rows_and_columns_of_a_matrix_are_matrices(key: Any) -> None:
    matrix = sp.csr_matrix(np.arange(30.0).reshape(5, 6) % 4)
    found = pa.jit(lambda a: a[key])(matrix)
    assert isinstance(found, sp.csr_matrix) and found.shape == matrix[key].shape
    np.testing.assert_array_equal(found.toarray(), matrix[key].toarray())
    assert pa.jit(lambda a: a[1, 2])(matrix) == matrix[1, 2]


@pytest.mark.parametrize("key", [5, -6, (slice(None), 6)], ids=str)
def test_rows_and_columns_outside_of_a_matrix_are_refused(key: Any) -> None:
    with pytest.raises(IndexError):
        pa.jit(lambda a: a[key])(sp.csr_matrix(np.ones((5, 6))))


@pytest.mark.parametrize("kind", ["csr", "csc"])
def test_what_a_loop_reads_in_another_order_is_converted_once_before_it(kind: str) -> None:
    rng = np.random.default_rng(4)
    graph = sp.random_array((40, 40), density=0.08, format=kind, rng=rng)
    start = np.full(40, np.inf)
    start[0] = 0
    shortest = pa.semiring("min", "add")

    def lengths(a: Any, d: Any) -> Any:
        return pa.fori_loop(0, 5, lambda _, d: pa.minimum(d, pa.matmul(a.T, d, semiring=shortest)), d)

    def until(a: Any, d: Any) -> Any:
        step = lambda s: (pa.minimum(s[0], pa.matmul(a.T, s[0], semiring=shortest)), s[1] + 1)  # noqa: E731
        return pa.while_loop(lambda s: s[1] < 5, step, (d, 0))[0]

    weights = np.where(graph.toarray() != 0, graph.toarray(), np.inf)
    wanted = start
    for _ in range(5):
        wanted = np.minimum(wanted, (weights.T + wanted[None, :]).min(axis=1))
    np.testing.assert_allclose(pa.jit(lengths)(graph, start), wanted)
    np.testing.assert_allclose(pa.jit(until)(graph, start), wanted)
