"""Predicts what a product with a vector costs in each layout, from facts of the matrix alone.

Time is the larger of what the entries cost to compute and what the bytes cost to move. The constants are nanoseconds of one
core of a current x86 processor; only their ratios matter, since `prepare` measures what the prediction leaves open.
"""

from __future__ import annotations

import math

import numpy as np

from polyai.sparse import inspector
from polyai.sparse.inspector import Rows
from polyai.sparse.layouts import (
    Layout,
    all_equal,
    diagonals_layout,
    narrow_rows_layout,
    rows_layout,
    sliced_diagonals_layout,
    slices_layout,
)
from polyai.sparse.prepared import Candidate
from polyai.sparse.stats import Stats
from polyai.term.node import node

SLICE_BYTES = 64
"""Values of one position of a slice: 16 rows of f32, 8 of f64."""
RUNS = (16, 8)
"""Rows of a slice whose diagonals are looked for: shorter ones where they find more."""
ENOUGH = 0.9
"""The part of what short slices find that long ones must find."""
REST_PADDING = 1.25
"""About how much room the entries on none of them take."""
LEAST_IN_RUNS = 0.15
"""The part of the entries that must lie on such diagonals."""
WINDOWS = (1, 256, 1 << 14)
"""Within how many rows they are sorted by length: not at all; so few that results stay near each other; so many that rows of
graphs with a few long ones hardly need padding."""
MOST_DIAGONALS = 64
"""Beyond that, code for each diagonal is too long."""


COLUMNS = 32
"""Columns of the matrices that a matrix is prepared for."""
NEAR = 256 << 10
"""Bytes of rows of such a matrix that stay near a core."""
HINTS = 1.2
"""What hints cost where they are not needed, and what they save where they are."""


@node
class Costs:
    """Nanoseconds: `row` to begin a row, `surprise` more where its length differs from the last one's, `entry` for an entry
    read by rows, `lane` for one in a slice, `run` for one on a diagonal of a slice, f32, `piece` to begin a slice, `place` to put one result in its place, `diagonal` for
    an entry of a diagonal in f64. `bandwidth`: bytes per nanosecond of one thread; `near`: how much faster below `cache` bytes."""

    row: float = 2.0
    surprise: float = 1.5
    entry: float = 0.36
    lane: float = 0.3
    run: float = 0.12
    piece: float = 9.0
    place: float = 0.7
    diagonal: float = 0.35
    bandwidth: float = 14.0
    near: float = 2.2
    cache: int = 16 << 20


COSTS = Costs()


def for_matrices(stats: Stats, rows: Rows, item: int, threads: int, costs: Costs = COSTS) -> tuple[Candidate, ...]:
    """The layouts for products with matrices, of COLUMNS columns: rows, with hints or without."""
    size = (4 + item) * stats.nnz + 4 * (stats.rows + 1)
    line = item * COLUMNS
    once = _seconds(stats.nnz * costs.entry * COLUMNS / 8, size + line * (stats.rows + stats.columns), threads, costs)
    reach = 2 * stats.profile / max(1, stats.rows) * line  # what the rows around one name
    near = reach <= NEAR and stats.rows == stats.columns
    found = Candidate("rows", 1, once * (HINTS if near else 1.0), size), Candidate("near rows", 1, once * (1.0 if near else HINTS), size)
    return found if stats.nnz else found[:1]


