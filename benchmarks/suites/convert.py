"""Conversions, f64 with 32-bit indices: CSR to CSC, shuffled COO to CSR with sorted rows, CSR to BSR where blocks are full."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import scipy.sparse as sp

from benchmarks import generated
from benchmarks.harness import Case, Settings, Target
from benchmarks.matrices import canonical
from benchmarks.suites import Suite
from benchmarks.suites.operands import facts, rng, structure
from benchmarks.suites.sparse_cases import sources, sparse_case, unlike

BLOCKS = (4, 16)
AIMED = ("csr to csc", "coo to csr")
"""The pairs that the aims speak of; blocks are measured beside them."""


def shuffled(name: str, A: Any) -> Any:
    """COO in random order, 32-bit coordinates."""
    coo = A.tocoo()
    order = rng(name).permutation(coo.nnz)
    return sp.coo_array((coo.data[order], tuple(c[order].astype(np.int32) for c in coo.coords)), shape=A.shape)


def exact(A: Any) -> tuple[Any, np.ndarray]:
    """A conversion changes no value."""
    return A, np.zeros(A.nnz)


def cases(settings: Settings) -> Iterator[Case]:
    for matrix in sources(settings, most=16):
        A = unlike(matrix)
        for kernel, operand in (("csr_to_csc", A), ("coo_to_csr", shuffled(matrix.name, A))):
            yield sparse_case(
                f"{kernel.replace('_', ' ')} {matrix.name}", kernel, {"A": operand}, lambda A=A: exact(A), 0, 2 * structure(A), facts(A)
            )
    for block in BLOCKS:
        B = canonical(generated.blocks(1024 if settings.quick else 8192, block, 0.02, np.float64).tocsr())
        yield sparse_case(
            f"csr to bsr {block}", "csr_to_bsr", {"A": B, "block": block}, lambda B=B: exact(B), 0, 2 * structure(B), facts(B)
        )


SUITE = Suite(
    "convert",
    "Conversions, f64",
    ("scipy", "mkl", "torch", "numba"),
    cases,
    (
        Target("scipy", 1.5, threads=(1,), only=AIMED),
        Target("scipy", 2.5, threads=(2,), only=AIMED),
        Target("scipy", 1.0, only=("csr to bsr",)),
        Target("best of mkl, numba", 1.0),
    ),
)
