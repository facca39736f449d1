"""Dense matrices laid out for products from the right: columns in panels, each panel's rows one after another.

    W[k, j]  n x m        ->        panels[j // c, k, j % c]        ceil(m / c) x n x c, zeros after the last column

A product reads a panel from begin to end while a few rows of the other operand stay in registers (Goto and van de Geijn 2008).
"""

from __future__ import annotations

from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from polyai.sparse.owned import frozen

Array = NDArray[Any]
LEAST = 16
"""Rows and columns below which a matrix is left as it is."""


@final
class Panels:
    """A matrix and its panels of `lanes` columns. `code` is what compiled code depends on, `arrays` what it is given."""

    __slots__ = ("array", "lanes", "panels")

    def __init__(self, array: Array, lanes: int) -> None:
        self.array, self.lanes = array, lanes
        self.panels = frozen(laid_out(array, lanes))

    @property
    def code(self) -> tuple[int, int, int]:
        """Rows, columns, columns of a panel."""
        return (*self.array.shape, self.lanes)

    @property
    def arrays(self) -> tuple[Array, Array]:
        """The matrix and its panels."""
        return self.array, self.panels

    def __repr__(self) -> str:
        rows, columns = self.array.shape
        return f"<Panels {rows}x{columns} {self.array.dtype}, {self.lanes} columns each>"


def suits(array: Any, lanes: int) -> bool:
    """Whether `array` is a matrix that panels are made of."""
    if not isinstance(array, np.ndarray) or array.ndim != 2 or array.dtype not in (np.float32, np.float64):
        return False
    return bool(array.dtype.isnative and array.shape[0] >= LEAST and array.shape[1] >= max(LEAST, lanes))


def laid_out(array: Array, lanes: int) -> Array:
    """The panels of a matrix."""
    rows, columns = array.shape
    whole = columns // lanes
    out = np.empty((-(-columns // lanes), rows, lanes), array.dtype)
    out[:whole] = array[:, : whole * lanes].reshape(rows, whole, lanes).transpose(1, 0, 2)
    if whole < len(out):
        out[whole] = 0
        out[whole, :, : columns - whole * lanes] = array[:, whole * lanes :]
    return out
