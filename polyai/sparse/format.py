"""A format: an order of dimensions and a level for each. CSR, CSC, COO are values of this one class."""

from __future__ import annotations

from polyai.sparse.level import Level
from polyai.sparse.levels.compressed import Compressed
from polyai.sparse.levels.dense import Dense
from polyai.sparse.levels.singleton import Singleton
from polyai.term.node import node


@node
class Format:
    """`levels[l]` stores dimension `order[l]`; `index_bits` is the width of its index arrays, 32 or 64."""

    name: str
    order: tuple[int, ...]
    levels: tuple[Level, ...]
    index_bits: int = 32

    @property
    def rank(self) -> int:
        return len(self.order)

    def level_of(self, dimension: int) -> int:
        """The level that stores `dimension`."""
        return self.order.index(dimension)


def csr(index_bits: int = 32) -> Format:
    """Rows dense, columns compressed."""
    return Format("csr", (0, 1), (Dense(), Compressed()), index_bits)


def csc(index_bits: int = 32) -> Format:
    """Columns dense, rows compressed."""
    return Format("csc", (1, 0), (Dense(), Compressed()), index_bits)


def coo(rank: int = 2, index_bits: int = 32) -> Format:
    """One compressed level whose coordinates repeat, singletons below it; coordinates in lexicographic order."""
    return Format("coo", tuple(range(rank)), (Compressed(unique=rank == 1), *(Singleton() for _ in range(rank - 1))), index_bits)


def dcsr(index_bits: int = 32) -> Format:
    """Both dimensions compressed: for matrices most of whose rows are empty."""
    return Format("dcsr", (0, 1), (Compressed(), Compressed()), index_bits)


def csf(rank: int, index_bits: int = 32) -> Format:
    """Every dimension compressed: a tree of fibres."""
    return Format("csf", tuple(range(rank)), tuple(Compressed() for _ in range(rank)), index_bits)
