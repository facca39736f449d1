"""A stored tensor: a format, a shape and the arrays of its levels. What NumPy oracles and tests pass around."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

from numpy.typing import NDArray

from polyai.shapes.expr import evaluate
from polyai.sparse.format import Format

Array = NDArray[Any]


@final
@dataclass(frozen=True, slots=True, eq=False)
class Storage:
    """`arrays` by suffix: "pos1", "crd1" for the levels that have them, "val" with one value per position of the last level
    (the inner levels of blocks may be dimensions of it: a BSR's are [block, row, column]).

    Compared by identity: two storages of one tensor may differ in the order of entries.
    """

    format: Format
    shape: tuple[int, ...]
    arrays: Mapping[str, Array]

    @property
    def values(self) -> Array:
        return self.arrays["val"]

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        return sum(a.nbytes for a in self.arrays.values())

    def positions(self) -> tuple[int, ...]:
        """How many positions each level has, as its arrays say."""
        out: list[int] = []
        above = 1
        for number, (level, extent) in enumerate(zip(self.format.levels, self.format.level_extents(self.shape))):
            if not level.branchless:
                pos = self.arrays.get(f"pos{number}")
                above = above * evaluate(extent, {}) if level.full else int(pos[-1]) if pos is not None and len(pos) else 0
            out.append(above)
        return tuple(out)

    def named(self, tensor: str) -> dict[str, Array]:
        """The arrays by the names kernels use: `A.pos1`, `A.crd1`, `A.val`."""
        return {f"{tensor}.{suffix}": array for suffix, array in self.arrays.items()}
