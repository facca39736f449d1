"""Pruned weights times a batch, f32, W X with 8, 32 and 128 columns, sparsity 60 to 95 %: against sparse products and dense ones.

`mkl dense` and `torch dense` multiply the weights stored in full, which shows from which sparsity on the sparse product pays.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from benchmarks import matrices, reference
from benchmarks.harness import Case, Peer, Run, Settings, Target
from benchmarks.suites import Suite
from benchmarks.suites.operands import facts, normal, reached, structure, typed
from benchmarks.suites.sparse_cases import WEIGHTS

BATCHES = (8, 32, 128)
LEAST, MOST = 0.595, 0.955
DENSE = ("mkl", "torch")


class Dense:
    """A peer's dense product of the weights stored in full."""

    def __init__(self, peer: Peer) -> None:
        self.name, self._peer = f"{peer.name} dense", peer
        self.kernels: Mapping[str, Callable[..., Run]] = {"spmm": self._product}

    def _product(self, A: Any, X: np.ndarray) -> Run:
        return self._peer.kernels["gemm"](A=A.toarray(), B=X)

    def version(self) -> str:
        return self._peer.version()

    @contextmanager
    def threads(self, count: int) -> Iterator[None]:
        with self._peer.threads(count):
            yield


def wrap(peers: Sequence[Peer]) -> list[Peer]:
    return [*peers, *(Dense(p) for p in peers if p.name in DENSE)]


def cases(settings: Settings) -> Iterator[Case]:
    for matrix in matrices.load(settings, least=5_000, folders=WEIGHTS):
        W = typed(matrix.csr, np.float32)
        sparsity = 1 - W.nnz / (W.shape[0] * W.shape[1])
        if not LEAST <= sparsity <= MOST:
            continue
        for n in (32,) if settings.quick else BATCHES:
            X = normal(matrix.name, W.shape[1], n)
            yield Case(
                f"{matrix.name} {sparsity:.0%} N={n}",
                "spmm",
                {"A": W, "X": X},
                lambda W=W, X=X: reference.matvec(W, X),
                2 * W.nnz * n,
                structure(W) + 4 * n * (reached(W) + W.shape[0]),
                facts(W) | {"N": n, "sparsity": round(sparsity, 4)},
            )


SUITE = Suite(
    "pruned",
    "Pruned weights, f32, batches of 8/32/128",
    ("scipy", "mkl", "torch", "numba"),
    cases,
    (Target("mkl", 1.72), Target("best of mkl dense, torch dense", 1.0)),
    wrap=wrap,
)
