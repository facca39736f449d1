"""Exactly one coordinate under each parent position: the trailing dimensions of COO."""

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
class Singleton(Level):
    """position = parent position, coordinate = `crd[position]`."""

    name: str = "singleton"
    can: Can = Can.ITERATE | Can.APPEND
    full: bool = False
    ordered: bool = True
    unique: bool = True
    branchless: bool = True
    compact: bool = True

    def arrays(self, tensor: str, level: int, parents: Size, positions: Size) -> tuple[ArraySpec, ...]:
        return (ArraySpec(f"{tensor}.crd{level}", "crd", positions),)

    def bounds(self, tensor: str, level: int, parent: Expr, extent: Expr) -> tuple[Expr, Expr]:
        return parent, Apply("add", (parent, Const(1, dt.i64)), dt.i64)

    def coordinate(self, tensor: str, level: int, parent: Expr, position: Expr, extent: Expr) -> Expr:
        return Load(f"{tensor}.crd{level}", (position,), dt.i64)

    def locate(self, tensor: str, level: int, parent: Expr, coordinate: Expr, extent: Expr) -> Expr:
        raise UnsupportedError("a singleton level cannot locate a coordinate", "it has one position per parent", "iterate it instead")
