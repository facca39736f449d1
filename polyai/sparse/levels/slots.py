"""The same number of slots under each parent position, each with its coordinate listed: rows of ELL, the diagonals of DIA."""

from __future__ import annotations

from typing import final

from polyai.errors import UnsupportedError
from polyai.scalar import dtype as dt
from polyai.scalar.expr import Apply, Const, Expr, Load, Var
from polyai.shapes.expr import Size
from polyai.sparse.level import ArraySpec, Can, Level, length_of
from polyai.term.node import node


@final
@node
class Slots(Level):
    """position = parent * length + slot, coordinate = `crd[position]`; the length is a size of the tensor.

    A slot whose coordinate lies outside the tensor (-1, by convention) is empty: padding, whatever its value says.
    """

    name: str = "slots"
    can: Can = Can.ITERATE
    full: bool = False
    ordered: bool = True
    unique: bool = True
    branchless: bool = False
    compact: bool = True
    sized: bool = True

    def arrays(self, tensor: str, level: int, parents: Size, positions: Size) -> tuple[ArraySpec, ...]:
        return (ArraySpec(f"{tensor}.crd{level}", "crd", positions),)

    def bounds(self, tensor: str, level: int, parent: Expr, extent: Expr) -> tuple[Expr, Expr]:
        length = Var(length_of(tensor, level), dt.i64)
        begin = Apply("mul", (parent, length), dt.i64)
        return begin, Apply("add", (begin, length), dt.i64)

    def coordinate(self, tensor: str, level: int, parent: Expr, position: Expr, extent: Expr) -> Expr:
        return Load(f"{tensor}.crd{level}", (position,), dt.i64)

    def locate(self, tensor: str, level: int, parent: Expr, coordinate: Expr, extent: Expr) -> Expr:
        raise UnsupportedError("a level of slots cannot locate a coordinate", "its coordinates are a list", "iterate it instead")


EMPTY = Const(-1, dt.i64)
"""The coordinate of an empty slot."""
