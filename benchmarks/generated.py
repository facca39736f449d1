"""Generated operands: thin calls of PolyAI's seeded generators, as canonical SciPy CSR with 32-bit indices."""

from __future__ import annotations

from typing import Any

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
