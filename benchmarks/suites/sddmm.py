"""Z = A * (U V^T) at the stored coordinates of A, f32, k = 64, against the NumPy gather idiom and Numba."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from benchmarks import matrices, reference
from benchmarks.harness import Case, Settings, Target
from benchmarks.suites import Suite
from benchmarks.suites.operands import facts, normal, reached, structure, typed

K = 64


def cases(settings: Settings) -> Iterator[Case]:
    for matrix in matrices.load(settings, most=24):
        A = typed(matrix.csr, np.float32)
        U, V = normal(matrix.name + " U", A.shape[0], K), normal(matrix.name + " V", A.shape[1], K)
        yield Case(
            matrix.name,
            "sddmm",
            {"A": A, "U": U, "V": V},
            lambda A=A, U=U, V=V: reference.sddmm(A, U, V),
            2 * A.nnz * K + A.nnz,
            structure(A) + 4 * A.nnz + 4 * K * (reached(A) + A.shape[0]),
            facts(A) | {"k": K},
        )


SUITE = Suite(
    "sddmm",
    "SDDMM, f32, k = 64",
    ("scipy", "torch", "numba"),
    cases,
    (Target("scipy", 20.0), Target("numba", 1.3)),
)
