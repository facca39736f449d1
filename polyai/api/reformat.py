"""Conversions by kernels: rows to blocks, lists, trees and slots, and blocks to rows. Formats of SciPy's and PolyAI's own arrays.

    rows -> blocks      the same arrays, seen as (block, place inside, column), are walked twice: for the blocks that they touch, then
                        for the values in these
    blocks -> rows      each element goes to the end of its row, in the order of the blocks
    rows -> list        the number of each element's row, along the pattern
    rows -> tree        which rows hold something
    rows -> slots       each row is read up to the length of the longest one

All but the first two want rows in order that hold each coordinate once: what is not so is put in order before (`rows_of`).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from polyai.api.function import Function
from polyai.calls.engine import runtime
from polyai.errors import IndexOutOfRangeError, ShapeError, SparseStructureError
from polyai.frontend.surface import merging, selecting
from polyai.frontend.surface.elementwise import where
from polyai.sparse import format as fm
from polyai.sparse import interop
from polyai.sparse.format import Format
from polyai.sparse.levels.compressed import Compressed
from polyai.sparse.levels.dense import Dense
from polyai.sparse.tensor import SparseArray

Array = NDArray[Any]
Rows = dict[str, Array]
"""The arrays of a matrix by rows or by columns: pos1, crd1, val."""
DENSE_ROWS = 1 << 30
"""Bytes of a row of blocks up to which each thread may hold one dense while it is put together: of wider matrices NumPy makes blocks."""
LARGEST_FILL = 8
"""Slots for each element from which on NumPy makes slots: most of what is read and written would be padding."""


def arrays_of(matrix: Any) -> tuple[Rows, int]:
    """The arrays of a CSR or CSC matrix and how many bits its indices have. Raises SparseStructureError if they do not fit together."""
    described = interop.describe(matrix)
    assert described is not None
    return interop.arrays_of(matrix, described), described.format.index_bits


def in_blocks(rows: Any, described: interop.Described, wanted: Format, blocksize: tuple[int, int]) -> SparseArray:
    """A CSR matrix, and what is known of it, in dense blocks; what repeats adds up. Raises ShapeError unless blocks divide the shape, SparseStructureError for
    index arrays that are out of order or out of range."""
    shape, arrays = described.shape, interop.arrays_of(rows, described)
    for d, (extent, size) in enumerate(zip(shape, blocksize)):
        if extent % size:
            raise ShapeError(f"dimension {d} has {extent} elements", f"bsr has blocks of {size} there", "pad it to a multiple")
    height, width = blocksize
    cut = {"pos2": arrays["pos1"], "crd2": arrays["crd1"], "val": arrays["val"]}
    view = SparseArray.around(_cut_rows(described.format.index_bits), (shape[0] // height, height, shape[1]), cut)
    found = _in_words(lambda: _to_blocks(height, width)(view), rows)
    return around(wanted, shape, found.storage.arrays)


def out_of_blocks(matrix: Any) -> Any:
    """A BSR matrix as CSR, every element of its blocks stored. Raises SparseStructureError for broken index arrays."""
    described = interop.describe(matrix)
    assert described is not None and described.kind in ("bsr", "storage")
    form, (rows, columns) = described.format, described.shape
    height, width = form.block(0), form.block(1)
    arrays = interop.arrays_of(matrix, described)
    view = SparseArray.around(_blocks(form.index_bits), (rows // height, height, columns // width, width), {**arrays, "val": arrays["val"].reshape(-1)})
    return _in_words(lambda: _from_blocks(height, width)(view), matrix)


def listed(arrays: Rows, wanted: Format, shape: tuple[int, ...]) -> SparseArray:
    """Rows in order as a list of coordinates."""
    first = _row_numbers(_as_csr(arrays, shape))
    return around(wanted, shape, {"pos0": np.array([0, len(first)]), "crd0": first, "crd1": arrays["crd1"], "val": arrays["val"]})


def tree(arrays: Rows, wanted: Format, shape: tuple[int, ...]) -> SparseArray:
    """Rows in order without those that are empty."""
    rows, begins = _filled_rows(arrays["pos1"])
    positions = np.append(begins, arrays["pos1"][-1])
    return around(wanted, shape, {"pos0": np.array([0, len(rows)]), "crd0": rows, "pos1": positions, "crd1": arrays["crd1"], "val": arrays["val"]})


def slotted(arrays: Rows, wanted: Format, shape: tuple[int, ...], longest: int) -> SparseArray:
    """Rows in order with as many slots each as the longest one has elements."""
    crd, val = _slots(arrays["pos1"], arrays["crd1"], arrays["val"], np.arange(longest))
    return around(wanted, shape, {"crd1": crd.reshape(-1), "val": val.reshape(-1)})


def _as_csr(arrays: Rows, shape: tuple[int, ...]) -> SparseArray:
    return SparseArray.around(fm.shared(fm.csr(arrays["crd1"].dtype.itemsize * 8)), shape, arrays)


def around(wanted: Format, shape: tuple[int, ...], arrays: Any) -> SparseArray:
    """A SparseArray of these arrays, with index arrays as wide as the format, a shared one, wants them."""
    width = np.dtype(f"i{wanted.index_bits // 8}")
    made = {name: a if name == "val" or a.dtype == width else a.astype(width) for name, a in arrays.items()}
    return SparseArray.around(wanted, shape, made)


def _in_words(convert: Callable[[], Any], matrix: Any) -> Any:
    """What `convert` makes; errors speak of the matrix that was given, not of the arrays as a kernel saw them."""
    try:
        return convert()
    except (SparseStructureError, IndexOutOfRangeError):
        interop.validate_fully(matrix)
        raise


@cache
def _cut_rows(index_bits: int) -> Format:
    """CSR whose rows are cut into blocks: the same arrays as a tensor of (block, place inside, column)."""
    return fm.shared(Format("rows in blocks", (0, 1, 2), (Dense(), Dense(), Compressed()), index_bits))


@cache
def _blocks(index_bits: int) -> Format:
    """BSR as a tensor of (block, place inside) twice."""
    return fm.shared(Format("blocks", (0, 2, 1, 3), (Dense(), Compressed(), Dense(), Dense()), index_bits))


@cache
def _to_blocks(height: int, width: int) -> Any:
    return Function(lambda rows: merging.in_blocks(rows, (height, width)), name=f"to {height}x{width} blocks")


@cache
def _from_blocks(height: int, width: int) -> Any:
    return Function(lambda blocks: merging.out_of_blocks(blocks, (height, width)), name=f"from {height}x{width} blocks")


def _which(positions: Any) -> Any:
    (rows,) = selecting.nonzero(positions[1:] != positions[:-1])
    return rows, positions[rows]


def _places(positions: Any, columns: Any, values: Any, slots: Any) -> Any:
    begin, length = positions[:-1, None], (positions[1:] - positions[:-1])[:, None]
    held, at = slots[None, :] < length, begin + slots[None, :]
    return where(held, columns[at], -1), where(held, values[at], 0).astype(values.dtype)


_row_numbers = Function(lambda rows: selecting.coordinates(rows)[0], name="row_numbers")
_filled_rows = Function(_which, name="filled_rows")
_slots = Function(_places, name="to_slots")


def from_elsewhere(array: Any) -> Any:
    """A matrix of a kind that no kernel reads by rows (DIA, LIL, DOK), as SciPy's CSR; counted as a conversion."""
    runtime().stats.count("conversions")
    return interop.as_rows(array)