def candidates(stats: Stats, rows: Rows, item: int, threads: int, costs: Costs = COSTS) -> tuple[Candidate, ...]:
    """Every layout that can hold the matrix, with its predicted seconds and bytes. `item`: bytes of a value."""
    n, nnz, lanes = stats.rows, stats.nnz, SLICE_BYTES // item
    vectors = item * (n + stats.columns)
    variation = min(1.0, stats.row_deviation / stats.row_mean) if stats.row_mean else 0.0
    by_rows = (4 + item) * nnz + 4 * (n + 1)
    compute = n * (costs.row + costs.surprise * variation) + nnz * costs.entry
    out = [Candidate("rows", 1, _seconds(compute, by_rows + vectors, threads, costs), by_rows)]
    width = 2 if stats.columns <= 1 << 16 else 4
    stored = 0 if all_equal(rows) else item
    if nnz and (width == 2 or not stored):
        size = (width + stored) * nnz + 4 * (n + 1)
        out.append(Candidate("narrow rows", 1, _seconds(compute, size + vectors, threads, costs), size))
    for window in WINDOWS if nnz else ():
        if window > max(WINDOWS[1], 2 * n):
            continue
        padded = nnz * inspector.padding(rows.lengths, lanes, window)
        size = int(padded * (stored + width) + n / lanes * 4 + (4 * n if padded > nnz else 0) + (4 * n if window > 1 else 0))
        steps = _steps(rows, window, lanes)
        compute = padded * costs.lane + n / lanes * (costs.piece + costs.surprise * steps) + n * (costs.place if window > 1 else costs.place / 4)
        out.append(Candidate("slices", window, _seconds(compute, size + vectors + 2 * item * n, threads, costs), size))
    run, in_runs = _runs(rows)
    if in_runs >= LEAST_IN_RUNS:
        rest = nnz * (1 - in_runs)
        size = int((nnz - rest) * (stored + 4 / run) + rest * REST_PADDING * (stored + width) + n / run * 4 + (n / run * 4 + 4 * n if rest >= 1 else 0))
        compute = (nnz - rest) * costs.run * item / 4 + rest * REST_PADDING * costs.lane + n / run * costs.piece + n * costs.place / 4
        out.append(Candidate("sliced diagonals", 1, _seconds(compute, size + vectors + 2 * item * n, threads, costs), size))
    offsets = dense_diagonals(stats)
    if offsets:
        covered = sum(fill * _room(stats, offset) for offset, fill in stats.fullest if offset in offsets)
        rest = max(0.0, nnz - covered)
        size = int(len(offsets) * n * item + rest * (4 + item) + (4 * n if rest >= 1 else 0))
        compute = len(offsets) * n * costs.diagonal * item / 8 + (n * costs.row + rest * costs.entry if rest >= 1 else 0)
        out.append(Candidate("diagonals", 1, _seconds(compute, size + vectors, threads, costs), size))
    return tuple(out)


def _runs(rows: Rows) -> tuple[int, float]:
    """How many rows a slice should have whose diagonals are looked for, and the part of the entries that lie on full ones."""
    found = [(lanes, inspector.run_share(rows, lanes) if rows.nnz and rows.rows >= lanes else 0.0) for lanes in RUNS]
    most = max(share for _, share in found)
    return next((lanes, share) for lanes, share in found if share >= ENOUGH * most)


def _seconds(compute: float, size: float, threads: int, costs: Costs) -> float:
    speed = costs.bandwidth * (costs.near if size < costs.cache else 1.0)
    return max(compute, size / speed) / math.sqrt(threads if size >= costs.cache else threads * threads) * 1e-9


def _steps(rows: Rows, window: int, lanes: int) -> float:
    """How often one slice is of another length than the last."""
    lengths = rows.lengths
    count = len(lengths) // lanes
    if count < 2:
        return 0.0
    if window > 1:
        whole = len(lengths) // window * window
        if whole:
            lengths = np.sort(lengths[:whole].reshape(-1, window), axis=1)[:, ::-1].reshape(-1)
            count = whole // lanes
    longest = lengths[: count * lanes].reshape(count, lanes).max(axis=1)
    return float((np.diff(longest) != 0).mean()) if count > 1 else 0.0


def dense_diagonals(stats: Stats, least: float = 0.5) -> tuple[int, ...]:
    """Offsets of the diagonals that are at least half full, if they hold at least 90 % of the entries; else none."""
    found = sorted((offset, fill) for offset, fill in stats.fullest if fill >= least and _room(stats, offset) >= stats.rows // 4)
    covered = sum(fill * _room(stats, offset) for offset, fill in found)
    if not found or len(found) > MOST_DIAGONALS or covered < 0.9 * stats.nnz:
        return ()
    return tuple(offset for offset, _ in found)


def _room(stats: Stats, offset: int) -> int:
    return max(0, min(stats.rows, stats.columns - offset) - max(0, -offset))


def build(candidate: Candidate, stats: Stats, rows: Rows, offsets: tuple[int, ...] | None = None) -> Layout:
    """The arrays of a candidate."""
    if candidate.layout == "slices":
        assert rows.val is not None
        return slices_layout(rows, SLICE_BYTES // rows.val.itemsize, candidate.window)
    if candidate.layout == "narrow rows":
        return narrow_rows_layout(rows)
    if candidate.layout == "sliced diagonals":
        return sliced_diagonals_layout(rows, _runs(rows)[0])
    if candidate.layout == "diagonals":
        return diagonals_layout(rows, dense_diagonals(stats) if offsets is None else offsets)
    return rows_layout(candidate.layout == "near rows")
