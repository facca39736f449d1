"""Operands declared constant are prepared once; a change of them is refused, noticed, or prepared anew."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from scipy.special import erf

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
    with pytest.raises(pa.errors.OptionError, match="declared constant and is a float"):
        made()(3.0, np.ones(3))
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


# Dense matrices


def mlp(x: Any, w: Any) -> Any:
    return pa.gelu(x @ w["first"] + w["bias"]) @ w["second"]


def weights(n: int, hidden: int, out: int, dtype: Any = np.float32) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(n + hidden)
    shapes = {"first": (n, hidden), "bias": (hidden,), "second": (hidden, out)}
    return {name: rng.standard_normal(shape).astype(dtype) for name, shape in shapes.items()}


def expected(x: np.ndarray, w: dict[str, np.ndarray]) -> np.ndarray:
    wide = {name: a.astype(np.float64) for name, a in w.items()}
    h = x.astype(np.float64) @ wide["first"] + wide["bias"]
    return np.asarray((h * 0.5 * (1 + erf(h * np.sqrt(0.5)))) @ wide["second"])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("n", "hidden", "out"), [(16, 16, 16), (17, 33, 31), (64, 70, 48), (130, 129, 20)])
def test_dense_matrices_have_panels(n: int, hidden: int, out: int, dtype: Any) -> None:
    f, w = pa.jit(mlp, constant=("w",)), weights(n, hidden, out, dtype)
    rng = np.random.default_rng(0)
    atol = (3e-4 if dtype == np.float32 else 1e-11) * hidden
    for rows in (7, *range(21), 64, 97):
        x = rng.standard_normal((rows, n)).astype(dtype)
        got = f(x, w)
        assert got.dtype == dtype
        np.testing.assert_allclose(got, expected(x, w), atol=atol)
    assert len(f.report().kernels) == 1
    if max(hidden, out) >= 64:  # a panel is as wide as the registers of a machine allow, 64 columns at most
        assert "Panels" in pa.explain(f, x, w)["prepared"]


@pytest.mark.parametrize("rows", [1, 2, 5, 8, 13])
def test_a_known_number_of_rows_reads_panels_in_order(rows: int) -> None:
    """One row too: its columns are shared among threads, the sum is not cut, and no element is gathered."""
    f, w = pa.jit(mlp, constant=("w",), dynamic="none"), weights(512, 1024, 256)
    x = np.random.default_rng(rows).standard_normal((rows, 512)).astype(np.float32)
    np.testing.assert_allclose(f(x, w), expected(x, w), atol=5e-2)
    made = pa.explain(f, x, w)
    assert "sums of" not in made["decisions"] and "floordiv" not in made["tidy"] and "// 16" not in made["tidy"]


@pytest.mark.parametrize("threads", [1, 2])
def test_threads_share_the_panels(threads: int) -> None:
    f, w = pa.jit(mlp, constant=("w",)), weights(256, 512, 128)
    with pa.options(num_threads=threads):
        for rows in (1, 3, 200):
            x = np.random.default_rng(rows).standard_normal((rows, 256)).astype(np.float32)
            np.testing.assert_allclose(f(x, w), expected(x, w), atol=2e-2)


def test_the_order_of_an_array_does_not_matter() -> None:
    f = pa.jit(lambda x, W: x @ W, constant=("W",))
    base = np.random.default_rng(0).standard_normal((40, 80))
    x = np.random.default_rng(1).standard_normal((5, 40))
    for W in (base, np.asfortranarray(base), np.ascontiguousarray(base.T).T, np.repeat(base, 2, axis=1)[:, ::2]):
        np.testing.assert_allclose(f(x, W), x @ W, atol=1e-12)


def test_vectors_and_stacks_are_multiplied() -> None:
    f = pa.jit(lambda x, W: x @ W, constant=("W",))
    W = np.random.default_rng(0).standard_normal((40, 50))
    for shape in ((40,), (3, 40), (2, 3, 40), (0, 40)):
        x = np.random.default_rng(1).standard_normal(shape)
        np.testing.assert_allclose(f(x, W), x @ W, atol=1e-12)


def test_other_uses_read_the_matrix_itself() -> None:
    f = pa.jit(lambda x, W: (W.T @ x.T).T + pa.sum(W) + x @ (W + 1.0), constant=("W",))
    W, x = np.random.default_rng(0).standard_normal((40, 50)), np.random.default_rng(1).standard_normal((6, 40))
    np.testing.assert_allclose(f(x, W), x @ W + W.sum() + x @ (W + 1), atol=1e-10)


def test_small_matrices_and_others_stay_as_they_are() -> None:
    f = pa.jit(lambda x, w: x @ w[0] + w[1], constant=("w",))
    x, w = np.ones((4, 3)), (np.eye(3), 2)
    np.testing.assert_allclose(f(x, w), np.eye(3)[[0]] * 0 + x @ w[0] + 2)
    assert w[0].flags.writeable
    g = pa.jit(lambda x, W: x @ W, constant=("W",))
    W = np.arange(400).reshape(20, 20)
    np.testing.assert_array_equal(g(np.ones((2, 20), np.int64), W), np.ones((2, 20), np.int64) @ W)
    half = np.random.default_rng(0).standard_normal((20, 20)).astype(np.float32)
    np.testing.assert_allclose(g(np.ones((2, 20)), half), np.ones((2, 20)) @ half.astype(np.float64), atol=1e-5)


def test_a_constant_array_is_read_only_and_watched() -> None:
    f, w = pa.jit(mlp, constant=("w",)), weights(20, 96, 20)
    view, x = w["first"][3:], np.ones((2, 20), np.float32)
    f(x, w)
    with pytest.raises(ValueError, match="read-only"):
        w["first"][0, 0] = 1
    w["bias"][0] += 1  # not laid out: read at each call
    np.testing.assert_allclose(f(x, w), expected(x, w), atol=1e-2)
    view[:] += 1
    with pytest.raises(pa.errors.AliasError, match="declared constant and has changed"):
        for _ in range(20):
            f(x, w)


def test_other_leaves_are_laid_out_anew() -> None:
    f, w = pa.jit(mlp, constant=("w",)), weights(20, 30, 20)
    x = np.random.default_rng(0).standard_normal((3, 20)).astype(np.float32)
    f(x, w)
    panels = len(f._watched)
    for _ in range(3):
        np.testing.assert_allclose(f(x, dict(w)), expected(x, w), atol=1e-2)  # another dict of the same arrays
    assert len(f._watched) == panels
    w["second"] = np.random.default_rng(5).standard_normal((30, 20)).astype(np.float32)
    np.testing.assert_allclose(f(x, w), expected(x, w), atol=1e-2)
    w["first"].flags.writeable = True
    w["first"][:] = 0.5
    np.testing.assert_allclose(f(x, w), expected(x, w), atol=1e-2)
    swapped = {"second": w["first"], "bias": w["bias"], "first": w["second"]}
    with pytest.raises(pa.errors.ShapeError):
        f(x, swapped)


def test_a_call_with_constant_values_is_dispatched_natively() -> None:
    f, w = pa.jit(mlp, constant=("w",)), weights(20, 30, 20)
    x = np.ones((3, 20), np.float32)
    out = np.empty((3, 20), np.float32)
    for _ in range(5):
        f(x, w)
    assert f(x, w, out=out) is out
    assert len(f.report().kernels) == 1 and f.report().fast >= 5
    np.testing.assert_allclose(out, expected(x, w), atol=1e-2)
    np.testing.assert_allclose(f(x=x, w=w), expected(x, w), atol=1e-2)


def test_operands_that_do_not_fit_are_refused() -> None:
    f = pa.jit(lambda x, W: x @ W, constant=("W",))
    with pytest.raises(pa.errors.ShapeError, match="40"):
        f(np.ones((3, 41)), np.ones((40, 50)))
