"""Operands declared constant are prepared once; a change of them is refused, noticed, or prepared anew."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp

import polyai as pa
from polyai.datasets import stencil


@pytest.fixture(autouse=True, scope="module")
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pa.options(cache_dir=str(tmp_path_factory.mktemp("cache")), num_threads=1):
        yield


def scattered(n: int = 60, m: int = 50) -> Any:
    return sp.csr_array(sp.random_array((n, m), density=0.2, rng=np.random.default_rng(0)))


def made(**kwargs: Any) -> Any:
    return pa.jit(lambda A, x: A @ x, constant=("A",), **kwargs)


def test_the_result_is_that_of_the_matrix() -> None:
    f = made()
    for matrix in (scattered(), stencil(5, (8, 9)), sp.csr_matrix(scattered()), scattered().tocsc(), scattered().tocoo()):
        x = np.random.default_rng(1).standard_normal(matrix.shape[1])
        for _ in range(3):
            np.testing.assert_allclose(f(matrix, x), matrix @ x, atol=1e-12)
            np.testing.assert_allclose(f(A=matrix, x=x), matrix @ x, atol=1e-12)


def test_it_is_prepared_once_for_each_matrix() -> None:
    f, matrix = made(), scattered()
    f(matrix, np.ones(50))
    watched = dict(f._watched)
    f(matrix, np.zeros(50))
    assert f._watched == watched and len(watched) == 1
    f(scattered(), np.ones(50))
    gc.collect()
    assert f._watched == watched  # the second matrix is gone, and what was remembered of it


def test_a_change_in_place_is_refused() -> None:
    f, matrix = made(), scattered()
    f(matrix, np.ones(50))
    for array in (matrix.data, matrix.indices, matrix.indptr):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 3


def test_replaced_arrays_are_prepared_anew() -> None:
    f, matrix = made(), scattered()
    x = np.ones(50)
    f(matrix, x)
    matrix.data = matrix.data * 2
    np.testing.assert_allclose(f(matrix, x), matrix @ x)
    matrix.data.flags.writeable = True
    matrix.data[:] = 1.0
    np.testing.assert_allclose(f(matrix, x), matrix @ x)


def test_a_write_through_an_older_view_is_noticed() -> None:
    f, matrix = made(), scattered(300, 200)
    view = matrix.data[5:]
    x = np.ones(200)
    f(matrix, x)
    view[100] += 1.0
    calls = next(iter(f._watched.values())).segments
    with pytest.raises(pa.errors.AliasError, match="A was declared constant and has changed"):
        for _ in range(calls + 1):
            f(matrix, x)


def test_inside_another_trace_and_with_prepared_matrices() -> None:
    inner, matrix = made(), scattered()
    x = np.ones(50)

    @pa.jit
    def outer(A: Any, x: Any) -> Any:
        return inner(A, x) + 1.0

    np.testing.assert_allclose(outer(matrix, x), matrix @ x + 1.0)
    np.testing.assert_allclose(inner(pa.prepare(matrix, measure=False), x), matrix @ x)
    assert "<- chosen" in pa.explain(inner, matrix, x)["prepared"]


def test_bad_declarations() -> None:
    with pytest.raises(pa.errors.OptionError, match="names no parameter"):
        pa.jit(lambda A, x: A @ x, constant=("B",))
    with pytest.raises(pa.errors.OptionError, match="declared constant and is a ndarray"):
        made()(np.eye(3), np.ones(3))
    with pytest.raises(pa.errors.OptionError, match="lil matrix is declared constant"):
        made()(scattered().tolil(), np.ones(50))
    with pytest.raises(pa.errors.DTypeError):
        made()(scattered().astype(np.int64), np.ones(50))


def test_threads_share_what_was_prepared() -> None:
    f, matrix = made(), scattered()
    x, failures = np.ones(50), []

    def work() -> None:
        try:
            for _ in range(10):
                np.testing.assert_allclose(f(matrix, x), matrix @ x)
        except Exception as error:  # the thread's failure is the test's
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not failures and len(f._watched) == 1


def test_every_other_option_holds_beside_it() -> None:
    A = sp.csr_array(sp.random_array((40, 30), density=0.2, rng=np.random.default_rng(0)))
    n, k = pa.dim("n", max=64), pa.dim("k")

    @pa.jit(name="scaled", static=("by",), dynamic={"A": {0: k, 1: n}, "x": {0: n}}, where=[n <= k], policy="exact", constant=("A",))
    def f(A: Any, x: Any, by: int) -> Any:
        return by * (A @ x)

    x = np.random.default_rng(1).standard_normal(30)
    assert len(f.warm(A, x, 3).kernels) >= 1
    np.testing.assert_allclose(f(A, x, 3), 3 * (A @ x))
    assert f.report().function == "scaled"
    with pytest.raises(pa.errors.GuardError, match="n <= k"):
        f(sp.csr_array(A.T), np.ones(40), 3)
    with pytest.raises(pa.errors.OptionError, match="policy"):
        pa.jit(lambda A: A, policy="blue", constant=("A",))
