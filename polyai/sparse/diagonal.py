"""Many matrices as one: blocks along the diagonal, so that a batch of graphs of different sizes is one operand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from polyai.errors import DTypeError, ShapeError, SparseStructureError
from polyai.sparse import interop

Array = NDArray[Any]


class BlockDiagonal(NamedTuple):
    """`matrix` in CSR; block b has the rows offsets[b] to offsets[b + 1] and the columns columns[b] to columns[b + 1]."""

    matrix: Any
    offsets: Array
    columns: Array


def block_diagonal(matrices: Sequence[Any], dtype: Any = None) -> BlockDiagonal:
    """One CSR array with `matrices` along its diagonal, and where each of them begins.

        A, offsets, _ = block_diagonal([A0, A1, A2])              graphs
        x = ragged(np.concatenate([x0, x1, x2]), offsets)         features of their nodes
        layer(A, x)                                               one kernel for every number and size of graphs

    Args:
        matrices: scipy.sparse matrices or arrays, or what else compiled functions take. Entries keep their order; those that repeat stay.
        dtype: The element type of the result, needed if `matrices` is empty.

    Raises SparseStructureError for broken index arrays, which are all read, ShapeError for what is no sparse matrix, DTypeError for
    matrices of different element types and no `dtype`.
    """
    rows: list[Any] = []
    for n, given in enumerate(matrices):
        if not interop.is_sparse(given) or len(given.shape) != 2:
            raise ShapeError(f"matrices[{n}] is a {type(given).__name__}", "the blocks are sparse matrices", "pass scipy.sparse.csr_array(matrix)")
        rows.append(interop.as_rows(given))
    kinds = {np.dtype(m.data.dtype) for m in rows}
    if dtype is None and len(kinds) > 1:
        raise DTypeError(f"matrices of types {', '.join(sorted(map(str, kinds)))}", "one array holds the values of all", "pass dtype=")
    wanted = np.dtype(dtype if dtype is not None else kinds.pop() if kinds else np.float64)
    ends, columns = (_ends([m.shape[axis] for m in rows]) for axis in (0, 1))
    stored = _ends([_stored(m, n) for n, m in enumerate(rows)])
    largest = max(int(stored[-1]), int(columns[-1]), int(ends[-1]))
    index = np.dtype(np.int32 if largest < 1 << 31 else np.int64)
    pos, crd, val = np.zeros(int(ends[-1]) + 1, index), np.empty(int(stored[-1]), index), np.empty(int(stored[-1]), wanted)
    for b, m in enumerate(rows):
        begin, end = int(stored[b]), int(stored[b + 1])
        np.add(m.indices[: end - begin], int(columns[b]), out=crd[begin:end], casting="unsafe")
        np.add(m.indptr[1:], begin, out=pos[int(ends[b]) + 1 : int(ends[b + 1]) + 1], casting="unsafe")
        val[begin:end] = m.data[: end - begin]
    _check(pos, crd, ends, columns, stored)
    return BlockDiagonal(interop.made("csr", (int(ends[-1]), int(columns[-1])), {"pos1": pos, "crd1": crd, "val": val}, False, False), ends, columns)


def _ends(lengths: Sequence[int]) -> Array:
    out = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(np.asarray(lengths, np.int64), out=out[1:])
    return out


def _stored(matrix: Any, number: int) -> int:
    """How many elements a block stores, its arrays checked to fit together."""
    try:
        return interop.validate(matrix)
    except SparseStructureError as error:
        raise SparseStructureError(f"matrices[{number}]: {error.what}", error.why, error.remedy) from None


def _check(pos: Array, crd: Array, ends: Array, columns: Array, stored: Array) -> None:
    """Raise SparseStructureError for rows that end before they begin, and for columns outside of their own block."""
    if (np.diff(pos) < 0).any():
        b = int(np.searchsorted(ends, int(np.argmax(np.diff(pos) < 0)), "right")) - 1
        raise SparseStructureError(f"matrices[{b}]: a row ends before it begins", "indptr decreases", "rebuild it, for example with scipy.sparse")
    each = np.diff(stored)
    outside = (crd < np.repeat(columns[:-1], each)) | (crd >= np.repeat(columns[1:], each))
    if outside.any():
        b = int(np.searchsorted(stored, int(np.argmax(outside)), "right")) - 1
        at = int(crd[int(np.argmax(outside))] - columns[b])
        raise SparseStructureError(f"matrices[{b}]: column {at} is outside", f"it has {columns[b + 1] - columns[b]} columns", "rebuild it, for example with scipy.sparse")
