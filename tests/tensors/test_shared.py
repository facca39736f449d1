"""Products over tensors that are large enough for threads: cut lists, few rows, rows with owners; sorted lists and others."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp

import polyai as pa
from polyai.sparse.format import coo, csf, csl, rows

SHAPES = {3: (4, 60, 50), 4: (3, 8, 20, 25), 5: (3, 5, 6, 8, 20)}


def tensor(rank, shape=None, density=0.5):
    rng = np.random.default_rng(rank)
    dense = rng.standard_normal(shape or SHAPES[rank])
    dense[rng.random(dense.shape) > density] = 0
    dense[:, 1] = 0
    return dense


def stored(dense, name):
    """The tensor in a format; "shuffled" is a list in no order, with a coordinate that occurs twice."""
    given = sp.coo_array(dense)
    if name == "coo":
        return given
    if name == "shuffled":
        by = np.random.default_rng(0).permutation(np.append(np.arange(given.nnz), 5))
        half = np.where(by == 5, 0.5, 1.0)
        return sp.coo_array((given.data[by] * half, tuple(c[by] for c in given.coords)), shape=dense.shape)
    form = {"csf": csf, "csl": csl, "rows": rows, "list": coo}[name](dense.ndim)
    return pa.SparseArray.from_dense(dense, form)


def mttkrp(rank, mode):
    modes = "ijklm"[:rank]
    return f"{modes},{','.join(m + 'r' for m in modes if m != modes[mode])}->{modes[mode]}r"


def check(text, dense, given, factors, dtype=np.float64):
    wide = [f.astype(np.float64) for f in factors]
    want, scale = (np.einsum(text, a, *b) for a, b in ((dense, wide), (np.abs(dense), map(np.abs, wide))))
    for threads in (1, 2):
        with pa.options(num_threads=threads):
            f = pa.jit(lambda T, *F: pa.einsum(text, T, *F))
            out = np.full(want.shape, np.nan, dtype)
            for got in (f(given, *factors), f(given, *factors, out=out)):
                assert np.all(np.abs(got - want) <= 1000 * np.finfo(dtype).eps * scale + 1e-300)


@pytest.mark.parametrize("name", ["coo", "shuffled", "csf", "csl", "rows", "list"])
@pytest.mark.parametrize("rank", [3, 4, 5])
def test_mttkrp_of_every_mode(name, rank):
    dense = tensor(rank)
    given = stored(dense, name)
    for mode in range(rank):
        factors = [np.random.default_rng(mode).standard_normal((n, 16)) for d, n in enumerate(dense.shape) if d != mode]
        check(mttkrp(rank, mode), dense, given, factors)


@pytest.mark.parametrize("rank", [1, 7, 32, 40])
@pytest.mark.parametrize("name", ["coo", "shuffled"])
def test_factors_of_any_width(name, rank):
    dense = tensor(3)
    factors = [np.random.default_rng(rank).standard_normal((n, rank)).astype(np.float32) for n in dense.shape[1:]]
    single = stored(dense, name).astype(np.float32)
    check(mttkrp(3, 0), single.toarray().astype(np.float64), single, factors, np.float32)


@pytest.mark.parametrize("name", ["coo", "shuffled"])
def test_many_rows_of_which_few_are_stored(name):
    """Rows that no element names are cleared by their owners."""
    dense = np.zeros((900, 6, 7))
    dense[::13] = tensor(3, (70, 6, 7), 0.1)
    given = stored(dense, name)
    factors = [np.random.default_rng(d).standard_normal((n, 16)) for d, n in ((1, 6), (2, 7))]
    check(mttkrp(3, 0), dense, given, factors)
    empty = sp.coo_array(np.zeros_like(dense))
    check(mttkrp(3, 0), np.zeros_like(dense), empty, factors)


def test_a_matrix_of_few_long_rows_is_cut_below_its_rows():
    A = sp.random_array((3, 40_000), density=0.5, format="csr", rng=np.random.default_rng(1))
    X = np.random.default_rng(2).standard_normal((40_000, 8))
    f = pa.jit(lambda A, X: A @ X)
    for _ in range(2):
        np.testing.assert_allclose(f(A, X), A @ X, rtol=1e-11)
    assert "_part" in str(f.explain(A, X))
    bad = A.copy()
    bad.indptr[1], bad.indptr[2] = bad.indptr[2], bad.indptr[1]
    with pytest.raises(pa.errors.SparseStructureError):
        f(bad, X)
