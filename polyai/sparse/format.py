"""A format: an affine map from dimensions to levels, and the levels. CSR, CSC, COO, BSR are values of this one class.

    Format       name, order, levels, index_bits, parts
    level l      stores part `parts[l]` of dimension `order[l]`
    Part         Whole                  the coordinate i
               | Block(size)            i // size
               | Inner(size)            i % size
               | Shift(to)              j - i, for j the coordinate of dimension `to`, which a later level stores

A format without `parts` stores whole dimensions. A 2x3 BSR matrix: levels (dense, compressed, dense, dense) of
(i // 2, j // 3, i % 2, j % 3). DIA: levels (slots, strip) of (j - i, j).

A format is *padded* if it may hold positions outside the tensor: they are not stored, whatever their values say.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Any, Union, assert_never

from polyai.errors import ShapeError
from polyai.shapes.expr import Size, floordiv
from polyai.sparse.level import Level
from polyai.sparse.levels.compressed import Compressed
from polyai.sparse.levels.dense import Dense
from polyai.term.late import late
from polyai.term.node import node

if TYPE_CHECKING:
    from polyai.sparse.levels import banded as bands
    from polyai.sparse.levels import bitmap as bits
    from polyai.sparse.levels import singleton, slots, strip
    from polyai.sparse.levels import structured as groups
else:
    bands, bits, singleton = late("polyai.sparse.levels.banded"), late("polyai.sparse.levels.bitmap"), late("polyai.sparse.levels.singleton")
    slots, strip, groups = late("polyai.sparse.levels.slots"), late("polyai.sparse.levels.strip"), late("polyai.sparse.levels.structured")


@node
class Whole:
    """The coordinate itself."""


@node
class Block:
    """The number of the block of `size` coordinates: i // size. The extent is a multiple of `size`."""

    size: int


@node
class Inner:
    """The place inside a block of `size` coordinates: i % size."""

    size: int


@node
class Shift:
    """How far dimension `to` lies beyond this one: the number of the diagonal, j - i."""

    to: int


Part = Union[Whole, Block, Inner, Shift]


