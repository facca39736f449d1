"""Y = A X in f32 with 32, 64 and 128 columns on every real matrix of at least 50,000 stored elements."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from benchmarks import matrices, reference
from benchmarks.harness import Case, Settings, Target
from benchmarks.suites import Suite
from benchmarks.suites.operands import facts, normal, reached, structure, typed

COLUMNS = (32, 64, 128)


def cases(settings: Settings) -> Iterator[Case]:
    for matrix in matrices.load(settings):
        A = typed(matrix.csr, np.float32)
        for n in (64,) if settings.quick else COLUMNS:
            X = normal(matrix.name, A.shape[1], n)
            yield Case(
                f"{matrix.name} N={n}",
                "spmm",
                {"A": A, "X": X},
                lambda A=A, X=X: reference.matvec(A, X),
                2 * A.nnz * n,
                structure(A) + 4 * n * (reached(A) + A.shape[0]),
                facts(A) | {"N": n},
            )


SUITE = Suite(
    "spmm",
    "SpMM, f32, 32/64/128 columns",
    ("scipy", "mkl", "torch", "numba"),
    cases,
    (Target("mkl", 1.1, floor=0.85),),
)
