"""Sparse results as the harness compares them: their values laid on the pattern that structure allows, element by element.

Libraries hand back results in forms of their own. A timed call may return any object with a method `scipy()`; what that
method costs (a copy of the arrays) is not timed, since a caller who stays within the library does not pay it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp


@dataclass(frozen=True)
class Compressed:
    """A CSR result as three arrays: what a kernel of one's own returns without the checks of a SciPy constructor."""

    shape: tuple[int, int]
    indptr: np.ndarray
    indices: np.ndarray
    data: np.ndarray

    def scipy(self) -> Any:
        return sp.csr_array((self.data, self.indices, self.indptr), shape=self.shape)


def as_csr(result: Any) -> Any:
    """`result` as CSR with sorted rows, in arrays of its own. Duplicates are kept, so that `on_pattern` sees them."""
    matrix = result.scipy() if hasattr(result, "scipy") else result
    out = matrix.tocsr(copy=True)
    out.sort_indices()
    return out


def on_pattern(result: Any, pattern: Any) -> np.ndarray:
    """The values of `result` at the coordinates of `pattern` (canonical CSR), zero where it stores nothing.

    All infinite if the result has another shape, a coordinate outside the pattern, or one twice.
    """
    got = as_csr(result)
    wrong = np.full(pattern.nnz + 1, np.inf)  # of another length: wrong also where nothing is stored
    if got.shape != pattern.shape:
        return wrong
    if np.array_equal(got.indptr, pattern.indptr) and np.array_equal(got.indices, pattern.indices):
        return np.asarray(got.data)
    mine, all_ = _keys(got), _keys(pattern)
    at = np.searchsorted(all_, mine)
    if np.any(np.diff(mine) == 0) or np.any(at >= len(all_)) or np.any(all_[at] != mine):
        return wrong
    out = np.zeros(pattern.nnz, got.dtype)
    out[at] = got.data
    return out


def _keys(A: Any) -> np.ndarray:
    """One ascending number per stored element: row * columns + column."""
    rows = np.repeat(np.arange(A.shape[0], dtype=np.int64), np.diff(A.indptr))
    return rows * A.shape[1] + A.indices


def product_work(A: Any, B: Any) -> int:
    """Multiplications of A @ B."""
    return int(np.diff(B.indptr)[A.indices].sum(dtype=np.int64))


def most_stored(A: Any, B: Any) -> int:
    """An upper bound on the stored elements of A @ B, row by row."""
    work = np.concatenate([[0], np.cumsum(np.diff(B.indptr)[A.indices], dtype=np.int64)])
    return int(np.minimum(np.diff(work[A.indptr]), B.shape[1]).sum())