@node
class Format:
    """`levels[l]` stores `parts[l]` of dimension `order[l]`; `index_bits` is the width of its index arrays, 8, 16, 32 or 64.

    `owned`: the arrays were checked, ascend without repeats, and cannot change, so kernels use them as they are.
    `near`: what one fibre names, others have named shortly before, so kernels need not ask for it early.
    `filling`: what every element is that is not stored, if that is not zero. Kernels know zero only; other values are the frontend's (`filled`).
    """

    name: str
    order: tuple[int, ...]
    levels: tuple[Level, ...]
    index_bits: int = 32
    parts: tuple[Part, ...] = ()
    owned: bool = False
    near: bool = False
    filling: tuple[bool | int | float | complex, ...] = ()

    @property
    def fill_value(self) -> bool | int | float | complex:
        """What every element is that is not stored."""
        return self.filling[0] if self.filling else 0

    @property
    def rank(self) -> int:
        return len(set(self.order))

    def part(self, level: int) -> Part:
        """What level `level` stores of its dimension."""
        return self.parts[level] if self.parts else Whole()

    @property
    def counted(self) -> tuple[int, ...]:
        """The levels above the last listed one that are listed, too: only their arrays know how many positions they have."""
        return tuple(n for n, level in enumerate(self.levels) if level.name == "compressed")[:-1]

    @property
    def lists(self) -> tuple[int, ...]:
        """The levels of a list of elements that has the coordinates of several: a compressed level that repeats coordinates, and
        those below; () if there is none."""
        first = next((n for n, level in enumerate(self.levels) if level.name == "compressed" and not level.unique), None)
        return () if first is None else tuple(range(first, len(self.levels)))

    @property
    def merged(self) -> int | None:
        """The level whose fibres a merge walks: a compressed one below dense ones, which lists the coordinates of all dimensions that
        are not above it. None if there is no such level."""
        above = next((n for n, level in enumerate(self.levels) if not level.full), len(self.levels))
        if self.parts or above == len(self.levels) or self.levels[above].name != "compressed":
            return None
        below = self.levels[above + 1 :]
        return above if all(level.name == "singleton" for level in below) and (below or self.levels[above].unique or self.rank == 1) else None

    @property
    def tail(self) -> int:
        """How many dense levels lie below the last listed one: the dimensions of the dense block at each of its positions."""
        return next((n for n, level in enumerate(reversed(self.levels)) if not level.full), 0)

    def level_of(self, dimension: int) -> int:
        """The first level that stores (a part of) `dimension`."""
        return self.order.index(dimension)

    def levels_of(self, dimension: int) -> tuple[int, ...]:
        """The levels that store `dimension`, blocks before what is inside them."""
        return tuple(level for level, d in enumerate(self.order) if d == dimension)

    def block(self, dimension: int) -> int:
        """The size of the blocks that `dimension` is cut into; 0 if it is whole."""
        sizes = (part.size for level in self.levels_of(dimension) if isinstance(part := self.part(level), (Block, Inner)))
        return next(sizes, 0)

    @property
    def blocked(self) -> bool:
        """True if some dimension is cut into blocks."""
        return any(isinstance(part, (Block, Inner)) for part in self.parts)

    @property
    def padded(self) -> bool:
        """True if some positions may lie outside the tensor."""
        return any(level.sized or level.gaps for level in self.levels)

    @property
    def fill(self) -> int:
        """How many elements each position of the last level with index arrays holds: the size of a dense block below it."""
        out = 1
        for level in range(len(self.levels) - 1, -1, -1):
            part = self.part(level)
            if not self.levels[level].full or not isinstance(part, Inner):
                break
            out *= part.size
        return out

    def level_extents(self, shape: Sequence[Size]) -> tuple[Size, ...]:
        """How far the coordinates of each level run, for a tensor of `shape`."""
        return tuple(extent(self.part(level), shape[d]) for level, d in enumerate(self.order))

    def taken_apart(self, coordinates: Sequence[Any]) -> tuple[Any, ...]:
        """The coordinates of each level of numbers or NumPy arrays, one per dimension."""
        return tuple(_apart(self.part(level), d, coordinates) for level, d in enumerate(self.order))

    def put_together(self, coordinates: Sequence[Any]) -> tuple[Any, ...]:
        """The inverse of `taken_apart`: one number or array per dimension."""
        out: dict[int, Any] = {}
        for level, dimension in enumerate(self.order):
            mine = coordinates[level]
            part = self.part(level)
            if isinstance(part, Block):
                mine = mine * part.size
            out[dimension] = out[dimension] + mine if dimension in out else mine
        for level, dimension in enumerate(self.order):
            part = self.part(level)
            if isinstance(part, Shift):
                out[dimension] = out[part.to] - out[dimension]
        return tuple(out[d] for d in range(self.rank))

    def unblocked(self) -> Format:
        """The format of the same storage seen as a tensor whose cut dimensions are two: block, then place inside.

        BSR of (i, j) becomes order (0, 2, 1, 3) of (i // b, i % b, j // c, j % c).
        """
        if not self.blocked:
            return self
        first, count = {}, 0
        for dimension in range(self.rank):
            first[dimension] = count
            count += len(self.levels_of(dimension))
        order = tuple(first[d] + isinstance(self.part(level), Inner) for level, d in enumerate(self.order))
        return replace(self, order=order, parts=())


@cache
def shared(format: Format) -> Format:
    """One object for all equal formats, so that a call need only look whether it is that one."""
    return format


def with_fill(format: Format, value: bool | int | float | complex) -> Format:
    """The format with another fill value; NaN is one object, so that formats with it are equal."""
    filling = () if value == 0 else (math.nan if value != value else value,)
    return shared(replace(format, filling=filling))


def extent(part: Part, whole: Size) -> Size:
    """How far the coordinates of a part of a dimension of extent `whole` run."""
    match part:
        case Whole() | Shift():
            return whole
        case Block(size):
            return floordiv(whole, size)
        case Inner(size):
            return size
        case _:
            assert_never(part)


def _apart(part: Part, dimension: int, coordinates: Sequence[Any]) -> Any:
    match part:
        case Whole():
            return coordinates[dimension]
        case Block(size):
            return coordinates[dimension] // size
        case Inner(size):
            return coordinates[dimension] % size
        case Shift(to):
            return coordinates[to] - coordinates[dimension]
        case _:
            assert_never(part)


def csr(index_bits: int = 32) -> Format:
    """Rows dense, columns compressed."""
    return Format("csr", (0, 1), (Dense(), Compressed()), index_bits)


def csc(index_bits: int = 32) -> Format:
    """Columns dense, rows compressed."""
    return Format("csc", (1, 0), (Dense(), Compressed()), index_bits)


def bsr(rows: int, columns: int, index_bits: int = 32) -> Format:
    """Dense blocks of `rows` x `columns`: block rows dense, block columns compressed. The shape is a multiple of the block."""
    parts = (Block(rows), Block(columns), Inner(rows), Inner(columns))
    return Format("bsr", (0, 1, 0, 1), (Dense(), Compressed(), Dense(), Dense()), index_bits, parts)


