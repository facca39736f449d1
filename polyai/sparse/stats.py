"""What a matrix looks like: the numbers that cost models and people ask for."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from polyai.errors import ShapeError
from polyai.sparse.interop import coordinates, is_sparse
from polyai.term.node import node

Array = NDArray[Any]

BLOCKS = (2, 4, 8, 16, 32)


@node
class Stats:
    """`row_*` describe the number of stored entries per row; `gini` is 0 if all rows have equally many, near 1 if few rows
    have all. `below` and `above` bound row - column and column - row. `block_fill` holds, for square blocks of the sizes
    BLOCKS, the part of the touched blocks that is stored: 1 means that the matrix consists of full blocks.
    """

    rows: int
    columns: int
    nnz: int
    row_mean: float
    row_max: int
    row_deviation: float
    gini: float
    empty_rows: int
    empty_columns: int
    below: int
    above: int
    duplicates: int
    symmetric: bool
    block_fill: tuple[tuple[int, float], ...]

    @property
    def density(self) -> float:
        return self.nnz / (self.rows * self.columns) if self.rows and self.columns else 0.0

    @property
    def bandwidth(self) -> int:
        """The greatest distance of a stored entry from the diagonal."""
        return max(self.below, self.above, 0)

    @property
    def is_skewed(self) -> bool:
        """Splitting rows evenly among threads would be unfair: split by stored entries."""
        return self.row_max > 8 * max(1.0, self.row_mean)

    @property
    def row_length(self) -> int | None:
        """The length of every row, if all have the same."""
        return self.row_max if self.rows and self.row_deviation == 0 else None

    @property
    def block(self) -> int:
        """The largest block size whose blocks are at least 70 % full; 1 if none is."""
        return max((size for size, fill in self.block_fill if fill >= 0.7), default=1)


def stats(matrix: Any) -> Stats:
    """Stats of a two-dimensional scipy.sparse value. Reads its indices once or twice: O(nnz log nnz)."""
    if not is_sparse(matrix) or matrix.ndim != 2:
        raise ShapeError("stats needs a sparse matrix", f"got {type(matrix).__name__}", "pass a scipy.sparse matrix or array")
    row, column = coordinates(matrix)
    return stats_of(tuple(matrix.shape), row, column)


def stats_of(shape: tuple[int, int], row: Array, column: Array) -> Stats:
    """Stats of the pattern with stored entries (row[e], column[e])."""
    rows, columns = int(shape[0]), int(shape[1])
    nnz = len(row)
    lengths = np.bincount(row, minlength=rows)
    distance = column - row
    keys = np.unique(row * np.int64(columns) + column)
    return Stats(
        rows,
        columns,
        nnz,
        nnz / rows if rows else 0.0,
        int(lengths.max(initial=0)),
        float(lengths.std()) if rows else 0.0,
        gini(lengths),
        int((lengths == 0).sum()),
        columns - len(np.unique(column)),
        int(-distance.min()) if nnz else 0,
        int(distance.max()) if nnz else 0,
        nnz - len(keys),
        rows == columns and bool(np.array_equal(keys, np.unique(column * np.int64(columns) + row))),
        tuple((b, _fill(row, column, columns, b, len(keys))) for b in BLOCKS),
    )


def _fill(row: Array, column: Array, columns: int, block: int, stored: int) -> float:
    across = -(-columns // block)
    touched = len(np.unique((row // block) * np.int64(across) + column // block))
    return stored / (touched * block * block) if touched else 0.0


def gini(lengths: Array) -> float:
    """The Gini coefficient of non-negative numbers."""
    total, n = int(lengths.sum()), len(lengths)
    if not total:
        return 0.0
    ranks = np.arange(1, n + 1)
    return float((2 * (ranks * np.sort(lengths)).sum() / (n * total)) - (n + 1) / n)


def show_stats(found: Stats) -> str:
    """Stats as a few lines of text."""
    kind = "symmetric pattern" if found.symmetric else "unsymmetric pattern"
    return "\n".join(
        [
            f"{found.rows} x {found.columns}, {found.nnz} stored ({100 * found.density:.3g} %), {kind}",
            f"per row: mean {found.row_mean:.3g}, max {found.row_max}, gini {found.gini:.2f}, {found.empty_rows} empty",
            f"band: {found.below} below, {found.above} above the diagonal; {found.duplicates} duplicates",
            "blocks: " + ", ".join(f"{b}x{b} {100 * fill:.0f} %" for b, fill in found.block_fill),
        ]
    )
