"""Dense products whose matrix does not stay in a cache, against NumPy in f64: any number of rows with a kernel for a few."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.special import erf

import polyai as pa

SHAPES = [(1, 1, 1), (2, 37, 5), (3, 8, 9), (5, 600, 700), (6, 33, 8), (7, 1, 640), (13, 530, 17), (25, 64, 1), (0, 40, 40), (4, 0, 9), (4, 9, 0)]


def _operands(rng: np.random.Generator, m: int, n: int, k: int, dtype: Any) -> tuple[Any, Any, Any]:
    return rng.standard_normal((m, k)).astype(dtype), rng.standard_normal((k, n)).astype(dtype), rng.standard_normal(n).astype(dtype)


def _dense(x: Any, w: Any, b: Any) -> Any:
    return pa.gelu(x @ w + b)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("rows", [1, 3, 6, 17])
def test_a_kernel_for_few_rows_serves_all_shapes(rows: int, dtype: Any) -> None:
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
    decisions = next(s.text for s in pa.jit(_dense).explain(*_operands(rng, rows, 600, 700, np.float32)).sections if s.title == "decisions")
    assert "sums stay in the cache" in decisions


def test_threads_do_not_change_a_bit() -> None:
    x, w, b = _operands(np.random.default_rng(1), 5, 1100, 700, np.float32)
    f = pa.jit(_dense)
    with pa.options(num_threads=1):
        one = f(x, w, b)
    with pa.options(num_threads=2):
        assert np.array_equal(f(x, w, b), one)
