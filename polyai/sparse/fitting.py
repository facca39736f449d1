"""Whether the arrays of SciPy's values fit together: types, dimensions and lengths; the contents of index arrays only where that is asked."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from polyai.errors import SparseStructureError

Array = NDArray[Any]

_REBUILD = "rebuild it: type(A)((A.data, A.indices, A.indptr), shape=A.shape), then A.check_format(full_check=True)"

_REBUILD_DIA = "rebuild it: scipy.sparse.dia_array((data, offsets), shape=A.shape)"


def bad(what: str, why: str, remedy: str = _REBUILD) -> SparseStructureError:
    """The error of a value whose arrays do not fit."""
    return SparseStructureError(what, why, remedy)


def coords_of(value: Any) -> tuple[Array, ...]:
    """The lists of coordinates of a matrix in COO, one for each dimension."""
    found = getattr(value, "coords", None)  # SciPy 1.13 and later
    return tuple(found) if found is not None else (value.row, value.col)


def arrays_fit(value: Any, kind: str) -> int:
    """How much a value of a kind stores. Raises SparseStructureError, naming the array that does not fit."""
    data = value.data
    if kind == "dia":
        return _check_diagonals(value)
    if kind == "coo":
        arrays = [(f"coords[{d}]", c) for d, c in enumerate(coords_of(value))]
    else:
        arrays = [("indptr", value.indptr), ("indices", value.indices)]
    if kind == "bsr":
        _check_blocks(data, value.shape)
    for name, array in (*arrays, ("data", data)):
        if array.ndim != 1 and (kind, name) != ("bsr", "data"):
            raise bad(f"{kind}: {name} has {array.ndim} dimensions", f"its shape is {array.shape}; a list is needed")
        if name != "data" and array.dtype.kind not in "iu":
            raise bad(f"{kind}: {name} has dtype {array.dtype}", "indices are integers", f"A.{name} = A.{name}.astype(np.int32)")
    if kind == "coo":
        for name, array in arrays:
            if len(array) != len(data):
                raise bad(f"coo: {name} has {len(array)} entries", f"data has {len(data)}", "rebuild it from lists of equal length")
        return len(data)
    indptr, indices = value.indptr, value.indices
    major = 1 if len(value.shape) == 1 else value.shape[1 if kind == "csc" else 0]
    major = major // data.shape[1] if kind == "bsr" else major
    if len(indptr) != major + 1:
        axis = {"csc": "columns", "bsr": "block rows"}.get(kind, "rows")
        raise bad(f"{kind}: indptr has {len(indptr)} entries", f"{major} {axis} need {major + 1}")
    if indptr[0] != 0:
        raise bad(f"{kind}: indptr[0] is {indptr[0]}", "the first row starts at 0")
    nnz = int(indptr[-1])
    if not 0 <= nnz <= min(len(indices), len(data)):
        raise bad(f"{kind}: indptr[-1] is {nnz}", f"but there are {len(indices)} indices and {len(data)} values")
    return nnz


def _check_diagonals(value: Any) -> int:
    offsets, data = value.offsets, value.data
    if offsets.ndim != 1 or offsets.dtype.kind not in "iu":
        raise bad(f"dia: offsets has shape {offsets.shape} and dtype {offsets.dtype}", "a list of integers is needed", _REBUILD_DIA)
    if data.ndim != 2 or len(data) != len(offsets):
        raise bad(f"dia: data has shape {data.shape}", f"{len(offsets)} offsets need as many rows", _REBUILD_DIA)
    return int(value.nnz)


def _check_blocks(data: Array, shape: tuple[int, ...]) -> None:
    if data.ndim != 3 or 0 in data.shape[1:]:
        raise bad(f"bsr: data has shape {data.shape}", "it holds blocks: (blocks, rows, columns)")
    for name, extent, size in zip(("rows", "columns"), shape, data.shape[1:]):
        if extent % size:
            raise bad(f"bsr: blocks of {size} do not divide {extent} {name}", "every block is whole", "pad the matrix to a multiple")


def fibres_fit(kind: str, pointers: Array, indices: Array, extent: int) -> None:
    """Check that row pointers rise and indices lie in the extent."""
    falls = pointers[1:] < pointers[:-1]
    if falls.any():
        at = int(np.argmax(falls))
        raise bad(f"{kind}: indptr decreases from {pointers[at]} to {pointers[at + 1]} at {at}", "row pointers never decrease")
    in_range(f"{kind}: indices", indices, extent)


def in_range(what: str, indices: Array, extent: int) -> None:
    """Check that indices lie in the extent."""
    if not len(indices) or (indices.min() >= 0 and indices.max() < extent):
        return
    at = int(np.argmax((indices < 0) | (indices >= extent)))
    raise bad(f"{what}[{at}] is {indices[at]}", f"the extent of that dimension is {extent}")
