"""Products over sparse tensors of one to five modes against NumPy in float64, for every order of their modes."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp

import polyai as pa
from polyai.sparse.format import Format, csf, csl, rows
from polyai.sparse.levels.compressed import Compressed
from polyai.sparse.levels.dense import Dense
from polyai.sparse.levels.singleton import Singleton
from tests.tensors.test_inputs import random

LETTERS = "ijklm"
RNG = np.random.default_rng(7)


def with_gaps(shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    """Random, with an empty slice of the first mode, a full one, and an empty slice of the last."""
    out = random(shape, 0.35, len(shape))
    out[0] = 0
    if shape[0] > 2:
        out[1] = RNG.standard_normal(shape[1:])
    out[..., -1] = 0
    return out


def permuted_coo(order: tuple[int, ...]) -> Format:
    return Format("coo", order, (Compressed(unique=False), *(Singleton() for _ in order[1:])))


def dense_rows(order: tuple[int, ...], many: int = 1) -> Format:
    form = csf(len(order), 32, order)
    return replace(form, name="rows", levels=(*(Dense() for _ in range(many)), *form.levels[many:]))


def check(subscripts: str, D: np.ndarray[Any, Any], given: Any, *operands: np.ndarray[Any, Any]) -> None:
    got = pa.jit(lambda *args: pa.einsum(subscripts, *args))(given, *operands)
    got = got.toarray() if hasattr(got, "toarray") else np.asarray(got)
    want = np.einsum(subscripts, D, *operands)
    assert got.shape == want.shape
    np.testing.assert_allclose(got, want, rtol=1e-12, atol=1e-12, err_msg=subscripts)


THREE = (4, 5, 6)
A3 = with_gaps(THREE)
FACTORS = {letter: RNG.standard_normal((size, 9)) for letter, size in zip(LETTERS, THREE)}


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
@pytest.mark.parametrize("make", [lambda o: csf(3, 32, o), dense_rows, lambda o: dense_rows(o, 2), permuted_coo, lambda o: csl(3, 32, o), lambda o: rows(3, 32, o)], ids=["csf", "rows", "slabs", "coo", "csl", "csr"])
def test_three_modes_in_every_order(make: Any, order: tuple[int, ...]) -> None:
    given = pa.SparseArray.from_dense(A3, make(order))
    for kept in range(3):
        out = LETTERS[kept]
        others = [x for x in LETTERS[:3] if x != out]
        check(f"ijk,{others[0]}r,{others[1]}r->{out}r", A3, given, *(FACTORS[x] for x in others))  # MTTKRP
    check("ijk,kr->ijr", A3, given, FACTORS["k"])  # TTM
    check("ijk,j->ik", A3, given, FACTORS["j"][:, 0])  # TTV
    check("ijk,ir,jr,kr->ijk", A3, given, *(FACTORS[x] for x in "ijk"))  # sampled: the pattern stays
    check("ijk->j", A3, given)
    check("ijk->", A3, given)


@pytest.mark.parametrize("modes", [4, 5])
def test_four_and_five_modes(modes: int) -> None:
    shape = (3, 4, 2, 3, 2)[:modes]
    D = with_gaps(shape)
    letters = LETTERS[:modes]
    factors = [RNG.standard_normal((n, 6)) for n in shape]
    orders = [tuple(range(modes)), tuple(reversed(range(modes))), tuple(RNG.permutation(modes).tolist())]
    for order in orders:
        for make in (lambda o: csf(modes, 32, o), dense_rows, permuted_coo, lambda o: csl(modes, 32, o)):
            given = pa.SparseArray.from_dense(D, make(order))
            kept = int(RNG.integers(modes))
            rest = ",".join(f"{x}r" for n, x in enumerate(letters) if n != kept)
            check(f"{letters},{rest}->{letters[kept]}r", D, given, *(f for n, f in enumerate(factors) if n != kept))
            check(f"{letters},{letters[-1]}r->{letters[:-1]}r", D, given, factors[-1])
            check(f"{letters}->{letters[1]}", D, given)


def test_every_reduction_of_three_modes() -> None:
    f = {axes: pa.jit(lambda A, axes=axes: A.sum(axes)) for n in range(1, 4) for axes in itertools.combinations(range(3), n)}
    for given in (sp.coo_array(A3), pa.sparse_array(A3, "csf"), pa.sparse_array(A3, "csf", order=(2, 0, 1))):
        for axes, g in f.items():
            np.testing.assert_allclose(np.asarray(g(given)), A3.sum(axes), atol=1e-12)


def test_tucker_and_cp_chains() -> None:
    B, C, G = RNG.standard_normal((5, 3)), RNG.standard_normal((6, 2)), RNG.standard_normal((4, 3))
    weights = RNG.standard_normal(3)
    for given in (sp.coo_array(A3), pa.sparse_array(A3, "csf"), pa.sparse_array(A3, "csf", order=(1, 2, 0))):
        check("ijk,jb,kc->ibc", A3, given, B, C)
        check("ijk,ia,jb,kc->abc", A3, given, G, B, C)
        check("ijk,ir,jr,kr,r->", A3, given, G, B, RNG.standard_normal((6, 3)), weights)


def test_index_notation_and_operators() -> None:
    @pa.jit
    def notation(A, B, C):
        i, j, k, r = pa.indices("i j k r")
        return pa.comprehension((i, r), pa.sum((j, k), A[i, j, k] * B[j, r] * C[k, r]))

    @pa.jit
    def operators(A, s, D):
        return (A * s).sum(2), A * D, -A, (A * A).sum()

    B, C = FACTORS["j"], FACTORS["k"]
    D = RNG.standard_normal(THREE)
    for given in (sp.coo_array(A3), pa.sparse_array(A3, "csf")):
        np.testing.assert_allclose(notation(given, B, C), np.einsum("ijk,jr,kr->ir", A3, B, C), atol=1e-12)
        first, second, third, fourth = operators(given, 2.0, D)
        np.testing.assert_allclose(first, 2 * A3.sum(2), atol=1e-12)
        np.testing.assert_array_equal(second.toarray(), A3 * D)
        np.testing.assert_array_equal(third.toarray(), -A3)
        np.testing.assert_allclose(fourth, (A3 * A3).sum(), atol=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64, np.complex128])
@pytest.mark.parametrize("bits", [32, 64])
def test_types_and_index_widths(dtype: Any, bits: int) -> None:
    D = (A3 * 5).astype(dtype)
    B, C = (np.round(FACTORS[x] * 3).astype(dtype) for x in "jk")
    given = pa.sparse_array(D, "csf", index_bits=bits)
    got = np.asarray(pa.einsum("ijk,jr,kr->ir", given, B, C))
    want = np.einsum("ijk,jr,kr->ir", D.astype(complex), B.astype(complex), C.astype(complex))
    assert got.dtype == dtype
    np.testing.assert_allclose(got, want, rtol=2e-5 if dtype == np.float32 else 1e-12, atol=1e-4 if dtype == np.float32 else 1e-12)


def test_factors_of_what_is_not_stored_do_not_count() -> None:
    """An infinite factor at an empty fibre leaves no trace, one at a stored zero makes NaN."""
    D = np.zeros((2, 3, 2))
    D[0, 1, 0] = 2.0
    B, C = np.ones((3, 4)), np.ones((2, 4))
    B[0], B[2] = np.inf, np.nan
    for form in (csf(3), dense_rows((0, 1, 2)), dense_rows((0, 1, 2), 2), permuted_coo((0, 1, 2))):
        got = np.asarray(pa.einsum("ijk,jr,kr->ir", pa.SparseArray.from_dense(D, form), B, C))
        np.testing.assert_array_equal(got, np.einsum("ijk,jr,kr->ir", D, np.ones((3, 4)), C))
    listed_empty = {  # row 0 holds the fibre (0, 0), which holds nothing, then (0, 1)
        "pos0": np.array([0, 1], "i4"), "crd0": np.array([0], "i4"),
        "pos1": np.array([0, 2], "i4"), "crd1": np.array([0, 1], "i4"),
        "pos2": np.array([0, 0, 1], "i4"), "crd2": np.array([0], "i4"), "val": np.array([2.0]),
    }  # fmt: skip
    got = np.asarray(pa.einsum("ijk,jr,kr->ir", pa.SparseArray(csf(3), D.shape, listed_empty), B, C))
    np.testing.assert_array_equal(got, [[2.0] * 4, [0.0] * 4])
    stored_zero = {**listed_empty, "val": np.array([0.0])}
    B[1] = np.inf
    assert np.isnan(np.asarray(pa.einsum("ijk,jr,kr->ir", pa.SparseArray(csf(3), D.shape, stored_zero), B, C))[0]).all()


def test_one_kernel_serves_all_sizes() -> None:
    f = pa.jit(lambda A, B, C: pa.einsum("ijk,jr,kr->ir", A, B, C))
    for shape, rank in (((3, 4, 5), 8), ((7, 2, 3), 16), ((1, 1, 1), 1), ((4, 6, 2), 33)):
        D = random(shape, 0.4, rank)
        B, C = RNG.standard_normal((shape[1], rank)), RNG.standard_normal((shape[2], rank))
        np.testing.assert_allclose(np.asarray(f(pa.sparse_array(D, "csf"), B, C)), np.einsum("ijk,jr,kr->ir", D, B, C), atol=1e-12)
    assert len(f.reasons) == 1


def test_threads_agree() -> None:
    D = random((300, 40, 50), 0.02)
    B, C = RNG.standard_normal((40, 16)), RNG.standard_normal((50, 16))
    want = np.einsum("ijk,jr,kr->ir", D, B, C)
    f = pa.jit(lambda A, B, C: pa.einsum("ijk,jr,kr->ir", A, B, C))
    for given in (sp.coo_array(D), pa.sparse_array(D, "csf"), pa.sparse_array(D, "csf", order=(2, 1, 0))):
        for threads in (1, 2):
            with pa.options(num_threads=threads):
                np.testing.assert_allclose(np.asarray(f(given, B, C)), want, atol=1e-11)


def test_two_sparse_tensors_meet() -> None:
    given = sp.coo_array(A3)
    np.testing.assert_allclose(pa.einsum("ijk,lmk->", given, given), np.einsum("ijk,lmk->", A3, A3))
