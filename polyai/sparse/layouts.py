"""The entries of a matrix laid out for one kind of use, in plain arrays.

    rows         CSR: pos, columns, values
    slices       SELL-C-sigma (Kreutzer, Hager, Wellein, Fehske, Bishop 2014): C rows side by side, as long as the longest of
                 them, rows sorted by length within windows of sigma rows:
                   piece s holds positions pos[s] .. pos[s + 1]; lane c of position q is entry (values[q, c], columns[q, c])
    diagonals    values[d, i] is the entry (i, i + offsets[d]); what lies on no such diagonal stays in rows
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from polyai.sparse.inspector import Rows
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


def rows_layout() -> Layout:
    """No arrays besides the matrix in CSR."""
    return Layout("rows", ())


def slices_layout(rows: Rows, lanes: int, window: int) -> Layout:
    """Slices of `lanes` rows, sorted within windows of `window` rows (1: in the order they have). Where rows of a slice differ
    in length, `ends[s, c]` is the first position that lane c does not have: 0 * x may be NaN, so padding is never added."""
    assert rows.val is not None
    count = -(-rows.rows // lanes)
    order = _by_length(rows.lengths, window)
    lengths = np.zeros(count * lanes, np.int64)
    lengths[: rows.rows] = rows.lengths[order]
    width = lengths.reshape(count, lanes).max(axis=1)
    pos = np.concatenate([[0], np.cumsum(width)])
    per_row = rows.lengths[order]
    slot = np.repeat(np.arange(rows.rows), per_row)
    within = np.arange(rows.nnz) - np.repeat(np.cumsum(per_row) - per_row, per_row)
    source = np.repeat(rows.pos[:-1][order].astype(np.int64), per_row) + within
    target = (pos[slot // lanes] + within) * lanes + slot % lanes
    values = np.zeros(int(pos[-1]) * lanes, rows.val.dtype)
    values[target] = rows.val[source]
    last = np.zeros(count * lanes, np.int64)
    full = np.flatnonzero(per_row)
    last[full] = rows.crd[rows.pos[1:][order][full] - 1]
    columns = np.repeat(last.reshape(count, lanes), width, axis=0).reshape(-1)  # padding stays near
    columns[target] = rows.crd[source]
    index = np.uint16 if rows.columns <= 1 << 16 else np.int32
    arrays: list[tuple[str, Array | Owned]] = [
        ("pieces", pieces(pos)),
        ("values", frozen(values.reshape(-1, lanes))),
        ("columns", frozen(columns.astype(index).reshape(-1, lanes))),
    ]
    if len(values) > rows.nnz:
        ends = pos[:-1, None] + lengths.reshape(count, lanes)
        arrays.append(("ends", frozen(ends.astype(np.int32 if pos[-1] < 1 << 31 else np.int64))))
    if window > 1:
        place = np.empty(rows.rows, np.int32)
        place[order] = np.arange(rows.rows, dtype=np.int32)
        arrays.append(("places", frozen(place)))
    return Layout("slices", tuple(arrays), (lanes,))


def _by_length(lengths: Array, window: int) -> Array:
    """The rows, longest first within each window."""
    if window <= 1:
        return np.arange(len(lengths))
    order: Array = np.lexsort((-lengths, np.arange(len(lengths)) // window))
    return order


def diagonals_layout(rows: Rows, offsets: tuple[int, ...]) -> Layout:
    """The diagonals `offsets` (ascending), and the rest in rows if there is any. A place without an entry holds 0."""
    assert rows.val is not None
    row = np.repeat(np.arange(rows.rows), rows.lengths)
    distance = rows.crd.astype(np.int64) - row
    listed = np.array(offsets, np.int64)
    which = np.minimum(np.searchsorted(listed, distance), len(listed) - 1)
    on = listed[which] == distance
    values = np.zeros((len(listed), rows.rows), rows.val.dtype)
    values[which[on], row[on]] = rows.val[on]
    arrays: list[tuple[str, Array | Owned]] = [("values", frozen(values))]
    if not on.all():
        off = ~on
        pos = np.concatenate([[0], np.cumsum(np.bincount(row[off], minlength=rows.rows))])
        arrays.append(("rest", owned_csr((rows.rows, rows.columns), pos, rows.crd[off], rows.val[off])))
    return Layout("diagonals", tuple(arrays), offsets)
