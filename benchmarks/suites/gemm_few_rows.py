"""Dense products with 2 to 8 rows, n = k = 2048, f32: the shape of inference with small batches."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.harness import Case, Settings, Target
from benchmarks.suites import Suite
from benchmarks.suites.gemm import FEW_ROWS, cases_of


def cases(settings: Settings) -> Iterator[Case]:
    yield from cases_of(FEW_ROWS[::3] if settings.quick else FEW_ROWS)


SUITE = Suite(
    "gemm_few_rows",
    "Dense matmul, f32, 2 to 8 rows",
    ("openblas", "mkl", "torch"),
    cases,
    (Target("openblas", 1.5),),
)
