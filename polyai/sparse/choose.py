"""Predicts what a product with a vector costs in each layout, from facts of the matrix alone.

Time is the larger of what the entries cost to compute and what the bytes cost to move. The constants are nanoseconds of one
core of a current x86 processor; only their ratios matter, since `prepare` measures what the prediction leaves open.
"""

from __future__ import annotations

import math

import numpy as np

from polyai.sparse import inspector
from polyai.sparse.inspector import Array, Rows
from polyai.sparse.layouts import (
    Layout,
    all_equal,
    diagonals_layout,
    narrow_rows_layout,
    rows_layout,
    sliced_diagonals_layout,
    slices_layout,
    word_of,
)
from polyai.sparse.prepared import Candidate
from polyai.term.node import node

SLICE_BYTES = 64
"""Values of one position of a slice: 16 rows of f32, 8 of f64."""
RUNS = (16, 8)
"""Rows of a slice whose diagonals are looked for: shorter ones where they find more."""
RUN_SAMPLE = 1 << 14
"""How many entries are looked at for that."""
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
CLOSE, FEW = 1.25, 2
"""Of 76 products with real matrices (Zen 3) the fastest layout was among the best two predictions, or at most 6 % faster than those."""


@node
class Costs:
    """Nanoseconds: `row` to begin a row, `surprise` more where its length differs from the last one's, `entry` for an entry
    read by rows, `lane` for one in a slice, `run` for one on a diagonal of a slice, f32, `piece` to begin a slice, `place` to put one result in its place, `diagonal` for
    an entry of a diagonal in f64, `gap` more if the diagonal has gaps, `alone` if other entries keep it from running in
    lanes. `bandwidth`: bytes per nanosecond of one thread; `near`: how much faster below `cache` bytes."""

    row: float = 2.0
    surprise: float = 1.5
    entry: float = 0.36
    lane: float = 0.3
    run: float = 0.12
    piece: float = 9.0
    place: float = 0.7
    diagonal: float = 0.1
    gap: float = 0.15
    alone: float = 0.7
    bandwidth: float = 14.0
    near: float = 2.2
    cache: int = 16 << 20


COSTS = Costs()


def for_matrices(rows: Rows, threads: int, costs: Costs = COSTS) -> tuple[Candidate, ...]:
    """The layouts for products with matrices, of COLUMNS columns: rows, with hints or without."""
    item = rows.val.itemsize if rows.val is not None else 1
    size = (4 + item) * rows.nnz + 4 * (rows.rows + 1)
    line = item * COLUMNS
    once = _seconds(rows.nnz * costs.entry * COLUMNS / 8, size + line * (rows.rows + rows.columns), threads, costs)
    near = rows.rows == rows.columns and 2 * inspector.profile(rows) / max(1, rows.rows) * line <= NEAR  # what the rows around one name
    found = Candidate("rows", 1, once * (HINTS if near else 1.0), size), Candidate("near rows", 1, once * (1.0 if near else HINTS), size)
    return found if rows.nnz else found[:1]


def candidates(rows: Rows, threads: int, costs: Costs = COSTS) -> tuple[Candidate, ...]:
    """Every layout that can hold the matrix, with its predicted seconds and bytes."""
    assert rows.val is not None
    n, nnz, item, lengths = rows.rows, rows.nnz, rows.val.itemsize, rows.lengths
    lanes, vectors = SLICE_BYTES // item, item * (n + rows.columns)
    variation = min(1.0, float(lengths.std()) / (nnz / n)) if nnz else 0.0
    by_rows = (4 + item) * nnz + 4 * (n + 1)
    compute = n * (costs.row + costs.surprise * variation) + nnz * costs.entry
    out = [Candidate("rows", 1, _seconds(compute, by_rows + vectors, threads, costs), by_rows)]
    width = 2 if rows.columns <= 1 << 16 else 4
    stored = 0 if all_equal(rows) else item
    if nnz and (width == 2 or not stored):
        size = (width + stored) * nnz + 4 * (n + 1)
        out.append(Candidate("narrow rows", 1, _seconds(compute, size + vectors, threads, costs), size))
    for window in WINDOWS if nnz else ():
        if window > max(WINDOWS[1], 2 * n):
            continue
        longest = _longest(lengths, window, lanes)
        padded = float(longest.sum()) * lanes
        size = int(padded * (stored + width) + n / lanes * 4 + (4 * n if padded > nnz else 0) + (4 * n if window > 1 else 0))
        steps = float((np.diff(longest) != 0).mean()) if len(longest) > 1 else 0.0  # how often one slice is of another length than the last
        compute = padded * costs.lane + n / lanes * (costs.piece + costs.surprise * steps) + n * (costs.place if window > 1 else costs.place / 4)
        out.append(Candidate("slices", window, _seconds(compute, size + vectors + 2 * item * n, threads, costs), size))
    run, in_runs = _runs(rows)
    if in_runs >= LEAST_IN_RUNS:
        rest = nnz * (1 - in_runs)
        size = int((nnz - rest) * (stored + 4 / run) + rest * REST_PADDING * (stored + width) + n / run * 4 + (n / run * 4 + 4 * n if rest >= 1 else 0))
        compute = (nnz - rest) * costs.run * item / 4 + rest * REST_PADDING * costs.lane + n / run * costs.piece + n * costs.place / 4
        out.append(Candidate("sliced diagonals", 1, _seconds(compute, size + vectors + 2 * item * n, threads, costs), size, (run,)))
    found = dense_diagonals(rows)
    offsets = tuple(offset for offset, _, _ in found)
    if offsets:
        left, gaps = nnz - sum(stored for _, stored, _ in found), sum(stored < room for _, stored, room in found)
        different = len(offsets) - _of_equal_entries(rows, offsets)
        size = int(n * (different * item + (word_of(gaps).itemsize if gaps else 0)) + (left * (4 + item) + 4 * n if left else 0))
        compute = n * (len(offsets) * costs.diagonal + gaps * costs.gap) * item / 8
        if left:  # their rows are summed beside the diagonals, one by one
            compute = n * (costs.row + len(offsets) * costs.alone) + left * costs.entry
        out.append(Candidate("diagonals", 1, _seconds(compute, size + vectors, threads, costs), size, offsets))
    return tuple(out)


