"""Of each m neighbouring coordinates at most n are stored, in slots of their own: n:m sparsity, as processors for pruned weights take it."""

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
class Structured(Level):
    """position = parent * length + slot, coordinate = slot // n * m + crd[position]; the length is a size of the tensor.

    Only the place among the m is listed, so 8 bits are enough for rows of any length. A place of -1 is an empty slot.
    """

    n: int
    m: int
    name: str = "structured"
    can: Can = Can.ITERATE
    full: bool = False
    ordered: bool = True
    unique: bool = True
    branchless: bool = False
    compact: bool = True
    sized: bool = True

    def arrays(self, tensor: str, level: int, parents: Size, positions: Size) -> tuple[ArraySpec, ...]:
        return (ArraySpec(f"{tensor}.crd{level}", "crd", positions),)

    def width(self, extent: int) -> int:
        return -(-extent // self.m) * self.n

    def groups(self) -> tuple[int, int]:
        return self.n, self.m

    def bounds(self, tensor: str, level: int, parent: Expr, extent: Expr) -> tuple[Expr, Expr]:
        length = Var(length_of(tensor, level), dt.i64)
        begin = Apply("mul", (parent, length), dt.i64)
        return begin, Apply("add", (begin, length), dt.i64)

    def coordinate(self, tensor: str, level: int, parent: Expr, position: Expr, extent: Expr) -> Expr:
        length = Var(length_of(tensor, level), dt.i64)
        slot = Apply("sub", (position, Apply("mul", (parent, length), dt.i64)), dt.i64)
        group = Apply("mul", (Apply("floordiv", (slot, Const(self.n, dt.i64)), dt.i64), Const(self.m, dt.i64)), dt.i64)
        place = Load(f"{tensor}.crd{level}", (position,), dt.i64)
        empty = Apply("lt", (place, Const(0, dt.i64)), dt.bool_)
        return Apply("where", (empty, Const(-1, dt.i64), Apply("add", (group, place), dt.i64)), dt.i64)

    def locate(self, tensor: str, level: int, parent: Expr, coordinate: Expr, extent: Expr) -> Expr:
        raise UnsupportedError("a structured level cannot locate a coordinate", "its places are a list", "iterate it instead")
