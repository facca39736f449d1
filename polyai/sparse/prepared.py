"""A matrix prepared for many products: its own arrays, the layout that was chosen, and why."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, NoReturn, final

import numpy as np

from polyai.errors import UnsupportedError
from polyai.sparse.owned import Owned
from polyai.sparse.stands import LaidOut
from polyai.term.node import node

if TYPE_CHECKING:
    from polyai.sparse.layouts import Layout


@node
class Candidate:
    """One layout that came into question, in seconds per product and bytes. `layout` is "rows", "slices" (`window` > 1: sorted
    by length within so many rows) or "diagonals". `numbers`: what it is built from, offsets of diagonals or the rows of a slice. `measured`
    is None for what the model ruled out. `building` is the time it took to build the arrays."""

    layout: str
    window: int
    predicted: float
    bytes: int
    numbers: tuple[int, ...] = ()
    measured: float | None = None
    building: float | None = None

    @property
    def name(self) -> str:
        return f"{self.layout}, sorted within {self.window}" if self.window > 1 else self.layout

    @property
    def seconds(self) -> float:
        """Measured if it was, else predicted."""
        return self.predicted if self.measured is None else self.measured


@node
class Choice:
    """What `prepare` decided. `seconds` is what preparing cost in all, `compiling` the part of it until the kernels of the
    candidates were there: they serve all matrices of their layouts, in later processes too. `unprepared` is one product with the
    matrix as it was given, None if that was not measured."""

    use: str
    threads: int
    candidates: tuple[Candidate, ...]
    chosen: int
    seconds: float
    compiling: float
    unprepared: float | None
    forced: bool

    @property
    def best(self) -> Candidate:
        return self.candidates[self.chosen]

    @property
    def break_even(self) -> int | None:
        """After how many products preparing this matrix has paid for itself, its kernels aside; None if it never does, or if nothing
        was measured."""
        return self._after(self.seconds - self.compiling)

    @property
    def break_even_cold(self) -> int | None:
        """The same, with the time that this call waited for kernels."""
        return self._after(self.seconds)

    def _after(self, seconds: float) -> int | None:
        gain = 0.0 if self.unprepared is None else self.unprepared - self.best.seconds
        return int(np.ceil(seconds / gain)) if gain > 0 else None

    def __str__(self) -> str:
        lines = [f"{'layout':30} {'predicted':>11} {'measured':>11} {'bytes':>12}"]
        for k, c in enumerate(self.candidates):
            measured = "-" if c.measured is None else f"{c.measured * 1e6:.1f} us"
            mark = " <- chosen" + (", as asked" if self.forced else "") if k == self.chosen else ""
            lines.append(f"{c.name:30} {c.predicted * 1e6:>8.1f} us {measured:>11} {c.bytes:>12}{mark}")
        lines.append(f"prepared for {self.use} with {self.threads} thread(s) in {self.seconds * 1e3:.1f} ms, {self.compiling * 1e3:.1f} of them for kernels")
        if self.unprepared is None:
            lines.append("nothing was measured, so it is not known when that is paid back")
        else:
            paid = "never" if self.break_even is None else f"after {self.break_even} products, {self.break_even_cold} with the kernels"
            lines.append(f"one product without preparing: {self.unprepared * 1e6:.1f} us; paid back {paid}")
        return "\n".join(lines)


@final
class Prepared(LaidOut):
    """What `polyai.prepare` returns: an argument of compiled functions in place of the matrix, with the same results.

    It owns read-only copies of the arrays, so that a later change of the original does not reach it and kernels need not
    check its indices. `matrix` holds the entries by rows, `layout` the arrays for products with vectors; `arrays`, the matrix first,
    are what a compiled function is given in its place, and `key` says, as an interned string, which layout of them that is.
    """

    __slots__ = ("arrays", "choice", "code", "key", "layout", "matrix")

    def __init__(self, matrix: Owned, layout: Layout, choice: Choice) -> None:
        self.matrix, self.layout, self.choice = matrix, layout, choice
        self.code: tuple[Any, ...] = (layout.kind, layout.numbers, tuple(name for name, _ in layout.arrays))
        self.key: str = sys.intern(repr(self.code))
        self.arrays: tuple[Any, ...] = (matrix, *(array for _, array in layout.arrays))

    @property
    def shape(self) -> tuple[int, int]:
        rows, columns = self.matrix.shape
        return rows, columns

    @property
    def ndim(self) -> int:
        return 2

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.matrix.dtype

    @property
    def nnz(self) -> int:
        return self.matrix.nnz

    @property
    def nbytes(self) -> int:
        """Bytes of everything it owns."""
        return self.matrix.nbytes + self.layout.nbytes

    def __matmul__(self, other: Any) -> NoReturn:
        raise UnsupportedError("a prepared matrix is an argument of compiled functions", "it has no operators of its own", "write pa.jit(lambda A, x: A @ x)")

    def __repr__(self) -> str:
        return f"<Prepared {self.shape[0]}x{self.shape[1]} {self.dtype}, {self.nnz} stored, {self.choice.best.name}>"
