"""Dense products in f32: squares, where a library is at its best, and few rows, where it is not."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks import reference
from benchmarks.harness import Case, Settings, Target
from benchmarks.suites import Suite
from benchmarks.suites.operands import normal

SQUARES = ((512, 512, 512), (1024, 1024, 1024))
FEW_ROWS = tuple((m, 2048, 2048) for m in range(2, 9))


def cases_of(shapes: tuple[tuple[int, int, int], ...]) -> Iterator[Case]:
    for m, n, k in shapes:
        name = f"{m}x{n}x{k}"
        A, B = normal(name + " A", m, k), normal(name + " B", k, n)
        yield Case(
            name,
            "gemm",
            {"A": A, "B": B},
            lambda A=A, B=B: reference.gemm(A, B),
            2 * m * n * k,
            4 * (m * k + k * n + m * n),
            {"m": m, "n": n, "k": k},
        )


def cases(settings: Settings) -> Iterator[Case]:
    yield from cases_of(SQUARES[:1] if settings.quick else SQUARES)


SUITE = Suite(
    "gemm",
    "Dense matmul, f32, square",
    ("openblas", "mkl", "torch"),
    cases,
    (Target("openblas", 0.9, threads=(1,)),),
)
