"""Rows of different lengths: packed values, and offsets that were checked once and cannot change.

The lengths are a compressed level: row b holds the elements offsets[b] <= t < offsets[b + 1] of the values, which lie one after
another. `Offsets` also makes the tables that kernels read, each when it is first wanted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from polyai.errors import DTypeError, ShapeError, SparseStructureError
from polyai.sparse.owned import Owned, frozen, pieces, runs
from polyai.sparse.stands import Batch

Array = NDArray[Any]

BLOCK = 16
"""Elements of a row that attention treats together. A row takes whole blocks, so at most 15 elements more than it has."""


@final
class Offsets:
    """Where each row begins, and one number more: the end of the last. `ends` is read-only, i64, ascends from 0."""

    __slots__ = ("_tables", "ends")

    def __init__(self, offsets: Any, count: int) -> None:
        given = np.asarray(offsets)
        if given.ndim != 1 or not len(given):
            raise ShapeError(f"offsets of shape {given.shape}", "they say where each row begins, and where the last one ends", "pass a list of n + 1 numbers")
        if given.dtype.kind not in "iu":
            raise DTypeError(f"offsets of type {given.dtype}", "offsets count elements", "convert them with .astype(np.int64)")
        ends = given.astype(np.int64)
        if ends[0] != 0:
            raise SparseStructureError(f"offsets[0] is {ends[0]}", "the first row begins at 0", "pass numpy.cumsum of the lengths after a 0")
        steps = np.diff(ends)
        if (steps < 0).any():
            at = int(np.argmax(steps < 0))
            raise SparseStructureError(
                f"offsets decrease from {ends[at]} to {ends[at + 1]} at row {at}", "a row cannot end before it begins", "pass numpy.cumsum of the lengths after a 0"
            )
        if ends[-1] != count:
            raise SparseStructureError(
                f"offsets end at {ends[-1]}", f"there are {count} elements", "the last offset is the number of elements of all rows"
            )
        self.ends = frozen(ends)
        self._tables: dict[Any, Any] = {}

    @property
    def rows(self) -> int:
        return len(self.ends) - 1

    @property
    def count(self) -> int:
        """The elements of all rows."""
        return int(self.ends[-1])

    @property
    def lengths(self) -> Array:
        """The length of each row, i64."""
        found: Array = self._once("lengths", lambda: frozen(np.diff(self.ends)))
        return found

    def same(self, other: Offsets) -> bool:
        """True if both divide as many elements in the same way."""
        return self is other or np.array_equal(self.ends, other.ends)

    def _once(self, key: Any, make: Callable[[], Any]) -> Any:
        found = self._tables.get(key)
        if found is None:
            found = self._tables[key] = make()
        return found

    def table(self, key: tuple[Any, ...], others: Sequence[Offsets]) -> Any:
        """What kernels read: ("pieces",), ("row",), ("lengths",), ("order",), ("blocks",), ("places",), ("seen", other, heads, causal)."""
        match key:
            case ("pieces",):
                return self._once(key, lambda: pieces(self.ends, "ragged"))
            case ("row",):
                return self._once(key, lambda: frozen(np.repeat(np.arange(self.rows, dtype=np.int32), self.lengths)))
            case ("lengths",):
                return self.lengths
            case ("order",):
                return self._once(key, lambda: frozen(np.arange(self.count, dtype=np.int32)))
            case ("blocks",):
                return self._once(key, self._blocks)
            case ("places",):
                return self._once(key, self._places)
            case ("seen", other, heads, causal):
                at = others[other]
                if at is self:
                    return self._once(("seen", heads, causal), lambda: self._seen(self, heads, causal))
                kept = self._tables.get(("seen by", heads))
                if kept is None or kept[0] is not at:
                    kept = self._tables[("seen by", heads)] = (at, self._seen(at, heads, False))
                return kept[1]
            case _:
                raise AssertionError(key)

    # -- blocks of BLOCK elements, none of which holds elements of two rows

    def _first_blocks(self) -> tuple[Array, Array]:
        """How many blocks each row has, and the number of its first one."""
        counts = -(-self.lengths // BLOCK)
        return counts, np.cumsum(counts) - counts

    def _starts(self) -> tuple[Array, Array]:
        """The row of each block, and the element that it begins with."""
        counts, first = self._first_blocks()
        row = np.repeat(np.arange(self.rows), counts)
        inside = np.arange(len(row)) - np.repeat(first, counts)
        return row, self.ends[row] + inside * BLOCK

    def _blocks(self) -> Array:
        """The elements of each block; where the row ends inside, its last element again."""
        row, start = self._starts()
        found = np.minimum(start[:, None] + np.arange(BLOCK), self.ends[row + 1][:, None] - 1)
        return frozen(found.astype(np.int32 if self.count < 1 << 31 else np.int64))

    def _places(self) -> Array:
        """The place of each element in the blocks: BLOCK * block + place inside."""
        _, first = self._first_blocks()
        found = np.arange(self.count) + np.repeat(first * BLOCK - self.ends[:-1], self.lengths)
        return frozen(found.astype(np.int32 if self.count < 1 << 27 else np.int64))

    def _seen(self, other: Offsets, heads: int, causal: bool) -> Owned:
        """For each block, and each of `heads` if that is not 0, the elements of `other` in the same row; if `causal`, up to the last
        one of the block."""
        row, start = self._starts()
        first, count = other.ends[row], other.lengths[row]
        if causal:
            count = np.minimum(count, start - self.ends[row] + BLOCK)
        if not heads:
            return runs(first, count, (len(row),), other.count, BLOCK)
        return runs(np.repeat(first, heads), np.repeat(count, heads), (len(row), heads), other.count, BLOCK)


@final
class Ragged(Batch):
    """A batch of rows of different lengths, an argument and a result of compiled functions. `values` holds the rows one after
    another, shape (elements, ...); `offsets` where each begins. Made by `ragged` and `ragged_from_padded`."""

    __slots__ = ("batch", "values")

    __array_ufunc__ = None

    def __init__(self, values: Array, batch: Offsets) -> None:
        self.values, self.batch = values, batch

    @property
    def offsets(self) -> Array:
        """Where each row begins in `values`, and where the last one ends; read-only, i64."""
        return self.batch.ends

    @property
    def lengths(self) -> Array:
        """The length of each row; read-only, i64."""
        return self.batch.lengths

    @property
    def shape(self) -> tuple[int | None, ...]:
        """(rows, None, ...): the second dimension has another extent in each row."""
        return (self.batch.rows, None, *self.values.shape[1:])

    @property
    def ndim(self) -> int:
        return self.values.ndim + 1

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.values.dtype

    def __len__(self) -> int:
        return self.batch.rows

    def __getitem__(self, row: int) -> Array:
        """Row number `row`, a view. Raises IndexError outside."""
        number = range(self.batch.rows)[row]
        found: Array = self.values[self.offsets[number] : self.offsets[number + 1]]
        return found

    def __iter__(self) -> Iterator[Array]:
        return (self[n] for n in range(len(self)))

    def astype(self, dtype: Any) -> Ragged:
        """The same rows with values of another type."""
        return Ragged(self.values.astype(dtype), self.batch)

    def with_values(self, values: Any) -> Ragged:
        """Rows of the same lengths with other values, one for each element. Raises ShapeError for another number of them."""
        given = np.asarray(values)
        if not given.ndim or len(given) != self.batch.count:
            raise ShapeError(f"values of shape {given.shape}", f"the rows have {self.batch.count} elements", "pass one value per element")
        return Ragged(given, self.batch)

    def to_list(self) -> list[Array]:
        """The rows as arrays of their own."""
        return [row.copy() for row in self]

    def to_padded(self, fill: Any = 0) -> Array:
        """(rows, longest, ...) with `fill` behind the end of each row."""
        longest = int(self.lengths.max(initial=0))
        out = np.full((len(self), longest, *self.values.shape[1:]), fill, self.dtype)
        out[np.arange(longest) < self.lengths[:, None]] = self.values
        return out

    def __repr__(self) -> str:
        items = "".join(f", {n}" for n in self.values.shape[1:])
        return f"<Ragged ({len(self)}, {self.lengths.min(initial=0)}..{self.lengths.max(initial=0)}{items}) {self.dtype}, {self.batch.count} elements>"


def ragged(rows: Any, offsets: Any = None, *, lengths: Any = None) -> Ragged:
    """A batch of rows of different lengths.

        ragged([x0, x1, x2])                each (length, ...), alike in what follows
        ragged(values, offsets=[0, 3, 3, 8])
        ragged(values, lengths=[3, 0, 5])

    Args:
        rows: The rows, or the values of all of them one after another. Values are borrowed if they are contiguous.
        offsets: Where each row begins in the values, and where the last one ends. Copied, checked once, and never changed.
        lengths: The lengths of the rows instead.

    Raises SparseStructureError for offsets that do not ascend from 0 to the number of values, ShapeError for rows that differ
    in more than their length, DTypeError for rows of different element types.
    """
    if offsets is not None and lengths is not None:
        raise ShapeError("offsets and lengths are both given", "each says where rows begin", "pass one of them")
    if offsets is None and lengths is None:
        return _joined(rows)
    values = np.asarray(rows)
    if not values.ndim:
        raise ShapeError("the values of a ragged batch are a scalar", "", "pass an array of shape (elements, ...)")
    return Ragged(np.ascontiguousarray(values), Offsets(_ends(lengths) if offsets is None else offsets, len(values)))


def _ends(lengths: Any) -> Array:
    given = np.asarray(lengths)
    if given.size and given.dtype.kind not in "iu":
        raise DTypeError(f"lengths of type {given.dtype}", "lengths count elements", "convert them with .astype(np.int64)")
    if given.ndim != 1:
        raise ShapeError(f"lengths of shape {given.shape}", "there is one for each row", "pass a list of numbers")
    if (given < 0).any():
        raise SparseStructureError(f"the length of row {int(np.argmax(given < 0))} is {given.min()}", "", "lengths are at least 0")
    out = np.zeros(len(given) + 1, np.int64)
    np.cumsum(given, out=out[1:])
    return out


def _joined(rows: Any) -> Ragged:
    if isinstance(rows, (Ragged, np.ndarray)) or not isinstance(rows, (list, tuple)):
        raise ShapeError(f"ragged of a {type(rows).__name__} without offsets", "it does not say where rows begin", "pass a list of rows, or offsets=")
    plain = [r for r in rows if not isinstance(r, np.ndarray) and len(r)] or [r for r in rows if isinstance(r, np.ndarray)]
    other = np.asarray(plain[0]).dtype if plain else np.dtype(np.float64)
    found = [r if isinstance(r, np.ndarray) else np.asarray(r) if len(r) else np.asarray(r, other) for r in rows]
    if not found:
        return Ragged(np.zeros(0), Offsets([0], 0))
    first = found[0]
    for n, row in enumerate(found):
        if not row.ndim:
            raise ShapeError(f"row {n} is a scalar", "a row has a length", f"write [{row}]")
        if row.dtype != first.dtype:
            raise DTypeError(f"row 0 holds {first.dtype}, row {n} {row.dtype}", "all values of a batch have one element type", "convert them with .astype")
        if row.shape[1:] != first.shape[1:]:
            raise ShapeError(f"row 0 has the shape {first.shape}, row {n} {row.shape}", "rows differ in length only", "make what follows the length alike")
    return Ragged(np.concatenate(found), Offsets(_ends([len(r) for r in found]), sum(map(len, found))))


def ragged_from_padded(x: Any, lengths: Any) -> Ragged:
    """The first `lengths[b]` elements of each row of `x`, shape (rows, longest, ...), as a ragged batch. Copies.

    Raises ShapeError where there is not one length for each row, or one is longer than x.
    """
    given = np.asarray(x)
    ends = _ends(lengths)
    if given.ndim < 2 or len(ends) - 1 != len(given):
        raise ShapeError(f"{len(ends) - 1} lengths for an array of shape {given.shape}", "there is one for each row", "pass x of shape (rows, longest, ...)")
    each = np.diff(ends)
    if (each > given.shape[1]).any():
        at = int(np.argmax(each > given.shape[1]))
        raise ShapeError(f"the length of row {at} is {each[at]}", f"x has {given.shape[1]} elements per row", "lengths are at most x.shape[1]")
    return Ragged(given[np.arange(given.shape[1]) < each[:, None]], Offsets(ends, int(ends[-1])))
