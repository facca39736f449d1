"""Operands and their cost, shared by the suites. All random numbers are seeded by the case."""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np


def rng(name: str) -> np.random.Generator:
    """A generator that depends on the name of the case alone."""
    return np.random.default_rng(zlib.crc32(name.encode()))


def normal(name: str, *shape: int, dtype: Any = np.float32) -> np.ndarray:
    return rng(name).standard_normal(shape).astype(dtype)


def typed(A: Any, dtype: Any) -> Any:
    """`A` with values of `dtype`. Index arrays are shared."""
    out = A.copy()
    out.data = A.data.astype(dtype)
    return out


def structure(A: Any) -> int:
    """Bytes of the stored values and index arrays."""
    return int(A.data.nbytes + A.indices.nbytes + A.indptr.nbytes)


def reached(A: Any) -> int:
    """Distinct columns with a stored element: the rows of the dense operand that must be read."""
    return len(np.unique(A.indices))


def facts(A: Any) -> dict[str, Any]:
    return {"rows": A.shape[0], "cols": A.shape[1], "nnz": int(A.nnz), "longest row": int(np.diff(A.indptr).max(initial=0))}
