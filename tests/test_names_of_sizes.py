"""Sizes and indices may have any name, also one that loops, fibres or isl use."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp

import polyai as pa
from polyai.errors import UnsupportedError
from polyai.poly.nodes import isl_name

NAMES = [
    ("c0", "c1", "c2"),
    ("c1", "c0", "c2"),
    ("d0", "d1", "r0"),
    ("A_max1", "A_len1", "q"),
    ("A_begin1", "A_end1", "A_nnz"),
    ("max", "floor", "mod"),
    ("A", "X", "b"),
    ("i", "j", "T"),
]


def layer(A: Any, X: Any, b: Any) -> Any:
    return pa.relu(A @ X + b)


def rows(A: Any, X: Any, b: Any) -> Any:
    return pa.cumsum(X, axis=0), pa.sum(X * b, axis=1)


@pytest.mark.parametrize("names", NAMES, ids="-".join)
def test_sizes_may_have_any_name(names: tuple[str, str, str]) -> None:
    n, m, k = (pa.dim(name) for name in names)
    rng = np.random.default_rng(0)
    both = [pa.compile(f, pa.csr(pa.f64)[n, m], pa.f64[m, k], pa.f64[k]) for f in (layer, rows)]
    for shape in ((50, 40, 30), (7, 3, 1)):
        a, x, b = sp.random_array(shape[:2], density=0.2, format="csr", rng=rng), rng.random(shape[1:]), rng.random(shape[2])
        np.testing.assert_allclose(both[0](a, x, b), np.maximum(a @ x + b, 0), rtol=1e-12)
        for found, wanted in zip(both[1](a, x, b), (np.cumsum(x, 0), x @ b)):
            np.testing.assert_allclose(found, wanted, rtol=1e-12)


@pytest.mark.parametrize("name", ["c0", "r0", "d1", "q", "n", "max", "A_len1"])
def test_indices_may_have_any_name(name: str) -> None:
    def gathered(x: Any, ids: Any, A: Any) -> Any:
        (r,), (s,) = pa.indices(name), pa.indices("s")
        t = pa.comprehension((s,), x[s] * 2.0 + 1.0)
        u = A @ t
        return pa.comprehension((r,), t[ids[r]] + u[r] + r)

    rng = np.random.default_rng(1)
    for size in ("n", name):
        n = pa.dim(size)
        compiled = pa.compile(gathered, pa.f64[n], pa.i64[n], pa.csr(pa.f64)[n, n])
        x, ids, a = rng.random(300), rng.integers(0, 300, 300), sp.random_array((300, 300), density=0.1, format="csr", rng=rng)
        t = x * 2 + 1
        np.testing.assert_allclose(compiled(x, ids, a), t[ids] + a @ t + np.arange(300), rtol=1e-12)


def test_names_that_would_be_one_are_refused() -> None:
    n, m = pa.dim("c0"), pa.dim("c0_")
    with pytest.raises(UnsupportedError, match="have names that are too much alike"):
        pa.compile(lambda A, x: A @ x, pa.csr(pa.f64)[n, m], pa.f64[m])


def test_what_has_a_meaning_gets_another_name() -> None:
    assert [isl_name(n) for n in ("c0", "c", "max", "A_len1", "A_len", "A.nnz", "x.0")] == ["c0_", "c", "max_", "A_len1_", "A_len", "A_nnz", "x_0"]
    assert all(isl_name(isl_name(n)) == isl_name(n) for n in ("c0", "max", "A_len1"))
