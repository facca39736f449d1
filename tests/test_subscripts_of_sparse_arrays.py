"""Sparse arrays read at sums of indices in index notation, and along diagonals: against loops over the full arrays."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp

import polyai as pa

SIZES = (0, 1, 2, 3, 5, 8)
FORMATS = ("csr", "csc", "coo", "dia", "bsr", "twice")
Made = tuple[Callable[..., Any], np.ndarray, tuple[Any, ...]]


class Data:
    """Random numbers, sizes and matrices of one case; whole numbers, so that sums are exact."""

    def __init__(self, seed: int) -> None:
        self.r, self.rng = random.Random(seed), np.random.default_rng(seed)
        self.dtype: Any = self.r.choice((np.float64, np.float64, np.float32, np.int64, np.complex128))
        self.format = self.r.choice(FORMATS)

    def dense(self, *shape: int) -> np.ndarray:
        return self.rng.integers(-4, 5, shape).astype(self.dtype)

    def sparse(self, *shape: int) -> tuple[Any, np.ndarray]:
        full = np.where(self.rng.random(shape) < self.r.choice((0.0, 0.3, 1.0)), self.dense(*shape), 0).astype(self.dtype)
        if len(shape) != 2:
            return sp.coo_array(full), full
        if self.format == "twice":
            a = sp.coo_array(full)
            return sp.coo_array((np.tile(a.data, 2), tuple(np.tile(c, 2) for c in a.coords)), shape=shape), (full + full).astype(self.dtype)
        return sp.csr_array(full).asformat(self.format if min(shape) else "csr"), full

    def size(self) -> int:
        return self.r.choice(SIZES)


def filled(shape: tuple[int, ...], dtype: Any, element: Callable[..., Any]) -> np.ndarray:
    out = np.zeros(shape, dtype)
    for at in np.ndindex(*shape):
        out[at] = element(*at)
    return out


def window(d: Data) -> Made:
    rows, n, k, first = d.size(), d.size(), d.size(), d.r.choice((0, 2))
    (a, full), w = d.sparse(rows, n + k + first), d.dense(k)

    def program(a: Any, w: Any) -> Any:
        i, j, p = pa.index("i"), pa.index("j", n), pa.index("p")
        return pa.comprehension((i, j), pa.sum(p, a[i, j + p + first] * w[p]))

    return program, filled((rows, n), d.dtype, lambda i, j: sum(full[i, j + p + first] * w[p] for p in range(k))), (a, w)


def strides(d: Data) -> Made:
    n, k, step, back = d.size(), d.size(), d.r.choice((1, 2, 3)), d.r.choice((1, -1, 2))
    first = max(0, -back) * max(k - 1, 0)
    (a, full), w = d.sparse(step * max(n - 1, 0) + max(back, 0) * max(k - 1, 0) + first + 1), d.dense(k)

    def program(a: Any, w: Any) -> Any:
        i, j = pa.index("i", n), pa.index("j")
        return pa.comprehension((i,), pa.sum(j, a[step * i + back * j + first] * w[j]))

    return program, filled((n,), d.dtype, lambda i: sum(full[step * i + back * j + first] * w[j] for j in range(k))), (a, w)


def images(d: Data) -> Made:
    n, m = d.size(), d.size()
    (a, full), w = d.sparse(n + 2, m + 1), d.dense(3, 2)

    def program(a: Any, w: Any) -> Any:
        i, j, p, q = pa.index("i", n), pa.index("j", m), pa.index("p"), pa.index("q")
        return pa.comprehension((i, j), pa.sum((p, q), a[i + p, j + q] * w[p, q]))

    return program, filled((n, m), d.dtype, lambda i, j: (full[i : i + 3, j : j + 2] * w).sum()), (a, w)


def diagonals(d: Data) -> Made:
    n, up = d.size(), d.r.choice((0, 1, 3))
    (a, full), x = d.sparse(n, n + up), d.dense(n)

    def program(a: Any, x: Any) -> Any:
        i = pa.index("i")
        return pa.comprehension((i,), a[i, i + up] * x[i] + 1)

    return program, filled((n,), d.dtype, lambda i: full[i, i + up] * x[i] + 1), (a, x)


def two_sparse(d: Data) -> Made:
    n, k = d.size(), d.size()
    (a, one), (b, other) = d.sparse(n + k), d.sparse(2 * max(n, 1) + k)

    def program(a: Any, b: Any) -> Any:
        i, j = pa.index("i", n), pa.index("j", k)
        return pa.comprehension((i,), pa.sum(j, a[i + j] * b[2 * i + j]))

    return program, filled((n,), d.dtype, lambda i: sum(one[i + j] * other[2 * i + j] for j in range(k))), (a, b)


def antidiagonals(d: Data) -> Made:
    n, m = d.size(), d.size()
    (a, full), x = d.sparse(n, m), d.dense(n)

    def program(a: Any, x: Any) -> Any:
        i, k = pa.index("i"), pa.index("k", max(n + m - 1, 0))
        return pa.comprehension((k,), pa.sum(i, pa.where((k - i >= 0) & (k - i < m), a[i, k - i], 0) * x[i]))

    def element(k: int) -> Any:
        return sum(full[i, k - i] * x[i] for i in range(n) if 0 <= k - i < m)

    return program, filled((max(n + m - 1, 0),), d.dtype, element), (a, x)


def all_summed(d: Data) -> Made:
    n, k = d.size(), d.size()
    (a, full), w, z = d.sparse(n + k), d.dense(k), d.dense(n)

    def program(a: Any, w: Any, z: Any) -> Any:
        i, j = pa.indices("i j")
        return pa.comprehension((), pa.sum((i, j), a[i + j] * w[j] * z[i]))

    return program, filled((), d.dtype, lambda: sum(full[i + j] * w[j] * z[i] for i in range(n) for j in range(k))), (a, w, z)


def parts(d: Data) -> Made:
    n, m = d.size(), d.size()
    a, full = d.sparse(2 * n, m + 2)

    def program(a: Any) -> Any:
        i, j = pa.index("i", a.shape[0] // 2), pa.index("j", a.shape[1] - 2)
        return pa.comprehension((i, j), a[2 * i + 1, j + 2] - a[2 * i, j] * a[i, j])

    return program, filled((n, m), d.dtype, lambda i, j: full[2 * i + 1, j + 2] - full[2 * i, j] * full[i, j]), (a,)


def largest(d: Data) -> Made:
    d.dtype = np.float64
    rows, n, k = d.size(), d.size(), 1 + d.size()
    a, full = d.sparse(rows, n + k)

    def program(a: Any) -> Any:
        i, j, p = pa.index("i"), pa.index("j", n), pa.index("p", k)
        return pa.comprehension((i, j), pa.max(p, a[i, j + p]))

    return program, filled((rows, n), d.dtype, lambda i, j: full[i, j : j + k].max()), (a,)


def three_modes(d: Data) -> Made:
    n, m = d.size(), d.size()
    d.format = "coo"
    (a, full), x = d.sparse(n, n, m), d.dense(m)

    def program(a: Any, x: Any) -> Any:
        i, j = pa.indices("i j")
        return pa.comprehension((i,), pa.sum(j, a[i, i, j] * a[i, i, j] * x[j]))

    return program, filled((n,), d.dtype, lambda i: sum(full[i, i, j] ** 2 * x[j] for j in range(m))), (a, x)


KINDS = (window, strides, images, diagonals, two_sparse, antidiagonals, all_summed, parts, largest, three_modes)


@pytest.mark.parametrize("make", KINDS, ids=lambda f: f.__name__)
def test_reads_at_sums_of_indices(make: Callable[[Data], Made], request: pytest.FixtureRequest) -> None:
    before = pa.stats()["externs"]
    for seed in range(10 + request.config.getoption("--fuzz")):
        program, wanted, given = make(Data(seed))
        found = pa.jit(program)(*given)
        where = f"{make.__name__}, seed {seed}, {[getattr(a, 'format', a.dtype) for a in given]} {[a.shape for a in given]}"
        assert found.dtype == wanted.dtype, where
        np.testing.assert_array_equal(found, wanted, err_msg=where)
    assert pa.stats()["externs"] == before


def correlated(v: Any, w: Any) -> Any:
    i, j = pa.index("i", 10), pa.index("j")
    return pa.comprehension((i,), pa.sum(j, v[i + j] * w[j]))


def test_one_kernel_serves_all_windows_that_fit() -> None:
    f = pa.jit(correlated)
    for length, width in ((12, 3), (30, 5), (10, 1), (19, 10)):
        np.testing.assert_array_equal(f(sp.coo_array(np.arange(float(length))), np.ones(width)), np.correlate(np.arange(10.0 + width - 1), np.ones(width), "valid"))
    assert f.report().compilations == 1
    with pytest.raises(pa.errors.ShapeError, match="dimension 0 of v is read at a sum of indices"):
        f(sp.coo_array(np.ones(12)), np.ones(4))


def test_reads_outside_are_refused_and_under_a_condition_zero() -> None:
    a = sp.csr_array(np.arange(12.0).reshape(3, 4))

    def before(a: Any) -> Any:
        i, j = pa.index("i"), pa.index("j", a.shape[1])
        return pa.comprehension((i, j), a[i, j - 1])

    def guarded(a: Any) -> Any:
        i, j = pa.index("i"), pa.index("j", a.shape[1])
        return pa.comprehension((i, j), pa.where(j > 0, a[i, j - 1], 7.0))

    with pytest.raises(pa.errors.ShapeError, match="dimension 1 of a"):
        pa.jit(before)(a)
    wanted = np.full((3, 4), 7.0)
    wanted[:, 1:] = a.toarray()[:, :-1]
    np.testing.assert_array_equal(pa.jit(guarded)(a), wanted)


def test_a_square_wants_coordinates_that_do_not_repeat() -> None:
    v = sp.coo_array((np.ones(4), (np.array([1, 1, 2, 3]),)), shape=(12,))
    np.testing.assert_array_equal(pa.jit(correlated)(v, np.ones(3)), np.correlate(v.toarray(), np.ones(3), "valid"))

    def squares(v: Any, w: Any) -> Any:
        i, j = pa.index("i", 10), pa.index("j")
        return pa.comprehension((i,), pa.sum(j, v[i + j] ** 2 * w[j]))

    with pytest.raises(pa.errors.SparseStructureError, match="more than once"):
        pa.jit(squares)(v, np.ones(3))


def test_a_gather_is_refused() -> None:
    def rows(a: Any, places: Any) -> Any:
        i, j = pa.indices("i j")
        return pa.comprehension((i, j), a[places[i], j])

    with pytest.raises(pa.errors.UnsupportedError, match="computed coordinates"):
        pa.jit(rows)(sp.csr_array(np.eye(3)), np.array([2, 0]))


@pytest.mark.parametrize("form", ("csr", "csc", "coo"))
@pytest.mark.parametrize("text", ("ij,jj->i", "ii,ij->j", "ii,ij->ij", "ii,jj->ij", "ii,ij,jj->ij", "ii,ii->", "jk,kk,jj->jk"))
def test_einsum_with_a_diagonal_beside_others(text: str, form: str) -> None:
    rng = np.random.default_rng(len(text))
    given = [sp.random_array((7, 7), density=0.4, format="csr", rng=rng).asformat(form) for _ in text.split("->")[0].split(",")]
    np.testing.assert_allclose(np.asarray(full(pa.einsum(text, *given))), np.einsum(text, *(a.toarray() for a in given)))


def full(x: Any) -> Any:
    return x.toarray() if sp.issparse(x) else x
