"""What a matrix looks like: the numbers that cost models and people ask for. `inspector` measures them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from polyai.errors import ShapeError
from polyai.sparse import inspector
from polyai.sparse.inspector import gini as gini
from polyai.sparse.interop import arrays_of, describe, is_sparse, validate_fully
from polyai.sparse.ordering import coordinates
from polyai.term.node import node

Array = NDArray[Any]

SLICE, WINDOW = 8, 256
"""Rows of a slice and of a window within which rows are sorted by length, for which `padding` is stated."""


@node
class Stats:
    """Facts of a sparse matrix.

    `row_*` describe the number of stored entries per row, `histogram` how many rows have 0, 1, 2-3, 4-7, ... of them; `gini`
    is 0 if all rows have equally many, near 1 if few rows have all. `below` and `above` bound row - column and column - row;
    `profile` sums the distance from each row's first entry to the diagonal. `diagonals` counts the diagonals with an entry,
    `diagonal_fill` is the part of their room that is stored, `fullest` lists (column - row, stored part) of the fullest.
    `block_fill` holds, for square blocks, the part of the touched blocks that is stored: 1 means that the matrix consists of
    full blocks. `mirrored` is the part of the entries (i, j) with a stored (j, i), `equal_values` says that those are equal
    too. `step` is the mean distance of successive columns of a row, `adjacent` the part of these that are neighbours, `lines`
    the cache lines of an f64 vector touched per entry. `distinct` counts different values, at most 257. `padding` is the
    size of slices of 8 rows over that of the rows: in the given order, and sorted by length within 256 rows.
    `sampled` is the part of the entries that fills, symmetry, spread and values were measured on.
    """

    rows: int
    columns: int
    nnz: int
    row_mean: float
    row_max: int
    row_deviation: float
    gini: float
    histogram: tuple[int, ...]
    empty_rows: int
    empty_columns: int
    is_sorted: bool
    duplicates: int
    below: int
    above: int
    profile: int
    diagonals: int
    diagonal_fill: float
    fullest: tuple[tuple[int, float], ...]
    block_fill: tuple[tuple[int, float], ...]
    mirrored: float
    equal_values: bool
    step: float
    adjacent: float
    lines: float
    distinct: int
    padding: tuple[float, float]
    sampled: float

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

    @property
    def symmetric(self) -> bool:
        """Whether every entry looked at has one across the diagonal."""
        return self.rows == self.columns and self.mirrored == 1.0

    @property
    def triangle(self) -> str:
        """"lower", "upper", "diagonal", or "" for a matrix with entries on both sides."""
        if not self.nnz or (self.below > 0 and self.above > 0):
            return ""
        return "diagonal" if self.below <= 0 and self.above <= 0 else "lower" if self.above <= 0 else "upper"


def stats(matrix: Any) -> Stats:
    """Stats of a two-dimensional scipy.sparse value.

    Row lengths, diagonals, order and duplicates come from every entry; blocks, symmetry, column spread and values from about
    130,000 entries of a larger matrix. Raises ShapeError for other values, SparseStructureError for broken index arrays.
    """
    if not is_sparse(matrix) or matrix.ndim != 2:
        raise ShapeError("stats needs a sparse matrix", f"got {type(matrix).__name__}", "pass a scipy.sparse matrix or array")
    return stats_of(rows_of(matrix))


def rows_of(matrix: Any) -> inspector.Rows:
    """The entries of a two-dimensional scipy.sparse value by rows, columns ascending. Raises SparseStructureError."""
    described = describe(matrix)
    assert described is not None
    validate_fully(described.holder)
    if described.kind not in ("csr", "csc", "coo"):  # blocks, diagonals, and formats that SciPy does not have
        return rows_of((matrix.to_scipy() if described.kind == "storage" else matrix).tocsr())
    arrays, shape = arrays_of(matrix, described), (described.shape[0], described.shape[1])
    if described.kind == "csr":
        return inspector.from_csr(shape, arrays["pos1"], arrays["crd1"], arrays["val"])
    row, column = coordinates(described.holder)
    return inspector.from_coordinates(shape, row, column, arrays["val"])


def stats_of(rows: inspector.Rows) -> Stats:
    """Stats of entries by rows."""
    lengths, nnz = rows.lengths, rows.nnz
    at, _ = inspector.sample(rows)
    runs = inspector.diagonals(rows)
    reached = np.zeros(rows.columns, bool)
    reached[rows.crd] = True
    part, equal = inspector.mirrored(rows, at)
    spread = inspector.spread(rows, at)
    return Stats(
        rows=rows.rows,
        columns=rows.columns,
        nnz=nnz,
        row_mean=nnz / rows.rows if rows.rows else 0.0,
        row_max=int(lengths.max(initial=0)),
        row_deviation=float(lengths.std()) if rows.rows else 0.0,
        gini=inspector.gini(lengths),
        histogram=inspector.histogram(lengths),
        empty_rows=int((lengths == 0).sum()),
        empty_columns=rows.columns - int(reached.sum()),
        is_sorted=rows.was_sorted,
        duplicates=rows.duplicates,
        below=runs.below,
        above=runs.above,
        profile=inspector.profile(rows),
        diagonals=runs.occupied,
        diagonal_fill=(nnz - rows.duplicates) / runs.room if runs.room else 0.0,
        fullest=runs.fullest,
        block_fill=inspector.block_fill(rows, at),
        mirrored=part,
        equal_values=equal,
        step=spread.step,
        adjacent=spread.adjacent,
        lines=spread.lines,
        distinct=inspector.distinct(rows, at),
        padding=(inspector.padding(lengths, SLICE, 1), inspector.padding(lengths, SLICE, WINDOW)),
        sampled=len(at) / nnz if nnz else 1.0,
    )


def show_stats(found: Stats) -> str:
    """Stats as lines of text."""
    kind = ("symmetric, values too" if found.equal_values else "symmetric pattern") if found.symmetric else "unsymmetric pattern"
    if not found.symmetric and found.mirrored:
        kind += f" ({100 * found.mirrored:.0f} % mirrored)"
    order = "sorted" if found.is_sorted else "unsorted"
    shape = f", {found.triangle}" + (" triangular" if found.triangle in ("lower", "upper") else "") if found.triangle else ""
    values = f"{found.distinct} different" if found.distinct <= inspector.DISTINCT else f"more than {inspector.DISTINCT} different"
    listed = sorted(found.fullest, key=lambda d: -d[1])[:6]
    return "\n".join(
        [
            f"{found.rows} x {found.columns}, {found.nnz} stored ({100 * found.density:.3g} %), {kind}{shape}",
            f"per row: mean {found.row_mean:.3g}, max {found.row_max}, gini {found.gini:.2f}, {found.empty_rows} empty;"
            f" {found.empty_columns} empty columns",
            "rows by length: " + ", ".join(f"{_lengths(k)}: {n}" for k, n in enumerate(found.histogram) if n),
            f"band: {found.below} below, {found.above} above the diagonal, profile {found.profile}; {order}, {found.duplicates} duplicates",
            f"diagonals: {found.diagonals}, {100 * found.diagonal_fill:.3g} % full; fullest " + ", ".join(f"{o:+d} {100 * f:.0f} %" for o, f in listed),
            "blocks: " + ", ".join(f"{b}x{b} {100 * fill:.0f} %" for b, fill in found.block_fill),
            f"columns: mean step {found.step:.3g}, {100 * found.adjacent:.0f} % neighbours, {found.lines:.2f} cache lines per entry",
            f"values: {values}",
            f"slices of {SLICE} rows: {found.padding[0]:.2f} of the rows' size, sorted within {WINDOW}: {found.padding[1]:.2f}",
            *([f"blocks, symmetry, columns and values from {100 * found.sampled:.1f} % of the entries"] if found.sampled < 1 else []),
        ]
    )


def _lengths(bucket: int) -> str:
    return "0" if not bucket else "1" if bucket == 1 else f"{1 << (bucket - 1)}-{(1 << bucket) - 1}"
