"""MTTKRP: Y[i, r] = sum T[i, j, k] B[j, r] C[k, r] for each mode that is kept, rank 16 and 32, f32 and f64, against Numba.

The tensor is held as SciPy's coordinate list (`coo`), and `prepared` for the mode that is kept: as slices, or as a tree where
fibres are long. Preparing is not timed, for Numba neither.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

import polyai as pa
from benchmarks import reference, tensors
from benchmarks.harness import Case, Settings, Target
from benchmarks.suites import Suite
from benchmarks.suites.operands import normal

RANKS = (16, 32)
LONG = 16
"""Elements of a fibre from which the tree is faster."""
TYPES = (np.float32, np.float64)


def cases(settings: Settings) -> Iterator[Case]:
    for tensor in tensors.load(settings):
        for mode in range(tensor.coo.ndim if not settings.quick else 1):
            order = (mode, *(d for d in range(tensor.coo.ndim) if d != mode))
            for dtype in TYPES:
                T = tensors.typed(tensor.coo, dtype)
                tree = pa.sparse_array(T, "csf", order=order)
                long = T.nnz >= LONG * len(tree.storage.arrays[f"crd{T.ndim - 2}"])
                prepared = tree if long else pa.sparse_array(T, "csr", order=order)
                for rank in RANKS:
                    factors = [normal(f"{tensor.name} {d}", n, rank, dtype=dtype) for d, n in enumerate(T.shape) if d != mode]
                    for storage, given in (("coo", T), ("prepared", prepared)):
                        yield _case(tensor.name, T, given, storage, mode, rank, factors, dtype)


def _case(name: str, T: Any, given: Any, storage: str, mode: int, rank: int, factors: list[np.ndarray], dtype: Any) -> Case:
    width = np.dtype(dtype).itemsize
    rows = sum(len(np.unique(c)) for d, c in enumerate(T.coords) if d != mode) + T.shape[mode]
    return Case(
        f"{name} mode {mode}, rank {rank}, {np.dtype(dtype).name}, {storage}",
        "mttkrp",
        {"T": given, "factors": factors, "mode": mode},
        lambda: reference.mttkrp(T, factors, mode),
        T.nnz * rank * T.ndim,
        (4 * T.ndim + width) * T.nnz + width * rank * rows,
        {"nnz": int(T.nnz), "shape": "x".join(map(str, T.shape)), "rank": rank, "storage": storage},
    )


SUITE = Suite("mttkrp", "MTTKRP, rank 16 and 32", ("numba",), cases, (Target("numba", 3.0),))
