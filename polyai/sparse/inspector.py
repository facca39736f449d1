"""Measures the facts of `stats`: each function looks at one thing and says how much of the matrix it has looked at.

A pattern is seen as rows in CSR with ascending columns. What costs a sort or a search is measured on whole groups of rows
spread evenly over the matrix once there are more than SAMPLE entries, so that inspection costs about as much as a hundred
products with a vector at most, whatever the size.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

BLOCKS = (2, 3, 4, 6, 8, 16, 32)
"""Edges of the square blocks that are tried."""
GROUP = 96
"""Rows of a group of a sample: every block size divides it."""
SAMPLE = 1 << 17
"""How many entries are looked at where each costs a sort or a search."""
LINE = 64
"""Bytes of a cache line."""
DISTINCT = 256
"""As many values as a byte can number."""
KEPT_DIAGONALS = 128
"""How many of the fullest diagonals are listed."""


class Rows(NamedTuple):
    """Entries row by row, columns ascending: row r holds positions pos[r] to pos[r + 1] of `crd` (and of `val`)."""

    rows: int
    columns: int
    pos: Array
    crd: Array
    val: Array | None
    was_sorted: bool
    duplicates: int

    @property
    def nnz(self) -> int:
        return len(self.crd)

    @property
    def lengths(self) -> Array:
        lengths: Array = np.diff(self.pos)
        return lengths


def from_csr(shape: tuple[int, int], pos: Array, crd: Array, val: Array | None) -> Rows:
    """Rows of CSR arrays; sorted copies if the columns of a row do not ascend. The indices must be in range."""
    nnz = int(pos[-1])
    crd, val = crd[:nnz], None if val is None else val[:nnz]
    falls, repeats = _steps(pos, crd)
    if falls:
        order = np.lexsort((crd, np.repeat(np.arange(len(pos) - 1), np.diff(pos))))
        crd, val = crd[order], None if val is None else val[order]
        repeats = _steps(pos, crd)[1]
    return Rows(int(shape[0]), int(shape[1]), pos, crd, val, not falls, repeats)


def from_coordinates(shape: tuple[int, int], row: Array, column: Array, val: Array | None) -> Rows:
    """Rows of entries in any order. The indices must be in range."""
    order = np.lexsort((column, row))
    in_order = bool((np.diff(order) > 0).all())
    pos = np.zeros(int(shape[0]) + 1, np.int64)
    np.cumsum(np.bincount(row, minlength=int(shape[0])), out=pos[1:])
    crd, val = column[order], None if val is None else val[order]
    return Rows(int(shape[0]), int(shape[1]), pos, crd, val, in_order, _steps(pos, crd)[1])


def _steps(pos: Array, crd: Array) -> tuple[bool, int]:
    """Whether a column falls within a row, and how many repeat."""
    if len(crd) < 2:
        return False, 0
    within = np.ones(len(crd) - 1, bool)
    starts = pos[1:-1]
    within[starts[(starts > 0) & (starts < len(crd))] - 1] = False
    return bool(((crd[1:] < crd[:-1]) & within).any()), int(((crd[1:] == crd[:-1]) & within).sum())


def sample(rows: Rows, limit: int = SAMPLE) -> tuple[Array, bool]:
    """Positions of the entries of groups of rows spread evenly, about `limit` of them, and whether that is a part only."""
    if rows.nnz <= limit:
        return np.arange(rows.nnz), False
    groups = -(-rows.rows // GROUP)
    wanted = max(1, min(groups, int(groups * limit / rows.nnz)))
    chosen = np.unique(np.linspace(0, groups - 1, wanted).round().astype(np.int64))
    begin, end = rows.pos[chosen * GROUP], rows.pos[np.minimum((chosen + 1) * GROUP, rows.rows)]
    length = (end - begin).astype(np.int64)
    at = np.repeat(begin - np.cumsum(length) + length, length) + np.arange(int(length.sum()))
    return (at[:: len(at) // (4 * limit)], True) if len(at) > 8 * limit else (at, True)  # a few rows may hold nearly everything


def row_of(rows: Rows, at: Array) -> Array:
    """The row of each position."""
    if len(at) == rows.nnz:
        return np.repeat(np.arange(rows.rows), rows.lengths)
    found: Array = np.searchsorted(rows.pos, at, side="right") - 1
    return found


class Diagonals(NamedTuple):
    """`occupied` diagonals (column - row) hold an entry; together they have room for `room`. `fullest`: (offset, stored part)."""

    occupied: int
    room: int
    below: int
    above: int
    fullest: tuple[tuple[int, float], ...]


def diagonals(rows: Rows) -> Diagonals:
    """Looks at every entry."""
    if not rows.nnz:
        return Diagonals(0, 0, 0, 0, ())
    distance = rows.crd - np.repeat(np.arange(rows.rows, dtype=rows.crd.dtype), rows.lengths)
    if rows.duplicates:
        keep = np.ones(rows.nnz, bool)
        keep[1:] = (distance[1:] != distance[:-1]) | (rows.crd[1:] != rows.crd[:-1])
        distance = distance[keep]
    low, high = int(distance.min()), int(distance.max())
    if high - low < 8 * rows.nnz + 1024:
        counts = np.bincount(distance - low)
        offsets = np.flatnonzero(counts)
        counts = counts[offsets]
        offsets = offsets + low
    else:
        offsets, counts = np.unique(distance, return_counts=True)
    room = np.minimum(rows.rows, rows.columns - offsets) - np.maximum(0, -offsets)
    fill = counts / room
    best = np.sort(np.argsort(-counts, kind="stable")[:KEPT_DIAGONALS])
    listed = tuple((int(offsets[k]), float(fill[k])) for k in best)
    return Diagonals(len(offsets), int(room.sum()), -low, high, listed)


def profile(rows: Rows) -> int:
    """The sum over rows of the distance from the first entry to the diagonal: what an envelope solver stores."""
    full = np.flatnonzero(rows.lengths)
    first = rows.crd[rows.pos[full]].astype(np.int64)
    return int(np.maximum(full - first, 0).sum())


def block_fill(rows: Rows, at: Array) -> tuple[tuple[int, float], ...]:
    """For each edge of BLOCKS, the part of the touched blocks that is stored, over the sampled positions."""
    row, column = row_of(rows, at), rows.crd[at].astype(np.int64)
    stored = len(at) - (rows.duplicates if len(at) == rows.nnz else 0)
    out = []
    for edge in BLOCKS:
        across = -(-rows.columns // edge)
        touched = len(np.unique((row // edge) * np.int64(across) + column // edge))
        out.append((edge, stored / (touched * edge * edge) if touched else 0.0))
    return tuple(out)


def mirrored(rows: Rows, at: Array) -> tuple[float, bool]:
    """The part of the sampled entries (i, j) with a stored (j, i), and whether all of those are equal in value."""
    if rows.rows != rows.columns:
        return 0.0, False
    if not len(at):
        return 1.0, True
    row, column = row_of(rows, at), rows.crd[at]
    low, end = rows.pos[column].astype(np.int64), rows.pos[column + 1].astype(np.int64)
    high = end.copy()
    while (open_ := low < high).any():
        middle = (low + high) >> 1
        less = open_ & (rows.crd[np.minimum(middle, rows.nnz - 1)] < row)
        low = np.where(less, middle + 1, low)
        high = np.where(open_ & ~less, middle, high)
    place = np.minimum(low, rows.nnz - 1)
    found = (low < end) & (rows.crd[place] == row)
    same = rows.val is not None and bool((rows.val[place[found]] == rows.val[at[found]]).all())
    return float(found.mean()), bool(found.all()) and same


class Spread(NamedTuple):
    """Steps between successive columns of a row: their mean, the part that are 1, and cache lines of an f64 vector touched
    per entry."""

    step: float
    adjacent: float
    lines: float


def spread(rows: Rows, at: Array) -> Spread:
    """Over the sampled positions."""
    if len(at) < 2:
        return Spread(0.0, 0.0, float(len(at)))
    row, column = row_of(rows, at), rows.crd[at].astype(np.int64)
    within = row[1:] == row[:-1]
    steps = np.diff(column)[within]
    lines = column // (LINE // 8)
    touched = len(at) - int(((np.diff(lines) == 0) & within).sum())
    if not len(steps):
        return Spread(0.0, 0.0, touched / len(at))
    return Spread(float(steps.mean()), float((steps == 1).mean()), touched / len(at))


def distinct(rows: Rows, at: Array) -> int:
    """How many different values the sampled entries have, at most DISTINCT + 1."""
    if rows.val is None or not len(at):
        return 0
    seen = np.unique(rows.val[at[:: max(1, len(at) // 4096)]])
    if len(seen) > DISTINCT:
        return DISTINCT + 1
    return min(DISTINCT + 1, len(np.unique(rows.val[at])))


def histogram(lengths: Array) -> tuple[int, ...]:
    """How many rows have 0, 1, 2-3, 4-7, 8-15, ... entries."""
    if not len(lengths):
        return ()
    exponent = np.zeros(len(lengths), np.int64)
    full = lengths > 0
    exponent[full] = np.floor(np.log2(lengths[full])).astype(np.int64) + 1
    return tuple(int(n) for n in np.bincount(exponent))


def padding(lengths: Array, slice_rows: int, window: int) -> float:
    """Stored elements of SELL-C-sigma (Kreutzer et al., 2014) over those of CSR: slices of C = `slice_rows` rows as long as
    their longest, rows sorted by length within windows of sigma = `window` rows (1: not sorted)."""
    total = int(lengths.sum())
    if not total:
        return 1.0
    whole = -(-len(lengths) // max(window, slice_rows)) * max(window, slice_rows)
    padded = np.zeros(whole, lengths.dtype)
    padded[: len(lengths)] = lengths
    if window > 1:
        padded = np.sort(padded.reshape(-1, window), axis=1)[:, ::-1].reshape(-1)
    return float(int(padded.reshape(-1, slice_rows).max(axis=1).sum()) * slice_rows / total)


def in_runs(row: Array, column: Array, lanes: int) -> Array:
    """Which entries, given row by row with ascending columns, lie on a diagonal that is full within their slice: every one of the
    `lanes` rows of the slice has an entry there, so that the columns of one diagonal follow each other."""
    on = np.zeros(len(row), bool)
    if not len(row):
        return on
    distance = column.astype(np.int64) - row
    low = int(distance.min())
    key = (row // lanes).astype(np.int64) * (int(distance.max()) - low + 1) + (distance - low)
    at = [np.flatnonzero(row % lanes == lane) for lane in range(lanes)]
    common = key[at[0]]
    for mine in at[1:]:
        common = common[_found(common, key[mine])]
    for mine in at:
        on[mine[_found(key[mine], common)]] = True
    return on


def _found(wanted: Array, ascending: Array) -> Array:
    """Which of `wanted` occur in `ascending`."""
    if not len(ascending):
        return np.zeros(len(wanted), bool)
    place = np.minimum(np.searchsorted(ascending, wanted), len(ascending) - 1)
    found: Array = ascending[place] == wanted
    return found


def run_share(rows: Rows, lanes: int, limit: int = SAMPLE) -> float:
    """The part of the entries that `in_runs` finds, over groups of rows spread evenly."""
    at, _ = sample(rows, limit)
    if not len(at):
        return 0.0
    return float(in_runs(row_of(rows, at), rows.crd[at], lanes).mean())


def gini(lengths: Array) -> float:
    """The Gini coefficient of non-negative numbers."""
    total, n = int(lengths.sum()), len(lengths)
    if not total:
        return 0.0
    ranks = np.arange(1, n + 1)
    return float((2 * (ranks * np.sort(lengths)).sum() / (n * total)) - (n + 1) / n)
