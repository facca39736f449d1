"""y = A x in f32 and f64 with prepared matrices on every real matrix of at least 100,000 stored elements and on stencils, against MKL's
inspector-executor."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from benchmarks import prepared
from benchmarks.harness import Case, Result, Settings, Target
from benchmarks.suites import Suite

VARIANTS = ((np.float32, 0), (np.float64, 0))


def cases(settings: Settings) -> Iterator[Case]:
    yield from prepared.cases(settings, "spmv", VARIANTS)


def run(settings: Settings) -> list[Result]:
    return prepared.run("prepared_spmv", settings, "spmv", VARIANTS)


SUITE = Suite("prepared_spmv", "Prepared SpMV, f32 and f64", ("mkl",), cases, (Target("mkl", 1.4, floor=0.95),), run=run)
