"""A level: how one dimension of a stored tensor is kept, after Chou, Kjolstad and Amarasinghe (OOPSLA 2018).

A level answers three questions with scalar expressions, and emits nothing itself: which positions lie under a parent
position (`bounds`), which coordinate a position has (`coordinate`), where a coordinate is (`locate`). What it can do
(ITERATE, LOCATE, APPEND, INSERT) and what holds for it (full, ordered, unique, branchless, compact) are plain fields.
"""

from __future__ import annotations

import abc
from enum import Flag, auto

from polyai.scalar.expr import Expr
from polyai.shapes.expr import Size
from polyai.term.node import node


class Can(Flag):
    """Capabilities of a level."""

    ITERATE = auto()
    LOCATE = auto()
    APPEND = auto()
    INSERT = auto()


@node
class ArraySpec:
    """One index array of a level: `name` as kernels see it (`A.pos1`), `length` in elements, `role` "pos" or "crd"."""

    name: str
    role: str
    length: Size


def length_of(tensor: str, level: int) -> str:
    """The size that says how many positions a sized level has under each parent position."""
    return f"{tensor}.length{level}"


class Level(abc.ABC):
    """One storage level. Concrete levels are final, frozen nodes without state of their own but their parameters."""

    __slots__ = ()

    name: str
    can: Can
    full: bool
    ordered: bool
    unique: bool
    branchless: bool  # exactly one position under each parent position (singleton)
    compact: bool
    sized: bool = False  # every fibre is as long as a size of the tensor says (`length_of`), not as an extent or an array
    gaps: bool = False  # positions whose coordinate is -1 hold nothing

    @abc.abstractmethod
    def arrays(self, tensor: str, level: int, parents: Size, positions: Size) -> tuple[ArraySpec, ...]:
        """The index arrays of this level, given how many positions the parent level and this level have."""

    def width(self, extent: int) -> int:
        """The length of the fibres of a sized level without index arrays, when a tensor is packed."""
        return extent

    def groups(self) -> tuple[int, int] | None:
        """(n, m) if each m neighbouring coordinates have n slots of their own and only the place among the m is listed."""
        return None

    @abc.abstractmethod
    def bounds(self, tensor: str, level: int, parent: Expr, extent: Expr) -> tuple[Expr, Expr]:
        """Begin and end of the positions under `parent`."""

    @abc.abstractmethod
    def coordinate(self, tensor: str, level: int, parent: Expr, position: Expr, extent: Expr) -> Expr:
        """The coordinate of `position` under `parent`."""

    @abc.abstractmethod
    def locate(self, tensor: str, level: int, parent: Expr, coordinate: Expr, extent: Expr) -> Expr:
        """The position of `coordinate` under `parent`. Only for levels with LOCATE."""
