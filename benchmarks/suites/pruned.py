"""Pruned weights times a batch, f32, W X with 8, 32 and 128 columns, sparsity 60 to 95 %: against sparse products and dense ones.

`mkl dense` and `torch dense` multiply the weights stored in full, which shows from which sparsity on the sparse product pays.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from benchmarks import matrices, reference
from benchmarks.harness import BEST_OF, Case, Peer, Result, Run, Settings, Target, geomean
from benchmarks.suites import Suite
from benchmarks.suites.operands import facts, normal, reached, structure, typed
from benchmarks.suites.sparse_cases import WEIGHTS

BATCHES = (8, 32, 128)
LEAST, MOST = 0.595, 0.955
DENSE = ("mkl", "torch")
AGAINST = BEST_OF + ", ".join(f"{name} dense" for name in DENSE)


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


def crossover(results: Sequence[Result]) -> list[str]:
    """For each batch and number of threads: the sparsity from which on the sparse product is faster than the fastest dense one of
    every contender, on every weight and on average by tenths of sparsity."""
    out = []
    for threads in sorted({r.threads for r in results}):
        for n in BATCHES:
            mine = [(float(r.facts["sparsity"]), r.ratio(AGAINST)) for r in results if r.threads == threads and r.facts.get("N") == n]
            known = sorted((s, ratio) for s, ratio in mine if not math.isnan(ratio))
            if not known:
                continue
            slower = [s for s, ratio in known if ratio < 1]
            if not slower:
                text = f"every weight measured, from {known[0][0]:.0%} on"
            elif slower[-1] == known[-1][0]:
                text = "not every weight at any sparsity measured"
            else:
                text = f"every weight sparser than {slower[-1]:.0%}"
            tenths: dict[int, list[float]] = {}
            for s, ratio in known:
                tenths.setdefault(int(s * 10 + 1e-9), []).append(ratio)
            means = ", ".join(f"{t * 10} to {t * 10 + 10} %: {geomean(ratios):.2f}x" for t, ratios in tenths.items())
            out.append(f"Sparse beats dense with {n} columns and {threads} thread(s) on {text}. Dense time over sparse time by sparsity: {means}.")
    return out


SUITE = Suite(
    "pruned",
    "Pruned weights, f32, batches of 8/32/128",
    ("scipy", "mkl", "torch", "numba"),
    cases,
    (Target("mkl", 1.72), Target(AGAINST, 1.0)),
    wrap=wrap,
    remarks=crossover,
)
