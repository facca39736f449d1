"""Dense products whose matrix does not stay in a cache, against NumPy in f64: any number of rows with a kernel for a few or for many."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from scipy.special import erf

import polyai as pa


@pytest.fixture(autouse=True)
def own_kernels() -> Iterator[None]:
    with pa.options(blas="never"):
        yield


SHAPES = [(1, 1, 1), (2, 37, 5), (3, 8, 9), (5, 600, 700), (6, 33, 8), (7, 1, 640), (13, 530, 17), (25, 64, 1), (0, 40, 40), (4, 0, 9), (4, 9, 0)]


def _operands(rng: np.random.Generator, m: int, n: int, k: int, dtype: Any) -> tuple[Any, Any, Any]:
    return rng.standard_normal((m, k)).astype(dtype), rng.standard_normal((k, n)).astype(dtype), rng.standard_normal(n).astype(dtype)


def _dense(x: Any, w: Any, b: Any) -> Any:
    return pa.gelu(x @ w + b)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("rows", [1, 3, 6, 17, 40, 800])
def test_a_kernel_for_some_rows_serves_all_shapes(rows: int, dtype: Any) -> None:
    rng = np.random.default_rng(rows)
    f = pa.jit(_dense)
    for shape in ((rows, 600, 700), *SHAPES):
        x, w, b = _operands(rng, *shape, dtype)
        z = x.astype(float) @ w.astype(float) + b
        want = z * 0.5 * (1 + erf(z / np.sqrt(2)))
        bound = (np.abs(x) @ np.abs(w) + np.abs(b)) * np.finfo(dtype).eps * (8 + np.sqrt(shape[2])) + np.finfo(dtype).tiny
        assert np.all(np.abs(f(x, w, b) - want) <= bound), shape


@pytest.mark.parametrize("rows", [2, 6, 8])
def test_few_rows_stream_the_matrix(rows: int) -> None:
    rng = np.random.default_rng(0)
    assert "sums stay in the cache" in _decisions(*_operands(rng, rows, 600, 700, np.float32))


def _decisions(*args: Any) -> str:
    return next(s.text for s in pa.jit(_dense).explain(*args).sections if s.title == "decisions")


@pytest.mark.parametrize(("rows", "how"), [(40, r"\d+ columns of j are copied at once"), (800, "all panels first")])
def test_many_rows_read_copied_panels(rows: int, how: str) -> None:
    assert re.search(how, _decisions(*_operands(np.random.default_rng(0), rows, 600, 700, np.float32)))


def test_a_matrix_that_stays_in_a_cache_is_read_in_place() -> None:
    text = _decisions(*_operands(np.random.default_rng(0), 40, 120, 200, np.float32))
    assert "copied" not in text and "stay in the cache" not in text


@pytest.mark.parametrize("rows", [5, 40, 800])
def test_a_product_of_results_reads_them_where_they_are(rows: int) -> None:
    """The matrix is computed by the program itself."""
    rng = np.random.default_rng(2)
    x, w, _ = _operands(rng, rows, 530, 610, np.float32)
    f = pa.jit(lambda x, w: x @ pa.tanh(w))
    want = x.astype(float) @ np.tanh(w.astype(float))
    np.testing.assert_allclose(f(x, w), want, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("rows", [5, 70])
def test_threads_do_not_change_a_bit(rows: int) -> None:
    x, w, b = _operands(np.random.default_rng(1), rows, 1100, 700, np.float32)
    f = pa.jit(_dense)
    with pa.options(num_threads=1):
        one = f(x, w, b)
    with pa.options(num_threads=2):
        assert np.array_equal(f(x, w, b), one)


@pytest.mark.parametrize("constant", [(), ("w",)])
def test_products_that_meet_sum_up_in_registers(constant: tuple[str, ...]) -> None:
    """A gated layer, silu(x @ a) * (x @ b) + x @ c: no sum passes through memory."""
    rng = np.random.default_rng(11)
    w = {name: rng.standard_normal((64, 48)).astype(np.float32) for name in "abc"}
    f = pa.jit(lambda x, w: pa.silu(x @ w["a"]) * (x @ w["b"]) + x @ w["c"], constant=constant)
    for rows in (13, 0, 1, 6, 7, 40):
        x = rng.standard_normal((rows, 64)).astype(np.float32)
        a, b, c = (x.astype(np.float64) @ w[name] for name in "abc")
        np.testing.assert_allclose(f(x, w), a / (1 + np.exp(-a)) * b + c, rtol=1e-4, atol=5e-3)
    stores = [line.strip().split(" = ", 1) for line in f.explain(x, w)["tidy"].splitlines() if " = " in line and "let " not in line]
    assert not [target for target, value in stores if "[" in target and f"{target.split('[')[0]}[" in value]
