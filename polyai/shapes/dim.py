"""A declared dimension: its name and what is promised of its value."""

from __future__ import annotations

from collections.abc import Iterable

from polyai.errors import ShapeError
from polyai.shapes.expr import SizeExpr, symbol
from polyai.term.node import node


@node
class Dim:
    """`min` <= value, value <= `max` (None: no bound), and value is a multiple of `multiple_of`. `likely` values are hints."""

    name: str
    min: int = 0
    max: int | None = None
    multiple_of: int = 1
    likely: tuple[int, ...] = ()

    def __str__(self) -> str:
        text = f"{self.min} <= {self.name}" + ("" if self.max is None else f" <= {self.max}")
        return text if self.multiple_of == 1 else f"{text}, a multiple of {self.multiple_of}"

    @property
    def size(self) -> SizeExpr:
        """The dimension as a size."""
        return symbol(self.name)

    @property
    def low(self) -> int:
        """The least value: `min` rounded up to the multiple."""
        return -(-self.min // self.multiple_of) * self.multiple_of

    @property
    def high(self) -> int | None:
        """The greatest value: `max` rounded down to the multiple; None if there is none."""
        return None if self.max is None else self.max // self.multiple_of * self.multiple_of

    def admits(self, value: int) -> bool:
        """True if `value` is as declared."""
        return self.min <= value and (self.max is None or value <= self.max) and value % self.multiple_of == 0


def checked(dim: Dim) -> Dim:
    """`dim` itself. Raises ShapeError if no value is admitted."""
    if dim.min < 0 or dim.multiple_of < 1 or (dim.high is not None and dim.high < dim.low):
        raise ShapeError(
            f"dimension {dim.name} has no possible value",
            f"min={dim.min}, max={dim.max}, multiple_of={dim.multiple_of}",
            "sizes are at least 0: use 0 <= min <= max, with a multiple of multiple_of between them",
        )
    for value in dim.likely:
        if not dim.admits(value):
            raise ShapeError(f"the likely value {value} of dimension {dim.name} is not possible", f"declared is {dim}", "name values within the range")
    return dim


def by_name(dims: Iterable[Dim]) -> dict[str, Dim]:
    """Dims by name. Raises ShapeError if a name is declared twice in different ways."""
    out: dict[str, Dim] = {}
    for dim in dims:
        other = out.setdefault(dim.name, checked(dim))
        if other != dim:
            raise ShapeError(f"dimension {dim.name} is declared twice", f"as {other} and as {dim}", "declare it once and use it twice")
    return out
