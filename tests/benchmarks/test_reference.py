"""References equal the dense mathematics, and their bounds hold for f32 arithmetic but not for a small lie."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.io
import scipy.sparse as sp

from benchmarks import matrices, reference
from benchmarks.harness import Settings, Unavailable, relative_excess
from benchmarks.peers import load
from benchmarks.suites import ALL
from benchmarks.suites import load as load_suite

RNG = np.random.default_rng(3)


def sparse(rows: int, cols: int, density: float = 0.2) -> sp.csr_array:
    A = sp.random_array((rows, cols), density=density, format="csr", dtype=np.float32, rng=RNG)
    A.indices, A.indptr = A.indices.astype(np.int32), A.indptr.astype(np.int32)
    A.data[:] = RNG.standard_normal(A.nnz)
    return A


def normal(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


A, S = sparse(30, 20), sparse(25, 25)
S.data[:] = 1
OPERANDS = {
    "spmv": (reference.matvec, {"A": A, "X": normal(20)}),
    "spmm": (reference.matvec, {"A": A, "X": normal(20, 7)}),
    "sddmm": (reference.sddmm, {"A": A, "U": normal(30, 9), "V": normal(20, 9)}),
    "attention": (reference.attention, {"mask": S, "Q": normal(25, 8), "K": normal(25, 8), "V": normal(25, 8)}),
    "gcn": (reference.gcn, {"A": A, "X": normal(20, 6), "W": normal(6, 5), "b": normal(5)}),
}


@pytest.mark.parametrize("kernel", OPERANDS)
def test_numpy_in_f32_is_within_the_bound_and_a_lie_is_not(kernel: str) -> None:
    make, operands = OPERANDS[kernel]
    values, bound = make(**operands)
    given = {("x" if kernel == "spmv" and k == "X" else k): v for k, v in operands.items()}
    got = np.asarray(load("scipy").kernels[kernel](**given)())
    assert got.dtype == np.float32
    assert relative_excess(got, values, bound) <= 1
    lie = got.copy()
    at = np.unravel_index(np.argmax(np.abs(values)), values.shape)
    lie[at] *= np.float32(1.001)
    assert relative_excess(lie, values, bound) > 1


def test_attention_equals_the_dense_formula() -> None:
    _, operands = OPERANDS["attention"]
    values, _ = reference.attention(**operands)
    Q, K, V = (operands[t].astype(float) for t in "QKV")
    score = np.where(S.toarray() != 0, Q @ K.T / np.sqrt(8), -np.inf)
    weights = np.exp(score)
    total = weights.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(values, np.divide(weights, total, out=np.zeros_like(weights), where=total > 0) @ V, rtol=1e-12, atol=1e-14)


def test_rowwise_equals_scipy_in_float64() -> None:
    X, g, b = normal(5, 40).astype(float), normal(40).astype(float), normal(40).astype(float)
    values, _ = reference.rowwise(X, g, b, 1e-5)
    np.testing.assert_allclose(values, load("scipy").kernels["rowwise"](X, g, b, 1e-5)(), rtol=1e-10)


def test_gemm_equals_numpy() -> None:
    a, b = normal(4, 9), normal(9, 3)
    values, bound = reference.gemm(a, b)
    assert relative_excess(a @ b, values, bound) <= 1
    assert relative_excess(load("openblas").kernels["gemm"](a, b)(), values, bound) <= 1


def test_files_of_every_kind_are_read(tmp_path) -> None:  # type: ignore[no-untyped-def]
    expected = A.toarray().astype(float)
    scipy.io.mmwrite(tmp_path / "a.mtx", A)
    sp.save_npz(tmp_path / "b.npz", A)
    lines = [f"30, 20, {A.nnz}", " ".join(map(str, A.indptr)), " ".join(map(str, A.indices))]
    (tmp_path / "c.smtx").write_text("\n".join(lines) + "\n")
    np.savez(tmp_path / "batch.npz", edge_index=np.zeros((2, 3)))
    found = {p.name: matrices.read(p) for p in matrices.files(tmp_path)}
    assert found.pop("batch.npz") is None
    np.testing.assert_allclose(found["a.mtx"].toarray(), expected, rtol=1e-6)
    np.testing.assert_array_equal(found["b.npz"].toarray(), expected)
    np.testing.assert_array_equal(found["c.smtx"].toarray() != 0, expected != 0)
    assert [m.name.split("/")[1] for m in matrices.load(Settings(data=str(tmp_path)), least=1)] == ["a", "b", "c"]


def test_suites_need_a_folder() -> None:
    with pytest.raises(Unavailable, match="--data"):
        list(matrices.load(Settings()))
    with pytest.raises(Unavailable, match="not a folder"):
        list(matrices.load(Settings(data="/no/such/folder")))


@pytest.mark.parametrize("name", ["spmv", "spmm", "sddmm", "gemm", "gemm_few_rows", "rowwise", "call_overhead", "scaling"])
def test_a_suite_is_called_as_its_file(name: str) -> None:
    assert name in ALL
    assert load_suite(name).name == name
