"""Every coordinate is stored; its position is computed."""

from __future__ import annotations

from typing import final

from polyai.scalar import dtype as dt
from polyai.scalar.expr import Apply, Const, Expr
from polyai.shapes.expr import Size
from polyai.sparse.level import ArraySpec, Can, Level
from polyai.term.node import node


@final
@node
class Dense(Level):
    """No arrays: position = parent * extent + coordinate."""

    name: str = "dense"
    can: Can = Can.ITERATE | Can.LOCATE | Can.INSERT | Can.APPEND
    full: bool = True
    ordered: bool = True
    unique: bool = True
    branchless: bool = False
    compact: bool = True

    def arrays(self, tensor: str, level: int, parents: Size, positions: Size) -> tuple[ArraySpec, ...]:
        return ()

    def bounds(self, tensor: str, level: int, parent: Expr, extent: Expr) -> tuple[Expr, Expr]:
        begin = Apply("mul", (parent, extent), dt.i64)
        return begin, Apply("add", (begin, extent), dt.i64)

    def coordinate(self, tensor: str, level: int, parent: Expr, position: Expr, extent: Expr) -> Expr:
        return Apply("sub", (position, Apply("mul", (parent, extent), dt.i64)), dt.i64)

    def locate(self, tensor: str, level: int, parent: Expr, coordinate: Expr, extent: Expr) -> Expr:
        if parent == Const(0, dt.i64):
            return coordinate
        return Apply("add", (Apply("mul", (parent, extent), dt.i64), coordinate), dt.i64)
