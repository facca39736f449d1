"""C = A B with both sparse, f64: A A for square matrices, A A^T for others; CSR in, CSR out.

PolyAI and GraphBLAS deliver sorted rows; SciPy, MKL and Numba leave them as they come, to their advantage.
"""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks import reference
from benchmarks.harness import Case, Settings, Target
from benchmarks.sparse_results import most_stored, product_work
from benchmarks.suites import Suite
from benchmarks.suites.sparse_cases import both, products, read_bytes, sparse_case


def cases(settings: Settings) -> Iterator[Case]:
    for name, A, B in products(settings):
        work = product_work(A, B)
        yield sparse_case(
            name,
            "spgemm",
            {"A": A, "B": B},
            lambda A=A, B=B: reference.spgemm(A, B),
            2 * work,
            read_bytes(A, B),
            both(A, B) | {"multiplications": work, "stored at most": most_stored(A, B)},
        )


SUITE = Suite(
    "spgemm",
    "Sparse times sparse, f64",
    ("scipy", "mkl", "torch", "numba", "graphblas"),
    cases,
    (Target("scipy", 2.0), Target("best of scipy, mkl, graphblas", 1.3), Target("numba", 1.0)),
)
