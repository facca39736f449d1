"""What a user of scipy.sparse writes for programs with sparse results. One thread; rows of products are left unsorted."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.harness import Run


def spgemm(A: Any, B: Any) -> Run:
    return lambda: A @ B


def spgemm_reuse(A: Any, B: Any, A2: Any, B2: Any) -> Run:
    """SciPy keeps no pattern: the whole product again."""
    return lambda: A2 @ B2


def masked_spgemm(M: Any, A: Any, B: Any) -> Run:
    """The whole product, then what the mask keeps."""
    return lambda: M * (A @ B)


def sparse_add(A: Any, B: Any) -> Run:
    return lambda: A + B


def sparse_multiply(A: Any, B: Any) -> Run:
    return lambda: A * B


def csr_to_csc(A: Any) -> Run:
    return lambda: A.tocsc()


def coo_to_csr(A: Any) -> Run:
    """tocsr, with rows sorted: what a consumer of canonical CSR needs."""

    def run() -> Any:
        out = A.tocsr()
        out.sort_indices()
        return out

    return run


def csr_to_bsr(A: Any, block: int) -> Run:
    return lambda: A.tobsr((block, block))


def bsr_spmm(A: Any, X: np.ndarray) -> Run:
    return lambda: A @ X


def spmm_transposed(A: Any, X: np.ndarray) -> Run:
    return lambda: A.T @ X


KERNELS = {
    "spgemm": spgemm, "spgemm_reuse": spgemm_reuse, "masked_spgemm": masked_spgemm, "sparse_add": sparse_add,
    "sparse_multiply": sparse_multiply, "csr_to_csc": csr_to_csc, "coo_to_csr": coo_to_csr, "csr_to_bsr": csr_to_bsr,
    "bsr_spmm": bsr_spmm, "spmm_transposed": spmm_transposed,
}  # fmt: skip
