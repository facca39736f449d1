"""A stored tensor: a format, a shape and the arrays of its levels. What NumPy oracles and tests pass around."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

from numpy.typing import NDArray

from polyai.sparse.format import Format

Array = NDArray[Any]


@final
@dataclass(frozen=True, slots=True, eq=False)
class Storage:
    """`arrays` by suffix: "pos1", "crd1" for the levels that have them, "val" with one value per position of the last level.

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

    def named(self, tensor: str) -> dict[str, Array]:
        """The arrays by the names kernels use: `A.pos1`, `A.crd1`, `A.val`."""
        return {f"{tensor}.{suffix}": array for suffix, array in self.arrays.items()}
