"""Generated operands: thin calls of PolyAI's seeded generators, as canonical SciPy CSR with 32-bit indices."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp

from benchmarks.matrices import canonical
from polyai import datasets

SEED = 7


def bigbird(rows: int) -> Any:
    """A BigBird mask: a window, global tokens and random ones."""
    return canonical(sp.csr_array(datasets.bigbird(rows, seed=SEED)))


def rmat(edges: int) -> Any:
    """An R-MAT graph of about `edges` stored elements, 16 per row."""
    scale = max(1, round(edges / 16) - 1).bit_length()
    return canonical(sp.csr_array(datasets.rmat(scale, edges, seed=SEED)))


def stencil(points: int, shape: tuple[int, ...]) -> Any:
    """A finite-difference stencil with random values, so that a mix-up of its elements shows."""
    out = canonical(sp.csr_array(datasets.stencil(points, shape)))
    out.data = np.random.default_rng(SEED).standard_normal(out.nnz)
    return out


def blocks(rows: int, block: int, density: float, dtype: Any) -> Any:
    """A square BSR matrix whose blocks lie at random places, `density` of them stored."""
    numbers = np.random.default_rng(SEED)
    count = rows // block
    pattern = canonical(sp.random_array((count, count), density=density, format="csr", rng=numbers))
    data = numbers.standard_normal((pattern.nnz, block, block)).astype(dtype)
    return sp.bsr_array((data, pattern.indices, pattern.indptr), shape=(count * block, count * block))
