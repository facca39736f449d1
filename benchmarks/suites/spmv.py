"""y = A x in f64 on every real matrix of at least 50,000 stored elements, against MKL's optimised handle and PyTorch."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from benchmarks import matrices, reference
from benchmarks.harness import Case, Settings, Target
from benchmarks.suites import Suite
from benchmarks.suites.operands import facts, normal, reached, structure


def cases(settings: Settings) -> Iterator[Case]:
    for matrix in matrices.load(settings):
        A = matrix.csr
        x = normal(matrix.name, A.shape[1], dtype=np.float64)
        yield Case(
            matrix.name,
            "spmv",
            {"A": A, "x": x},
            lambda A=A, x=x: reference.matvec(A, x),
            2 * A.nnz,
            structure(A) + 8 * (reached(A) + A.shape[0]),
            facts(A),
        )


SUITE = Suite(
    "spmv",
    "SpMV, f64",
    ("scipy", "mkl", "torch", "numba"),
    cases,
    (Target("mkl", 1.0), Target("torch", 1.3)),
)
