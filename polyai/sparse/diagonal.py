"""Many matrices as one: blocks along the diagonal, so that a batch of graphs of different sizes is one operand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from polyai.errors import DTypeError, ShapeError, SparseStructureError
from polyai.sparse import interop, results

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
    rows, extents, in_rows = list(matrices), list[tuple[int, ...]](), set[type]()
    for n, given in enumerate(rows):
        if type(given) not in in_rows:
            if not interop.is_sparse(given):
                raise ShapeError(f"matrices[{n}] is a {type(given).__name__}", "the blocks are sparse matrices", "pass scipy.sparse.csr_array(matrix)")
            rows[n] = interop.as_rows(given)
            if rows[n] is given:
                in_rows.add(type(given))
        extents.append(rows[n].shape)
        if len(extents[n]) != 2:
            raise ShapeError(f"matrices[{n}] has {len(extents[n])} dimensions", "the blocks are sparse matrices", "pass arrays with two dimensions")
    listed = [(m.indptr, m.indices, m.data) for m in rows]
    kinds = {v.dtype for _, _, v in listed}
    if dtype is None and len(kinds) > 1:
        raise DTypeError(f"matrices of types {', '.join(sorted(map(str, kinds)))}", "one array holds the values of all", "pass dtype=")
    wanted = np.dtype(dtype if dtype is not None else kinds.pop() if kinds else np.float64)
    shapes = np.array(extents, np.int64).reshape(-1, 2)
    ends, columns = _ends(shapes[:, 0]), _ends(shapes[:, 1])
    counts = _counts(listed, shapes[:, 0])
    stored = _ends(counts)
    index = np.dtype(np.int32 if max(stored[-1], columns[-1], ends[-1]) < 1 << 31 else np.int64)
    pos = np.zeros(int(ends[-1]) + 1, index)
    crd, val = np.zeros(0, index), np.zeros(0, wanted)
    if rows:
        np.add(_joined([p[1:] for p, _, _ in listed]), np.repeat(stored[:-1], shapes[:, 0]), out=pos[1:], casting="unsafe")
        given = _joined([c if len(c) == n else c[:n] for (_, c, _), n in zip(listed, counts)])
        val = np.concatenate([v if len(v) == n else v[:n] for (_, _, v), n in zip(listed, counts)], dtype=wanted, casting="unsafe")
        _check(pos, given, ends, shapes[:, 1], stored)
        crd = np.add(given, np.repeat(columns[:-1], counts), dtype=index, casting="unsafe")
    return BlockDiagonal(results.made("csr", (int(ends[-1]), int(columns[-1])), {"pos1": pos, "crd1": crd, "val": val}, False, False), ends, columns)


def _ends(lengths: Array) -> Array:
    out = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=out[1:])
    return out


def _joined(arrays: list[Array]) -> Array:
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)


def _counts(listed: Sequence[tuple[Array, Array, Array]], rows: Array) -> Array:
    """How many elements each block stores. Raises SparseStructureError for arrays that do not fit together."""
    out = np.empty(len(listed), np.int64)
    for n, (pos, crd, val) in enumerate(listed):
        good = pos.ndim == crd.ndim == val.ndim == 1 and pos.dtype.kind == crd.dtype.kind == "i" and len(pos) == rows[n] + 1 and pos[0] == 0
        if not good or not 0 <= pos[-1] <= len(crd) or len(val) < pos[-1]:
            raise SparseStructureError(f"matrices[{n}]: indptr, indices and data do not fit together", f"it has {rows[n]} rows", "rebuild it, for example with scipy.sparse")
        out[n] = pos[-1]
    return out


def _check(pos: Array, crd: Array, ends: Array, widths: Array, stored: Array) -> None:
    """Raise SparseStructureError for rows that end before they begin, and for columns outside of their own block."""
    steps = pos[1:] < pos[:-1]
    if steps.any():
        b = int(np.searchsorted(ends, int(np.argmax(steps)), "right")) - 1
        raise SparseStructureError(f"matrices[{b}]: a row ends before it begins", "indptr decreases", "rebuild it, for example with scipy.sparse")
    outside = (crd < 0) | (crd >= np.repeat(widths, np.diff(stored)))
    if outside.any():
        at = int(np.argmax(outside))
        b = int(np.searchsorted(stored, at, "right")) - 1
        raise SparseStructureError(f"matrices[{b}]: column {crd[at]} is outside", f"it has {widths[b]} columns", "rebuild it, for example with scipy.sparse")
