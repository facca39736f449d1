"""PolyAI with one thread against PolyAI with two, on the ten largest matrices: SpMM in f32 with 64 columns."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from benchmarks import matrices, reference
from benchmarks.harness import SUBJECT, Case, Peer, Run, Settings, Target
from benchmarks.suites import Suite
from benchmarks.suites.operands import facts, normal, reached, structure, typed

ONE = f"{SUBJECT} 1 thread"
N = 64


class OneThread:
    """The subject held to one thread, whatever the harness asks for."""

    def __init__(self, subject: Peer) -> None:
        self.name, self._subject = ONE, subject
        self.kernels: Mapping[str, Callable[..., Run]] = {k: self._hold(p) for k, p in subject.kernels.items()}

    def _hold(self, prepare: Callable[..., Run]) -> Callable[..., Run]:
        def prepared(**operands: Any) -> Run:
            with self._subject.threads(1):
                run = prepare(**operands)

            def held() -> Any:
                with self._subject.threads(1):
                    return run()

            return held

        return prepared

    def version(self) -> str:
        return self._subject.version()

    @contextmanager
    def threads(self, count: int) -> Iterator[None]:
        yield


def wrap(peers: Sequence[Peer]) -> list[Peer]:
    subject = next(p for p in peers if p.name == SUBJECT)
    return [*peers, OneThread(subject)]


def cases(settings: Settings) -> Iterator[Case]:
    for matrix in matrices.largest(settings, 10):
        A = typed(matrix.csr, np.float32)
        X = normal(matrix.name, A.shape[1], N)
        yield Case(
            f"{matrix.name} N={N}",
            "spmm",
            {"A": A, "X": X},
            lambda A=A, X=X: reference.matvec(A, X),
            2 * A.nnz * N,
            structure(A) + 4 * N * (reached(A) + A.shape[0]),
            facts(A) | {"N": N},
        )


SUITE = Suite(
    "scaling",
    "Two threads against one, SpMM f32, 64 columns",
    (),
    cases,
    (Target(ONE, 1.6, threads=(2,)),),
    threads=(2,),
    wrap=wrap,
)
