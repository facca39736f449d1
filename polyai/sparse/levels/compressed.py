"""Only some coordinates are stored, listed one fibre after another: `pos` bounds each fibre, `crd` holds coordinates."""

from __future__ import annotations

from typing import final

from polyai.errors import UnsupportedError
from polyai.scalar import dtype as dt
from polyai.scalar.expr import Apply, Const, Expr, Load
from polyai.shapes.expr import Size
from polyai.sparse.level import ArraySpec, Can, Level
from polyai.term.node import node


@final
@node
class Compressed(Level):
    """`pos[parent] <= position < pos[parent + 1]`, coordinate = `crd[position]`.

    `implicit`: every coordinate is its position, so `crd` exists in name only and nothing reads it. Fibres are then
    consecutive pieces of one dimension.

    `run`: the coordinates of a fibre are consecutive, and `crd` holds the first one of each fibre (and one number more, like
    `pos`): coordinate = `crd[parent] + position - pos[parent]`. Fibres may overlap: the rows of a sequence that all see all of it.
    """

    name: str = "compressed"
    can: Can = Can.ITERATE | Can.APPEND
    full: bool = False
    ordered: bool = True
    unique: bool = True
    branchless: bool = False
    compact: bool = True
    implicit: bool = False
    run: bool = False

    @property
    def computed(self) -> bool:
        """True if no list holds the coordinates: they follow from the positions."""
        return self.implicit or self.run

    def arrays(self, tensor: str, level: int, parents: Size, positions: Size) -> tuple[ArraySpec, ...]:
        return (
            ArraySpec(f"{tensor}.pos{level}", "pos", parents + 1),
            ArraySpec(f"{tensor}.crd{level}", "crd", parents + 1 if self.run else positions),
        )

    def bounds(self, tensor: str, level: int, parent: Expr, extent: Expr) -> tuple[Expr, Expr]:
        after = Apply("add", (parent, Const(1, dt.i64)), dt.i64)
        return Load(f"{tensor}.pos{level}", (parent,), dt.i64), Load(f"{tensor}.pos{level}", (after,), dt.i64)

    def coordinate(self, tensor: str, level: int, parent: Expr, position: Expr, extent: Expr) -> Expr:
        if self.run:
            begin, first = Load(f"{tensor}.pos{level}", (parent,), dt.i64), Load(f"{tensor}.crd{level}", (parent,), dt.i64)
            return Apply("add", (first, Apply("sub", (position, begin), dt.i64)), dt.i64)
        return position if self.implicit else Load(f"{tensor}.crd{level}", (position,), dt.i64)

    def locate(self, tensor: str, level: int, parent: Expr, coordinate: Expr, extent: Expr) -> Expr:
        raise UnsupportedError("a compressed level cannot locate a coordinate", "its coordinates are a list", "iterate it instead")
