"""A stored tensor: a format, a shape and the arrays of its levels. What NumPy oracles and tests pass around."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, final

from numpy.typing import NDArray

from polyai.shapes.expr import evaluate
from polyai.sparse.format import Format
from polyai.sparse.level import length_of
from polyai.term.node import node

Array = NDArray[Any]


@final
@node
class Storage:
    """`arrays` by suffix: "pos1", "crd1" for the levels that have them, "val" with one value per position of the last level
    (of one dimension, or of several that are contiguous: a BSR's are [block, row, column]).

    Compared by identity: two storages of one tensor may differ in the order of entries.
    """

    format: Format
    shape: tuple[int, ...]
    arrays: Mapping[str, Array]

    __eq__ = object.__eq__
    __hash__ = object.__hash__

    @property
    def values(self) -> Array:
        return self.arrays["val"]

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        return sum(a.nbytes for a in self.arrays.values())

    def positions(self, upto: int | None = None) -> tuple[int, ...]:
        """How many positions each level has, as its arrays say; of the first `upto` levels."""
        out: list[int] = []
        above = 1
        for number, (level, extent) in enumerate(zip(self.format.levels[:upto], self.format.level_extents(self.shape))):
            if level.sized:
                above *= self.length(number)
            elif not level.branchless:
                pos = self.arrays.get(f"pos{number}")
                above = above * evaluate(extent, {}) if level.full or level.gaps else int(pos[-1]) if pos is not None and len(pos) else 0
            out.append(above)
        return tuple(out)

    def length(self, level: int) -> int:
        """How many positions the sized level `level` has under each parent position; 0 if there are none."""
        above = math.prod(self.positions(level)[-1:])
        crd = self.arrays.get(f"crd{level}")
        mine = self.values.size if crd is None else len(crd)
        return mine // above if above else 0

    def lengths(self) -> dict[str, int]:
        """The sizes that are no extents: of each sized level the length of its fibres, by name (`length1`)."""
        return {length_of("", n).removeprefix("."): self.length(n) for n, level in enumerate(self.format.levels) if level.sized}

    def named(self, tensor: str) -> dict[str, Array]:
        """The arrays by the names kernels use: `A.pos1`, `A.crd1`, `A.val`."""
        return {f"{tensor}.{suffix}": array for suffix, array in self.arrays.items()}
