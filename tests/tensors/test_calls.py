"""Calls with sparse arrays of any rank: they go the native way, and what was changed in place since is seen."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import scipy.sparse as sp

import polyai as pa
from polyai.errors import GuardError, PolyAIError, ShapeError, SparseStructureError
from polyai.runtime import dispatch
from polyai.sparse.format import Format, csf, csl, rows
from polyai.sparse.levels.compressed import Compressed
from polyai.sparse.levels.dense import Dense


@pytest.fixture(params=["native", "portable"])
def way(request, monkeypatch):
    if request.param == "portable":
        monkeypatch.setattr(dispatch, "layout_holds", lambda: False)
    return request.param


def tensor(rank, density=0.1, seed=0):
    rng = np.random.default_rng(seed)
    dense = rng.standard_normal((7, 5, 6, 4, 3)[:rank])
    dense[rng.random(dense.shape) > density] = 0
    return dense


def unfolded(rank):
    return Format("unfolded", (*range(1, rank), 0), (*(Dense() for _ in range(rank - 1)), Compressed()))


FORMATS = {
    "csf": lambda r: csf(r),
    "csf64": lambda r: csf(r, 64, tuple(reversed(range(r)))),
    "slices": lambda r: csl(r),
    "rows": lambda r: rows(r, order=(1, 0, *range(2, r))),
    "unfolded": unfolded,
}


def mttkrp(rank):
    modes = "ijklm"[:rank]
    text = f"{modes},{','.join(m + 'r' for m in modes[1:])}->ir"
    return text, pa.jit(lambda T, *factors: pa.einsum(text, T, *factors))


def factors_of(dense, seed=1):
    rng = np.random.default_rng(seed)
    return [rng.standard_normal((n, 6)) for n in dense.shape[1:]]


@pytest.mark.parametrize("rank", [3, 4, 5])
@pytest.mark.parametrize("name", [*FORMATS, "coo"])
def test_later_calls_are_native(rank, name, way):
    dense = tensor(rank)
    text, f = mttkrp(rank)
    factors = factors_of(dense)
    for seed in (0, 0, 5):
        dense = tensor(rank, seed=seed)
        T = sp.coo_array(dense) if name == "coo" else pa.SparseArray.from_dense(dense, FORMATS[name](rank))
        expected = np.einsum(text, dense, *factors)
        np.testing.assert_allclose(f(T, *factors), expected, rtol=1e-12, atol=1e-12)
        out = np.empty(expected.shape)
        assert f(T, *factors, out=out) is out
        np.testing.assert_allclose(out, expected, rtol=1e-12, atol=1e-12)
    report = f.report()
    assert (report.hits, report.fast) == (6, 5)


def test_an_equal_format_made_anew_is_the_same(way):
    dense = tensor(3)
    _, f = mttkrp(3)
    factors = factors_of(dense)
    for _ in range(3):
        f(pa.SparseArray.from_dense(dense, unfolded(3)), *factors)
    assert (f.report().hits, f.report().fast) == (3, 2)


def test_another_format_gets_another_kernel(way):
    dense = tensor(3)
    text, f = mttkrp(3)
    factors = factors_of(dense)
    expected = np.einsum(text, dense, *factors)
    for _ in range(2):
        for form in FORMATS.values():
            np.testing.assert_allclose(f(pa.SparseArray.from_dense(dense, form(3)), *factors), expected, rtol=1e-12)


def test_sizes_that_do_not_fit_are_refused_as_before(way):
    dense = tensor(3)
    text, f = mttkrp(3)
    T = pa.SparseArray.from_dense(dense, csf(3))
    B, C = factors_of(dense)
    f(T, B, C)
    with pytest.raises((ShapeError, GuardError)):
        f(T, C, B)
    np.testing.assert_allclose(f(T, B, C), np.einsum(text, dense, B, C), rtol=1e-12)


@pytest.mark.parametrize("name", ["csf", "rows", "unfolded", "slices", "coo"])
def test_what_is_changed_in_place_is_seen(name, way):
    dense = tensor(3, 0.4)
    text, f = mttkrp(3)
    factors = factors_of(dense)
    T = sp.coo_array(dense) if name == "coo" else pa.SparseArray.from_dense(dense, FORMATS[name](3))
    f(T, *factors), f(T, *factors)
    T.data[:] = 1.0
    ones = (dense != 0).astype(float)
    np.testing.assert_allclose(f(T, *factors), np.einsum(text, ones, *factors), rtol=1e-12)
    last = T.coords[2] if name == "coo" else T.listed[-2]
    kept = int(last[3])
    for bad in (-1, 1 << 20):
        last[3] = bad
        with pytest.raises(SparseStructureError):
            f(T, *factors)
    last[3] = kept
    np.testing.assert_allclose(f(T, *factors), np.einsum(text, ones, *factors), rtol=1e-12)


@pytest.mark.parametrize("name", ["csf", "rows", "unfolded", "slices"])
@pytest.mark.parametrize("bad", [-1, 10_000, 2])
def test_positions_that_no_longer_fit_are_refused(name, bad, way):
    dense = tensor(3, 0.4)
    _, f = mttkrp(3)
    factors = factors_of(dense)
    T = pa.SparseArray.from_dense(dense, FORMATS[name](3))
    f(T, *factors), f(T, *factors)
    T.listed[0][-1] = bad
    with pytest.raises(SparseStructureError):
        f(T, *factors)


def test_a_list_of_coordinates_of_another_length_is_refused(way):
    dense = tensor(3, 0.4)
    _, f = mttkrp(3)
    factors = factors_of(dense)
    T = sp.coo_array(dense)
    f(T, *factors), f(T, *factors)
    T.coords = (T.coords[0][:-1], *T.coords[1:])
    with pytest.raises(PolyAIError):
        f(T, *factors)


def test_arrays_cannot_be_exchanged_behind_the_call():
    T = pa.SparseArray.from_dense(tensor(3), csf(3))
    with pytest.raises(TypeError):
        T.storage.arrays["val"] = np.ones(3)
    again = pickle.loads(pickle.dumps(T))
    assert again.format is T.format and np.array_equal(again.toarray(), T.toarray())
