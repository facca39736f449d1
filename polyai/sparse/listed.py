"""SciPy's kinds that no kernel reads, as CSR copies. SciPy's own conversions trust what a matrix holds: it is checked before.

A user may have changed rows and keys in place; SciPy would then read and write outside of arrays.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from polyai.errors import SparseStructureError


def as_csr(value: Any) -> Any:
    """A CSR copy of a LIL or DOK matrix. Raises SparseStructureError for one whose parts do not fit together.

    Column indices may still be out of range: who reads the copy checks them, as those of any CSR matrix.
    """
    kind = value.format
    check = {"lil": _rows_fit, "dok": _keys_fit}.get(kind)
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
