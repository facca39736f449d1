"""The entries of a matrix laid out for one kind of use, in plain arrays.

    rows         CSR: pos, columns, values
    near rows    the same arrays, read without hints: what a row names, rows before it have named
    narrow rows  the same with columns of 16 bits where they fit, in arrays beside the matrix
    slices       SELL-C-sigma (Kreutzer, Hager, Wellein, Fehske, Bishop 2014): C rows side by side, as long as the longest of
                 them, rows sorted by length within windows of sigma rows:
                   piece s holds positions pos[s] .. pos[s + 1]; lane c of position q is entry (values[q, c], columns[q, c]);
                   what not every row of a slice has is kept apart
    sliced       slices whose diagonals are looked for one slice at a time, as boundaries and several blocks of a matrix break
    diagonals    them: run q holds the entries (r + c, starts[q] + c) of the rows r + c of a slice; the rest lies in slices
    diagonals    whole diagonals: values[v, i] is the entry (i, i + offset) of the v-th whose entries differ, constants[k] that of all entries of
                 the k-th whose entries are equal, as those of a stencil often are; bit g of present[i] says whether the g-th that has
                 gaps has an entry in row i; what lies on no such diagonal stays in rows

Where all entries are equal, as those of a graph often are, the layouts between rows and diagonals hold one "value" instead of values.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from polyai.sparse.inspector import Rows, in_runs
from polyai.sparse.owned import Owned, frozen, owned_csr, pieces

Array = NDArray[Any]


class Layout(NamedTuple):
    """`arrays` by name, in the order in which compiled functions take them; `numbers` are part of the code: the offsets of
    diagonals, the rows of a slice."""

    kind: str
    arrays: tuple[tuple[str, Array | Owned], ...]
    numbers: tuple[int, ...] = ()

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        return sum(a.nbytes for _, a in self.arrays)


def rows_layout(near: bool = False) -> Layout:
    """No arrays besides the matrix in CSR."""
    return Layout("near rows" if near else "rows", ())


def narrow_rows_layout(rows: Rows) -> Layout:
    """CSR with 16-bit columns where there are at most 2^16, and one value if all are equal."""
    assert rows.val is not None
    columns = ("columns", frozen(rows.crd.astype(index_of(rows))))
    return Layout("narrow rows", _once([("pieces", pieces(rows.pos)), ("values", frozen(rows.val)), columns], rows))


def index_of(rows: Rows) -> np.dtype[Any]:
    """The narrowest type that numbers the columns."""
    return np.dtype(np.uint16 if rows.columns <= 1 << 16 else np.int32 if rows.columns < 1 << 31 else np.int64)


def all_equal(rows: Rows) -> bool:
    """Whether there are entries, and all have the same bits."""
    if rows.val is None or not rows.nnz:
        return False
    bits = rows.val.view(f"u{rows.val.itemsize}")
    return bool((bits == bits[0]).all())


def _once(arrays: list[tuple[str, Array | Owned]], rows: Rows) -> tuple[tuple[str, Array | Owned], ...]:
    """The arrays of a layout, with one value instead of all values if they are equal."""
    if not all_equal(rows):
        return tuple(arrays)
    assert rows.val is not None
    return (*((name, array) for name, array in arrays if not name.endswith("values")), ("value", frozen(rows.val[:1])))


SHORT = 12
"""Rows of fewer entries, on average, are not worth a loop for what all of a slice have."""


def slices_layout(rows: Rows, lanes: int, window: int) -> Layout:
    """Slices of `lanes` rows, sorted within windows of `window` rows (1: in the order they have).

    As many positions as the shortest row of a slice has come first and have every lane. The others lie in arrays of their own,
    with `ends[s, c]` the first position that lane c does not have: 0 * x may be NaN, so padding is never added.
    """
    order = _by_length(rows.lengths, window)
    arrays = _pieces(rows, lanes, order)
    if window > 1:
        place = np.empty(rows.rows, np.int32)
        place[order] = np.arange(rows.rows, dtype=np.int32)
        arrays.append(("places", frozen(place)))
    return Layout("slices", _once(arrays, rows), (lanes,))


def sliced_diagonals_layout(rows: Rows, lanes: int) -> Layout:
    """Slices of `lanes` rows whose full diagonals are runs of columns; what lies on none is stored as in slices."""
    assert rows.val is not None
    row = np.repeat(np.arange(rows.rows), rows.lengths)
    on = in_runs(row, rows.crd, lanes)
    lane = row % lanes
    first = np.flatnonzero(on & (lane == 0))
    values = np.empty((len(first), lanes), rows.val.dtype)
    for c in range(lanes):
        values[:, c] = rows.val[on & (lane == c)]
    count = -(-rows.rows // lanes)
    pos = np.concatenate([[0], np.cumsum(np.bincount(row[first] // lanes, minlength=count))])
    starts = rows.crd[first].astype(np.int32 if rows.columns < 1 << 31 else np.int64)
    arrays: list[tuple[str, Array | Owned]] = [("runs", pieces(pos)), ("run_values", frozen(values)), ("starts", frozen(starts))]
    if not on.all():
        off = ~on
        left = np.concatenate([[0], np.cumsum(np.bincount(row[off], minlength=rows.rows))])
        rest = Rows(rows.rows, rows.columns, left, rows.crd[off], rows.val[off], True, 0)
        arrays += _pieces(rest, lanes, np.arange(rows.rows))
    return Layout("slices", _once(arrays, rows), (lanes,))


def _pieces(rows: Rows, lanes: int, order: Array) -> list[tuple[str, Array | Owned]]:
    """The arrays of slices that hold the rows in this order."""
    assert rows.val is not None
    count = -(-rows.rows // lanes)
    per_row = rows.lengths[order]
    lengths = np.zeros(count * lanes, np.int64)
    lengths[: rows.rows] = per_row
    by_slice = lengths.reshape(count, lanes)
    least = by_slice.min(axis=1)
    if (by_slice != least[:, None]).any() and rows.nnz < SHORT * rows.rows:
        least = np.zeros(count, np.int64)
    index, slot, own = index_of(rows), np.arange(rows.rows), least.repeat(lanes)[: rows.rows]
    first = rows.pos[:-1][order]

    def filled(width: Array, begin: Array, counts: Array) -> tuple[Array, Array, Array]:
        """Slices of these widths, with so many entries of each row from `begin` on."""
        assert rows.val is not None
        pos = np.concatenate([[0], np.cumsum(width)])
        room = int(pos[-1]) * lanes
        number = np.int32 if max(room, rows.nnz) < 1 << 31 else np.int64
        within = np.arange(counts.sum(), dtype=number) - np.repeat((np.cumsum(counts) - counts).astype(number), counts)
        source = within + np.repeat(begin.astype(number), counts)
        within *= lanes
        within += np.repeat((pos[slot // lanes] * lanes + slot % lanes).astype(number), counts)
        values, columns = np.zeros(room, rows.val.dtype), np.zeros(room, index)
        values[within], columns[within] = rows.val[source], rows.crd[source]
        return pos, values.reshape(-1, lanes), columns.reshape(-1, lanes)

    arrays: list[tuple[str, Array | Owned]] = []
    more = by_slice.max(axis=1, initial=0) - least
    if least.any() or not more.any():
        pos, values, columns = filled(least, first, own)
        arrays += [("pieces", pieces(pos)), ("values", frozen(values)), ("columns", frozen(columns))]
    if more.any():
        pos, values, columns = filled(more, first + own, per_row - own)
        ends = (pos[:-1, None] + by_slice - least[:, None]).astype(np.int32 if pos[-1] < 1 << 31 else np.int64)
        arrays += [("more", pieces(pos)), ("more_values", frozen(values)), ("more_columns", frozen(columns)), ("ends", frozen(ends))]
    return arrays


def _by_length(lengths: Array, window: int) -> Array:
    """The rows, longest first within each window."""
    if window <= 1:
        return np.arange(len(lengths))
    order: Array = np.lexsort((-lengths, np.arange(len(lengths)) // window))
    return order


VARIES, REPEATS, GAPS = 0, 1, 2
"""What is known of a diagonal, added up: its entries differ, or are equal; places inside the matrix hold none."""


class Diagonals(NamedTuple):
    """Which of some diagonals each entry lies on (their number for none), its row, and what is known of each diagonal."""

    which: Array
    row: Array
    kinds: Array
    firsts: Array


def kinds_of(rows: Rows, offsets: tuple[int, ...]) -> Diagonals:
    """Looks at every entry."""
    assert rows.val is not None
    row: Array = np.repeat(np.arange(rows.rows, dtype=np.int32 if rows.rows + rows.columns < 1 << 31 else np.int64), rows.lengths)
    table = np.full(rows.rows + rows.columns + 1, len(offsets), np.int8)
    table[np.array(offsets, np.int64) + rows.rows] = np.arange(len(offsets))
    which = table[rows.crd.astype(row.dtype, copy=False) - row + rows.rows]
    counts = np.bincount(which, minlength=len(offsets) + 1)
    bits = rows.val.view(f"u{rows.val.itemsize}")
    first = np.array([np.argmax(which == k) for k in range(len(offsets) + 1)])  # 0 for none, which counts for nothing
    others = np.bincount(which[bits != bits[first][which]], minlength=len(offsets) + 1)
    room = np.array([min(rows.rows, rows.columns - o) - max(0, -o) for o in offsets], np.int64)
    kinds = REPEATS * (others == 0)[:-1] + GAPS * (counts[:-1] != room)
    return Diagonals(which, row, kinds, first[:-1])


def diagonals_layout(rows: Rows, offsets: tuple[int, ...]) -> Layout:
    """The diagonals `offsets` (ascending, at most 64, none empty), and the rest in rows if there is any. `numbers` hold offset and kind
    of each."""
    assert rows.val is not None
    which, row, kinds, firsts = kinds_of(rows, offsets)
    repeats, gaps = kinds & REPEATS != 0, kinds & GAPS != 0
    arrays: list[tuple[str, Array | Owned]] = []
    if not repeats.all():
        slot = np.append(np.where(repeats, -1, np.cumsum(~repeats) - 1), -1)[which]
        values = np.zeros((int((~repeats).sum()), rows.rows), rows.val.dtype)
        on = slot >= 0
        values[slot[on], row[on]] = rows.val[on]
        arrays.append(("values", frozen(values)))
    if repeats.any():
        arrays.append(("constants", frozen(rows.val[firsts[repeats]])))
    if gaps.any():
        bit = np.append(np.where(gaps, np.uint64(1) << (np.cumsum(gaps) - 1).clip(0).astype(np.uint64), np.uint64(0)), np.uint64(0))
        sums = np.append(np.uint64(0), np.cumsum(bit[which], dtype=np.uint64))  # each bit once a row: their sum is all of them
        arrays.append(("present", frozen((sums[rows.pos[1:]] - sums[rows.pos[:-1]]).astype(word_of(int(gaps.sum()))))))
    rest = which == len(offsets)
    if rest.any():
        pos = np.concatenate([[0], np.cumsum(np.bincount(row[rest], minlength=rows.rows))])
        arrays.append(("rest", owned_csr((rows.rows, rows.columns), pos, rows.crd[rest], rows.val[rest])))
    return Layout("diagonals", tuple(arrays), tuple(int(n) for pair in zip(offsets, kinds) for n in pair))


def word_of(bits: int) -> np.dtype[Any]:
    """The narrowest unsigned type with so many bits, 64 at most."""
    return np.dtype(next(f"u{size}" for size in (1, 2, 4, 8) if bits <= 8 * size))