def dia(index_bits: int = 32) -> Format:
    """Diagonals j - i = const: their offsets listed in any order, their elements by column."""
    return Format("dia", (0, 1), (slots.Slots(ordered=False), strip.Strip()), index_bits, (Shift(1), Whole()))


def ell(index_bits: int = 32) -> Format:
    """Rows dense, each with the same number of slots for its columns; empty slots have column -1."""
    return Format("ell", (0, 1), (Dense(), slots.Slots()), index_bits)


def structured(n: int, m: int, index_bits: int = 8) -> Format:
    """Rows dense, of each `m` neighbouring columns at most `n` stored, each with its place among the m: n:m sparsity, as in 2:4.

    `n` slots of a group that are not needed are empty. Raises ShapeError unless 0 < n <= m and places fit `index_bits`.
    """
    if not 0 < n <= m:
        raise ShapeError(f"{n}:{m} sparsity", "of m neighbours n are stored, 0 < n <= m", "write structured(2, 4)")
    if m > 1 << (index_bits - 1):
        raise ShapeError(f"{n}:{m} sparsity with indices of {index_bits} bits", f"places run to {m - 1}", "give more index_bits")
    return Format(f"{n}:{m}", (0, 1), (Dense(), groups.Structured(n, m)), index_bits)


def banded(below: int, above: int) -> Format:
    """Rows dense, each with its columns from `below` before the diagonal to `above` after it."""
    return Format("banded", (0, 1), (Dense(), bands.Banded(below, above)))


def bitmap(index_bits: int = 32) -> Format:
    """Rows dense, and a flag for each column of each."""
    return Format("bitmap", (0, 1), (Dense(), bits.Bitmap()), index_bits)


def coo(rank: int = 2, index_bits: int = 32) -> Format:
    """One compressed level whose coordinates repeat, singletons below it; coordinates in lexicographic order."""
    return Format("coo", tuple(range(rank)), (Compressed(unique=rank == 1), *(singleton.Singleton() for _ in range(rank - 1))), index_bits)


def select(rank: int = 2) -> Format:
    """One coordinate of the last dimension below each combination of the others, which no array lists: it is computed."""
    return Format("select", tuple(range(rank)), (*(Dense() for _ in range(rank - 1)), singleton.Singleton()))


def dcsr(index_bits: int = 32) -> Format:
    """Both dimensions compressed: for matrices most of whose rows are empty."""
    return Format("dcsr", (0, 1), (Compressed(), Compressed()), index_bits)


def dcsc(index_bits: int = 32) -> Format:
    """Both dimensions compressed, columns first: for matrices most of whose columns are empty."""
    return Format("dcsc", (1, 0), (Compressed(), Compressed()), index_bits)


def csl(rank: int, index_bits: int = 32, order: Sequence[int] | None = None) -> Format:
    """Compressed slices: the outermost dimension compressed, below each of its coordinates a list of those of all others.

    Where fibres are short it is faster than a tree (Nisa, Li, Sukumaran-Rajam, Vuduc, Sadayappan, IPDPS 2019).
    """
    inner = (Compressed(unique=False), *(singleton.Singleton() for _ in range(rank - 2))) if rank > 2 else (Compressed(),) * (rank - 1)
    return Format("csl", tuple(range(rank) if order is None else order), (Compressed(), *inner), index_bits)


def rows(rank: int, index_bits: int = 32, order: Sequence[int] | None = None) -> Format:
    """CSR of any rank: the outermost dimension dense, below each of its coordinates a list of those of all others."""
    form = csl(rank, index_bits, order)
    return Format("csr" if form.order == (0, 1) else "rows", form.order, (Dense(), *form.levels[1:]), index_bits)


def csf(rank: int, index_bits: int = 32, order: Sequence[int] | None = None) -> Format:
    """Every dimension compressed: a tree of fibres. `order`: the dimension of each level, outermost first."""
    return Format("csf", tuple(range(rank) if order is None else order), tuple(Compressed() for _ in range(rank)), index_bits)


def checks_its_order(format: Format | None) -> bool:
    """Whether kernels check, fibre by fibre, that the coordinates of this format ascend strictly."""
    if format is None or len(format.levels) < 2:
        return False
    first, second, *rest = format.levels
    return first.full and second.name == "compressed" and all(level.full for level in rest)


def merges_in_order(format: Format | None) -> bool:
    """Whether merges check, as they walk this format, that its coordinates ascend strictly."""
    return checks_its_order(format) or (format is not None and format.rank > 2 and format.merged == 1)
