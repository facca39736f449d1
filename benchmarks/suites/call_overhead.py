"""A @ x with a 100 x 100 matrix of 500 stored elements: what a call costs when there is almost nothing to do."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import scipy.sparse as sp

from benchmarks import reference
from benchmarks.harness import SUBJECT, Case, Settings
from benchmarks.suites import Limit, Suite
from benchmarks.suites.operands import facts, normal, rng, structure

CASE = "A @ x 100x100"


def cases(settings: Settings) -> Iterator[Case]:
    A = sp.random_array((100, 100), density=0.05, format="csr", dtype=np.float64, rng=rng(CASE))
    A.indices, A.indptr = A.indices.astype(np.int32), A.indptr.astype(np.int32)
    x = normal(CASE, 100, dtype=np.float64)
    yield Case(CASE, "spmv", {"A": A, "x": x}, lambda: reference.matvec(A, x), 2 * A.nnz, structure(A) + 1600, facts(A))


SUITE = Suite(
    "call_overhead",
    "Time of one call, tiny operands",
    ("scipy", "mkl", "torch", "numba"),
    cases,
    limits=(Limit(SUBJECT, CASE, 2e-6),),
    threads=(1,),
)
