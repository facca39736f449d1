"""Sparse results are compared on the pattern that structure allows, references equal the dense mathematics, and a lie is seen."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp

from benchmarks import generated, reference
from benchmarks.harness import Result, Settings, Timing, Unavailable, measure, relative_excess
from benchmarks.matrices import Matrix, canonical
from benchmarks.peers import load
from benchmarks.sparse_results import Compressed, most_stored, on_pattern, product_work
from benchmarks.suites import load as load_suite
from benchmarks.suites.sparse_cases import again, shifted, sparse_case

RNG = np.random.default_rng(11)


def sparse(rows: int, cols: int, density: float = 0.15) -> Any:
    A = canonical(sp.random_array((rows, cols), density=density, rng=RNG))
    A.data[:] = RNG.standard_normal(A.nnz)
    return A.astype(np.float32)


A, B, C = sparse(40, 30), sparse(30, 50), sparse(40, 30)
M = sparse(40, 50)
M.data[:] = 1
A2, B2 = again("A", A), again("B", B)
Z = A.copy()
Z.data = -Z.data

KERNELS: dict[str, tuple[Callable[..., Any], dict[str, Any], Callable[[], np.ndarray]]] = {
    "spgemm": (reference.spgemm, {"A": A, "B": B}, lambda: A.toarray().astype(float) @ B.toarray()),
    "masked_spgemm": (reference.masked_spgemm, {"M": M, "A": A, "B": B}, lambda: M.toarray() * (A.toarray().astype(float) @ B.toarray())),
    "sparse_add": (reference.sparse_add, {"A": A, "B": C}, lambda: A.toarray().astype(float) + C.toarray()),
    "sparse_multiply": (reference.sparse_multiply, {"A": A, "B": C}, lambda: A.toarray().astype(float) * C.toarray()),
}
PEERS = ("scipy", "mkl", "graphblas")


def peer(name: str) -> Any:
    try:
        return load(name)
    except Unavailable as reason:
        pytest.skip(str(reason))


@pytest.mark.parametrize("kernel", KERNELS)
def test_references_equal_the_dense_mathematics(kernel: str) -> None:
    make, operands, dense = KERNELS[kernel]
    values, bound = make(**operands)
    assert bound.shape == values.data.shape and values.has_canonical_format
    np.testing.assert_allclose(values.toarray(), dense(), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", PEERS)
@pytest.mark.parametrize("kernel", KERNELS)
def test_peers_are_within_the_bound_and_a_lie_is_not(name: str, kernel: str) -> None:
    library, (make, operands, _) = peer(name), KERNELS[kernel]
    if kernel not in library.kernels:
        pytest.skip(f"{name} has no {kernel}")
    values, bound = make(**operands)
    with library.threads(1):
        got = on_pattern(library.kernels[kernel](**operands)(), values)
    assert got.dtype == np.float32
    assert relative_excess(got, values.data, bound) <= 1
    got = got.copy()
    got[np.argmax(np.abs(values.data))] *= np.float32(1.001)
    assert relative_excess(got, values.data, bound) > 1


def test_mkl_computes_new_values_on_a_kept_pattern() -> None:
    library = peer("mkl")
    values, bound = reference.spgemm(A2, B2)
    with library.threads(1):
        run = library.kernels["spgemm_reuse"](A, B, A2, B2)
        run()
        again_ = on_pattern(run(), values)
        two = on_pattern(library.kernels["spgemm_two_stage"](A2, B2)(), values)
    assert relative_excess(again_, values.data, bound) <= 1 and relative_excess(two, values.data, bound) <= 1


@pytest.mark.parametrize("name", ("scipy", "mkl", "polyai"))
def test_conversions_keep_every_value(name: str) -> None:
    library = peer(name)
    full = canonical(generated.blocks(64, 4, 0.2, np.float64).tocsr())
    coo = full.tocoo()
    order = RNG.permutation(coo.nnz)
    mixed = sp.coo_array((coo.data[order], tuple(c[order].astype(np.int32) for c in coo.coords)), shape=coo.shape)
    with library.threads(1):
        for kernel, operands in (("csr_to_csc", {"A": full}), ("coo_to_csr", {"A": mixed}), ("csr_to_bsr", {"A": full, "block": 4})):
            np.testing.assert_array_equal(on_pattern(library.kernels[kernel](**operands)(), full), full.data)


@pytest.mark.parametrize("name", ("scipy", "mkl"))
def test_products_with_blocks_and_transposes(name: str) -> None:
    library = peer(name)
    blocks = generated.blocks(64, 8, 0.3, np.float32)
    X, Y = RNG.standard_normal((64, 5)).astype(np.float32), RNG.standard_normal((40, 6)).astype(np.float32)
    with library.threads(1):
        np.testing.assert_allclose(library.kernels["bsr_spmm"](blocks, X)(), blocks.toarray() @ X, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(library.kernels["spmm_transposed"](A, Y)(), A.toarray().T @ Y, rtol=1e-4, atol=1e-5)


def test_what_cancels_may_be_stored_or_not() -> None:
    values, bound = reference.sparse_add(A, Z)
    assert values.nnz == A.nnz
    dropped, kept = A + Z, sp.csr_array((np.zeros(A.nnz, np.float32), A.indices, A.indptr), shape=A.shape)
    assert dropped.nnz == 0
    for result in (dropped, kept):
        assert relative_excess(on_pattern(result, values), values.data, bound) <= 1


def test_a_result_with_another_pattern_is_wrong() -> None:
    values, bound = reference.sparse_add(A, C)
    right = (A + C).tocsr()
    outside = sp.csr_array(values.toarray() == 0).astype(np.float32)
    twice = sp.csr_array((np.repeat(right.data / 2, 2), np.repeat(right.indices, 2), 2 * right.indptr), shape=right.shape)
    for wrong in (right + outside, twice, right[:-1], sp.csr_array(right.shape, dtype=np.float32)):
        assert relative_excess(on_pattern(wrong, values), values.data, bound) > 1
    assert math.isinf(relative_excess(on_pattern(outside, sp.csr_array(outside.shape)), np.zeros(0), 0.0))


def test_unsorted_rows_and_foreign_results_are_laid_out_right() -> None:
    values, _ = reference.sparse_add(A, C)
    right = (A + C).tocsr()
    order = np.concatenate([np.arange(b, e)[::-1] for b, e in zip(right.indptr, right.indptr[1:])])
    mixed = Compressed(right.shape, right.indptr, right.indices[order], right.data[order])
    np.testing.assert_array_equal(on_pattern(mixed, values), right.data)


def test_the_work_of_a_product() -> None:
    terms = (A.toarray() != 0).astype(int) @ (B.toarray() != 0).astype(int)
    assert product_work(A, B) == terms.sum()
    assert np.count_nonzero(terms) <= most_stored(A, B) <= min(product_work(A, B), A.shape[0] * B.shape[1])


def test_a_shifted_matrix_has_another_pattern() -> None:
    other = shifted("A", A)
    np.testing.assert_array_equal(other.toarray() != 0, np.roll(A.toarray() != 0, 1, axis=1))


class Refuses:
    """A peer that refuses by an error of PolyAI's own."""

    name = "refuses"

    def __init__(self) -> None:
        self.kernels = {"sparse_add": self._add}

    def _add(self, A: Any, B: Any) -> Any:
        class UnsupportedError(Exception):
            pass

        raise UnsupportedError("A + B of two sparse matrices")

    def version(self) -> str:
        return "0"

    threads = staticmethod(load("scipy").threads)


