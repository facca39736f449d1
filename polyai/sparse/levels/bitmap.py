"""Room for every coordinate, and a flag for each that says whether it is stored."""

from __future__ import annotations

from typing import final

from polyai.scalar import dtype as dt
from polyai.scalar.expr import Apply, Const, Expr, Load
from polyai.shapes.expr import Size
from polyai.sparse.level import ArraySpec, Can, Level
from polyai.term.node import node


@final
@node
class Bitmap(Level):
    """position = parent * extent + coordinate, stored where `bit[position]` is not 0 (one integer of the index width each)."""

    name: str = "bitmap"
    can: Can = Can.ITERATE | Can.LOCATE | Can.INSERT
    full: bool = False
    ordered: bool = True
    unique: bool = True
    branchless: bool = False
    compact: bool = False
    gaps: bool = True

    def arrays(self, tensor: str, level: int, parents: Size, positions: Size) -> tuple[ArraySpec, ...]:
        return (ArraySpec(f"{tensor}.bit{level}", "bit", positions),)

    def bounds(self, tensor: str, level: int, parent: Expr, extent: Expr) -> tuple[Expr, Expr]:
        begin = Apply("mul", (parent, extent), dt.i64)
        return begin, Apply("add", (begin, extent), dt.i64)

    def coordinate(self, tensor: str, level: int, parent: Expr, position: Expr, extent: Expr) -> Expr:
        place = Apply("sub", (position, Apply("mul", (parent, extent), dt.i64)), dt.i64)
        stored = Apply("ne", (Load(f"{tensor}.bit{level}", (position,), dt.i64), Const(0, dt.i64)), dt.bool_)
        return Apply("where", (stored, place, Const(-1, dt.i64)), dt.i64)

    def locate(self, tensor: str, level: int, parent: Expr, coordinate: Expr, extent: Expr) -> Expr:
        return Apply("add", (Apply("mul", (parent, extent), dt.i64), coordinate), dt.i64)
