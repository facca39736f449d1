"""SciPy's kinds that no kernel reads, as CSR copies. SciPy's own conversions trust what a matrix holds: it is checked before.

A user may have changed rows, keys, offsets and blocks in place; SciPy would then read and write outside of arrays.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from polyai.errors import SparseStructureError


def as_csr(value: Any) -> Any:
    """A CSR copy of a BSR, DIA, LIL or DOK matrix. Raises SparseStructureError for one whose parts do not fit together.

    Column indices may still be out of range: who reads the copy checks them, as those of any CSR matrix.
    """
    kind = value.format
    check = {"bsr": _blocks_fit, "dia": _diagonals_fit, "lil": _rows_fit, "dok": _keys_fit}.get(kind)
    try:
        if check is not None:
            check(value)
        return value.tocsr()
    except SparseStructureError:
        raise
    except (ValueError, TypeError, IndexError, OverflowError, AttributeError) as error:
        raise _malformed(kind, str(error)) from None


def _malformed(kind: str, why: str) -> SparseStructureError:
    return SparseStructureError(f"the {kind} matrix is malformed", why, f"rebuild it: scipy.sparse.{kind}_array(the same elements)")


def _blocks_fit(value: Any) -> None:
    for name in ("indptr", "indices"):
        if getattr(value, name).dtype.kind not in "iu":
            raise _malformed("bsr", f"{name} has dtype {getattr(value, name).dtype}: indices are integers")
    value.check_format(full_check=True)
    for axis, (extent, size) in enumerate(zip(value.shape, value.data.shape[1:])):
        if extent % size:
            raise _malformed("bsr", f"dimension {axis} has {extent} elements, which blocks of {size} do not divide")


def _diagonals_fit(value: Any) -> None:
    offsets, data = value.offsets, value.data
    if offsets.ndim != 1 or offsets.dtype.kind not in "iu":
        raise _malformed("dia", f"offsets has shape {offsets.shape} and dtype {offsets.dtype}: a list of integers is needed")
    if data.ndim != 2 or len(data) != len(offsets):
        raise _malformed("dia", f"data has shape {data.shape}: {len(offsets)} offsets need as many rows")


def _rows_fit(value: Any) -> None:
    rows, data = value.rows, value.data
    for name, lists in (("rows", rows), ("data", data)):
        if np.shape(lists) != (value.shape[0],):
            raise _malformed("lil", f"{name} has shape {np.shape(lists)}: {value.shape[0]} rows need one list each")
    for number, (columns, values) in enumerate(zip(rows, data)):
        if len(columns) != len(values):
            raise _malformed("lil", f"row {number} has {len(columns)} column indices and {len(values)} values")


def _keys_fit(value: Any) -> None:
    for key in value.keys():  # noqa: SIM118 - iteration over a DOK array is not over its keys in every SciPy
        if not isinstance(key, tuple) or len(key) != 2:
            raise _malformed("dok", f"{key!r} is no pair of indices")
