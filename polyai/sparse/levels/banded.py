"""A band around the diagonal: `below` coordinates before the parent's, itself, and `above` after it. No index arrays."""

from __future__ import annotations

from typing import final

from polyai.scalar import dtype as dt
from polyai.scalar.expr import Apply, Const, Expr, Var
from polyai.shapes.expr import Size
from polyai.sparse.level import ArraySpec, Can, Level, length_of
from polyai.term.node import node


@final
@node
class Banded(Level):
    """Slot s under parent p has the coordinate p - below + s; slots that leave the tensor at its corners are padding.

    The level above must be the outermost one and dense, so that its positions are coordinates.
    """

    below: int
    above: int
    name: str = "banded"
    can: Can = Can.ITERATE | Can.LOCATE
    full: bool = False
    ordered: bool = True
    unique: bool = True
    branchless: bool = False
    compact: bool = True
    sized: bool = True

    def arrays(self, tensor: str, level: int, parents: Size, positions: Size) -> tuple[ArraySpec, ...]:
        return ()

    def width(self, extent: int) -> int:
        return self.below + self.above + 1

    def bounds(self, tensor: str, level: int, parent: Expr, extent: Expr) -> tuple[Expr, Expr]:
        length = Var(length_of(tensor, level), dt.i64)
        begin = Apply("mul", (parent, length), dt.i64)
        return begin, Apply("add", (begin, length), dt.i64)

    def coordinate(self, tensor: str, level: int, parent: Expr, position: Expr, extent: Expr) -> Expr:
        slot = Apply("sub", (position, Apply("mul", (parent, Var(length_of(tensor, level), dt.i64)), dt.i64)), dt.i64)
        return Apply("add", (slot, Apply("sub", (parent, Const(self.below, dt.i64)), dt.i64)), dt.i64)

    def locate(self, tensor: str, level: int, parent: Expr, coordinate: Expr, extent: Expr) -> Expr:
        begin = Apply("mul", (parent, Var(length_of(tensor, level), dt.i64)), dt.i64)
        slot = Apply("sub", (coordinate, Apply("sub", (parent, Const(self.below, dt.i64)), dt.i64)), dt.i64)
        return Apply("add", (begin, slot), dt.i64)
