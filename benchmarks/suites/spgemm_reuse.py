"""C = A B again for new values of the same patterns, f64: the pattern is found before the clock starts.

`polyai anew` is PolyAI's product without the handle.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from benchmarks import reference
from benchmarks.harness import SUBJECT, Case, Peer, Run, Settings, Target
from benchmarks.sparse_results import product_work
from benchmarks.suites import Suite
from benchmarks.suites.sparse_cases import again, both, products, read_bytes, sparse_case

ANEW = f"{SUBJECT} anew"


class Anew:
    """The subject's plain product of the new values."""

    name = ANEW

    def __init__(self, subject: Peer) -> None:
        self._subject = subject
        self.kernels: Mapping[str, Callable[..., Run]] = {"spgemm_reuse": self._product}

    def _product(self, A: Any, B: Any, A2: Any, B2: Any) -> Run:
        return self._subject.kernels["spgemm"](A=A2, B=B2)

    def version(self) -> str:
        return self._subject.version()

    @contextmanager
    def threads(self, count: int) -> Iterator[None]:
        yield


def wrap(peers: Sequence[Peer]) -> list[Peer]:
    return [*peers, Anew(next(p for p in peers if p.name == SUBJECT))]


def cases(settings: Settings) -> Iterator[Case]:
    for name, A, B in products(settings):
        A2 = again(name, A)
        B2 = A2 if A is B else again(f"{name} B", B)
        yield sparse_case(
            name,
            "spgemm_reuse",
            {"A": A, "B": B, "A2": A2, "B2": B2},
            lambda A2=A2, B2=B2: reference.spgemm(A2, B2),
            2 * product_work(A, B),
            read_bytes(A, B),
            both(A, B),
        )


SUITE = Suite(
    "spgemm_reuse",
    "Sparse times sparse, f64, new values of a known pattern",
    ("mkl", "numba"),
    cases,
    (Target(ANEW, 2.0), Target("best of mkl, numba", 1.3)),
    wrap=wrap,
)
