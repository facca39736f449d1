"""What the index checks inside a kernel cost: the same program compiled with them and, for this measurement only, without.

No option turns the checks off. This file takes them out between two stages of the compiler; the kernel so made is never cached.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np

import polyai as pa
from benchmarks import matrices, reference
from benchmarks.harness import SUBJECT, Case, Peer, Prepare, Run, Settings, Target
from benchmarks.suites import Suite
from benchmarks.suites.operands import facts, normal, reached, structure, typed
from polyai import pipeline
from polyai.loop import nodes as lp
from polyai.term.node import rewrite

UNCHECKED = f"{SUBJECT} without checks"


def without_checks(kernel: lp.Kernel) -> lp.Kernel:
    """`kernel` with every Check replaced by nothing."""
    return replace(kernel, body=rewrite(kernel.body, lambda n: lp.Block(()) if isinstance(n, lp.Check) else n))


@contextmanager
def unchecked_compiler() -> Iterator[None]:
    """Inside, compilations drop all checks, and nothing is read from or written to the caches."""
    before = pipeline.STAGES
    at = next(n for n, s in enumerate(before) if s.name == "loops") + 1
    drop = pipeline.Stage("unchecked", "loop", lambda b: replace(b, kernel=without_checks(b.loops)))
    pa.cache_clear()
    pipeline.STAGES = (*before[:at], drop, *before[at:])
    try:
        with pa.options(cache_bytes=0):
            yield
    finally:
        pipeline.STAGES = before
        pa.cache_clear()


class Unchecked:
    """The subject's product, compiled without checks."""

    name = UNCHECKED

    def __init__(self, subject: Peer) -> None:
        self._subject = subject
        self.kernels: Mapping[str, Prepare] = {"spmv": self._product, "spmm": self._product}

    def _product(self, A: Any, x: Any = None, X: Any = None) -> Run:
        dense = x if X is None else X

        @pa.jit
        def unchecked(A: Any, B: Any) -> Any:
            return A @ B

        with unchecked_compiler():
            unchecked(A, dense)
        return lambda: unchecked(A, dense)

    def version(self) -> str:
        return self._subject.version()

    @contextmanager
    def threads(self, count: int) -> Iterator[None]:
        yield


def wrap(peers: Sequence[Peer]) -> list[Peer]:
    subject = next(p for p in peers if p.name == SUBJECT)
    return [Unchecked(subject), *peers]


def cases(settings: Settings) -> Iterator[Case]:
    for matrix in matrices.load(settings, most=12):
        A = matrix.csr
        x = normal(matrix.name, A.shape[1], dtype=np.float64)
        yield Case(
            f"SpMV {matrix.name}",
            "spmv",
            {"A": A, "x": x},
            lambda A=A, x=x: reference.matvec(A, x),
            2 * A.nnz,
            structure(A) + 8 * (reached(A) + A.shape[0]),
            facts(A),
        )
        B = typed(A, np.float32)
        X = normal(matrix.name, B.shape[1], 64)
        yield Case(
            f"SpMM {matrix.name} N=64",
            "spmm",
            {"A": B, "X": X},
            lambda B=B, X=X: reference.matvec(B, X),
            128 * B.nnz,
            structure(B) + 256 * (reached(B) + B.shape[0]),
            facts(B),
        )


SUITE = Suite(
    "checks_cost",
    "Cost of index checks (below 1: the checked kernel is slower)",
    (),
    cases,
    (Target(UNCHECKED, 0.9),),
    threads=(1,),
    wrap=wrap,
)
