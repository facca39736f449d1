"""Y = A^T X in f32 with 32 and 128 columns, A stored as CSR and nothing else: no contender may keep a transpose.

`mkl with a copy` may: its inspector stores the transpose before the clock starts. It is shown for comparison.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np

from benchmarks import matrices, reference
from benchmarks.harness import Case, Peer, Run, Settings, Target
from benchmarks.suites import Suite
from benchmarks.suites.operands import facts, normal, structure, typed

COLUMNS = (32, 128)
COPIED = "mkl with a copy"


class Copied:
    """MKL with leave to keep a transpose."""

    name = COPIED

    def __init__(self, mkl: Peer) -> None:
        self._mkl = mkl
        self.kernels: Mapping[str, Callable[..., Run]] = {"spmm_transposed": mkl.kernels["spmm_transposed_copied"]}

    def version(self) -> str:
        return self._mkl.version()

    @contextmanager
    def threads(self, count: int) -> Iterator[None]:
        with self._mkl.threads(count):
            yield


def wrap(peers: Sequence[Peer]) -> list[Peer]:
    return [*peers, *(Copied(p) for p in peers if p.name == "mkl")]


def cases(settings: Settings) -> Iterator[Case]:
    for matrix in matrices.load(settings, most=24):
        A = typed(matrix.csr, np.float32)
        for n in (32,) if settings.quick else COLUMNS:
            X = normal(matrix.name, A.shape[0], n)
            yield Case(
                f"{matrix.name} N={n}",
                "spmm_transposed",
                {"A": A, "X": X},
                lambda A=A, X=X: reference.matvec(matrices.canonical(A.T), X),
                2 * A.nnz * n,
                structure(A) + 4 * n * sum(A.shape),
                facts(A) | {"N": n},
            )


SUITE = Suite(
    "spmm_transposed",
    "SpMM with a transposed operand, f32, 32/128 columns",
    ("scipy", "mkl", "torch"),
    cases,
    (Target("mkl", 1.0), Target("best of scipy, mkl, torch", 1.0)),
    wrap=wrap,
)
