"""TTM: Y[i, j, r] = sum T[i, j, k] C[k, r], 16 and 32 columns, dense result, against sparse matrix products of the unfolded tensor.

Each peer gets the tensor as it likes it best, untimed: the libraries as a CSR matrix with a row for each pair (i, j), PolyAI as
a tensor whose kept modes are dense levels and whose summed mode is compressed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import scipy.sparse as sp

from benchmarks import reference, tensors
from benchmarks.harness import Case, Settings, Target
from benchmarks.suites import Suite
from benchmarks.suites.operands import normal

COLUMNS = (16, 32)
TYPES = (np.float32, np.float64)
LARGEST = 1 << 26
"""Bytes of a result beyond which a case is left out: it would measure the writing of zeros."""


def cases(settings: Settings) -> Iterator[Case]:
    for tensor in tensors.load(settings):
        for mode in range(tensor.coo.ndim):
            kept = tuple(d for d in range(tensor.coo.ndim) if d != mode)
            rows = math.prod(tensor.coo.shape[d] for d in kept)
            for dtype in TYPES:
                width = np.dtype(dtype).itemsize
                for columns in COLUMNS:
                    if rows * columns * width > LARGEST:
                        continue
                    T = tensors.typed(tensor.coo, dtype)
                    row = np.ravel_multi_index([T.coords[d] for d in kept], [T.shape[d] for d in kept])
                    unfolded = sp.csr_array((T.data, (row, T.coords[mode])), shape=(rows, T.shape[mode]))
                    unfolded.indices, unfolded.indptr = unfolded.indices.astype(np.int32), unfolded.indptr.astype(np.int32)
                    C = normal(tensor.name, T.shape[mode], columns, dtype=dtype)
                    yield Case(
                        f"{tensor.name} mode {mode}, {columns} columns, {np.dtype(dtype).name}",
                        "ttm",
                        {"T": T, "C": C, "mode": mode, "unfolded": unfolded},
                        lambda A=unfolded, C=C: reference.matvec(A, C),
                        2 * T.nnz * columns,
                        (4 + width) * T.nnz + 4 * rows + width * columns * (rows + T.shape[mode]),
                        {"nnz": int(T.nnz), "shape": "x".join(map(str, T.shape)), "columns": columns},
                    )


SUITE = Suite("ttm", "TTM, 16 and 32 columns", ("mkl", "torch", "scipy", "numba"), cases, (Target("mkl", 1.3), Target("torch", 1.3), Target("numba", 1.3)))
