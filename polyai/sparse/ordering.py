"""The order of what SciPy's matrices and SparseArrays store: whether coordinates ascend or repeat, and tidy copies.

Reads all indices, after `interop.validate_fully` has found them in range: SciPy's own flags may be stale.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from polyai.shapes.expr import evaluate
from polyai.sparse import pack
from polyai.sparse.fitting import coords_of, fibres_fit
from polyai.sparse.interop import Described, arrays_of, describe, held_storage, in_a_layout, validate_fully
from polyai.sparse.interp import walk
from polyai.sparse.owned import Owned

Array = NDArray[Any]


def coordinates(value: Any) -> tuple[Array, ...]:
    """The coordinates of all stored elements by dimension, in storage order. Other kinds than CSR, CSC, BSR, COO are converted."""
    own = held_storage(value)
    if own is not None:
        return walk(own.format, own.shape, own.arrays).coordinates
    value = in_a_layout(value)
    if value.format == "dia":
        described = describe(value)
        assert described is not None
        return walk(described.format, described.shape, arrays_of(value, described)).coordinates
    if value.format == "coo":
        return tuple(c.astype(np.int64, copy=False) for c in coords_of(value))
    nnz = int(value.indptr[-1])
    major = np.repeat(np.arange(len(value.indptr) - 1, dtype=np.int64), np.diff(value.indptr))
    minor = value.indices[:nnz].astype(np.int64, copy=False)
    if value.format == "bsr":
        _, rows, columns = value.data.shape
        row = major[:, None, None] * rows + np.arange(rows)[:, None]
        column = minor[:, None, None] * columns + np.arange(columns)
        return tuple(np.broadcast_to(c, (nnz, rows, columns)).reshape(-1) for c in (row, column))
    return (minor,) if value.ndim == 1 else (minor, major) if value.format == "csc" else (major, minor)


def is_sorted(value: Any) -> bool:
    """True if coordinates ascend within each row (CSR), column (CSC), or lexicographically (COO); equal ones may repeat."""
    validate_fully(value)
    return type(value) is Owned or not (_order(value) < 0).any()


def has_duplicates(value: Any) -> bool:
    """True if a coordinate is stored more than once. Reads the arrays as they are now: SciPy's own flag may be stale."""
    if type(value) is Owned:
        return False
    validate_fully(value)
    if getattr(value, "format", "") == "dia":
        return len(np.unique(value.offsets)) < len(value.offsets)
    order = _order(value)
    if not (order < 0).any():
        return bool((order == 0).any())
    columns = coordinates(value) if getattr(value, "format", "") != "bsr" else _block_coordinates(value)
    by = np.lexsort(columns[::-1])
    same = np.ones(max(0, len(by) - 1), dtype=bool)
    for column in columns:
        same &= np.diff(column[by]) == 0
    return bool(same.any())


def _block_coordinates(value: Any) -> tuple[Array, ...]:
    blocks = np.repeat(np.arange(len(value.indptr) - 1), np.diff(value.indptr))
    return blocks, value.indices[: len(blocks)]


def _order(value: Any) -> Array:
    """Sign of each step from one stored coordinate (of BSR: block) to the next: 1 ascends, 0 repeats, -1 descends."""
    own = held_storage(value)
    value = value if own is not None else in_a_layout(value)
    if own is not None or value.format in ("coo", "dia"):
        columns = coordinates(value)
        if own is not None:
            columns = tuple(columns[d] for d in own.format.order)
        out: Array = np.sign(np.diff(columns[-1]))
        for column in columns[-2::-1]:
            step = np.sign(np.diff(column))
            out = np.where(step != 0, step, out)
        return out
    nnz = int(value.indptr[-1])
    indices = value.indices[:nnz]
    out = np.greater(indices[1:], indices[:-1]).astype(np.int8) - np.less(indices[1:], indices[:-1]).astype(np.int8)
    starts = value.indptr[1:-1]
    out[starts[(starts > 0) & (starts < nnz)] - 1] = 1  # the step into another row ascends
    return out


def sorted_fibres(described: Described, arrays: Mapping[str, Array]) -> tuple[dict[str, Array], bool]:
    """The arrays of a CSR, CSC or BSR matrix with each row's (column's) entries in ascending order, and whether one repeats.

    Raises SparseStructureError for row pointers and indices out of range.
    """
    positions, indices = arrays["pos1"], arrays["crd1"]
    extent = evaluate(described.format.level_extents(described.shape)[1], {})
    fibres_fit(described.kind, positions, indices, extent)
    major = np.repeat(np.arange(len(positions) - 1), np.diff(positions))
    order = np.lexsort((indices, major))
    ascending = indices[order]
    repeats = bool(((major[1:] == major[:-1]) & (ascending[1:] == ascending[:-1])).any())
    values = arrays["val"].reshape(len(order), -1)[order].reshape(arrays["val"].shape) if len(order) else arrays["val"]
    return {**arrays, "crd1": ascending, "val": values}, repeats


def summed(described: Described) -> Described | None:
    """A matrix in order, with coordinates that repeat added up; None if it is so already.

    Raises SparseStructureError for row pointers and indices out of range.
    """
    if type(described.holder) is Owned:
        return None
    validate_fully(described.holder)
    order = _order(described.holder)
    if (order > 0).all():
        return None
    own = held_storage(described.holder)
    if own is not None:
        return describe(pack.convert(own, own.format))
    tidy = described.holder.copy()
    if tidy.format == "coo":
        tidy.sum_duplicates()
    else:
        tidy.has_canonical_format = False  # SciPy trusts its flag, which may be stale
        tidy.has_sorted_indices = False
        tidy.sum_duplicates()
    found = describe(tidy)
    assert found is not None
    return found