def test_a_refused_case_is_told_from_a_wrong_one() -> None:
    case = sparse_case("add", "sparse_add", {"A": A, "B": C}, lambda: reference.sparse_add(A, C), 1, 1, {})
    timings = measure("t", case, [load("scipy"), Refuses()], 1, Settings(rounds=0)).timings
    assert timings["refuses"].unsupported and "A + B" in timings["refuses"].problem
    assert not timings["scipy"].problem and not timings["scipy"].unsupported


def test_the_best_of_several_peers_counts() -> None:
    timings = {n: Timing(n, [t, t, t]) for n, t in (("polyai", 1.0), ("scipy", 4.0), ("mkl", 3.0))}
    result = Result("s", "c", 1, timings | {"numba": Timing("numba", problem="missing")})
    assert result.ratio("best of scipy, mkl, numba") == 3.0
    assert math.isnan(result.ratio("best of numba, graphblas"))


@pytest.mark.parametrize("name", ("bsr_spmm",))
def test_generated_cases_are_right_for_scipy(name: str) -> None:
    suite = load_suite(name)
    assert suite.cases is not None
    count = 0
    for case in suite.cases(Settings(rounds=0, quick=True)):
        assert not measure(name, case, [load("scipy")], 1, Settings(rounds=0)).timings["scipy"].problem
        count += 1
    assert count == 8


def test_generated_products_are_right_for_scipy(monkeypatch: pytest.MonkeyPatch) -> None:
    small = [Matrix("small", sparse(60, 60).astype(np.float64)), Matrix("wide", sparse(20, 60).astype(np.float64))]
    monkeypatch.setattr("benchmarks.suites.sparse_cases.sources", lambda settings, most=0: iter(small))
    monkeypatch.setattr("benchmarks.suites.convert.sources", lambda settings, most=0: iter(small))
    for name, expected in (("spgemm", 2), ("spgemm_reuse", 2), ("spgemm_masked", 1), ("sparse_add", 4), ("sparse_multiply", 4), ("convert", 6)):
        suite = load_suite(name)
        assert suite.cases is not None
        found = [measure(name, case, [load("scipy")], 1, Settings(rounds=0, quick=True)) for case in suite.cases(Settings(rounds=0, quick=True))]
        assert len(found) == expected
        assert [r.timings["scipy"].problem for r in found] == [""] * expected
