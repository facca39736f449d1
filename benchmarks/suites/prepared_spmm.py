"""Y = A X in f32 with 32 and 128 columns and prepared matrices on every real matrix of at least 100,000 stored elements and on stencils,
against MKL's inspector-executor."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from benchmarks import prepared
from benchmarks.harness import Case, Result, Settings, Target
from benchmarks.suites import Suite

VARIANTS = ((np.float32, 32), (np.float32, 128))


def cases(settings: Settings) -> Iterator[Case]:
    yield from prepared.cases(settings, "spmm", VARIANTS)


def run(settings: Settings) -> list[Result]:
    return prepared.run("prepared_spmm", settings, "spmm", VARIANTS, stencils=3)


SUITE = Suite("prepared_spmm", "Prepared SpMM, f32, 32/128 columns", ("mkl",), cases, (Target("mkl", 1.4, floor=0.95),), run=run)
