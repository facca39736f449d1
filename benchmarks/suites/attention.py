"""Sparse attention softmax(Q K^T / sqrt(d) on the mask) V, f32, d = 64: BigBird masks and real graphs."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from benchmarks import generated, matrices, reference
from benchmarks.harness import Case, Settings, Target
from benchmarks.matrices import Matrix
from benchmarks.suites import Suite
from benchmarks.suites.operands import facts, normal, reached, structure, typed

D = 64
BIGBIRD_ROWS = (4096, 16384)


def masks(settings: Settings) -> Iterator[Matrix]:
    for rows in BIGBIRD_ROWS[:1] if settings.quick else BIGBIRD_ROWS:
        yield Matrix(f"bigbird/{rows}", generated.bigbird(rows))
    if settings.data is not None:
        yield from matrices.load(settings, least=10_000, graphs=True)


def cases(settings: Settings) -> Iterator[Case]:
    for matrix in masks(settings):
        mask = typed(matrix.csr, np.float32)
        mask.data[:] = 1
        n = mask.shape[0]
        Q, K, V = (normal(f"{matrix.name} {t}", n, D) for t in "QKV")
        yield Case(
            matrix.name,
            "attention",
            {"mask": mask, "Q": Q, "K": K, "V": V},
            lambda m=mask, q=Q, k=K, v=V: reference.attention(m, q, k, v),
            mask.nnz * (4 * D + 4),
            structure(mask) - mask.data.nbytes + 4 * D * (2 * n + 2 * reached(mask)),
            facts(mask) | {"d": D},
        )


SUITE = Suite(
    "attention",
    "Sparse attention, f32, d = 64",
    ("scipy", "torch", "numba"),
    cases,
    (Target("torch", 2.5), Target("numba", 2.5)),
)
