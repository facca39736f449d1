"""Y = A X in f32, A in dense blocks of 4, 8, 16 and 32 (BSR), 32 and 128 columns: blocks at random places and along a stencil."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import scipy.sparse as sp

from benchmarks import generated, reference
from benchmarks.harness import Case, Settings, Target
from benchmarks.matrices import canonical
from benchmarks.suites import Suite
from benchmarks.suites.operands import normal

BLOCKS = (4, 8, 16, 32)
COLUMNS = (32, 128)
DENSITY = 0.05


def operands(block: int, rows: int) -> Iterator[tuple[str, Any]]:
    yield f"random {DENSITY:.0%}", generated.blocks(rows, block, DENSITY, np.float32)
    side = max(2, round((2 * rows / block) ** 0.5))
    grid = generated.stencil(5, (side, side))
    data = normal(f"stencil {block}", grid.nnz, block, block)
    yield "5-point", sp.bsr_array((data, grid.indices, grid.indptr), shape=(grid.shape[0] * block, grid.shape[1] * block))


def cases(settings: Settings) -> Iterator[Case]:
    rows = 1024 if settings.quick else 8192
    for block in BLOCKS:
        for name, A in operands(block, rows):
            for n in (32,) if settings.quick else COLUMNS:
                X = normal(f"bsr {block} {n}", A.shape[1], n)
                yield Case(
                    f"block {block} {name} N={n}",
                    "bsr_spmm",
                    {"A": A, "X": X},
                    lambda A=A, X=X: reference.matvec(canonical(A.tocsr()).astype(np.float32), X),
                    2 * A.data.size * n,
                    A.data.nbytes + A.indices.nbytes + A.indptr.nbytes + 4 * n * sum(A.shape),
                    {"rows": A.shape[0], "blocks": len(A.indices), "block": block, "N": n},
                )


SUITE = Suite(
    "bsr_spmm",
    "SpMM with dense blocks (BSR), f32",
    ("scipy", "mkl", "torch", "numba"),
    cases,
    (Target("mkl", 2.5, floor=1.1),),
)
