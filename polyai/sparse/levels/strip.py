"""A run of coordinates 0, 1, 2, ... of the same length under each parent position: what DIA stores along a diagonal."""

from __future__ import annotations

from typing import final

from polyai.scalar import dtype as dt
from polyai.scalar.expr import Apply, Expr, Var
from polyai.shapes.expr import Size
from polyai.sparse.level import ArraySpec, Can, Level, length_of
from polyai.term.node import node


@final
@node
class Strip(Level):
    """No arrays: position = parent * length + coordinate; the length is a size of the tensor, not an extent.

    Coordinates beyond the extent, or whose other dimensions lie outside the tensor, are padding.
    """

    name: str = "strip"
    can: Can = Can.ITERATE | Can.LOCATE
    full: bool = True
    ordered: bool = True
    unique: bool = True
    branchless: bool = False
    compact: bool = True
    sized: bool = True

    def arrays(self, tensor: str, level: int, parents: Size, positions: Size) -> tuple[ArraySpec, ...]:
        return ()

    def bounds(self, tensor: str, level: int, parent: Expr, extent: Expr) -> tuple[Expr, Expr]:
        begin = Apply("mul", (parent, _length(tensor, level)), dt.i64)
        return begin, Apply("add", (begin, _length(tensor, level)), dt.i64)

    def coordinate(self, tensor: str, level: int, parent: Expr, position: Expr, extent: Expr) -> Expr:
        return Apply("sub", (position, Apply("mul", (parent, _length(tensor, level)), dt.i64)), dt.i64)

    def locate(self, tensor: str, level: int, parent: Expr, coordinate: Expr, extent: Expr) -> Expr:
        return Apply("add", (Apply("mul", (parent, _length(tensor, level)), dt.i64), coordinate), dt.i64)


def _length(tensor: str, level: int) -> Expr:
    return Var(length_of(tensor, level), dt.i64)
