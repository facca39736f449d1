"""C = M * (A A), f64, M the pattern of A in ones: only what the mask keeps needs computing (triangles of a graph, squared stencils)."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks import reference
from benchmarks.harness import Case, Settings, Target
from benchmarks.sparse_results import product_work
from benchmarks.suites import Suite
from benchmarks.suites.sparse_cases import both, products, read_bytes, sparse_case


def cases(settings: Settings) -> Iterator[Case]:
    for name, A, B in products(settings):
        if A is not B:
            continue
        M = A.copy()
        M.data[:] = 1
        yield sparse_case(
            name,
            "masked_spgemm",
            {"M": M, "A": A, "B": B},
            lambda M=M, A=A, B=B: reference.masked_spgemm(M, A, B),
            2 * product_work(A, B),
            2 * read_bytes(A, B),
            both(A, B),
        )


SUITE = Suite(
    "spgemm_masked",
    "Masked sparse times sparse, f64",
    ("scipy", "numba", "graphblas"),
    cases,
    (Target("best of scipy, numba, graphblas", 1.3),),
)
