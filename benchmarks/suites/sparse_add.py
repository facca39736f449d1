"""C = A + B, f64, CSR in and out: two matrices of the same pattern, and of patterns that overlap in part."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks import reference
from benchmarks.harness import Case, Settings, Target
from benchmarks.suites import Suite
from benchmarks.suites.sparse_cases import both, pairs, read_bytes, sparse_case


def cases(settings: Settings) -> Iterator[Case]:
    for name, A, B in pairs(settings):
        yield sparse_case(
            name,
            "sparse_add",
            {"A": A, "B": B},
            lambda A=A, B=B: reference.sparse_add(A, B),
            min(A.nnz, B.nnz),
            read_bytes(A, B),
            both(A, B),
        )


SUITE = Suite(
    "sparse_add",
    "Sparse + sparse, f64",
    ("scipy", "mkl", "torch", "numba", "graphblas"),
    cases,
    (Target("best of scipy, mkl, numba", 2.0),),
)
