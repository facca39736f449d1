"""One graph convolution relu(A (X W) + b), 128 to 64 features, f32: real graphs and an R-MAT graph of 3 million edges."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from benchmarks import generated, matrices, reference
from benchmarks.harness import Case, Settings, Target
from benchmarks.matrices import Matrix
from benchmarks.suites import Suite
from benchmarks.suites.operands import facts, normal, structure, typed

FROM, TO = 128, 64


def graphs(settings: Settings) -> Iterator[Matrix]:
    if settings.data is not None:
        yield from matrices.load(settings, least=10_000, graphs=True)
    edges = 300_000 if settings.quick else 3_000_000
    yield Matrix(f"rmat/{edges}", generated.rmat(edges))


def cases(settings: Settings) -> Iterator[Case]:
    for matrix in graphs(settings):
        A = typed(matrix.csr, np.float32)
        n = A.shape[0]
        X, W, b = normal(matrix.name, n, FROM), normal("W", FROM, TO) / np.float32(FROM**0.5), normal("b", TO)
        yield Case(
            matrix.name,
            "gcn",
            {"A": A, "X": X, "W": W, "b": b},
            lambda A=A, X=X, W=W, b=b: reference.gcn(A, X, W, b),
            2 * n * FROM * TO + 2 * A.nnz * TO + 2 * n * TO,
            structure(A) + 4 * (n * FROM + FROM * TO + TO + n * TO),
            facts(A) | {"from": FROM, "to": TO},
        )


SUITE = Suite(
    "gcn",
    "Graph convolution, f32, 128 to 64 features",
    ("scipy", "mkl", "torch", "numba"),
    cases,
    (Target("mkl", 1.3), Target("torch", 1.3)),
)