def _runs(rows: Rows) -> tuple[int, float]:
    """How many rows a slice should have whose diagonals are looked for, and the part of the entries that lie on full ones."""
    found = [(lanes, inspector.run_share(rows, lanes, RUN_SAMPLE) if rows.nnz and rows.rows >= lanes else 0.0) for lanes in RUNS]
    most = max(share for _, share in found)
    return next((lanes, share) for lanes, share in found if share >= ENOUGH * most)


def _seconds(compute: float, size: float, threads: int, costs: Costs) -> float:
    speed = costs.bandwidth * (costs.near if size < costs.cache else 1.0)
    return max(compute, size / speed) / math.sqrt(threads if size >= costs.cache else threads * threads) * 1e-9


def _longest(lengths: Array, window: int, lanes: int) -> Array:
    """The longest row of each slice, rows sorted by length within windows."""
    longest = np.zeros(-(-len(lengths) // max(window, lanes)) * max(window, lanes), lengths.dtype)
    longest[: len(lengths)] = lengths
    if window > 1:
        longest = np.sort(longest.reshape(-1, window), axis=1)[:, ::-1].reshape(-1)
    found: Array = longest.reshape(-1, lanes).max(axis=1)
    return found[: -(-len(lengths) // lanes)]


def dense_diagonals(rows: Rows, least: float = 0.5) -> tuple[tuple[int, int, int], ...]:
    """Offset, entries and room of the diagonals that are at least half full, if they hold at least 90 % of the entries; else none."""
    fullest = inspector.diagonals(rows).fullest
    room = {offset: min(rows.rows, rows.columns - offset) - max(0, -offset) for offset, _ in fullest}
    found = [(offset, round(fill * room[offset]), room[offset]) for offset, fill in fullest if fill >= least and room[offset] >= rows.rows // 4]
    if not found or len(found) > MOST_DIAGONALS or sum(stored for _, stored, _ in found) < 0.9 * rows.nnz:
        return ()
    return tuple(sorted(found))


def _of_equal_entries(rows: Rows, offsets: tuple[int, ...]) -> int:
    """How many of the diagonals hold equal entries, as far as a sample shows."""
    assert rows.val is not None
    at, _ = inspector.sample(rows, RUN_SAMPLE)
    distance, bits = rows.crd[at].astype(np.int64) - inspector.row_of(rows, at), rows.val.view(f"u{rows.val.itemsize}")[at]
    return sum(bool((mine == mine[:1]).all()) for mine in (bits[distance == offset] for offset in offsets))


def build(candidate: Candidate, rows: Rows) -> Layout:
    """The arrays of a candidate."""
    assert rows.val is not None
    match candidate.layout:
        case "slices":
            return slices_layout(rows, SLICE_BYTES // rows.val.itemsize, candidate.window)
        case "narrow rows":
            return narrow_rows_layout(rows)
        case "sliced diagonals":
            return sliced_diagonals_layout(rows, candidate.numbers[0])
        case "diagonals":
            return diagonals_layout(rows, candidate.numbers)
        case _:
            return rows_layout(candidate.layout == "near rows")


def in_question(found: tuple[Candidate, ...]) -> tuple[Candidate, ...]:
    """Those predicted within CLOSE of the best, the best first, at most FEW: each more would have to be built, compiled and timed."""
    ranked = sorted(found, key=lambda c: c.predicted)
    return tuple(c for c in ranked if c.predicted <= CLOSE * ranked[0].predicted)[:FEW]
